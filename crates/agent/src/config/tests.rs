use std::path::PathBuf;

use super::*;

const EXAMPLE: &str = include_str!("../../../../packaging/fleethand.toml");
const MINIMAL: &str = "[connection]\nendpoint = \"e\"\nthing_name = \"t\"\ncertificate = \"c.pem\"\nprivate_key = \"k.pem\"\nroot_ca = \"r.pem\"\n";

fn load(text: &str) -> Result<Settings, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleethand.toml");
    std::fs::write(&file, text).unwrap();
    Settings::load(&file)
}

fn message(text: &str) -> String {
    let error = load(text).unwrap_err().to_string();
    error.split_once("fleethand.toml").unwrap().1.to_owned()
}

/// A folder with one key.
fn keys() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let pem = release::SigningKey::generate(release::Kind::P256).unwrap();
    let key = release::SigningKey::from_pem(pem.as_bytes()).unwrap();
    std::fs::write(folder.path().join("maker.pem"), key.public().to_pem()).unwrap();
    folder
}

/// The example is the documentation of every key: what it shows as defaults must be the defaults.
#[test]
fn the_example_documents_the_defaults() {
    let shown = load(EXAMPLE).unwrap().to_string();
    let uncommented: String = EXAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(line))
        .map(|l| format!("{l}\n"))
        .collect();
    let keys = keys();
    let all = load(&uncommented.replace("/etc/fleethand/keys.d", &keys.path().to_string_lossy())).unwrap();
    assert!(all.host.trust.is_some() && !all.host.compatible.is_empty());
    assert!(all.host.firmware.is_some() && !all.host.configs.is_empty());
    let mut all = all;
    all.host.firmware = None;
    all.configs.clear();
    assert_eq!(all.shadows.files.len(), 1);
    all.shadows = Default::default();
    all.host.configs.clear();
    assert_eq!((all.policy.windows.len(), all.host.hook.is_some()), (2, true));
    all.policy = Policy::default();
    all.host.hook = None;
    all.host.trust = None;
    all.host.compatible.clear();
    all.download.root_ca = None;
    assert!(all.download.proxy.take().is_some());
    all.connection.proxy = Proxy::None;
    assert!(all.provisioning.claim.is_some() && all.provisioning.parameters.len() == 2);
    all.provisioning = Provisioning::default();
    assert!(all.metrics.is_some());
    all.metrics = None;
    assert!(all.publish.is_some());
    all.publish = None;
    assert_eq!(all.to_string(), shown);
}

#[test]
fn what_is_printed_can_be_read_again() {
    let text = format!(
        "{MINIMAL}[firmware]\nfile = \"/f\"\ncommand = [\"/bin/true\", \"a b\"]\n[[config]]\nfile = \"/c.toml\"\n\
         [[config]]\nname = \"d\"\nfile = \"/d\"\nformat = \"yaml\"\nhealth_command = [\"/bin/true\"]\n\
         health_timeout_seconds = 7\n\
         [[policy.windows]]\nstart = \"*/5 2 * * Sat-Sun\"\nminutes = 7\n[policy]\nhook = [\"h\", \"a\"]\n"
    );
    let keys = keys();
    let signed = format!("[device]\ncompatible = [\"b\"]\n[release]\nkeys = {:?}\n", keys.path());
    let printed = load(&(text + &signed)).unwrap().to_string();
    assert!(printed.contains("threshold = 1"), "{printed}");
    assert_eq!(load(&printed).unwrap().to_string(), printed);
    let installer = "[firmware]\ntarget = \"command\"\n[firmware.installer]\ncommand = [\"/i\", \"a b\"]\n";
    let printed = load(&format!("{MINIMAL}{installer}")).unwrap().to_string();
    assert!(printed.contains("staging = \"/var/lib/fleethand/staging\""), "{printed}");
    assert_eq!(load(&printed).unwrap().to_string(), printed);
}

#[test]
fn what_may_be_published_is_said_exactly() {
    let publish = |lines: &str| format!("{MINIMAL}[publish]\n{lines}\n");
    let prefixes = "topic_prefix = [\"dt/{thing_name}/\", \"alarms/\"]";
    let settings = load(&publish(&format!("socket = \"/s\"\ngzip = true\n{prefixes}"))).unwrap();
    let publishes = settings.publish.clone().unwrap();
    assert_eq!(publishes.rules.prefixes, ["dt/t/", "alarms/"]);
    assert_eq!(publishes.rules.suffix, "/gzip");
    let printed = settings.to_string();
    assert_eq!(load(&printed).unwrap().to_string(), printed);
    for (lines, problem) in [
        ("", "[publish] socket: not set"),
        ("socket = \"/s\"", "topic_prefix: expected at least one"),
        ("socket = \"/s\"\ntopic_prefix = [\"dt\"]", "\"dt\" does not end with a slash"),
        ("socket = \"/s\"\ntopic_prefix = [\"$aws/\"]", "\"$aws/\" begins with `$`"),
        (
            "socket = \"/s\"\ntopic_prefix = [\"dt/\"]\ngzip_suffix = \"/#\"",
            "gzip_suffix: expected something",
        ),
        ("socket = \"/s\"\ntopic_prefix = [\"dt/\"]\nmax_bytes = 7", "max_bytes: "),
    ] {
        let said = message(&publish(lines));
        assert!(said.contains(problem), "{lines}: {said}");
    }
}

#[test]
fn each_transport_has_its_port_and_auto_has_two() {
    for (lines, transport, ports) in [
        ("", "tls", (8883, None)),
        ("port = 443", "tls", (443, None)),
        ("transport = \"alpn\"", "alpn", (443, None)),
        ("transport = \"alpn\"\nport = 8443", "alpn", (8443, None)),
        ("transport = \"auto\"", "auto", (8883, Some(443))),
    ] {
        let settings = load(&format!("{MINIMAL}{lines}\n")).unwrap();
        let c = &settings.connection;
        assert_eq!((c.transport(), (c.route.port, c.fallback.as_ref().map(|r| r.port))), (transport, ports));
        let printed = settings.to_string();
        assert_eq!(load(&printed).unwrap().to_string(), printed);
    }
    assert!(
        message(&format!("{MINIMAL}transport = \"auto\"\nport = 1\n")).contains("port: expected none beside")
    );
    assert!(
        message(&format!("{MINIMAL}transport = \"mqtt\"\n")).contains("found \"mqtt\", expected \"tls\"")
    );
}

#[cfg(feature = "websocket")]
#[test]
fn a_websocket_needs_no_certificate_and_every_source_of_credentials_is_printed_as_it_is_read() {
    const ENDPOINT: &str = "endpoint = \"p-ats.iot.eu-west-1.amazonaws.com\"\nthing_name = \"t\"\n";
    let identity = MINIMAL.split_once("thing_name = \"t\"\n").unwrap().1;
    let with = |more: &str, credentials: &str| {
        format!("[connection]\ntransport = \"websocket\"\n{ENDPOINT}{more}{credentials}")
    };
    let pool = "[credentials.cognito]\nidentity_pool = \"us-east-1:0000-1111\"\n";
    let alias = "[credentials.role_alias]\nendpoint = \"c\"\nname = \"fleet\"\n";
    for (credentials, expected) in [
        ("", "region = \"eu-west-1\"\n# profile: "),
        (
            "[credentials]\nregion = \"us-east-2\"\nprofile = \"fleet\"\n",
            "region = \"us-east-2\"\nprofile = \"fleet\"\n",
        ),
        (pool, "# login: none, a guest\n"),
        (
            &format!("{pool}login = \"a.b/c\"\ntoken_command = [\"/t\", \"x\"]\n"),
            "token_command = [\"/t\", \"x\"]\n",
        ),
        (
            &format!("{pool}login = \"a.b/c\"\ntoken_file = \"/t\"\nurl = \"https://l\"\n"),
            "url = \"https://l\"\n",
        ),
        (alias, "endpoint = \"c\"\nport = 443\nname = \"fleet\"\n"),
    ] {
        let printed = load(&with(identity, credentials)).unwrap().to_string();
        assert!(printed.contains(expected), "{printed}");
        assert_eq!(load(&printed).unwrap().to_string(), printed);
    }
    let anonymous = load(&with("", pool)).unwrap();
    assert!(anonymous.connection.anonymous.as_ref().is_some_and(|anonymous| anonymous.root_ca.is_none()));
    assert_eq!(load(&anonymous.to_string()).unwrap().to_string(), anonymous.to_string());
    for (more, credentials, expected) in [
        ("", alias, "[connection] certificate: not set"),
        ("certificate = \"c\"\n", "", "[connection] private_key: not set"),
        ("", "[credentials.cognito]\nidentity_pool = \"eu\"\n", "expected REGION:GUID"),
        ("", &format!("{pool}login = \"a\"\n"), "either token_file or token_command"),
        ("", &format!("{pool}{alias}"), "expected one of cognito and role_alias"),
    ] {
        let said = message(&with(more, credentials));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_proxys_password_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    for lines in [
        "proxy = \"http://u:hunter2@proxy:3128\"".to_owned(),
        format!("proxy = \"http://u@proxy:3128\"\nproxy_password_file = {file:?}"),
    ] {
        let settings = load(&format!("{MINIMAL}{lines}\n")).unwrap();
        let Proxy::Http(proxy) = &settings.connection.proxy else { panic!("{settings:?}") };
        assert_eq!(proxy.url(), "http://u:hunter2@proxy:3128");
        let printed = settings.to_string();
        assert!(printed.contains("\nproxy = \"http://u@proxy:3128\" # and its password\n"), "{printed}");
        assert!(!(printed + &format!("{settings:?}")).contains("hunter2"));
    }
    for lines in [
        "proxy = [\"http://u:hunter2@proxy:3128\"]",
        "proxy = \"u:hunter2@proxy:3128\"",
        "proxy = \"https://u:hunter2@proxy:3128\"",
    ] {
        let said = message(&format!("{MINIMAL}{lines}\n"));
        assert!(said.contains("[connection] proxy: ") && !said.contains("hunter2"), "{said}");
    }
    let said = message(&format!("{MINIMAL}proxy = \"http://u@p:1\"\nproxy_password_file = \"nowhere\"\n"));
    assert!(said.contains("proxy_password_file: ") && said.contains("No such file"), "{said}");
}

const CLAIM: &str = "[connection]\nendpoint = \"e\"\nroot_ca = \"r.pem\"\n[provisioning]\ntemplate = \"t\"\n\
    claim_certificate = \"c.pem\"\nclaim_private_key = \"k.pem\"\nrotation_template = \"r\"\n\
    parameters = { A = \"x\", \"b c\" = { command = [\"/bin/echo\", \"1\"] } }\n";

#[test]
fn with_a_claim_the_cloud_says_who_this_is() {
    let settings = load(CLAIM).unwrap();
    let claim = settings.awaits_provisioning().unwrap();
    assert_eq!((claim.template.as_str(), settings.connection.thing_name.as_str()), ("t", ""));
    assert!(claim.files.root_ca.ends_with("r.pem"));
    assert_eq!(settings.provisioning.parameters.len(), 2);
    let printed = settings.to_string();
    assert!(printed.contains("\"b c\" = { command = [\"/bin/echo\", \"1\"] }"), "{printed}");
    assert_eq!(load(&printed).unwrap().provisioning.parameters, settings.provisioning.parameters);
    let with = |line: &str| message(&CLAIM.replace("template = \"t\"\n", line));
    for (line, expected) in [
        ("", "[provisioning] claim_certificate: found an unknown key"),
        ("template = \"a/b\"\n", "[provisioning] template: expected 1 to 36"),
        ("template = \"t\"\ntemplates = 1\n", "[provisioning] templates"),
    ] {
        assert!(with(line).contains(expected), "{line}: {}", with(line));
    }
    let parameter = |value: &str| message(&CLAIM.replace("\"x\"", value));
    for value in ["1", "\"\"", "{ command = [] }", "{ commands = [\"a\"] }", "{ command = [\"a\"], x = 1 }"] {
        assert!(parameter(value).contains("[provisioning.parameters] A"), "{value}: {}", parameter(value));
    }
}

const SLOTS: &str =
    "[firmware]\ntarget = \"slots\"\n[firmware.slots]\nA = \"/dev/a\"\n\"b.1\" = \"/dev/b\"\n";

const SWUPDATE: &str =
    "[firmware]\ntarget = \"swupdate\"\n[firmware.swupdate]\nmodes = { A = \"x\", \"b.1\" = \"y\" }\n";

#[test]
fn slots_and_every_bootloader_are_printed_as_they_are_read() {
    let boots = [
        "kind = \"grub\"",
        "kind = \"u-boot\"\nconfig = \"/c\"\ntries = 9",
        "kind = \"command\"\ncommand = [\"/b\", \"x\"]",
        "kind = \"command\"\ncommand = [\"/b\"]\nbooted = \"cmdline\"\ncmdline_parameter = \"rauc.slot\"",
    ];
    for boot in boots {
        let printed = load(&format!("{MINIMAL}{SLOTS}[boot]\n{boot}\n")).unwrap().to_string();
        assert!(printed.contains("\n\"b.1\" = \"/dev/b\"\n\n[boot]\n"), "{printed}");
        assert_eq!(load(&printed).unwrap().to_string(), printed);
        let printed = load(&format!("{MINIMAL}{SWUPDATE}[boot]\n{boot}\n")).unwrap().to_string();
        assert!(printed.contains("\n\"b.1\" = \"y\"\n\n[boot]\n"), "{printed}");
        assert_eq!(load(&printed).unwrap().to_string(), printed);
    }
}

#[cfg(feature = "rauc")]
#[test]
fn everything_about_rauc_has_a_default() {
    let printed = load(&format!("{MINIMAL}[firmware]\ntarget = \"rauc\"\n")).unwrap().to_string();
    let example: String = EXAMPLE
        .split_once("# [firmware.rauc]\n")
        .unwrap()
        .1
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(printed.contains(&format!("[firmware.rauc]\n{example}")), "{printed}\n{example}");
    assert_eq!(load(&printed).unwrap().to_string(), printed);
    let wrong = message(&format!("{MINIMAL}[firmware]\ntarget = \"rauc\"\nfile = \"/f\"\n"));
    assert!(wrong.starts_with(":9: [firmware] file: found an unknown key"), "{wrong}");
    let wrong = message(&format!("{MINIMAL}[firmware]\ntarget = \"rauc\"\n[firmware.rauc]\nslot = 1\n"));
    assert!(wrong.starts_with(":10: [firmware.rauc] slot: found an unknown key"), "{wrong}");
}

#[cfg(not(feature = "rauc"))]
#[test]
fn the_small_build_says_that_it_is_without_rauc() {
    let found = message(&format!("{MINIMAL}[firmware]\ntarget = \"rauc\"\n"));
    assert_eq!(found, ": [firmware] target: this fleethand was built without the feature rauc");
}

#[test]
fn relative_paths_count_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleethand.toml");
    std::fs::write(&file, format!("state_directory = \"state\"\n{MINIMAL}")).unwrap();
    let settings = Settings::load(&file).unwrap();
    assert_eq!(settings.host.state_directory, folder.path().join("state"));
    assert_eq!(settings.connection.identity.certificate, folder.path().join("c.pem"));
}

#[test]
fn the_client_id_is_the_thing_name_unless_set() {
    assert_eq!(load(MINIMAL).unwrap().connection.client_id, "t");
    let set = MINIMAL.replace("thing_name", "client_id = \"other\"\nthing_name");
    assert_eq!(load(&set).unwrap().connection.client_id, "other");
}

#[test]
fn an_error_names_line_key_what_was_found_and_what_was_expected() {
    let with = |extra: &str| format!("{MINIMAL}{extra}");
    let slots = |lines: &str| {
        let boot = "[boot]\nkind = \"grub\"\n";
        format!("{MINIMAL}{boot}[firmware]\ntarget = \"slots\"\n[firmware.slots]\n{lines}")
    };
    let cases = [
        ("".to_owned(), ": [connection] endpoint: not set, expected a host name"),
        ("port = ".to_owned(), ":1: not TOML:"),
        ("x = 1".to_owned() + "\n" + MINIMAL, ":1: x: found an unknown key"),
        (with("prot = 8883"), ":7: [connection] prot: found an unknown key"),
        (
            with("port = \"8883\""),
            ":7: [connection] port: found \"8883\", expected a whole number from 1 to 65535",
        ),
        (with("port = 0"), ":7: [connection] port: found 0, expected a whole number from 1 to 65535"),
        (with("port = 8883.5"), ":7: [connection] port: found 8883.5, expected a whole number"),
        (with("port = -1"), ":7: [connection] port: found -1, expected a whole number"),
        (with("port = 99999999999999999999"), ":7: [connection] port: found 99999999999999999999"),
        (with("keep_alive_seconds = 1201"), ":7: [connection] keep_alive_seconds: found 1201, expected"),
        (with("client_id = \"$x\""), ": [connection] client_id: expected 1 to 128 bytes"),
        (
            MINIMAL.replace("\"e\"", "\"https://e\""),
            ": [connection] endpoint: \"https://e\" is not a host name",
        ),
        (MINIMAL.replace("\"t\"", "\"a/b\""), ": [connection] thing_name: expected 1 to 128 of"),
        (
            with("[download]\nmax_rate_bytes_per_second = 1023"),
            ": [download] max_rate_bytes_per_second: expected 0",
        ),
        (with("[policy]\nwindows = 5"), ":8: [policy] windows: found 5, expected a table"),
        (with("[policy]\nwindows = [7]"), ":8: [policy] windows: found 7, expected a table"),
        (
            with("[[policy.windows]]\nstart = \"0 2 * * *\""),
            ": [policy.windows] minutes: not set, expected a whole number from 1 to 10080",
        ),
        (
            with("[policy]\nwindows = [{ start = \"0 25 * * *\", minutes = 5 }]"),
            ": [policy.windows] start: hour: found \"25\", expected 0 to 23",
        ),
        (
            with("[policy]\nwindows = [{ start = \"0 2 * * *\", minutes = 5, until = 7 }]"),
            ":8: [policy.windows] until: found an unknown key",
        ),
        (
            with(
                "[policy]\ntime_zone = \"Mars/Olympus\"\nwindows = [{ start = \"* * * * *\", minutes = 5 }]",
            ),
            ": [policy] time_zone: the time zone file /usr/share/zoneinfo/Mars/Olympus cannot be read",
        ),
        (with("[firmware]"), ": [firmware] file: not set, expected a path"),
        (with(SLOTS), ": [firmware] target: \"slots\" needs the table [boot]"),
        (slots("A = \"/a\""), ": [firmware] slots: found 1, expected exactly two slots"),
        (slots("A = \"/a\"\nB = \"/b\"\nC = \"/c\""), ": [firmware] slots: found 3"),
        (slots("A = \"/a\"\nB = \"/a\""), ": [firmware] slots: both slots are \"/a\""),
        (slots("A = \"/a\"\nB = 7"), ":13: [firmware.slots] B: found 7, expected a path"),
        (slots("A = \"/a\"\n\"B C\" = \"/b\""), ": [firmware] slots: \"B C\": a slot's name has"),
        (with(SWUPDATE), ": [firmware] target: \"swupdate\" needs the table [boot]"),
        (
            with(&format!("[boot]\nkind = \"grub\"\n{}", SWUPDATE.replace("\"y\"", "\"x\""))),
            ": [firmware.swupdate] modes: both slots are \"x\"",
        ),
        (
            with(&format!("[boot]\nkind = \"grub\"\n{}", SWUPDATE.replace("\"y\"", "\"y,z\""))),
            ": [firmware.swupdate] modes: \"y,z\" is too long",
        ),
        (with("[boot]\nkind = \"lilo\""), ": [boot] kind: found \"lilo\", expected \"grub\""),
        (with("[boot]\nkind = \"grub\"\ntries = 10"), ":9: [boot] tries: found 10, expected a whole number"),
        (
            with("[boot]\nkind = \"grub\"\nbooted = \"command\""),
            ": [boot] booted: found \"command\", expected \"cmdline\"",
        ),
        (with("[firmware]\nfile = \"/\""), ": [firmware] file: / does not name a file"),
        (with("[firmware]\nfile = 7"), ":8: [firmware] file: found 7, expected a path"),
        (
            with("[firmware]\nfile = \"/f\"\ncommand = \"reboot now\""),
            ":9: [firmware] command: found \"reboot now\", expected an array",
        ),
        (with("[firmware]\nfile = \"/f\"\ncommand = []"), ":9: [firmware] command: found []"),
        (
            with("[firmware]\nfile = \"/f\"\nreload_command = [\"x\"]"),
            ":9: [firmware] reload_command: found an unknown key",
        ),
        (with("[firmware]\ntarget = \"usb\""), ": [firmware] target: found \"usb\", expected \"file\""),
        (
            with("[firmware]\ntarget = \"command\""),
            ": [firmware] installer: not set, expected a table [firmware.installer]",
        ),
        (
            with("[firmware]\ntarget = \"command\"\n[firmware.installer]"),
            ": [firmware.installer] command: not set, expected an array",
        ),
        (
            with("[firmware]\ntarget = \"command\"\n[firmware.installer]\ncommand = [\"x\"]\nverb = 1"),
            ":11: [firmware.installer] verb: found an unknown key",
        ),
        (
            with("[download]\nallow_http = \"yes\""),
            ":8: [download] allow_http: found \"yes\", expected true or false",
        ),
        (with("config = 5"), ":7: [connection] config: found an unknown key"),
        (format!("config = 5\n{MINIMAL}"), ":1: config: found 5, expected a table"),
        (format!("config = [5]\n{MINIMAL}"), ":1: config: found 5, expected a table"),
        (with("[config]"), ": [config] file: not set, expected a path"),
        (
            with("[config]\nfile = \"/c.ini\""),
            ": [config] format: not set, and the name of /c.ini does not tell: expected \"json\", \"toml\" or \"yaml\"",
        ),
        (
            with("[config]\nfile = \"/c.json\"\nname = \"a/b\""),
            ": [config] name: found \"a/b\", expected the name of a file: 1 to 64 characters",
        ),
        (
            with("[config]\nfile = \"/c\"\nformat = \"ini\""),
            ": [config] format: found \"ini\", expected \"json\"",
        ),
        (
            with("[[config]]\nfile = \"/a/c.json\"\n\n[[config]]\nfile = \"/b/c.json\""),
            ":10: [config] name: found \"c.json\" for the second time, expected another one in each table",
        ),
        (
            with("[[config]]\nfile = \"/c.json\"\n[[config]]\nname = \"b\"\nfile = \"/c.json\""),
            ":9: [config] file: found \"/c.json\" for the second time",
        ),
        (with("[log]\nlevel = \"loud\""), ": [log] level: found \"loud\", expected \"error\""),
        ("connection = 5\n".to_owned(), ":1: connection: found 5, expected a table"),
        (with("reconnect_min_seconds = 40"), ": [connection] reconnect_max_seconds: expected at least"),
    ];
    for (text, expected) in cases {
        let found = message(&text);
        assert!(found.starts_with(expected), "{found}\n{expected}\n{text}");
    }
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_an_error_of_its_own() {
    let missing = Settings::load(&PathBuf::from("/no/such/fleethand.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("/no/such/fleethand.toml: cannot be read"), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleethand.toml");
    std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    assert!(Settings::load(&file).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn the_files_of_update_config_have_names_and_formats() {
    let text = format!(
        "{MINIMAL}[[config]]\nfile = \"sensors.toml\"\n[[config]]\nname = \"net\"\nfile = \"/n.yml\"\n\
         [[config]]\nfile = \"/app\"\nformat = \"json\"\nreload_command = [\"r\"]\nhealth_command = [\"h\"]\n"
    );
    let settings = load(&text).unwrap();
    let found: Vec<_> = settings.configs.iter().map(|c| (c.name.as_str(), c.format.name())).collect();
    assert_eq!(found, [("sensors.toml", "toml"), ("net", "yaml"), ("app", "json")]);
    assert!(settings.host.configs["sensors.toml"].target.file.ends_with("sensors.toml"));
    let health = &settings.host.configs["app"].health;
    assert_eq!(
        (health.checks.len(), health.within, health.interval),
        (1, Duration::from_secs(60), Duration::from_secs(5))
    );
    assert_eq!(settings.rules().configs, settings.configs);
    assert_eq!(load(&format!("{MINIMAL}[config]\nfile = \"/c.json\"")).unwrap().configs[0].name, "c.json");
}

#[cfg(feature = "json-schema")]
#[test]
fn a_schema_counts_from_the_file_too() {
    let settings =
        load(&format!("{MINIMAL}[config]\nfile = \"c.json\"\nschema = \"c.schema.json\"")).unwrap();
    let schema = settings.configs[0].schema.clone().unwrap();
    assert!(schema.is_absolute() && schema.ends_with("c.schema.json"), "{schema:?}");
    let error = settings.check_schemas(&PathBuf::from("fleethand.toml")).unwrap_err().to_string();
    assert!(error.starts_with("fleethand.toml: [config] schema: the schema "), "{error}");
}

#[cfg(not(feature = "json-schema"))]
#[test]
fn without_the_feature_a_schema_is_refused() {
    let found = message(&format!("{MINIMAL}[config]\nfile = \"c.json\"\nschema = \"c.schema.json\""));
    assert_eq!(found, ": [config] schema: this fleethand was built without the feature json-schema");
}

#[test]
fn shadows_are_files_of_their_own_or_those_that_jobs_change_too() {
    let of = |more: &str| load(&format!("{MINIMAL}\n{more}"));
    let config = "[[config]]\nname = \"net\"\nfile = \"net.toml\"\n";
    let settings = of(&format!(
        "{config}[[shadow]]\nname = \"sensors\"\nfile = \"s.json\"\n[[shadow]]\nname = \"n\"\nconfig = \"net\"\n\
         [shadows]\nreport = true\nreport_without = [\"job\"]\nreport_package = \"after_job\"\n\
         firmware_package = \"fw\"\n[[shadows.packages]]\nname = \"fleethand\"\n\
         [[shadows.packages]]\nname = \"m\"\nversion = \"1\"\nattributes = {{ a = \"b\" }}\n"
    ));
    let settings = settings.unwrap();
    let files: Vec<_> =
        settings.shadows.files.iter().map(|file| (file.shadow.as_str(), file.file.name.as_str())).collect();
    assert_eq!(files, [("sensors", "sensors"), ("n", "net")]);
    // What is a shadow's alone is no file of jobs.
    assert_eq!(settings.configs.len(), 1);
    assert_eq!(settings.host.configs.len(), 2);
    assert_eq!(settings.shadow_filters().len(), 5 + 5 + 3 + 3);
    assert!(of("[shadows]\nreport_package = \"after_job\"\n").unwrap().shadow_filters().is_empty());
    let again = of(&settings
        .to_string()
        .split("[[config]]")
        .nth(1)
        .map(|rest| {
            let end = rest.find("\n[reboot]").unwrap();
            format!("[[config]]{}", &rest[..end])
        })
        .unwrap())
    .unwrap();
    assert_eq!(again.shadows.files, settings.shadows.files);
    assert_eq!(again.shadows.report, settings.shadows.report);
    assert_eq!(again.shadows.packages, settings.shadows.packages);

    let wrong = |more: &str| of(more).unwrap_err().to_string();
    for (more, expected) in [
        ("[[shadow]]\nname = \"a.b\"\nfile = \"x.json\"\n", "1 to 64"),
        ("[[shadow]]\nname = \"$package\"\nfile = \"x.json\"\n", "not $package"),
        ("[[shadow]]\nname = \"a\"\n", "file: not set"),
        ("[[shadow]]\nname = \"a\"\nconfig = \"b\"\n", "no [[config]] of that name"),
        ("[shadows]\nreport_without = [\"weather\"]\n", "freeSpacePercent"),
        ("[shadows]\nreport_package = \"daily\"\n", "after_job"),
        ("[[shadows.packages]]\nname = \"m\"\n", "version_file"),
    ] {
        let found = wrong(more);
        assert!(found.contains(expected), "{more}: {found}");
    }
    let both = format!("{config}[[shadow]]\nname = \"a\"\nfile = \"net.toml\"\n");
    assert!(wrong(&both).contains("with `config` instead"));
    let many: String =
        (0..8).map(|n| format!("[[shadow]]\nname = \"s{n}\"\nfile = \"{n}.json\"\n")).collect();
    assert!(wrong(&many).contains("7"));
}

use serde_json::json;

use super::*;

const FILE: &str = r#"# The sensors of the roof.
name = 'roof'   # shown to people
rate = 0x10
since = 2024-05-01T08:00:00Z
limits.low = -5.0
limits.high = 60.0

# Two of them.
[[probe]]
id = 1
kind = { bus = "i2c", address = 0x48 } # the old board

[[probe]]
id = 2

[log.file]
path = "/var/log/sensors" # rotated
"#;

fn rewritten(wanted: Json) -> String {
    rewrite(FILE, &wanted).unwrap()
}

fn value() -> Json {
    parse(FILE).unwrap()
}

/// `FILE` with one piece of its text replaced.
fn file_with(old: &str, new: &str) -> String {
    assert_eq!(FILE.matches(old).count(), 1, "{old}");
    FILE.replace(old, new)
}

#[test]
fn a_document_says_what_json_can_say() {
    assert_eq!(
        value(),
        json!({
            "name": "roof", "rate": 16, "since": "2024-05-01T08:00:00Z",
            "limits": {"low": -5.0, "high": 60.0},
            "probe": [{"id": 1, "kind": {"bus": "i2c", "address": 72}}, {"id": 2}],
            "log": {"file": {"path": "/var/log/sensors"}},
        })
    );
    assert_eq!(parse("a = inf\nb = nan").unwrap(), json!({"a": "inf", "b": "NaN"}));
}

#[test]
fn what_does_not_change_keeps_its_every_byte() {
    assert_eq!(rewritten(value()), FILE);
    type Change = fn(&mut Json);
    let cases: [(Change, String); 9] = [
        (|v| v["rate"] = json!(20), file_with("0x10", "20")),
        (|v| v["name"] = json!("cellar"), file_with("'roof'", "\"cellar\"")),
        (|v| v["limits"]["low"] = json!(0.5), file_with("-5.0", "0.5")),
        (|v| v["probe"][0]["kind"]["bus"] = json!("spi"), file_with("i2c", "spi")),
        (|v| v["probe"][1]["id"] = json!(3), file_with("id = 2", "id = 3")),
        (|v| v["log"]["file"]["path"] = json!("/tmp/x"), file_with("/var/log/sensors", "/tmp/x")),
        // A time stays a time.
        (
            |v| v["since"] = json!("2025-01-01T00:00:00Z"),
            file_with("2024-05-01T08:00:00Z", "2025-01-01T00:00:00Z"),
        ),
        (|v| drop(v["probe"].as_array_mut().unwrap().remove(1)), file_with("[[probe]]\nid = 2\n\n", "")),
        (|v| v["log"]["file"]["keep"] = json!(7), file_with("# rotated\n", "# rotated\nkeep = 7\n")),
    ];
    for (change, expected) in cases {
        let mut wanted = value();
        change(&mut wanted);
        assert_eq!(rewritten(wanted), expected);
    }
}

#[test]
fn new_tables_and_arrays_of_tables_look_as_a_person_would_write_them() {
    let mut wanted = value();
    wanted["net"] = json!({"dns": ["1.1.1.1"], "wifi": {"ssid": "x"}});
    wanted["route"] = json!([{"to": "a"}, {"to": "b"}]);
    let added = "\n[net]\ndns = [\"1.1.1.1\"]\n\n[net.wifi]\nssid = \"x\"\n\n[[route]]\nto = \"a\"\n\n[[route]]\nto = \"b\"\n";
    assert_eq!(rewritten(wanted), format!("{FILE}{added}"));
}

#[test]
fn a_table_that_lost_its_last_member_is_still_there() {
    for old in ["a.b = 1\n", "[a.b]\n", "a = {b.c = 1}\n", "[a]\nb = 1\n", "a.b.c = 1\n", "x.a.b = 1\n"] {
        let mut wanted = parse(old).unwrap();
        let inner = wanted.as_object_mut().unwrap().values_mut().next().unwrap();
        *inner = json!({});
        assert_eq!(parse(&rewrite(old, &wanted).unwrap()).unwrap(), wanted, "{old}");
    }
}

#[test]
fn what_toml_cannot_say_is_named_by_its_place() {
    let cases = [
        (json!({"a": [1, null]}), "/a/1", "null"),
        (json!({"a": {"b~c": {"d/e": null}}}), "/a/b~0c/d~1e", "null"),
        (json!({"probe": [{"id": null}]}), "/probe/0/id", "null"),
        (json!({"a": u64::MAX}), "/a", "64 bits"),
        (json!([1]), "", "object"),
    ];
    for (wanted, pointer, problem) in cases {
        let misfit = rewrite(FILE, &wanted).unwrap_err();
        assert_eq!(misfit.pointer, pointer, "{wanted}");
        assert!(misfit.problem.contains(problem), "{misfit}");
    }
    assert!(rewrite("", &json!({"a": i64::MIN})).is_ok());
}

#[test]
fn an_error_names_the_line() {
    assert!(parse("a = 1\nb = \n").unwrap_err().starts_with("line 2: "));
    assert!(parse("a = 1\na = 2\n").unwrap_err().starts_with("line 2: "));
}

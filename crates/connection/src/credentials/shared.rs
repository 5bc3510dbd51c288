//! The environment and the shared files, in the order and with the names that AWS's own tools have.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::process::Command;

use super::{Credentials, CredentialsError, from_json, process};

const KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const MAX_BYTES: u64 = 1024 * 1024;

type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);
type Profile = BTreeMap<String, String>;

pub(super) async fn find(
    profile: Option<&str>,
    environment: Environment<'_>,
    now: SystemTime,
) -> Result<Credentials, CredentialsError> {
    match (environment(KEY), environment(SECRET)) {
        (Some(access_key), Some(secret_key)) => {
            let session_token = environment("AWS_SESSION_TOKEN");
            return Ok(Credentials { access_key, secret_key, session_token, life: None });
        }
        (Some(_), None) => return Err(CredentialsError::Half { there: KEY, missing: SECRET }),
        (None, Some(_)) => return Err(CredentialsError::Half { there: SECRET, missing: KEY }),
        (None, None) => {}
    }
    let files = Files::of(profile, environment);
    let credentials = read_profile(&files.credentials, &files.profile)?;
    if let Some(found) = keys(&credentials) {
        return Ok(found);
    }
    let config = read_profile(&files.config, &files.config_section())?;
    let process = credentials.get("credential_process").or_else(|| config.get("credential_process"));
    if let Some(line) = process {
        return run(line, now).await;
    }
    keys(&config).ok_or(CredentialsError::Nowhere { profile: files.profile, credentials: files.credentials })
}

struct Files {
    credentials: PathBuf,
    config: PathBuf,
    profile: String,
}

impl Files {
    fn of(profile: Option<&str>, environment: Environment<'_>) -> Self {
        let home = environment("HOME").unwrap_or_default();
        let file = |variable: &str, name: &str| {
            environment(variable).map_or_else(|| Path::new(&home).join(".aws").join(name), PathBuf::from)
        };
        let named = ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"].into_iter().find_map(environment);
        Self {
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: file("AWS_CONFIG_FILE", "config"),
            profile: profile.map(str::to_owned).or(named).unwrap_or_else(|| "default".to_owned()),
        }
    }

    /// The one difference between the two files.
    fn config_section(&self) -> String {
        if self.profile == "default" { self.profile.clone() } else { format!("profile {}", self.profile) }
    }
}

fn keys(profile: &Profile) -> Option<Credentials> {
    Some(Credentials {
        access_key: profile.get("aws_access_key_id")?.clone(),
        secret_key: profile.get("aws_secret_access_key")?.clone(),
        session_token: profile.get("aws_session_token").cloned(),
        life: None,
    })
}

/// Empty where there is no such file.
fn read_profile(file: &Path, section: &str) -> Result<Profile, CredentialsError> {
    let failed = |problem: String| CredentialsError::File { file: file.to_owned(), problem };
    let mut text = String::new();
    match std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text)) {
        Ok(_) if text.len() as u64 > MAX_BYTES => Err(failed(format!("it has more than {MAX_BYTES} bytes"))),
        Ok(_) => Ok(profile(&text, section)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Profile::new()),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// One section of an INI file. Lines that are set in belong to the key above them, and none of ours has such.
fn profile(text: &str, section: &str) -> Profile {
    let mut found = Profile::new();
    let mut inside = false;
    for line in text.lines() {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|line| line.split(']').next()) {
            inside = name.split_whitespace().eq(section.split_whitespace());
            continue;
        }
        let is_ours = inside && !line.starts_with(['#', ';', ' ', '\t']);
        if let Some((key, value)) = line.split_once('=').filter(|_| is_ours) {
            let value = value.split(" #").next().unwrap_or_default().trim();
            found.insert(key.trim().to_ascii_lowercase(), value.to_owned());
        }
    }
    found.retain(|_, value| !value.is_empty());
    found
}

/// As AWS's SDKs do: by the shell, and JSON on stdout.
async fn run(line: &str, now: SystemTime) -> Result<Credentials, CredentialsError> {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let text = process::output("credential_process", command).await?;
    let failed = |problem: &str| CredentialsError::Program {
        program: "credential_process".to_owned(),
        problem: format!("what it prints is not understood: {problem}"),
    };
    let document: serde_json::Value = serde_json::from_str(&text).map_err(|_| failed("it is not JSON"))?;
    if document.get("Version").and_then(serde_json::Value::as_u64) != Some(1) {
        return Err(failed("its Version is not 1"));
    }
    let names = ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"];
    from_json(&document, names, now).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    struct World {
        folder: tempfile::TempDir,
        variables: BTreeMap<String, String>,
    }

    impl World {
        fn new(credentials: &str, config: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join(".aws")).unwrap();
            std::fs::write(folder.path().join(".aws/credentials"), credentials).unwrap();
            std::fs::write(folder.path().join(".aws/config"), config).unwrap();
            let home = folder.path().to_str().unwrap().to_owned();
            Self { variables: BTreeMap::from([("HOME".to_owned(), home)]), folder }
        }

        fn with(mut self, name: &str, value: &str) -> Self {
            self.variables.insert(name.to_owned(), value.to_owned());
            self
        }

        async fn find(&self, profile: Option<&str>) -> Result<Credentials, CredentialsError> {
            find(profile, &|name| self.variables.get(name).cloned(), NOW).await
        }

        /// The access key, or what is said.
        async fn found(&self, profile: Option<&str>) -> String {
            match self.find(profile).await {
                Ok(found) => found.access_key,
                Err(error) => error.to_string(),
            }
        }
    }

    const CREDENTIALS: &str = "\
# comment
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key=s3cr=t   # a comment
s3 =
    aws_access_key_id = nested
[ other ]
AWS_ACCESS_KEY_ID = AKOTHER
aws_secret_access_key = x
aws_session_token = token==
[half]
aws_access_key_id = AKHALF
";

    #[tokio::test]
    async fn the_environment_comes_first_then_the_profile_in_the_shared_files() {
        let world =
            World::new(CREDENTIALS, "[default]\naws_access_key_id = AKCONFIG\naws_secret_access_key = x\n");
        let found = world.find(None).await.unwrap();
        assert_eq!((found.access_key.as_str(), found.secret_key.as_str()), ("AKDEFAULT", "s3cr=t"));
        assert_eq!(world.find(Some("other")).await.unwrap().session_token.as_deref(), Some("token=="));
        let world = world.with("AWS_PROFILE", "other");
        assert_eq!(world.found(None).await, "AKOTHER");
        assert_eq!(world.found(Some("default")).await, "AKDEFAULT");
        let said = world.found(Some("half")).await;
        assert!(said.contains("the profile half in") && said.ends_with(".aws/credentials"), "{said}");
        let world = world.with(KEY, "AKENV");
        assert_eq!(
            world.found(None).await,
            "the environment has AWS_ACCESS_KEY_ID and not AWS_SECRET_ACCESS_KEY"
        );
        let world = world.with(SECRET, "x").with("AWS_SESSION_TOKEN", "t");
        let found = world.find(None).await.unwrap();
        assert_eq!((found.access_key.as_str(), found.session_token.as_deref()), ("AKENV", Some("t")));
        let elsewhere = World::new("", "").with("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        let said = elsewhere.found(None).await;
        assert!(
            said.contains("AWS_SECRET_ACCESS_KEY in the environment") && said.ends_with("/dev/null"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_credential_process_is_run_and_believed_only_if_it_is_understood() {
        let answer = r#"{"Version":1,"AccessKeyId":"AKPROC","SecretAccessKey":"x","SessionToken":"t","Expiration":"2030-01-01T00:00:00Z"}"#;
        let world = World::new("", "");
        let script = world.folder.path().join("process");
        let run = |text: &str| {
            std::fs::write(&script, text).unwrap();
            let config = format!("[profile fleet]\ncredential_process = sh \"{}\" a b\n", script.display());
            std::fs::write(world.folder.path().join(".aws/config"), config).unwrap();
        };
        run(&format!("test \"$*\" = 'a b' && echo '{answer}'"));
        let found = world.find(Some("fleet")).await.unwrap();
        assert_eq!(found.access_key, "AKPROC");
        assert_eq!(crate::utc(found.life.unwrap().until), "2030-01-01T00:00:00Z");
        for (text, expected) in [
            ("exit 3", "it failed: exit status: 3"),
            ("echo hunter2", "it is not JSON"),
            ("echo '{\"Version\":2}'", "its Version is not 1"),
            ("echo '{\"Version\":1,\"AccessKeyId\":\"hunter2\"}'", "there is no secret key in it"),
            ("yes hunter2", "it prints more than 65536 bytes"),
        ] {
            run(text);
            let said = world.found(Some("fleet")).await;
            assert!(said.starts_with("credential_process: ") && said.contains(expected), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

//! What `thing create NAME --out DIR` leaves on the disk: enough to start an agent with.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;

/// A thing's own certificate and key, as the running cloud answers to `POST /_cloud/things`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ThingFiles {
    pub(crate) certificate_id: String,
    pub(crate) certificate_pem: String,
    pub(crate) private_key: String,
    pub(crate) ca_pem: String,
}

const KEY: &str = "private.key";

/// Whether a folder can still become a thing's: asked before the cloud is told to make a certificate that would
/// then have no place.
pub(crate) fn check_vacant(folder: &Path) -> Result<(), Error> {
    let key = folder.join(KEY);
    if key.exists() { Err(Error::Exists { path: key.display().to_string() }) } else { Ok(()) }
}

/// Writes key (0600), certificate, root CA and `fleethand.toml` into `folder`, which is created if need be.
/// A file that is there already is left alone when it is the same, and refused otherwise, before anything is written.
pub(crate) fn write_files(
    folder: &Path,
    thing: &str,
    endpoint: &str,
    port: u16,
    files: &ThingFiles,
) -> Result<PathBuf, Error> {
    let write = |path: &Path, source| Error::Write { path: path.display().to_string(), source };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(|e| write(folder, e))?;
    let folder = folder.canonicalize().map_err(|e| write(folder, e))?;
    let config = configuration(&folder, thing, endpoint, port);
    let wanted = [
        (KEY, &files.private_key, 0o600),
        ("certificate.pem", &files.certificate_pem, 0o644),
        ("root-ca.pem", &files.ca_pem, 0o644),
        ("fleethand.toml", &config, 0o644),
    ];
    let mut missing = Vec::new();
    for (name, text, mode) in wanted {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(found) if found == text.as_bytes() => {}
            Ok(_) => return Err(Error::Exists { path: path.display().to_string() }),
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push((path, text, mode)),
            Err(error) => return Err(write(&path, error)),
        }
    }
    for (path, text, mode) in missing {
        // create_new: a file or link that appeared in between is not followed.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|error| write(&path, error))?;
    }
    Ok(folder.join("fleethand.toml"))
}

fn configuration(folder: &Path, thing: &str, endpoint: &str, port: u16) -> String {
    // A JSON string is a TOML basic string too, whatever the path holds.
    let below = |name: &str| serde_json::Value::from(folder.join(name).display().to_string()).to_string();
    let thing = serde_json::Value::from(thing).to_string();
    let endpoint = serde_json::Value::from(endpoint).to_string();
    format!(
        r#"# The agent of the thing {thing}, against a local cloud. Start it with: fleethand run --config fleethand.toml

# What the agent must not forget when it is restarted.
state_directory = {state}

[connection]
endpoint = {endpoint}
port = {port}
thing_name = {thing}
certificate = {certificate}
private_key = {key}
root_ca = {root}

# Where update-firmware installs to.
[firmware]
file = {firmware}

# What update-config changes.
[config]
file = {config}

# Without more, a reboot job reboots this machine. To simulate it, name a command and a file that holds the boot id:
# [reboot]
# command = ["touch", {requested}]
# boot_id_file = {boot_id}
"#,
        state = below("state"),
        certificate = below("certificate.pem"),
        key = below("private.key"),
        root = below("root-ca.pem"),
        firmware = below("firmware.bin"),
        config = below("config.json"),
        requested = below("reboot-requested"),
        boot_id = below("boot-id"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn files() -> ThingFiles {
        let text = |name: &str| format!("-----{name}-----\n");
        ThingFiles {
            certificate_id: "id".into(),
            certificate_pem: text("certificate"),
            private_key: text("key"),
            ca_pem: text("ca"),
        }
    }

    #[test]
    fn writes_once_and_never_over_something_else() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("new \"folder\"");
        let path = write_files(&folder, "lamp", "localhost", 8883, &files()).unwrap();
        let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("private.key"), 0o600);
        assert_eq!(mode("certificate.pem"), 0o644);

        assert!(check_vacant(parent.path()).is_ok() && check_vacant(&folder).is_err());

        let config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        assert_eq!(config["connection"]["thing_name"].as_str(), Some("lamp"));
        assert_eq!(config["connection"]["port"].as_integer(), Some(8883));
        let folder = folder.canonicalize().unwrap();
        assert_eq!(config["state_directory"].as_str(), folder.join("state").to_str());
        assert_eq!(config["firmware"]["file"].as_str(), folder.join("firmware.bin").to_str());

        write_files(&folder, "lamp", "localhost", 8883, &files()).expect("the same again changes nothing");
        let other = ThingFiles { private_key: "another".into(), ..files() };
        let refused = write_files(&folder, "lamp", "localhost", 8883, &other).unwrap_err();
        assert!(refused.to_string().contains("private.key"), "{refused}");
        assert_eq!(fs::read_to_string(folder.join("private.key")).unwrap(), "-----key-----\n");
    }
}

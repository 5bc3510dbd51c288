//! The configuration file with the connection that was ordered. Everything else of it stays as it stands.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use toml_edit::{DocumentMut, Item, Table, Value};

use super::ask::Complete;
use super::{IDENTITY, is_in_token};

/// What the package installs: where there is no file, this is the one that is edited.
const DEFAULT: &str = include_str!("../../../../packaging/fleethand.toml");

pub struct Edited {
    pub text: String,
    /// There was a file, and it said something else.
    pub replaces: bool,
    /// In words.
    pub changes: Vec<String>,
}

pub fn configuration(file: &Path, order: &Complete, identity: &Path) -> anyhow::Result<Edited> {
    let (old, exists) = match std::fs::read_to_string(file) {
        Ok(text) => (text, true),
        Err(error) if error.kind() == ErrorKind::NotFound => (DEFAULT.to_owned(), false),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let mut edited =
        edit(&old, order, identity).with_context(|| format!("{} is not TOML", file.display()))?;
    edited.replaces = exists && edited.text != old;
    Ok(edited)
}

fn edit(old: &str, order: &Complete, identity: &Path) -> anyhow::Result<Edited> {
    let mut document: DocumentMut = old.parse()?;
    let table = document.entry("connection").or_insert_with(|| Item::Table(Table::new()));
    let table = table.as_table_like_mut().context("`connection` is not a table")?;
    let mut wanted: Vec<(&str, Value)> =
        vec![("endpoint", order.endpoint.as_str().into()), ("thing_name", order.thing.as_str().into())];
    wanted.extend(order.transport.as_deref().map(|transport| ("transport", transport.into())));
    wanted.extend(order.port.map(|port| ("port", i64::from(port).into())));
    wanted.extend(order.proxy.as_deref().map(|proxy| ("proxy", proxy.into())));
    for ((key, name), file) in IDENTITY.iter().zip(&order.identity) {
        match file {
            Some(file) => {
                let place = if is_in_token(file) { file.clone() } else { identity.join(name) };
                wanted.push((*key, place.to_string_lossy().as_ref().into()));
            }
            // The package's own, and nobody's.
            None => drop(table.remove(key)),
        }
    }
    let mut changes = Vec::new();
    for (key, mut new) in wanted {
        let old = table.get_mut(key).and_then(Item::as_value_mut);
        match old {
            Some(old) if shown(old) == shown(&new) => {}
            Some(old) => {
                changes.push(match key {
                    // It may hold a password, the new one or the old.
                    "proxy" => "proxy: another one".to_owned(),
                    _ => format!("{key}: {} instead of {}", shown(&new), shown(old)),
                });
                // The comment at the end of the line is about the key.
                *new.decor_mut() = old.decor().clone();
                *old = new;
            }
            None => {
                table.insert(key, Item::Value(new));
            }
        }
    }
    Ok(Edited { text: document.to_string(), replaces: false, changes })
}

/// Without what stands round it.
fn shown(value: &Value) -> String {
    value.clone().decorated("", "").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(port: Option<u16>) -> Complete {
        Complete {
            endpoint: "new.example.com".to_owned(),
            transport: None,
            port,
            proxy: None,
            thing: "edge-02".to_owned(),
            identity: ["c", "k", "r"].map(|file| Some(file.into())),
            force: false,
            check: true,
            enable: true,
        }
    }

    #[test]
    fn comments_and_other_keys_stay_and_what_changes_is_said() {
        let old = "# mine\nstate_directory = \"/state\"\n[connection] # the cloud\nendpoint = 'old.example.com'  # ours\n\
                   keep_alive_seconds = 45\nthing_name = \"edge-02\"\n[log]\nlevel = \"debug\"\n";
        let edited = edit(old, &order(Some(443)), Path::new("/etc/fleethand/identity")).unwrap();
        let expected = "# mine\nstate_directory = \"/state\"\n[connection] # the cloud\nendpoint = \"new.example.com\"  # ours\n\
                        keep_alive_seconds = 45\nthing_name = \"edge-02\"\nport = 443\n\
                        certificate = \"/etc/fleethand/identity/certificate.pem\"\n\
                        private_key = \"/etc/fleethand/identity/private.key\"\n\
                        root_ca = \"/etc/fleethand/identity/root-ca.pem\"\n[log]\nlevel = \"debug\"\n";
        assert_eq!(edited.text, expected);
        assert_eq!(edited.changes, ["endpoint: \"new.example.com\" instead of 'old.example.com'"]);
        let again = edit(&edited.text, &order(Some(443)), Path::new("/etc/fleethand/identity")).unwrap();
        assert_eq!((again.text, again.changes), (edited.text, vec![]));
    }

    #[test]
    fn a_websocket_s_configuration_has_no_files_that_are_not_there_and_no_password_is_said() {
        let mut order = order(None);
        order.transport = Some("websocket".to_owned());
        order.proxy = Some("http://u:hunter2@p:1".to_owned());
        order.identity = [None, None, Some("r".into())];
        let old = "[connection]\nproxy = \"http://u:hunter1@p:1\"\nprivate_key = \"k\"\n";
        let edited = edit(old, &order, Path::new("/i")).unwrap();
        let expected = "[connection]\nproxy = \"http://u:hunter2@p:1\"\nendpoint = \"new.example.com\"\nthing_name = \"edge-02\"\n\
                        transport = \"websocket\"\nroot_ca = \"/i/root-ca.pem\"\n";
        assert_eq!(edited.text, expected);
        assert_eq!(edited.changes, ["proxy: another one"]);
    }

    #[test]
    fn the_package_s_own_file_and_an_empty_one_become_configurations() {
        for old in [DEFAULT, ""] {
            let edited = edit(old, &order(None), Path::new("/i")).unwrap();
            let read: DocumentMut = edited.text.parse().unwrap();
            assert_eq!(read["connection"]["endpoint"].as_str(), Some("new.example.com"));
            assert_eq!(read["connection"]["private_key"].as_str(), Some("/i/private.key"));
            assert_eq!(edited.text.matches("\n#").count(), old.matches("\n#").count());
        }
        assert!(edit("connection = 5", &order(None), Path::new("/i")).is_err());
        assert!(edit("[connection", &order(None), Path::new("/i")).is_err());
    }
}

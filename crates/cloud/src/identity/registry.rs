//! Certificates, policies, and which of them are attached to what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Error;
use super::authority::{Authority, Issued};
use super::policy::Document;
use super::provisioning::Ownership;
use super::template_api::StoredTemplate;
use super::{cognito, role_alias};
use crate::engine::Change;

const AUTHORITY: &str = "identity.authority";
const CERTIFICATE: &str = "identity.certificate";
const POLICY: &str = "identity.policy";
const TEMPLATE: &str = "identity.template";
const DOCUMENTS: [&str; 3] = [cognito::POOL, cognito::IDENTITY, role_alias::ROLE_ALIAS];

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Status {
    Active,
    Inactive,
    Revoked,
    /// Made for a device that is being provisioned, and not registered yet.
    PendingActivation,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Certificate {
    pub(super) pem: String,
    pub(super) status: Status,
    pub(super) created: i64,
    pub(super) modified: i64,
    pub(super) policies: BTreeSet<String>,
    pub(super) things: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ownership: Option<Ownership>,
}

pub(super) struct Policy {
    pub(super) text: String,
    pub(super) created: i64,
    document: Arc<Document>,
}

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(crate) struct Principal {
    pub(crate) certificate_id: String,
    pub(crate) things: BTreeSet<String>,
    pub(crate) documents: Vec<Arc<Document>>,
}

pub(super) struct Registry {
    pub(super) authority: Authority,
    pub(super) certificates: BTreeMap<String, Certificate>,
    pub(super) policies: BTreeMap<String, Policy>,
    pub(super) templates: BTreeMap<String, StoredTemplate>,
    /// What has no type of its own here: by the kind of its row, and its key.
    documents: BTreeMap<(&'static str, String), Value>,
    /// Rows that differ from the store's. Keys alone, so that a cloud without a store keeps no copies.
    dirty: BTreeSet<(&'static str, String)>,
    /// Certificates that stopped being active since this was last emptied.
    pub(super) revoked: Vec<String>,
}

/// AWS's certificate id: the SHA-256 fingerprint of the DER form.
pub(super) fn fingerprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

impl Registry {
    pub(super) fn new(authority: Authority) -> Self {
        let mut registry = Self {
            authority,
            certificates: BTreeMap::new(),
            policies: BTreeMap::new(),
            templates: BTreeMap::new(),
            documents: BTreeMap::new(),
            dirty: BTreeSet::new(),
            revoked: Vec::new(),
        };
        registry.mark(AUTHORITY, "root");
        registry
    }

    pub(super) fn load(&mut self, kind: &str, key: &str, value: Value) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Root {
            certificate: String,
            key: String,
        }
        #[derive(Deserialize)]
        struct Stored {
            document: String,
            created: i64,
        }
        let bad = |source| Error::Row { kind: kind.to_owned(), key: key.to_owned(), source };
        match kind {
            AUTHORITY => {
                let root: Root = serde_json::from_value(value).map_err(bad)?;
                self.authority = Authority::load(&root.certificate, &root.key)?;
                self.dirty.remove(&(AUTHORITY, "root".to_owned()));
            }
            CERTIFICATE => {
                let certificate = serde_json::from_value(value).map_err(bad)?;
                self.certificates.insert(key.to_owned(), certificate);
            }
            POLICY => {
                let stored: Stored = serde_json::from_value(value).map_err(bad)?;
                let document = Arc::new(Document::parse(&stored.document).map_err(bad)?);
                let policy = Policy { text: stored.document, created: stored.created, document };
                self.policies.insert(key.to_owned(), policy);
            }
            TEMPLATE => {
                let template = serde_json::from_value(value).map_err(bad)?;
                self.templates.insert(key.to_owned(), template);
            }
            kind => {
                if let Some(known) = DOCUMENTS.iter().find(|known| **known == kind) {
                    self.documents.insert((known, key.to_owned()), value);
                }
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, kind: &'static str, key: &str) -> Option<&Value> {
        self.documents.get(&(kind, key.to_owned()))
    }

    /// All of a kind, by their keys.
    pub(super) fn all(&self, kind: &'static str) -> impl Iterator<Item = (&str, &Value)> {
        let of_kind = self.documents.iter().filter(move |((found, _), _)| *found == kind);
        of_kind.map(|((_, key), value)| (key.as_str(), value))
    }

    pub(super) fn put(&mut self, kind: &'static str, key: &str, value: Value) {
        self.documents.insert((kind, key.to_owned()), value);
        self.mark(kind, key);
    }

    pub(super) fn remove(&mut self, kind: &'static str, key: &str) {
        self.documents.remove(&(kind, key.to_owned()));
        self.mark(kind, key);
    }

    pub(super) fn document(&self, policy: &str) -> Option<Arc<Document>> {
        self.policies.get(policy).map(|policy| Arc::clone(&policy.document))
    }

    pub(super) fn put_policy(&mut self, name: &str, text: &str, now: i64) -> Result<(), serde_json::Error> {
        let document = Arc::new(Document::parse(text)?);
        self.mark(POLICY, name);
        self.policies.insert(name.to_owned(), Policy { text: text.to_owned(), created: now, document });
        Ok(())
    }

    pub(super) fn remove_policy(&mut self, name: &str) {
        if self.policies.remove(name).is_some() {
            self.mark(POLICY, name);
        }
    }

    pub(super) fn put_template(&mut self, name: &str, template: StoredTemplate) {
        self.templates.insert(name.to_owned(), template);
        self.mark(TEMPLATE, name);
    }

    pub(super) fn remove_template(&mut self, name: &str) {
        if self.templates.remove(name).is_some() {
            self.mark(TEMPLATE, name);
        }
    }

    pub(super) fn add_certificate(&mut self, issued: &Issued, status: Status, now: i64) -> String {
        let id = fingerprint(&issued.certificate_der);
        let certificate = Certificate {
            pem: issued.certificate_pem.clone(),
            status,
            created: now,
            modified: now,
            policies: BTreeSet::new(),
            things: BTreeSet::new(),
            ownership: None,
        };
        self.certificates.insert(id.clone(), certificate);
        self.mark(CERTIFICATE, &id);
        id
    }

    /// Does nothing for a certificate that is not there.
    pub(super) fn change_certificate(&mut self, id: &str, now: i64, change: impl FnOnce(&mut Certificate)) {
        let Some(certificate) = self.certificates.get_mut(id) else { return };
        let was_active = certificate.status == Status::Active;
        change(certificate);
        certificate.modified = now;
        if was_active && certificate.status != Status::Active {
            self.revoked.push(id.to_owned());
        }
        self.mark(CERTIFICATE, id);
    }

    pub(super) fn remove_certificate(&mut self, id: &str) {
        if self.certificates.remove(id).is_some() {
            self.revoked.push(id.to_owned());
            self.mark(CERTIFICATE, id);
        }
    }

    pub(super) fn certificates_of(&self, thing: &str) -> impl Iterator<Item = &String> {
        self.certificates
            .iter()
            .filter(move |(_, certificate)| certificate.things.contains(thing))
            .map(|(id, _)| id)
    }

    pub(super) fn principal(&self, der: &[u8]) -> Option<Principal> {
        let certificate_id = fingerprint(der);
        let certificate = self.certificates.get(&certificate_id)?;
        (certificate.status == Status::Active).then(|| Principal {
            certificate_id,
            things: certificate.things.clone(),
            documents: certificate
                .policies
                .iter()
                .filter_map(|name| Some(Arc::clone(&self.policies.get(name)?.document)))
                .collect(),
        })
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|(kind, key)| Change { kind, value: self.row(kind, &key), key }).collect()
    }

    fn row(&self, kind: &str, key: &str) -> Option<Value> {
        match kind {
            AUTHORITY => {
                Some(json!({ "certificate": self.authority.certificate_pem, "key": self.authority.key_pem }))
            }
            // Cannot fail: the type's members are strings and numbers.
            CERTIFICATE => self.certificates.get(key).and_then(|found| serde_json::to_value(found).ok()),
            TEMPLATE => self.templates.get(key).and_then(|found| serde_json::to_value(found).ok()),
            POLICY => self
                .policies
                .get(key)
                .map(|found| json!({ "document": found.text, "created": found.created })),
            kind => {
                let known = DOCUMENTS.iter().find(|known| **known == kind)?;
                self.get(known, key).cloned()
            }
        }
    }

    fn mark(&mut self, kind: &'static str, key: &str) {
        self.dirty.insert((kind, key.to_owned()));
    }
}

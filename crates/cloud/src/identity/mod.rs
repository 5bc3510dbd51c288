//! Who may connect and what for: the certificate authority, certificates, policies and what they are attached to.
//!
//! `registry` is the state and its rules, `api` the REST operations on it, `policy` the pure evaluation,
//! `provisioning` what devices ask for by MQTT, with `template`s that `template_api` keeps,
//! `tls` what the listeners check a handshake against.

mod api;
mod authority;
mod cognito;
mod pattern;
mod policy;
pub(crate) mod provisioning;
mod registry;
mod role_alias;
mod template;
mod template_api;
mod thing;
mod tls;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::engine::{ApiError, Change, Time};
use crate::temporary::Temporary;

pub(crate) use policy::{Action, Rules, Subject};
pub(crate) use registry::{Principal, Status};
pub(crate) use template::{Override, ThingPlan};
pub(crate) use thing::{ThingFiles, check_vacant, write_files};
pub(crate) use tls::MQTT_CA;

/// The least-privilege policy of a device, the same text that an operator gives to AWS.
pub(crate) const DEVICE_POLICY: &str = include_str!("../../../../packaging/iot-policy.json");
/// Its name here, attached to every certificate that `thing create` makes.
pub(crate) const DEVICE_POLICY_NAME: &str = "fleethand-device";

/// The registry of certificates and policies; cheap to clone.
#[derive(Clone)]
pub(crate) struct Identity(Arc<Inner>);

/// Hears of a certificate that stopped being active.
type Tell = Box<dyn Fn(&str) + Send + Sync>;

struct Inner {
    region: String,
    account: String,
    server_names: Vec<String>,
    registry: Mutex<registry::Registry>,
    revoked: Mutex<Vec<Tell>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the certificate authority failed")]
    Authority(#[from] rcgen::Error),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("row {kind} {key} of the store is not what was written there")]
    Row { kind: String, key: String, source: serde_json::Error },
    #[error("policy {name} is not a policy document")]
    Policy { name: String, source: serde_json::Error },
    #[error("{path} is there already, and would be overwritten; remove it or choose another folder")]
    Exists { path: String },
    #[error("{path} cannot be written")]
    Write { path: String, source: std::io::Error },
}

impl Identity {
    /// A fresh certificate authority, in memory. `names`: more names or addresses for the server's certificate.
    pub(crate) fn new(region: &str, account: &str, names: &[String]) -> Result<Self, Error> {
        let mut registry = registry::Registry::new(authority::Authority::generate()?);
        let document = DEVICE_POLICY.replace("REGION", region).replace("ACCOUNT", account);
        registry
            .put_policy(DEVICE_POLICY_NAME, &document, 0)
            .map_err(|source| Error::Policy { name: DEVICE_POLICY_NAME.to_owned(), source })?;
        Ok(Self(Arc::new(Inner {
            region: region.to_owned(),
            account: account.to_owned(),
            server_names: names.to_vec(),
            registry: Mutex::new(registry),
            revoked: Mutex::default(),
        })))
    }

    /// Brings back what `take_changes` once handed out, the authority's key included.
    pub(crate) fn load(&self, rows: impl IntoIterator<Item = (String, String, Value)>) -> Result<(), Error> {
        let mut registry = self.registry();
        rows.into_iter().try_for_each(|(kind, key, value)| registry.load(&kind, &key, value))
    }

    /// Rows for the store since the last call. All kinds begin with `identity.`.
    pub(crate) fn take_changes(&self) -> Vec<Change> {
        self.registry().take_changes()
    }

    /// The authority's certificate, which clients trust.
    pub(crate) fn ca_pem(&self) -> String {
        self.registry().authority.certificate_pem.clone()
    }

    /// An operation of the control plane; None when it is not about certificates or policies.
    /// Whether a thing exists is for the caller to know: ask before `AttachThingPrincipal`.
    pub(crate) fn control(
        &self,
        now: i64,
        op: &str,
        params: &BTreeMap<String, String>,
        body: &Value,
    ) -> Option<Result<Value, ApiError>> {
        let call = api::Call { now, region: &self.0.region, account: &self.0.account, params, body };
        let answer = call.run(op, &mut self.registry());
        let revoked = std::mem::take(&mut self.registry().revoked);
        for certificate in revoked {
            for tell in self.0.revoked.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                tell(&certificate);
            }
        }
        answer
    }

    /// Tells of every certificate that stops being active, by its id.
    pub(crate) fn on_revoked(&self, tell: impl Fn(&str) + Send + Sync + 'static) {
        self.0.revoked.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(tell));
    }

    /// An active certificate of its own for a thing, with the device policy.
    pub(crate) fn create_for_thing(&self, now: i64, thing: &str) -> Result<ThingFiles, Error> {
        let mut registry = self.registry();
        let (issued, private_key) = registry.authority.issue()?;
        let id = registry.add_certificate(&issued, Status::Active, now);
        registry.change_certificate(&id, now, |certificate| {
            certificate.policies.insert(DEVICE_POLICY_NAME.to_owned());
            certificate.things.insert(thing.to_owned());
        });
        Ok(ThingFiles {
            certificate_id: id,
            certificate_pem: issued.certificate_pem,
            private_key,
            ca_pem: registry.authority.certificate_pem.clone(),
        })
    }

    /// The ARNs of the certificates attached to a thing: while there are any, AWS does not delete it.
    pub(crate) fn principals_of(&self, thing: &str) -> Vec<String> {
        let registry = self.registry();
        registry.certificates_of(thing).map(|id| format!("{}cert/{id}", self.arn_prefix())).collect()
    }

    /// Who a certificate (DER) is, if it is registered and active.
    pub(crate) fn principal(&self, certificate: &[u8]) -> Option<Principal> {
        self.registry().principal(certificate)
    }

    /// What all our ARNs begin with.
    pub(crate) fn arn_prefix(&self) -> String {
        format!("arn:aws:iot:{}:{}:", self.0.region, self.0.account)
    }

    /// What the TLS listener is configured with: our certificate, and clients that the registry knows.
    pub(crate) fn tls(&self, require_sni: bool) -> Result<Arc<rustls::ServerConfig>, Error> {
        self.server_config(tls::Port::Mqtt, require_sni)
    }

    /// The same for port 443, where a client need not have a certificate.
    pub(crate) fn web_tls(&self, require_sni: bool) -> Result<Arc<rustls::ServerConfig>, Error> {
        self.server_config(tls::Port::Web, require_sni)
    }

    fn server_config(&self, port: tls::Port, require_sni: bool) -> Result<Arc<rustls::ServerConfig>, Error> {
        let (certificate, key) = self.registry().authority.server(&self.0.server_names)?;
        tls::server_config(self.clone(), certificate, key, port, require_sni)
    }

    pub(crate) fn region(&self) -> &str {
        &self.0.region
    }

    /// For how many seconds this role alias may be had for this certificate; none if it may not.
    pub(crate) fn may_assume(&self, principal: &Principal, thing: Option<&str>, alias: &str) -> Option<i64> {
        let registry = self.registry();
        let seconds =
            registry.get(role_alias::ROLE_ALIAS, alias)?.get("credentialDurationSeconds")?.as_i64()?;
        let subject = Subject { thing, ..Subject::default() };
        let rules = Rules::compile(&principal.documents, &subject, &self.arn_prefix());
        rules.allows(Action::AssumeRole, alias).then_some(seconds)
    }

    /// An operation of Cognito's identity pools. `now` is the machine's time.
    pub(crate) fn cognito(
        &self,
        now: Time,
        operation: &str,
        body: &Value,
        temporary: &Temporary,
    ) -> Result<Value, ApiError> {
        let call = cognito::Call { now, region: &self.0.region, body, temporary };
        call.run(operation, &mut self.registry())
    }

    /// What the policies that are attached to an identity of Cognito's allow.
    pub(crate) fn cognito_principal(&self, identity: &str) -> Principal {
        cognito::principal(&self.registry(), identity)
    }

    fn registry(&self) -> MutexGuard<'_, registry::Registry> {
        self.0.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Cognito's identity pools: who a device is without a certificate, a guest or somebody that a login vouches for.
//!
//! Nobody checks a login's token here: whoever has one is who it says, by the `sub` of a JWT, or by the token itself.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::registry::{Principal, Registry};
use crate::engine::{ApiError, Time};
use crate::temporary::Temporary;

pub(super) const POOL: &str = "identity.cognito-pool";
pub(super) const IDENTITY: &str = "identity.cognito-identity";
/// As Cognito's live.
const LIFE_SECONDS: i64 = 3600;

type Answer = Result<Value, ApiError>;

pub(super) struct Call<'a> {
    pub(super) now: Time,
    pub(super) region: &'a str,
    pub(super) body: &'a Value,
    pub(super) temporary: &'a Temporary,
}

impl Call<'_> {
    pub(super) fn run(&self, operation: &str, registry: &mut Registry) -> Answer {
        match operation {
            "CreateIdentityPool" => self.create_pool(registry),
            "DescribeIdentityPool" => self.pool(registry).cloned(),
            "DeleteIdentityPool" => self.delete_pool(registry),
            "GetId" => self.get_id(registry),
            "GetCredentialsForIdentity" => self.get_credentials(registry),
            other => {
                let message = format!("{other} is not served by the local cloud");
                Err(error("UnknownOperationException", message))
            }
        }
    }

    fn create_pool(&self, registry: &mut Registry) -> Answer {
        let name = self.required("IdentityPoolName")?;
        let id = format!("{}:{}", self.region, guid());
        let pool = json!({
            "IdentityPoolId": id,
            "IdentityPoolName": name,
            "AllowUnauthenticatedIdentities": self.body.get("AllowUnauthenticatedIdentities") == Some(&json!(true)),
        });
        registry.put(POOL, &id, pool.clone());
        Ok(pool)
    }

    fn delete_pool(&self, registry: &mut Registry) -> Answer {
        self.pool(registry)?;
        registry.remove(POOL, self.required("IdentityPoolId")?);
        Ok(json!({}))
    }

    fn pool<'r>(&self, registry: &'r Registry) -> Result<&'r Value, ApiError> {
        let id = self.required("IdentityPoolId")?;
        let missing = || error("ResourceNotFoundException", format!("IdentityPool '{id}' not found."));
        registry.get(POOL, id).ok_or_else(missing)
    }

    fn get_id(&self, registry: &mut Registry) -> Answer {
        let pool = self.pool(registry)?;
        let logins = self.logins()?;
        if logins.is_empty() && pool.get("AllowUnauthenticatedIdentities") != Some(&json!(true)) {
            let message = "Unauthenticated access is not supported for this identity pool.".to_owned();
            return Err(error("NotAuthorizedException", message));
        }
        let pool = self.required("IdentityPoolId")?;
        // One login is one identity; each guest is another.
        let known = registry.all(IDENTITY).find(|(_, identity)| {
            !logins.is_empty() && identity.get("pool") == Some(&json!(pool)) && has_logins(identity, &logins)
        });
        let id = match known {
            Some((id, _)) => id.to_owned(),
            None => {
                let id = format!("{}:{}", self.region, guid());
                registry.put(IDENTITY, &id, json!({"pool": pool, "logins": logins, "policies": []}));
                id
            }
        };
        Ok(json!({"IdentityId": id}))
    }

    fn get_credentials(&self, registry: &Registry) -> Answer {
        let id = self.required("IdentityId")?;
        let missing = || error("ResourceNotFoundException", format!("Identity '{id}' not found."));
        let identity = registry.get(IDENTITY, id).ok_or_else(missing)?;
        let pool = identity.get("pool").and_then(Value::as_str).unwrap_or_default();
        registry.get(POOL, pool).ok_or_else(missing)?;
        let logins = self.logins()?;
        if !has_logins(identity, &logins) {
            let message = format!("Access to Identity '{id}' is forbidden.");
            return Err(error("NotAuthorizedException", message));
        }
        let authenticated = (!logins.is_empty()).then(|| id.to_owned());
        let session = self.temporary.issue(self.now, LIFE_SECONDS, authenticated);
        Ok(json!({"IdentityId": id, "Credentials": {
            "AccessKeyId": session.access_key,
            "SecretKey": session.secret_key,
            "SessionToken": session.token,
            "Expiration": session.expires.secs(),
        }}))
    }

    /// Who each provider says that this is.
    fn logins(&self) -> Result<Map<String, Value>, ApiError> {
        let given = self.body.get("Logins").and_then(Value::as_object).cloned().unwrap_or_default();
        given
            .into_iter()
            .map(|(provider, token)| match token.as_str().filter(|token| !token.is_empty()) {
                Some(token) => Ok((provider, subject(token).unwrap_or_else(|| token.to_owned()).into())),
                None => Err(error("NotAuthorizedException", "Invalid login token.".to_owned())),
            })
            .collect()
    }

    fn required(&self, member: &str) -> Result<&str, ApiError> {
        let value = self.body.get(member).and_then(Value::as_str).filter(|value| !value.is_empty());
        value.ok_or_else(|| error("InvalidParameterException", format!("{member} is required")))
    }
}

/// IoT's policies of an identity that somebody vouches for. Without any it may do nothing.
pub(super) fn principal(registry: &Registry, identity: &str) -> Principal {
    let names = registry.get(IDENTITY, identity).and_then(|found| found.get("policies")?.as_array());
    let names = names.into_iter().flatten().filter_map(Value::as_str);
    let documents = names.filter_map(|name| registry.document(name)).collect();
    Principal { certificate_id: identity.to_owned(), things: Default::default(), documents }
}

/// False when there is no such identity.
pub(super) fn attach(registry: &mut Registry, identity: &str, policy: &str, attach: bool) -> bool {
    let Some(mut found) = registry.get(IDENTITY, identity).cloned() else { return false };
    if let Some(policies) = found.get_mut("policies").and_then(Value::as_array_mut) {
        policies.retain(|name| name != policy);
        if attach {
            policies.push(policy.into());
        }
    }
    registry.put(IDENTITY, identity, found);
    true
}

fn has_logins(identity: &Value, logins: &Map<String, Value>) -> bool {
    identity.get("logins").and_then(Value::as_object) == Some(logins)
}

fn subject(token: &str) -> Option<String> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

fn guid() -> String {
    let id = fastrand::u128(..);
    let part = |shift: u32, digits: usize| format!("{:0digits$x}", (id >> shift) & ((1 << (digits * 4)) - 1));
    [part(0, 8), part(32, 4), part(48, 4), part(64, 4), part(80, 12)].join("-")
}

fn error(kind: &'static str, message: String) -> ApiError {
    ApiError { http: 400, kind, message, extra: Map::new() }
}

#[cfg(test)]
mod tests {
    use super::super::authority::Authority;
    use super::*;

    fn run(registry: &mut Registry, temporary: &Temporary, operation: &str, body: &Value) -> Answer {
        Call { now: Time::from_secs(1000), region: "us-east-1", body, temporary }.run(operation, registry)
    }

    #[test]
    fn guests_and_logins_are_told_apart() {
        let (mut registry, temporary) = (Registry::new(Authority::generate().unwrap()), Temporary::default());
        let mut call = |operation: &str, body: Value| run(&mut registry, &temporary, operation, &body);
        let kind = |answer: Answer| answer.unwrap_err().kind;
        let pool = |call: &mut dyn FnMut(&str, Value) -> Answer, guests: bool| {
            let asked = json!({"IdentityPoolName": "p", "AllowUnauthenticatedIdentities": guests});
            call("CreateIdentityPool", asked).unwrap()["IdentityPoolId"].as_str().unwrap().to_owned()
        };
        let (open, closed) = (pool(&mut call, true), pool(&mut call, false));
        assert!(open.starts_with("us-east-1:") && open.len() == 46, "{open}");

        let first = call("GetId", json!({"IdentityPoolId": open})).unwrap()["IdentityId"].clone();
        assert_ne!(call("GetId", json!({"IdentityPoolId": open})).unwrap()["IdentityId"], first);
        let found = call("GetCredentialsForIdentity", json!({"IdentityId": first})).unwrap();
        assert_eq!(found["Credentials"]["Expiration"], 4600);
        assert_eq!(kind(call("GetId", json!({"IdentityPoolId": closed}))), "NotAuthorizedException");
        assert_eq!(
            kind(call("GetId", json!({"IdentityPoolId": "us-east-1:x"}))),
            "ResourceNotFoundException"
        );
        assert_eq!(kind(call("GetId", json!({}))), "InvalidParameterException");

        // Another token of the same person.
        let token = |n: u32| {
            let claims = json!({"sub": "somebody", "exp": n}).to_string();
            format!("e30.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims))
        };
        let login = |n| json!({"IdentityPoolId": closed, "Logins": {"login.example.com": token(n)}});
        let id = call("GetId", login(1)).unwrap()["IdentityId"].clone();
        assert_eq!(call("GetId", login(2)).unwrap()["IdentityId"], id);
        assert_eq!(
            kind(call("GetCredentialsForIdentity", json!({"IdentityId": id}))),
            "NotAuthorizedException"
        );
        let asked = json!({"IdentityId": id, "Logins": {"login.example.com": token(3)}});
        call("GetCredentialsForIdentity", asked).unwrap();
        assert_eq!(
            kind(call("GetCredentialsForIdentity", json!({"IdentityId": "x"}))),
            "ResourceNotFoundException"
        );
        assert_eq!(kind(call("ListIdentities", json!({}))), "UnknownOperationException");
        call("DeleteIdentityPool", json!({"IdentityPoolId": open})).unwrap();
        assert_eq!(
            kind(call("GetCredentialsForIdentity", json!({"IdentityId": first}))),
            "ResourceNotFoundException"
        );
    }
}

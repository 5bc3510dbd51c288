//! AWS credentials: where they come from, and until when they are good.

mod cognito;
mod http;
mod process;
mod role_alias;
mod shared;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;

use crate::Settings;
pub use cognito::{Cognito, Login};
pub use role_alias::RoleAlias;

/// Of their life. What has less left is replaced at the next connect.
const WORN: f64 = 0.2;

/// Never shown: [`Debug`] tells the access key alone, which is no secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) session_token: Option<String>,
    /// Of temporary ones.
    pub(crate) life: Option<Life>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
}

/// Where credentials come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// As AWS's own tools look for them: the environment, then the shared files with their `credential_process`. `profile`
    /// comes before `AWS_PROFILE`.
    Default {
        profile: Option<String>,
    },
    Cognito(Cognito),
    RoleAlias(RoleAlias),
}

/// Why there are none. No message holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    #[error(
        "no AWS credentials: expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or the profile {profile} \
         in {}", credentials.display()
    )]
    Nowhere { profile: String, credentials: PathBuf },
    #[error("the environment has {there} and not {missing}")]
    Half { there: &'static str, missing: &'static str },
    #[error("{}: {problem}", file.display())]
    File { file: PathBuf, problem: String },
    #[error("{program}: {problem}")]
    Program { program: String, problem: String },
    #[error("{service}: {problem}")]
    Http { service: &'static str, problem: String },
    #[error("{service} refuses ({answer}){}", advice.map(|advice| format!(": {advice}")).unwrap_or_default())]
    Refused { service: &'static str, answer: String, advice: Option<&'static str> },
    #[error("the credentials of {origin} expired at {at}; this device's clock says {now}")]
    Expired { origin: &'static str, at: String, now: String },
}

/// Signs each connect anew, with credentials that are kept as long as they are good. Two of them are equal if they are one.
#[derive(Clone)]
pub struct Signer(Arc<Inner>);

struct Inner {
    region: String,
    source: Source,
    kept: Mutex<Option<Credentials>>,
}

impl Signer {
    pub fn new(region: String, source: Source) -> Self {
        Self(Arc::new(Inner { region, source, kept: Mutex::new(None) }))
    }

    pub fn region(&self) -> &str {
        &self.0.region
    }

    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// As they are in force now. Worn ones that cannot be replaced are good until they end.
    pub(crate) async fn credentials(&self, settings: &Settings) -> Result<Credentials, CredentialsError> {
        let mut kept = self.0.kept.lock().await;
        let now = SystemTime::now();
        if let Some(good) = kept.as_ref().filter(|kept| kept.left(now) > WORN) {
            return Ok(good.clone());
        }
        match self.0.source.fetch(settings, now).await {
            Ok(fresh) => {
                *kept = fresh.life.is_some().then(|| fresh.clone());
                Ok(fresh)
            }
            Err(error) => match kept.as_ref().filter(|kept| kept.left(now) > 0.0) {
                Some(old) => {
                    tracing::warn!(%error, "AWS credentials that end soon cannot be replaced yet");
                    Ok(old.clone())
                }
                None => Err(error),
            },
        }
    }
}

impl Source {
    async fn fetch(&self, settings: &Settings, now: SystemTime) -> Result<Credentials, CredentialsError> {
        let found = match self {
            Self::Default { profile } => {
                let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
                shared::find(profile.as_deref(), &environment, now).await
            }
            Self::Cognito(cognito) => cognito.credentials(settings, now).await,
            Self::RoleAlias(alias) => alias.credentials(settings, now).await,
        }?;
        match found.life {
            Some(Life { until, .. }) if until <= now => Err(CredentialsError::Expired {
                origin: self.name(),
                at: crate::utc(until),
                now: crate::utc(now),
            }),
            _ => Ok(found),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Default { .. } => "the credential process",
            Self::Cognito(_) => "Cognito",
            Self::RoleAlias(_) => "the credential provider",
        }
    }
}

impl Credentials {
    /// What is left of their life, from 1 to 0; those that have no end have all of it.
    fn left(&self, now: SystemTime) -> f64 {
        let Some(Life { from, until }) = self.life else { return 1.0 };
        let left = until.duration_since(now).unwrap_or_default().as_secs_f64();
        let whole = until.duration_since(from).unwrap_or_default().as_secs_f64();
        if whole > 0.0 { left / whole } else { 0.0 }
    }

    /// How long they will be good.
    pub(crate) fn lasts(&self, now: SystemTime) -> Option<Duration> {
        self.life.map(|life| life.until.duration_since(now).unwrap_or_default())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.access_key)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("region", &self.0.region).field("source", &self.0.source).finish()
    }
}

impl PartialEq for Signer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Signer {}

/// The members that AWS's own services and programs give them in: a credential process, the credential provider and
/// Cognito differ in their names alone.
fn from_json(
    document: &serde_json::Value,
    names: [&str; 4],
    now: SystemTime,
) -> Result<Credentials, &'static str> {
    let text = |name: &str| document.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let [access_key, secret_key, session_token, expiration] = names;
    let life = match document.get(expiration) {
        None | Some(serde_json::Value::Null) => None,
        Some(until) => Some(Life { from: now, until: time(until).ok_or("its Expiration is not a time")? }),
    };
    Ok(Credentials {
        access_key: text(access_key).ok_or("there is no access key in it")?,
        secret_key: text(secret_key).ok_or("there is no secret key in it")?,
        session_token: text(session_token),
        life,
    })
}

/// Seconds since 1970, or as ISO 8601 has it.
fn time(value: &serde_json::Value) -> Option<SystemTime> {
    if let Some(seconds) = value.as_f64() {
        let seconds = Duration::try_from_secs_f64(seconds).ok()?;
        return SystemTime::UNIX_EPOCH.checked_add(seconds);
    }
    let text = value.as_str()?;
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    let whole = text.split('.').next()?;
    crate::calendar::parse_der(format!("{}Z", whole.replace(['-', ':', 'T'], "")).as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_come_as_numbers_and_as_text() {
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_516_267_086);
        for value in [
            json!(1_516_267_086),
            json!(1_516_267_086.0),
            json!("2018-01-18T09:18:06Z"),
            json!("2018-01-18T09:18:06.123Z"),
            json!("2018-01-18T09:18:06+00:00"),
        ] {
            assert_eq!(time(&value), Some(expected), "{value}");
        }
        for value in [json!("2018-01-18T09:18:06"), json!("soon"), json!(-5), json!(1e300), json!({})] {
            assert_eq!(time(&value), None, "{value}");
        }
    }

    #[test]
    fn what_is_left_of_a_life_is_a_share_of_it() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let with = |life| Credentials {
            access_key: "a".to_owned(),
            secret_key: "hunter2".to_owned(),
            session_token: Some("hunter2".to_owned()),
            life,
        };
        let hour = with(Some(Life { from: at(0), until: at(3600) }));
        for (now, left) in [(0, 1.0), (1800, 0.5), (3600, 0.0), (9999, 0.0)] {
            assert_eq!(hour.left(at(now)), left);
        }
        assert_eq!(with(None).left(at(5)), 1.0);
        assert!(!format!("{hour:?}").contains("hunter2"));
    }
}

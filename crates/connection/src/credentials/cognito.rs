//! Amazon Cognito identity pools: an identity for this device, and temporary credentials for that.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::http::{Certificate, answer, client};
use super::{Credentials, CredentialsError, from_json, process};
use crate::Settings;

const SERVICE: &str = "Cognito";
const NAMES: [&str; 4] = ["AccessKeyId", "SecretKey", "SessionToken", "Expiration"];
/// An identity that is none any more, or not this login's.
const GONE: [&str; 2] = ["ResourceNotFoundException", "NotAuthorizedException"];
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cognito {
    /// `REGION:GUID`.
    pub identity_pool: String,
    /// `None`: the region's.
    pub url: Option<String>,
    /// Without one, this device is a guest.
    pub login: Option<Login>,
    /// Where the identity is kept, so that a guest does not become another one at each start.
    pub identity_file: PathBuf,
}

/// Who vouches for this device, and with what token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    File { provider: String, file: PathBuf },
    Command { provider: String, program: String, arguments: Vec<String> },
}

impl Cognito {
    pub(super) async fn credentials(
        &self,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Credentials, CredentialsError> {
        let logins = self.logins().await?;
        let known = read(&self.identity_file).await.ok().filter(|identity| !identity.is_empty());
        if let Some(identity) = known {
            match self.credentials_of(&identity, &logins, settings, now).await {
                // The pool was made anew, or the identity removed from it.
                Err(CredentialsError::Refused { answer, .. })
                    if GONE.iter().any(|kind| answer.contains(kind)) => {}
                done => return done,
            }
        }
        let asked = json!({"IdentityPoolId": self.identity_pool, "Logins": logins});
        let answer = self.call("GetId", asked, settings).await?;
        let identity = answer
            .get("IdentityId")
            .and_then(Value::as_str)
            .ok_or_else(|| not_understood("no IdentityId"))?;
        let found = self.credentials_of(identity, &logins, settings, now).await?;
        if let Err(error) = tokio::fs::write(&self.identity_file, identity).await {
            tracing::warn!(file = %self.identity_file.display(), %error, "the Cognito identity cannot be kept");
        }
        Ok(found)
    }

    async fn credentials_of(
        &self,
        identity: &str,
        logins: &Value,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Credentials, CredentialsError> {
        let asked = json!({"IdentityId": identity, "Logins": logins});
        let answer = self.call("GetCredentialsForIdentity", asked, settings).await?;
        let found = answer.get("Credentials").ok_or("no Credentials");
        found.and_then(|found| from_json(found, NAMES, now)).map_err(not_understood)
    }

    async fn call(
        &self,
        operation: &str,
        mut body: Value,
        settings: &Settings,
    ) -> Result<Value, CredentialsError> {
        if let Some(members) = body.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        let region = self.identity_pool.split(':').next().unwrap_or_default();
        let url =
            self.url.clone().unwrap_or_else(|| format!("https://cognito-identity.{region}.amazonaws.com/"));
        let request = client(settings, Certificate::Kept, SERVICE)?
            .post(url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("AWSCognitoIdentityService.{operation}"))
            .body(body.to_string());
        answer(request, SERVICE).await
    }

    /// `null` for a guest.
    async fn logins(&self) -> Result<Value, CredentialsError> {
        let (provider, token) = match &self.login {
            None => return Ok(Value::Null),
            Some(Login::File { provider, file }) => {
                let token = read(file).await.map_err(|error| CredentialsError::File {
                    file: file.clone(),
                    problem: error.to_string(),
                })?;
                (provider, token)
            }
            Some(Login::Command { provider, program, arguments }) => {
                let mut command = Command::new(program);
                command.args(arguments);
                (provider, process::output(program, command).await?.trim().to_owned())
            }
        };
        Ok(json!({provider: token}))
    }
}

fn not_understood(problem: &'static str) -> CredentialsError {
    CredentialsError::Http { service: SERVICE, problem: format!("its answer is not understood: {problem}") }
}

/// Without the line's end.
async fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    tokio::fs::File::open(file).await?.take(MAX_TOKEN_BYTES + 1).read_to_string(&mut text).await?;
    if text.len() as u64 > MAX_TOKEN_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_TOKEN_BYTES} bytes")));
    }
    Ok(text.trim().to_owned())
}

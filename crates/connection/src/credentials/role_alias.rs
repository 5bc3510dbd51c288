//! The AWS IoT credential provider: the device's certificate for temporary credentials of a role.

use std::time::SystemTime;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::http::{Certificate, answer, client};
use super::{Credentials, CredentialsError, from_json};
use crate::Settings;
use crate::proxy::authority;

const SERVICE: &str = "the credential provider";
const NAMES: [&str; 4] = ["accessKeyId", "secretAccessKey", "sessionToken", "expiration"];
const ADVICE: &str = "does a policy of the certificate allow iot:AssumeRoleWithCertificate on the role alias, and is the thing \
                      attached to the certificate?";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleAlias {
    /// `aws iot describe-endpoint --endpoint-type iot:CredentialProvider`.
    pub endpoint: String,
    pub port: u16,
    pub name: String,
    pub thing_name: String,
}

impl RoleAlias {
    pub(super) async fn credentials(
        &self,
        settings: &Settings,
        now: SystemTime,
    ) -> Result<Credentials, CredentialsError> {
        let alias = utf8_percent_encode(&self.name, NON_ALPHANUMERIC);
        let address = authority(&self.endpoint, self.port);
        let url = format!("https://{address}/role-aliases/{alias}/credentials");
        let request = client(settings, Certificate::Shown, SERVICE)?.get(url);
        let request = request.header("x-amzn-iot-thingname", &self.thing_name);
        let document = answer(request, SERVICE).await.map_err(|error| match error {
            CredentialsError::Refused { service, answer, .. } => {
                CredentialsError::Refused { service, answer, advice: Some(ADVICE) }
            }
            other => other,
        })?;
        let found = document.get("credentials").ok_or("there are no credentials in it");
        found.and_then(|found| from_json(found, NAMES, now)).map_err(|problem| CredentialsError::Http {
            service: SERVICE,
            problem: format!("its answer is not understood: {problem}"),
        })
    }
}

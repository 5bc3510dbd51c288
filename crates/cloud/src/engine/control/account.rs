//! What concerns the whole account: its endpoints, which events it wants, and whether jobs write `$package`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Result, empty, invalid, merged, put};
use crate::engine::Engine;
use crate::engine::interface::Time;
use crate::engine::store::Row;
use crate::engine::validate::{ARN, Input, Text};

const EVENT_TYPES: [&str; 11] = [
    "THING",
    "THING_GROUP",
    "THING_TYPE",
    "THING_GROUP_MEMBERSHIP",
    "THING_GROUP_HIERARCHY",
    "THING_TYPE_ASSOCIATION",
    "JOB",
    "JOB_EXECUTION",
    "POLICY",
    "CERTIFICATE",
    "CA_CERTIFICATE",
];
const ENDPOINT_TYPES: [&str; 4] = ["iot:Data", "iot:Data-ATS", "iot:CredentialProvider", "iot:Jobs"];

/// `versionUpdateByJobsConfig` of the account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PackageShadows {
    pub enabled: bool,
    role: Option<String>,
}

impl Engine {
    pub(super) fn describe_endpoint(&self, input: &Input) -> Result {
        let kind = input.text("endpointType", &Text::any(0..=128))?;
        if let Some(kind) = kind.filter(|kind| !ENDPOINT_TYPES.contains(&kind.as_str())) {
            return Err(invalid(format!("Endpoint type {kind} is not one of {}", ENDPOINT_TYPES.join(", "))));
        }
        Ok(json!({"endpointAddress": self.settings.endpoint}))
    }

    pub(super) fn update_events(&mut self, now: Time, input: &Input) -> Result {
        let Some(types) = input.child("eventConfigurations")? else { return Ok(empty()) };
        let mut wanted = Vec::new();
        for name in types.names() {
            if !EVENT_TYPES.contains(&name) {
                return Err(invalid(format!("Event type {name} is not one of {}", EVENT_TYPES.join(", "))));
            }
            let enabled = types.child(name)?.map(|part| part.flag("Enabled")).transpose()?.flatten();
            wanted.push((name.to_owned(), enabled.unwrap_or(false)));
        }
        self.event_types.extend(wanted);
        self.events_created.get_or_insert(now);
        self.events_modified = Some(now);
        self.dirty.note(|| Row::Meta);
        Ok(empty())
    }

    pub(super) fn describe_events(&self) -> Result {
        let enabled = |name: &str| self.event_types.get(name).copied().unwrap_or(false);
        let types: Map<String, Value> =
            EVENT_TYPES.iter().map(|name| ((*name).to_owned(), json!({"Enabled": enabled(name)}))).collect();
        let mut answer = merged(json!({"eventConfigurations": types}), empty());
        put(&mut answer, "creationDate", self.events_created.map(Time::to_number));
        put(&mut answer, "lastModifiedDate", self.events_modified.map(Time::to_number));
        Ok(answer.into())
    }
    pub(super) fn package_configuration(&self) -> Value {
        let PackageShadows { enabled, role } = &self.package_shadows;
        let mut config = merged(json!({"enabled": enabled}), empty());
        put(&mut config, "roleArn", role.clone());
        json!({"versionUpdateByJobsConfig": config})
    }

    pub(super) fn update_package_configuration(&mut self, input: &Input) -> Result {
        let Some(config) = input.child("versionUpdateByJobsConfig")? else { return Ok(empty()) };
        let enabled = config.flag("enabled")?;
        let role = config.text("roleArn", &ARN)?;
        let now = &mut self.package_shadows;
        now.enabled = enabled.unwrap_or(now.enabled);
        now.role = role.or(now.role.take());
        self.dirty.note(|| Row::Meta);
        Ok(empty())
    }
}

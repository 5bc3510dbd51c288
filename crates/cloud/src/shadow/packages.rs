//! What Jobs write when an execution has succeeded: the versions that a job leads to, in the shadow `$package`.

use serde_json::{Map, Value, json};

use super::Shadows;
use crate::engine::{Deployed, Output, Time};

const NAME: &str = "$package";

impl Shadows {
    /// As an ordinary update, heard like any other. The versions are those of the job's ARNs; without a package
    /// catalog there are no attributes, and `$default` names none.
    pub fn deployed(&mut self, now: Time, deployed: &Deployed) -> Vec<Output> {
        let entry = |arn: &String| {
            let mut parts = arn.rsplit('/');
            let (version, package) = (parts.next()?, parts.nth(1)?);
            let written = match version {
                "$null" => Value::Null,
                "$default" => return None,
                version => json!({"version": version, "attributes": {}}),
            };
            Some((package.to_owned(), written))
        };
        let reported: Map<String, Value> = deployed.packages.iter().filter_map(entry).collect();
        if reported.is_empty() {
            return Vec::new();
        }
        let id = (deployed.thing.clone(), Some(NAME.to_owned()));
        let payload = json!({"state": {"reported": reported}}).to_string();
        match self.update(now, &id, payload.as_bytes()) {
            Ok(done) => done.messages,
            Err(rejection) => {
                tracing::warn!(
                    thing = deployed.thing,
                    message = rejection.message,
                    "$package is not written"
                );
                Vec::new()
            }
        }
    }
}

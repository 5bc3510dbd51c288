//! What a message is for. Coarse on purpose: an operator asks which part of the bill is progress, and which is reconnects.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    Connect,
    Subscribe,
    /// A PUBACK that the device sends. Those of the service are free.
    Acknowledgement,
    /// `notify` and `notify-next`.
    JobsNotify,
    /// What there is to do: `get`, `start-next`, and their answers.
    JobsAsk,
    /// A status, and its answer.
    JobsUpdate,
    Shadow,
    Provisioning,
    /// Not AWS's own: what other programs publish through the agent.
    Publish,
    Other,
}

impl Class {
    pub const ALL: [Self; 10] = [
        Self::Connect,
        Self::Subscribe,
        Self::Acknowledgement,
        Self::JobsNotify,
        Self::JobsAsk,
        Self::JobsUpdate,
        Self::Shadow,
        Self::Provisioning,
        Self::Publish,
        Self::Other,
    ];

    /// Of a message that is published to this topic, in either direction.
    pub fn of(topic: &str) -> Self {
        let mut levels = topic.split('/');
        let head = (levels.next(), levels.next());
        match head {
            (Some("$aws"), Some("things")) => {
                let thing_part = levels.nth(1);
                match (thing_part, levels.next(), levels.next()) {
                    (Some("shadow"), ..) => Self::Shadow,
                    (Some("jobs"), Some("notify" | "notify-next"), None) => Self::JobsNotify,
                    // By position: a job may be called `update`.
                    (Some("jobs"), Some(_), Some("update")) => Self::JobsUpdate,
                    (Some("jobs"), ..) => Self::JobsAsk,
                    _ => Self::Other,
                }
            }
            (Some("$aws"), Some("certificates" | "provisioning-templates")) => Self::Provisioning,
            (Some(level), _) if !level.is_empty() && !level.starts_with('$') => Self::Publish,
            _ => Self::Other,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Acknowledgement => "acknowledgement",
            Self::JobsNotify => "jobs-notify",
            Self::JobsAsk => "jobs-ask",
            Self::JobsUpdate => "jobs-update",
            Self::Shadow => "shadow",
            Self::Provisioning => "provisioning",
            Self::Publish => "publish",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_one_class_by_the_position_of_its_levels() {
        let cases = [
            ("$aws/things/edge/jobs/notify", Class::JobsNotify),
            ("$aws/things/edge/jobs/notify-next", Class::JobsNotify),
            ("$aws/things/edge/jobs/get", Class::JobsAsk),
            ("$aws/things/edge/jobs/get/accepted", Class::JobsAsk),
            ("$aws/things/edge/jobs/start-next/rejected", Class::JobsAsk),
            ("$aws/things/edge/jobs/$next/get", Class::JobsAsk),
            ("$aws/things/edge/jobs/$next/get/accepted", Class::JobsAsk),
            ("$aws/things/edge/jobs/j-1/update", Class::JobsUpdate),
            ("$aws/things/edge/jobs/j-1/update/accepted", Class::JobsUpdate),
            // Jobs that somebody called like an operation.
            ("$aws/things/edge/jobs/update/get", Class::JobsAsk),
            ("$aws/things/edge/jobs/notify/update", Class::JobsUpdate),
            ("$aws/things/edge/shadow/update", Class::Shadow),
            ("$aws/things/edge/shadow/name/jobs/update/delta", Class::Shadow),
            ("$aws/things/jobs/shadow/get", Class::Shadow),
            ("$aws/certificates/create-from-csr/json", Class::Provisioning),
            ("$aws/provisioning-templates/t/provision/json/accepted", Class::Provisioning),
            ("$aws/things/edge/tunnels/notify", Class::Other),
            ("$aws/things", Class::Other),
            ("$SYS/broker", Class::Other),
            ("jobs/notify", Class::Publish),
            ("dt/$aws/things", Class::Publish),
            ("", Class::Other),
        ];
        for (topic, expected) in cases {
            assert_eq!(Class::of(topic), expected, "{topic}");
        }
    }

    #[test]
    fn a_class_is_stored_under_the_name_that_is_printed() {
        for class in Class::ALL {
            assert_eq!(serde_json::to_string(&class).unwrap(), format!("{:?}", class.name()));
        }
    }
}

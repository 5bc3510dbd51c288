//! The topics of one shadow.

/// The most filters that one shadow takes of the fifty which AWS allows a connection.
pub(crate) const REPORTS: [&str; 4] = ["get/accepted", "get/rejected", "update/accepted", "update/rejected"];
/// What a follower listens to besides. Not `update/documents`: it repeats all that is known, twice.
pub(crate) const FOLLOWS: [&str; 2] = ["update/delta", "delete/accepted"];

/// Which shadow of which thing; the classic one has no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    pub thing: String,
    pub name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    GetAccepted,
    GetRejected,
    UpdateAccepted,
    UpdateRejected,
    Delta,
    DeleteAccepted,
}

impl Shadow {
    pub const NAME: &str = "1 to 64 of the characters a-z A-Z 0-9 : _ - $";

    pub fn is_name(text: &str) -> bool {
        (1..=64).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-' | '$'))
    }

    pub(crate) fn topic(&self, what: &str) -> String {
        match &self.name {
            None => format!("$aws/things/{}/shadow/{what}", self.thing),
            Some(name) => format!("$aws/things/{}/shadow/name/{name}/{what}", self.thing),
        }
    }

    /// What has to be subscribed to before anything is asked. `follows`: what is desired matters.
    pub fn subscriptions(&self, follows: bool) -> Vec<String> {
        // One filter for both answers to a get: a filter is what AWS counts.
        let answers = REPORTS.iter().filter(|what| !what.starts_with("get/"));
        let more = FOLLOWS.iter().filter(|_| follows);
        let whats = std::iter::once(&"get/+").chain(answers).chain(more);
        whats.map(|what| self.topic(what)).collect()
    }

    pub(crate) fn heard(&self, topic: &str) -> Option<Heard> {
        let rest = topic.strip_prefix("$aws/things/")?.strip_prefix(&self.thing)?.strip_prefix("/shadow/")?;
        let what = match &self.name {
            None => rest,
            Some(name) => rest.strip_prefix("name/")?.strip_prefix(name)?.strip_prefix('/')?,
        };
        match what {
            "get/accepted" => Some(Heard::GetAccepted),
            "get/rejected" => Some(Heard::GetRejected),
            "update/accepted" => Some(Heard::UpdateAccepted),
            "update/rejected" => Some(Heard::UpdateRejected),
            "update/delta" => Some(Heard::Delta),
            "delete/accepted" => Some(Heard::DeleteAccepted),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shadow(name: Option<&str>) -> Shadow {
        Shadow { thing: "t".to_owned(), name: name.map(str::to_owned) }
    }

    #[test]
    fn a_topic_belongs_to_one_shadow_alone() {
        let cases = [
            (None, "$aws/things/t/shadow/get/accepted", Some(Heard::GetAccepted)),
            (None, "$aws/things/t/shadow/name/get/accepted", None),
            (None, "$aws/things/tt/shadow/get/accepted", None),
            (Some("get"), "$aws/things/t/shadow/get/accepted", None),
            (Some("get"), "$aws/things/t/shadow/name/get/get/accepted", Some(Heard::GetAccepted)),
            (Some("a"), "$aws/things/t/shadow/name/ab/update/delta", None),
            (Some("a"), "$aws/things/t/shadow/name/a/update/delta", Some(Heard::Delta)),
            (Some("a"), "$aws/things/t/shadow/name/a/update/documents", None),
            (Some("a"), "$aws/things/t/jobs/notify", None),
        ];
        for (name, topic, expected) in cases {
            assert_eq!(shadow(name).heard(topic), expected, "{name:?} {topic}");
        }
    }

    #[test]
    fn who_only_reports_needs_three_filters_and_who_follows_five() {
        let reports = shadow(None).subscriptions(false);
        let prefix = "$aws/things/t/shadow/";
        assert_eq!(reports, ["get/+", "update/accepted", "update/rejected"].map(|f| format!("{prefix}{f}")));
        let follows = shadow(Some("$n")).subscriptions(true);
        assert_eq!(follows[3..], ["update/delta", "delete/accepted"].map(|f| format!("{prefix}name/$n/{f}")));
    }

    #[test]
    fn names() {
        assert!(["a", "$package", "a:b_c-9", &"n".repeat(64)].iter().all(|name| Shadow::is_name(name)));
        assert!(!["", "a.b", "a/b", "é", &"n".repeat(65)].iter().any(|name| Shadow::is_name(name)));
    }
}

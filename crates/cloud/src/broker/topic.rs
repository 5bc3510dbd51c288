//! Rules for topics and filters, as pure functions.

use super::limits::{TOPIC_BYTES, TOPIC_SLASHES};

/// Levels of a filter at the most. Customers' have `TOPIC_SLASHES` + 1; reserved ones are longer, but not much.
pub(super) const LEVELS: usize = 16;

/// The reserved topics that exist. Everything else beginning with `$` is refused.
const RESERVED: [&str; 6] = [
    "$aws/things/",
    "$aws/rules/",
    "$aws/certificates/",
    "$aws/provisioning-templates/",
    "$aws/commands/",
    "$aws/events/",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("it is not what MQTT allows")]
    Syntax,
    #[error("it is longer than {TOPIC_BYTES} bytes")]
    Length,
    #[error("it has more than {TOPIC_SLASHES} slashes")]
    Slashes,
    #[error("it is reserved")]
    Reserved,
}

/// Whether a client may publish to it.
pub(crate) fn check_name(topic: &str) -> Result<(), Invalid> {
    if topic.is_empty() || topic.contains(['+', '#', '\0']) {
        return Err(Invalid::Syntax);
    }
    if topic.starts_with("$aws/events/") {
        return Err(Invalid::Reserved);
    }
    check_size(topic)
}

/// Whether a client may subscribe to it.
pub(crate) fn check_filter(filter: &str) -> Result<(), Invalid> {
    let bare = unshared(filter).ok_or(Invalid::Syntax)?.1;
    if bare.is_empty() || bare.contains('\0') {
        return Err(Invalid::Syntax);
    }
    let last = bare.split('/').count() - 1;
    let level_is_legal = |(at, level): (usize, &str)| match level {
        "+" => true,
        "#" => at == last,
        other => !other.contains(['+', '#']),
    };
    if !bare.split('/').enumerate().all(level_is_legal) {
        return Err(Invalid::Syntax);
    }
    check_size(bare)
}

fn check_size(topic: &str) -> Result<(), Invalid> {
    if topic.len() > TOPIC_BYTES {
        return Err(Invalid::Length);
    }
    let slashes = topic.matches('/').count();
    if is_reserved(topic) {
        let rule = topic.strip_prefix("$aws/rules/").and_then(|rest| rest.split_once('/'));
        return match rule {
            Some((_, customers)) => check_size(customers),
            _ if slashes >= LEVELS => Err(Invalid::Slashes),
            _ if RESERVED.iter().any(|prefix| topic.starts_with(prefix)) => Ok(()),
            _ => Err(Invalid::Reserved),
        };
    }
    if slashes > TOPIC_SLASHES { Err(Invalid::Slashes) } else { Ok(()) }
}

pub(crate) fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$')
}

/// `$share/GROUP/FILTER` taken apart; None when it is not one but looks like it.
pub(super) fn unshared(filter: &str) -> Option<(Option<&str>, &str)> {
    match filter.strip_prefix("$share/") {
        None => Some((None, filter)),
        Some(rest) => {
            let (group, filter) = rest.split_once('/')?;
            (!group.is_empty() && !group.contains(['+', '#'])).then_some((Some(group), filter))
        }
    }
}

/// The thing whose Jobs are meant, when this is a topic of theirs.
pub(crate) fn jobs_thing(topic: &str) -> Option<&str> {
    let (thing, rest) = topic.strip_prefix("$aws/things/")?.split_once('/')?;
    (!thing.is_empty() && rest.starts_with("jobs/")).then_some(thing)
}

/// Whether it is what a device asks, rather than what the service answers. By position, since jobs may have any name.
pub(super) fn is_jobs_request(topic: &str) -> bool {
    let mut levels = topic.split('/').skip(4);
    matches!(
        (levels.next(), levels.next(), levels.next()),
        (Some("get" | "start-next"), None, None) | (Some(_), Some("get" | "update"), None)
    )
}

/// As AWS matches: `a/#` is not for `a`, and a wildcard at the beginning is not for reserved topics.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if is_reserved(topic) && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (None, None) => return true,
            (Some("#"), Some(_)) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "x".repeat(257);
        for (topic, expected) in [
            ("a", Ok(())),
            ("a/b/c/d/e/f/g/h", Ok(())),
            ("a/b/c/d/e/f/g/h/i", Err(Invalid::Slashes)),
            ("", Err(Invalid::Syntax)),
            ("a/+", Err(Invalid::Syntax)),
            ("a\0", Err(Invalid::Syntax)),
            (&long, Err(Invalid::Length)),
            (&long[..256], Ok(())),
            ("$aws/things/lamp/jobs/$next/get", Ok(())),
            ("$aws/commands/things/t/executions/x/response/accepted/json", Ok(())),
            ("$aws/rules/r/a/b/c/d/e/f/g/h", Ok(())),
            ("$aws/rules/r/a/b/c/d/e/f/g/h/i", Err(Invalid::Slashes)),
            ("$aws/events/presence/connected/lamp", Err(Invalid::Reserved)),
            ("$aws/unknown", Err(Invalid::Reserved)),
            ("$SYS/x", Err(Invalid::Reserved)),
        ] {
            assert_eq!(check_name(topic), expected, "{topic}");
        }
    }

    #[test]
    fn filters() {
        for (filter, expected) in [
            ("#", Ok(())),
            ("a/#", Ok(())),
            ("+/+", Ok(())),
            ("a/#/b", Err(Invalid::Syntax)),
            ("a#", Err(Invalid::Syntax)),
            ("a/b+", Err(Invalid::Syntax)),
            ("", Err(Invalid::Syntax)),
            ("$aws/events/presence/connected/+", Ok(())),
            ("$aws/commands/things/t/executions/+/response/accepted/json", Ok(())),
            ("$share/group/a/b/c/d/e/f/g/h", Ok(())),
            ("$share/group/a/b/c/d/e/f/g/h/i", Err(Invalid::Slashes)),
            ("$share/group", Err(Invalid::Syntax)),
            ("$share//a", Err(Invalid::Syntax)),
            ("$SYS/#", Err(Invalid::Reserved)),
        ] {
            assert_eq!(check_filter(filter), expected, "{filter}");
        }
        assert_eq!(check_filter(&format!("$aws/things/{}", "+/".repeat(20))), Err(Invalid::Slashes));
    }

    #[test]
    fn things() {
        assert_eq!(jobs_thing("$aws/things/lamp/jobs/get"), Some("lamp"));
        assert_eq!(jobs_thing("$aws/things/lamp/jobs/"), Some("lamp"));
        assert_eq!(jobs_thing("$aws/things/lamp/jobsx/get"), None);
        assert_eq!(jobs_thing("$aws/things/lamp/shadow/get"), None);
        assert_eq!(jobs_thing("$aws/things//jobs/get"), None);
        assert_eq!(jobs_thing("x/$aws/things/lamp/jobs/get"), None);
    }

    #[test]
    fn requests() {
        for (rest, expected) in [
            ("get", true),
            ("start-next", true),
            ("$next/get", true),
            ("job-1/update", true),
            ("get/get", true),
            ("accepted/get", true),
            ("get/accepted", false),
            ("start-next/rejected", false),
            ("job-1/update/accepted", false),
            ("get/get/accepted", false),
            ("notify", false),
            ("notify-next", false),
        ] {
            assert_eq!(is_jobs_request(&format!("$aws/things/lamp/jobs/{rest}")), expected, "{rest}");
        }
    }

    #[test]
    fn matching() {
        for (filter, topic, expected) in [
            ("sensor/#", "sensor", false),
            ("sensor/#", "sensor/a", true),
            ("sensor/#", "sensor/", true),
            ("#", "a/b", true),
            ("#", "$aws/x", false),
            ("+/x", "$aws/x", false),
            ("$aws/#", "$aws/x", true),
            ("a/+", "a/b/c", false),
            ("a/+/c", "a/b/c", true),
            ("a/+", "a/", true),
            ("a", "a/", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}

//! Where AWS's own texts disagree or are silent: one named switch each, with the contract's recommendation as
//! its default. `SWITCHES` is the table that documentation is made from.

use super::names::{Named, named};

/// One line of the table: `--compat NAME=VALUE`.
#[derive(Clone, Debug)]
pub struct Switch {
    pub name: &'static str,
    pub values: fn() -> String,
    pub default: fn() -> String,
    pub about: &'static str,
}

named!(TerminalUpdate { InvalidStateTransition = "InvalidStateTransition", TerminalStateReached = "TerminalStateReached" });
named!(TerminalDescribe { Reject = "TerminalStateReached", Return = "return" });
named!(Unit { Seconds = "seconds", Milliseconds = "milliseconds" });
named!(EmptyNext { Timestamp = "timestamp", Empty = "empty" });
named!(AbortBase { Finished = "finished", Notified = "notified" });
named!(DeletedThing { Removed = "REMOVED", Deleted = "deleted" });
named!(YesNo { Yes = "yes", No = "no" });
named!(FirstPrevious { Absent = "absent", Empty = "empty" });
named!(DeleteVersion { Deleted = "deleted", Next = "next" });

/// What a switch can be set to.
trait Value: Sized {
    fn read(text: &str) -> Option<Self>;
    fn allowed() -> String;
    fn show(&self) -> String;
}

impl<T: Named> Value for T {
    fn read(text: &str) -> Option<T> {
        T::parse(text)
    }
    fn allowed() -> String {
        T::names()
    }
    fn show(&self) -> String {
        self.name().to_owned()
    }
}

impl Value for u32 {
    fn read(text: &str) -> Option<u32> {
        text.parse().ok()
    }
    fn allowed() -> String {
        "a number".to_owned()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! switches {
    ($($field:ident: $kind:ty = $default:expr, $name:literal, $about:literal;)+) => {
        /// The answers to AWS's open questions that this cloud gives.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Compat { $(#[doc = $about] pub $field: $kind),+ }

        impl Default for Compat {
            fn default() -> Compat {
                Compat { $($field: $default),+ }
            }
        }

        pub const SWITCHES: &[Switch] = &[$(Switch {
            name: $name,
            values: <$kind as Value>::allowed,
            default: || <$kind as Value>::show(&$default),
            about: $about,
        }),+];

        impl Compat {
            /// Sets one switch from its command line form, `NAME=VALUE`.
            pub fn set(&mut self, assignment: &str) -> Result<(), String> {
                let (name, value) = assignment
                    .split_once('=')
                    .ok_or_else(|| format!("{assignment:?} is not of the form NAME=VALUE"))?;
                match name {
                    $($name => {
                        self.$field = <$kind as Value>::read(value).ok_or_else(|| {
                            format!("{name}: {value:?} is not one of: {}", <$kind as Value>::allowed())
                        })?;
                    })+
                    _ => {
                        let known = SWITCHES.iter().map(|switch| switch.name).collect::<Vec<_>>().join(", ");
                        return Err(format!("no switch {name:?}; there are: {known}"));
                    }
                }
                Ok(())
            }
        }
    };
}

switches! {
    terminal_update_code: TerminalUpdate = TerminalUpdate::InvalidStateTransition, "terminal-update-code",
        "code that rejects an update of an execution that has ended";
    describe_terminal: TerminalDescribe = TerminalDescribe::Reject, "describe-terminal",
        "answer to a device that describes an execution that has ended";
    version_before_terminal: YesNo = YesNo::Yes, "version-before-terminal",
        "expectedVersion is checked before the state, so a stale update of an ended execution is a VersionMismatch";
    timestamp_unit: Unit = Unit::Seconds, "timestamp-unit",
        "unit of the times on the device plane";
    get_lists_in_progress: YesNo = YesNo::Yes, "get-lists-in-progress",
        "jobs/get returns executions that are IN_PROGRESS";
    pending_get_cap: u32 = 10, "pending-get-cap",
        "entries in the answer to jobs/get";
    pending_notify_cap: u32 = 15, "pending-notify-cap",
        "entries in a notify message";
    status_details_strict: YesNo = YesNo::Yes, "status-details-strict",
        "statusDetails: at most 10 pairs, and no control characters in values";
    status_details_value_max: u32 = 1024, "status-details-value-max",
        "characters in a value of statusDetails";
    client_token_max: u32 = 0, "client-token-max",
        "bytes in a clientToken; 0: no limit";
    notify_on_start: YesNo = YesNo::No, "notify-on-start",
        "notify is published when an execution goes from QUEUED to IN_PROGRESS";
    empty_notify_next: EmptyNext = EmptyNext::Timestamp, "empty-notify-next",
        "notify-next of an empty queue: a timestamp alone, or {}";
    start_next_step_timeout: YesNo = YesNo::No, "start-next-step-timeout",
        "stepTimeoutInMinutes of a start-next takes effect on an execution that is already IN_PROGRESS";
    answer_invalid_topic: YesNo = YesNo::Yes, "answer-invalid-topic",
        "a publish to a jobs topic that is no operation is answered on TOPIC/rejected with InvalidTopic";
    first_version: u32 = 1, "first-version",
        "versionNumber of a new execution";
    sign_notify_next: YesNo = YesNo::Yes, "presign-notify-next",
        "placeholders are replaced in notify-next too";
    nested_maximum: YesNo = YesNo::No, "rate-maximum-nested",
        "maximumPerMinute is also understood inside exponentialRate";
    maximum_per_minute: u32 = 1000, "rate-maximum-limit",
        "highest maximumPerMinute that is accepted (the model knows none); 0: no limit";
    delete_queued_execution: YesNo = YesNo::Yes, "delete-queued-execution",
        "DeleteJobExecution without force deletes QUEUED executions too";
    abort_base: AbortBase = AbortBase::Finished, "abort-base",
        "what thresholdPercentage and minNumberOfExecutedThings count: things that finished, or that were notified";
    deleted_thing: DeletedThing = DeletedThing::Removed, "deleted-thing",
        "executions of a thing that is deleted become REMOVED, or are deleted too";
    require_json_document: YesNo = YesNo::Yes, "require-json-document",
        "CreateJob rejects a document that is not JSON";
    reject_unknown_placeholders: YesNo = YesNo::No, "reject-unknown-placeholders",
        "CreateJob rejects a document with an unknown ${aws:iot:…} placeholder";
    active_jobs_limit: u32 = 100, "active-jobs-limit",
        "jobs of each target selection that may be active at once";
    deletion_seconds: u32 = 0, "deletion-seconds",
        "how long a job stays DELETION_IN_PROGRESS";
    events_by_default: YesNo = YesNo::Yes, "events-by-default",
        "JOB and JOB_EXECUTION events are on before UpdateEventConfigurations is called";
    shadow_needs_thing: YesNo = YesNo::No, "shadow-needs-thing",
        "a shadow can be had by things of the registry alone";
    shadow_depth: u32 = 6, "shadow-depth",
        "levels of keys below desired or reported";
    shadow_empty_object_stays: YesNo = YesNo::Yes, "shadow-empty-object-stays",
        "an object whose last key is removed by null stays as {}, or is removed too";
    shadow_first_previous: FirstPrevious = FirstPrevious::Absent, "shadow-first-previous",
        "previous in the documents message of a shadow's first update";
    shadow_delete_version: DeleteVersion = DeleteVersion::Deleted, "shadow-delete-version",
        "version in delete/accepted: the one that was deleted, or the next";
}

impl YesNo {
    pub fn on(self) -> bool {
        self == YesNo::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_set_by_name() {
        let mut compat = Compat::default();
        compat.set("terminal-update-code=TerminalStateReached").unwrap();
        compat.set("pending-get-cap=15").unwrap();
        assert_eq!(compat.terminal_update_code, TerminalUpdate::TerminalStateReached);
        assert_eq!(compat.pending_get_cap, 15);
    }

    #[test]
    fn a_mistake_names_what_is_possible() {
        let mut compat = Compat::default();
        assert!(compat.set("terminal-update-code=Nope").unwrap_err().contains("TerminalStateReached"));
        assert!(compat.set("no-such=1").unwrap_err().contains("terminal-update-code"));
        assert!(compat.set("first-version").is_err());
        assert!(compat.set("first-version=-1").is_err());
    }

    #[test]
    fn every_default_can_be_set_again() {
        let mut compat = Compat::default();
        for switch in SWITCHES {
            compat.set(&format!("{}={}", switch.name, (switch.default)())).unwrap();
            assert!(!(switch.values)().is_empty() && !switch.about.is_empty());
        }
        assert_eq!(compat, Compat::default());
    }
}

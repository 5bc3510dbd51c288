//! Status details and updates: what the agent says of an execution, already within AWS's limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::wire::Status;

const MAX_PAIRS: usize = 10;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 1024;

/// How many bytes of JSON the map may take. AWS meters topic and payload in units of 5 KiB; the rest of an
/// update, the longest topic of its answer (226 bytes) and all other members (at most 240 bytes) always fit
/// beside this, so an update is one unit, and so is the answer that echoes it.
const MAX_JSON: usize = 4608;

/// A string map for people and dashboards. It cannot be wrong: whatever is put in is made to fit.
///
/// - At most 10 pairs; the first ones win.
/// - Keys of `[a-zA-Z0-9:_-]{1,128}`; other characters become `_`.
/// - Values of 1 to 1,024 characters without control characters, which become spaces; space around a value is
///   dropped, and so is an empty value.
/// - As JSON no longer than 4,608 bytes, so that an update is one metered unit: the longest values are cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>")]
pub struct StatusDetails(BTreeMap<String, String>);

impl StatusDetails {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pair, or replaces the value of one that is there.
    #[must_use]
    pub fn with(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let key = clean_key(key.as_ref());
        let value = clean_value(value.as_ref());
        let fits = self.0.len() < MAX_PAIRS || self.0.contains_key(&key);
        if fits && !key.is_empty() && !value.is_empty() {
            self.0.insert(key, value);
            self.shorten();
        }
        self
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// What is left when the service refuses the whole: `reason`, because operators sort by it.
    pub(crate) fn minimal(&self) -> Self {
        self.iter()
            .filter(|(key, _)| *key == "reason")
            .fold(Self::new(), |details, (key, value)| details.with(key, value))
    }

    /// Cuts the longest values to one common length, the greatest that makes the map fit.
    fn shorten(&mut self) {
        let keys: usize = self.0.keys().map(|key| key.len() + r#""":"","#.len()).sum();
        let lengths: Vec<usize> = self.0.values().map(|value| json_len(value)).collect();
        let fits = |cap: usize| keys + 1 + lengths.iter().map(|len| cap.min(*len)).sum::<usize>() <= MAX_JSON;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if fits(longest) {
            return;
        }
        // Ten keys of 128 bytes leave more than 300 bytes to each value, so a length that fits is found.
        let cap = (1..longest).rev().find(|cap| fits(*cap)).unwrap_or(1);
        for value in self.0.values_mut() {
            let mut room = cap + 1;
            value.retain(|c| {
                room = room.saturating_sub(char_json_len(c));
                room > 0
            });
            value.truncate(value.trim_end().len());
        }
    }
}

impl From<BTreeMap<String, String>> for StatusDetails {
    fn from(pairs: BTreeMap<String, String>) -> Self {
        pairs.into_iter().collect()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for StatusDetails {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        pairs.into_iter().fold(Self::new(), |details, (key, value)| details.with(key, value))
    }
}

fn clean_key(key: &str) -> String {
    let clean = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | ':' | '_' | '-' => c,
        _ => '_',
    };
    key.chars().take(MAX_KEY).map(clean).collect()
}

fn clean_value(value: &str) -> String {
    // The bound comes before the trim, so that a long value of spaces costs nothing.
    let clean: String =
        value.trim_start().chars().take(MAX_VALUE).map(|c| if is_other(c) { ' ' } else { c }).collect();
    clean.trim().to_owned()
}

/// Unicode's category C, which the service's pattern `[^\p{C}]+` refuses: controls, invisible formatting,
/// private use. Unassigned code points are in it too; which ones depends on the reader's Unicode version, so
/// they are let through.
fn is_other(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
            | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

fn json_len(value: &str) -> usize {
    value.chars().map(char_json_len).sum()
}

fn char_json_len(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        _ => c.len_utf8(),
    }
}

/// What a device may set. The other states are the service's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UpdateStatus {
    InProgress,
    Succeeded,
    Failed,
    Rejected,
}

impl UpdateStatus {
    /// As the service writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Rejected => "REJECTED",
        }
    }

    pub fn is_terminal(self) -> bool {
        self != Self::InProgress
    }
}

impl From<UpdateStatus> for Status {
    fn from(status: UpdateStatus) -> Self {
        match status {
            UpdateStatus::InProgress => Self::InProgress,
            UpdateStatus::Succeeded => Self::Succeeded,
            UpdateStatus::Failed => Self::Failed,
            UpdateStatus::Rejected => Self::Rejected,
        }
    }
}

/// One thing to tell the service about an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusUpdate {
    pub status: UpdateStatus,
    /// The whole map each time: the service replaces what it had. Empty leaves it as it was.
    pub details: StatusDetails,
    /// Arms the service's step timer: 1 to 10,080, or -1 to discard it. Of use with IN_PROGRESS alone.
    #[serde(default)]
    pub step_timeout_minutes: Option<i32>,
}

impl StatusUpdate {
    pub fn new(status: UpdateStatus, details: StatusDetails) -> Self {
        Self { status, details, step_timeout_minutes: None }
    }
}

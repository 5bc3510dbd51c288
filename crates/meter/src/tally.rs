//! Messages, units and bytes, by class and direction.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Class, units};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// By the device.
    Sent,
    Received,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Line {
    pub class: Class,
    pub direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Count {
    pub messages: u64,
    pub units: u64,
    /// Topic and payload.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.units = self.units.saturating_add(other.units);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// What one line of it is in a file.
#[derive(Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    line: Line,
    #[serde(flatten)]
    count: Count,
}

/// Bounded by the number of classes, whatever is counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Row>", into = "Vec<Row>")]
pub struct Tally(BTreeMap<Line, Count>);

impl Tally {
    /// One message of so many bytes of topic and payload.
    pub fn count(&mut self, class: Class, direction: Direction, bytes: usize) {
        let count = Count { messages: 1, units: units(bytes), bytes: bytes as u64 };
        self.0.entry(Line { class, direction }).or_default().add(count);
    }

    pub fn merge(&mut self, other: &Self) {
        for (line, count) in &other.0 {
            self.0.entry(*line).or_default().add(*count);
        }
    }

    pub fn lines(&self) -> impl Iterator<Item = (Line, Count)> {
        self.0.iter().map(|(line, count)| (*line, *count))
    }

    pub fn units(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(count.units))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<Row>> for Tally {
    fn from(rows: Vec<Row>) -> Self {
        let mut tally = Self::default();
        for row in rows {
            tally.0.entry(row.line).or_default().add(row.count);
        }
        tally
    }
}

impl From<Tally> for Vec<Row> {
    fn from(tally: Tally) -> Self {
        tally.0.into_iter().map(|(line, count)| Row { line, count }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_adds_up_and_survives_a_file() {
        let mut tally = Tally::default();
        tally.count(Class::JobsUpdate, Direction::Sent, 300);
        tally.count(Class::JobsUpdate, Direction::Sent, 5121);
        tally.count(Class::JobsUpdate, Direction::Received, 1);
        let mut twice = tally.clone();
        twice.merge(&tally);
        assert_eq!((tally.units(), twice.units()), (4, 8));
        let text = serde_json::to_string(&tally).unwrap();
        assert_eq!(
            text,
            r#"[{"class":"jobs-update","direction":"sent","messages":2,"units":3,"bytes":5421},{"class":"jobs-update","direction":"received","messages":1,"units":1,"bytes":1}]"#
        );
        assert_eq!(serde_json::from_str::<Tally>(&text).unwrap(), tally);
    }
}

//! What was settled lately, so that nothing is done twice and the truth can be told twice.

use std::collections::VecDeque;

use crate::details::StatusUpdate;
use crate::wire::ExecutionKey;

const KEPT: usize = 32;

#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Entry>);

#[derive(Debug)]
struct Entry {
    key: ExecutionKey,
    update: StatusUpdate,
    /// How often the service had to be told again.
    repeats: u32,
}

impl History {
    pub(super) fn contains(&self, key: &ExecutionKey) -> bool {
        self.0.iter().any(|entry| entry.key == *key)
    }

    /// A repeated report keeps its count, so that its pace slows down.
    pub(super) fn record(&mut self, key: ExecutionKey, update: StatusUpdate) {
        let known = self.0.iter().position(|entry| entry.key == key);
        let repeats = known.and_then(|index| self.0.remove(index)).map_or(0, |entry| entry.repeats);
        self.0.push_back(Entry { key, update, repeats });
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// The report of `key`, to be sent once more, and how often that was done before.
    pub(super) fn repeat(&mut self, key: &ExecutionKey) -> Option<(StatusUpdate, u32)> {
        let entry = self.0.iter_mut().find(|entry| entry.key == *key)?;
        let before = entry.repeats;
        entry.repeats = before.saturating_add(1);
        Some((entry.update.clone(), before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{JobId, StatusDetails, UpdateStatus};

    #[test]
    fn the_oldest_is_forgotten_and_a_repeat_keeps_its_count() {
        let key =
            |n: u64| ExecutionKey { job_id: JobId::new("job").unwrap(), execution_number: n, queued_at: 1 };
        let update = StatusUpdate::new(UpdateStatus::Failed, StatusDetails::new());
        let mut history = History::default();
        for n in 0..1000 {
            history.record(key(n), update.clone());
        }
        assert_eq!(history.0.len(), KEPT);
        assert!(history.contains(&key(968)) && !history.contains(&key(967)));
        for before in 0..3 {
            assert_eq!(history.repeat(&key(970)), Some((update.clone(), before)));
            history.record(key(970), update.clone());
        }
        assert_eq!(history.0.len(), KEPT);
        assert_eq!(history.repeat(&key(1)), None);
    }
}

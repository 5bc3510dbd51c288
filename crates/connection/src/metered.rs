//! What was sent and received, counted as AWS bills it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meter::{Class, Direction, Tally, UNIT_BYTES, spare, units};

/// A message this close to the next unit costs more as soon as something in it grows a little.
const CLOSE: usize = UNIT_BYTES / 10;

/// Shared by the link, which counts, and whoever keeps the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metered(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    tally: Tally,
    /// What was remarked on already.
    remarked: BTreeSet<(Class, Direction)>,
}

impl Metered {
    pub(crate) fn count(&self, class: Class, direction: Direction, bytes: usize) {
        let mut inner = self.lock();
        inner.tally.count(class, direction, bytes);
        if is_dear(bytes) && inner.remarked.insert((class, direction)) {
            let (units, spare, surplus) = (units(bytes), spare(bytes), (bytes - 1) % UNIT_BYTES + 1);
            if units > 1 {
                tracing::info!(
                    class = class.name(),
                    ?direction,
                    bytes,
                    units,
                    "a message of more than one metered unit; {surplus} bytes less of topic and payload make it \
                     one unit less{}",
                    advice(class, direction)
                );
            } else {
                tracing::info!(
                    class = class.name(),
                    ?direction,
                    bytes,
                    "a message {spare} bytes below a second metered unit{}",
                    advice(class, direction)
                );
            }
        }
    }

    /// What was counted since the last time.
    pub(crate) fn take(&self) -> Tally {
        std::mem::take(&mut self.lock().tally)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Above a unit, or within 10 % of it.
fn is_dear(bytes: usize) -> bool {
    bytes >= UNIT_BYTES - CLOSE
}

fn advice(class: Class, direction: Direction) -> &'static str {
    match (class, direction) {
        (Class::JobsNotify | Class::JobsAsk, Direction::Received) => {
            ": the job document is in it, so a shorter document or a shorter presigned URL does it"
        }
        (Class::Connect | Class::Subscribe, _) => {
            ": shorter names of the thing and of what is subscribed to do it"
        }
        (Class::Shadow, _) => ": a smaller document does it, or two shadows with names of their own",
        _ => ": a smaller payload does it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_a_tenth_of_the_next_unit_or_above_it_is_worth_a_word() {
        for (bytes, expected) in
            [(0, false), (4607, false), (4608, true), (5120, true), (5121, true), (9000, true)]
        {
            assert_eq!(is_dear(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn a_count_is_taken_once() {
        let metered = Metered::default();
        metered.count(Class::JobsAsk, Direction::Received, 5121);
        metered.clone().count(Class::JobsAsk, Direction::Received, 5121);
        assert_eq!(metered.take().units(), 4);
        assert!(metered.take().is_empty());
    }
}

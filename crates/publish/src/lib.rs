//! Readings of other programs, from a line of text to a delivered message. See the README for what this room is for.

mod batch;
mod reading;
mod record;
mod spool;

pub use batch::{Batch, Batcher, Encoding, LIMIT};
pub use reading::{MAX_LINE, Reading, Refusal, Rules, TopicProblem, check_prefix};
pub use spool::{Position, Spool};

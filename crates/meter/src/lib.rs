//! What MQTT messages cost at AWS IoT Core. See the README for what this room is for.

mod class;
pub mod cost;
mod months;
mod tally;
mod unit;

pub use class::Class;
pub use months::{Month, Months};
pub use tally::{Count, Direction, Line, Tally};
pub use unit::{UNIT_BYTES, spare, units, units_of};

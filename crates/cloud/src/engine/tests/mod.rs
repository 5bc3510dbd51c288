//! The engine against the contract.

mod continuous;
mod control;
mod device;
mod fleet;
mod hostile;
mod notify;
mod property;
mod registry;
mod scale;
mod schedule;
mod support;
mod switches;
mod vectors;

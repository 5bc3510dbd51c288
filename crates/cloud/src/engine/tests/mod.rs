//! The engine against the contract.

mod control;
mod device;
mod notify;
mod property;
mod scale;
mod schedule;
mod support;
mod vectors;

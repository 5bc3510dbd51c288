//! The engine against the contract.

mod support;
mod vectors;

//! AWS IoT Core's Jobs and S3 on one machine.

mod broker;
mod engine;
mod identity;

fn main() {}

//! fleethandctl: for who makes firmware. Keys, signed releases, job documents.

mod cli; // what can be typed, and the exit code that answers it
mod cost; // what a month of messages costs
mod document; // a document as its maker writes it: with placeholders, within AWS's limits
mod files; // reading with a limit, writing without overwriting
mod keygen; // a pair of keys
mod lint; // what an agent will say of a document
#[cfg(feature = "man")]
#[path = "../../../packaging/man.rs"]
mod man; // the package's man pages and completions
mod release; // a file becomes a signed release, and a job document
mod schema; // what a document may say, for editors
mod sign; // one signature more

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}

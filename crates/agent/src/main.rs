//! fleethand: the agent that runs a fleet's AWS IoT jobs on Linux devices.

mod agent; // the loop: connection, session, worker. Start reading here
mod cli; // what can be typed
mod config; // fleethand.toml, checked once at the start
mod deadline; // how long an operation may still take
mod doctor; // what is wrong with this device, in words
mod dry_run; // what a job would do, in words
mod hands; // the device, in this process or over a socket
mod held; // the execution that is ours
mod helper; // the process that has the privileges
mod history; // what was settled, so that nothing is done twice
mod identity; // certificates and keys: the first, the next, and which is in force
mod install; // the same without a cloud: from a file on this machine
mod journald; // log lines with fields
mod link; // the connection, with the identity that works
mod lock; // one agent for one state directory
mod logging; // for a person, for journald, or as JSON
#[cfg(feature = "man")]
#[path = "../../../packaging/man.rs"]
mod man; // the package's man pages and completions
mod meter; // what it costs, month by month
mod metrics; // a file for Prometheus
mod notify; // what systemd is told
mod pace; // how often progress may be reported
mod publishing; // readings of other programs, until the cloud has them
mod rate; // how fast it goes
mod report; // an outcome in AWS's terms
mod route; // which way to the cloud worked last
mod seeing; // all through which somebody sees the agent
mod setup; // from the cloud's files to a service that runs
mod shadow_command; // `fleethand shadow`
mod shadows; // what the device should be, and what it says that it is
mod socket; // what local programs connect to
mod status; // `fleethand status`, and who answers it
mod view; // what there is to see of all that
mod worker; // one operation at a time, beside the loop

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}

//! The way to the cloud, step by step.

use connection::probe::{Question, Stuck, probe, probe_tls};
use connection::{Settings, Step};
use jobs::{JobTarget, describe};

use super::{Agent, Check, Report};
use crate::status::State;

/// In the order in which they are done.
const STEPS: &[(Step, &str, &str)] = &[
    (Step::Resolving, "name", "the endpoint's name is resolved"),
    (Step::Connecting, "tcp", "the port can be reached"),
    (Step::TlsHandshake, "tls", "the server is who it should be"),
    (Step::Connack, "connect", "the certificate is accepted, and the policy allows the connection"),
    (Step::Suback, "subscribe", "the policy allows the subscriptions"),
    (Step::Answer, "jobs", "AWS IoT Jobs answers"),
];

/// Beside an agent that runs only up to where it would be noticed: two connections with one client id throw each other off.
pub async fn connect(settings: &Settings, thing_name: &str, agent: &Agent, report: &mut Report) {
    if let Agent::Stopped = agent {
        let topic = describe(thing_name, &JobTarget::Next);
        let answers = ["accepted", "rejected"].map(|verdict| format!("{topic}/{verdict}")).to_vec();
        let question = Question { payload: r#"{"includeJobDocument":false}"#.into(), topic, answers };
        let refused = format!("{}/rejected", question.topic);
        match probe(settings, &question).await {
            Ok(answer) if answer == refused => {
                reached(Step::Answer, report);
                let text = format!("AWS IoT Jobs refuses to say what is next for the thing {thing_name}");
                report.add(Check::failed(
                    "jobs",
                    text,
                    "is the thing's name spelled right, and does it exist?",
                ));
            }
            Ok(_) => reached_all(report),
            Err(stuck) => ended(&stuck, report),
        }
    } else {
        match probe_tls(settings).await {
            Ok(()) => {
                reached(Step::Connack, report);
                report.add(known(agent));
            }
            Err(stuck) => ended(&stuck, report),
        }
    }
}

/// Of what lies behind TLS: what the agent that runs knows of its own connection.
fn known(agent: &Agent) -> Check {
    const NAME: &str = "connect";
    let Agent::Runs(Some(status)) = agent else {
        return Check::skipped(NAME, "not tried: it would take the connection from the agent that runs");
    };
    let found = &status.connection;
    match found.state {
        State::Connected => Check::ok(NAME, format!("the agent that runs is {found}")),
        State::Connecting => Check::skipped(NAME, "the agent that runs connects at this moment"),
        State::NotConnected => Check::failed(NAME, format!("the agent that runs is {found}"), ""),
    }
}

/// Everything before `end` was done.
fn reached(end: Step, report: &mut Report) {
    for (_, name, text) in STEPS.iter().take_while(|(step, ..)| *step != end) {
        report.add(Check::ok(name, text));
    }
}

fn reached_all(report: &mut Report) {
    for (_, name, text) in STEPS {
        report.add(Check::ok(name, text));
    }
}

fn ended(Stuck { at, cause }: &Stuck, report: &mut Report) {
    reached(*at, report);
    let name = STEPS.iter().find(|(step, ..)| step == at).map_or("connection", |(_, name, _)| name);
    report.add(Check::failed(name, cause, cause.advice().unwrap_or_default()));
}

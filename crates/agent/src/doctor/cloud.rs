//! The way to the cloud, step by step.

use connection::probe::{probe, probe_tls};
use connection::talk::{Question, Stuck};
use connection::{Proxy, Settings, Step, Transport};
use jobs::{JobTarget, describe};

use super::{Agent, Check, Report};
use crate::status::State;

/// In the order in which they are done.
const STEPS: &[(Step, &str, &str)] = &[
    (Step::Credentials, "credentials", "there are AWS credentials"),
    (Step::Resolving, "name", "the endpoint's name is resolved"),
    (Step::Connecting, "tcp", "the port can be reached"),
    (Step::Proxy, "proxy", "the proxy lets it through"),
    (Step::TlsHandshake, "tls", "the server is who it should be"),
    (Step::Upgrade, "websocket", "the signature is accepted"),
    (Step::Connack, "connect", "this device may connect"),
    (Step::Suback, "subscribe", "the policy allows the subscriptions"),
    ANSWER,
];
const ANSWER: (Step, &str, &str) = (Step::Answer, "jobs", "AWS IoT Jobs answers");

/// Beside an agent that runs only up to where it would be noticed: two connections with one client id throw each other off.
pub async fn connect(settings: &Settings, thing_name: &str, agent: &Agent, report: &mut Report) {
    let Err(stuck) = attempt(settings, thing_name, agent, report).await else { return };
    let Some(fallback) = settings.fallback.clone() else { return ended(settings, &stuck, report) };
    let port = settings.route.port;
    let (text, advice) = (format!("port {port}: {}", stuck.cause), stuck.cause.advice().unwrap_or_default());
    report.add(Check::warning("route", text, format!("nothing, if port {} works: {advice}", fallback.port)));
    let other = Settings { route: fallback, fallback: None, ..settings.clone() };
    if let Err(stuck) = attempt(&other, thing_name, agent, report).await {
        ended(&other, &stuck, report);
    }
}

async fn attempt(
    settings: &Settings,
    thing_name: &str,
    agent: &Agent,
    report: &mut Report,
) -> Result<(), Stuck> {
    let Agent::Stopped = agent else {
        probe_tls(settings).await?;
        reached(settings, Step::Connack, report);
        report.add(known(agent));
        return Ok(());
    };
    let topic = describe(thing_name, &JobTarget::Next);
    let question = Question::accepted_or_rejected(topic, r#"{"includeJobDocument":false}"#);
    let refused = format!("{}/rejected", question.topic);
    let answer = probe(settings, &question).await?;
    reached(settings, Step::Answer, report);
    report.add(if answer == refused {
        let text = format!("AWS IoT Jobs refuses to say what is next for the thing {thing_name}");
        Check::failed("jobs", text, "is the thing's name spelled right, and does it exist?")
    } else {
        let (_, name, text) = ANSWER;
        Check::ok(name, text)
    });
    Ok(())
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
fn reached(settings: &Settings, end: Step, report: &mut Report) {
    let done = STEPS.iter().take_while(|(step, ..)| *step != end);
    for (_, name, text) in done.filter(|(step, ..)| is_taken(settings, *step)) {
        report.add(Check::ok(name, text));
    }
}

/// Not every way has every step.
fn is_taken(settings: &Settings, step: Step) -> bool {
    match step {
        Step::Proxy => settings.proxy != Proxy::None,
        Step::Credentials | Step::Upgrade => {
            !matches!(settings.route.transport, Transport::Tls | Transport::Alpn)
        }
        _ => true,
    }
}

fn ended(settings: &Settings, Stuck { at, cause }: &Stuck, report: &mut Report) {
    reached(settings, *at, report);
    let name = STEPS.iter().find(|(step, ..)| step == at).map_or("connection", |(_, name, _)| name);
    report.add(Check::failed(name, cause, cause.advice().unwrap_or_default()));
}

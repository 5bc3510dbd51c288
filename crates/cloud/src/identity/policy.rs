//! The IoT policy language, as a pure function: documents and a connection in, what it may do out.
//!
//! Nothing is allowed unless a statement allows it, and an explicit Deny wins over every Allow.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::pattern::{Pattern, Variables};

/// What a connection can ask for, and the kind of resource it asks it on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Connect,
    Publish,
    RetainPublish,
    Receive,
    Subscribe,
    AssumeRole,
}

impl Action {
    const ALL: [Self; 6] =
        [Self::Connect, Self::Publish, Self::RetainPublish, Self::Receive, Self::Subscribe, Self::AssumeRole];

    fn name(self) -> &'static str {
        match self {
            Self::Connect => "iot:Connect",
            Self::Publish => "iot:Publish",
            Self::RetainPublish => "iot:RetainPublish",
            Self::Receive => "iot:Receive",
            Self::Subscribe => "iot:Subscribe",
            Self::AssumeRole => "iot:AssumeRoleWithCertificate",
        }
    }

    fn resource_type(self) -> &'static str {
        match self {
            Self::Connect => "client/",
            Self::Publish | Self::RetainPublish | Self::Receive => "topic/",
            Self::Subscribe => "topicfilter/",
            Self::AssumeRole => "rolealias/",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Document {
    #[serde(rename = "Version")]
    _version: String,
    #[serde(rename = "Id", default)]
    _id: Option<String>,
    statement: OneOrMany<Statement>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Sid", default)]
    _sid: Option<String>,
    effect: Effect,
    action: OneOrMany<String>,
    resource: OneOrMany<String>,
    #[serde(default)]
    condition: BTreeMap<Operator, BTreeMap<String, OneOrMany<Scalar>>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum Operator {
    Bool,
    StringEquals,
    StringNotEquals,
    StringLike,
    #[serde(rename = "ForAllValues:StringEquals")]
    AllEqual,
    #[serde(rename = "ForAnyValue:StringEquals")]
    AnyEqual,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// `true` and `"true"` are both written in the wild.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Bool(bool),
    Text(String),
}

impl Scalar {
    fn text(&self) -> &str {
        match self {
            Self::Bool(true) => "true",
            Self::Bool(false) => "false",
            Self::Text(text) => text,
        }
    }
}

impl Document {
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// What is known of a connection when its policies are looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject<'a> {
    pub(crate) client_id: &'a str,
    /// The thing whose name is the client id, when the certificate is attached to it.
    pub(crate) thing: Option<&'a str>,
    /// `iot:ConnectAttributes`: "PersistentConnect", "LastWill".
    pub(crate) attributes: &'a [&'a str],
}

impl Subject<'_> {
    fn values<'s>(&'s self, key: &'s str) -> Vec<&'s str> {
        match key {
            "iot:ConnectAttributes" => self.attributes.to_vec(),
            _ => self.value(key).into_iter().collect(),
        }
    }

    fn meets(&self, operator: Operator, key: &str, wanted: &[Scalar]) -> bool {
        let found = self.values(key);
        let equal = |found: &str| wanted.iter().any(|wanted| wanted.text() == found);
        let like = |found: &str| {
            wanted.iter().any(|wanted| {
                Pattern::compile(wanted.text(), self).is_some_and(|pattern| pattern.matches(found.chars()))
            })
        };
        match operator {
            Operator::Bool | Operator::StringEquals | Operator::AnyEqual => {
                found.iter().any(|found| equal(found))
            }
            Operator::StringLike => found.iter().any(|found| like(found)),
            Operator::StringNotEquals => !found.iter().any(|found| equal(found)),
            Operator::AllEqual => found.iter().all(|found| equal(found)),
        }
    }
}

impl Variables for Subject<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        match name {
            "iot:ClientId" => Some(self.client_id),
            "iot:Connection.Thing.ThingName" => self.thing,
            "iot:Connection.Thing.IsAttached" => Some(if self.thing.is_some() { "true" } else { "false" }),
            _ => None,
        }
    }
}

/// The policies of one connection, compiled once when it connects.
#[derive(Debug)]
pub(crate) struct Rules {
    arn_prefix: Box<str>,
    rules: Box<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    effect: Effect,
    actions: u8,
    resources: Box<[Pattern]>,
}

impl Rules {
    /// `arn_prefix`: `arn:aws:iot:REGION:ACCOUNT:`, which the resources in the documents begin with.
    pub(crate) fn compile(documents: &[impl AsRef<Document>], subject: &Subject, arn_prefix: &str) -> Self {
        let statements = documents.iter().flat_map(|document| document.as_ref().statement.as_slice());
        let rules = statements
            .filter(|statement| {
                statement.condition.iter().all(|(operator, keys)| {
                    keys.iter().all(|(key, wanted)| subject.meets(*operator, key, wanted.as_slice()))
                })
            })
            .map(|statement| Rule {
                effect: statement.effect,
                actions: statement.action.as_slice().iter().fold(0, |bits, name| bits | actions(name)),
                resources: statement
                    .resource
                    .as_slice()
                    .iter()
                    .filter_map(|text| Pattern::compile(text, subject))
                    .collect(),
            })
            .filter(|rule| rule.actions != 0 && !rule.resources.is_empty())
            .collect();
        Self { arn_prefix: arn_prefix.into(), rules }
    }

    /// For connections without a certificate, on the plain loopback listener.
    pub(crate) fn everything() -> Self {
        let resources = Pattern::compile("*", &Subject::default()).into_iter().collect();
        let all = Rule { effect: Effect::Allow, actions: u8::MAX, resources };
        Self { arn_prefix: "".into(), rules: Box::new([all]) }
    }

    pub(crate) fn allows(&self, action: Action, name: &str) -> bool {
        let resource = self.arn_prefix.chars().chain(action.resource_type().chars()).chain(name.chars());
        let mut allowed = false;
        for rule in self.rules.iter().filter(|rule| rule.actions & action.bit() != 0) {
            if rule.resources.iter().any(|pattern| pattern.matches(resource.clone())) {
                match rule.effect {
                    Effect::Deny => return false,
                    Effect::Allow => allowed = true,
                }
            }
        }
        allowed
    }
}

/// The actions that a name such as `iot:Publish`, `iot:*` or `*` stands for.
fn actions(name: &str) -> u8 {
    let Some(pattern) = Pattern::compile(&name.to_lowercase(), &Subject::default()) else { return 0 };
    let meant = |action: &&Action| pattern.matches(action.name().chars().map(|c| c.to_ascii_lowercase()));
    Action::ALL.iter().filter(meant).fold(0, |bits, action| bits | action.bit())
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;

//! YAML, as far as a configuration file needs it: one document of mappings, lists and scalars. What could say the same
//! thing twice, or another thing to another program, is refused: anchors and aliases (which also keeps a small file
//! from becoming a large value), tags, directives, names that are no scalars.
//!
//! A scalar that does not change is written again as it stood: `yes`, `0644` and `2026-01-01` mean different things to
//! YAML 1.1 and 1.2, and the program that reads the file is not asked which of them it has.

use std::collections::BTreeSet;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};
use serde_json::{Map, Number, Value};

use super::yaml_text;

const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Plain(String),
    Quoted(String),
    List(Vec<Node>),
    /// In the order of the file. A name is `Plain` or `Quoted`.
    Map(Vec<(Node, Node)>),
}

pub(super) fn parse(text: &str) -> Result<Value, String> {
    Ok(load(text)?.json())
}

pub(super) fn rewrite(old: &str, wanted: &Value) -> String {
    let old = if old.is_empty() { None } else { load(old).ok() };
    yaml_text::write(&Node::revised(old, wanted))
}

fn load(text: &str) -> Result<Node, String> {
    if let Some(line) = text.lines().find(|line| line.starts_with('%')) {
        return Err(format!("it has the directive {:?}", line.chars().take(20).collect::<String>()));
    }
    let mut loader = Loader(Parser::new_from_str(text));
    let node = match loader.next()? {
        (Event::StreamStart, _) => match loader.next()? {
            (Event::StreamEnd, _) => return Ok(Node::Plain(String::new())),
            (Event::DocumentStart(_), _) => loader.node(0)?,
            (_, span) => return Err(at(&span, "not a document")),
        },
        (_, span) => return Err(at(&span, "not a document")),
    };
    loop {
        match loader.next()? {
            (Event::DocumentEnd, _) => {}
            (Event::StreamEnd, _) => return Ok(node),
            (_, span) => return Err(at(&span, "it has more than one document")),
        }
    }
}

fn at(span: &Span, problem: &str) -> String {
    format!("line {}: {problem}", span.start.line())
}

struct Loader<'t>(Parser<'t, StrInput<'t>>);

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), String> {
        match self.0.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(format!("line {}: {}", error.marker().line(), error.info())),
            None => Err("it ends in the middle".to_owned()),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        let (event, span) = self.next()?;
        self.node_of(event, &span, depth)
    }

    fn node_of(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err(at(span, &format!("more than {MAX_DEPTH} levels")));
        }
        match event {
            Event::Alias(_) => Err(at(span, "an alias, which is not supported")),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                Err(at(span, "an anchor, which is not supported"))
            }
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Err(at(span, "a tag, which is not supported")),
            // Over several lines it is text and nothing else, whatever it looks like.
            Event::Scalar(text, ScalarStyle::Plain, ..) if !text.contains('\n') => {
                Ok(Node::Plain(text.into_owned()))
            }
            Event::Scalar(text, ..) => Ok(Node::Quoted(text.into_owned())),
            Event::SequenceStart(..) => self.list(depth),
            Event::MappingStart(..) => self.map(depth),
            _ => Err(at(span, "not a value")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node, String> {
        let mut elements = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Node::List(elements)),
                (event, span) => elements.push(self.node_of(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Node, String> {
        let (mut members, mut names) = (Vec::new(), BTreeSet::new());
        loop {
            let (name, span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Node::Map(members)),
                (event, span) => (self.node_of(event, &span, depth + 1)?, span),
            };
            let text = match &name {
                Node::Plain(text) if text.is_empty() => return Err(at(&span, "a member without a name")),
                Node::Plain(text) | Node::Quoted(text) => text.clone(),
                Node::List(_) | Node::Map(_) => return Err(at(&span, "a name that is not a scalar")),
            };
            if !names.insert(text) {
                return Err(at(&span, "a name for the second time"));
            }
            members.push((name, self.node(depth + 1)?));
        }
    }
}

impl Node {
    fn name(&self) -> &str {
        match self {
            Self::Plain(text) | Self::Quoted(text) => text,
            Self::List(_) | Self::Map(_) => "",
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Plain(text) => resolve(text),
            Self::Quoted(text) => text.as_str().into(),
            Self::List(elements) => elements.iter().map(Self::json).collect(),
            Self::Map(members) => {
                members.iter().map(|(name, value)| (name.name().to_owned(), value.json())).collect()
            }
        }
    }

    /// A node that says `wanted`, with everything of `old` that says it already.
    fn revised(old: Option<Self>, wanted: &Value) -> Self {
        match (old, wanted) {
            (Some(old), wanted) if old.json() == *wanted => old,
            (Some(Self::Map(old)), Value::Object(wanted)) => Self::Map(revised_members(old, wanted)),
            (Some(Self::List(old)), Value::Array(wanted)) => {
                let old = old.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
                Self::List(wanted.iter().zip(old).map(|(wanted, old)| Self::revised(old, wanted)).collect())
            }
            (_, Value::Array(wanted)) => {
                Self::List(wanted.iter().map(|wanted| Self::revised(None, wanted)).collect())
            }
            (_, Value::Object(wanted)) => Self::Map(revised_members(Vec::new(), wanted)),
            (_, Value::String(text)) => Self::Quoted(text.clone()),
            (_, Value::Number(number)) => Self::Plain(yaml_text::number(number)),
            (_, Value::Bool(flag)) => Self::Plain(flag.to_string()),
            (_, Value::Null) => Self::Plain("null".to_owned()),
        }
    }
}

fn revised_members(old: Vec<(Node, Node)>, wanted: &Map<String, Value>) -> Vec<(Node, Node)> {
    let mut members = Vec::new();
    let mut kept = BTreeSet::new();
    for (name, value) in old {
        if let Some(wanted) = wanted.get(name.name()) {
            kept.insert(name.name().to_owned());
            members.push((name, Node::revised(Some(value), wanted)));
        }
    }
    for (name, wanted) in wanted.iter().filter(|(name, _)| !kept.contains(*name)) {
        members.push((Node::Quoted(name.clone()), Node::revised(None, wanted)));
    }
    members
}

/// What a plain scalar means by the core schema of YAML 1.2 (section 10.3). What JSON does not have stays text.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return true.into(),
        "false" | "False" | "FALSE" => return false.into(),
        _ => {}
    }
    resolve_number(text).map_or_else(|| text.into(), Value::Number)
}

fn resolve_number(text: &str) -> Option<Number> {
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let digits = Some(digits).filter(|digits| !digits.starts_with('+'))?;
            return u64::from_str_radix(digits, radix).ok().map(Number::from);
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    // `inf` and `nan` are numbers to Rust, and text to YAML.
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let whole = unsigned.bytes().all(|byte| byte.is_ascii_digit());
    match (text.parse::<i64>(), text.parse::<u64>()) {
        (Ok(number), _) => Some(number.into()),
        (_, Ok(number)) => Some(number.into()),
        _ if whole || unsigned.contains(['.', 'e', 'E']) => Number::from_f64(text.parse().ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

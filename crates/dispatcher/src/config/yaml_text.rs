//! A [`Node`] as YAML in block style, indented by two.

use serde_json::{Number, Value};

use super::yaml::Node;

pub(super) fn write(node: &Node) -> String {
    let mut out = String::new();
    match node {
        Node::Map(members) if !members.is_empty() => block(&mut out, node, 0, false),
        Node::List(elements) if !elements.is_empty() => block(&mut out, node, 0, false),
        other => {
            out += &inline(other);
            out.push('\n');
        }
    }
    out
}

/// The lines of a collection that is not empty. `begun`: the first one goes on where a `- ` stands already.
fn block(out: &mut String, node: &Node, indent: usize, mut begun: bool) {
    let mut line = |out: &mut String| {
        if !std::mem::take(&mut begun) {
            out.extend(std::iter::repeat_n(' ', indent));
        }
    };
    match node {
        Node::Map(members) => {
            for (name, value) in members {
                line(out);
                out.push_str(&inline(name));
                out.push(':');
                match value {
                    Node::Map(inner) if !inner.is_empty() => {
                        out.push('\n');
                        block(out, value, indent + 2, false);
                    }
                    Node::List(inner) if !inner.is_empty() => {
                        out.push('\n');
                        block(out, value, indent + 2, false);
                    }
                    scalar => end_of_line(out, scalar),
                }
            }
        }
        Node::List(elements) => {
            for element in elements {
                line(out);
                out.push('-');
                match element {
                    Node::Map(inner) if !inner.is_empty() => {
                        out.push(' ');
                        block(out, element, indent + 2, true);
                    }
                    Node::List(inner) if !inner.is_empty() => {
                        out.push(' ');
                        block(out, element, indent + 2, true);
                    }
                    scalar => end_of_line(out, scalar),
                }
            }
        }
        Node::Plain(_) | Node::Quoted(_) => end_of_line(out, node),
    }
}

/// Nothing at all for an empty plain scalar, which is a null.
fn end_of_line(out: &mut String, node: &Node) {
    let text = inline(node);
    if !text.is_empty() {
        out.push(' ');
        out.push_str(&text);
    }
    out.push('\n');
}

fn inline(node: &Node) -> String {
    match node {
        Node::Plain(text) => text.clone(),
        Node::Quoted(text) if is_text_to_everybody(text) => text.clone(),
        Node::Quoted(text) => quoted(text),
        Node::List(_) => "[]".to_owned(),
        Node::Map(_) => "{}".to_owned(),
    }
}

/// Needs no quotes in YAML 1.1 nor 1.2: words, paths, host names.
fn is_text_to_everybody(text: &str) -> bool {
    const OTHER_THAN_TEXT: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " _-./".contains(c))
        && !text.ends_with(' ')
        && !OTHER_THAN_TEXT.contains(&text.to_ascii_lowercase().as_str())
}

/// JSON's strings are YAML's double-quoted ones, but for what YAML does not count as printable.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                out += &format!("\\u{:04x}", u32::from(c));
            }
            printable => out.push(printable),
        }
    }
    out
}

/// As YAML 1.1 understands it, too: a float there has a point, and a sign in its exponent.
pub(super) fn number(number: &Number) -> String {
    let text = number.to_string();
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) { "" } else { "+" };
    format!("{mantissa}{point}e{sign}{exponent}")
}

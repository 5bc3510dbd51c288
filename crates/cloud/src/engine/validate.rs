//! Rules for the members of requests, and AWS's way of saying which one was broken.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::errors::Violation;
use super::interface::Request;
use super::names::Named;

/// A rule for a string: its length in characters, and the characters it may have.
pub struct Text {
    length: RangeInclusive<usize>,
    pattern: &'static str,
    allowed: fn(char) -> bool,
}

impl Text {
    const fn new(length: RangeInclusive<usize>, pattern: &'static str, allowed: fn(char) -> bool) -> Text {
        Text { length, pattern, allowed }
    }

    /// Any characters, of this length.
    pub const fn any(length: RangeInclusive<usize>) -> Text {
        Text::new(length, "", |_| true)
    }

    /// No control characters, of this length.
    pub const fn printable(length: RangeInclusive<usize>) -> Text {
        Text::new(length, "[^\\p{C}]+", |c| !c.is_control())
    }

    pub fn check(&self, path: &str, text: &str) -> Result<(), Violation> {
        let count = text.chars().count();
        if count < *self.length.start() {
            return Err(broken(
                path,
                text,
                &format!("have length greater than or equal to {}", self.length.start()),
            ));
        }
        if count > *self.length.end() {
            return Err(broken(
                path,
                text,
                &format!("have length less than or equal to {}", self.length.end()),
            ));
        }
        if !text.chars().all(self.allowed) {
            return Err(broken(path, text, &format!("satisfy regular expression pattern: {}", self.pattern)));
        }
        Ok(())
    }
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

pub const JOB_ID: Text = Text::new(1..=64, "[a-zA-Z0-9_-]+", word);
pub const THING_NAME: Text = Text::new(1..=128, "[a-zA-Z0-9:_-]+", |c| word(c) || c == ':');
pub const GROUP_ID: Text = Text::new(1..=128, "[a-zA-Z0-9\\-]+", |c| c.is_ascii_alphanumeric() || c == '-');
pub const NAMESPACE: Text = Text::new(1..=64, "[a-zA-Z0-9_-]+", word);
pub const DETAIL_KEY: Text = Text::new(1..=128, "[a-zA-Z0-9:_-]+", |c| word(c) || c == ':');
pub const DESCRIPTION: Text = Text::new(0..=2028, "[^\\p{C}]+", |c| !c.is_control());
pub const REASON_CODE: Text = Text::new(1..=128, "[\\p{Upper}\\p{Digit}_]+", |c| {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
});
pub const ARN: Text = Text::new(1..=2048, "^arn:[!-~]+$", |c| c.is_ascii_graphic());
pub const ATTRIBUTE_NAME: Text =
    Text::new(1..=128, "[a-zA-Z0-9_.,@/:#-]+", |c| c.is_ascii_alphanumeric() || "_.,@/:#-".contains(c));
pub const ATTRIBUTE_VALUE: Text = Text::new(0..=800, "[a-zA-Z0-9_.,@/:#=\\[\\]-]*", |c| {
    c.is_ascii_alphanumeric() || "_.,@/:#=[]-".contains(c)
});

/// AWS's sentence for a member that breaks a rule. Long values are cut: the sentence is for people.
pub fn broken(path: &str, value: &str, rule: &str) -> Violation {
    let shown: String = value.chars().take(256).collect();
    Violation(format!("Value '{shown}' at '{path}' failed to satisfy constraint: Member must {rule}"))
}

fn wrong_type(path: &str, expected: &str) -> Violation {
    Violation(format!("Value at '{path}' failed to satisfy constraint: Member must be {expected}"))
}

/// The members of a request, or of an object inside it. A member that is null is absent, as at AWS.
#[derive(Clone)]
pub struct Input<'a> {
    params: Option<&'a BTreeMap<String, String>>,
    body: Option<&'a Map<String, Value>>,
    path: String,
}

enum Member<'a> {
    Param(&'a str),
    Json(&'a Value),
}

impl<'a> Input<'a> {
    pub fn request(request: &'a Request) -> Result<Input<'a>, Violation> {
        let body = match &request.body {
            Value::Null => None,
            Value::Object(body) => Some(body),
            _ => return Err(Violation("The request body must be a JSON object".to_owned())),
        };
        Ok(Input { params: Some(&request.params), body, path: String::new() })
    }

    pub fn object(body: &'a Map<String, Value>) -> Input<'a> {
        Input { params: None, body: Some(body), path: String::new() }
    }

    fn get(&self, name: &str) -> Option<Member<'a>> {
        if let Some(value) = self.params.and_then(|params| params.get(name)) {
            return Some(Member::Param(value));
        }
        self.body?.get(name).filter(|value| !value.is_null()).map(Member::Json)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The names of all members of the body.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.body.into_iter().flat_map(|body| body.keys()).map(String::as_str)
    }

    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value of a member that must be there.
    pub fn need<T>(&self, name: &str, value: Option<T>) -> Result<T, Violation> {
        value.ok_or_else(|| {
            let path = self.path(name);
            Violation(format!("Value null at '{path}' failed to satisfy constraint: Member must not be null"))
        })
    }

    pub fn text(&self, name: &str, rule: &Text) -> Result<Option<String>, Violation> {
        let text = match self.get(name) {
            None => return Ok(None),
            Some(Member::Param(text)) => text,
            Some(Member::Json(value)) => {
                value.as_str().ok_or_else(|| wrong_type(&self.path(name), "a string"))?
            }
        };
        rule.check(&self.path(name), text)?;
        Ok(Some(text.to_owned()))
    }

    pub fn choice<T: Named>(&self, name: &str) -> Result<Option<T>, Violation> {
        let Some(text) = self.text(name, &Text::any(0..=usize::MAX))? else { return Ok(None) };
        let value = T::parse(&text);
        let rule = || broken(&self.path(name), &text, &format!("satisfy enum value set: [{}]", T::names()));
        value.ok_or_else(rule).map(Some)
    }

    pub fn flag(&self, name: &str) -> Result<Option<bool>, Violation> {
        match self.get(name) {
            None => Ok(None),
            Some(Member::Param("true") | Member::Json(Value::Bool(true))) => Ok(Some(true)),
            Some(Member::Param("false") | Member::Json(Value::Bool(false))) => Ok(Some(false)),
            Some(_) => Err(wrong_type(&self.path(name), "a boolean")),
        }
    }

    pub fn integer(&self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, Violation> {
        let number = match self.get(name) {
            None => return Ok(None),
            Some(Member::Param(text)) => text.parse().ok(),
            Some(Member::Json(value)) => whole(value),
        };
        let number = number.ok_or_else(|| wrong_type(&self.path(name), "an integer"))?;
        self.in_range(
            name,
            &number.to_string(),
            number < *range.start(),
            range.start(),
            number > *range.end(),
            range.end(),
        )?;
        Ok(Some(number))
    }

    pub fn number(&self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, Violation> {
        let number = match self.get(name) {
            None => return Ok(None),
            Some(Member::Param(text)) => text.parse().ok(),
            Some(Member::Json(value)) => value.as_f64(),
        };
        let number = number.ok_or_else(|| wrong_type(&self.path(name), "a number"))?;
        self.in_range(
            name,
            &number.to_string(),
            number < *range.start(),
            range.start(),
            number > *range.end(),
            range.end(),
        )?;
        Ok(Some(number))
    }

    fn in_range<T: ToString>(
        &self,
        name: &str,
        shown: &str,
        below: bool,
        start: &T,
        above: bool,
        end: &T,
    ) -> Result<(), Violation> {
        let path = self.path(name);
        if below {
            return Err(broken(
                &path,
                shown,
                &format!("have value greater than or equal to {}", start.to_string()),
            ));
        }
        if above {
            return Err(broken(
                &path,
                shown,
                &format!("have value less than or equal to {}", end.to_string()),
            ));
        }
        Ok(())
    }

    /// A member that is an object itself.
    pub fn child(&self, name: &str) -> Result<Option<Input<'a>>, Violation> {
        match self.get(name) {
            None => Ok(None),
            Some(Member::Json(Value::Object(body))) => {
                Ok(Some(Input { params: None, body: Some(body), path: self.path(name) }))
            }
            Some(_) => Err(wrong_type(&self.path(name), "an object")),
        }
    }

    fn list(&self, name: &str, length: RangeInclusive<usize>) -> Result<Option<&'a Vec<Value>>, Violation> {
        match self.get(name) {
            None => Ok(None),
            Some(Member::Json(Value::Array(items))) => {
                if items.len() < *length.start() {
                    let rule = format!("have length greater than or equal to {}", length.start());
                    return Err(broken(&self.path(name), "[]", &rule));
                }
                if items.len() > *length.end() {
                    let rule = format!("have length less than or equal to {}", length.end());
                    return Err(broken(&self.path(name), &format!("[{} members]", items.len()), &rule));
                }
                Ok(Some(items))
            }
            Some(_) => Err(wrong_type(&self.path(name), "a list")),
        }
    }

    /// A list of objects.
    pub fn children(
        &self,
        name: &str,
        length: RangeInclusive<usize>,
    ) -> Result<Option<Vec<Input<'a>>>, Violation> {
        let Some(items) = self.list(name, length)? else { return Ok(None) };
        let item = |(index, value): (usize, &'a Value)| {
            let path = format!("{}.{}.member", self.path(name), index + 1);
            let body = value.as_object().ok_or_else(|| wrong_type(&path, "an object"))?;
            Ok(Input { params: None, body: Some(body), path })
        };
        items.iter().enumerate().map(item).collect::<Result<_, _>>().map(Some)
    }

    /// A list of strings.
    pub fn texts(
        &self,
        name: &str,
        rule: &Text,
        length: RangeInclusive<usize>,
    ) -> Result<Option<Vec<String>>, Violation> {
        let Some(items) = self.list(name, length)? else { return Ok(None) };
        let item = |(index, value): (usize, &Value)| {
            let path = format!("{}.{}.member", self.path(name), index + 1);
            let text = value.as_str().ok_or_else(|| wrong_type(&path, "a string"))?;
            rule.check(&path, text)?;
            Ok(text.to_owned())
        };
        items.iter().enumerate().map(item).collect::<Result<_, _>>().map(Some)
    }

    /// An object whose values are strings.
    pub fn map(
        &self,
        name: &str,
        key_rule: &Text,
        value_rule: &Text,
        most: usize,
    ) -> Result<Option<BTreeMap<String, String>>, Violation> {
        let Some(object) = self.child(name)?.and_then(|child| child.body) else { return Ok(None) };
        let path = self.path(name);
        if object.len() > most {
            let rule = format!("have length less than or equal to {most}");
            return Err(broken(&path, &format!("{{{} pairs}}", object.len()), &rule));
        }
        let pair = |(key, value): (&String, &Value)| {
            key_rule.check(&format!("{path}.key"), key)?;
            let text = value.as_str().ok_or_else(|| wrong_type(&format!("{path}.{key}"), "a string"))?;
            value_rule.check(&format!("{path}.{key}"), text)?;
            Ok((key.clone(), text.to_owned()))
        };
        object.iter().map(pair).collect::<Result<_, _>>().map(Some)
    }
}

/// An integer, also one written as 5.0.
fn whole(value: &Value) -> Option<i64> {
    let exact = |number: &f64| number.fract() == 0.0 && number.abs() < 9e15;
    value.as_i64().or_else(|| value.as_f64().filter(exact).map(|number| number as i64))
}

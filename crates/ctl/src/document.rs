//! A job document as its maker writes it: JSON without ambiguity, within AWS's limits, with placeholders that AWS replaces
//! when a device gets it.

use std::fmt;

use anyhow::{Context, bail};
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// CreateJob takes no more.
const MAX_BYTES: usize = 32 * 1024;
/// Substitutions in one document.
const MAX_PLACEHOLDERS: usize = 10;
const START: &str = "${aws:iot:";
const EXPECTED: &str = "expected s3-presigned-url, -v1 or -v2, a colon and the object's URL";

/// AWS puts a signed URL in its place at every delivery.
pub fn placeholder(url: &str) -> String {
    format!("{START}s3-presigned-url:{url}}}")
}

/// JSON in which no object has a member twice: which of the two counts is up to each reader.
pub fn parse(text: &[u8]) -> anyhow::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict.deserialize(&mut reader).context("not JSON")?;
    reader.end().context("not JSON")?;
    Ok(value)
}

/// The document as a device would get it, if AWS takes it.
pub fn delivered(text: &[u8]) -> anyhow::Result<Value> {
    if text.len() > MAX_BYTES {
        bail!("the document has {} bytes, and AWS takes {MAX_BYTES}", text.len());
    }
    let mut document = parse(text)?;
    let mut count = 0;
    substitute(&mut document, &mut count)?;
    if count > MAX_PLACEHOLDERS {
        bail!("the document has {count} placeholders, and AWS takes {MAX_PLACEHOLDERS}");
    }
    Ok(document)
}

fn substitute(value: &mut Value, count: &mut usize) -> anyhow::Result<()> {
    match value {
        Value::String(text) => {
            let (replaced, found) = signed(text)?;
            *text = replaced;
            *count += found;
        }
        Value::Array(values) => values.iter_mut().try_for_each(|value| substitute(value, count))?,
        Value::Object(members) => members.values_mut().try_for_each(|value| substitute(value, count))?,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    Ok(())
}

/// The text with something like a signed URL in the place of each placeholder, and how many there were.
pub fn signed(text: &str) -> anyhow::Result<(String, usize)> {
    let (mut replaced, mut count, mut rest) = (String::new(), 0, text);
    while let Some((before, placeholder)) = rest.split_once(START) {
        let Some((inner, after)) = placeholder.split_once('}') else {
            bail!("a placeholder begins with {START} and does not end: expected a closing brace");
        };
        let url = match inner.split_once(':') {
            Some(("s3-presigned-url" | "s3-presigned-url-v1", url)) => url.to_owned(),
            Some(("s3-presigned-url-v2", url)) => percent_decode_str(url).decode_utf8_lossy().into_owned(),
            _ => bail!("a placeholder {START}{inner}}} is none that AWS puts a download URL for: {EXPECTED}"),
        };
        let sign = if url.contains('?') { '&' } else { '?' };
        replaced += &format!("{before}{url}{sign}X-Amz-Signature=signed");
        (count, rest) = (count + 1, after);
    }
    Ok((replaced + rest, count))
}

/// Builds the value, and looks at the names on the way.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = elements.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Self)?;
            if members.insert(name.clone(), value).is_some() {
                return Err(A::Error::custom(format!("member {name:?} is there twice")));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_signed_urls() {
        let url = "https://s3.eu-west-1.amazonaws.com/b/k";
        let expected = format!("{url}?X-Amz-Signature=signed");
        assert_eq!(signed(&placeholder(url)).unwrap(), (expected.clone(), 1));
        assert_eq!(signed(&format!("${{aws:iot:s3-presigned-url-v1:{url}}}")).unwrap(), (expected, 1));
        let versioned = format!("${{aws:iot:s3-presigned-url-v2:{url}%3FversionId%3D7}}");
        assert_eq!(signed(&versioned).unwrap().0, format!("{url}?versionId=7&X-Amz-Signature=signed"));
        assert_eq!(
            signed("no placeholder: ${thingName}").unwrap(),
            ("no placeholder: ${thingName}".to_owned(), 0)
        );
        for text in ["${aws:iot:s3-presigned-url:https://x", "${aws:iot:nothing:https://x}", "${aws:iot:}"] {
            assert!(signed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_aws_does_not_take_is_refused() {
        let error = |text: &str| format!("{:#}", delivered(text.as_bytes()).unwrap_err());
        assert!(error(&format!("\"{}\"", "x".repeat(32 * 1024))).contains("32770 bytes"));
        let many = format!("[{}]", vec![format!("{:?}", placeholder("https://x")); 11].join(","));
        assert!(error(&many).contains("11 placeholders"));
        assert!(error("{\"a\": {\"b\": 1, \"b\": 1}}").contains("member \"b\" is there twice"));
        for text in ["", "{", "{} {}", "{\"a\"}", &"[".repeat(1000)] {
            assert!(error(text).contains("not JSON"), "{text}");
        }
    }

    #[test]
    fn what_is_read_strictly_is_what_serde_json_reads() {
        let text = r#"{"a": [null, true, 7, -7, 1.5, "x\u00e9", 18446744073709551615], "b": {"c": {}}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }
}

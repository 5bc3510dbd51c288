//! `${aws:iot:s3-presigned-url…:URL}` in job documents: checked when the job is made, signed at every delivery.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::Engine;
use super::interface::Time;
use super::model::{Execution, Job};

const START: &str = "${aws:iot:";
const SIGNED: &str = "${aws:iot:s3-presigned-url";
const KEYWORDS: [&str; 3] = ["${thingName}", "${jobId}", "${executionNumber}"];
/// Substitutions in one document.
const MOST: usize = 10;

/// The document as a device gets it: JSON, or a string if it is none.
pub fn parse(document: &str) -> Value {
    serde_json::from_str(document).unwrap_or_else(|_| Value::from(document))
}

pub fn signs(document: &str) -> bool {
    document.contains(SIGNED)
}

/// An object in S3.
#[derive(Clone, Debug, PartialEq)]
pub struct S3Object {
    pub bucket: String,
    pub key: String,
    pub version: Option<String>,
}

/// Reads `https://s3.REGION.amazonaws.com/BUCKET/KEY`, or the bucket in the host name. Any other host is taken
/// to be an S3 of one's own, with the bucket in the path.
pub fn s3_object(url: &str) -> Option<S3Object> {
    let (_, rest) = url.split_once("://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let version = query.split('&').find_map(|pair| pair.strip_prefix("versionId=")).map(str::to_owned);
    let (bucket, key) = match virtual_bucket(host) {
        Some(bucket) => (bucket, path),
        None => path.split_once('/').unwrap_or((path, "")),
    };
    (!bucket.is_empty()).then(|| S3Object { bucket: bucket.to_owned(), key: key.to_owned(), version })
}

fn virtual_bucket(host: &str) -> Option<&str> {
    let name = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let at = name
        .rfind(".s3.")
        .or_else(|| name.rfind(".s3-"))
        .or_else(|| name.strip_suffix(".s3").map(str::len))?;
    name.get(..at)
}

/// One placeholder, found in a text.
#[derive(Clone, Debug, PartialEq)]
enum Placeholder<'a> {
    /// `s3-presigned-url` and `-v1`: the URL as it is. `-v2`: percent-encoded.
    Download {
        url: &'a str,
        encoded: bool,
    },
    Upload {
        url: &'a str,
    },
}

/// The first placeholder to sign in `text`: what is before it, itself, what is behind it. What only looks like one
/// is text.
fn find(text: &str) -> Option<(&str, Placeholder<'_>, &str)> {
    for (start, _) in text.match_indices(SIGNED) {
        let (before, rest) = (text.get(..start)?, text.get(start + SIGNED.len()..)?);
        let Some(close) = closing(rest) else { continue };
        let (inner, after) = (rest.get(..close)?, rest.get(close + 1..)?);
        let found = match inner.split_once(':').unwrap_or((inner, "")) {
            ("" | "-v1", url) => Placeholder::Download { url, encoded: false },
            ("-v2", url) => Placeholder::Download { url, encoded: true },
            ("-upload", url) => Placeholder::Upload { url },
            _ => continue,
        };
        return Some((before, found, after));
    }
    None
}

/// Where the placeholder closes: keywords in it have braces of their own.
fn closing(rest: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let close = from + rest.get(from..)?.find('}')?;
        let keyword =
            rest.get(..=close).is_some_and(|text| KEYWORDS.iter().any(|keyword| text.ends_with(keyword)));
        if !keyword {
            return Some(close);
        }
        from = close + 1;
    }
}

/// What CreateJob refuses in a document.
pub fn check(document: &Value, reject_unknown: bool) -> Result<(), String> {
    let mut count = 0;
    let mut check_text = |text: &str| -> Result<(), String> {
        count += text.matches(START).count();
        if reject_unknown {
            unknown(text)?;
        }
        let mut rest = text;
        while let Some((_, placeholder, after)) = find(rest) {
            check_placeholder(&placeholder)?;
            rest = after;
        }
        Ok(())
    };
    visit(document, &mut check_text)?;
    if count > MOST {
        return Err(format!("The job document has {count} substitutions, and may have {MOST}"));
    }
    Ok(())
}

fn check_placeholder(placeholder: &Placeholder) -> Result<(), String> {
    match placeholder {
        Placeholder::Download { url, encoded } => {
            let object = download(url, *encoded);
            if object.is_none_or(|object| object.key.is_empty()) {
                return Err(format!("The job document names no S3 object in the placeholder for {url:?}"));
            }
        }
        Placeholder::Upload { url: "" } => {}
        Placeholder::Upload { url } => {
            let object =
                s3_object(url).ok_or_else(|| format!("The job document names no S3 bucket in {url:?}"))?;
            if object.bucket.contains("${")
                || url.split("://").nth(1).is_some_and(|rest| rest.starts_with("${"))
            {
                return Err(
                    "Reserved keywords are not allowed in the bucket of an upload placeholder".to_owned()
                );
            }
            if KEYWORDS.iter().any(|keyword| url.matches(keyword).count() > 2) {
                return Err("A reserved keyword may be used twice in an upload placeholder".to_owned());
            }
        }
    }
    Ok(())
}

fn unknown(text: &str) -> Result<(), String> {
    const KNOWN: [&str; 6] = [
        "s3-presigned-url:",
        "s3-presigned-url-v1:",
        "s3-presigned-url-v2:",
        "s3-presigned-url-upload",
        "parameter:",
        "package:",
    ];
    for part in text.split(START).skip(1) {
        if !KNOWN.iter().any(|known| part.starts_with(known)) {
            let name: String = part.chars().take_while(|c| !matches!(c, '}' | ':')).take(64).collect();
            return Err(format!("The job document has the unknown placeholder {START}{name}…}}"));
        }
    }
    Ok(())
}

fn visit(value: &Value, each: &mut impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().try_for_each(|item| visit(item, each)),
        Value::Object(members) => members.values().try_for_each(|member| visit(member, each)),
        _ => Ok(()),
    }
}

fn rewrite(value: &mut Value, with: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) if text.contains(SIGNED) => *text = with(text),
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, with)),
        Value::Object(members) => members.values_mut().for_each(|member| rewrite(member, with)),
        _ => {}
    }
}

fn download(url: &str, encoded: bool) -> Option<S3Object> {
    if encoded { s3_object(&percent_decode_str(url).decode_utf8().ok()?) } else { s3_object(url) }
}

impl Engine {
    /// The job's document for this execution, every placeholder signed anew.
    pub(super) fn deliver(&self, now: Time, job: &Job, thing: &str, execution: &Execution) -> Value {
        let mut document = Value::clone(&job.live.parsed);
        if job.live.signs {
            rewrite(&mut document, &|text| self.sign(now, job, thing, execution.number, text));
        }
        document
    }

    fn sign(&self, now: Time, job: &Job, thing: &str, number: i64, text: &str) -> String {
        let mut signed = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, placeholder, after)) = find(rest) {
            signed.push_str(before);
            signed.push_str(&self.url(now, job, thing, number, &placeholder));
            rest = after;
        }
        signed.push_str(rest);
        signed
    }

    fn url(&self, now: Time, job: &Job, thing: &str, number: i64, placeholder: &Placeholder) -> String {
        let expires = job.config.expires_in();
        match placeholder {
            Placeholder::Download { url, encoded } => match download(url, *encoded) {
                Some(S3Object { bucket, key, version }) => {
                    self.objects.presign_get(&bucket, &key, version.as_deref(), expires, now.secs())
                }
                None => (*url).to_owned(),
            },
            Placeholder::Upload { url } => {
                let number = number.to_string();
                let values = [thing, job.id.as_str(), number.as_str()];
                let filled = KEYWORDS
                    .iter()
                    .zip(values)
                    .fold((*url).to_owned(), |url, (keyword, value)| url.replace(keyword, value));
                let (bucket, key) = match s3_object(&filled) {
                    Some(object) => (Some(object.bucket), object.key),
                    None => (None, String::new()),
                };
                let key = if key.is_empty() { values.join("/") } else { key };
                self.objects.presign_put(bucket.as_deref(), &key, expires, now.secs())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bucket: &str, key: &str, version: Option<&str>) -> Option<S3Object> {
        Some(S3Object { bucket: bucket.to_owned(), key: key.to_owned(), version: version.map(str::to_owned) })
    }

    #[test]
    fn forms_of_s3_urls() {
        let cases = [
            ("https://s3.us-east-1.amazonaws.com/b/k", object("b", "k", None)),
            ("https://s3.amazonaws.com/b/dir/k", object("b", "dir/k", None)),
            ("https://s3-eu-west-1.amazonaws.com/b/k", object("b", "k", None)),
            ("https://b.s3.us-east-1.amazonaws.com/dir/k", object("b", "dir/k", None)),
            ("https://my.dotted.b.s3.us-east-1.amazonaws.com/k", object("my.dotted.b", "k", None)),
            ("https://b.s3.amazonaws.com/k", object("b", "k", None)),
            ("https://b.s3-us-west-2.amazonaws.com/k?versionId=7", object("b", "k", Some("7"))),
            ("http://127.0.0.1:4568/b/k", object("b", "k", None)),
            ("https://s3.us-east-1.amazonaws.com/b", object("b", "", None)),
            ("https://s3.us-east-1.amazonaws.com/", None),
            ("b/k", None),
        ];
        for (url, expected) in cases {
            assert_eq!(s3_object(url), expected, "{url}");
        }
    }

    #[test]
    fn version_two_is_percent_encoded() {
        let url = "https://s3.us-east-1.amazonaws.com/b/a%20file%3FversionId%3Dv1";
        assert_eq!(download(url, true), object("b", "a file", Some("v1")));
        assert_eq!(download("https://s3.amazonaws.com/b/a%20file", false), object("b", "a%20file", None));
    }

    #[test]
    fn placeholders_are_found_among_text_and_braces() {
        let text =
            "x ${aws:iot:s3-presigned-url-upload:https://s3.amazonaws.com/b/${thingName}/${jobId}.log} y";
        let (before, found, after) = find(text).unwrap();
        assert_eq!((before, after), ("x ", " y"));
        assert_eq!(
            found,
            Placeholder::Upload { url: "https://s3.amazonaws.com/b/${thingName}/${jobId}.log" }
        );
        assert_eq!(find("${aws:iot:s3-presigned-url-upload}").unwrap().1, Placeholder::Upload { url: "" });
        assert_eq!(find("${aws:iot:s3-presigned-url-v9:https://x/b/k}"), None);
        assert_eq!(find("${aws:iot:s3-presigned-url:https://never closes"), None);
    }

    #[test]
    fn what_create_job_refuses() {
        let refused = |text: &str, strict| check(&serde_json::json!({"a": [text]}), strict).is_err();
        let upload = |url: &str| format!("${{aws:iot:s3-presigned-url-upload:{url}}}");
        assert!(!refused(&upload("https://s3.amazonaws.com/b/${jobId}${jobId}"), false));
        assert!(refused(&upload("https://s3.amazonaws.com/b/${jobId}${jobId}${jobId}"), false));
        assert!(refused(&upload("https://s3.amazonaws.com/${jobId}/k"), false));
        assert!(refused(&upload("https://${jobId}.s3.amazonaws.com/k"), false));
        assert!(refused("${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b}", false));
        assert!(!refused("${aws:iot:whatever}", false));
        assert!(refused("${aws:iot:whatever}", true));
        assert!(!refused("${aws:iot:s3-presigned-url-v9:https://s3.amazonaws.com/b/k}", false));
        assert!(refused("${aws:iot:s3-presigned-url-v9:https://s3.amazonaws.com/b/k}", true));
        assert!(refused("${aws:iot:s3-presigned-url-v9:x} ${aws:iot:s3-presigned-url:none}", false));
        let many = "${aws:iot:s3-presigned-url:https://s3.amazonaws.com/b/k}".repeat(11);
        assert!(refused(&many, false));
    }
}

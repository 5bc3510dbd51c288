//! What a response's headers say. Everything here comes from the network: what is malformed is as good as absent.

use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName};

use crate::Validator;

/// `Content-Range: bytes 7-41/42`, of which the last byte is 41. `total` is `*` where the server does not know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) start: u64,
    pub(crate) last: u64,
    pub(crate) total: Option<u64>,
}

impl ContentRange {
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let (range, total) =
            text(headers, &header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
        let (start, last) = range.split_once('-')?;
        let total = if total == "*" { None } else { Some(number(total)?) };
        let range = Self { start: number(start)?, last: number(last)?, total };
        let sound = range.start <= range.last && range.last < range.total.unwrap_or(u64::MAX);
        sound.then_some(range)
    }
}

impl Validator {
    /// Nothing where the response has neither a strong ETag nor a date.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        match text(headers, &header::ETAG)
            .filter(|tag| tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"'))
        {
            Some(strong) => Some(Self::Etag(strong.to_owned())),
            None => text(headers, &header::LAST_MODIFIED).map(|date| Self::LastModified(date.to_owned())),
        }
    }

    /// As `If-Range` has it.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Etag(text) | Self::LastModified(text) => text,
        }
    }

    pub(crate) fn holds_for(&self, headers: &HeaderMap) -> bool {
        let name = match self {
            Self::Etag(_) => header::ETAG,
            Self::LastModified(_) => header::LAST_MODIFIED,
        };
        text(headers, &name) == Some(self.as_str())
    }
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, &header::CONTENT_LENGTH)?)
}

/// Seconds only; the form with a date would need a clock that is right.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    number(text(headers, &header::RETRY_AFTER)?).map(Duration::from_secs)
}

pub(crate) fn location(headers: &HeaderMap) -> Option<&str> {
    text(headers, &header::LOCATION)
}

/// A coding of the body other than none.
pub(crate) fn coding(headers: &HeaderMap) -> Option<&str> {
    let coding = headers.get(header::CONTENT_ENCODING)?.to_str().unwrap_or("unreadable").trim();
    (!coding.is_empty() && !coding.eq_ignore_ascii_case("identity")).then_some(coding)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Digits alone: `parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn content_ranges() {
        let of = |text: &str| ContentRange::of(&headers(header::CONTENT_RANGE, text));
        assert_eq!(of("bytes 7-41/42"), Some(ContentRange { start: 7, last: 41, total: Some(42) }));
        assert_eq!(of("bytes 0-0/*"), Some(ContentRange { start: 0, last: 0, total: None }));
        for bad in [
            "",
            "bytes",
            "bytes */42",
            "bytes 7-41",
            "bytes 41-7/42",
            "bytes 7-42/42",
            "bytes -7-41/42",
            "bytes 7-+41/42",
            "bytes 7-41/",
            "bytes 7-41/x",
            "lines 7-41/42",
            "bytes 7-99999999999999999999/*",
            "bytes 7-18446744073709551615/*",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(ContentRange::of(&HeaderMap::new()), None);
    }

    #[test]
    fn a_validator_is_a_strong_etag_or_a_date() {
        let etag = |text: &str| Validator::of(&headers(header::ETAG, text));
        assert_eq!(etag("\"v1\""), Some(Validator::Etag("\"v1\"".to_owned())));
        for weak in ["W/\"v1\"", "v1", "\"", "", "\"v1"] {
            assert_eq!(etag(weak), None, "{weak}");
        }
        let mut both = headers(header::ETAG, "W/\"v1\"");
        both.insert(header::LAST_MODIFIED, "Sat, 21 Nov 2026 00:00:00 GMT".parse().unwrap());
        let date = Validator::of(&both).unwrap();
        assert_eq!(date, Validator::LastModified("Sat, 21 Nov 2026 00:00:00 GMT".to_owned()));
        assert!(date.holds_for(&both) && !date.holds_for(&HeaderMap::new()));
    }

    #[test]
    fn codings_and_numbers() {
        assert_eq!(coding(&headers(header::CONTENT_ENCODING, "gzip")), Some("gzip"));
        assert_eq!(coding(&headers(header::CONTENT_ENCODING, "Identity")), None);
        assert_eq!(retry_after(&headers(header::RETRY_AFTER, "120")), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(&headers(header::RETRY_AFTER, "Sat, 21 Nov 2026 00:00:00 GMT")), None);
        assert_eq!(content_length(&headers(header::CONTENT_LENGTH, "")), None);
    }
}

//! What of a version a GET or HEAD gets: conditions first, then the range (RFC 9110, sections 13 and 14).

use std::ops::Range as Span;

use hyper::header::HeaderValue;
use s3s::dto::{ETagCondition, Range, Timestamp, TimestampFormat};
use s3s::{S3Error, S3Result, s3_error};

use super::index::{Version, failed_precondition};
use super::ops::timestamp;
use crate::engine::Time;

/// What a request asks beyond the name of the object.
pub(super) struct Conditions<'a> {
    pub(super) if_match: Option<&'a ETagCondition>,
    pub(super) if_none_match: Option<&'a ETagCondition>,
    pub(super) if_modified_since: Option<&'a Timestamp>,
    pub(super) if_unmodified_since: Option<&'a Timestamp>,
    pub(super) range: Option<Range>,
    pub(super) if_range: Option<&'a HeaderValue>,
}

impl Conditions<'_> {
    /// The bytes to send, and their `Content-Range` if they are a part.
    pub(super) fn admit(&self, version: &Version) -> S3Result<(Span<u64>, Option<String>)> {
        self.check_etags(version)?;
        self.check_times(version)?;
        let Some(range) = self.range.filter(|_| self.range_applies(version)) else {
            return Ok((0..version.size, None));
        };
        let span = range.check(version.size).map_err(|_| unsatisfiable(version))?;
        let content_range = format!("bytes {}-{}/{}", span.start, span.end.saturating_sub(1), version.size);
        Ok((span, Some(content_range)))
    }

    fn check_etags(&self, version: &Version) -> S3Result<()> {
        if self.if_match.is_some_and(|condition| !version.matches(condition)) {
            return Err(failed_precondition());
        }
        if self.if_none_match.is_some_and(|condition| version.matches(condition)) {
            return Err(not_modified(version));
        }
        Ok(())
    }

    /// A condition on times counts only where the one on ETags is not there.
    fn check_times(&self, version: &Version) -> S3Result<()> {
        let modified = modified(version);
        if self.if_match.is_none() && self.if_unmodified_since.is_some_and(|since| modified > *since) {
            return Err(failed_precondition());
        }
        if self.if_none_match.is_none() && self.if_modified_since.is_some_and(|since| modified <= *since) {
            return Err(not_modified(version));
        }
        Ok(())
    }

    /// `If-Range`: a part of another object than the client has begun with would only do harm, it then gets the whole.
    fn range_applies(&self, version: &Version) -> bool {
        let Some(condition) = self.if_range else { return true };
        let Ok(condition) = condition.to_str() else { return false };
        if let Ok(date) = Timestamp::parse(TimestampFormat::HttpDate, condition) {
            return date == modified(version);
        }
        // A strong comparison: `W/"…"` never holds.
        condition.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(version.etag.as_str())
    }
}

/// In whole seconds, as HTTP shows it.
fn modified(version: &Version) -> Timestamp {
    timestamp(Time::from_secs(version.modified.secs()))
}

fn not_modified(version: &Version) -> S3Error {
    let mut error = s3_error!(NotModified);
    if let Ok(etag) = version.etag().to_http_header() {
        error.set_headers([(hyper::header::ETAG, etag)].into_iter().collect());
    }
    error
}

fn unsatisfiable(version: &Version) -> S3Error {
    let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
    if let Ok(total) = format!("bytes */{}", version.size).parse() {
        error.set_headers([(hyper::header::CONTENT_RANGE, total)].into_iter().collect());
    }
    error
}

//! Presigned URLs: the ones that jobs hand out, and the check of any that comes back.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sigv4::http_request::SignableBody;
use hyper::header::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::form_urlencoded::{Serializer, parse};

use super::storage::Storage;
use crate::clock::machine_time;
use crate::engine::{Objects, Time};
use crate::http::sigv4::{Credentials, MAX_SKEW_SECONDS, Scope, Signed, parse_date, signature};

/// S3 leaves these alone in a path, and encodes everything else.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
/// Where devices upload to if their job names no bucket.
const UPLOAD_BUCKET: &str = "aws-iot-jobs-uploads";
/// A week: no URL lives longer.
const MAX_EXPIRES: u32 = 604_800;
/// The largest document that a job may have.
const MAX_DOCUMENT: u64 = 32_768;
/// AWS signs with a role's session, which is what makes two URLs of the same second differ.
const SESSION: &str = "X-Amz-Security-Token";

/// The object store as the engine sees it.
pub(crate) struct Presigner {
    pub(crate) storage: std::sync::Arc<Storage>,
    pub(crate) credentials: Credentials,
    pub(crate) region: String,
    /// `http://ADDRESS`, as devices reach it.
    pub(crate) address: String,
    /// URLs signed so far, each in a session of its own.
    pub(crate) sessions: AtomicU64,
}

impl Presigner {
    fn presign(
        &self,
        method: &str,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        expires: u32,
        now: i64,
    ) -> String {
        let path = format!("{bucket}/{key}");
        let session = self.sessions.fetch_add(1, Ordering::Relaxed).to_string();
        let query = Serializer::new(String::new())
            .extend_pairs(version.map(|version| ("versionId", version)))
            .append_pair(SESSION, &session)
            .finish();
        let url = format!("{}/{}?{query}", self.address, utf8_percent_encode(&path, PATH));
        let at = Time::from_secs(now);
        let date = scope_date(at);
        let scope = Scope {
            access_key: &self.credentials.access_key,
            date: &date,
            region: &self.region,
            service: "s3",
        };
        let payload = SignableBody::UnsignedPayload;
        let request =
            Signed { method, uri: url.clone(), headers: Vec::new(), payload, expires: Some(expires) };
        let Some((_, added)) = signature(&self.credentials, &scope, at, request) else {
            return url; // which S3 will refuse: the address it stands for was no URL
        };
        let query = added.iter().fold(Serializer::new(String::new()), |mut query, (name, value)| {
            query.append_pair(name, value);
            query
        });
        let mut query = query;
        format!("{url}&{}", query.finish())
    }
}

impl Objects for Presigner {
    fn presign_get(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
        expires_in: u32,
        now: i64,
    ) -> String {
        self.presign("GET", bucket, key, version, expires_in, now)
    }

    fn presign_put(&self, bucket: Option<&str>, key: &str, expires_in: u32, now: i64) -> String {
        let bucket = bucket.unwrap_or_else(|| {
            // It is there already from the second upload on.
            let _ = self.storage.change(|index| index.create_bucket(UPLOAD_BUCKET, Time::from_secs(now)));
            UPLOAD_BUCKET
        });
        self.presign("PUT", bucket, key, None, expires_in, now)
    }

    fn read(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.storage.read(bucket, key, MAX_DOCUMENT)
    }
}

/// Why a presigned URL is refused, in S3's words.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: &'static str,
}

pub(super) const EXPIRED: Refusal = Refusal { code: "AccessDenied", message: "Request has expired" };

/// Whether a query claims to carry a signature.
pub(super) fn is_presigned(query: &str) -> bool {
    parse(query.as_bytes()).any(|(name, _)| name == "X-Amz-Signature")
}

/// One request with a presigned URL.
pub(super) struct Presigned<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
}

impl Presigned<'_> {
    /// Checks expiry and signature; what is left of the query is the request itself.
    pub(super) fn verify(
        &self,
        credentials: &Credentials,
        now: Time,
        manual: bool,
    ) -> Result<String, Refusal> {
        let refused = |code, message| Err(Refusal { code, message });
        let member = |wanted: &str| {
            parse(self.query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
        };
        let (Some(credential), Some(date), Some(expires), Some(signed), Some(claimed)) = (
            member("X-Amz-Credential"),
            member("X-Amz-Date"),
            member("X-Amz-Expires"),
            member("X-Amz-SignedHeaders"),
            member("X-Amz-Signature"),
        ) else {
            return refused(
                "AuthorizationQueryParametersError",
                "Query-string authentication needs all of its parameters",
            );
        };
        let expires = expires.parse().ok().filter(|seconds| (1..=MAX_EXPIRES).contains(seconds));
        let (Some(at), Some(scope), Some(expires)) = (parse_date(&date), Scope::parse(&credential), expires)
        else {
            return refused(
                "AuthorizationQueryParametersError",
                "A parameter of the query-string authentication is malformed",
            );
        };
        if scope.access_key != credentials.access_key {
            return refused(
                "InvalidAccessKeyId",
                "The AWS Access Key Id you provided does not exist in our records.",
            );
        }
        if !date.starts_with(scope.date) || scope.service != "s3" {
            return refused("AuthorizationQueryParametersError", "The credential does not fit the request");
        }
        // A client signs with the machine's time. Where the cloud's own clock stands in that time's past, such a
        // URL cannot be one of the cloud's, and the machine's clock decides.
        let skewed = at > now.plus_secs(MAX_SKEW_SECONDS);
        let now = if skewed && manual { machine_time() } else { now };
        if at > now.plus_secs(MAX_SKEW_SECONDS) {
            return refused("AccessDenied", "Request is not yet valid");
        }
        // The session is signed like any member of the request, but none of the request's business.
        let query: Vec<_> = parse(self.query.as_bytes()).filter(|(name, _)| !is_signing(name)).collect();
        let signed_query = Serializer::new(String::new()).extend_pairs(&query).finish();
        let rest = query.iter().filter(|(name, _)| name != SESSION);
        let rest = Serializer::new(String::new()).extend_pairs(rest).finish();
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let separator = if signed_query.is_empty() { "" } else { "?" };
        let host = header("host").unwrap_or_default();
        let uri = format!("http://{host}{}{separator}{signed_query}", self.path);
        let payload = match header("x-amz-content-sha256").filter(|_| signed.contains("x-amz-content-sha256"))
        {
            Some(digest) => SignableBody::Precomputed(digest.to_owned()),
            None => SignableBody::UnsignedPayload,
        };
        let headers = signed.split(';').filter_map(|name| Some((name, header(name)?))).collect();
        let request = Signed { method: self.method, uri, headers, payload, expires: Some(expires) };
        if signature(credentials, &scope, at, request).is_none_or(|(signature, _)| signature != claimed) {
            return refused(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
            );
        }
        if now > at.plus_secs(i64::from(expires)) {
            return Err(EXPIRED);
        }
        Ok(rest)
    }
}

fn is_signing(name: &str) -> bool {
    const NAMES: [&str; 6] = ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"];
    name.strip_prefix("X-Amz-").is_some_and(|rest| NAMES.contains(&rest))
}

/// `20240102`
fn scope_date(at: Time) -> String {
    let mut text = Vec::new();
    let timestamp = super::ops::timestamp(at);
    let _ = timestamp.format(s3s::dto::TimestampFormat::DateTime, &mut text);
    String::from_utf8_lossy(&text).chars().filter(char::is_ascii_digit).take(8).collect()
}

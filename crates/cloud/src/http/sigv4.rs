//! Signature version 4, checked the way it is made: AWS's own signer signs what came in, and the result has to be
//! what came with it.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation,
    SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use hyper::http::request::Parts;

use super::Api;
use super::api::invalid;
use crate::clock::system_time;
use crate::engine::{ApiError, Time};

/// What temporary credentials come with.
const TOKEN: &str = "x-amz-security-token";
/// How far a client's clock may be off.
pub(crate) const MAX_SKEW_SECONDS: i64 = 900;

#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// `KEY/DATE/REGION/SERVICE/aws4_request`
pub(crate) struct Scope<'a> {
    pub(crate) access_key: &'a str,
    pub(crate) date: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

impl<'a> Scope<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Scope<'a>> {
        let mut parts = text.rsplitn(5, '/');
        let terminator = parts.next()?;
        let (service, region, date, access_key) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        (terminator == "aws4_request").then_some(Scope { access_key, date, region, service })
    }
}

/// One request as it was signed.
pub(crate) struct Signed<'a> {
    pub(crate) method: &'a str,
    /// Absolute, without the parameters that the signature added.
    pub(crate) uri: String,
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) payload: SignableBody<'a>,
    /// Seconds; a presigned URL has it, an `Authorization` header has not.
    pub(crate) expires: Option<u32>,
}

/// The signature of a request, with the query parameters that carry it if it is to be a presigned URL.
pub(crate) fn signature(
    credentials: &Credentials,
    scope: &Scope<'_>,
    at: Time,
    request: Signed<'_>,
) -> Option<(String, Vec<(&'static str, String)>)> {
    let mut settings = SigningSettings::default();
    settings.excluded_headers = None;
    if scope.service == "s3" {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    if let Some(seconds) = request.expires {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(u64::from(seconds)));
    }
    let identity = aws_credential_types::Credentials::new(
        &credentials.access_key,
        &credentials.secret_key,
        None,
        None,
        "fleethand-cloud",
    )
    .into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(system_time(at))
        .settings(settings)
        .build()
        .ok()?
        .into();
    let signable =
        SignableRequest::new(request.method, request.uri, request.headers.into_iter(), request.payload)
            .ok()?;
    let (instructions, signature) = sign(signable, &params).ok()?.into_parts();
    let (_, added) = instructions.into_parts();
    Some((signature, added.into_iter().map(|(name, value)| (name, value.into_owned())).collect()))
}

/// The service in the credential scope: it tells the control plane from the device plane.
pub(super) fn signing_name(parts: &Parts) -> Option<String> {
    let header = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    if let Some(service) =
        header.and_then(Authorization::parse).map(|authorization| authorization.scope.service)
    {
        return Some(service.to_owned());
    }
    let query = parts.uri.query().unwrap_or_default();
    let (_, credential) =
        url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "X-Amz-Credential")?;
    Scope::parse(&credential).map(|scope| scope.service.to_owned())
}

struct Authorization<'a> {
    scope: Scope<'a>,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Option<Authorization<'a>> {
        let members = header.strip_prefix("AWS4-HMAC-SHA256")?.split(',');
        let members: BTreeMap<&str, &str> =
            members.filter_map(|member| member.trim().split_once('=')).collect();
        Some(Authorization {
            scope: Scope::parse(members.get("Credential")?)?,
            signed_headers: members.get("SignedHeaders")?.split(';').collect(),
            signature: members.get("Signature")?,
        })
    }
}

/// Refuses a request of the control or device plane that is not signed with these credentials.
pub(super) fn verify(api: &Api, parts: &Parts, body: &Bytes, now: Time) -> Result<(), ApiError> {
    let refused = |kind, message: &str| Err(invalid(403, kind, message));
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(authorization) = header("authorization") else {
        return refused("MissingAuthenticationTokenException", "Missing Authentication Token");
    };
    let Some(authorization) = Authorization::parse(authorization) else {
        return refused(
            "IncompleteSignatureException",
            "The Authorization header is not of the form of Signature Version 4",
        );
    };
    let Some((date, at)) = header("x-amz-date").and_then(|date| Some((date, parse_date(date)?))) else {
        return refused("IncompleteSignatureException", "The request has no valid X-Amz-Date header");
    };
    let Some(credentials) = api.credentials_of(authorization.scope.access_key, header(TOKEN), now) else {
        return refused(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        );
    };
    if (now.secs() - at.secs()).abs() > MAX_SKEW_SECONDS || !date.starts_with(authorization.scope.date) {
        return refused("InvalidSignatureException", "Signature expired or not yet current");
    }
    // The signer adds the host and the date by itself; the others are those that were signed, as they came.
    let headers = authorization.signed_headers.iter().filter(|name| **name != "x-amz-date");
    let headers = headers.filter_map(|name| Some((*name, header(name)?))).collect();
    let host = header("host").unwrap_or("localhost");
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let payload = match header("x-amz-content-sha256") {
        Some("UNSIGNED-PAYLOAD") => SignableBody::UnsignedPayload,
        _ => SignableBody::Bytes(body),
    };
    let uri = format!("http://{host}{target}");
    let request = Signed { method: parts.method.as_str(), uri, headers, payload, expires: None };
    match signature(&credentials, &authorization.scope, at, request) {
        Some((signature, _)) if signature == authorization.signature => Ok(()),
        _ => refused(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. \
             Check your AWS Secret Access Key and signing method.",
        ),
    }
}

/// `20240102T030405Z`
pub(crate) fn parse_date(text: &str) -> Option<Time> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (date, time) = ((date.len() == 8).then_some(date)?, (time.len() == 6).then_some(time)?);
    let iso = format!(
        "{}-{}-{}T{}:{}:{}Z",
        date.get(..4)?,
        date.get(4..6)?,
        date.get(6..)?,
        time.get(..2)?,
        time.get(2..4)?,
        time.get(4..)?
    );
    let parsed = s3s::dto::Timestamp::parse(s3s::dto::TimestampFormat::DateTime, &iso).ok()?;
    let mut seconds = Vec::new();
    parsed.format(s3s::dto::TimestampFormat::EpochSeconds, &mut seconds).ok()?;
    let seconds: f64 = String::from_utf8(seconds).ok()?.parse().ok()?;
    Some(Time::from_secs(seconds as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_basic_iso_8601_and_nothing_else() {
        assert_eq!(parse_date("20240102T030405Z"), Some(Time::from_secs(1_704_164_645)));
        for wrong in ["", "20240102T030405", "2024-01-02T03:04:05Z", "20241302T030405Z", "2024010éT03040Z"] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_scope_may_have_slashes_in_its_access_key_alone() {
        let scope = Scope::parse("a/b/20240102/us-east-1/iot/aws4_request").unwrap();
        assert_eq!(
            (scope.access_key, scope.date, scope.region, scope.service),
            ("a/b", "20240102", "us-east-1", "iot")
        );
        assert!(Scope::parse("20240102/us-east-1/iot/aws4_request").is_none());
        assert!(Scope::parse("a/20240102/us-east-1/iot/aws5_request").is_none());
    }

    /// Cases of a URL without `X-Amz-Expires`, which only MQTT over WebSocket knows: `presigned.rs` takes them.
    const NOT_HERE: [&str; 2] = ["sigv4-no-expires", "sigv4-crt-connection-header"];

    #[test]
    fn signatures_are_those_of_the_contract() {
        let vectors = include_str!("../../../../test-fixtures/vectors/sigv4-wss.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let (id, input) = (case["id"].as_str().unwrap(), &case["input"]);
            let text = |member: &str| input[member].as_str().unwrap();
            let Some(expires) = input["expires"].as_u64() else {
                assert!(NOT_HERE.contains(&id), "{id}");
                continue;
            };
            let credentials = Credentials {
                access_key: text("accessKeyId").to_owned(),
                secret_key: text("secretAccessKey").to_owned(),
            };
            let (date, _) = text("amzDate").split_once('T').unwrap();
            let (access_key, region, service) = (text("accessKeyId"), text("region"), text("service"));
            let request = Signed {
                method: text("method"),
                uri: format!("https://{}{}", text("host"), text("path")),
                headers: Vec::new(),
                payload: SignableBody::Bytes(b""),
                expires: u32::try_from(expires).ok(),
            };
            let scope = Scope { access_key, date, region, service };
            let (signature, _) =
                signature(&credentials, &scope, parse_date(text("amzDate")).unwrap(), request).unwrap();
            assert_eq!(signature, case["expect"]["signature"], "{id}");
        }
    }
}

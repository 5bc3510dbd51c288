//! The signature of a WebSocket's URL, by the rules of AWS IoT: the signed headers are those that the URL names, literally,
//! and the session token is no part of what is signed, wherever it stands.

use hyper::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::{digest, hmac};

use super::sigv4::{Scope, parse_date};
use crate::engine::Time;

pub(super) const PATH: &str = "/mqtt";
const SERVICE: &str = "iotdevicegateway";
/// How far a client's clock may be off.
const SKEW_SECONDS: i64 = 300;
const MAX_EXPIRES_SECONDS: i64 = 86_400;
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a URL says of its signature.
pub(super) struct Presigned {
    parameters: Vec<(String, String)>,
}

impl Presigned {
    pub(super) fn parse(query: &str) -> Option<Self> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|text| text.into_owned());
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let parameters = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, decoded(value)?))
        });
        Some(Self { parameters: parameters.collect::<Option<_>>()? })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn access_key(&self) -> Option<&str> {
        Some(Scope::parse(self.get("X-Amz-Credential")?)?.access_key)
    }

    pub(super) fn token(&self) -> Option<&str> {
        self.get("X-Amz-Security-Token")
    }

    /// Whether this is what the owner of the secret key signed; if not, what is wrong with it.
    pub(super) fn verify(
        &self,
        secret_key: &str,
        headers: &HeaderMap,
        region: &str,
        now: Time,
    ) -> Result<(), &'static str> {
        if self.get("X-Amz-Algorithm") != Some("AWS4-HMAC-SHA256") {
            return Err("X-Amz-Algorithm is not AWS4-HMAC-SHA256");
        }
        let credential = self.get("X-Amz-Credential").ok_or("X-Amz-Credential is missing")?;
        let scope = Scope::parse(credential).ok_or("X-Amz-Credential is not KEY/SCOPE")?;
        if (scope.region, scope.service) != (region, SERVICE) {
            return Err("the scope is not this region's, or not of the service iotdevicegateway");
        }
        let date = self.get("X-Amz-Date").ok_or("X-Amz-Date is missing")?;
        let at = parse_date(date)
            .filter(|_| date.starts_with(scope.date))
            .ok_or("X-Amz-Date is none, or not the scope's")?;
        let lasts = match self.get("X-Amz-Expires") {
            None => SKEW_SECONDS,
            Some(seconds) => seconds
                .parse()
                .ok()
                .filter(|seconds| (1..=MAX_EXPIRES_SECONDS).contains(seconds))
                .ok_or("X-Amz-Expires is not 1 to 86400")?,
        };
        let age = now.secs() - at.secs();
        if age < -SKEW_SECONDS || age > lasts {
            return Err("the signature has expired, or is not yet current");
        }
        let names = self.get("X-Amz-SignedHeaders").ok_or("X-Amz-SignedHeaders is missing")?;
        if !names.split(';').any(|name| name == "host") {
            return Err("host is not among X-Amz-SignedHeaders");
        }
        let request = self.canonical_request(names, headers).ok_or("a signed header is missing")?;
        let signature = self.get("X-Amz-Signature").and_then(|hex| hex::decode(hex).ok()).unwrap_or_default();
        let scope = [scope.date, scope.region, scope.service, "aws4_request"];
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{date}\n{}\n{}",
            scope.join("/"),
            hex::encode(digest::digest(&digest::SHA256, request.as_bytes()))
        );
        let secret = format!("AWS4{secret_key}").into_bytes();
        let key = scope.into_iter().fold(secret, |key, part| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec()
        });
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        hmac::verify(&key, to_sign.as_bytes(), &signature)
            .map_err(|_| "the signature is not that of this request and these credentials")
    }

    /// `None` when a header that was signed did not come.
    fn canonical_request(&self, names: &str, headers: &HeaderMap) -> Option<String> {
        let unsigned = ["X-Amz-Signature", "X-Amz-Security-Token"];
        let signed = self.parameters.iter().filter(|(name, _)| !unsigned.contains(&name.as_str()));
        let mut query: Vec<_> =
            signed.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        query.sort_unstable();
        let mut lines = String::new();
        for name in names.split(';') {
            let values: Vec<_> = headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().map(str::trim))
                .collect::<Result<_, _>>()
                .ok()?;
            if values.is_empty() {
                return None;
            }
            lines += &format!("{name}:{}\n", values.join(","));
        }
        let empty = hex::encode(digest::digest(&digest::SHA256, b""));
        Some(format!("GET\n{PATH}\n{}\n{lines}\n{names}\n{empty}", query.join("&")))
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};
    use serde_json::Value;

    use super::*;

    struct Case {
        id: String,
        query: String,
        token: Option<String>,
        headers: HeaderMap,
        secret: String,
        region: String,
        at: Time,
        canonical: String,
    }

    fn cases() -> Vec<Case> {
        let vectors = include_str!("../../../../test-fixtures/vectors/sigv4-wss.json");
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        let cases = vectors["cases"].as_array().unwrap().iter().map(|case| {
            let input = &case["input"];
            let text = |member: &str| input[member].as_str().unwrap().to_owned();
            let headers = input["signedHeaders"].as_object().unwrap().iter();
            Case {
                id: case["id"].as_str().unwrap().to_owned(),
                query: case["expect"]["url"].as_str().unwrap().split_once('?').unwrap().1.to_owned(),
                token: input["sessionToken"].as_str().map(str::to_owned),
                headers: headers
                    .map(|(name, value)| {
                        let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
                        (HeaderName::from_bytes(name.as_bytes()).unwrap(), value)
                    })
                    .collect(),
                secret: text("secretAccessKey"),
                region: text("region"),
                at: parse_date(&text("amzDate")).unwrap(),
                canonical: case["expect"]["canonicalRequest"].as_str().unwrap().to_owned(),
            }
        });
        cases.collect()
    }

    #[test]
    fn every_url_of_the_contract_is_accepted() {
        let cases = cases();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let presigned = Presigned::parse(&case.query).unwrap();
            let names = presigned.get("X-Amz-SignedHeaders").unwrap();
            assert_eq!(
                presigned.canonical_request(names, &case.headers).unwrap(),
                case.canonical,
                "{}",
                case.id
            );
            assert_eq!(presigned.access_key(), Some("AKIDEXAMPLE"));
            assert_eq!(presigned.token(), case.token.as_deref(), "{}", case.id);
            assert_eq!(
                presigned.verify(&case.secret, &case.headers, &case.region, case.at),
                Ok(()),
                "{}",
                case.id
            );
        }
    }

    /// The token may stand before the signature, too.
    #[test]
    fn where_the_token_stands_does_not_matter() {
        let case = cases().into_iter().find(|case| case.id == "sigv4-session-token").unwrap();
        let mut parts: Vec<_> = case.query.split('&').collect();
        parts.reverse();
        let presigned = Presigned::parse(&parts.join("&")).unwrap();
        assert_eq!(presigned.verify(&case.secret, &case.headers, &case.region, case.at), Ok(()));
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        for case in cases() {
            let verify = |query: &str, secret: &str, region: &str, seconds: i64| {
                let now = case.at.plus_secs(seconds);
                Presigned::parse(query).unwrap().verify(secret, &case.headers, region, now)
            };
            let (query, secret, region) = (case.query.as_str(), case.secret.as_str(), case.region.as_str());
            let lasts = case
                .query
                .split_once("X-Amz-Expires=")
                .map_or(300, |(_, rest)| rest.split('&').next().unwrap().parse().unwrap());
            assert!(
                verify(query, secret, region, lasts).is_ok() && verify(query, secret, region, -300).is_ok()
            );
            assert!(
                verify(query, secret, region, lasts + 1).is_err()
                    && verify(query, secret, region, -301).is_err()
            );
            assert!(verify(query, "another", region, 0).is_err());
            assert!(verify(query, secret, "eu-north-1", 0).is_err());
            for (from, to) in [
                ("AKIDEXAMPLE", "AKIDEXAMPLF"),
                ("iotdevicegateway", "iotdata"),
                ("T030405Z", "T030406Z"),
                ("X-Amz-Signature=", "X-Amz-Signature=00"),
                ("HMAC-SHA256", "HMAC-SHA512"),
                ("host", "date"),
            ] {
                assert!(
                    verify(&query.replacen(from, to, 1), secret, region, 0).is_err(),
                    "{} {from}",
                    case.id
                );
            }
            assert!(verify(&format!("{query}&more=1"), secret, region, 0).is_err());
            // What comes after the signature is the token, which is not signed.
            let end = query.find("X-Amz-Signature=").unwrap() + "X-Amz-Signature=".len() + 64;
            for length in 0..end {
                if let Some(cut) = Presigned::parse(&query[..length]) {
                    assert!(
                        cut.verify(secret, &case.headers, region, case.at).is_err(),
                        "{}",
                        &query[..length]
                    );
                }
            }
        }
    }
}

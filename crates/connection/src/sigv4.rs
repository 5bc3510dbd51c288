//! Signature Version 4 of the URL that a WebSocket is opened with. Unlike everywhere else at AWS, the session token is no
//! part of what is signed, and is appended to it: signed, it is answered with 403.

use std::time::SystemTime;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};

use crate::calendar::utc;
use crate::credentials::Credentials;

pub(crate) const PATH: &str = "/mqtt";
const SERVICE: &str = "iotdevicegateway";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What is signed besides the path.
pub(crate) struct Request<'a> {
    pub(crate) region: &'a str,
    pub(crate) at: SystemTime,
    /// Small letters, sorted by name; `host` is one of them.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// AWS's own SDKs say nothing of it: a URL that is used at once need not last.
    pub(crate) expires: Option<u32>,
}

impl Request<'_> {
    /// The query that carries the signature.
    pub(crate) fn query(&self, credentials: &Credentials) -> String {
        let date_time = utc(self.at).replace(['-', ':'], "");
        let date = date_time.split('T').next().unwrap_or_default();
        let scope = format!("{date}/{}/{SERVICE}/aws4_request", self.region);
        let names: Vec<_> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let mut query = format!(
            "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={}&X-Amz-Date={date_time}",
            encoded(&format!("{}/{scope}", credentials.access_key))
        );
        if let Some(seconds) = self.expires {
            query += &format!("&X-Amz-Expires={seconds}");
        }
        query += &format!("&X-Amz-SignedHeaders={}", encoded(&names));

        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("GET\n{PATH}\n{query}\n{headers}\n{names}\n{}", sha256(b""));
        let to_sign = format!("{ALGORITHM}\n{date_time}\n{scope}\n{}", sha256(request.as_bytes()));
        let secret = format!("AWS4{}", credentials.secret_key);
        let key = [date, self.region, SERVICE, "aws4_request"]
            .into_iter()
            .fold(secret.into_bytes(), |key, part| hmac_sha256(&key, part.as_bytes()).as_ref().to_vec());
        let signature = hex(hmac_sha256(&key, to_sign.as_bytes()).as_ref());
        query += &format!("&X-Amz-Signature={signature}");
        if let Some(token) = &credentials.session_token {
            query += &format!("&X-Amz-Security-Token={}", encoded(token));
        }
        query
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data)
}

fn sha256(data: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, data).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::calendar::parse_der;

    #[test]
    fn urls_are_those_of_the_contract() {
        let vectors = include_str!("../../../test-fixtures/vectors/sigv4-wss.json");
        let vectors: Value = serde_json::from_str(vectors).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let input = &case["input"];
            let text = |member: &str| input[member].as_str().unwrap();
            let credentials = Credentials {
                access_key: text("accessKeyId").to_owned(),
                secret_key: text("secretAccessKey").to_owned(),
                session_token: input["sessionToken"].as_str().map(str::to_owned),
                life: None,
            };
            let headers = input["signedHeaders"].as_object().unwrap();
            let mut headers: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
            headers.sort_unstable();
            let request = Request {
                region: text("region"),
                at: parse_der(text("amzDate").replace('T', "").as_bytes()).unwrap(),
                headers: &headers,
                expires: input["expires"].as_u64().map(|seconds| seconds.try_into().unwrap()),
            };
            let url = format!("wss://{}{PATH}?{}", text("host"), request.query(&credentials));
            assert_eq!(url, case["expect"]["url"], "{}", case["id"]);
        }
    }
}

//! The envelope of DSSE 1.0 (<https://github.com/secure-systems-lab/dsse>): a payload, its type, and signatures over
//! both. Nothing in here says that any of the signatures is worth something.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{KeyError, Refusal, SigningKey, Statement};

pub const PAYLOAD_TYPE: &str = "application/vnd.fleethand.release+json";

/// A statement is some hundred bytes, and a job document has at most 32 KiB.
const MAX_PAYLOAD: usize = 16 * 1024;
/// Each may have to be tried with each key.
const MAX_SIGNATURES: usize = 16;
const MAX_SIGNATURE: usize = 128;
const MAX_NAME: usize = 256;

#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Says which key to try, and nothing that anybody may rely on. Empty: every key.
    pub(crate) keyid: String,
    pub(crate) sig: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("it is not a DSSE envelope: {0}")]
    Shape(String),
    #[error("{member} is not base64")]
    Base64 { member: &'static str },
    #[error("{what} is {found}, and may be {limit}")]
    TooMuch { what: &'static str, found: usize, limit: usize },
}

/// As it is written. Members that are not known are ignored, as DSSE wants it: nobody signed them, and nothing
/// depends on them. A member that is there twice is an error of serde's.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    keyid: String,
    sig: String,
}

impl Envelope {
    /// A statement that nobody has signed yet.
    pub fn of(statement: &Statement) -> Result<Self, Refusal> {
        let payload = statement.to_json()?;
        Ok(Self { payload, payload_type: PAYLOAD_TYPE.to_owned(), signatures: Vec::new() })
    }

    /// Adds a signature, or renews that of the same key.
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), KeyError> {
        let keyid = key.public().id();
        let sig = key.sign(&self.signed_bytes())?;
        self.signatures.retain(|signature| signature.keyid != keyid);
        if self.signatures.len() == MAX_SIGNATURES {
            return Err(KeyError::TooMuch { what: "signatures", limit: MAX_SIGNATURES });
        }
        self.signatures.push(Signature { keyid, sig });
        Ok(())
    }

    /// Reads the text of an envelope.
    pub fn parse(text: &[u8]) -> Result<Self, EnvelopeError> {
        serde_json::from_slice::<Wire>(text).map_err(shape)?.try_into()
    }

    /// Reads an envelope that is a member of a document.
    pub fn from_value(value: &serde_json::Value) -> Result<Self, EnvelopeError> {
        if !value.is_object() {
            return Err(EnvelopeError::Shape("expected an object".to_owned()));
        }
        Wire::deserialize(value).map_err(shape)?.try_into()
    }

    pub fn key_ids(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|signature| signature.keyid.as_str())
    }

    /// What is in it, verified by nobody: for the maker, who has to see what is to be signed.
    pub fn unverified(&self) -> Result<Statement, Refusal> {
        Statement::parse(&self.payload_type, &self.payload)
    }

    pub(crate) fn payload_type(&self) -> &str {
        &self.payload_type
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(crate) fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// What a signature is over: DSSE's pre-authentication encoding. The lengths in it leave one way to read it.
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        let (kind, body) = (&self.payload_type, &self.payload);
        let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Envelope({} bytes, {} signatures)", self.payload.len(), self.signatures.len())
    }
}

impl TryFrom<Wire> for Envelope {
    type Error = EnvelopeError;

    fn try_from(wire: Wire) -> Result<Self, EnvelopeError> {
        at_most("the length of payloadType", wire.payload_type.len(), MAX_NAME)?;
        at_most("the number of signatures", wire.signatures.len(), MAX_SIGNATURES)?;
        let payload = decode("payload", &wire.payload, MAX_PAYLOAD)?;
        let signatures = wire.signatures.into_iter().map(Signature::try_from).collect::<Result<_, _>>()?;
        Ok(Self { payload, payload_type: wire.payload_type, signatures })
    }
}

impl TryFrom<WireSignature> for Signature {
    type Error = EnvelopeError;

    fn try_from(wire: WireSignature) -> Result<Self, EnvelopeError> {
        at_most("the length of a keyid", wire.keyid.len(), MAX_NAME)?;
        Ok(Self { sig: decode("sig", &wire.sig, MAX_SIGNATURE)?, keyid: wire.keyid })
    }
}

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), EnvelopeError> {
    if found > limit { Err(EnvelopeError::TooMuch { what, found, limit }) } else { Ok(()) }
}

/// Either alphabet, as DSSE demands of whoever verifies.
fn decode(member: &'static str, text: &str, limit: usize) -> Result<Vec<u8>, EnvelopeError> {
    // Before anything is decoded: four characters make three bytes.
    at_most(member, text.len(), limit.div_ceil(3) * 4)?;
    let url_safe = text.contains(['-', '_']);
    let engine = if url_safe { &URL_SAFE_PAD_INDIFFERENT } else { &STANDARD_PAD_INDIFFERENT };
    engine.decode(text).map_err(|_| EnvelopeError::Base64 { member })
}

/// Without what serde quotes: somebody may have put a signed URL there.
fn shape(error: serde_json::Error) -> EnvelopeError {
    let said = error.to_string();
    EnvelopeError::Shape(match (said.split_once('"'), said.rsplit_once('"')) {
        (Some((before, _)), Some((_, after))) => format!("{before}…{after}"),
        _ => said,
    })
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let signature =
            |one: &Signature| WireSignature { keyid: one.keyid.clone(), sig: STANDARD.encode(&one.sig) };
        let wire = Wire {
            payload: STANDARD.encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self.signatures.iter().map(signature).collect(),
        };
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_signed_is_the_pre_authentication_encoding_of_dsse() {
        let value = json!({
            "payload": "aGVsbG8gd29ybGQ=", "payloadType": "http://example.com/HelloWorld", "signatures": [],
        });
        let envelope = Envelope::from_value(&value).unwrap();
        assert_eq!(envelope.signed_bytes(), b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        assert_eq!(serde_json::to_value(&envelope).unwrap(), value);
    }

    #[test]
    fn either_alphabet_of_base64_is_read_with_and_without_padding() {
        for text in ["-_8=", "-_8", "+/8=", "+/8"] {
            let value = json!({"payload": text, "payloadType": "t", "signatures": [{"sig": text}]});
            let envelope = Envelope::from_value(&value).unwrap();
            assert_eq!(
                (envelope.payload(), &envelope.signatures[0].sig[..]),
                (&[251, 255][..], &[251, 255][..])
            );
        }
    }

    #[test]
    fn what_is_no_envelope_is_named() {
        let one = json!({"sig": "AAAA", "keyid": "a"});
        let good = json!({"payload": "AAAA", "payloadType": "t", "signatures": [one], "extra": 1});
        assert!(Envelope::from_value(&good).is_ok());
        let cases = [
            ("payload", json!(7), "expected a string"),
            ("payload", json!("A"), "payload is not base64"),
            ("payload", json!("A=AA"), "payload is not base64"),
            ("payload", json!("A-/A"), "payload is not base64"),
            ("payload", json!("A".repeat(40_000)), "payload is 40000, and may be"),
            ("payloadType", json!("t".repeat(300)), "the length of payloadType is 300"),
            ("signatures", json!({}), "expected a sequence"),
            ("signatures", json!([{}]), "missing field `sig`"),
            ("signatures", json!([{"sig": "!"}]), "sig is not base64"),
            ("signatures", json!([{"sig": "A".repeat(200)}]), "sig is 200"),
            (
                "signatures",
                json!([{"sig": "AAAA", "keyid": "k".repeat(300)}]),
                "the length of a keyid is 300",
            ),
            ("signatures", json!(vec![json!({"sig": "AAAA"}); 17]), "the number of signatures is 17"),
        ];
        for (member, value, expected) in cases {
            let mut envelope = good.clone();
            envelope[member] = value;
            let error = Envelope::from_value(&envelope).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}, expected {expected}");
        }
        for value in [json!([]), json!("e"), json!(["AAAA", "t", []]), json!({})] {
            assert!(Envelope::from_value(&value).is_err(), "{value}");
        }
        let secret = json!({"payload": "AAAA", "payloadType": "t", "signatures": "https://x?a=\"secret\""});
        let said = Envelope::from_value(&secret).unwrap_err().to_string();
        assert!(said.ends_with("invalid type: string …, expected a sequence"), "{said}");
        let twice = br#"{"payload":"AAAA","payload":"AAAA","payloadType":"t","signatures":[]}"#;
        assert!(Envelope::parse(twice).unwrap_err().to_string().contains("duplicate"));
    }
}

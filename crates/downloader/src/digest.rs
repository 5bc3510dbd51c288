//! The digest of an artifact: `sha256:` and 64 hexadecimal digits.

use std::{fmt, str::FromStr};

const PREFIX: &str = "sha256:";

/// A SHA-256, written `sha256:<64 hex>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error(
        "a digest is written `sha256:` and 64 hexadecimal digits; there is no algorithm in front of a colon"
    )]
    NoAlgorithm,
    #[error("the digest's algorithm is `{0}`, only `sha256` is supported")]
    Algorithm(String),
    #[error("a sha256 has 64 hexadecimal digits, found {0} characters")]
    Length(usize),
    #[error("a sha256 has hexadecimal digits only, found `{found}` at position {position}")]
    NotHex { found: char, position: usize },
}

impl Digest {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn of(context: ring::digest::Context) -> Self {
        let mut bytes = [0; 32];
        // The context is only ever SHA-256: both sides have 32 bytes.
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    pub(crate) fn context() -> ring::digest::Context {
        ring::digest::Context::new(&ring::digest::SHA256)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let Some(digits) = text.strip_prefix(PREFIX) else {
            return Err(match text.split_once(':') {
                // Bounded: the text comes from a job document and ends up in a status.
                Some((algorithm, _)) => DigestError::Algorithm(algorithm.chars().take(32).collect()),
                None => DigestError::NoAlgorithm,
            });
        };
        if let Some((position, found)) = digits.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
            return Err(DigestError::NotHex { found, position });
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| DigestError::Length(digits.len()))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn what_is_parsed_is_printed_in_lower_case() {
        for digits in [ABC.to_owned(), ABC.to_uppercase()] {
            let digest: Digest = format!("sha256:{digits}").parse().unwrap();
            assert_eq!(digest.to_string(), format!("sha256:{ABC}"));
        }
    }

    #[test]
    fn it_is_the_sha256_of_fips_180() {
        let mut context = Digest::context();
        context.update(b"abc");
        assert_eq!(Digest::of(context).to_string(), format!("sha256:{ABC}"));
    }

    #[test]
    fn errors_name_what_was_wrong() {
        use DigestError::*;
        let cases = [
            (ABC.to_owned(), NoAlgorithm),
            (String::new(), NoAlgorithm),
            ("md5:900150983cd24fb0d6963f7d28e17f72".to_owned(), Algorithm("md5".to_owned())),
            (format!("SHA256:{ABC}"), Algorithm("SHA256".to_owned())),
            ("sha256:".to_owned(), Length(0)),
            ("sha256:abc".to_owned(), Length(3)),
            (format!("sha256:{ABC}00"), Length(66)),
            (format!("sha256: {ABC}"), NotHex { found: ' ', position: 0 }),
            (format!("sha256:{}g", &ABC[1..]), NotHex { found: 'g', position: 63 }),
            (format!("sha256:{}é", &ABC[2..]), NotHex { found: 'é', position: 62 }),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Digest>(), Err(expected), "{text}");
        }
    }
}

//! From when until when a certificate is valid: the one thing that is read of X.509 here, and that rustls does not tell.

use std::time::SystemTime;

use crate::calendar;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

const INTEGER: u8 = 0x02;
#[cfg(feature = "pkcs11")]
const BIT_STRING: u8 = 0x03;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, in which a certificate of version 2 or 3 has its version.
const VERSION: u8 = 0xa0;

impl Validity {
    /// Certificate ::= { tbs { [version], serial, algorithm, issuer, validity { notBefore, notAfter }, … }, … }
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let mut certificate = Reader(Reader(certificate).expect(SEQUENCE)?);
        let mut tbs = Reader(certificate.expect(SEQUENCE)?);
        if tbs.0.first() == Some(&VERSION) {
            tbs.expect(VERSION)?;
        }
        tbs.expect(INTEGER)?;
        tbs.expect(SEQUENCE)?;
        tbs.expect(SEQUENCE)?;
        let mut validity = Reader(tbs.expect(SEQUENCE)?);
        Some(Self { not_before: validity.time()?, not_after: validity.time()? })
    }
}

/// The public key: its algorithm, and its bits as they stand.
#[cfg(feature = "pkcs11")]
pub(crate) fn public_key(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut certificate = Reader(Reader(certificate).expect(SEQUENCE)?);
    let mut tbs = Reader(certificate.expect(SEQUENCE)?);
    if tbs.0.first() == Some(&VERSION) {
        tbs.expect(VERSION)?;
    }
    tbs.expect(INTEGER)?;
    // The signature's algorithm, the issuer, the validity, the subject.
    for _ in 0..4 {
        tbs.expect(SEQUENCE)?;
    }
    let mut key = Reader(tbs.expect(SEQUENCE)?);
    let algorithm = key.expect(SEQUENCE)?;
    // No bit of the last byte is unused.
    let bits = key.expect(BIT_STRING)?.strip_prefix(&[0])?;
    Some((algorithm, bits))
}

/// DER, element by element.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    fn time(&mut self) -> Option<SystemTime> {
        let (tag, text) = self.next()?;
        let length = match tag {
            UTC_TIME => 13,
            GENERALIZED_TIME => 15,
            _ => return None,
        };
        (text.len() == length).then(|| calendar::parse_der(text))?
    }

    /// Tag and content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            // The long form: so many bytes of length. Four are more than any file.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's head, with everything that is not looked at left empty.
    fn certificate(version: &[u8], validity: &[u8]) -> Vec<u8> {
        let element = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
        let rest = [element(INTEGER, &[1]), element(SEQUENCE, &[]), element(SEQUENCE, &[])].concat();
        let tbs = [version, &rest, &element(SEQUENCE, validity)].concat();
        element(SEQUENCE, &element(SEQUENCE, &tbs))
    }

    const YEAR_2026: &[u8] = b"\x17\x0d260101000000Z\x18\x0f20270101000000Z";

    #[test]
    fn both_versions_and_both_forms_of_time_are_read_and_nothing_else() {
        let read = |version: &[u8], validity: &[u8]| {
            let found = Validity::of(&certificate(version, validity))?;
            Some((crate::utc(found.not_before), crate::utc(found.not_after)))
        };
        let expected = Some(("2026-01-01T00:00:00Z".to_owned(), "2027-01-01T00:00:00Z".to_owned()));
        assert_eq!(read(b"", YEAR_2026), expected);
        assert_eq!(read(b"\xa0\x03\x02\x01\x02", YEAR_2026), expected);
        for wrong in [&b""[..], b"\x17\x0d260101000000Z", b"\x17\x0f20260101000000Z\x17\x0d260101000000Z"] {
            assert_eq!(read(b"", wrong), None);
        }
    }

    /// The file is the device's own, and still nothing that it may hold ends the process.
    #[test]
    fn what_is_no_certificate_is_none_whatever_it_is() {
        let good = certificate(b"\xa0\x03\x02\x01\x02", YEAR_2026);
        for length in 0..good.len() {
            assert_eq!(Validity::of(&good[..length]), None);
        }
        let mut rng = fastrand::Rng::with_seed(9);
        for _ in 0..20_000 {
            let mut spoiled = good.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..spoiled.len());
                spoiled[at] = rng.u8(..);
            }
            let _ = Validity::of(&spoiled);
        }
        assert_eq!(Validity::of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(Validity::of(&[0x30, 0x80]), None);
    }
}

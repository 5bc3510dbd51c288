//! In place of `token.rs` where the feature `pkcs11` is off: says so.

use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;

use super::{Problem, Uri};

pub(super) fn certified_key(_: Uri, _: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, Problem> {
    Err(Problem::NoTokens)
}

pub(super) fn try_key(_: Uri, _: &[CertificateDer<'_>]) -> Result<(), Problem> {
    Err(Problem::NoTokens)
}

//! A key that never leaves the device, and the request to certify it.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};

/// Made here, and kept in a file.
pub struct Made {
    /// PEM, PKCS#8.
    pub private_key: String,
    pub request: String,
}

pub fn make() -> Result<Made, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok(Made { request: request(&key)?, private_key: key.serialize_pem() })
}

/// Whatever holds the key: it may be a chip that only signs. AWS takes the public key from it, and names the certificate
/// by itself.
pub fn request(key: &impl SigningKey) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "fleethand");
    params.serialize_request(key)?.pem()
}

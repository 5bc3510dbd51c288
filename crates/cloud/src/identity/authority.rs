//! The certificate authority: its own root, the server's certificate, the certificates of things.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// What a device on this machine, or in a virtual machine on it (10.0.2.2 is QEMU's name for the host), calls us.
const SERVER_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "10.0.2.2"];

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

pub(crate) struct Issued {
    pub(crate) certificate_pem: String,
    pub(crate) certificate_der: Vec<u8>,
}

impl Authority {
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = dated(named("fleethand-cloud root"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate_pem, key_pem })
    }

    pub(crate) fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, KeyPair::from_pem(key_pem)?)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned(), key_pem: key_pem.to_owned() })
    }

    /// A fresh certificate and key for the listeners, each time the cloud starts.
    pub(crate) fn server(
        &self,
        names: &[String],
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
        let names: Vec<_> =
            SERVER_NAMES.iter().map(|name| (*name).to_owned()).chain(names.iter().cloned()).collect();
        let key = KeyPair::generate()?;
        let mut params = dated(CertificateParams::new(names)?);
        params.distinguished_name = common_name("fleethand-cloud");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }

    /// A certificate with a fresh key, whose PEM is the second value and is kept nowhere.
    pub(crate) fn issue(&self) -> Result<(Issued, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = for_client(named("AWS IoT Certificate")).signed_by(&key, &self.issuer)?;
        Ok((issued(&certificate), key.serialize_pem()))
    }

    pub(crate) fn issue_from_request(&self, pem: &str) -> Result<Issued, rcgen::Error> {
        let request = CertificateSigningRequestParams::from_pem(pem)?;
        // Of what the request asks for, only its subject and its key count: it may not make itself an authority.
        let mut params = for_client(CertificateParams::default());
        params.distinguished_name = request.params.distinguished_name.clone();
        Ok(issued(&params.signed_by(&KeyOf(&request.public_key), &self.issuer)?))
    }
}

/// The key of a request. rcgen tells its curve by the digest that the request is signed with, but `openssl req` signs with
/// SHA-256 whatever the curve.
struct KeyOf<'a>(&'a rcgen::PublicKey);

impl PublicKeyData for KeyOf<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        let signed = PublicKeyData::algorithm(self.0);
        if ![&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384].contains(&signed) {
            return signed;
        }
        // One byte, and two coordinates of 48.
        if self.der_bytes().len() == 97 { &PKCS_ECDSA_P384_SHA384 } else { &PKCS_ECDSA_P256_SHA256 }
    }
}

fn issued(certificate: &rcgen::Certificate) -> Issued {
    Issued { certificate_pem: certificate.pem(), certificate_der: certificate.der().to_vec() }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params
}

fn for_client(params: CertificateParams) -> CertificateParams {
    let mut params = dated(params);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// As AWS dates its own; from long ago, because a device's clock may be wrong before it has a network.
fn dated(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params
}

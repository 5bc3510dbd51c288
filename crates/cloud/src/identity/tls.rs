//! What a TLS handshake is checked against. The registry is what makes a certificate good: one that our
//! authority signed but that is inactive, revoked or deleted does not get in, as at AWS.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};

use super::Identity;

/// ALPN of MQTT with a client certificate on AWS's port 443.
pub(crate) const MQTT_CA: &[u8] = b"x-amzn-mqtt-ca";

/// Which of AWS's ports a listener is like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// 8883: MQTT whatever the client says, and never without a certificate.
    Mqtt,
    /// 443: HTTP unless the client says otherwise, and a certificate only where one is asked for later.
    Web,
}

impl Port {
    fn alpn(self) -> [&'static [u8]; 2] {
        match self {
            // And that of a custom authorizer.
            Self::Mqtt => [MQTT_CA, b"mqtt"],
            Self::Web => [MQTT_CA, b"http/1.1"],
        }
    }
}

pub(super) fn server_config(
    identity: Identity,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    port: Port,
    require_sni: bool,
) -> Result<Arc<ServerConfig>, super::Error> {
    let provider = Arc::new(ring::default_provider());
    let certified = CertifiedKey::from_der(vec![certificate], key, &provider)?;
    let clients = Registered { identity, port, algorithms: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(clients))
        .with_cert_resolver(Arc::new(OneCertificate { certified: Arc::new(certified), require_sni }));
    config.alpn_protocols = port.alpn().map(<[u8]>::to_vec).to_vec();
    // No resumption: a resumed session would not be looked up in the registry again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct OneCertificate {
    certified: Arc<CertifiedKey>,
    require_sni: bool,
}

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        (!self.require_sni || hello.server_name().is_some()).then(|| Arc::clone(&self.certified))
    }
}

struct Registered {
    identity: Identity,
    port: Port,
    algorithms: WebPkiSupportedAlgorithms,
}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registered")
    }
}

impl ClientCertVerifier for Registered {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.port == Port::Mqtt
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.identity.principal(end_entity) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

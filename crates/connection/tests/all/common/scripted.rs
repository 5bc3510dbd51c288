use std::sync::Arc;

use connection::tls::IdentityFiles;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::pki::Pki;

pub const CONNACK: &[u8] = &[0x20, 2, 0, 0];
/// Grants the one filter of [`super::settings`].
pub const SUBACK: &[u8] = &[0x90, 3, 0, 1, 0];

/// A TLS server whose peer is a test that reads and writes MQTT by hand.
pub struct Scripted {
    pub port: u16,
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

pub struct Peer(pub TlsStream<TcpStream>);

impl Scripted {
    pub async fn start(pki: &Pki) -> Self {
        Self::with_versions(pki, rustls::ALL_VERSIONS).await
    }

    /// One that asks nobody for a certificate, and speaks HTTP as well.
    pub async fn web(pki: &Pki) -> Self {
        Self::build(pki, rustls::ALL_VERSIONS, false).await
    }

    pub async fn with_versions(pki: &Pki, versions: &[&'static SupportedProtocolVersion]) -> Self {
        Self::build(pki, versions, true).await
    }

    async fn build(pki: &Pki, versions: &[&'static SupportedProtocolVersion], mutual: bool) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.path("ca.pem")).unwrap()).unwrap();
        let IdentityFiles { certificate, private_key, .. } = pki.identity("server");
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let verifier =
            if mutual { verifier.build().unwrap() } else { WebPkiClientVerifier::no_client_auth() };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_file(certificate).unwrap()],
                PrivateKeyDer::from_pem_file(private_key).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"x-amzn-mqtt-ca".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            port: listener.local_addr().unwrap().port(),
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        }
    }

    /// The next client, after its TLS handshake.
    pub async fn accept(&self) -> Peer {
        let (tcp, _) = self.listener.accept().await.unwrap();
        Peer(self.acceptor.accept(tcp).await.unwrap())
    }

    /// The next client, connected and subscribed.
    pub async fn accept_and_greet(&self) -> Peer {
        let mut peer = self.accept().await;
        assert_eq!(peer.packet().await.unwrap().0, 0x10, "CONNECT comes first");
        peer.say(CONNACK).await;
        assert_eq!(peer.packet().await.unwrap().0, 0x82, "then SUBSCRIBE");
        peer.say(SUBACK).await;
        peer
    }
}

impl Peer {
    pub async fn say(&mut self, bytes: &[u8]) {
        // A client that has heard enough may be gone already.
        let _ = self.0.write_all(bytes).await;
        let _ = self.0.flush().await;
    }

    /// First byte and body of the next packet, `None` at the end.
    pub async fn packet(&mut self) -> Option<(u8, Vec<u8>)> {
        let first = self.0.read_u8().await.ok()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.0.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }
}

/// A QoS 0 PUBLISH of less than 128 bytes.
pub fn publish(topic: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(2 + topic.len() + payload.len()).unwrap();
    assert!(length < 128);
    let topic_length = u8::try_from(topic.len()).unwrap();
    [&[0x30, length, 0, topic_length], topic, payload].concat()
}

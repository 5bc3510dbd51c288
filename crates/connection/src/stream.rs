//! From a name to a stream that MQTT can be spoken on, whatever it goes through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::proxy::authority;
use crate::route::MQTT_CA;
use crate::{DisconnectCause, Route, Settings, Step, Transport};
#[cfg(feature = "websocket")]
use {
    crate::Signer,
    crate::calendar::utc,
    crate::sigv4::{PATH, Request},
    crate::websocket::{self, Refusal, UpgradeError},
    rustls::client::ResolvesClientCert,
    rustls::sign::CertifiedKey,
    std::time::SystemTime,
};

/// AWS ends a connection that is signed after this.
#[cfg(feature = "websocket")]
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a connection's life, when it is made anew.
#[cfg(feature = "websocket")]
const EARLIEST: f64 = 0.85;
#[cfg(feature = "websocket")]
const LATEST: f64 = 0.95;

/// What a session reads and writes, so that it need not know how its bytes travel.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream, and when it is to be given up for another one, if its end is known.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) ends: Option<Instant>,
}

pub(crate) async fn open(
    settings: &Settings,
    route: &Route,
    step: &mut Step,
) -> Result<Opened, DisconnectCause> {
    let port = route.port;
    let tls = match &route.transport {
        Transport::Tls => encrypt(settings, port, Arc::clone(&settings.tls), step).await?,
        Transport::Alpn => {
            let mut tls = ClientConfig::clone(&settings.tls);
            tls.alpn_protocols = vec![MQTT_CA.to_vec()];
            encrypt(settings, port, Arc::new(tls), step).await?
        }
        #[cfg(feature = "websocket")]
        Transport::WebSocket(signer) => return upgraded(settings, port, signer, step).await,
    };
    Ok(Opened { stream: Box::new(tls), ends: None })
}

async fn encrypt(
    settings: &Settings,
    port: u16,
    tls: Arc<ClientConfig>,
    step: &mut Step,
) -> Result<TlsStream<TcpStream>, DisconnectCause> {
    let host = settings.endpoint.as_str();
    let server_name = ServerName::try_from(host.to_owned())
        .map_err(|_| DisconnectCause::InvalidEndpoint(host.to_owned()))?;
    let tcp = reach(settings, port, step).await?;
    // Requests are small and waited for: Nagle against delayed acknowledgements costs 40 ms each.
    tcp.set_nodelay(true).map_err(DisconnectCause::Broken)?;

    *step = Step::TlsHandshake;
    TlsConnector::from(tls).connect(server_name, tcp).await.map_err(DisconnectCause::from_io)
}

/// Signed with the time at which it is sent, for a signature is good for minutes.
#[cfg(feature = "websocket")]
async fn upgraded(
    settings: &Settings,
    port: u16,
    signer: &Signer,
    step: &mut Step,
) -> Result<Opened, DisconnectCause> {
    *step = Step::Credentials;
    let credentials = signer.credentials(settings).await.map_err(DisconnectCause::Credentials)?;
    *step = Step::Resolving;
    let tls = Arc::new(without_certificate(&settings.tls, &[b"http/1.1"]));
    let tls = encrypt(settings, port, tls, step).await?;

    *step = Step::Upgrade;
    let host = match port {
        443 => settings.endpoint.clone(),
        other => authority(&settings.endpoint, other),
    };
    let at = SystemTime::now();
    let request = Request { region: signer.region(), at, headers: &[("host", &host)], expires: None };
    let target = format!("{PATH}?{}", request.query(&credentials));
    let stream = websocket::open(tls, &host, &target).await.map_err(|refusal| {
        DisconnectCause::Upgrade(match refusal {
            Refusal::Status { status: 401 | 403, answer } => {
                UpgradeError::Signature { answer, region: signer.region().to_owned(), now: utc(at) }
            }
            Refusal::Status { answer, .. } => UpgradeError::Refused { answer },
            Refusal::Error(error) => error,
        })
    })?;
    let life = credentials.lasts(at).map_or(DAY, |lasts| lasts.min(DAY));
    // A fleet that began at one moment does not come again at one moment.
    let share = EARLIEST + (LATEST - EARLIEST) * fastrand::f64();
    Ok(Opened { stream: Box::new(stream), ends: Some(Instant::now() + life.mul_f64(share)) })
}

/// The same trust, and nobody is told who this is: where a signature says it, a certificate would say it twice.
#[cfg(feature = "websocket")]
pub(crate) fn without_certificate(tls: &ClientConfig, alpn: &[&[u8]]) -> ClientConfig {
    let mut tls = tls.clone();
    tls.client_auth_cert_resolver = Arc::new(NoCertificate);
    tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    tls
}

#[cfg(feature = "websocket")]
#[derive(Debug)]
struct NoCertificate;

#[cfg(feature = "websocket")]
impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// A TCP connection that ends at the endpoint. Behind a proxy it is the proxy that resolves its name.
async fn reach(settings: &Settings, port: u16, step: &mut Step) -> Result<TcpStream, DisconnectCause> {
    let host = settings.endpoint.as_str();
    let proxy =
        settings.proxy.of(host, port).map_err(|error| DisconnectCause::proxy("of the environment", error))?;
    let Some(proxy) = proxy else { return dial(host, port, settings.connect_timeout, step).await };
    let mut tcp = dial(proxy.host(), proxy.port(), settings.connect_timeout, step).await?;
    *step = Step::Proxy;
    let through = proxy.tunnel(&mut tcp, host, port).await;
    through.map_err(|error| DisconnectCause::proxy(authority(proxy.host(), proxy.port()), error))?;
    Ok(tcp)
}

async fn dial(host: &str, port: u16, limit: Duration, step: &mut Step) -> Result<TcpStream, DisconnectCause> {
    let addresses: Vec<_> = lookup_host((host, port))
        .await
        .map_err(|source| DisconnectCause::Resolve { host: host.to_owned(), source })?
        .collect();
    *step = Step::Connecting;
    dial_each(&addresses, limit).await
}

/// Tries one address after the other, each with its share of the time: a black hole among them (IPv6 on a network
/// that only pretends to have it) must not eat what the others need.
async fn dial_each(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, DisconnectCause> {
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut outcome = Err(DisconnectCause::Broken(std::io::ErrorKind::AddrNotAvailable.into()));
    for address in addresses {
        let attempt = timeout(limit / count, TcpStream::connect(address)).await;
        match attempt.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(tcp) => return Ok(tcp),
            Err(source) => {
                outcome = Err(DisconnectCause::Unreachable { address: address.to_string(), source });
            }
        }
    }
    outcome
}

//! From a name to a stream that MQTT can be spoken on, whatever it goes through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::proxy::authority;
use crate::route::MQTT_CA;
use crate::{DisconnectCause, Route, Settings, Step, Transport};

/// What a session reads and writes, so that it need not know how its bytes travel.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) async fn open(
    settings: &Settings,
    route: &Route,
    step: &mut Step,
) -> Result<Box<dyn Stream>, DisconnectCause> {
    match route.transport {
        Transport::Tls => Ok(Box::new(encrypt(settings, route.port, None, step).await?)),
        Transport::Alpn => Ok(Box::new(encrypt(settings, route.port, Some(MQTT_CA), step).await?)),
    }
}

async fn encrypt(
    settings: &Settings,
    port: u16,
    alpn: Option<&[u8]>,
    step: &mut Step,
) -> Result<TlsStream<TcpStream>, DisconnectCause> {
    let host = settings.endpoint.as_str();
    let server_name = ServerName::try_from(host.to_owned())
        .map_err(|_| DisconnectCause::InvalidEndpoint(host.to_owned()))?;
    let tcp = reach(settings, port, step).await?;
    // Requests are small and waited for: Nagle against delayed acknowledgements costs 40 ms each.
    tcp.set_nodelay(true).map_err(DisconnectCause::Broken)?;

    *step = Step::TlsHandshake;
    let connector = TlsConnector::from(with_alpn(&settings.tls, alpn));
    connector.connect(server_name, tcp).await.map_err(DisconnectCause::from_io)
}

fn with_alpn(tls: &Arc<ClientConfig>, alpn: Option<&[u8]>) -> Arc<ClientConfig> {
    let Some(alpn) = alpn else { return Arc::clone(tls) };
    let mut tls = ClientConfig::clone(tls);
    tls.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(tls)
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

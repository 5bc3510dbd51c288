//! The listeners: TLS with client certificates, and plain for this machine.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::client::Peer;
use super::connection;
use super::{Embedded, Service};
use crate::identity;

pub(super) async fn serve(
    broker: &Arc<Embedded>,
    service: Arc<dyn Service>,
    mqtts: TcpListener,
    mqtt: Option<TcpListener>,
) -> Result<(), identity::Error> {
    let tls = TlsAcceptor::from(broker.identity.tls(broker.limits.require_sni)?);
    let mut clock = interval(Duration::from_secs(1));
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Dropped with this future, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = mqtts.accept() => if let Some((stream, address)) = checked(accepted).await {
                connections.spawn(secure(stream, address, tls.clone(), Arc::clone(broker), Arc::clone(&service)));
            },
            accepted = accept(mqtt.as_ref()) => if let Some((stream, address)) = checked(accepted).await {
                let peer = Peer { address: address.ip(), principal: None, ends: None };
                connections.spawn(connection::run(stream, peer, Arc::clone(broker), Arc::clone(&service)));
            },
            Some(ended) = connections.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a connection's task failed");
            },
            _ = clock.tick() => {
                let now = broker.now();
                broker.state().tick(now);
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// A failed accept, of too many open files for example, is no reason to end, nor to spin.
async fn checked(accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, SocketAddr)> {
    match accepted {
        Ok((stream, address)) => {
            // Answers are small; waiting to fill a segment costs a delayed acknowledgement each.
            let _ = stream.set_nodelay(true);
            Some((stream, address))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn secure(
    stream: TcpStream,
    address: SocketAddr,
    tls: TlsAcceptor,
    broker: Arc<Embedded>,
    service: Arc<dyn Service>,
) {
    let stream = match timeout(broker.limits.handshake, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let Some(principal) = certificate.and_then(|der| broker.identity.principal(der)) else { return };
    let peer = Peer { address: address.ip(), principal: Some(principal), ends: None };
    connection::run(stream, peer, broker, service).await;
}

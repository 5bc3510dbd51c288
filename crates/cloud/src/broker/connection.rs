//! One connection, from its CONNECT to its end: reads for the client, writes to it, and watches the time.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{Client, Peer};
use super::close::Close;
use super::limits::{Limits, WRITE_TIMEOUT};
use super::meter::Direction;
use super::wire::{FAREWELL, Wire};
use super::{Embedded, Service};

/// Serves one connection until it ends.
pub(super) async fn run(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
    broker: Arc<Embedded>,
    service: Arc<dyn Service>,
) {
    let opening = Wire::open(stream, broker.now().cloud);
    let Ok(Some((mut wire, connect))) = timeout(broker.limits.handshake, opening).await else { return };
    let admitted = connect
        .and_then(|connect| Client::admit(connect, peer, broker, service, &mut wire.codec, &mut wire.output));
    match admitted {
        Err(refusal) => {
            tracing::debug!(?refusal, "CONNECT refused");
            wire.codec.refuse(refusal, &mut wire.output);
        }
        Ok(mut client) => {
            let close = serve(&mut wire, &mut client).await;
            if close.by_client() {
                tracing::debug!(client_id = %client.client_id, "the client disconnects");
            } else {
                tracing::info!(client_id = %client.client_id, ?close, "disconnecting");
            }
            client.leave(close);
            wire.codec.disconnect(close, &mut wire.output);
        }
    }
    wire.close().await;
}

async fn serve(wire: &mut Wire<impl AsyncRead + AsyncWrite + Unpin>, client: &mut Client) -> Close {
    // AWS asks clients to wait for the CONNACK. Whether one that does not is noticed would be chance here, so none is
    // blamed for it.
    if let Err(close) = handle_all(wire, client) {
        return close;
    }
    let (id, broker) = (client.id, Arc::clone(&client.broker));
    let replay = || broker.state().replay(id, broker.now()).then(next_second);
    let mut replays = replay();
    let mut heard = Instant::now();
    let mut throttle = Throttle::new(&broker.limits);
    loop {
        take_deliveries(wire, client);
        if !wire.output.is_empty() {
            if client.has_ended() {
                wire.output.clear();
                return Close::SignatureEnded;
            }
            if let Err(close) = write(wire, client).await {
                // Half of a packet may be out: nothing that follows would be understood.
                wire.output.clear();
                return close;
            }
            continue;
        }
        if let Some(close) = client.outbox.closing() {
            return close;
        }
        let paused = throttle.paused();
        let silent_at = heard + client.patience;
        let wake_at = [replays, paused].into_iter().flatten().fold(silent_at, Instant::min);
        tokio::select! {
            () = client.outbox.changed() => {}
            read = wire.read(), if paused.is_none() => match read {
                Ok(0) | Err(_) => return Close::Lost,
                Ok(_) if client.has_ended() => return Close::SignatureEnded,
                Ok(bytes) => {
                    throttle.count(bytes);
                    match handle_all(wire, client) {
                        Ok(0) => {}
                        Ok(_) => heard = Instant::now(),
                        Err(close) => return close,
                    }
                }
            },
            () = sleep_until(wake_at) => {
                if Instant::now() >= silent_at {
                    return Close::KeepAlive;
                }
                if replays.is_some_and(|at| at <= Instant::now()) {
                    replays = replay();
                }
            }
        }
    }
}

/// How many packets there were.
fn handle_all<S>(wire: &mut Wire<S>, client: &mut Client) -> Result<usize, Close>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut handled = 0;
    while let Some(packet) = wire.packet()? {
        client.handle(packet, &mut wire.codec, &mut wire.output)?;
        handled += 1;
    }
    Ok(handled)
}

fn take_deliveries(wire: &mut Wire<impl AsyncRead + AsyncWrite + Unpin>, client: &Client) {
    while !wire.is_full() {
        let Some(next) = client.outbox.pop() else { return };
        let now = client.broker.now();
        let sent =
            wire.codec.publish(&next.message, next.packet_id, next.retain, now.cloud, &mut wire.output);
        if sent {
            let (topic, payload) = (&next.message.topic, next.message.payload.len());
            client.broker.meter.publish(&client.client_id, Direction::ToDevice, topic, payload);
        }
        // Larger than the client takes: MQTT 5 has it discarded, as if it had been delivered.
        if let (false, Some(packet_id)) = (sent, next.packet_id) {
            client.broker.state().acknowledge(client.id, packet_id, now);
        }
    }
}

/// A client that does not read holds up nobody but itself, and not for ever.
async fn write(wire: &mut Wire<impl AsyncRead + AsyncWrite + Unpin>, client: &Client) -> Result<(), Close> {
    let abandoned = async {
        let close = client.outbox.closed().await;
        sleep(FAREWELL).await;
        close
    };
    tokio::select! {
        biased;
        written = wire.flush() => written.map_err(|_| Close::Lost),
        close = abandoned => Err(close),
        () = sleep(WRITE_TIMEOUT) => Err(Close::SlowReader),
    }
}

fn next_second() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

/// Bytes within the current second; beyond the limit, reading waits for the next one.
struct Throttle {
    limit: Option<usize>,
    until: Instant,
    bytes: usize,
}

impl Throttle {
    fn new(limits: &Limits) -> Self {
        Self { limit: limits.bytes_per_second, until: next_second(), bytes: 0 }
    }

    fn count(&mut self, bytes: usize) {
        if Instant::now() >= self.until {
            (self.until, self.bytes) = (next_second(), 0);
        }
        self.bytes += bytes;
    }

    /// When reading may go on, if it has to wait.
    fn paused(&self) -> Option<Instant> {
        let over = self.limit.is_some_and(|limit| self.bytes >= limit);
        (over && Instant::now() < self.until).then_some(self.until)
    }
}

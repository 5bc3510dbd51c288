//! The helper's side: one client at a time, one call at a time. What is not understood ends the connection, and nothing
//! else; a client that is gone, or breaks the rules, stops what it had ordered.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::frame::{Frame, LineError, Reader, encode, send_json, send_message, send_pieces};
use super::{Call, Failure, PROTOCOL, ToClient, ToServer};
use crate::device::{Device, Percent};
use crate::{DeviceError, Halt, HostDevice, HostSettings};

/// A client says at once what it speaks.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Where no connection can be accepted: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Service {
    pub settings: HostSettings,
    /// Who may ask, besides root.
    pub user: u32,
    /// After so much time without a call it ends. `None`: never.
    pub idle: Option<Duration>,
}

/// How a connection ended in good order.
enum Ended {
    Left,
    Idle,
    Stopped,
}

/// Serves until it was idle for long enough, or `stop`. `lock` is held while there is a client; an error of it is a
/// sentence for the client.
pub async fn serve<L>(
    listener: &UnixListener,
    service: &Service,
    lock: impl Fn() -> Result<L, String>,
    stop: impl Future<Output = ()>,
) {
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!(%error, "no connection can be accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            },
            () = idle(service.idle) => return tracing::info!("idle"),
            () = &mut stop => return,
        };
        let served = Connection::serve(stream, listener, service, &lock, stop.as_mut()).await;
        match served {
            Ok(Ended::Left) => tracing::debug!("the client has left"),
            Ok(Ended::Idle) => return tracing::info!("idle"),
            Ok(Ended::Stopped) => return,
            Err(error) => tracing::warn!(%error, "the connection was closed"),
        }
    }
}

struct Connection<'s> {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    device: HostDevice,
    listener: &'s UnixListener,
}

impl<'s> Connection<'s> {
    async fn serve<L>(
        stream: UnixStream,
        listener: &'s UnixListener,
        service: &Service,
        lock: impl Fn() -> Result<L, String>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Ended, LineError> {
        let found = stream.peer_cred()?.uid();
        if found != 0 && found != service.user {
            tracing::warn!(found, expected = service.user, "a user asks who may not");
            refuse(&stream, &format!("user {found} may not ask here"));
            return Ok(Ended::Left);
        }
        let (reader, mut writer) = stream.into_split();
        let mut reader = Reader::new(reader);
        let spoken = tokio::select! {
            hello = timeout(HELLO_TIMEOUT, reader.message()) => match hello {
                Ok(hello) => hello?,
                Err(_) => return Err(LineError::Unexpected("no greeting came")),
            },
            () = &mut stop => return Ok(Ended::Stopped),
        };
        let ToServer::<Call>::Hello { protocol } = spoken else {
            return Err(LineError::Unexpected("something else came where a greeting was expected"));
        };
        if protocol != PROTOCOL {
            tracing::warn!(found = protocol, expected = PROTOCOL, "a client speaks another protocol");
            send_message(&mut writer, &ToClient::<()>::Hello { protocol: PROTOCOL }).await?;
            return Ok(Ended::Left);
        }
        let _lock = match lock() {
            Ok(lock) => lock,
            Err(why) => {
                tracing::warn!(why, "a client is refused");
                send_message(&mut writer, &ToClient::<()>::Refused(why)).await?;
                return Ok(Ended::Left);
            }
        };
        send_message(&mut writer, &ToClient::<()>::Hello { protocol: PROTOCOL }).await?;
        let device = HostDevice::new(service.settings.clone());
        Self { reader, writer, device, listener }.run(service.idle, stop).await
    }

    async fn run(
        mut self,
        idle_after: Option<Duration>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Ended, LineError> {
        loop {
            let frame = tokio::select! {
                frame = self.reader.next() => frame?,
                // A transfer may wait for the network longer than that.
                () = idle(idle_after), if !self.device.is_receiving() => return Ok(Ended::Idle),
                () = &mut stop => return Ok(Ended::Stopped),
                never = refuse_others(self.listener) => match never {},
            };
            match frame {
                None => return Ok(Ended::Left),
                Some(Frame::Piece(bytes)) => {
                    let reply = Reply::of(self.device.write(bytes).await);
                    reply.send(&mut self.writer).await?;
                }
                Some(Frame::Message(json)) => match serde_json::from_slice(&json)? {
                    ToServer::Call(call) => {
                        if let Some(ended) = self.answer(call, stop.as_mut()).await? {
                            return Ok(ended);
                        }
                    }
                    // For a call that has ended meanwhile.
                    ToServer::Halt(_) => {}
                    ToServer::Hello { .. } => {
                        return Err(LineError::Unexpected("a second greeting"));
                    }
                },
            }
        }
    }

    /// Whatever happens meanwhile, the call is not dropped but told to stop, and waited for. It is answered only where it
    /// was not this end that stopped it: for the client the helper is lost then.
    async fn answer(
        &mut self,
        call: Call,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Option<Ended>, LineError> {
        let Self { reader, writer, device, listener } = self;
        let halt = Halt::default();
        let (percent, mut says) = watch::channel(0);
        let mut ended = None;
        let work = perform(device, call, &halt, &percent);
        tokio::pin!(work);
        let reply = loop {
            let open = ended.is_none();
            let event = tokio::select! {
                reply = &mut work => break reply,
                frame = reader.next(), if open => while_it_runs(frame, &halt),
                Ok(()) = says.changed(), if open => {
                    let done = *says.borrow_and_update();
                    send_message(writer, &ToClient::<()>::Percent(done)).await.map(|()| None)
                }
                () = &mut stop, if open => Ok(Some(Ended::Stopped)),
                never = refuse_others(listener), if open => match never {},
            };
            if !matches!(event, Ok(None)) {
                halt.stop();
                ended = Some(event);
            }
        };
        match ended {
            Some(ended) => ended,
            None => reply.send(writer).await.map(|()| None),
        }
    }
}

/// What a client may say while its call runs: that it is to stop.
fn while_it_runs(frame: Result<Option<Frame>, LineError>, halt: &Halt) -> Result<Option<Ended>, LineError> {
    match frame? {
        None => Ok(Some(Ended::Left)),
        Some(Frame::Message(json)) => match serde_json::from_slice::<ToServer<Call>>(&json)? {
            ToServer::Halt(kind) => {
                halt.halt(kind);
                Ok(None)
            }
            _ => Err(LineError::Unexpected("a call in the middle of another")),
        },
        Some(Frame::Piece(_)) => Err(LineError::Unexpected("bytes in the middle of a call")),
    }
}

struct Reply {
    message: Result<Vec<u8>, serde_json::Error>,
    /// A configuration, where it was asked for.
    bytes: Bytes,
}

impl Reply {
    fn of<T: Serialize>(result: Result<T, DeviceError>) -> Self {
        let message = match result {
            Ok(done) => ToClient::Done(done),
            Err(error) => ToClient::Failed(Failure::from(&error)),
        };
        Self { message: serde_json::to_vec(&message), bytes: Bytes::new() }
    }

    async fn send(self, writer: &mut OwnedWriteHalf) -> Result<(), LineError> {
        send_json(writer, self.message?).await?;
        send_pieces(writer, self.bytes).await
    }
}

async fn perform(device: &mut HostDevice, call: Call, halt: &Halt, percent: &Percent) -> Reply {
    match call {
        Call::Boot => Reply::of(device.boot().await),
        Call::Installed => Reply::of(device.installed().await),
        Call::ReadConfig { name } => match device.read_config(&name).await {
            Ok(Some(bytes)) => {
                Reply { message: Reply::of(Ok(Some(bytes.len()))).message, bytes: bytes.into() }
            }
            other => Reply::of(other.map(|_| None::<usize>)),
        },
        Call::Admit { order } => Reply::of(device.admit(&order).await),
        Call::Begin { order } => Reply::of(device.begin(&order).await),
        Call::Reserve { total } => Reply::of(device.reserve(total).await),
        Call::Restart => Reply::of(device.restart().await),
        Call::Finish => Reply::of(device.finish().await),
        Call::Discard { target } => Reply::of(device.discard(&target).await),
        Call::DiscardAll => Reply::of(device.discard_all().await),
        Call::MayDisturb { question } => Reply::of(device.may_disturb(&question, halt).await),
        Call::Activate { change } => Reply::of(device.activate(&change, halt, percent).await),
        Call::Confirm { change } => Reply::of(device.confirm(&change, halt).await),
        Call::Commit { change } => Reply::of(device.commit(&change).await),
        Call::RollBack { change } => Reply::of(device.roll_back(&change).await),
        Call::Reboot => Reply::of(device.reboot(halt).await),
    }
}

async fn idle(after: Option<Duration>) {
    match after {
        Some(after) => sleep(after).await,
        None => std::future::pending().await,
    }
}

/// Two clients would work on one device beside each other.
async fn refuse_others(listener: &UnixListener) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => refuse(&stream, "another client is served at the moment"),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// As far as its buffer takes it: nobody is waited for.
fn refuse(stream: &UnixStream, why: &str) {
    let refused = ToClient::<()>::Refused(why.to_owned());
    if let Ok(frame) = encode(&refused) {
        let _ = stream.try_write(&frame);
    }
}

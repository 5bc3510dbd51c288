//! The device, as the process without privileges has it: every call goes over the socket.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout};

use super::frame::{Frame, LineError, Reader, next_piece, send_message, send_piece};
use super::{Call, Failure, PROTOCOL, ToClient, ToServer};
use crate::device::{
    Admitted, Before, Boot, Change, Device, Effect, Installed, Order, Percent, Question, RolledBack, Target,
};
use crate::{DeviceError, Halt};

/// A helper that ends each time in the middle of the same call does so because of it.
const MAX_ATTEMPTS: u32 = 3;
/// How long a helper that is not there is waited for in the middle of an operation.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// So many pieces of an artifact may be on their way without an answer: the helper writes while the next ones come.
const WINDOW: usize = 8;

pub struct RemoteDevice {
    socket: PathBuf,
    /// Only while nothing is asked: whoever drops a call in the middle leaves no answer for the next one.
    line: Option<Line>,
}

struct Line {
    reader: Reader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// Pieces that were not answered yet.
    unanswered: usize,
}

type Answered<T> = Result<Result<T, Failure>, LineError>;

impl RemoteDevice {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), line: None }
    }

    /// Returns when the helper is there, and says why it is not as long as it is not.
    pub async fn wait_for_helper(&mut self) {
        let (mut wait, mut said) = (FIRST_WAIT, String::new());
        while self.line.is_none() {
            match Line::connect(&self.socket).await {
                Ok(line) => self.line = Some(line),
                Err(problem) => {
                    if problem != said {
                        tracing::error!(socket = %self.socket.display(), problem, "waiting for the helper");
                        said = problem;
                    }
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    /// The line there is, or a new one.
    async fn line(&mut self) -> Result<Line, DeviceError> {
        if let Some(line) = self.line.take().filter(Line::is_open) {
            return Ok(line);
        }
        let (begun, mut wait) = (Instant::now(), FIRST_WAIT);
        loop {
            match Line::connect(&self.socket).await {
                Ok(line) => return Ok(line),
                Err(problem) if begun.elapsed() > PATIENCE => {
                    return Err(DeviceError::HelperUnreachable { path: self.socket.clone(), problem });
                }
                Err(problem) => tracing::debug!(problem, "waiting for the helper"),
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Asks what can be asked again when nobody knows how far it came: that is all but `reboot`, which has its own, and what
    /// belongs to a stream of bytes. After each loss it is as after a restart.
    async fn repeat<T>(
        &mut self,
        halt: Option<&Halt>,
        mut ask: impl AsyncFnMut(&mut Line) -> Answered<T>,
    ) -> Result<T, DeviceError> {
        for attempt in 1.. {
            let mut line = self.line().await?;
            // What an earlier transfer ended with is nobody's concern any more.
            let settled = line.settle().await;
            let asked = match settled {
                Ok(_) => ask(&mut line).await,
                Err(error) => Err(error),
            };
            match asked {
                Ok(answer) => {
                    self.line = Some(line);
                    return Ok(answer?);
                }
                Err(error) => {
                    tracing::warn!(%error, attempt, "the helper was lost in the middle of a call");
                    if attempt >= MAX_ATTEMPTS || halt.is_some_and(|halt| halt.kind().is_some()) {
                        return Err(DeviceError::HelperLost(error.to_string()));
                    }
                }
            }
        }
        Err(DeviceError::HelperLost("asked too often".to_owned()))
    }

    async fn call<T: DeserializeOwned>(&mut self, call: Call) -> Result<T, DeviceError> {
        self.repeat(None, async |line| line.ask(&call, None, None).await).await
    }

    /// What can be asked to stop.
    async fn long_call<T: DeserializeOwned>(
        &mut self,
        call: Call,
        halt: &Halt,
        percent: Option<&Percent>,
    ) -> Result<T, DeviceError> {
        self.repeat(Some(halt), async |line| line.ask(&call, Some(halt), percent).await).await
    }

    /// What belongs to the bytes that were sent on this line, and is lost with it.
    async fn in_stream<T>(
        &mut self,
        ask: impl AsyncFnOnce(&mut Line) -> Answered<T>,
    ) -> Result<T, DeviceError> {
        let lost = |error: LineError| DeviceError::HelperLost(error.to_string());
        let mut line = self.line.take().ok_or_else(|| lost(LineError::Ended))?;
        let answer = ask(&mut line).await.map_err(lost)?;
        self.line = Some(line);
        Ok(answer?)
    }
}

impl Line {
    /// An error is a sentence that says what is wrong.
    async fn connect(socket: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let found = stream.peer_cred().map_err(|error| error.to_string())?.uid();
        let own = nix::unistd::geteuid().as_raw();
        if found != 0 && found != own {
            return Err(format!("user {found} answers there, expected root or user {own}"));
        }
        let (reader, writer) = stream.into_split();
        let mut line = Self { reader: Reader::new(reader), writer, unanswered: 0 };
        match timeout(HELLO_TIMEOUT, line.hello()).await {
            Ok(Ok(ToClient::Hello { protocol: PROTOCOL })) => Ok(line),
            Ok(Ok(ToClient::Refused(why))) => Err(format!("it refuses: {why}")),
            Ok(Ok(ToClient::Hello { protocol })) => {
                Err(format!("it speaks protocol {protocol}, expected {PROTOCOL}: are both of one version?"))
            }
            Ok(Ok(_)) => Err("it answers something else than a greeting".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it does not answer within {} s", HELLO_TIMEOUT.as_secs())),
        }
    }

    async fn hello(&mut self) -> Result<ToClient<()>, LineError> {
        send_message(&mut self.writer, &ToServer::<()>::Hello { protocol: PROTOCOL }).await?;
        self.reader.message().await
    }

    /// Nothing is to be read when nothing was asked: what is readable is the end, of a helper that was idle.
    fn is_open(&self) -> bool {
        let silent =
            || self.reader.stream().try_read(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
        self.unanswered > 0 || silent()
    }

    async fn ask<T: DeserializeOwned>(
        &mut self,
        call: &Call,
        halt: Option<&Halt>,
        percent: Option<&Percent>,
    ) -> Answered<T> {
        send_message(&mut self.writer, &ToServer::Call(call)).await?;
        let mut told = halt.is_none();
        loop {
            tokio::select! {
                message = self.reader.message() => match message? {
                    ToClient::Done(answer) => return Ok(Ok(answer)),
                    ToClient::Failed(failure) => return Ok(Err(failure)),
                    ToClient::Percent(done) => {
                        if let Some(percent) = percent {
                            percent.send_replace(done);
                        }
                    }
                    ToClient::Hello { .. } | ToClient::Refused(_) => {
                        return Err(LineError::Unexpected("a greeting where an answer was expected"));
                    }
                },
                Some(kind) = halted(halt), if !told => {
                    told = true;
                    send_message(&mut self.writer, &ToServer::<()>::Halt(kind)).await?;
                }
            }
        }
    }

    async fn read_config(&mut self, name: &str) -> Answered<Option<Vec<u8>>> {
        let call = Call::ReadConfig { name: name.to_owned() };
        let length: usize = match self.ask::<Option<usize>>(&call, None, None).await? {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(Ok(None)),
            Err(failure) => return Ok(Err(failure)),
        };
        let mut bytes = Vec::new();
        while bytes.len() < length {
            match self.reader.next().await?.ok_or(LineError::Ended)? {
                Frame::Piece(piece) => bytes.extend_from_slice(&piece),
                Frame::Message(_) => {
                    return Err(LineError::Unexpected("a message where bytes were expected"));
                }
            }
        }
        Ok(Ok(Some(bytes)))
    }

    /// Returns when it is on its way. How an earlier piece went may show here.
    async fn write(&mut self, mut bytes: Bytes) -> Answered<()> {
        while !bytes.is_empty() {
            if self.unanswered >= WINDOW
                && let Err(failure) = self.answer().await?
            {
                self.settle().await?.ok();
                return Ok(Err(failure));
            }
            send_piece(&mut self.writer, next_piece(&mut bytes)).await?;
            self.unanswered += 1;
        }
        Ok(Ok(()))
    }

    /// Of the oldest piece.
    async fn answer(&mut self) -> Answered<()> {
        let message = self.reader.message::<ToClient<()>>().await?;
        self.unanswered -= 1;
        match message {
            ToClient::Done(()) => Ok(Ok(())),
            ToClient::Failed(failure) => Ok(Err(failure)),
            _ => Err(LineError::Unexpected("something else where an answer was expected")),
        }
    }

    /// Nothing is unanswered when this returns; the first failure counts, the others follow from it.
    async fn settle(&mut self) -> Answered<()> {
        let mut first = Ok(());
        while self.unanswered > 0 {
            let answer = self.answer().await?;
            first = first.and(answer);
        }
        Ok(first)
    }

    async fn ask_in_stream<T: DeserializeOwned>(&mut self, call: Call) -> Answered<T> {
        match self.settle().await? {
            Ok(()) => self.ask(&call, None, None).await,
            Err(failure) => Ok(Err(failure)),
        }
    }
}

async fn halted(halt: Option<&Halt>) -> Option<crate::HaltKind> {
    let halt = halt?;
    halt.halted().await;
    halt.kind()
}

impl Device for RemoteDevice {
    async fn boot(&mut self) -> Result<Boot, DeviceError> {
        self.call(Call::Boot).await
    }

    async fn installed(&mut self) -> Result<Option<Installed>, DeviceError> {
        self.call(Call::Installed).await
    }

    async fn read_config(&mut self, name: &str) -> Result<Option<Vec<u8>>, DeviceError> {
        self.repeat(None, async |line| line.read_config(name).await).await
    }

    async fn admit(&mut self, order: &Order) -> Result<Admitted, DeviceError> {
        self.call(Call::Admit { order: order.clone() }).await
    }

    async fn begin(&mut self, order: &Order) -> Result<u64, DeviceError> {
        self.call(Call::Begin { order: order.clone() }).await
    }

    async fn reserve(&mut self, total: u64) -> Result<(), DeviceError> {
        self.in_stream(async |line| line.ask_in_stream(Call::Reserve { total }).await).await
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), DeviceError> {
        self.in_stream(async |line| line.write(bytes).await).await
    }

    async fn restart(&mut self) -> Result<(), DeviceError> {
        self.in_stream(async |line| line.ask_in_stream(Call::Restart).await).await
    }

    async fn finish(&mut self) -> Result<Before, DeviceError> {
        self.in_stream(async |line| line.ask_in_stream(Call::Finish).await).await
    }

    async fn discard(&mut self, target: &Target) -> Result<(), DeviceError> {
        self.call(Call::Discard { target: target.clone() }).await
    }

    async fn discard_all(&mut self) -> Result<(), DeviceError> {
        self.call(Call::DiscardAll).await
    }

    async fn may_disturb(&mut self, question: &Question, halt: &Halt) -> Result<bool, DeviceError> {
        self.long_call(Call::MayDisturb { question: question.clone() }, halt, None).await
    }

    async fn activate(
        &mut self,
        change: &Change,
        halt: &Halt,
        percent: &Percent,
    ) -> Result<Effect, DeviceError> {
        self.long_call(Call::Activate { change: change.clone() }, halt, Some(percent)).await
    }

    async fn confirm(&mut self, change: &Change, halt: &Halt) -> Result<(), DeviceError> {
        self.long_call(Call::Confirm { change: change.clone() }, halt, None).await
    }

    async fn commit(&mut self, change: &Change) -> Result<(), DeviceError> {
        self.call(Call::Commit { change: change.clone() }).await
    }

    async fn roll_back(&mut self, change: &Change) -> Result<RolledBack, DeviceError> {
        self.call(Call::RollBack { change: change.clone() }).await
    }

    /// A helper that is lost meanwhile goes down with the system, most likely: the order counts as given, and the boot id
    /// tells what became of it. Where the next helper is of the same boot, nothing goes down, or it can be told so again.
    async fn reboot(&mut self, halt: &Halt) -> Result<(), DeviceError> {
        let before = self.boot().await?.id;
        for attempt in 1..=MAX_ATTEMPTS {
            self.line = None;
            let mut line = match self.line().await {
                Ok(line) => line,
                Err(error) if attempt == 1 => return Err(error),
                Err(_) => break,
            };
            match line.ask(&Call::Reboot, Some(halt), None).await {
                Ok(answer) => return Ok(answer?),
                Err(error) => {
                    tracing::warn!(%error, attempt, "the helper was lost while it ordered the reboot");
                }
            }
            let same_boot = tokio::select! {
                boot = self.boot() => boot.is_ok_and(|boot| boot.id == before),
                () = halt.halted() => false,
            };
            if !same_boot {
                break;
            }
        }
        Ok(())
    }
}

//! The conversation with the daemon: a file goes in, its progress and its end come out.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::wire::{self, ProgressLayout, Run, Selection, Status};
use crate::device::Percent;
use crate::{DeviceError, Halt, blocking};

/// Between two questions to a daemon that is busy.
const PATIENCE: Duration = Duration::from_secs(1);
/// For an answer that needs no work.
const ANSWER: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub control: PathBuf,
    pub progress: PathBuf,
    /// For an installation, and for one that is under way already.
    pub timeout: Duration,
}

impl Client {
    /// Is the daemon there?
    pub(super) async fn ask(&self) -> Result<Status, DeviceError> {
        let (_, answer) = self.say(&wire::get_status()).await?;
        Ok(wire::status(&answer))
    }

    /// Returns when the daemon does nothing; one that is not there does nothing either. Not for ever.
    pub(super) async fn settled(&self) {
        let settled = async {
            while let Ok(Status { idle: false, .. }) = self.ask().await {
                // The answers tell first what is queued, and only then what the daemon does.
                tokio::time::sleep(PATIENCE / 100).await;
            }
        };
        if tokio::time::timeout(self.timeout, settled).await.is_err() {
            tracing::error!("SWUpdate does not end what it does, and is not waited for any longer");
        }
    }

    /// Done when SWUpdate is, and well only when it says so. After a halt that is no stop it is waited for: what it does
    /// to the bootloader at its end must come before what a rollback does.
    pub(super) async fn install(
        &self,
        file: &Path,
        selection: Selection<'_>,
        halt: &Halt,
        percent: &Percent,
    ) -> Result<(), DeviceError> {
        let work = async {
            let (stream, mut news) = self.begin(selection, halt).await?;
            // For show: without it there are no percentages. Not before now: the daemon stands still when what it tells
            // is not read, and so would the installation that was waited for.
            let progress = UnixStream::connect(&self.progress).await;
            let both = async { tokio::join!(news.end(), feed(stream, file, halt)).0 };
            tokio::select! {
                ended = both => ended?,
                never = follow(progress, percent) => match never {},
            }
            // Handlers can say anything, the daemon's own word is this.
            match self.ask().await? {
                Status { last_succeeded: true, .. } => on_disk().await,
                _ => Err(unexpected("its last result is not success".to_owned())),
            }
        };
        tokio::select! {
            ended = tokio::time::timeout(self.timeout, work) => ended.unwrap_or_else(|_| {
                Err(unexpected(format!("it was not done within {} s", self.timeout.as_secs())))
            }),
            () = halt.stopped() => Err(DeviceError::halted("the installation by SWUpdate")),
        }
    }

    /// The connection that takes the file, and what is told of the installation. One at a time: another one is waited for.
    async fn begin(&self, selection: Selection<'_>, halt: &Halt) -> Result<(UnixStream, News), DeviceError> {
        loop {
            let (stream, answer) = self.say(&wire::install(selection)).await?;
            match wire::accepted(&answer) {
                Ok(()) => {
                    let mut news = self.news().await?;
                    match tokio::time::timeout(ANSWER, news.beginning()).await {
                        Ok(begun) => return begun.map(|()| (stream, news)),
                        // Before 2023.12 a request that comes when the one before has just ended is accepted and
                        // forgotten.
                        Err(_) => {
                            tracing::warn!("SWUpdate has accepted a bundle and not begun: asking again");
                        }
                    }
                }
                Err(why) if why.contains("in progress") => {
                    tracing::info!("SWUpdate is busy with another installation");
                }
                Err(_) => {
                    let Selection { software_set, mode } = selection;
                    return Err(DeviceError::Installer(format!(
                        "SWUpdate does not accept the selection {software_set},{mode}: it must be started with \
                         `--accepted-select {software_set},{mode}`"
                    )));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PATIENCE) => {}
                () = halt.halted() => return Err(DeviceError::halted("the wait for SWUpdate")),
            }
        }
    }

    /// From here on, and of the installation that was accepted last.
    async fn news(&self) -> Result<News, DeviceError> {
        let (stream, answer) = self.say(&wire::notify_stream()).await?;
        wire::accepted(&answer).map_err(unexpected)?;
        Ok(News { stream, run: Run::default(), notification: vec![0; wire::MESSAGE] })
    }

    async fn say(&self, message: &[u8]) -> Result<(UnixStream, Vec<u8>), DeviceError> {
        let talk = async {
            let mut stream = UnixStream::connect(&self.control).await?;
            // The socket is often in /tmp, where anybody can put one: what it says decides what boots.
            let peer = stream.peer_cred()?.uid();
            if peer != 0 && peer != nix::unistd::geteuid().as_raw() {
                let problem = format!("user {peer} listens there, expected root");
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
            }
            stream.write_all(message).await?;
            let mut answer = vec![0; wire::MESSAGE];
            stream.read_exact(&mut answer).await?;
            Ok((stream, answer))
        };
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        let talked = tokio::time::timeout(ANSWER, talk).await.unwrap_or_else(late);
        talked.map_err(|source| DeviceError::InstallerUnreachable { path: self.control.clone(), source })
    }
}

fn unexpected(problem: String) -> DeviceError {
    DeviceError::Installer(format!("SWUpdate: {problem}"))
}

/// The daemon closes its end when it wants no more. Whether that is well, the notifications say.
async fn feed(mut stream: UnixStream, file: &Path, halt: &Halt) {
    let send = async {
        let mut file = File::open(file).await?;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buffer).await? {
                0 => return Ok::<_, io::Error>(()),
                read => stream.write_all(buffer.get(..read).unwrap_or_default()).await?,
            }
        }
    };
    tokio::select! {
        sent = send => if let Err(error) = sent {
            tracing::debug!(%error, "SWUpdate takes no more of the file");
        },
        // The daemon fails with what it has.
        () = halt.halted() => {}
    }
}

/// SWUpdate does not sync what it writes, and only it knows where that is. What a power cut would take away again must not
/// be told to boot.
async fn on_disk() -> Result<(), DeviceError> {
    blocking(|| {
        nix::unistd::sync();
        Ok(())
    })
    .await
}

/// What the daemon tells of an installation.
struct News {
    stream: UnixStream,
    run: Run,
    notification: Vec<u8>,
}

impl News {
    async fn beginning(&mut self) -> Result<(), DeviceError> {
        while !self.run.has_begun() {
            self.next().await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), DeviceError> {
        loop {
            if let Some(ended) = self.next().await? {
                return ended.map_err(unexpected);
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Result<(), String>>, DeviceError> {
        let read = self.stream.read_exact(&mut self.notification).await;
        read.map_err(|error| unexpected(format!("it went away before it was done: {error}")))?;
        Ok(self.run.hear(&self.notification))
    }
}

/// Returns never: how an installation ends is not to be found here.
async fn follow(progress: io::Result<UnixStream>, percent: &Percent) -> Infallible {
    if let Ok(mut progress) = progress {
        let _ = read_progress(&mut progress, percent).await;
    }
    std::future::pending().await
}

async fn read_progress(progress: &mut UnixStream, percent: &Percent) -> io::Result<Infallible> {
    let mut message = vec![0; ProgressLayout::HEAD];
    let (greeting, rest) = message.split_at_mut(wire::GREETING);
    progress.read_exact(greeting).await?;
    if wire::is_greeting(greeting) {
        progress.read_exact(greeting).await?;
    }
    progress.read_exact(rest).await?;
    let layout = ProgressLayout::of(&message);
    let mut have = message.len();
    message.resize(layout.size, 0);
    loop {
        progress.read_exact(message.get_mut(have..).unwrap_or_default()).await?;
        if let Some(done) = layout.percent(&message) {
            percent.send_replace(done);
        }
        have = 0;
    }
}

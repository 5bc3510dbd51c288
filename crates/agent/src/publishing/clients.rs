//! Local programs: lines in, a line of answer for each. Whoever sends too much, reads nothing or breaks the rules is held up or
//! sent away, and holds up nobody else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use publish::{MAX_LINE, Reading, Refusal, Rules};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::Counts;

/// More at one time are turned away: their number times [`MAX_LINE`] is the memory that they can occupy.
const CLIENTS: usize = 16;
/// Who has not read its answers by then does not want them.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Counter {
    pub(super) rules: Arc<Rules>,
    pub(super) desk: mpsc::Sender<Reading>,
    pub(super) counts: Arc<Counts>,
}

impl Counter {
    pub(super) async fn serve(self, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "nobody can publish for a moment");
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
                let counter = self.clone();
                tokio::spawn(async move {
                    let _ = counter.attend(stream).await;
                    drop(place);
                });
            }
        }
    }

    async fn attend(&self, mut stream: UnixStream) -> io::Result<()> {
        let (mut line, mut part) = (Vec::new(), [0; 4096]);
        loop {
            let length = stream.read(&mut part).await?;
            let mut rest = part.get(..length).unwrap_or_default();
            if rest.is_empty() {
                return Ok(());
            }
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let (head, tail) = rest.split_at(end);
                line.extend_from_slice(head);
                rest = tail.get(1..).unwrap_or_default();
                self.answer(&mut stream, &line).await?;
                line.clear();
            }
            line.extend_from_slice(rest);
            // Where it ends is not looked for.
            if line.len() > MAX_LINE {
                return self.answer(&mut stream, &line).await;
            }
        }
    }

    async fn answer(&self, stream: &mut UnixStream, line: &[u8]) -> io::Result<()> {
        let answer = match self.rules.read(line) {
            Ok(reading) => {
                self.desk.send(reading).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
                json!({ "ok": true })
            }
            Err(refusal) => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                refused(&refusal)
            }
        };
        timeout(PATIENCE, stream.write_all(format!("{answer}\n").as_bytes())).await?
    }
}

fn refused(refusal: &Refusal) -> serde_json::Value {
    json!({ "error": refusal.code(), "message": refusal.to_string() })
}

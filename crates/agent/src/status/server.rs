//! The socket: whoever connects is told the status once, and that is all. Nothing is read from anybody.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::socket::listen;

/// More at one time are turned away: their number times a document is the memory that they can occupy.
const CLIENTS: usize = 4;
/// Who has not read it by then does not want it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Somebody wants to know: the loop answers with the document.
pub type Wanted = oneshot::Sender<String>;

/// Listens for as long as the returned value is asked. Of a socket that cannot be had only `fleethand status` suffers.
pub fn serve(path: Option<&Path>) -> mpsc::Receiver<Wanted> {
    let (ask, wanted) = mpsc::channel(CLIENTS);
    if let Some(path) = path {
        match listen(path) {
            Ok(listener) => {
                tokio::spawn(accept(listener, ask));
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "nobody can ask for the status"),
        }
    }
    wanted
}

async fn accept(listener: UnixListener, ask: mpsc::Sender<Wanted>) {
    let clients = Arc::new(Semaphore::new(CLIENTS));
    while !ask.is_closed() {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "nobody can ask for the status for a moment");
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&clients).try_acquire_owned() {
            let ask = ask.clone();
            tokio::spawn(async move {
                let _ = timeout(PATIENCE, answer(stream, ask)).await;
                drop(place);
            });
        }
    }
}

async fn answer(mut stream: UnixStream, ask: mpsc::Sender<Wanted>) -> io::Result<()> {
    let (wanted, document) = oneshot::channel();
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    ask.send(wanted).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    let mut document = document.await.map_err(gone)?;
    document.push('\n');
    stream.write_all(document.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream as Client;

    use std::io::Read;

    use super::*;

    /// The loop's part of it: answers for ever.
    fn answering(mut wanted: mpsc::Receiver<Wanted>, document: String) {
        tokio::spawn(async move {
            while let Some(wanted) = wanted.recv().await {
                let _ = wanted.send(document.clone());
            }
        });
    }

    async fn read(path: std::path::PathBuf) -> String {
        let asked = move || {
            let mut text = String::new();
            Client::connect(path).and_then(|mut client| client.read_to_string(&mut text)).map(|_| text)
        };
        tokio::task::spawn_blocking(asked).await.unwrap().unwrap_or_default()
    }

    #[tokio::test]
    async fn who_does_not_read_holds_up_nobody_and_costs_four_places_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.sock");
        // More than a socket takes by itself.
        let document = "x".repeat(1 << 20);
        answering(serve(Some(&path)), document.clone());
        assert_eq!(read(path.clone()).await.trim(), document);
        let idle: Vec<_> = (0..CLIENTS).map(|_| Client::connect(&path).unwrap()).collect();
        // Those are served one after the other, and then there is no place for a fifth.
        while read(path.clone()).await.len() > document.len() {}
        assert_eq!(read(path.clone()).await, "");
        drop(idle);
        while read(path.clone()).await.len() <= document.len() {}
    }

    #[tokio::test]
    async fn a_socket_that_was_left_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        answering(serve(Some(&path)), "now".to_owned());
        assert_eq!(read(path.clone()).await, "now\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(serve(Some(&file)).recv().await.is_none());
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }
}

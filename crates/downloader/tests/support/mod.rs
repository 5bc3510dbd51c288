//! A server that answers as it is told, byte for byte, and a transfer from it into a real file.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a surprise should fail the test"
)]
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use downloader::*;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

/// The independent implementation of the digest.
pub fn sha256(data: &[u8]) -> Digest {
    format!("sha256:{}", hex::encode(Sha256::digest(data))).parse().unwrap()
}

/// Bytes without a period that a buffer size could hide.
pub fn noise(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(len as u64);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}

#[derive(Clone, Debug)]
pub struct Request {
    pub target: String,
    head: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Where the range that is asked for begins.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

pub struct Reply {
    pub bytes: Vec<u8>,
    pub then: Then,
}

pub enum Then {
    Close,
    /// Says nothing more, and stays.
    Hang,
    /// Sends these bytes again and again.
    Repeat(Vec<u8>, Duration),
}

impl Reply {
    pub fn new(status: &str, headers: &[&str], body: &[u8]) -> Self {
        let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n").into_bytes();
        for header in headers {
            bytes.extend(format!("{header}\r\n").bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        Self { bytes, then: Then::Close }
    }

    pub fn status(status: &str) -> Self {
        Self::new(status, &["Content-Length: 0"], b"")
    }

    pub fn cut(mut self, at: usize) -> Self {
        self.bytes.truncate(at);
        self
    }

    /// Cut so many bytes into the body.
    pub fn cut_body(self, at: usize) -> Self {
        let head = self.bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        self.cut(head + at)
    }

    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

/// Serves an object as S3 does: with ranges, and `If-Range`. `tag`: a header line, or empty.
pub fn object(request: &Request, data: &[u8], tag: &str) -> Reply {
    let total = data.len();
    let same = request.header("if-range").is_none_or(|asked| tag.ends_with(asked));
    match request.from().filter(|_| same) {
        Some(from) if from >= total => Reply::new(
            "416 Range Not Satisfiable",
            &[&format!("Content-Range: bytes */{total}"), "Content-Length: 0"],
            b"",
        ),
        Some(from) => partial(from, data, tag),
        None => Reply::new("200 OK", &with(tag, &format!("Content-Length: {total}")), data),
    }
}

pub fn partial(from: usize, data: &[u8], tag: &str) -> Reply {
    let length = format!(
        "Content-Length: {}\r\nContent-Range: bytes {from}-{}/{}",
        data.len() - from,
        data.len() - 1,
        data.len()
    );
    Reply::new("206 Partial Content", &with(tag, &length), &data[from..])
}

fn with<'a>(tag: &'a str, more: &'a str) -> Vec<&'a str> {
    [more, tag].into_iter().filter(|line| !line.is_empty()).collect()
}

pub fn chunked(pieces: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for piece in pieces {
        body.extend(format!("{:x}\r\n", piece.len()).bytes());
        body.extend_from_slice(piece);
        body.extend(b"\r\n");
    }
    body
}

pub struct Server {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// One request a connection; `answer` is told which one it is.
    pub async fn start(answer: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(async move {
                    let _ = serve(stream, &seen, &*answer).await; // the client may hang up at any time
                });
            }
        });
        Self { address, requests, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}/fw.bin?X-Amz-Signature=SECRET", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &(impl Fn(usize, &Request) -> Reply + ?Sized),
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let request = Request { target, head };
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(request.clone());
        seen.len() - 1
    };
    let reply = answer(number, &request);
    stream.write_all(&reply.bytes).await?;
    match reply.then {
        Then::Close => stream.shutdown().await,
        Then::Hang => {
            std::future::pending::<()>().await;
            Ok(())
        }
        Then::Repeat(bytes, pause) => loop {
            stream.write_all(&bytes).await?;
            tokio::time::sleep(pause).await;
        },
    }
}

pub fn limits() -> Limits {
    Limits {
        max_size: 1 << 30,
        max_attempts: 8,
        deadline: Duration::from_secs(20),
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        ..Limits::default()
    }
}

/// A transfer into a file of its own.
pub struct Transfer {
    folder: tempfile::TempDir,
    pub limits: Limits,
    pub digest: Digest,
    pub size: Option<u64>,
    pub resume: Resume,
    pub staging: Staging,
    pub cancel: CancellationToken,
    /// Canceled when so many bytes have come.
    pub cancel_at: Option<u64>,
    pub progress: Vec<Progress>,
}

impl Transfer {
    pub fn of(data: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let digest = sha256(data);
        let staging = Staging::create(&folder.path().join("artifact"), digest, None).unwrap();
        let cancel = CancellationToken::new();
        Self {
            folder,
            limits: limits(),
            digest,
            size: None,
            resume: Resume::default(),
            staging,
            cancel,
            cancel_at: None,
            progress: Vec::new(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("artifact")
    }

    pub async fn fetch(&mut self, url: &str) -> Result<Fetched, Error> {
        let artifact = Artifact { url: SourceUrl::parse(url, false)?, digest: self.digest, size: self.size };
        let settings = Settings { limits: self.limits.clone(), ..Settings::default() };
        let (seen, cancel, cancel_at) = (&mut self.progress, &self.cancel, self.cancel_at);
        let fetched = Downloader::new(settings)
            .fetch(
                &artifact,
                &mut self.resume,
                &mut self.staging,
                &mut |progress: Progress| {
                    if cancel_at.is_some_and(|at| at <= progress.received) {
                        cancel.cancel();
                    }
                    seen.push(progress);
                },
                &self.cancel,
            )
            .await;
        if let Err(error) = &fetched {
            let told = format!("{error} {error:?}");
            assert!(!told.contains("SECRET"), "the query of the URL is in the error: {told}");
            assert!(!error.reason().is_empty());
        }
        fetched
    }

    /// What arrived, and that it verified.
    pub async fn verified(self) -> Vec<u8> {
        let path = self.path();
        let verified = self.staging.finish().await.unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((verified.path(), verified.digest()), (path.as_path(), sha256(&bytes)));
        assert_eq!(verified.len(), bytes.len() as u64);
        bytes
    }
}

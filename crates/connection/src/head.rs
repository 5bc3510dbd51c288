//! The head of an HTTP response, read from a stream that speaks something else behind it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A proxy or a server that says more before its empty line is not one to go on with.
const MAX_BYTES: usize = 8 * 1024;
/// Of a reason or a header, in an error.
const SHOWN: usize = 80;

#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    reason: String,
    fields: Vec<(String, String)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("more than {MAX_BYTES} bytes of headers came")]
    TooLong,
    #[error("what came is not HTTP/1.1")]
    NotHttp,
}

/// Byte by byte: what follows the empty line belongs to somebody else.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Head, HeadError> {
    let mut bytes = Vec::with_capacity(256);
    while !bytes.ends_with(b"\r\n\r\n") {
        if bytes.len() == MAX_BYTES {
            return Err(HeadError::TooLong);
        }
        bytes.push(stream.read_u8().await?);
        // Not HTTP at all: no reason to wait for an empty line that may never come.
        if !b"HTTP/1.".starts_with(bytes.get(..7).unwrap_or(&bytes)) {
            return Err(HeadError::NotHttp);
        }
    }
    Head::parse(&bytes).ok_or(HeadError::NotHttp)
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split("\r\n");
        let mut first = lines.next()?.splitn(3, ' ');
        let (_version, status) = (first.next()?, first.next()?);
        let status = Some(status).filter(|status| status.len() == 3)?.parse().ok()?;
        let reason = first.next().unwrap_or_default().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Some(Self { status, reason, fields: lines.filter_map(field).collect() })
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// `403 Forbidden`, and nothing in it that a terminal or a log would mind.
    pub(crate) fn status_line(&self) -> String {
        let reason: String = self.reason.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
        format!("{} {reason}", self.status).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parsed(mut bytes: &[u8]) -> (Result<Head, HeadError>, usize) {
        let head = read(&mut bytes).await;
        (head, bytes.len())
    }

    #[tokio::test]
    async fn a_head_ends_where_it_ends_and_says_no_more_than_a_line() {
        let (head, left) = parsed(b"HTTP/1.1 403 No\x1b[31m way\r\nX-A:  b \r\n\r\nrest").await;
        let head = head.unwrap();
        assert_eq!((head.status, head.status_line().as_str(), left), (403, "403 No[31m way", 4));
        assert_eq!((head.field("x-a"), head.field("x-b")), (Some("b"), None));
        assert_eq!(parsed(b"HTTP/1.0 200\r\n\r\n").await.0.unwrap().status_line(), "200");
    }

    #[tokio::test]
    async fn what_is_no_answer_ends_early_and_costs_little() {
        for not in
            [&b"SSH-2.0-OpenSSH"[..], b"\x20\x02\0\0", b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n"]
        {
            assert!(matches!(parsed(not).await.0, Err(HeadError::NotHttp)), "{not:?}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &vec![b'a'; 100_000]].concat();
        let (head, left) = parsed(&endless).await;
        assert!(matches!(head, Err(HeadError::TooLong)) && left > 90_000, "{head:?}");
        assert!(matches!(parsed(b"HTTP/1.1 200").await.0, Err(HeadError::Io(_))));
    }
}

//! How a transfer fails, and what that means. Messages hold no query of any URL.

use std::{io, path::PathBuf, time::Duration};

use crate::{Digest, UrlError};

/// A transfer did not bring all the bytes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the URL is refused: {0}")]
    Url(#[from] UrlError),
    #[error("the server answered {status} to the URL: it has expired, or is not valid here")]
    Forbidden { status: u16 },
    #[error("the server answered with the HTTP status {status}")]
    Status { status: u16 },
    #[error("the server's answer cannot be used: {0}")]
    BadResponse(String),
    #[error("the artifact is {found} bytes long, at most {limit} are allowed")]
    TooLarge { found: u64, limit: u64 },
    #[error("the artifact should be {expected} bytes long, the server sends {found}")]
    SizeMismatch { expected: u64, found: u64 },
    #[error(
        "the transfer is slower than {min_rate} bytes a second over {window:?}, {attempts} times in a row"
    )]
    TooSlow { min_rate: u64, window: Duration, attempts: u32 },
    #[error("the transfer did not end within {limit:?}{}", last.as_ref().map(|l| format!("; the last failure: {l}")).unwrap_or_default())]
    Deadline { limit: Duration, last: Option<String> },
    #[error("the connection failed {attempts} times without progress; the last failure: {last}")]
    Network { attempts: u32, last: String },
    #[error("the server's certificate is not trusted: {0}")]
    Untrusted(String),
    #[error("the trusted roots cannot be loaded: {0}")]
    TrustedRoots(String),
    #[error("the transfer was canceled")]
    Canceled,
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// The writing side could not take the bytes.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("no space for the artifact: {needed} bytes are missing, {available} are available")]
    NoSpace { needed: u64, available: u64 },
    #[error("no space left while writing the artifact")]
    Full,
    #[error("{} is not a regular file: it is left alone", .0.display())]
    NotAFile(PathBuf),
    #[error("the storage failed: {what}: {source}")]
    Storage { what: &'static str, source: io::Error },
}

/// The bytes are there, and are not what was asked for; or could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the checksum differs: expected {expected}, found {found}")]
    ChecksumMismatch {
        expected: Digest,
        found: Digest,
        /// Part of the bytes was there before this transfer: a torn partial file is worth one transfer from zero.
        resumed: bool,
    },
    #[error("the length differs: expected {expected} bytes, found {found}")]
    SizeMismatch { expected: u64, found: u64, resumed: bool },
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl Error {
    /// May the same fetch, started again later, do better?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } | Self::TooSlow { .. } | Self::Deadline { .. } => true,
            Self::Forbidden { .. } // transient only with another URL, which is the caller's to fetch
            | Self::Url(_)
            | Self::Status { .. }
            | Self::BadResponse(_)
            | Self::TooLarge { .. }
            | Self::SizeMismatch { .. }
            | Self::Untrusted(_)
            | Self::TrustedRoots(_)
            | Self::Canceled
            | Self::Sink(_) => false,
        }
    }

    /// The code that is reported. Public API: added, never renamed.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Url(_) => "url-rejected",
            Self::Forbidden { .. } => "url-expired",
            Self::Status { .. } => "http-status",
            Self::BadResponse(_) => "bad-response",
            Self::TooLarge { .. } => "too-large",
            Self::SizeMismatch { .. } => "size-mismatch",
            Self::TooSlow { .. } => "download-too-slow",
            Self::Deadline { .. } => "download-timeout",
            Self::Network { .. } => "network-error",
            Self::Untrusted(_) => "untrusted-server",
            Self::TrustedRoots(_) => "trusted-roots",
            Self::Canceled => "canceled",
            Self::Sink(e) => e.reason(),
        }
    }
}

impl SinkError {
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSpace { .. } | Self::Full => "no-space",
            Self::NotAFile(_) | Self::Storage { .. } => "storage-error",
        }
    }

    /// Names a failed system call: `what` was being done.
    pub fn storage(what: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            _ => Self::Storage { what, source },
        }
    }
}

impl VerifyError {
    /// Only a transfer from zero can do better, and only where old bytes were part of this one.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::ChecksumMismatch { resumed: true, .. } | Self::SizeMismatch { resumed: true, .. }
        )
    }

    pub fn reason(&self) -> &'static str {
        match self {
            Self::ChecksumMismatch { .. } => "checksum-mismatch",
            Self::SizeMismatch { .. } => "size-mismatch",
            Self::Sink(e) => e.reason(),
        }
    }
}

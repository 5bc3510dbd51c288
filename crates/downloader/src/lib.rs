//! A URL and a digest become bytes that are verified, in a file.
//!
//! [`Downloader::fetch`] moves bytes from a URL into a [`Sink`] and trusts nobody: not the server's lengths, not
//! its ranges, not its redirects. [`Staging`] is the sink on disk; only its [`finish`](Staging::finish) makes a
//! [`VerifiedArtifact`], the one thing that may be installed.

mod client;
mod digest;
mod digest_of;
mod error;
mod fetch;
mod local;
mod plan;
mod proxy;
mod rate;
mod response;
mod sink;
mod source_url;
mod staging;
mod throttle;
mod verify;
mod writeback;

pub use digest::{Digest, DigestError};
pub use error::{Error, SinkError, VerifyError};
pub use fetch::{Downloader, Fetched, Progress, Settings};
pub use plan::{Limits, Resume, Validator};
pub use proxy::{Proxy, ProxyError};
pub use sink::Sink;
pub use source_url::{SourceUrl, UrlError};
pub use staging::{Staging, free_bytes};
pub use verify::VerifiedArtifact;
pub use writeback::{Hashed, Hasher, ReadBack, Writeback};

/// A file named by URL and digest, as a job document asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    pub url: SourceUrl,
    pub digest: Digest,
    /// The exact length, where the document declares it.
    pub size: Option<u64>,
}

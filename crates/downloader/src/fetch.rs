//! The driver: carries out what the plan says, over reqwest.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::{Artifact, Error, Limits, Resume, Sink};

#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub limits: Limits,
    /// PEM. `None`: the system's roots, read when a transfer begins.
    pub root_ca: Option<PathBuf>,
    /// `User-Agent`; empty: none is sent.
    pub user_agent: String,
    /// Plain http to other machines.
    pub allow_http: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub received: u64,
    pub total: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The length of the whole artifact.
    pub bytes: u64,
    /// Requests that were sent, without redirects.
    pub attempts: u32,
}

pub struct Downloader {
    settings: Settings,
}

impl Downloader {
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Brings the artifact's bytes into `sink`, going on at its position if `resume` knows the object. All bytes are
    /// there when this is Ok, and not verified: that is the sink's. After [`Error::Forbidden`] call again with a
    /// fresh URL and the same `resume` and `sink`: the same bytes go on.
    pub async fn fetch(
        &self,
        _artifact: &Artifact,
        _resume: &mut Resume,
        _sink: &mut impl Sink,
        _progress: &mut dyn FnMut(Progress),
        _cancel: &CancellationToken,
    ) -> Result<Fetched, Error> {
        let _ = &self.settings;
        Err(Error::Canceled)
    }
}

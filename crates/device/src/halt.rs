//! How work is asked to stop.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// Why work must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HaltKind {
    /// The execution was withdrawn: what was not put in force goes, what was is undone.
    Cancel,
    /// The agent ends: everything stays as the journal says, and the next start goes on.
    Stop,
    /// It takes too long: as with a cancellation, but it is ours to report.
    Expire,
}

/// Asks a running operation to stop. The first kind given wins.
#[derive(Debug, Clone, Default)]
pub struct Halt {
    token: CancellationToken,
    kind: Arc<OnceLock<HaltKind>>,
}

impl Halt {
    pub fn cancel(&self) {
        self.halt(HaltKind::Cancel);
    }

    pub fn stop(&self) {
        self.halt(HaltKind::Stop);
    }

    pub fn expire(&self) {
        self.halt(HaltKind::Expire);
    }

    pub(crate) fn halt(&self, kind: HaltKind) {
        let _ = self.kind.set(kind);
        self.token.cancel();
    }

    pub async fn halted(&self) {
        self.token.cancelled().await;
    }

    /// Returns for a stop alone: what cannot be taken back is not ended by anything else.
    pub async fn stopped(&self) {
        self.halted().await;
        if self.kind() != Some(HaltKind::Stop) {
            std::future::pending::<()>().await;
        }
    }

    pub fn kind(&self) -> Option<HaltKind> {
        self.kind.get().copied()
    }

    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

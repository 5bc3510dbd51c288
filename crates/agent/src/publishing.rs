//! What other programs on the device want published, from their socket until the cloud has acknowledged it.
//!
//! It has a thread of its own: whoever may write to the socket can keep that thread busy, and its disk slow, and jobs go on.

mod budget;
mod clients;
mod desk;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use connection::Publisher;
use publish::Spool;
use tokio::sync::oneshot;

use crate::config::Publish;
use crate::status;
use desk::Desk;

/// With the second that answers under way may take, and a sync.
const STOP: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct Publishing {
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
    counts: Arc<Counts>,
}

/// Since the start.
#[derive(Debug, Default)]
struct Counts {
    readings: AtomicU64,
    refused: AtomicU64,
    batches: AtomicU64,
    lost: AtomicU64,
    waiting: AtomicU64,
}

impl Publishing {
    /// Of what goes wrong only those who publish suffer.
    pub fn start(settings: Option<&Publish>, state_directory: &Path, link: Publisher) -> Option<Self> {
        let settings = settings?.clone();
        let folder = state_directory.join("publish");
        let spool = match Spool::open(&folder, settings.max_bytes) {
            Ok(spool) => spool,
            Err(error) => {
                tracing::error!(path = %folder.display(), %error, "nothing is published for other programs");
                return None;
            }
        };
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let desk = Desk::new(settings, spool, link, Arc::clone(&counts));
        let thread = std::thread::Builder::new().name("publish".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(desk.run(stopped)),
                Err(error) => tracing::error!(%error, "nothing is published for other programs"),
            }
            drop(end);
        });
        match thread {
            Ok(_) => Some(Self { stop, ended, counts }),
            Err(error) => {
                tracing::error!(%error, "nothing is published for other programs");
                None
            }
        }
    }

    pub fn report(&self) -> status::Publishing {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { readings, refused, batches, lost, waiting } = &*self.counts;
        status::Publishing {
            readings: of(readings),
            refused: of(refused),
            batches: of(batches),
            lost_batches: of(lost),
            waiting_bytes: of(waiting),
        }
    }

    /// Whatever is not acknowledged is on the disk then.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        if tokio::time::timeout(STOP, self.ended).await.is_err() {
            tracing::warn!("the disk is slow: the last readings of other programs may be lost");
        }
    }
}

//! Alone in its process, because it counts that process's threads.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;

use bytes::Bytes;
use downloader::{Digest, Sink, Staging};

/// Threads of the sink in this process.
fn threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("artifact-")).count()
}

#[tokio::test]
async fn they_end_with_the_staged_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artifact");
    let bytes = Bytes::from(vec![7; 10_000_000]);
    let start = || Staging::create(&path, Digest::of_bytes(&bytes), None).unwrap();

    let mut staging = start();
    staging.write(bytes.clone()).await.unwrap();
    assert_eq!(threads(), 2);
    staging.restart().await.unwrap();
    staging.write(bytes.clone()).await.unwrap();
    assert_eq!(threads(), 2);
    staging.discard().unwrap();
    assert_eq!((threads(), path.exists()), (0, false));

    let mut staging = start();
    staging.write(bytes.clone()).await.unwrap();
    drop(staging);
    assert_eq!((threads(), path.exists()), (0, true));

    let mut staging = start();
    staging.write(bytes.clone()).await.unwrap();
    staging.finish().await.unwrap();
    assert_eq!(threads(), 0);
}

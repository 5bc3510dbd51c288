//! The sink on disk: what it accepts, what it makes, and what it leaves.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use downloader::{Sink, SinkError, Staging, VerifiedArtifact, VerifyError};
use support::{noise, sha256};

async fn fill(staging: &mut Staging, data: &[u8]) {
    for piece in data.chunks(50_000) {
        staging.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
}

#[tokio::test]
async fn more_than_two_windows_are_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artifact");
    let data = noise(20_000_003);
    let mut staging = Staging::create(&path, sha256(&data), Some(data.len() as u64)).unwrap();
    fill(&mut staging, &data).await;
    let verified = staging.finish().await.unwrap();
    assert_eq!(
        (verified.path(), verified.len(), verified.digest()),
        (path.as_path(), 20_000_003, sha256(&data))
    );
    assert!(fs::read(&path).unwrap() == data);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_partial_file_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artifact");
    let data = noise(10_000_000);
    let mut first = Staging::create(&path, sha256(&data), None).unwrap();
    fill(&mut first, &data[..9_000_000]).await;
    drop(first);

    let mut second = Staging::open_partial(&path, sha256(&data), None).unwrap();
    let kept = usize::try_from(second.position()).unwrap();
    assert!((8_000_000..=9_000_000).contains(&kept), "what was queued may be lost, not more: {kept}");
    fill(&mut second, &data[kept..]).await;
    assert_eq!(second.finish().await.unwrap().len(), 10_000_000);
}

#[tokio::test]
async fn a_torn_partial_file_is_found_out_and_worth_another_transfer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artifact");
    let data = noise(1000);
    fs::write(&path, [0; 600]).unwrap();
    let mut staging = Staging::open_partial(&path, sha256(&data), None).unwrap();
    assert_eq!(staging.position(), 600);
    fill(&mut staging, &data[600..]).await;
    let error = staging.finish().await.unwrap_err();
    assert!(error.is_transient() && error.reason() == "checksum-mismatch", "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn what_differs_is_told_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artifact");
    let (wanted, sent) = (sha256(b"wanted"), sha256(b"sent"));
    let mut staging = Staging::open_partial(&path, wanted, None).unwrap();
    fill(&mut staging, b"sent").await;
    let error = staging.finish().await.unwrap_err();
    assert!(
        error.to_string().contains(&wanted.to_string()) && error.to_string().contains(&sent.to_string()),
        "{error}"
    );
    assert!(!error.is_transient(), "nothing old was in it");
    assert!(!path.exists());

    let mut staging = Staging::create(&path, sent, Some(5)).unwrap();
    fill(&mut staging, b"sent").await;
    let error = staging.finish().await.unwrap_err();
    assert!(matches!(error, VerifyError::SizeMismatch { expected: 5, found: 4, resumed: false }), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_restart_forgets_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artifact");
    fs::write(&path, noise(9_000_000)).unwrap();
    let data = noise(5000);
    let mut staging = Staging::open_partial(&path, sha256(&data), None).unwrap();
    fill(&mut staging, &noise(500_000)).await;
    staging.restart().await.unwrap();
    assert_eq!(staging.position(), 0);
    fill(&mut staging, &data).await;
    staging.finish().await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), data);

    let mut staging = Staging::open_partial(&path, sha256(b"other"), None).unwrap();
    staging.restart().await.unwrap();
    fill(&mut staging, &data).await;
    assert!(!staging.finish().await.unwrap_err().is_transient(), "the old bytes are not to blame any more");
}

#[tokio::test]
async fn only_a_regular_file_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("precious"), b"precious").unwrap();
    symlink(at("precious"), at("link")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    for name in ["link", "dangling", "folder", "fifo", "socket"] {
        for open in [Staging::create, Staging::open_partial] {
            let error = open(&at(name), sha256(b""), None).err().unwrap();
            assert!(matches!(&error, SinkError::NotAFile(path) if *path == at(name)), "{name}: {error}");
        }
        let error = VerifiedArtifact::reverify(&at(name), sha256(b"precious")).await.unwrap_err();
        assert!(matches!(error, VerifyError::Sink(SinkError::NotAFile(_))), "{name}: {error}");
    }
    assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
    assert!(!at("nowhere").exists());
    let error = Staging::create(&at("missing/artifact"), sha256(b""), None).err().unwrap();
    assert_eq!(error.reason(), "storage-error");
}

#[tokio::test]
async fn a_staged_file_is_trusted_again_only_after_reading_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artifact");
    fs::write(&path, b"staged").unwrap();
    let verified = VerifiedArtifact::reverify(&path, sha256(b"staged")).await.unwrap();
    assert_eq!(verified.len(), 6);
    fs::write(&path, b"stagee").unwrap();
    let error = VerifiedArtifact::reverify(&path, sha256(b"staged")).await.unwrap_err();
    assert!(error.is_transient() && error.reason() == "checksum-mismatch", "{error}");
}

#[tokio::test]
async fn what_is_checked_is_what_the_file_gives_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("artifact");
    let data = noise(8192);
    let mut staging = Staging::create(&path, sha256(&data), Some(8192)).unwrap();
    fill(&mut staging, &data).await;
    while fs::metadata(&path).unwrap().len() < 8192 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // A bad block: all bytes went past correctly, and one is not what was written.
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[!data[500]], 500).unwrap();
    assert_eq!(staging.finish().await.unwrap_err().reason(), "checksum-mismatch");
}

/// A tmpfs of 1 MiB, for as long as it lives. `None` without the rights to mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "none"])
            .arg(folder.path())
            .output()
            .unwrap();
        mounted.status.success().then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_a_plain_failure() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("SKIPPED: needs the rights to mount a tmpfs");
        return;
    };
    let path = disk.path().join("artifact");
    let mut staging = Staging::create(&path, sha256(b""), None).unwrap();
    staging.reserve(&downloader::Resume { total: Some(900_000), validator: None }).await.unwrap();
    let error =
        staging.reserve(&downloader::Resume { total: Some(2_000_000), validator: None }).await.unwrap_err();
    assert!(
        matches!(error, SinkError::NoSpace { needed: 2_000_000, available } if available <= 1 << 20),
        "{error}"
    );

    // A length that nobody announced shows itself only while writing.
    let mut failed = None;
    for _ in 0..100 {
        if let Err(error) = staging.write(Bytes::from(vec![7; 100_000])).await {
            failed = Some(error);
            break;
        }
    }
    let error = failed.expect("10 MB do not fit into 1 MiB");
    assert_eq!(error.reason(), "no-space", "{error}");
    assert!(staging.write(Bytes::from_static(b"more")).await.is_err(), "it stays failed");
    assert!(staging.finish().await.is_err());
    assert!(!path.exists(), "the space is given back");
}

//! The bytes of objects, one file for each version, and the index over them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt as _;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use tokio::io::AsyncWriteExt as _;

use super::index::{Headers, Index, Version, new_id};
use crate::clock::Clock;
use crate::store::{Row, Store};

/// Reading and writing goes in pieces of this size, whatever the size of the object.
const PIECE: usize = 128 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the folder for objects, {0}, cannot be used")]
    Folder(PathBuf, #[source] std::io::Error),
    #[error("row {kind}/{key} of the state is no object")]
    Row { kind: String, key: String, source: serde_json::Error },
}

pub(crate) struct Storage {
    folder: PathBuf,
    pub(crate) clock: Arc<Clock>,
    index: Mutex<Index>,
    /// Uploads in parts live as long as the process: what is left of them is swept up at the next start.
    pub(super) uploads: Mutex<HashMap<String, Upload>>,
    store: Option<Arc<Store>>,
}

pub(super) struct Upload {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) headers: Headers,
    pub(super) parts: BTreeMap<i32, Received>,
}

/// Bytes that have arrived, and belong to nothing yet: their file goes with this value unless it is kept.
pub(super) struct Received {
    path: Option<PathBuf>,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
}

impl Received {
    /// The file's name, now in the care of the index.
    pub(super) fn keep(mut self) -> String {
        let path = self.path.take().unwrap_or_default();
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Storage {
    pub(crate) fn open(
        folder: PathBuf,
        clock: Arc<Clock>,
        store: Option<Arc<Store>>,
        rows: &[Row],
    ) -> Result<Storage, Error> {
        std::fs::create_dir_all(&folder).map_err(|error| Error::Folder(folder.clone(), error))?;
        let mut index = Index::default();
        for row in rows {
            index.load(row).map_err(|source| Error::Row {
                kind: row.0.clone(),
                key: row.1.clone(),
                source,
            })?;
        }
        sweep(&folder, &index).map_err(|error| Error::Folder(folder.clone(), error))?;
        Ok(Storage { folder, clock, index: Mutex::new(index), uploads: Mutex::default(), store })
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One change of the index: kept before it is answered, and what nobody names any more is removed.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Index) -> S3Result<T>) -> S3Result<T> {
        let mut index = self.index();
        let result = change(&mut index)?;
        let changes = index.take_changes();
        if let Some(store) = &self.store {
            store.write(changes).map_err(S3Error::internal_error)?;
        }
        for file in index.take_garbage() {
            // A download that is under way keeps its open file.
            let _ = std::fs::remove_file(self.folder.join(file));
        }
        Ok(result)
    }

    /// Writes a body to a file of its own while it is hashed.
    pub(super) async fn receive(
        &self,
        body: Option<StreamingBlob>,
        length: Option<i64>,
        content_md5: Option<&str>,
    ) -> S3Result<Received> {
        let path = self.folder.join(new_id());
        let file = tokio::fs::File::create_new(&path).await.map_err(S3Error::internal_error)?;
        let mut received = Received { path: Some(path), size: 0, md5: [0; 16] };
        let mut file = tokio::io::BufWriter::with_capacity(PIECE, file);
        let mut md5 = Md5::new();
        let mut body = body;
        while let Some(piece) = match &mut body {
            Some(body) => body.next().await,
            None => None,
        } {
            let piece = piece.map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?;
            md5.update(&piece);
            received.size += piece.len() as u64;
            file.write_all(&piece).await.map_err(S3Error::internal_error)?;
        }
        file.flush().await.map_err(S3Error::internal_error)?;
        received.md5 = md5.finalize();
        if length.is_some_and(|length| u64::try_from(length) != Ok(received.size)) {
            return Err(s3_error!(IncompleteBody));
        }
        if content_md5.is_some_and(|claimed| claimed != BASE64.encode(received.md5)) {
            return Err(s3_error!(
                BadDigest,
                "The Content-MD5 you specified did not match what we received."
            ));
        }
        Ok(received)
    }

    /// The parts one after the other, in a file of their own.
    pub(super) async fn join(&self, parts: Vec<Received>) -> S3Result<Received> {
        let path = self.folder.join(new_id());
        let joined = tokio::task::spawn_blocking(move || -> std::io::Result<Received> {
            let mut file = std::fs::File::create_new(&path)?;
            let mut joined = Received { path: Some(path), size: 0, md5: [0; 16] };
            for part in parts {
                joined.size += std::io::copy(&mut std::fs::File::open(part.path())?, &mut file)?;
            }
            Ok(joined)
        });
        joined.await.map_err(S3Error::internal_error)?.map_err(S3Error::internal_error)
    }

    /// A version and its bytes. Opened under the lock: it may be replaced right afterwards, and stays readable.
    pub(super) fn fetch(
        &self,
        bucket: &str,
        key: &str,
        id: Option<&str>,
    ) -> S3Result<(Version, std::fs::File)> {
        let index = self.index();
        let version = index.find(bucket, key, id)?.clone();
        let path = self.folder.join(version.file.as_deref().unwrap_or_default());
        let file = std::fs::File::open(path).map_err(S3Error::internal_error)?;
        Ok((version, file))
    }

    /// `range` of a file, in pieces.
    pub(super) async fn stream(
        &self,
        file: std::fs::File,
        range: std::ops::Range<u64>,
    ) -> S3Result<StreamingBlob> {
        use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(PIECE);
        file.seek(SeekFrom::Start(range.start)).await.map_err(S3Error::internal_error)?;
        let reader = file.take(range.end - range.start);
        Ok(StreamingBlob::wrap(tokio_util::io::ReaderStream::with_capacity(reader, PIECE)))
    }

    /// The whole newest version, if it is not larger than `limit`.
    pub(super) fn read(&self, bucket: &str, key: &str, limit: u64) -> Option<Vec<u8>> {
        let (version, mut file) = self.fetch(bucket, key, None).ok()?;
        let mut bytes = Vec::new();
        (version.size <= limit).then(|| file.read_to_end(&mut bytes))?.ok()?;
        Some(bytes)
    }
}

/// Removes what a process that ended in the middle of an upload left behind.
fn sweep(folder: &Path, index: &Index) -> std::io::Result<()> {
    let known: HashSet<&str> = index.files().collect();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !known.contains(entry.file_name().to_string_lossy().as_ref()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

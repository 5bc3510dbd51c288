//! What is in which bucket, and in which version. Bytes are elsewhere; here they are the names of files.

use std::collections::BTreeMap;
use std::ops::Bound;

use s3s::dto::{ETag, ETagCondition};
use s3s::{S3Result, s3_error};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Time;
use crate::store::{Change, Row};

const BUCKET: &str = "s3-bucket";
const OBJECT: &str = "s3-object";
/// The id of versions that are made while the bucket keeps none.
const NULL: &str = "null";

/// One version of an object, or the marker that it was deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) id: String,
    /// Name of the file with its bytes; none for a delete marker.
    pub(crate) file: Option<String>,
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) modified: Time,
    pub(crate) headers: Headers,
}

/// What was said at the upload and is said again at the download.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Headers {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Versioning {
    Enabled,
    Suspended,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) created: Time,
    pub(crate) versioning: Option<Versioning>,
    /// Versions in the order in which they were made: the newest is the last.
    #[serde(skip)]
    objects: BTreeMap<String, Vec<Version>>,
}

#[derive(Default)]
pub(crate) struct Index {
    buckets: BTreeMap<String, Bucket>,
    /// Rows for the store, and files that no version names any more.
    changes: Vec<Change>,
    garbage: Vec<String>,
}

/// What a deletion did.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Deleted {
    pub(crate) version: Option<String>,
    pub(crate) marker: bool,
}

/// One page of a listing.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Version)>,
    pub(crate) prefixes: Vec<String>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<String>,
}

/// One page of versions: (key, version, is it the newest), and the key after which the next page begins.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    pub(crate) entries: Vec<(String, Version, bool)>,
    pub(crate) next: Option<String>,
}

impl Index {
    /// Takes a row back; false when it is not one of the object store's.
    pub(crate) fn load(&mut self, (kind, key, value): &Row) -> Result<bool, serde_json::Error> {
        match kind.as_str() {
            BUCKET => {
                let bucket: Bucket = serde_json::from_value(value.clone())?;
                let objects = self.buckets.remove(key).map(|early| early.objects).unwrap_or_default();
                self.buckets.insert(key.clone(), Bucket { objects, ..bucket });
            }
            OBJECT => {
                let versions = serde_json::from_value(value.clone())?;
                let (bucket, key) = key.split_once('/').unwrap_or((key, ""));
                // Rows come in any order: the bucket's own may still follow.
                let bucket =
                    self.buckets.entry(bucket.to_owned()).or_insert_with(|| Bucket::new(Time::default()));
                bucket.objects.insert(key.to_owned(), versions);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub(crate) fn take_garbage(&mut self) -> Vec<String> {
        std::mem::take(&mut self.garbage)
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let versions = self.buckets.values().flat_map(|bucket| bucket.objects.values().flatten());
        versions.filter_map(|version| version.file.as_deref())
    }

    pub(crate) fn buckets(&self) -> impl Iterator<Item = (&String, &Bucket)> {
        self.buckets.iter()
    }

    pub(crate) fn bucket(&self, name: &str) -> S3Result<&Bucket> {
        self.buckets.get(name).ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    pub(crate) fn create_bucket(&mut self, name: &str, now: Time) -> S3Result<()> {
        if self.buckets.contains_key(name) {
            return Err(s3_error!(BucketAlreadyOwnedByYou, "The bucket exists already, and you own it"));
        }
        self.buckets.insert(name.to_owned(), Bucket::new(now));
        self.bucket_changed(name);
        Ok(())
    }

    pub(crate) fn delete_bucket(&mut self, name: &str) -> S3Result<()> {
        if !self.bucket(name)?.objects.is_empty() {
            return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty"));
        }
        self.buckets.remove(name);
        self.bucket_changed(name);
        Ok(())
    }

    pub(crate) fn set_versioning(&mut self, name: &str, versioning: Option<Versioning>) -> S3Result<()> {
        self.bucket_mut(name)?.versioning = versioning;
        self.bucket_changed(name);
        Ok(())
    }

    /// The newest version, or the one that is named.
    pub(crate) fn find(&self, bucket: &str, key: &str, id: Option<&str>) -> S3Result<&Version> {
        let versions = self.bucket(bucket)?.objects.get(key);
        let found = match id {
            Some(id) => {
                let found = versions.and_then(|versions| versions.iter().find(|version| version.id == id));
                found.ok_or_else(|| s3_error!(NoSuchVersion, "The specified version does not exist"))?
            }
            None => {
                let found =
                    versions.and_then(|versions| versions.last()).filter(|version| version.file.is_some());
                found.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))?
            }
        };
        match found.file {
            Some(_) => Ok(found),
            None => Err(s3_error!(MethodNotAllowed, "The specified version is a delete marker")),
        }
    }

    /// Makes `version` the newest; its id as a client sees it.
    pub(crate) fn put(&mut self, bucket: &str, key: &str, mut version: Version) -> S3Result<Option<String>> {
        let entry = self.bucket_mut(bucket)?;
        let versioning = entry.versioning;
        let versions = entry.objects.entry(key.to_owned()).or_default();
        let mut replaced = Vec::new();
        match versioning {
            Some(Versioning::Enabled) => version.id = new_id(),
            _ => replaced.extend(versions.extract_if(.., |old| old.id == NULL)),
        }
        let shown = versioning.map(|_| version.id.clone());
        versions.push(version);
        self.garbage.extend(replaced.into_iter().filter_map(|old: Version| old.file));
        self.object_changed(bucket, key);
        Ok(shown)
    }

    /// A conditional write: `If-None-Match: *` or an ETag in `If-Match`.
    pub(crate) fn check_write(
        &self,
        bucket: &str,
        key: &str,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<()> {
        if if_match.is_none() && if_none_match.is_none() {
            return self.bucket(bucket).map(drop);
        }
        let current = match self.find(bucket, key, None) {
            Ok(version) => Some(version),
            Err(error) if *error.code() == s3s::S3ErrorCode::NoSuchKey => None,
            Err(error) => return Err(error),
        };
        match (if_match, current) {
            (Some(_), None) => return Err(s3_error!(NoSuchKey, "The specified key does not exist.")),
            (Some(condition), Some(version)) if !version.matches(condition) => {
                return Err(failed_precondition());
            }
            _ => {}
        }
        match (if_none_match, current) {
            (Some(condition), Some(version)) if version.matches(condition) => Err(failed_precondition()),
            _ => Ok(()),
        }
    }

    pub(crate) fn delete(
        &mut self,
        bucket: &str,
        key: &str,
        id: Option<&str>,
        now: Time,
    ) -> S3Result<Deleted> {
        let entry = self.bucket_mut(bucket)?;
        let versioning = entry.versioning;
        if let Some(id) = id {
            let versions = entry.objects.get_mut(key);
            let removed: Vec<Version> = versions
                .map(|versions| versions.extract_if(.., |version| version.id == id).collect())
                .unwrap_or_default();
            let marker = removed.iter().any(|version| version.file.is_none());
            self.garbage.extend(removed.into_iter().filter_map(|version| version.file));
            self.object_changed(bucket, key);
            return Ok(Deleted { version: Some(id.to_owned()), marker });
        }
        if versioning.is_some() {
            let marker = Version::marker(now);
            let version = self.put(bucket, key, marker)?;
            return Ok(Deleted { version, marker: true });
        }
        let removed = entry.objects.remove(key).unwrap_or_default();
        self.garbage.extend(removed.into_iter().filter_map(|version| version.file));
        self.object_changed(bucket, key);
        Ok(Deleted::default())
    }

    /// The newest versions of the keys after `after`, those with a common part up to `delimiter` rolled into one.
    pub(crate) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        delimiter: &str,
        after: &str,
        limit: usize,
    ) -> S3Result<Page> {
        let mut page = Page::default();
        let mut last = String::new();
        let bounds = (Bound::Included(prefix.max(after)), Bound::Unbounded);
        for (key, versions) in self.bucket(bucket)?.objects.range::<str, _>(bounds) {
            let Some(rest) = key.strip_prefix(prefix) else { break };
            let Some(version) = versions.last().filter(|version| version.file.is_some()) else { continue };
            let rolled = rest.split_once(delimiter).filter(|_| !delimiter.is_empty());
            let name = rolled.map_or_else(|| key.clone(), |(first, _)| format!("{prefix}{first}{delimiter}"));
            if name.as_str() <= after || (rolled.is_some() && name == last) {
                continue;
            }
            if page.objects.len() + page.prefixes.len() == limit {
                page.next = Some(last);
                break;
            }
            last.clone_from(&name);
            match rolled {
                Some(_) => page.prefixes.push(name),
                None => page.objects.push((name, version.clone())),
            }
        }
        Ok(page)
    }

    /// All versions of the keys after `after`, newest first, until there are `limit` or more.
    pub(crate) fn versions(
        &self,
        bucket: &str,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> S3Result<Versions> {
        let mut listed = Versions::default();
        let mut last = None;
        let bounds = (Bound::Included(prefix.max(after)), Bound::Unbounded);
        for (key, versions) in self.bucket(bucket)?.objects.range::<str, _>(bounds) {
            if !key.starts_with(prefix) {
                break;
            }
            if key.as_str() <= after {
                continue;
            }
            if listed.entries.len() >= limit {
                listed.next = last;
                break;
            }
            let newest_first = versions.iter().rev().enumerate();
            listed
                .entries
                .extend(newest_first.map(|(age, version)| (key.clone(), version.clone(), age == 0)));
            last = Some(key.clone());
        }
        Ok(listed)
    }

    fn bucket_mut(&mut self, name: &str) -> S3Result<&mut Bucket> {
        let bucket = self.buckets.get_mut(name);
        bucket.ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    fn bucket_changed(&mut self, name: &str) {
        let value = self.buckets.get(name).and_then(|bucket| serde_json::to_value(bucket).ok());
        self.changes.push((BUCKET.to_owned(), name.to_owned(), value));
    }

    fn object_changed(&mut self, bucket: &str, key: &str) {
        let Some(objects) = self.buckets.get_mut(bucket).map(|bucket| &mut bucket.objects) else { return };
        if objects.get(key).is_some_and(Vec::is_empty) {
            objects.remove(key);
        }
        let value: Option<Value> = objects.get(key).and_then(|versions| serde_json::to_value(versions).ok());
        self.changes.push((OBJECT.to_owned(), format!("{bucket}/{key}"), value));
    }
}

impl Bucket {
    fn new(created: Time) -> Bucket {
        Bucket { created, versioning: None, objects: BTreeMap::new() }
    }
}

impl Version {
    pub(crate) fn new(file: String, size: u64, etag: String, modified: Time, headers: Headers) -> Version {
        Version { id: NULL.to_owned(), file: Some(file), size, etag, modified, headers }
    }

    fn marker(modified: Time) -> Version {
        Version {
            id: NULL.to_owned(),
            file: None,
            size: 0,
            etag: String::new(),
            modified,
            headers: Headers::default(),
        }
    }

    pub(crate) fn etag(&self) -> ETag {
        ETag::Strong(self.etag.clone())
    }

    pub(crate) fn matches(&self, condition: &ETagCondition) -> bool {
        match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == self.etag,
        }
    }
}

pub(crate) fn failed_precondition() -> s3s::S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

/// 32 letters and digits, as S3's version ids are.
pub(crate) fn new_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(etag: &str) -> Version {
        Version::new(format!("file-{etag}"), 1, etag.to_owned(), Time::from_secs(1), Headers::default())
    }

    fn index(keys: &[&str]) -> Index {
        let mut index = Index::default();
        index.create_bucket("b", Time::from_secs(0)).unwrap();
        for key in keys {
            index.put("b", key, version("1")).unwrap();
        }
        index
    }

    fn names(page: &Page) -> (Vec<&str>, Vec<&str>) {
        (
            page.objects.iter().map(|(key, _)| key.as_str()).collect(),
            page.prefixes.iter().map(String::as_str).collect(),
        )
    }

    #[test]
    fn listings_roll_up_folders_and_go_on_where_they_ended() {
        let index = index(&["a", "dir/x", "dir/y", "e", "other/z"]);
        let page = index.list("b", "", "/", "", 10).unwrap();
        assert_eq!(names(&page), (vec!["a", "e"], vec!["dir/", "other/"]));
        let page = index.list("b", "dir/", "/", "", 10).unwrap();
        assert_eq!(names(&page), (vec!["dir/x", "dir/y"], vec![]));
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let page = index.list("b", "", "/", &after, 1).unwrap();
            seen.extend(names(&page).0.into_iter().chain(names(&page).1).map(str::to_owned));
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(seen, ["a", "dir/", "e", "other/"]);
    }

    #[test]
    fn without_versions_a_new_object_replaces_the_old_one_and_its_file() {
        let mut index = index(&["k"]);
        assert_eq!(index.put("b", "k", version("2")).unwrap(), None);
        assert_eq!(index.find("b", "k", None).unwrap().etag, "2");
        assert_eq!(index.take_garbage(), ["file-1"]);
        assert_eq!(index.delete("b", "k", None, Time::from_secs(2)).unwrap(), Deleted::default());
        assert_eq!(*index.find("b", "k", None).unwrap_err().code(), s3s::S3ErrorCode::NoSuchKey);
        assert_eq!(index.take_garbage(), ["file-2"]);
    }

    #[test]
    fn with_versions_everything_stays_until_its_version_is_deleted() {
        let mut index = index(&["k"]);
        index.set_versioning("b", Some(Versioning::Enabled)).unwrap();
        let second = index.put("b", "k", version("2")).unwrap().unwrap();
        let deleted = index.delete("b", "k", None, Time::from_secs(2)).unwrap();
        assert!(deleted.marker);
        assert!(index.find("b", "k", None).is_err());
        assert_eq!(index.find("b", "k", Some(&second)).unwrap().etag, "2");
        assert_eq!(index.find("b", "k", Some("null")).unwrap().etag, "1");
        // The marker gone, the newest is there again.
        index.delete("b", "k", deleted.version.as_deref(), Time::from_secs(3)).unwrap();
        assert_eq!(index.find("b", "k", None).unwrap().etag, "2");
        assert!(index.take_garbage().is_empty());
    }

    #[test]
    fn versions_come_in_pages_of_whole_keys() {
        let mut index = index(&[]);
        index.set_versioning("b", Some(Versioning::Enabled)).unwrap();
        for key in ["a", "a", "b", "c"] {
            index.put("b", key, version("1")).unwrap();
        }
        let keys = |page: &Versions| {
            page.entries.iter().map(|(key, _, newest)| (key.clone(), *newest)).collect::<Vec<_>>()
        };
        let first = index.versions("b", "", "", 2).unwrap();
        assert_eq!(keys(&first), [("a".to_owned(), true), ("a".to_owned(), false)]);
        let second = index.versions("b", "", first.next.as_deref().unwrap(), 2).unwrap();
        assert_eq!(keys(&second), [("b".to_owned(), true), ("c".to_owned(), true)]);
        assert_eq!(second.next, None);
    }

    #[test]
    fn rows_bring_back_what_was_there_in_any_order() {
        let mut index = index(&["dir/k"]);
        index.set_versioning("b", Some(Versioning::Suspended)).unwrap();
        let mut rows: Vec<Row> = Vec::new();
        for (kind, key, value) in index.take_changes().into_iter().rev() {
            if !rows.iter().any(|row| row.0 == kind && row.1 == key) {
                rows.extend(value.map(|value| (kind, key, value)));
            }
        }
        for reversed in [false, true] {
            if reversed {
                rows.reverse();
            }
            let mut restored = Index::default();
            assert!(rows.iter().all(|row| restored.load(row).unwrap()));
            assert_eq!(restored.find("b", "dir/k", None).unwrap(), index.find("b", "dir/k", None).unwrap());
            assert_eq!(restored.bucket("b").unwrap().versioning, Some(Versioning::Suspended));
        }
    }
}

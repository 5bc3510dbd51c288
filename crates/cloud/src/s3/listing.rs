//! Listings of a bucket, page by page.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3Result, s3_error};

use super::index::Version;
use super::ops::{Operations, timestamp};

/// The most that a page holds.
const MAX_KEYS: i32 = 1000;

impl Operations {
    pub(super) fn page(&self, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
        let prefix = input.prefix.unwrap_or_default();
        let delimiter = input.delimiter.clone().unwrap_or_default();
        let after = match &input.continuation_token {
            Some(token) => hex::decode(token).ok().and_then(|token| String::from_utf8(token).ok()),
            None => input.start_after.clone().or(Some(String::new())),
        };
        let after = after
            .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?;
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS);
        let page = self.0.index().list(&input.bucket, &prefix, &delimiter, &after, max_keys as usize)?;
        let encoded = Encoding::of(input.encoding_type.as_ref());
        let contents: Vec<Object> = page
            .objects
            .iter()
            .map(|(key, version)| Object {
                key: Some(encoded.apply(key)),
                size: Some(version.size as i64),
                e_tag: Some(version.etag()),
                last_modified: Some(timestamp(version.modified)),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Default::default()
            })
            .collect();
        let prefixes =
            page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(encoded.apply(prefix)) });
        Ok(ListObjectsV2Output {
            name: Some(input.bucket),
            key_count: Some((page.objects.len() + page.prefixes.len()) as i32),
            max_keys: Some(max_keys),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.map(hex::encode),
            contents: Some(contents),
            common_prefixes: Some(prefixes.collect()),
            prefix: Some(encoded.apply(&prefix)),
            delimiter: input.delimiter,
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            encoding_type: input.encoding_type,
            request_charged: None,
        })
    }

    /// All versions of a key are on one page: a page is full when the key that fills it has been listed.
    pub(super) fn versions(&self, input: ListObjectVersionsInput) -> S3Result<ListObjectVersionsOutput> {
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.key_marker.clone().unwrap_or_default();
        let max_keys = input.max_keys.unwrap_or(MAX_KEYS).clamp(1, MAX_KEYS);
        let listed = self.0.index().versions(&input.bucket, &prefix, &after, max_keys as usize)?;
        let encoded = Encoding::of(input.encoding_type.as_ref());
        let (versions, markers): (Vec<_>, Vec<_>) =
            listed.entries.into_iter().partition(|(_, version, _)| version.file.is_some());
        let versions = versions.into_iter().map(|(key, version, is_latest)| ObjectVersion {
            key: Some(encoded.apply(&key)),
            is_latest: Some(is_latest),
            last_modified: Some(timestamp(version.modified)),
            size: Some(version.size as i64),
            e_tag: Some(version.etag()),
            version_id: Some(version.id),
            ..Default::default()
        });
        let marker = |(key, version, is_latest): (String, Version, bool)| DeleteMarkerEntry {
            key: Some(encoded.apply(&key)),
            is_latest: Some(is_latest),
            last_modified: Some(timestamp(version.modified)),
            version_id: Some(version.id),
            owner: None,
        };
        Ok(ListObjectVersionsOutput {
            name: Some(input.bucket),
            is_truncated: Some(listed.next.is_some()),
            next_key_marker: listed.next.map(|key| encoded.apply(&key)),
            max_keys: Some(max_keys),
            prefix: input.prefix,
            key_marker: input.key_marker,
            encoding_type: input.encoding_type.clone(),
            versions: Some(versions.collect()),
            delete_markers: Some(markers.into_iter().map(marker).collect()),
            ..Default::default()
        })
    }
}

/// Keys in listings are encoded when the client asks: XML cannot carry all of them.
struct Encoding(bool);

impl Encoding {
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

    fn of(asked: Option<&EncodingType>) -> Encoding {
        Encoding(asked.is_some_and(|asked| asked.as_str() == EncodingType::URL))
    }

    fn apply(&self, key: &str) -> String {
        if self.0 { utf8_percent_encode(key, Self::RESERVED).to_string() } else { key.to_owned() }
    }
}

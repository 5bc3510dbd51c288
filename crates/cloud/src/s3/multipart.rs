//! Uploads in parts: how the AWS CLI sends everything above 8 MiB.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::*;
use s3s::{S3Error, S3Result, s3_error};

use super::index::{Headers, new_id};
use super::ops::{Operations, metadata};
use super::storage::{Received, Upload};

/// No part but the last may be smaller.
const MIN_PART: u64 = 5 << 20;
/// Ours: uploads that are under way at once.
const MAX_UPLOADS: usize = 1000;
const PART_NUMBERS: std::ops::RangeInclusive<i32> = 1..=10_000;

impl Operations {
    pub(super) fn begin_upload(
        &self,
        input: CreateMultipartUploadInput,
    ) -> S3Result<CreateMultipartUploadOutput> {
        self.0.index().bucket(&input.bucket)?;
        let headers = Headers {
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
            metadata: metadata(input.metadata),
        };
        let id = new_id();
        let (bucket, key) = (input.bucket, input.key);
        let upload = Upload { bucket: bucket.clone(), key: key.clone(), headers, parts: Default::default() };
        let mut uploads = self.uploads();
        if uploads.len() >= MAX_UPLOADS {
            return Err(s3_error!(
                SlowDown,
                "Too many uploads are under way: complete or abort some of them"
            ));
        }
        uploads.insert(id.clone(), upload);
        drop(uploads);
        Ok(CreateMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(id),
            ..Default::default()
        })
    }

    pub(super) async fn take_part(&self, input: UploadPartInput) -> S3Result<UploadPartOutput> {
        if !PART_NUMBERS.contains(&input.part_number) {
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            ));
        }
        find(&mut self.uploads(), &input.upload_id, &input.bucket, &input.key)?;
        let part = self.0.receive(input.body, input.content_length, input.content_md5.as_deref()).await?;
        let etag = hex::encode(part.md5);
        // It may have been completed or aborted in the meantime.
        find(&mut self.uploads(), &input.upload_id, &input.bucket, &input.key)?
            .parts
            .insert(input.part_number, part);
        Ok(UploadPartOutput { e_tag: Some(ETag::Strong(etag)), ..Default::default() })
    }

    pub(super) fn parts(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let mut uploads = self.uploads();
        let upload = find(&mut uploads, &input.upload_id, &input.bucket, &input.key)?;
        let parts = upload.parts.iter().map(|(number, part)| Part {
            part_number: Some(*number),
            size: Some(part.size as i64),
            e_tag: Some(ETag::Strong(hex::encode(part.md5))),
            ..Default::default()
        });
        Ok(ListPartsOutput {
            parts: Some(parts.collect()),
            is_truncated: Some(false),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            ..Default::default()
        })
    }

    pub(super) async fn complete_upload(
        &self,
        input: CompleteMultipartUploadInput,
    ) -> S3Result<CompleteMultipartUploadOutput> {
        let wanted = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let (headers, parts) = {
            let mut uploads = self.uploads();
            check_parts(&wanted, find(&mut uploads, &input.upload_id, &input.bucket, &input.key)?)?;
            let mut upload = uploads.remove(&input.upload_id).ok_or_else(no_upload)?;
            let numbers = wanted.iter().filter_map(|part| part.part_number);
            let parts: Vec<Received> = numbers.filter_map(|number| upload.parts.remove(&number)).collect();
            (upload.headers, parts)
        };
        let mut md5 = Md5::new();
        parts.iter().for_each(|part| md5.update(&part.md5));
        // S3's ETag of an object in parts: the digest of the parts' digests, and how many there were.
        let etag = format!("{}-{}", hex::encode(md5.finalize()), parts.len());
        let joined = self.0.join(parts).await?;
        let conditions = (input.if_match.as_ref(), input.if_none_match.as_ref());
        let version_id = self.commit(&input.bucket, &input.key, joined, etag.clone(), headers, conditions)?;
        Ok(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            version_id,
            ..Default::default()
        })
    }

    pub(super) fn abort_upload(&self, input: &AbortMultipartUploadInput) -> S3Result<()> {
        let mut uploads = self.uploads();
        find(&mut uploads, &input.upload_id, &input.bucket, &input.key)?;
        uploads.remove(&input.upload_id);
        Ok(())
    }

    fn uploads(&self) -> MutexGuard<'_, HashMap<String, Upload>> {
        self.0.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(
    uploads: &'a mut HashMap<String, Upload>,
    id: &str,
    bucket: &str,
    key: &str,
) -> S3Result<&'a mut Upload> {
    let upload = uploads.get_mut(id).filter(|upload| upload.bucket == bucket && upload.key == key);
    upload.ok_or_else(no_upload)
}

fn no_upload() -> S3Error {
    s3_error!(NoSuchUpload, "The specified multipart upload does not exist.")
}

/// The parts that the client names: there, unchanged, in order, and large enough.
fn check_parts(wanted: &[CompletedPart], upload: &Upload) -> S3Result<()> {
    if wanted.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part"));
    }
    if !wanted.is_sorted_by(|a, b| a.part_number < b.part_number) {
        return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
    }
    for (at, part) in wanted.iter().enumerate() {
        let there = part.part_number.and_then(|number| upload.parts.get(&number));
        let same = there
            .filter(|there| part.e_tag.as_ref().is_none_or(|etag| etag.value() == hex::encode(there.md5)));
        let Some(there) = same else {
            return Err(s3_error!(InvalidPart, "One or more of the specified parts could not be found."));
        };
        if there.size < MIN_PART && at + 1 < wanted.len() {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size"
            ));
        }
    }
    Ok(())
}

//! The operations of S3 on objects, as far as jobs and the tools around them need them.

use std::collections::BTreeMap;
use std::ops::Range as Span;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};

use super::index::{Headers, Version, Versioning, failed_precondition};
use super::storage::{Received, Storage};
use crate::clock::system_time;
use crate::engine::Time;

/// The most that a page of a listing holds.
const MAX_KEYS: i32 = 1000;

/// S3 over one `Storage`.
#[derive(Clone)]
pub(super) struct Operations(pub(super) Arc<Storage>);

type Answer<T> = S3Result<S3Response<T>>;

#[async_trait::async_trait]
impl S3 for Operations {
    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
        let index = self.0.index();
        let buckets = index.buckets().map(|(name, bucket)| Bucket {
            name: Some(name.clone()),
            creation_date: Some(timestamp(bucket.created)),
            bucket_region: None,
        });
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets.collect()), ..Default::default() }))
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        let bucket = request.input.bucket;
        let now = self.0.clock.now();
        self.0.change(|index| index.create_bucket(&bucket, now))?;
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{bucket}")) }))
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> Answer<DeleteBucketOutput> {
        self.0.change(|index| index.delete_bucket(&request.input.bucket))?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.0.index().bucket(&request.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        self.0.index().bucket(&request.input.bucket)?;
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> Answer<GetBucketVersioningOutput> {
        let status =
            self.0.index().bucket(&request.input.bucket)?.versioning.map(|versioning| match versioning {
                Versioning::Enabled => BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED),
                Versioning::Suspended => {
                    BucketVersioningStatus::from_static(BucketVersioningStatus::SUSPENDED)
                }
            });
        Ok(S3Response::new(GetBucketVersioningOutput { status, mfa_delete: None }))
    }

    async fn put_bucket_versioning(
        &self,
        request: S3Request<PutBucketVersioningInput>,
    ) -> Answer<PutBucketVersioningOutput> {
        let status = request.input.versioning_configuration.status;
        let versioning = match status.as_ref().map(BucketVersioningStatus::as_str) {
            Some(BucketVersioningStatus::ENABLED) => Versioning::Enabled,
            Some(BucketVersioningStatus::SUSPENDED) => Versioning::Suspended,
            _ => {
                return Err(s3_error!(
                    IllegalVersioningConfigurationException,
                    "Status is Enabled or Suspended"
                ));
            }
        };
        self.0.change(|index| index.set_versioning(&request.input.bucket, Some(versioning)))?;
        Ok(S3Response::new(PutBucketVersioningOutput::default()))
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let input = request.input;
        self.0.index().bucket(&input.bucket)?;
        let received = self.0.receive(input.body, input.content_length, input.content_md5.as_deref()).await?;
        let headers = Headers {
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            content_disposition: input.content_disposition,
            content_language: input.content_language,
            cache_control: input.cache_control,
            metadata: metadata(input.metadata),
        };
        let etag = hex::encode(received.md5);
        let (if_match, if_none_match) = (input.if_match.as_ref(), input.if_none_match.as_ref());
        let version_id = self.commit(
            &input.bucket,
            &input.key,
            received,
            etag.clone(),
            headers,
            (if_match, if_none_match),
        )?;
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(ETag::Strong(etag)),
            version_id,
            ..Default::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let input = &request.input;
        let (version, file) = self.0.fetch(&input.bucket, &input.key, input.version_id.as_deref())?;
        check_read(&version, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        check_times(
            &version,
            input.if_modified_since.as_ref(),
            input.if_unmodified_since.as_ref(),
            input.if_none_match.is_some(),
        )?;
        let range = input.range.filter(|_| range_applies(&version, request.headers.get("if-range")));
        let span = span(&version, range)?;
        let body = self.0.stream(file, span.clone()).await?;
        let output = GetObjectOutput {
            body: Some(body),
            content_length: Some((span.end - span.start) as i64),
            content_range: range.map(|_| content_range(&span, version.size)),
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(version.etag()),
            last_modified: Some(timestamp(version.modified)),
            version_id: shown_id(&version),
            content_type: Some(content_type(&version.headers)),
            content_encoding: version.headers.content_encoding,
            content_disposition: version.headers.content_disposition,
            content_language: version.headers.content_language,
            cache_control: version.headers.cache_control,
            metadata: Some(version.headers.metadata.into_iter().collect()),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let input = &request.input;
        let version = self.find(&input.bucket, &input.key, input.version_id.as_deref())?;
        check_read(&version, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        check_times(
            &version,
            input.if_modified_since.as_ref(),
            input.if_unmodified_since.as_ref(),
            input.if_none_match.is_some(),
        )?;
        let range = input.range.filter(|_| range_applies(&version, request.headers.get("if-range")));
        let span = span(&version, range)?;
        let output = HeadObjectOutput {
            content_length: Some((span.end - span.start) as i64),
            content_range: range.map(|_| content_range(&span, version.size)),
            accept_ranges: Some("bytes".to_owned()),
            e_tag: Some(version.etag()),
            last_modified: Some(timestamp(version.modified)),
            version_id: shown_id(&version),
            content_type: Some(content_type(&version.headers)),
            content_encoding: version.headers.content_encoding,
            content_disposition: version.headers.content_disposition,
            content_language: version.headers.content_language,
            cache_control: version.headers.cache_control,
            metadata: Some(version.headers.metadata.into_iter().collect()),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        let input = request.input;
        let CopySource::Bucket { bucket, key, version_id } = &input.copy_source else {
            return Err(s3_error!(NotImplemented, "Copies from access points are not implemented"));
        };
        let (source, file) = self.0.fetch(bucket, key, version_id.as_deref())?;
        let body = self.0.stream(file, 0..source.size).await?;
        let received = self.0.receive(Some(body), None, None).await?;
        let etag = hex::encode(received.md5);
        let version_id =
            self.commit(&input.bucket, &input.key, received, etag.clone(), source.headers, (None, None))?;
        let result = CopyObjectResult {
            e_tag: Some(ETag::Strong(etag)),
            last_modified: Some(timestamp(self.0.clock.now())),
            ..Default::default()
        };
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            version_id,
            ..Default::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let input = request.input;
        let now = self.0.clock.now();
        let deleted = self
            .0
            .change(|index| index.delete(&input.bucket, &input.key, input.version_id.as_deref(), now))?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: deleted.marker.then_some(true),
            version_id: deleted.version,
            request_charged: None,
        }))
    }

    async fn delete_objects(&self, request: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        let input = request.input;
        let now = self.0.clock.now();
        let mut gone = Vec::new();
        for object in input.delete.objects {
            let id = object.version_id.as_deref();
            let deleted = self.0.change(|index| index.delete(&input.bucket, &object.key, id, now))?;
            gone.push(DeletedObject {
                key: Some(object.key),
                delete_marker: deleted.marker.then_some(true),
                delete_marker_version_id: deleted.version.filter(|_| deleted.marker),
                version_id: object.version_id,
            });
        }
        let deleted = (input.delete.quiet != Some(true)).then_some(gone);
        Ok(S3Response::new(DeleteObjectsOutput { deleted, ..Default::default() }))
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        let input = request.input;
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
        Ok(S3Response::new(ListObjectsV2Output {
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
        }))
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> Answer<ListObjectVersionsOutput> {
        let input = request.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.key_marker.clone().unwrap_or_default();
        let encoded = Encoding::of(input.encoding_type.as_ref());
        let mut versions = Vec::new();
        let mut markers = Vec::new();
        for (key, version, is_latest) in self.0.index().versions(&input.bucket, &prefix, &after)? {
            let (key, version_id) = (Some(encoded.apply(&key)), Some(version.id.clone()));
            let (last_modified, is_latest) = (Some(timestamp(version.modified)), Some(is_latest));
            if version.file.is_some() {
                let (size, e_tag) = (Some(version.size as i64), Some(version.etag()));
                versions.push(ObjectVersion {
                    key,
                    version_id,
                    last_modified,
                    is_latest,
                    size,
                    e_tag,
                    ..Default::default()
                });
            } else {
                markers.push(DeleteMarkerEntry { key, version_id, last_modified, is_latest, owner: None });
            }
        }
        Ok(S3Response::new(ListObjectVersionsOutput {
            name: Some(input.bucket),
            is_truncated: Some(false),
            max_keys: Some(MAX_KEYS),
            prefix: input.prefix,
            key_marker: input.key_marker,
            encoding_type: input.encoding_type,
            versions: Some(versions),
            delete_markers: Some(markers),
            ..Default::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        self.begin_upload(request.input).map(S3Response::new)
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        self.take_part(request.input).await.map(S3Response::new)
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        self.parts(request.input).map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        self.complete_upload(request.input).await.map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        self.abort_upload(&request.input)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}

impl Operations {
    fn find(&self, bucket: &str, key: &str, id: Option<&str>) -> S3Result<Version> {
        self.0.index().find(bucket, key, id).cloned()
    }

    /// Received bytes become the newest version, if the conditions hold at this moment.
    pub(super) fn commit(
        &self,
        bucket: &str,
        key: &str,
        received: Received,
        etag: String,
        headers: Headers,
        (if_match, if_none_match): (Option<&ETagCondition>, Option<&ETagCondition>),
    ) -> S3Result<Option<String>> {
        let now = self.0.clock.now();
        self.0.change(|index| {
            index.check_write(bucket, key, if_match, if_none_match)?;
            let size = received.size;
            index.put(bucket, key, Version::new(received.keep(), size, etag, now, headers))
        })
    }
}

fn check_read(
    version: &Version,
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<()> {
    if if_match.is_some_and(|condition| !version.matches(condition)) {
        return Err(failed_precondition());
    }
    if if_none_match.is_some_and(|condition| version.matches(condition)) {
        return Err(not_modified(version));
    }
    Ok(())
}

/// The conditions on times count where those on ETags are silent (RFC 9110, section 13.2.2).
fn check_times(
    version: &Version,
    if_modified_since: Option<&Timestamp>,
    if_unmodified_since: Option<&Timestamp>,
    has_if_none_match: bool,
) -> S3Result<()> {
    let modified = timestamp(Time::from_secs(version.modified.secs()));
    if if_unmodified_since.is_some_and(|since| modified > *since) {
        return Err(failed_precondition());
    }
    if !has_if_none_match && if_modified_since.is_some_and(|since| modified <= *since) {
        return Err(not_modified(version));
    }
    Ok(())
}

fn not_modified(version: &Version) -> S3Error {
    let mut error = s3_error!(NotModified);
    if let Ok(etag) = version.etag().to_http_header() {
        error.set_headers([(hyper::header::ETAG, etag)].into_iter().collect());
    }
    error
}

/// `If-Range`: a range of another object than the client has begun with would only do harm, it then gets the whole.
fn range_applies(version: &Version, if_range: Option<&hyper::header::HeaderValue>) -> bool {
    let Some(condition) = if_range else { return true };
    let Ok(condition) = condition.to_str() else { return false };
    if let Ok(date) = Timestamp::parse(TimestampFormat::HttpDate, condition) {
        return date == timestamp(Time::from_secs(version.modified.secs()));
    }
    // A strong comparison: `W/"…"` never holds.
    condition.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(version.etag.as_str())
}

fn span(version: &Version, range: Option<Range>) -> S3Result<Span<u64>> {
    let Some(range) = range else { return Ok(0..version.size) };
    range.check(version.size).map_err(|_| {
        let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
        if let Ok(total) = format!("bytes */{}", version.size).parse() {
            error.set_headers([(hyper::header::CONTENT_RANGE, total)].into_iter().collect());
        }
        error
    })
}

fn content_range(span: &Span<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", span.start, span.end.saturating_sub(1))
}

fn content_type(headers: &Headers) -> String {
    headers.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())
}

fn shown_id(version: &Version) -> Option<String> {
    (version.id != "null").then(|| version.id.clone())
}

pub(super) fn metadata(metadata: Option<Metadata>) -> BTreeMap<String, String> {
    metadata.unwrap_or_default().into_iter().collect()
}

pub(super) fn timestamp(at: Time) -> Timestamp {
    Timestamp::from(system_time(at))
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

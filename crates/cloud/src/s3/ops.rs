//! The operations of S3 on objects, as far as jobs and the tools around them need them.

use std::collections::BTreeMap;
use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use super::index::{Headers, Version, Versioning};
use super::read::Conditions;
use super::storage::{Received, Storage};
use crate::clock::system_time;
use crate::engine::Time;

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
        let conditions = Conditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
            range: input.range,
            if_range: request.headers.get("if-range"),
        };
        let (span, content_range) = conditions.admit(&version)?;
        let body = self.0.stream(file, span.clone()).await?;
        let output = GetObjectOutput {
            body: Some(body),
            content_length: Some((span.end - span.start) as i64),
            content_range,
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
        let conditions = Conditions {
            if_match: input.if_match.as_ref(),
            if_none_match: input.if_none_match.as_ref(),
            if_modified_since: input.if_modified_since.as_ref(),
            if_unmodified_since: input.if_unmodified_since.as_ref(),
            range: input.range,
            if_range: request.headers.get("if-range"),
        };
        let (span, content_range) = conditions.admit(&version)?;
        let output = HeadObjectOutput {
            content_length: Some((span.end - span.start) as i64),
            content_range,
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
        self.page(request.input).map(S3Response::new)
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> Answer<ListObjectVersionsOutput> {
        self.versions(request.input).map(S3Response::new)
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

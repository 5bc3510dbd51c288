//! The object store, asked by the AWS CLI and by plain HTTP with presigned URLs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // helpers of tests, outside of them

mod support;

use std::fs;
use std::path::Path;

use serde_json::json;
use support::{Cloud, arn, aws, aws_done, http};

/// A cloud with one object, and the presigned URL that a job hands out for it.
struct Shop {
    cloud: Cloud,
    folder: tempfile::TempDir,
}

impl Shop {
    fn new(options: &[&str]) -> Shop {
        let shop = Shop { cloud: Cloud::start(options), folder: tempfile::tempdir().unwrap() };
        aws_done(shop.cloud.s3(), &["s3api", "create-bucket", "--bucket", "firmware"]);
        shop.cloud.done("CreateThing", json!({"thingName": "edge-01"}), json!(null));
        shop
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.folder.path().join("body");
        fs::write(&path, bytes).unwrap();
        aws_done(
            self.cloud.s3(),
            &["s3api", "put-object", "--bucket", "firmware", "--key", key, "--body", path.to_str().unwrap()],
        );
    }

    /// What a device finds in a job's document in the place of this placeholder.
    fn signed(&self, job: &str, placeholder: &str) -> String {
        let target = arn("thing/edge-01");
        let document = json!({"url": placeholder}).to_string();
        let body = json!({
            "targets": [target],
            "document": document,
            "presignedUrlConfig": {"roleArn": "arn:aws:iam::123456789012:role/jobs", "expiresInSec": 60},
        });
        self.cloud.done("CreateJob", json!({"jobId": job}), body);
        let mut seen = 0;
        self.cloud.messages(&mut seen);
        self.cloud.publish("edge-01", &format!("$aws/things/edge-01/jobs/{job}/get"), json!({}));
        let answer = self.cloud.messages(&mut seen).pop().unwrap();
        answer["payload"]["execution"]["jobDocument"]["url"].as_str().unwrap().to_owned()
    }

    fn signed_get(&self, job: &str, key: &str) -> String {
        self.signed(
            job,
            &format!("${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/firmware/{key}}}"),
        )
    }
}

#[test]
fn the_url_of_a_job_gets_the_object_and_nothing_else() {
    let shop = Shop::new(&[]);
    shop.put("v 2/ä.bin", b"firmware");
    let url = shop.signed_get("job", "v 2/ä.bin");
    let got = http("GET", &url, &[], b"");
    assert_eq!((got.status, got.body.as_slice()), (200, &b"firmware"[..]));

    assert!(url.starts_with(shop.cloud.s3()));
    let (address, query) = url.split_once('?').unwrap();
    let refused = [
        ("without a signature", address.to_owned(), "AccessDenied"),
        ("another key", url.replace(".bin", ".bim"), "SignatureDoesNotMatch"),
        ("a longer life", url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"), "SignatureDoesNotMatch"),
        (
            "half of the parameters",
            format!("{address}?{}", query.replace("X-Amz-Date", "x")),
            "AuthorizationQueryParametersError",
        ),
        ("another session", url.replace("Security-Token=", "Security-Token=9"), "SignatureDoesNotMatch"),
        ("another access key", url.replace("Credential=test", "Credential=toast"), "InvalidAccessKeyId"),
    ];
    for (how, url, code) in refused {
        let answer = http("GET", &url, &[], b"");
        assert!(matches!(answer.status, 400 | 403), "{how}: {}", answer.status);
        assert!(answer.text().contains(&format!("<Code>{code}</Code>")), "{how}: {}", answer.text());
    }
    // A URL to read with is none to write with.
    assert_eq!(http("PUT", &url, &[], b"evil").status, 403);
    assert_eq!(http("GET", &url, &[], b"").text(), "firmware");
}

#[test]
fn a_device_that_knows_the_store_by_another_address_gets_urls_that_are_signed_for_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let elsewhere = format!("http://localhost:{}", free.port());
    let shop = Shop::new(&["--s3", &free.to_string(), "--s3-url", &format!("{elsewhere}/")]);
    shop.put("fw", b"firmware");
    let url = shop.signed_get("job", "fw");
    assert!(url.starts_with(&format!("{elsewhere}/firmware/fw?")), "{url}");
    assert_eq!(http("GET", &url, &[], b"").text(), "firmware");
    assert_eq!(http("GET", &url.replace(&elsewhere, shop.cloud.s3()), &[], b"").status, 403);
}

#[test]
fn every_delivery_is_signed_anew_also_within_a_second() {
    let shop = Shop::new(&["--clock", "manual:1700000000"]);
    shop.put("fw", b"firmware");
    shop.signed_get("job", "fw"); // after notify-next, which signed too
    let asks = [
        ("$next/get", json!({})),
        ("job/get", json!({})),
        ("start-next", json!({})),
        ("job/update", json!({"status": "IN_PROGRESS", "includeJobDocument": true})),
    ];
    for (topic, payload) in asks {
        shop.cloud.publish("edge-01", &format!("$aws/things/edge-01/jobs/{topic}"), payload);
    }
    let messages = shop.cloud.messages(&mut 0);
    let documents = messages.iter().map(|message| &message["payload"]).filter_map(|payload| {
        payload["execution"].get("jobDocument").or_else(|| payload.get("jobDocument"))?["url"].as_str()
    });
    let urls: Vec<&str> = documents.collect();
    assert_eq!(urls.len(), 6);
    for (at, url) in urls.iter().enumerate() {
        assert!(!urls[..at].contains(url), "signed before: {url}");
        assert_eq!(url.split('?').next(), urls[0].split('?').next());
        assert_eq!(http("GET", url, &[], b"").text(), "firmware");
    }
}

#[test]
fn a_url_expires_by_the_clouds_clock() {
    let shop = Shop::new(&["--clock", "manual:1700000000"]);
    shop.put("fw", b"firmware");
    let url = shop.signed_get("job", "fw");
    shop.cloud.advance(60);
    assert_eq!(http("GET", &url, &[], b"").status, 200);
    shop.cloud.advance(1);
    let expired = http("GET", &url, &[], b"");
    assert_eq!(expired.status, 403);
    assert!(expired.text().contains("Request has expired"), "{}", expired.text());
}

#[test]
fn an_upload_placeholder_takes_a_put() {
    let shop = Shop::new(&[]);
    let place = "https://s3.us-east-1.amazonaws.com/firmware/logs/${thingName}/${jobId}";
    let url = shop.signed("collect", &format!("${{aws:iot:s3-presigned-url-upload:{place}}}"));
    assert_eq!(http("PUT", &url, &[], b"a log").status, 200);
    let head = ["s3api", "head-object", "--bucket", "firmware", "--key", "logs/edge-01/collect"];
    assert_eq!(aws_done(shop.cloud.s3(), &head)["ContentLength"], 5);
}

#[test]
fn an_upload_that_names_no_bucket_has_a_place_too() {
    let shop = Shop::new(&[]);
    for job in ["first", "second"] {
        let url = shop.signed(job, "${aws:iot:s3-presigned-url-upload}");
        assert!(url.contains(&format!("/edge-01/{job}/1?")), "{url}");
        assert_eq!(http("PUT", &url, &[], b"log").status, 200, "{url}");
    }
}

#[test]
fn ranges_and_conditions() {
    let shop = Shop::new(&[]);
    shop.put("fw", b"0123456789");
    let url = shop.signed_get("job", "fw");
    let whole = http("GET", &url, &[], b"");
    let etag = whole.header("etag").unwrap().to_owned();
    assert_eq!(etag, "\"781e5e245d69b566979b86e28d23f2c7\"", "MD5, as at S3");
    let modified = whole.header("last-modified").unwrap().to_owned();
    let weak = format!("W/{etag}");
    for (headers, status, body) in [
        (vec![("Range", "bytes=2-4")], 206, "234"),
        (vec![("Range", "bytes=7-")], 206, "789"),
        (vec![("Range", "bytes=-2")], 206, "89"),
        (vec![("Range", "bytes=7-99")], 206, "789"),
        (vec![("Range", "bytes=2-4"), ("If-Range", etag.as_str())], 206, "234"),
        (vec![("Range", "bytes=2-4"), ("If-Range", modified.as_str())], 206, "234"),
        (vec![("Range", "bytes=2-4"), ("If-Range", "\"another\"")], 200, "0123456789"),
        (vec![("Range", "bytes=2-4"), ("If-Range", weak.as_str())], 200, "0123456789"),
        (vec![("Range", "bytes=2-4"), ("If-Range", "Mon, 01 Jan 2001 00:00:00 GMT")], 200, "0123456789"),
        (vec![("If-Match", etag.as_str())], 200, "0123456789"),
        (vec![("If-None-Match", "\"another\"")], 200, "0123456789"),
        (vec![("If-None-Match", etag.as_str())], 304, ""),
    ] {
        let answer = http("GET", &url, &headers, b"");
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{headers:?}");
    }
    let part = http("GET", &url, &[("Range", "bytes=2-4")], b"");
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let past = http("GET", &url, &[("Range", "bytes=10-")], b"");
    assert_eq!((past.status, past.header("content-range")), (416, Some("bytes */10")));
    assert_eq!(http("GET", &url, &[("If-Match", "\"another\"")], b"").status, 412);
}

#[test]
fn the_cli_uploads_in_parts_and_gets_the_same_back() {
    let shop = Shop::new(&[]);
    let (up, down) = (shop.folder.path().join("up"), shop.folder.path().join("down"));
    // Above 8 MiB the CLI sends parts; a length that no part size divides.
    let bytes: Vec<u8> = (0..20_000_003_u32).map(|at| (at ^ (at >> 8)) as u8).collect();
    fs::write(&up, &bytes).unwrap();
    let copy = |from: &str, to: &str| aws_done(shop.cloud.s3(), &["s3", "cp", "--quiet", from, to]);
    copy(up.to_str().unwrap(), "s3://firmware/big");
    copy("s3://firmware/big", down.to_str().unwrap());
    assert!(fs::read(&down).unwrap() == bytes);
    let head = aws_done(shop.cloud.s3(), &["s3api", "head-object", "--bucket", "firmware", "--key", "big"]);
    assert!(head["ETag"].as_str().unwrap().ends_with("-3\""), "{head}");
    assert_eq!(head["ContentLength"], 20_000_003);
}

#[test]
fn versions_stay_until_they_are_deleted() {
    let shop = Shop::new(&[]);
    let s3 = shop.cloud.s3();
    let api = |arguments: &[&str]| aws_done(s3, &[&["s3api"], arguments].concat());
    api(&["put-bucket-versioning", "--bucket", "firmware", "--versioning-configuration", "Status=Enabled"]);
    shop.put("fw", b"first");
    shop.put("fw", b"second");
    let list = api(&["list-object-versions", "--bucket", "firmware"]);
    let first = list["Versions"][1]["VersionId"].as_str().unwrap();
    let placeholder =
        format!("https%3A%2F%2Fs3.us-east-1.amazonaws.com%2Ffirmware%2Ffw%3FversionId%3D{first}");
    let url = shop.signed("job", &format!("${{aws:iot:s3-presigned-url-v2:{placeholder}}}"));
    assert_eq!(http("GET", &url, &[], b"").text(), "first");
    api(&["delete-object", "--bucket", "firmware", "--key", "fw"]);
    assert_eq!(http("GET", &url, &[], b"").text(), "first");
    assert!(!aws(s3, &["s3api", "head-object", "--bucket", "firmware", "--key", "fw"]).status.success());
    api(&["delete-object", "--bucket", "firmware", "--key", "fw", "--version-id", first]);
    assert_eq!(http("GET", &url, &[], b"").status, 404);
}

#[test]
fn a_document_may_come_from_the_store() {
    let shop = Shop::new(&[]);
    shop.put("jobs/reboot.json", br#"{"operation":"reboot"}"#);
    let create = |key: &str| {
        let source = format!("https://s3.amazonaws.com/firmware/{key}");
        let arguments = ["iot", "create-job", "--job-id", "job", "--document-source", &source, "--targets"];
        aws(shop.cloud.api(), &[&arguments[..], &[&arn("thing/edge-01")]].concat())
    };
    assert!(!create("jobs/none.json").status.success());
    assert!(create("jobs/reboot.json").status.success());
    // What happens to the object afterwards is of no concern to the job.
    shop.put("jobs/reboot.json", b"{}");
    let document = shop.cloud.done("GetJobDocument", json!({"jobId": "job"}), json!(null));
    assert_eq!(document["document"], r#"{"operation":"reboot"}"#);
}

#[test]
fn wrong_keys_of_the_store_are_refused() {
    let cloud = Cloud::start(&["--s3-access-key", "other", "--s3-secret-key", "other"]);
    let output = aws(cloud.s3(), &["s3api", "list-buckets"]);
    assert!(!output.status.success());
}

#[test]
fn memory_does_not_grow_with_the_object() {
    const SIZE: u64 = 512 << 20;
    let shop = Shop::new(&[]);
    let place = "https://s3.us-east-1.amazonaws.com/firmware/big";
    let put = shop.signed("up", &format!("${{aws:iot:s3-presigned-url-upload:{place}}}"));
    let get = shop.signed_get("down", "big");
    let file = shop.folder.path().join("big");
    fs::File::create(&file).unwrap().set_len(SIZE).unwrap();
    let curl = |arguments: &[&str]| {
        let output = std::process::Command::new("curl").args(["-sSf"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    curl(&["-T", file.to_str().unwrap(), &put]);
    curl(&["-o", "/dev/null", &get]);
    let status =
        fs::read_to_string(Path::new("/proc").join(shop.cloud.pid().to_string()).join("status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 64 << 10, "VmHWM {kib} KiB");
}

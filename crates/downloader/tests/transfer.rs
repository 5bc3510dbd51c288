//! One misbehaviour of a server, a test; the last word is always the digest of the file.

mod support;

use std::time::{Duration, Instant};

use downloader::{Error, Fetched, Limits, Progress, Sink, UrlError};
use support::*;

const TAG: &str = "ETag: \"v1\"";

#[tokio::test]
async fn a_plain_transfer() {
    let data = noise(300_000);
    let served = data.clone();
    let server = Server::start(move |_, request| object(request, &served, TAG)).await;
    let mut transfer = Transfer::of(&data);
    assert_eq!(transfer.fetch(&server.url()).await.unwrap(), Fetched { bytes: 300_000, attempts: 1 });
    assert_eq!(transfer.progress.last(), Some(&Progress { received: 300_000, total: Some(300_000) }));
    assert!(transfer.progress.is_sorted_by_key(|p| p.received));
    let request = &server.requests()[0];
    assert_eq!(request.target, "/fw.bin?X-Amz-Signature=SECRET");
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    assert_eq!(request.header("range"), None);
    // A second call has nothing left to ask for.
    assert_eq!(transfer.fetch(&server.url()).await.unwrap().attempts, 0);
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn an_empty_artifact() {
    let server = Server::start(|_, request| object(request, b"", TAG)).await;
    let mut transfer = Transfer::of(b"");
    assert_eq!(transfer.fetch(&server.url()).await.unwrap(), Fetched { bytes: 0, attempts: 1 });
    assert_eq!(transfer.verified().await, b"");
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_broke() {
    let data = noise(200_000);
    let served = data.clone();
    let server = Server::start(move |n, request| match n {
        0 => object(request, &served, TAG).cut_body(70_001),
        1 => Reply::status("200 OK").cut(0),
        _ => object(request, &served, TAG),
    })
    .await;
    let mut transfer = Transfer::of(&data);
    assert_eq!(transfer.fetch(&server.url()).await.unwrap().attempts, 3);
    for request in &server.requests()[1..] {
        assert_eq!(
            (request.header("range"), request.header("if-range")),
            (Some("bytes=70001-"), Some("\"v1\""))
        );
    }
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn a_date_ties_ranges_together_where_there_is_no_etag() {
    let data = noise(50_000);
    let served = data.clone();
    let server = Server::start(move |n, request| {
        let reply = object(request, &served, "Last-Modified: Sat, 21 Nov 2026 00:00:00 GMT");
        if n == 0 { reply.cut_body(1234) } else { reply }
    })
    .await;
    let mut transfer = Transfer::of(&data);
    transfer.fetch(&server.url()).await.unwrap();
    assert_eq!(server.requests()[1].header("if-range"), Some("Sat, 21 Nov 2026 00:00:00 GMT"));
    assert_eq!(server.requests()[1].from(), Some(1234));
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn without_a_strong_validator_it_begins_again() {
    for tag in ["", "ETag: W/\"v1\""] {
        let data = noise(50_000);
        let served = data.clone();
        let server = Server::start(move |n, request| {
            let reply = object(request, &served, tag);
            if n == 0 { reply.cut_body(40_000) } else { reply }
        })
        .await;
        let mut transfer = Transfer::of(&data);
        transfer.fetch(&server.url()).await.unwrap();
        assert_eq!(server.requests()[1].header("range"), None, "{tag}");
        assert_eq!(transfer.verified().await, data);
    }
}

#[tokio::test]
async fn two_objects_never_mix() {
    // The object changes after 60,000 bytes. One server knows If-Range, the other answers with the new one's range.
    for honest in [true, false] {
        let (old, new) = (noise(100_000), noise(100_000).into_iter().rev().collect::<Vec<_>>());
        let served = new.clone();
        let server = Server::start(move |n, request| match (n, request.from()) {
            (0, _) => object(request, &old, TAG).cut_body(60_000),
            (_, Some(from)) if !honest => partial(from, &served, "ETag: \"v2\""),
            _ => object(request, &served, "ETag: \"v2\""),
        })
        .await;
        let mut transfer = Transfer::of(&new);
        transfer.fetch(&server.url()).await.unwrap();
        assert_eq!(transfer.verified().await, new, "honest: {honest}");
    }
}

#[tokio::test]
async fn a_partial_answer_must_fit() {
    let data = noise(10_000);
    let lies = [
        "Content-Range: bytes 3999-9999/10000", // begins elsewhere
        "Content-Range: bytes 4000-9999/10001", // of another length
        "Content-Range: bytes 4000-10000/10000",
        "Content-Range: bytes 4000-10000/*",
        "Content-Range: garbage",
        "X-Content-Range: none",
    ];
    for lie in lies {
        let served = data.clone();
        let server = Server::start(move |n, request| match n {
            0 => object(request, &served, TAG).cut_body(4000),
            1 => Reply::new("206 Partial Content", &[lie, TAG, "Content-Length: 6000"], &[0xEE; 6000]),
            _ => object(request, &served, TAG),
        })
        .await;
        let mut transfer = Transfer::of(&data);
        transfer.fetch(&server.url()).await.unwrap();
        assert_eq!(server.requests()[2].header("range"), None, "{lie}");
        assert_eq!(transfer.verified().await, data, "{lie}");
    }
}

#[tokio::test]
async fn a_partial_answer_is_not_longer_than_it_says() {
    let data = noise(10_000);
    let served = data.clone();
    let server = Server::start(move |n, request| match n {
        0 => object(request, &served, TAG).cut_body(4000),
        _ => Reply::new(
            "206 Partial Content",
            &["Content-Range: bytes 4000-4099/10000", TAG, "Content-Length: 6000"],
            &served[4000..],
        ),
    })
    .await;
    let mut transfer = Transfer::of(&data);
    let error = transfer.fetch(&server.url()).await.unwrap_err();
    assert!(matches!(error, Error::BadResponse(_)), "{error}");
    assert_eq!(transfer.staging.position(), 4100);
}

#[tokio::test]
async fn a_server_may_send_less_than_was_asked_for() {
    let data = noise(10_000);
    let served = data.clone();
    let server = Server::start(move |n, request| match request.from() {
        None => object(request, &served, TAG).cut_body(1000),
        Some(from) => {
            let last = (from + 3000).min(served.len() - 1);
            let range = format!("Content-Range: bytes {from}-{last}/10000");
            let length = format!("Content-Length: {}", last + 1 - from);
            assert!(n < 5);
            Reply::new("206 Partial Content", &[&range, &length, TAG], &served[from..=last])
        }
    })
    .await;
    let mut transfer = Transfer::of(&data);
    transfer.fetch(&server.url()).await.unwrap();
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn a_server_that_knows_no_ranges_is_not_asked_for_ever() {
    let data = noise(10_000);
    let served = data.clone();
    let server = Server::start(move |_, _| {
        Reply::new("200 OK", &["Content-Length: 10000", TAG], &served).cut_body(9000)
    })
    .await;
    let mut transfer = Transfer::of(&data);
    let error = transfer.fetch(&server.url()).await.unwrap_err();
    assert_eq!(error.reason(), "network-error");
    assert_eq!(server.requests().len(), 7, "the first one and five restarts");
}

#[tokio::test]
async fn the_same_bytes_go_on_with_a_fresh_url() {
    let data = noise(100_000);
    let served = data.clone();
    let server = Server::start(move |_, request| match (request.target.as_str(), request.from()) {
        ("/fw.bin?fresh", _) => object(request, &served, TAG),
        (_, None) => object(request, &served, TAG).cut_body(30_000),
        (_, Some(_)) => Reply::status("403 Forbidden"),
    })
    .await;
    let mut transfer = Transfer::of(&data);
    let error = transfer.fetch(&server.url()).await.unwrap_err();
    assert!(matches!(error, Error::Forbidden { status: 403 }) && error.reason() == "url-expired", "{error}");
    transfer.fetch(&format!("http://{}/fw.bin?fresh", server.address)).await.unwrap();
    assert_eq!(server.requests().last().unwrap().from(), Some(30_000));
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn a_client_error_is_final() {
    for (status, reason) in [
        ("400 Bad Request", "http-status"),
        ("404 Not Found", "http-status"),
        ("410 Gone", "http-status"),
        ("204 No Content", "http-status"),
        ("206 Partial Content", "http-status"), // nobody asked for a part
        ("401 Unauthorized", "url-expired"),
    ] {
        let server = Server::start(move |_, _| Reply::status(status)).await;
        let error = Transfer::of(b"x").fetch(&server.url()).await.unwrap_err();
        assert_eq!((error.reason(), error.is_transient()), (reason, false), "{status}");
        assert!(error.to_string().contains(&status[..3]), "{error}");
        assert_eq!(server.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_server_error_is_tried_again() {
    let data = noise(1000);
    let served = data.clone();
    let server = Server::start(move |n, request| match n {
        0 => Reply::status("500 Internal Server Error"),
        1 => Reply::status("503 Slow Down"),
        2 => Reply::status("408 Request Timeout"),
        3 => Reply::new("429 Too Many Requests", &["Retry-After: 0", "Content-Length: 0"], b""),
        4 => Reply { bytes: b"\x00\xffgarbage\r\n\r\n".to_vec(), then: Then::Close },
        _ => object(request, &served, TAG),
    })
    .await;
    let mut transfer = Transfer::of(&data);
    assert_eq!(transfer.fetch(&server.url()).await.unwrap().attempts, 6);
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn server_errors_without_end_are_given_up() {
    let server = Server::start(|_, _| Reply::status("502 Bad Gateway")).await;
    let error = Transfer::of(b"x").fetch(&server.url()).await.unwrap_err();
    assert_eq!((error.reason(), error.is_transient()), ("network-error", true));
    assert!(error.to_string().contains("502"), "{error}");
    assert_eq!(server.requests().len(), 8);
}

#[tokio::test]
async fn nobody_listens() {
    let error = Transfer::of(b"x").fetch("http://127.0.0.1:1/fw.bin?SECRET").await.unwrap_err();
    assert!(error.reason() == "network-error" && error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn lengths_are_refused_before_a_byte_is_written() {
    let data = noise(1000);
    for (declared, max_size, reason) in
        [(Some(999), 5000, "size-mismatch"), (None, 999, "too-large"), (Some(1000), 999, "too-large")]
    {
        let served = data.clone();
        let server = Server::start(move |_, request| object(request, &served, TAG)).await;
        let mut transfer = Transfer::of(&data);
        (transfer.size, transfer.limits.max_size) = (declared, max_size);
        let error = transfer.fetch(&server.url()).await.unwrap_err();
        assert_eq!((error.reason(), error.is_transient()), (reason, false));
        assert_eq!(transfer.staging.position(), 0);
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_cut_at_what_is_allowed() {
    for (declared, reason) in [(None, "too-large"), (Some(10_000), "size-mismatch")] {
        let server = Server::start(|_, _| {
            let endless = Then::Repeat(chunked(&[&[7; 4096]]), Duration::ZERO);
            Reply::new("200 OK", &["Transfer-Encoding: chunked"], b"").then(endless)
        })
        .await;
        let mut transfer = Transfer::of(b"");
        (transfer.size, transfer.limits.max_size) = (declared, 10_000);
        let error = transfer.fetch(&server.url()).await.unwrap_err();
        assert_eq!(error.reason(), reason);
        assert_eq!(transfer.staging.position(), 10_000);
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_that_ends() {
    let data = noise(10_000);
    let body = chunked(&[&data[..10], &data[10..], b""]);
    let server =
        Server::start(move |_, _| Reply::new("200 OK", &["Transfer-Encoding: chunked"], &body)).await;
    let mut transfer = Transfer::of(&data);
    assert_eq!(transfer.fetch(&server.url()).await.unwrap().attempts, 1);
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    let server = Server::start(|_, _| {
        Reply::new("200 OK", &["Content-Encoding: gzip", "Content-Length: 3"], b"\x1f\x8b\x08")
    })
    .await;
    let mut transfer = Transfer::of(b"x");
    let error = transfer.fetch(&server.url()).await.unwrap_err();
    assert!(matches!(&error, Error::BadResponse(why) if why.contains("gzip")), "{error}");
    assert_eq!(transfer.staging.position(), 0);
}

#[tokio::test]
async fn redirects_are_followed_and_bounded() {
    let data = noise(1000);
    let served = data.clone();
    let server = Server::start(move |n, request| match n {
        0..5 => Reply::new("302 Found", &[&format!("Location: /hop/{n}?SECRET"), "Content-Length: 0"], b""),
        5 => object(request, &served, TAG).cut_body(500),
        6 => Reply::new("307 Temporary Redirect", &["Location: /again", "Content-Length: 0"], b""),
        _ => object(request, &served, TAG),
    })
    .await;
    let mut transfer = Transfer::of(&data);
    transfer.fetch(&server.url()).await.unwrap();
    let targets: Vec<_> = server.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets[4..], ["/hop/3?SECRET", "/hop/4?SECRET", "/fw.bin?X-Amz-Signature=SECRET", "/again"]);
    assert_eq!(server.requests()[7].from(), Some(500), "the range goes along");
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn redirects_that_are_refused() {
    for (location, requests) in [
        ("/fw.bin?SECRET", 6), // a loop
        ("http://192.0.2.1/fw.bin?SECRET", 1),
        ("ftp://127.0.0.1/fw.bin?SECRET", 1),
        ("https://user:SECRET@127.0.0.1/", 1),
        ("http://", 1),
    ] {
        let server = Server::start(move |_, _| {
            Reply::new("301 Moved Permanently", &[&format!("Location: {location}"), "Content-Length: 0"], b"")
        })
        .await;
        let error = Transfer::of(b"x").fetch(&server.url()).await.unwrap_err();
        assert_eq!(error.reason(), "url-rejected", "{location}: {error}");
        assert_eq!(matches!(error, Error::Url(UrlError::TooManyRedirects { limit: 5 })), requests == 6);
        assert_eq!(server.requests().len(), requests, "{location}");
    }
}

#[tokio::test]
async fn a_drip_is_given_up() {
    let server = Server::start(|_, _| {
        let drip = Then::Repeat(b"x".to_vec(), Duration::from_millis(5));
        Reply::new("200 OK", &["Content-Length: 1000000", TAG], b"").then(drip)
    })
    .await;
    let mut transfer = Transfer::of(b"x");
    transfer.limits = Limits { min_rate: 10_000, rate_window: Duration::from_millis(60), ..limits() };
    let error = transfer.fetch(&server.url()).await.unwrap_err();
    assert_eq!((error.reason(), error.is_transient()), ("download-too-slow", true));
    assert_eq!(server.requests().len(), 3, "another connection may be faster, so it is tried");
}

#[tokio::test]
async fn a_connection_that_goes_silent_is_replaced() {
    let data = noise(10_000);
    let served = data.clone();
    let server = Server::start(move |n, request| match n {
        0 => object(request, &served, TAG).cut_body(5000).then(Then::Hang),
        1 => Reply { bytes: Vec::new(), then: Then::Hang },
        _ => object(request, &served, TAG),
    })
    .await;
    let mut transfer = Transfer::of(&data);
    transfer.limits = Limits { min_rate: 1, rate_window: Duration::from_millis(50), ..limits() };
    transfer.fetch(&server.url()).await.unwrap();
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn the_deadline_ends_everything() {
    let server = Server::start(|n, _| match n {
        0 => Reply::status("500 Internal Server Error"),
        _ => Reply { bytes: Vec::new(), then: Then::Hang },
    })
    .await;
    let mut transfer = Transfer::of(b"x");
    transfer.limits.deadline = Duration::from_millis(100);
    let error = transfer.fetch(&server.url()).await.unwrap_err();
    assert_eq!((error.reason(), error.is_transient()), ("download-timeout", true));
    assert!(error.to_string().contains("500"), "the last failure is told: {error}");
}

#[tokio::test]
async fn a_pause_that_outlasts_the_deadline_is_not_waited_for() {
    let server =
        Server::start(|_, _| Reply::new("503 Slow Down", &["Retry-After: 60", "Content-Length: 0"], b""))
            .await;
    let mut transfer = Transfer::of(b"x");
    let began = Instant::now();
    assert_eq!(transfer.fetch(&server.url()).await.unwrap_err().reason(), "download-timeout");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_canceled_transfer_ends_at_once_and_can_go_on() {
    let data = noise(10_000);
    let served = data.clone();
    let server = Server::start(move |n, request| match n {
        0 => object(request, &served, TAG).cut_body(5000).then(Then::Hang),
        _ => object(request, &served, TAG),
    })
    .await;
    let mut transfer = Transfer::of(&data);
    transfer.cancel_at = Some(5000);
    let error = transfer.fetch(&server.url()).await.unwrap_err();
    assert!(matches!(error, Error::Canceled) && error.reason() == "canceled", "{error}");
    transfer.cancel_at = None;
    transfer.cancel = tokio_util::sync::CancellationToken::new();
    transfer.fetch(&server.url()).await.unwrap();
    assert_eq!(server.requests()[1].from(), Some(5000));
    assert_eq!(transfer.verified().await, data);
}

/// That it is no faster holds on every machine. The least rate is not asked of a transfer that is held back on purpose.
#[tokio::test]
async fn a_limit_is_kept_and_is_not_taken_for_a_slow_network() {
    let data = noise(300_000);
    let served = data.clone();
    let server = Server::start(move |_, request| object(request, &served, TAG)).await;
    let mut transfer = Transfer::of(&data);
    let second = Duration::from_secs(1);
    transfer.limits =
        Limits { max_rate: 200_000, min_rate: 200_000, rate_window: second / 2, ..transfer.limits };
    let begun = Instant::now();
    assert_eq!(transfer.fetch(&server.url()).await.unwrap().attempts, 1);
    assert!(begun.elapsed() >= second * 3 / 2, "{:?}", begun.elapsed());
    assert_eq!(transfer.verified().await, data);
}

#[tokio::test]
async fn a_transfer_that_is_held_back_can_be_canceled() {
    let data = noise(300_000);
    let served = data.clone();
    let server = Server::start(move |_, request| object(request, &served, TAG)).await;
    let mut transfer = Transfer::of(&data);
    transfer.limits = Limits { max_rate: 1, min_rate: 0, ..transfer.limits };
    let cancel = transfer.cancel.clone();
    let url = server.url();
    let (fetched, ()) = tokio::join!(transfer.fetch(&url), async {
        while server.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    assert!(matches!(fetched, Err(Error::Canceled)), "{fetched:?}");
}

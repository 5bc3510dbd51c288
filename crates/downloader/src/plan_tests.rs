//! Decisions that would take long, or chance, over a real socket.

use reqwest::header::{self, HeaderValue};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> Limits {
    Limits { max_size: 10_000, max_attempts: 5, deadline: 3600 * SECOND, ..Limits::default() }
}

fn etag(tag: &str) -> Validator {
    Validator::Etag(tag.to_owned())
}

fn headers(of: &[(header::HeaderName, &str)]) -> HeaderMap {
    of.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
}

/// A plan that has just begun; a test may leak what it borrows.
fn plan(declared: Option<u64>, resume: Resume) -> (Plan<'static>, Instant) {
    let (limits, resume) = (Box::leak(Box::new(limits())), Box::leak(Box::new(resume)));
    let began = Instant::now();
    (Plan::new(limits, declared, resume, fastrand::Rng::with_seed(7), began).unwrap(), began)
}

#[test]
fn what_to_ask_for() {
    let known = |total| Resume { validator: Some(etag("\"a\"")), total };
    let cases = [
        // declared, what is known, position: the step
        (None, Resume::default(), 0, Step::Get(None)),
        (Some(100), Resume::default(), 0, Step::Get(None)),
        (Some(0), Resume::default(), 0, Step::Done),
        (None, known(Some(100)), 0, Step::Get(None)),
        (None, known(Some(100)), 40, Step::Get(Some((40, etag("\"a\""))))),
        (Some(100), known(None), 40, Step::Get(Some((40, etag("\"a\""))))),
        (None, known(None), 40, Step::Get(Some((40, etag("\"a\""))))),
        (None, known(Some(100)), 100, Step::Done),
        (Some(100), Resume::default(), 100, Step::Done),
        // More than there should be, bytes of nobody knows what, another object: the whole.
        (None, known(Some(100)), 101, Step::Get(None)),
        (Some(100), Resume::default(), 40, Step::Get(None)),
        (None, Resume { validator: None, total: Some(100) }, 40, Step::Get(None)),
        (Some(100), known(Some(90)), 40, Step::Get(None)),
    ];
    for (declared, resume, position, step) in cases {
        let told = format!("{declared:?} {resume:?} {position}");
        let (mut plan, now) = plan(declared, resume);
        assert_eq!(plan.next(position, now).unwrap(), step, "{told}");
    }
}

#[test]
fn a_declared_size_past_the_limit_needs_no_request() {
    let made =
        Plan::new(&limits(), Some(10_001), &mut Resume::default(), fastrand::Rng::new(), Instant::now())
            .err();
    assert!(matches!(made, Some(Error::TooLarge { found: 10_001, limit: 10_000 })));
}

#[test]
fn pauses_double_with_jitter_and_progress_resets_them() {
    let (mut plan, now) = plan(None, Resume::default());
    let mut pause_after = |received| {
        plan.on_body(Ended::Broken("cut".to_owned()), received, received).unwrap();
        match plan.next(received, now).unwrap() {
            Step::Wait(pause) => pause,
            other => panic!("{other:?}"),
        }
    };
    for full in [SECOND, 2 * SECOND, 4 * SECOND, 8 * SECOND] {
        let pause = pause_after(0);
        assert!(full / 2 <= pause && pause <= full, "{pause:?} of {full:?}");
    }
    assert!(pause_after(1) <= SECOND);
    assert!(pause_after(0) >= SECOND, "the second in a row again");
}

#[test]
fn the_last_attempt_without_progress_fails() {
    let (mut plan, _now) = plan(None, Resume::default());
    for _ in 0..4 {
        plan.failed("refused".to_owned(), None).unwrap();
    }
    let error = plan.failed("refused".to_owned(), None).unwrap_err();
    assert!(matches!(error, Error::Network { attempts: 5, .. }), "{error}");
}

#[test]
fn retry_after_is_honoured_within_bounds() {
    for (asked, waited) in [("120", 120), ("86400", 300)] {
        let (mut plan, now) = plan(None, Resume::default());
        let answer = plan.on_response(429, &headers(&[(header::RETRY_AFTER, asked)]), false, 0).unwrap();
        assert_eq!(answer, Answer::Nothing);
        assert_eq!(plan.next(0, now).unwrap(), Step::Wait(waited * SECOND), "{asked}");
    }
}

#[test]
fn the_deadline_counts_the_pause_that_would_come() {
    let (mut plan, began) = plan(None, Resume::default());
    plan.on_response(503, &headers(&[(header::RETRY_AFTER, "300")]), false, 0).unwrap();
    let error = plan.next(0, began + 3301 * SECOND).unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    assert!(matches!(plan.next(0, began + 3599 * SECOND), Ok(Step::Get(None))));
    assert!(matches!(plan.next(0, began + 3600 * SECOND), Err(Error::Deadline { .. })));
}

#[test]
fn slow_attempts_in_a_row_fail_but_not_slow_moments_of_a_good_transfer() {
    let (mut plan, _now) = plan(None, Resume::default());
    let enough = 60 * 1024;
    for received in [10, enough, 10, enough] {
        plan.on_body(Ended::TooSlow, received, received).unwrap();
    }
    plan.on_body(Ended::TooSlow, 10, 10).unwrap();
    assert!(matches!(plan.on_body(Ended::TooSlow, 10, 10), Err(Error::TooSlow { attempts: 3, .. })));
}

#[test]
fn a_range_past_the_end_begins_again() {
    let (mut plan, now) = plan(None, Resume { validator: Some(etag("\"a\"")), total: None });
    assert!(matches!(plan.next(40, now).unwrap(), Step::Get(Some(_))));
    assert_eq!(plan.on_response(416, &HeaderMap::new(), true, 40).unwrap(), Answer::Nothing);
    assert!(matches!(plan.next(40, now).unwrap(), Step::Wait(_)));
    assert_eq!(plan.next(40, now).unwrap(), Step::Get(None));
    let whole = headers(&[(header::CONTENT_LENGTH, "30"), (header::ETAG, "\"b\"")]);
    let answer = plan.on_response(200, &whole, false, 40).unwrap();
    assert_eq!(answer, Answer::Body(Body { restart: true, end: 30, total: Some(30) }));
    assert_eq!(*plan.resume, Resume { validator: Some(etag("\"b\"")), total: Some(30) });
}

#[test]
fn a_range_may_tell_the_length_that_was_not_known() {
    for (range, expected) in [
        ("bytes 40-99/100", Some(Body { restart: false, end: 100, total: Some(100) })),
        ("bytes 40-99/*", Some(Body { restart: false, end: 100, total: None })),
        ("bytes 40-99/10001", None),
        ("bytes 40-10001/*", None),
    ] {
        let (mut plan, _now) = plan(None, Resume { validator: Some(etag("\"a\"")), total: None });
        let told = headers(&[(header::CONTENT_RANGE, range), (header::ETAG, "\"a\"")]);
        match (plan.on_response(206, &told, true, 40), expected) {
            (Ok(Answer::Body(body)), Some(expected)) => assert_eq!(body, expected, "{range}"),
            (Err(Error::TooLarge { .. }), None) => {}
            (other, _) => panic!("{range}: {other:?}"),
        }
    }
}

#[test]
fn what_is_known_survives_a_journal() {
    let resume = Resume { validator: Some(Validator::LastModified("Sat".to_owned())), total: Some(7) };
    let kept = serde_json::to_string(&resume).unwrap();
    assert_eq!(kept, r#"{"validator":{"last-modified":"Sat"},"total":7}"#);
    assert_eq!(serde_json::from_str::<Resume>(&kept).unwrap(), resume);
}

use std::io::Read;

use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn gzip() -> Encoding {
    Encoding::Gzip { suffix: "/gzip".to_owned() }
}

fn reading(topic: &str, payload: impl Into<String>) -> Reading {
    Reading { topic: topic.to_owned(), payload: payload.into() }
}

/// The readings of a batch.
fn open(batch: &Batch) -> Vec<Value> {
    let mut json = Vec::new();
    if batch.topic.ends_with("/gzip") {
        GzDecoder::new(&batch.payload[..]).read_to_end(&mut json).unwrap();
    } else {
        json.clone_from(&batch.payload);
    }
    serde_json::from_slice(&json).unwrap()
}

/// All that becomes of these readings of one topic.
fn batches(encoding: Encoding, payloads: &[String]) -> Vec<Batch> {
    let now = Instant::now();
    let mut batcher = Batcher::new(encoding);
    let mut all: Vec<_> =
        payloads.iter().flat_map(|payload| batcher.push(now, reading("dt/pump/t", payload))).collect();
    all.extend(batcher.take_all(now));
    assert_eq!(batcher.waits_since(), None);
    all
}

#[test]
fn a_hundred_readings_of_a_kilobyte_are_25_messages_of_one_unit() {
    let payloads: Vec<_> = (0..100).map(|n| format!("\"{n:0>1022}\"")).collect();
    let all = batches(Encoding::Json, &payloads);
    assert_eq!(all.len(), 25);
    assert!(all.iter().all(|batch| batch.topic.len() + batch.payload.len() <= LIMIT));
    // What is alike is one message, or a few.
    assert!(batches(gzip(), &payloads).len() <= 4);
}

#[test]
fn a_batch_waits_for_its_time_and_a_topic_for_its_own() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let age = Duration::from_secs(10);
    let mut batcher = Batcher::new(Encoding::Json);
    assert_eq!(batcher.push(at(0), reading("a", "1")), []);
    assert_eq!(batcher.push(at(5), reading("b", "2")), []);
    assert_eq!(batcher.push(at(9), reading("a", "3")), []);
    assert_eq!(batcher.waits_since(), Some(start));
    assert_eq!(batcher.take_older(at(9), age), []);
    let taken = batcher.take_older(at(10), age);
    assert_eq!(taken, [Batch { topic: "a".to_owned(), payload: b"[1,3]".to_vec() }]);
    assert_eq!(batcher.waits_since(), Some(at(5)));
    // What is left of a full batch is as old as its oldest.
    batcher.push(at(20), reading("b", format!("\"{}\"", "x".repeat(4603))));
    assert_eq!(batcher.waits_since(), Some(at(20)));
}

#[test]
fn a_reading_that_does_not_fit_by_itself_goes_alone_and_in_its_place() {
    let long = format!("\"{}\"", "x".repeat(8000));
    let payloads = ["1".to_owned(), long.clone(), "2".to_owned()];
    let all = batches(Encoding::Json, &payloads);
    assert_eq!(all.iter().map(|batch| open(batch).len()).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(all[1].payload.len(), long.len() + 2);
}

#[test]
fn with_too_many_topics_the_oldest_batch_goes() {
    let start = Instant::now();
    let mut batcher = Batcher::new(Encoding::Json);
    for n in 0..MAX_OPEN as u64 {
        assert_eq!(batcher.push(start + Duration::from_millis(n), reading(&format!("t/{n}"), "1")), []);
    }
    let gone = batcher.push(start + Duration::from_secs(1), reading("t/more", "1"));
    assert_eq!(gone.iter().map(|batch| batch.topic.as_str()).collect::<Vec<_>>(), ["t/0"]);
    assert_eq!(batcher.open.len(), MAX_OPEN);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Noise cannot be compressed, and repetition can: whatever comes, all of it is there, in order, in units of one.
    #[test]
    fn nothing_is_lost_and_nothing_costs_more(
        payloads in prop::collection::vec(prop_oneof!["\"[a-zA-Z0-9]{0,900}\"", "\"a{0,3000}\"", "[1-9]"], 1..120),
        compressed: bool,
    ) {
        let encoding = if compressed { gzip() } else { Encoding::Json };
        let all = batches(encoding, &payloads);
        for batch in &all {
            prop_assert!(batch.topic.len() + batch.payload.len() <= LIMIT, "{}", batch.payload.len());
        }
        let found: Vec<Value> = all.iter().flat_map(open).collect();
        let expected: Vec<Value> = payloads.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        prop_assert_eq!(found, expected);
    }
}

//! The contract's vectors of what is billed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use meter::{Class, Direction, Tally, UNIT_BYTES, units_of};
use serde_json::Value;

#[test]
fn every_vector_of_metering() {
    let file: Value =
        serde_json::from_str(include_str!("../../../test-fixtures/vectors/metering.json")).unwrap();
    for case in file["cases"].as_array().unwrap() {
        let (id, input, expect) = (&case["id"], &case["input"], &case["expect"]);
        match input["steps"].as_array() {
            Some(steps) => assert_eq!(expect["publishMessages"], messages(steps), "{id}"),
            None => {
                let bytes = usize::try_from(input["bytes"].as_u64().unwrap()).unwrap();
                let unit = input["unitKiB"].as_u64().map_or(UNIT_BYTES, |kib| kib as usize * 1024);
                assert_eq!(expect["units"], units_of(bytes, unit), "{id}");
            }
        }
    }
}

/// Steps are told from the service's side: `start-next/accepted out`, `update in (x3)`.
fn messages(steps: &[Value]) -> u64 {
    let mut tally = Tally::default();
    for step in steps {
        let mut words = step.as_str().unwrap().split(' ');
        let name = words.next().unwrap();
        let direction = if words.next() == Some("in") { Direction::Sent } else { Direction::Received };
        let times = words.next().map_or(1, |times| times.trim_matches(['(', 'x', ')']).parse().unwrap());
        let topic = match name {
            update if update.starts_with("update") => format!("$aws/things/t/jobs/j/{update}"),
            other => format!("$aws/things/t/jobs/{}", other.trim_start_matches("jobs/")),
        };
        for _ in 0..times {
            assert_ne!(Class::of(&topic), Class::Other, "{topic}");
            tally.count(Class::of(&topic), direction, topic.len());
        }
    }
    assert_eq!(tally.units(), tally.lines().map(|(_, count)| count.messages).sum::<u64>());
    tally.units()
}

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NOW: Time = Time::from_secs(1_700_000_000);

fn ask(shadows: &mut Shadows, operation: &str, payload: &Value) -> Vec<(String, Value)> {
    let topic = format!("$aws/things/t/shadow/{operation}");
    let topic = Topic::parse(&topic).unwrap();
    let outputs = shadows.device(NOW, false, &topic, payload.to_string().as_bytes());
    let message = |output| match output {
        Output::Publish { topic, payload } => (topic, payload),
        Output::Answer { .. } => panic!("shadows have no answers of their own"),
    };
    outputs.into_iter().map(message).collect()
}

fn with(switch: &str) -> Shadows {
    let mut compat = Compat::default();
    compat.set(switch).unwrap();
    Shadows::load(compat, []).unwrap()
}

#[test]
fn topics_are_read_by_position() {
    for (topic, expected) in [
        ("$aws/things/t/shadow/get", Some((None, Operation::Get))),
        ("$aws/things/t/shadow/update", Some((None, Operation::Update))),
        ("$aws/things/t/shadow/name/get/delete", Some((Some("get"), Operation::Delete))),
        ("$aws/things/t/shadow/name/update", None),
        ("$aws/things/t/shadow/update/accepted", None),
        ("$aws/things/t/shadow/name/n/update/delta", None),
        ("$aws/things/t/shadow/name/n/update/extra/more", None),
        ("$aws/things/t/shadow", None),
        ("$aws/things//shadow/get", None),
        ("$aws/things/t/jobs/get", None),
    ] {
        let found = Topic::parse(topic).map(|topic| (topic.name, topic.operation));
        assert_eq!(found, expected, "{topic}");
        if let Some(parsed) = Topic::parse(topic) {
            assert_eq!(parsed.to_string(), topic);
        }
    }
}

#[test]
fn switches_choose_between_what_the_texts_leave_open() {
    let code = |messages: &[(String, Value)]| messages[0].1["code"].clone();
    let update = json!({"state": {"desired": {"a": {"b": 1}}}});

    let mut shadows = with("shadow-needs-thing=yes");
    let refused = ask(&mut shadows, "update", &update);
    assert_eq!((code(&refused), &refused[0].1["message"]), (json!(404), &json!("Thing not found")));

    let mut shadows = with("shadow-depth=1");
    assert_eq!(code(&ask(&mut shadows, "update", &update)), 400);

    let mut shadows = with("shadow-first-previous=empty");
    let documents = ask(&mut shadows, "update", &update).pop().unwrap().1;
    assert_eq!(documents["previous"], json!({"state": {}, "metadata": {}}));

    let mut shadows = with("shadow-empty-object-stays=no");
    ask(&mut shadows, "update", &update);
    ask(&mut shadows, "update", &json!({"state": {"desired": {"a": {"b": null}}}}));
    assert_eq!(ask(&mut shadows, "get", &json!({}))[0].1["state"], json!({}));

    let mut shadows = with("shadow-delete-version=next");
    ask(&mut shadows, "update", &update);
    assert_eq!(ask(&mut shadows, "delete", &json!({}))[0].1["version"], 2);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(1)), Just(json!("x")), Just(json!([1, 2])), Just(json!({}))];
    leaf.prop_recursive(3, 12, 3, |inner| {
        proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|members| json!(members))
    })
}

fn section() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[abc]", value(), 0..3).prop_map(|members| json!(members))
}

/// The merge as RFC 7396 has it, but for nulls, of which there are none here.
fn merged(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                match into.get_mut(key) {
                    Some(there) if there.is_object() && value.is_object() => merged(there, value),
                    _ => drop(into.insert(key.clone(), value.clone())),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Reporting the delta leaves no delta, whatever was there; and metadata always has the shape of the state.
    #[test]
    fn who_reports_the_delta_has_none(desired in section(), reported in section()) {
        let mut shadows = Shadows::load(Compat::default(), []).unwrap();
        ask(&mut shadows, "update", &json!({"state": {"desired": desired, "reported": reported}}));
        let shadow = ask(&mut shadows, "get", &json!({}))[0].1.clone();
        if let Some(delta) = shadow["state"].get("delta") {
            ask(&mut shadows, "update", &json!({"state": {"reported": delta}}));
        }
        let after = ask(&mut shadows, "get", &json!({}))[0].1.clone();
        prop_assert_eq!(after["state"].get("delta"), None);
        let mut expected = reported;
        merged(&mut expected, shadow["state"].get("delta").unwrap_or(&json!({})));
        let found = after["state"].get("reported").cloned().unwrap_or(json!({}));
        prop_assert_eq!(found, expected);
        prop_assert!(same_shape(&after["state"], &after["metadata"]), "{}", after);
    }
}

fn same_shape(state: &Value, metadata: &Value) -> bool {
    match (state, metadata) {
        (Value::Object(state), Value::Object(metadata)) => {
            state.len() == metadata.len()
                && state
                    .iter()
                    .all(|(key, value)| metadata.get(key).is_some_and(|other| same_shape(value, other)))
        }
        (Value::Array(state), Value::Array(metadata)) => {
            state.len() == metadata.len()
                && state.iter().zip(metadata).all(|(one, other)| same_shape(one, other))
        }
        (_, metadata) => metadata["timestamp"].is_i64(),
    }
}

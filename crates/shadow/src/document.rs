//! Documents: what AWS's merge makes of them, what differs between two, and what fits into one.

use serde_json::{Map, Value, json};

pub type Members = Map<String, Value>;

/// Of `desired` and `reported` together, without metadata.
pub(crate) const MOST_BYTES: usize = 8 * 1024;
/// Levels of keys below a section. AWS's texts say 5 and 6; 5 is right by both.
const MOST_LEVELS: usize = 5;

/// Why a document cannot be a shadow's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("with what is desired it would have {found} bytes, a shadow takes at most {MOST_BYTES} for both")]
    TooLarge { found: usize },
    #[error("it has {found} levels of members, a shadow takes at most {MOST_LEVELS}")]
    TooDeep { found: usize },
    #[error("an array in it has null, which a shadow does not take")]
    NullInArray,
}

pub(crate) fn check(desired: &Members, reported: &Members) -> Result<(), Unfit> {
    let found = levels(reported);
    if found > MOST_LEVELS {
        return Err(Unfit::TooDeep { found });
    }
    if reported.values().any(|value| has_null(value, false)) {
        return Err(Unfit::NullInArray);
    }
    let found = json!({"desired": desired, "reported": reported}).to_string().len();
    if found > MOST_BYTES { Err(Unfit::TooLarge { found }) } else { Ok(()) }
}

fn levels(members: &Members) -> usize {
    members.values().map(|value| 1 + below(value)).max().unwrap_or(0)
}

fn below(value: &Value) -> usize {
    match value {
        Value::Object(members) => levels(members),
        Value::Array(items) => items.iter().map(below).max().unwrap_or(0),
        _ => 0,
    }
}

fn has_null(value: &Value, in_array: bool) -> bool {
    match value {
        Value::Null => in_array,
        Value::Array(items) => items.iter().any(|item| has_null(item, true)),
        Value::Object(members) => members.values().any(|value| has_null(value, in_array)),
        _ => false,
    }
}

/// A shadow has no nulls: a member that is null is one that is not there.
pub fn without_nulls(members: &Members) -> Members {
    let there = members.iter().filter(|(_, value)| !value.is_null());
    let value = |value: &Value| match value {
        Value::Object(inner) => Value::Object(without_nulls(inner)),
        other => other.clone(),
    };
    there.map(|(key, found)| (key.clone(), value(found))).collect()
}

/// What an accepted update makes of a section.
pub fn merge(into: &mut Members, patch: &Members) {
    for (key, value) in patch {
        match (value, into.get_mut(key)) {
            (Value::Null, _) => drop(into.remove(key)),
            (Value::Object(patch), Some(Value::Object(inner))) => merge(inner, patch),
            (Value::Object(new), _) => drop(into.insert(key.clone(), Value::Object(without_nulls(new)))),
            (value, _) => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

/// What is desired and not so reported, as the service reckons it.
pub(crate) fn delta(desired: &Members, reported: &Members) -> Members {
    let differs = |(key, wanted): (&String, &Value)| {
        let differs = match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(found))) => {
                Some(delta(wanted, found)).filter(|inner| !inner.is_empty()).map(Value::Object)
            }
            (wanted, found) => (Some(wanted) != found).then(|| wanted.clone()),
        };
        Some((key.clone(), differs?))
    };
    desired.iter().filter_map(differs).collect()
}

/// The update that makes `to` of `from`: null for what is not there any more, or it would stay for ever.
pub fn difference(from: &Members, to: &Members) -> Option<Members> {
    let mut patch = Members::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in to {
        match (from.get(key), value) {
            (Some(found), value) if found == value => {}
            (Some(Value::Object(from)), Value::Object(to)) => {
                patch.extend(difference(from, to).map(|inner| (key.clone(), Value::Object(inner))));
            }
            (_, value) => drop(patch.insert(key.clone(), value.clone())),
        }
    }
    (!patch.is_empty()).then_some(patch)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(value: Value) -> Members {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_difference_names_what_changed_and_nulls_what_went() {
        let cases = [
            (
                json!({"a": 1, "b": {"c": 2, "d": 3}}),
                json!({"a": 1, "b": {"c": 2}}),
                json!({"b": {"d": null}}),
            ),
            (json!({}), json!({"a": {}}), json!({"a": {}})),
            (json!({"a": {"b": 1}}), json!({"a": 1}), json!({"a": 1})),
            (json!({"a": [1, 2]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"a": 1}), json!({"a": "1"}), json!({"a": "1"})),
        ];
        for (from, to, expected) in cases {
            assert_eq!(difference(&members(from), &members(to)), Some(members(expected)));
        }
        assert_eq!(difference(&members(json!({"a": {"b": []}})), &members(json!({"a": {"b": []}}))), None);
    }

    #[test]
    fn what_does_not_fit_is_said_with_what_was_found() {
        let none = Members::new();
        let deep = |levels| (1..levels).fold(json!({"a": 1}), |inner, _| json!({"a": inner}));
        assert_eq!(check(&none, &members(deep(5))), Ok(()));
        assert_eq!(check(&none, &members(deep(6))), Err(Unfit::TooDeep { found: 6 }));
        let big = |bytes: usize| members(json!({"a": "x".repeat(bytes)}));
        assert_eq!(check(&none, &big(8100)), Ok(()));
        assert!(matches!(check(&none, &big(8192)), Err(Unfit::TooLarge { .. })));
        // Both sections count.
        assert!(matches!(check(&big(4100), &big(4100)), Err(Unfit::TooLarge { .. })));
        assert_eq!(check(&none, &members(json!({"a": [{"b": null}]}))), Err(Unfit::NullInArray));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!("x")), Just(json!([1])), Just(json!({}))];
        leaf.prop_recursive(3, 12, 3, |inner| {
            proptest::collection::btree_map("[abc]", inner, 0..3).prop_map(|members| json!(members))
        })
    }

    fn section() -> impl Strategy<Value = Members> {
        proptest::collection::btree_map("[abc]", value(), 0..3)
            .prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn merging_the_difference_gives_what_was_wanted(from in section(), to in section()) {
            let mut merged = from.clone();
            if let Some(patch) = difference(&from, &to) {
                merge(&mut merged, &patch);
            }
            prop_assert_eq!(difference(&merged, &to), None);
            prop_assert_eq!(merged, to);
        }
    }
}

//! Status details always keep AWS's limits, whatever is put in.

use std::collections::BTreeMap;

use jobs::StatusDetails;
use proptest::prelude::*;

#[test]
fn what_does_not_fit_is_made_to_fit() {
    let long = "x".repeat(2000);
    for (key, value, expected) in [
        ("phase", "downloading", Some(("phase", "downloading"))),
        ("a.b c/é", "1", Some(("a_b_c__", "1"))),
        ("k", "line1\nline2\ttab", Some(("k", "line1 line2 tab"))),
        ("k", " \n ", None),
        ("k", "", None),
        ("", "v", None),
        ("k", "\u{202e}gpj.exe\u{0}", Some(("k", "gpj.exe"))),
        ("k", "50 % é 日本", Some(("k", "50 % é 日本"))),
        ("k", &long, Some(("k", &long[..1024]))),
        (&long, "v", Some((&long[..128], "v"))),
    ] {
        let details = StatusDetails::new().with(key, value);
        assert_eq!(details.iter().next(), expected, "{key:?} = {value:?}");
    }
}

#[test]
fn the_first_ten_pairs_win_and_a_known_key_is_replaced() {
    let details = (0..12).fold(StatusDetails::new(), |d, n| d.with(format!("k{n:02}"), n.to_string()));
    assert_eq!(details.iter().count(), 10);
    assert_eq!((details.get("k09"), details.get("k10")), (Some("9"), None));
    assert_eq!(details.with("k00", "new").get("k00"), Some("new"));
}

#[test]
fn long_values_are_cut_to_one_length_and_short_ones_stay() {
    let details = (0..9).fold(StatusDetails::new().with("short", "stays"), |d, n| {
        d.with(format!("long{n}"), "é".repeat(1024))
    });
    assert_eq!(details.get("short"), Some("stays"));
    let lengths: Vec<usize> =
        details.iter().filter(|(key, _)| key.starts_with("long")).map(|(_, value)| value.len()).collect();
    assert_eq!(lengths.len(), 9);
    assert!(lengths.iter().all(|len| (450..=512).contains(len)), "{lengths:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_breaks_the_limits(pairs in prop::collection::vec((any::<String>(), ".{0,1500}"), 0..14)) {
        let details: StatusDetails = pairs.into_iter().collect();
        let json = serde_json::to_string(&details).unwrap();
        prop_assert!(json.len() <= 4608, "{} bytes", json.len());
        prop_assert!(details.iter().count() <= 10);
        for (key, value) in details.iter() {
            prop_assert!((1..=128).contains(&key.len()));
            prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b":_-".contains(&b)));
            prop_assert!((1..=1024).contains(&value.chars().count()));
            prop_assert!(!value.chars().any(char::is_control));
        }
        // The journal gives back what was put in: a second cleaning finds nothing to do.
        let map: BTreeMap<String, String> = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(StatusDetails::from(map), details.clone());
        prop_assert_eq!(serde_json::from_str::<StatusDetails>(&json).unwrap(), details);
    }

    #[test]
    fn many_long_values_full_of_escapes_fit(values in prop::collection::vec(r#"["\\aé日]{900,1100}"#, 10)) {
        let details: StatusDetails =
            values.iter().enumerate().map(|(n, value)| (format!("{n}{}", "k".repeat(127)), value)).collect();
        prop_assert!(serde_json::to_string(&details).unwrap().len() <= 4608);
        prop_assert_eq!(details.iter().count(), 10);
    }
}

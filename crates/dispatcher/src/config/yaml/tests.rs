use serde_json::json;

use super::*;

const FILE: &str = "---
# What stands here is lost.
name: roof
enabled: yes          # a boolean to YAML 1.1, text to 1.2
mode: 0644
since: 2024-05-01
ratio: 1.50
off: null
empty:
'quoted': 'yes'
text: |
  two
  lines
probes:
- id: 1
  bus: [i2c, spi]
- {id: 2}
nested:
- - 1
  - {}
  - []
";

fn rewritten(wanted: &Value) -> String {
    let text = rewrite(FILE, wanted);
    assert_eq!(parse(&text).as_ref(), Ok(wanted), "{text}");
    text
}

#[test]
fn a_document_says_what_the_core_schema_says() {
    assert_eq!(
        parse(FILE).unwrap(),
        json!({
            "name": "roof", "enabled": "yes", "mode": 644, "since": "2024-05-01", "ratio": 1.5, "off": null,
            "empty": null, "quoted": "yes", "text": "two\nlines\n",
            "probes": [{"id": 1, "bus": ["i2c", "spi"]}, {"id": 2}], "nested": [[1, {}, []]],
        })
    );
    assert_eq!(parse("").unwrap(), Value::Null);
    assert_eq!(parse("# nothing but a comment\n").unwrap(), Value::Null);
}

#[test]
fn scalars_are_those_of_the_core_schema() {
    let cases = [
        ("~", json!(null)),
        ("NULL", json!(null)),
        ("nUll", json!("nUll")),
        ("TRUE", json!(true)),
        ("yes", json!("yes")),
        ("-12", json!(-12)),
        ("+12", json!(12)),
        ("18446744073709551615", json!(u64::MAX)),
        ("1e3", json!(1000.0)),
        (".5", json!(0.5)),
        ("-.5e-1", json!(-0.05)),
        ("0o17", json!(15)),
        ("0xfF", json!(255)),
        ("0x+f", json!("0x+f")),
        ("0b1", json!("0b1")),
        ("1_000", json!("1_000")),
        ("12:30", json!("12:30")),
        ("1.2.3", json!("1.2.3")),
        ("inf", json!("inf")),
        ("NaN", json!("NaN")),
        (".inf", json!(".inf")),
        ("infinity", json!("infinity")),
        ("1e999", json!("1e999")),
        (".", json!(".")),
        ("-", json!("-")),
        ("+", json!("+")),
    ];
    for (text, expected) in cases {
        assert_eq!(resolve(text), expected, "{text}");
    }
}

#[test]
fn what_does_not_change_is_written_as_it_stood() {
    let mut wanted = parse(FILE).unwrap();
    wanted["name"] = json!("cellar");
    wanted["probes"][0]["id"] = json!(7);
    wanted.as_object_mut().unwrap().remove("off");
    wanted["new"] = json!({"flag": "no", "list": [], "time": "12:30", "half": 1e300, "note": "a: b # c\n"});
    let expected = "name: cellar
enabled: yes
mode: 0644
since: 2024-05-01
ratio: 1.50
empty:
quoted: \"yes\"
text: \"two\\nlines\\n\"
probes:
  - id: 7
    bus:
      - i2c
      - spi
  - id: 2
nested:
  - - 1
    - {}
    - []
new:
  flag: \"no\"
  half: 1.0e+300
  list: []
  note: \"a: b # c\\n\"
  time: \"12:30\"
";
    assert_eq!(rewritten(&wanted), expected);
    assert_eq!(rewrite(expected, &wanted), expected);
}

/// The names of a mapping are text in JSON; in the file they stay what they were.
#[test]
fn names_that_look_like_numbers_stay_as_they_are() {
    assert_eq!(
        rewrite("1: a\n\"2\": b\nyes: c\n", &json!({"1": "a", "2": "x", "yes": "c"})),
        "1: a\n\"2\": x\nyes: c\n"
    );
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    let cases = [
        ("a: &x 1\nb: *x\n", "line 1: an anchor"),
        ("a: 1\nb: *x\n", "line 2: "),
        ("a: !!str 1\n", "line 1: a tag"),
        ("a: !secret x\n", "line 1: a tag"),
        ("a: 1\na: 2\n", "line 2: a name for the second time"),
        ("1: a\n\"1\": b\n", "line 2: a name for the second time"),
        ("? [a]\n: 1\n", "line 1: a name that is not a scalar"),
        (": 1\n", "line 1: a member without a name"),
        ("a: 1\n---\nb: 2\n", "line 2: it has more than one document"),
        ("%YAML 1.1\n---\na: 1\n", "it has the directive"),
        ("a: [1\n", "line "),
        ("a: \"x\n", "line "),
        ("a:\n\tb: 1\n", "line 2"),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_billion_laughs_are_refused_at_the_first() {
    let mut text = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for i in 1..20 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        text += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    assert_eq!(parse(&text).unwrap_err(), "line 1: an anchor, which is not supported");
}

/// Each is as large as a configuration file may be, and refused at the level that is too deep: neither the stack nor
/// the time grows with the rest.
#[test]
fn deep_nesting_is_refused_at_once() {
    for piece in ["[", "{a: ", "- ", "? ", "{", "[{"] {
        let text = piece.repeat(crate::config::compose::MAX_BYTES / piece.len());
        let error = parse(&text).unwrap_err();
        assert!(error.starts_with("line 1: "), "{piece}: {error}");
    }
    let deep: String = (0..200).map(|i| " ".repeat(i) + "a:\n").collect();
    assert_eq!(parse(&deep).unwrap_err(), "line 101: more than 100 levels");
}

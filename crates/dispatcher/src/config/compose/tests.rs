use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::operation::ConfigFile;

/// The same update of a file in another format.
fn compose(current: Option<&[u8]>, update: &UpdateConfig, format: Format) -> Result<Composed, ComposeError> {
    let file = ConfigFile { format, ..update.file.clone() };
    super::compose(current, &UpdateConfig { file, ..update.clone() })
}

const FORMATS: [Format; 3] = [Format::Json, Format::Toml, Format::Yaml];

/// The table in appendix A of RFC 7396.
#[test]
fn merge_patch_is_rfc_7396() {
    let cases = [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
        (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a":"b"}), json!(["c"]), json!(["c"])),
        (json!({"a":"foo"}), json!(null), json!(null)),
        (json!({"a":"foo"}), json!("bar"), json!("bar")),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
        (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
    ];
    for (mut target, patch, expected) in cases {
        let before = target.clone();
        merge_patch(&mut target, &patch);
        assert_eq!(target, expected, "{before} with {patch}");
    }
}

fn update(mode: Mode, config: Value) -> UpdateConfig {
    let file = ConfigFile { name: "config".to_owned(), format: Format::Json, schema: None };
    UpdateConfig { file, config: config.as_object().unwrap().clone(), mode }
}

fn reason(current: &str, update: &UpdateConfig, format: Format) -> (&'static str, String) {
    let error = compose(Some(current.as_bytes()), update, format).unwrap_err();
    (error.reason(), error.to_string())
}

#[test]
fn a_file_in_force_that_is_not_understood_is_not_merged_but_can_be_replaced() {
    for (format, text) in
        [(Format::Json, "rate = 5"), (Format::Toml, "{\"rate\": 5"), (Format::Yaml, "a: *b")]
    {
        let (reason, message) = reason(text, &update(Mode::Merge, json!({"rate": 5})), format);
        assert_eq!(reason, "config-unreadable");
        assert!(message.starts_with(&format!("the file in force is not {}", format.name())), "{message}");
        let replace = update(Mode::Replace, json!({"rate": 5}));
        let new = compose(Some(text.as_bytes()), &replace, format).unwrap();
        assert_eq!((format.parse(&new.text).unwrap(), new.before), (json!({"rate": 5}), None));
    }
    let error = compose(Some(&[0xff]), &update(Mode::Merge, json!({})), Format::Toml).unwrap_err();
    assert_eq!(error.reason(), "config-unreadable");
}

#[test]
fn a_file_that_says_so_already_stays_as_it_is_written() {
    let cases = [
        (Format::Json, "{\"b\":1,\n\n\"a\":2}"),
        (Format::Toml, "b = 0x1 # one\na = 2"),
        (Format::Yaml, "{b: 1, a: 2} # both\n"),
    ];
    for (format, text) in cases {
        let same = compose(Some(text.as_bytes()), &update(Mode::Merge, json!({"b": 1, "c": null})), format);
        assert_eq!(same.unwrap().text, text);
        let same = compose(Some(text.as_bytes()), &update(Mode::Replace, json!({"b": 1, "a": 2})), format);
        assert_eq!(same.unwrap().text, text);
    }
}

#[test]
fn a_replaced_file_has_nothing_of_the_old_members() {
    let text = "# for people\na = 1 # one\n\n[b]\nc = 1\n";
    let new = compose(Some(text.as_bytes()), &update(Mode::Replace, json!({"a": 2})), Format::Toml).unwrap();
    assert_eq!(new.text, "# for people\na = 2 # one\n");
}

#[test]
fn what_the_format_cannot_say_is_invalid_and_merging_it_away_is_not() {
    let (code, message) = reason("a = 1", &update(Mode::Replace, json!({"a": null})), Format::Toml);
    assert_eq!((code, message.as_str()), ("config-invalid", "/a: found null, which TOML cannot say"));
    let (code, _) = reason("a = 1", &update(Mode::Merge, json!({"a": [null]})), Format::Toml);
    assert_eq!(code, "config-invalid");
    let new = compose(Some(b"a = 1"), &update(Mode::Merge, json!({"b": {"c": null}})), Format::Toml).unwrap();
    assert_eq!(new.value, json!({"a": 1, "b": {}}));
}

#[test]
fn a_file_does_not_grow_beyond_its_bound() {
    let old = format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_BYTES - 100));
    let (code, message) = reason(&old, &update(Mode::Merge, json!({"b": "y".repeat(200)})), Format::Json);
    assert_eq!(code, "config-invalid");
    assert!(message.starts_with("the whole file: it would have"), "{message}");
}

/// Deeper than a format is read: an error, and no stack that overflows.
#[test]
fn an_update_that_is_nested_deeply_is_refused_where_the_file_could_not_be_read_again() {
    let deep = (0..120).fold(json!(1), |inner, _| json!({"a": inner}));
    for format in FORMATS {
        let result = compose(None, &update(Mode::Merge, deep.clone()), format);
        match format {
            Format::Json => assert!(result.is_ok()),
            _ => assert_eq!(result.unwrap_err().reason(), "config-unreadable", "{format:?}"),
        }
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-d]", 1 => "(yes|1|null|a b|a\\.b|é|\"|#|- |~|/|a: b|)", 1 => "\\PC{1,4}"]
}

fn scalar(nulls: bool) -> impl Strategy<Value = Value> {
    let null = if nulls { Just(Value::Null).boxed() } else { Just(json!(true)).boxed() };
    prop_oneof![
        null,
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-5_i64..5).prop_map(Value::from),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "(yes|no|0644|1:30|2024-01-01|null|~|\\.inf|1e5|0x1F|[a-z :#'\"\\n-]{0,8})".prop_map(Value::from),
    ]
}

/// Within what every format can say: nulls, where there are any, stand in objects only.
fn value(nulls: bool) -> impl Strategy<Value = Value> {
    let array = scalar(false).prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..3).prop_map(|m| m.into_iter().collect()),
        ]
    });
    let leaf = prop_oneof![2 => scalar(nulls), 1 => array];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop::collection::btree_map(name(), inner, 0..4).prop_map(|m| m.into_iter().collect::<Value>())
    })
}

fn object(nulls: bool) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(name(), value(nulls), 0..5).prop_map(|m| m.into_iter().collect())
}

/// The same members in the ways that TOML has to write them: headers, dotted names, inline tables.
fn toml_text(value: &Value, style: u8) -> String {
    fn inline(value: &Value) -> String {
        match value {
            Value::Object(members) => {
                let members: Vec<_> =
                    members.iter().map(|(n, v)| format!("{} = {}", key(n), inline(v))).collect();
                format!("{{ {} }}", members.join(", "))
            }
            Value::Array(elements) => {
                format!("[ {} ]", elements.iter().map(inline).collect::<Vec<_>>().join(", "))
            }
            Value::String(text) => key(text),
            Value::Number(number) if number.is_f64() => {
                toml_edit::Value::from(number.as_f64().unwrap()).to_string()
            }
            other => other.to_string(),
        }
    }
    fn key(name: &str) -> String {
        let escaped: String = name.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect();
        format!("\"{escaped}\"")
    }
    fn lines(prefix: &str, value: &Value, style: u8, out: &mut String) {
        for (name, value) in value.as_object().unwrap() {
            let name = format!("{prefix}{}", key(name));
            match value {
                Value::Object(members) if style == 1 && !members.is_empty() => {
                    lines(&(name + "."), value, style, out);
                }
                value => *out += &format!("# about it\n{name} = {} # so\n", inline(value)),
            }
        }
    }
    fn tables(path: &str, value: &Value, out: &mut String) {
        let (inner, own): (Vec<_>, Vec<_>) =
            value.as_object().unwrap().iter().partition(|(_, v)| v.is_object());
        for (name, value) in own {
            *out += &format!("{} = {} # so\n", key(name), inline(value));
        }
        for (name, value) in inner {
            let path = if path.is_empty() { key(name) } else { format!("{path}.{}", key(name)) };
            *out += &format!("\n# about it\n[{path}]\n");
            tables(&path, value, out);
        }
    }
    let mut out = String::new();
    match style {
        2 => tables("", value, &mut out),
        _ => lines("", value, style, &mut out),
    }
    out
}

fn written(value: &Value, format: Format, style: u8) -> String {
    match (format, style) {
        (Format::Toml, style) => toml_text(value, style),
        // JSON is YAML in flow style.
        (Format::Yaml, 0) => value.to_string(),
        (format, _) => format.rewrite("", value).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn merged_and_read_back_is_the_merge_patch_of_what_was_read(
        before in object(false), patch in object(true), style in 0..3_u8,
    ) {
        for format in FORMATS {
            let text = written(&before, format, style);
            prop_assert_eq!(&format.parse(&text).unwrap(), &before, "{}", text);
            let mut expected = before.clone();
            merge_patch(&mut expected, &patch);
            let update = update(Mode::Merge, patch.clone());
            let new = match compose(Some(text.as_bytes()), &update, format) {
                Ok(new) => new,
                Err(error) => return Err(TestCaseError::fail(format!("{format:?}: {error}\n{text}\n{patch}"))),
            };
            prop_assert_eq!(format.parse(&new.text).unwrap(), expected, "{}", new.text);
            // And again is nothing new.
            let again = compose(Some(new.text.as_bytes()), &update, format).unwrap();
            prop_assert_eq!(again.text, new.text);
        }
    }

    #[test]
    fn a_new_file_says_what_it_is_given(wanted in object(false)) {
        for format in FORMATS {
            let new = compose(None, &update(Mode::Replace, wanted.clone()), format).unwrap();
            prop_assert_eq!(format.parse(&new.text).unwrap(), wanted.clone(), "{}", new.text);
        }
    }

    /// Any bytes as the file in force: an error or a file that says what was asked for.
    #[test]
    fn no_file_in_force_ends_the_process(text in "[\\[\\]{}a:,=\"'#&*!|>%?~ \n\t.0-9-]{0,40}", patch in object(true)) {
        for format in FORMATS {
            if let Ok(new) = compose(Some(text.as_bytes()), &update(Mode::Merge, patch.clone()), format) {
                prop_assert_eq!(format.parse(&new.text).unwrap(), new.value);
            }
        }
    }
}

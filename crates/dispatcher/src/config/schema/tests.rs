use serde_json::json;

use super::*;

fn file(schema: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), schema).unwrap();
    file
}

#[test]
fn what_does_not_fit_is_named_by_its_place_and_what_was_expected() {
    let schema = json!({
        "type": "object",
        "properties": {
            "rate": {"type": "integer", "minimum": 1, "maximum": 100},
            "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 8},
            "host": {"type": "string", "format": "ipv4"},
            "probes": {"type": "array", "items": {"$ref": "#/$defs/probe"}},
            "mode": {"enum": ["slow", "fast"]},
            "either": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
        },
        "required": ["rate"],
        "additionalProperties": false,
        "$defs": {"probe": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}},
    });
    let file = file(&schema.to_string());
    check_schema(file.path()).unwrap();
    let good = json!({"rate": 5, "name": "roof", "host": "10.0.0.1", "probes": [{"id": 1}], "mode": "fast"});
    validate(file.path(), &good).unwrap();
    let cases = [
        ("rate", json!("5"), "/rate: found string, expected integer"),
        ("rate", json!(0), "/rate: expected at least 1"),
        ("rate", json!(101), "/rate: expected at most 100"),
        ("rate", json!(null), "/rate: found null, expected integer"),
        ("name", json!("Secret!"), "/name: expected what matches ^[a-z]+$"),
        ("name", json!("abcdefghi"), "/name: length must be <=8, but got 9"),
        ("host", json!("secret"), "/host: expected the format ipv4"),
        ("probes", json!([{"id": 1}, {"id": "secret"}]), "/probes/1/id: found string, expected integer"),
        ("probes", json!([{}]), "/probes/0: missing properties 'id'"),
        ("mode", json!("secret"), "/mode: value must be one of 'slow', 'fast'"),
        ("either", json!("secret"), "/either: expected one of several, and fits none"),
        ("other", json!("secret"), "the whole file: additionalProperties 'other' not allowed"),
    ];
    for (member, value, expected) in cases {
        let mut config = good.clone();
        config[member] = value;
        let error = validate(file.path(), &config).unwrap_err();
        assert_eq!((error.reason(), error.to_string().as_str()), ("config-invalid", expected));
    }
    assert_eq!(
        validate(file.path(), &json!({})).unwrap_err().to_string(),
        "the whole file: missing properties 'rate'"
    );
}

#[test]
fn a_schema_that_cannot_be_used_says_why() {
    let cases = [
        ("{", "not JSON"),
        ("5", "the whole file: found number, expected boolean or object"),
        (r#"{"type": "strin"}"#, "/type: "),
        (r#"{"minimum": "5"}"#, "/minimum: found string, expected number"),
        (r##"{"$ref": "#/$defs/none"}"##, "none"),
        (r#"{"pattern": "("}"#, "/pattern: expected the format regex"),
        (r#"{"$schema": "https://example.com/meta"}"#, "parts of itself alone"),
    ];
    for (schema, why) in cases {
        let file = file(schema);
        let error = check_schema(file.path()).unwrap_err();
        assert!(error.to_string().contains(why), "{schema}: {error}");
        assert_eq!(validate(file.path(), &json!({})).unwrap_err().reason(), "schema-unusable", "{schema}");
    }
    let missing = check_schema(Path::new("/no/such/schema.json")).unwrap_err().to_string();
    assert!(missing.starts_with("the schema /no/such/schema.json cannot be used: "), "{missing}");
    let large = file(&" ".repeat(MAX_BYTES as usize + 1));
    assert!(check_schema(large.path()).unwrap_err().to_string().contains("more than"));
}

/// A server that would be asked, and a file that would be read: neither is.
#[test]
fn nothing_that_a_schema_refers_to_is_fetched() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let other = file("{}");
    let addresses = [
        format!("http://{}/schema.json", listener.local_addr().unwrap()),
        format!("file://{}", other.path().display()),
        "other.schema.json".to_owned(),
        "https://example.com/schema.json#/$defs/x".to_owned(),
    ];
    for address in addresses {
        let file = file(&json!({"properties": {"a": {"$ref": address}}}).to_string());
        let error = check_schema(file.path()).unwrap_err().to_string();
        assert!(error.contains("parts of itself alone"), "{error}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// Neither a reference to itself nor a value as deep as one may be ends the process, and no pattern takes for ever.
#[test]
fn no_schema_and_no_value_ends_the_process() {
    for schema in [json!({"$ref": "#"}), json!({"allOf": [{"$ref": "#"}]})] {
        let file = file(&schema.to_string());
        assert!(validate(file.path(), &json!({"a": 1})).is_err(), "{schema}");
    }
    let deep = (0..120).fold(json!(1), |inner, _| json!({"a": inner}));
    let recursive =
        file(&json!({"type": ["object", "integer"], "additionalProperties": {"$ref": "#"}}).to_string());
    validate(recursive.path(), &deep).unwrap();
    let slow = file(&json!({"properties": {"a": {"pattern": "^(a+)+$"}}}).to_string());
    assert!(validate(slow.path(), &json!({"a": "a".repeat(10_000) + "!"})).is_err());
}

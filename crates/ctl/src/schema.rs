//! The JSON Schema of job documents. It is a file for people to read and for editors to complete from; the tests hold it to
//! the parser, so that it cannot be out of date.

pub const SCHEMA: &str = include_str!("../../../docs/job-document.schema.json");

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;
    use crate::lint;

    fn fixtures() -> Vec<(String, Value)> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-fixtures/documents");
        let files = ["valid", "invalid"].into_iter().flat_map(|kind| {
            std::fs::read_dir(folder.join(kind)).unwrap().map(|entry| entry.unwrap().path())
        });
        let read = |path: PathBuf| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        files.map(|path| (path.display().to_string(), read(path))).collect()
    }

    struct Schema {
        schemas: boon::Schemas,
        index: boon::SchemaIndex,
    }

    impl Schema {
        fn compiled() -> Self {
            let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
            compiler.add_resource("schema:///this", serde_json::from_str(SCHEMA).unwrap()).unwrap();
            let index = compiler.compile("schema:///this", &mut schemas).unwrap();
            Self { schemas, index }
        }

        /// Compares it with the parser. Whether they accept it.
        fn agrees(&self, name: &str, document: &Value) -> bool {
            let parsed = lint::check(document.to_string().as_bytes(), false);
            let valid = self.schemas.validate(document, self.index).map_err(|error| error.to_string());
            assert_eq!(parsed.is_ok(), valid.is_ok(), "{name}\n{document}\n{parsed:?}\n{valid:?}");
            valid.is_ok()
        }
    }

    #[test]
    fn schema_and_parser_agree_on_every_fixture() {
        let schema = Schema::compiled();
        let valid = fixtures().iter().filter(|(name, document)| schema.agrees(name, document)).count();
        assert!(valid > 8, "{valid}");
    }

    /// Each member of each document away, and everything else in its place: what the parser learns, the schema has to learn.
    #[test]
    fn schema_and_parser_agree_on_every_fixture_with_one_member_changed() {
        let schema = Schema::compiled();
        let values = [
            json!(null),
            json!(true),
            json!(0),
            json!(1),
            json!(-1),
            json!(1.5),
            json!(86_400),
            json!(86_401),
            json!(604_800),
            json!(604_801),
            json!(u64::MAX),
            json!(""),
            json!("x"),
            json!("merge"),
            json!("now"),
            json!("reboot"),
            json!("update-config"),
            json!("update-firmware"),
            json!("2\n"),
            json!("é".repeat(128)),
            json!("é".repeat(129)),
            json!("https://"),
            json!("https://example.com"),
            json!("https://u@example.com/f"),
            json!("http://localhost.example.com/f"),
            json!("http://localhost"),
            json!("sha256:"),
            json!([]),
            json!([1]),
            json!(["x"]),
            json!({}),
            json!({"a": null}),
        ];
        for (name, document) in fixtures() {
            let Value::Object(members) = &document else { continue };
            for member in members.keys() {
                let mut without = document.clone();
                without.as_object_mut().unwrap().remove(member);
                schema.agrees(&name, &without);
                for value in &values {
                    let mut changed = document.clone();
                    changed[member] = value.clone();
                    schema.agrees(&name, &changed);
                }
            }
        }
    }

    /// A member that the parser reads and the schema does not list would be one that no editor knows.
    #[test]
    fn no_member_that_the_parser_understands_is_missing_in_the_schema() {
        for (name, document) in fixtures() {
            let Ok(parsed) = lint::check(document.to_string().as_bytes(), false) else { continue };
            let Value::Object(members) = &document else { continue };
            for member in members.keys() {
                let ignored = parsed.warnings.iter().any(|warning| warning.contains(&format!("{member:?}")));
                let listed = SCHEMA.contains(&format!("{member:?}: {{"));
                assert_eq!(listed, !ignored, "{name}: {member}");
            }
        }
    }
}

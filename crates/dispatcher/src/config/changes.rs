//! What an update changes, member by member, for the person who reads a dry run.

use serde_json::Value;

use super::format::step;

/// More than this nobody reads.
const MAX_LINES: usize = 100;

/// One line for each place that differs: `/sensors/rate: 5 → 10`.
pub(crate) fn changes(before: Option<&Value>, after: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", before, Some(after), &mut lines);
    if lines.len() > MAX_LINES {
        let more = lines.len() - MAX_LINES;
        lines.truncate(MAX_LINES);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn compare(at: &str, before: Option<&Value>, after: Option<&Value>, lines: &mut Vec<String>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
                compare(&step(at, name), old.get(name), new.get(name), lines);
            }
        }
        (None, Some(Value::Object(new))) if at.is_empty() => {
            for (name, value) in new {
                compare(&step(at, name), None, Some(value), lines);
            }
        }
        (old, new) => {
            let at = if at.is_empty() { "the whole file" } else { at };
            lines.push(match (old, new) {
                (Some(old), Some(new)) => format!("{at}: {} → {}", short(old), short(new)),
                (Some(old), None) => format!("{at}: {} is removed", short(old)),
                (None, new) => format!("{at}: {} is new", new.map(short).unwrap_or_default()),
            });
        }
    }
}

fn short(value: &Value) -> String {
    const MAX: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= MAX { text } else { text.chars().take(MAX).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_place_that_differs_is_a_line_of_its_own() {
        let before = json!({"a": {"b": 1, "c": [1]}, "gone": true, "same": null});
        let after = json!({"a": {"b": 2, "c": [1, 2], "x/y": {}}, "same": null});
        assert_eq!(
            changes(Some(&before), &after),
            ["/a/b: 1 → 2", "/a/c: [1] → [1,2]", "/a/x~1y: {} is new", "/gone: true is removed"]
        );
        assert_eq!(changes(None, &json!({"a": 1, "b": {"c": 2}})), ["/a: 1 is new", "/b: {\"c\":2} is new"]);
        assert_eq!(changes(Some(&json!([1])), &json!({"a": 1})), ["the whole file: [1] → {\"a\":1}"]);
        assert!(changes(Some(&before), &before).is_empty());
    }

    #[test]
    fn however_much_changes_the_lines_are_few_and_short() {
        let after: Value = (0..1000).map(|i| (format!("{i:04}"), json!("x".repeat(1000)))).collect();
        let lines = changes(None, &after);
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert_eq!(lines.last().unwrap(), "and 900 more");
        assert!(lines.iter().all(|line| line.chars().count() < 120));
    }
}

//! Lists in pages. A token says where the last page ended, and is checked when it comes back.

use super::Result;
use super::invalid;
use crate::engine::validate::{Input, Text};

/// A page's most entries, also when the caller names no number.
const MOST: usize = 250;

pub struct Page {
    op: &'static str,
    after: Option<String>,
    limit: usize,
}

impl Page {
    pub fn of(input: &Input, op: &'static str) -> Result<Page> {
        let limit = input.integer("maxResults", 1..=MOST as i64)?;
        let after = match input.text("nextToken", &Text::any(0..=usize::MAX))? {
            None => None,
            Some(token) => Some(read(op, &token).ok_or_else(|| invalid("The nextToken is not valid"))?),
        };
        Ok(Page { op, after, limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MOST) })
    }

    /// Where the last page ended: its last key.
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The page's entries out of those that follow `after`, and the token for the next page.
    pub fn take<T>(&self, entries: impl Iterator<Item = (String, T)>) -> (Vec<T>, Option<String>) {
        let mut page = Vec::new();
        let mut last = String::new();
        for (key, entry) in entries {
            if page.len() == self.limit {
                return (page, Some(write(self.op, &last)));
            }
            last = key;
            page.push(entry);
        }
        (page, None)
    }
}

fn write(op: &str, key: &str) -> String {
    format!("{:08x}{}", checksum(op, key), hex::encode(key))
}

fn read(op: &str, token: &str) -> Option<String> {
    let (sum, key) = (token.get(..8)?, token.get(8..)?);
    let key = String::from_utf8(hex::decode(key).ok()?).ok()?;
    (u32::from_str_radix(sum, 16).ok()? == checksum(op, &key)).then_some(key)
}

/// FNV-1a: it finds tokens of another operation and mistakes; it keeps nobody out.
fn checksum(op: &str, key: &str) -> u32 {
    let bytes = op.bytes().chain([0]).chain(key.bytes());
    bytes.fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_its_operation() {
        let token = write("ListJobs", "0000000007");
        assert_eq!(read("ListJobs", &token).as_deref(), Some("0000000007"));
        assert_eq!(read("ListThings", &token), None);
        for wrong in ["", "abc", "zzzzzzzz00", "é1234567", &token[1..]] {
            assert_eq!(read("ListJobs", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_last_page_has_no_token() {
        let page = Page { op: "x", after: None, limit: 2 };
        let entries = |n: usize| (0..n).map(|i| (i.to_string(), i));
        assert_eq!(page.take(entries(2)), (vec![0, 1], None));
        let (first, token) = page.take(entries(3));
        assert_eq!(first, [0, 1]);
        assert_eq!(read("x", &token.unwrap()).as_deref(), Some("1"));
    }
}

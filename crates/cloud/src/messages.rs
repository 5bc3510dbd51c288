//! What the service published, in order, for whoever tests against it.

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::Bytes;

/// The newest messages are kept, up to this many…
const MAX_MESSAGES: usize = 100_000;
/// …and up to this many bytes of topics and payloads.
const MAX_BYTES: usize = 64 << 20;

struct Message {
    topic: String,
    /// JSON, as it went out.
    payload: Bytes,
    client: Option<String>,
}

impl Message {
    fn len(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

#[derive(Default)]
pub(crate) struct MessageLog {
    kept: VecDeque<Message>,
    bytes: usize,
    /// Sequence number of the newest; the first message is number 1.
    last: u64,
}

impl MessageLog {
    pub(crate) fn push(&mut self, topic: &str, payload: Bytes, client: Option<&str>) {
        let message = Message { topic: topic.to_owned(), payload, client: client.map(str::to_owned) };
        self.last += 1;
        self.bytes += message.len();
        self.kept.push_back(message);
        while self.kept.len() > MAX_MESSAGES || self.bytes > MAX_BYTES {
            let Some(dropped) = self.kept.pop_front() else { break };
            self.bytes -= dropped.len();
        }
    }

    /// The messages with numbers above `after`, as the body of `GET /_cloud/messages`.
    pub(crate) fn since(&self, after: u64) -> String {
        let first = self.last - self.kept.len() as u64 + 1;
        let mut body = format!("{{\"last\":{},\"messages\":[", self.last);
        let mut separator = "";
        for (seq, message) in (first..).zip(&self.kept).filter(|(seq, _)| *seq > after) {
            let topic = serde_json::Value::from(message.topic.as_str());
            let client = serde_json::Value::from(message.client.as_deref());
            let payload = String::from_utf8_lossy(&message.payload);
            // Writing to a String cannot fail.
            let _ = write!(
                body,
                r#"{separator}{{"seq":{seq},"topic":{topic},"payload":{payload},"client":{client}}}"#
            );
            separator = ",";
        }
        body.push_str("]}");
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_numbered_from_one_and_filtered_by_number() {
        let mut log = MessageLog::default();
        log.push("a", Bytes::from_static(b"{}"), None);
        log.push("b", Bytes::from_static(br#"{"x":1}"#), Some("dev"));
        let all: serde_json::Value = serde_json::from_str(&log.since(0)).unwrap();
        assert_eq!(all["last"], 2);
        assert_eq!(all["messages"][0]["client"], serde_json::Value::Null);
        let newer: serde_json::Value = serde_json::from_str(&log.since(1)).unwrap();
        assert_eq!(
            newer["messages"],
            serde_json::json!([{"seq":2,"topic":"b","payload":{"x":1},"client":"dev"}])
        );
    }

    #[test]
    fn the_oldest_go_first_when_the_bound_is_met_and_numbers_stay() {
        let mut log = MessageLog::default();
        let payload = Bytes::from(format!("\"{}\"", "x".repeat(MAX_BYTES / 4)));
        for _ in 0..6 {
            log.push("t", payload.clone(), None);
        }
        let kept: serde_json::Value = serde_json::from_str(&log.since(0)).unwrap();
        assert_eq!(kept["last"], 6);
        assert_eq!(kept["messages"][0]["seq"], 4);
    }
}

//! Shadows over HTTPS: the operations of `iot-data`. What they change is heard over MQTT like everything else; what
//! they are refused for is not.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::request::Operation;
use super::{Done, Shadows};
use crate::engine::{ApiError, Output, Time};

/// Names on a page, where the request says nothing.
const PAGE: usize = 25;
const MOST_ON_A_PAGE: usize = 100;

type Params = BTreeMap<String, String>;

impl Shadows {
    pub fn https(
        &mut self,
        now: Time,
        known: bool,
        operation: &str,
        params: &Params,
        body: &[u8],
    ) -> Result<(Value, Vec<Output>), ApiError> {
        let thing = params.get("thingName").map(String::as_str).unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":_-".contains(c);
        if thing.is_empty() || thing.len() > 128 || !thing.chars().all(allowed) {
            return Err(ApiError::invalid_request("Invalid thing name"));
        }
        let operation = match operation {
            "GetThingShadow" => Operation::Get,
            "UpdateThingShadow" => Operation::Update,
            "DeleteThingShadow" => Operation::Delete,
            _ => return Ok((self.list(now, thing, params)?, Vec::new())),
        };
        let name = params.get("shadowName").or_else(|| params.get("name")).cloned();
        let id = (thing.to_owned(), name);
        let Done { answer, messages } = self.call(now, known, operation, &id, body)?;
        Ok((answer, messages))
    }

    /// The names of a thing's named shadows, in order; the token is the name that was shown last.
    fn list(&self, now: Time, thing: &str, params: &Params) -> Result<Value, ApiError> {
        let size = match params.get("pageSize") {
            None => PAGE,
            Some(text) => {
                let size = text.parse().ok().filter(|size| (1..=MOST_ON_A_PAGE).contains(size));
                size.ok_or_else(|| ApiError::invalid_request("pageSize must be from 1 to 100"))?
            }
        };
        let after = match params.get("nextToken") {
            None => String::new(),
            Some(token) => hex::decode(token)
                .ok()
                .and_then(|name| String::from_utf8(name).ok())
                .ok_or_else(|| ApiError::invalid_request("Invalid nextToken"))?,
        };
        let of_thing = self.shadows.range((thing.to_owned(), None)..);
        let of_thing = of_thing.take_while(|((of, _), _)| of == thing);
        let there = of_thing.filter(|(_, shadow)| shadow.document.is_some());
        let mut names = there.filter_map(|((_, name), _)| name.as_ref()).filter(|name| **name > after);
        let results: Vec<&String> = names.by_ref().take(size).collect();
        let mut answer = json!({"results": results, "timestamp": now.secs()});
        if let (Some(last), Some(_), Some(members)) = (results.last(), names.next(), answer.as_object_mut()) {
            members.insert("nextToken".to_owned(), hex::encode(last).into());
        }
        Ok(answer)
    }
}

//! `update-config`: the new configuration is composed in memory, then takes the same way into force as firmware.

use bytes::Bytes;
use device::{Change, Device, Order, Target};
use downloader::Digest;
use serde_json::{Map, Value};

use crate::dispatcher::{Context, Dispatcher, Failure};
use crate::operation::{Mode, UpdateConfig};
use crate::outcome::{Outcome, Progress};

/// The one configuration that there is.
pub(crate) const NAME: &str = "config";

impl<D: Device> Dispatcher<D> {
    pub(crate) async fn update_config(
        &mut self,
        update: &UpdateConfig,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        context.report(Progress::phase("configuring"));
        let current = self.device.read_config(NAME).await?;
        let new = compose(current.as_deref(), update)
            .map_err(|why| Failure::Outcome(Outcome::failed("config-unreadable", why)))?;
        if current.as_deref() == Some(new.as_slice()) {
            return Ok(Outcome::succeeded("unchanged", "the configuration says this already"));
        }
        let digest = Digest::of_bytes(&new);
        let order = order(digest, new.len());
        // A leftover of an earlier attempt is not continued: the bytes are all here.
        self.device.discard(&order.target).await?;
        self.device.begin(&order).await?;
        self.device.reserve(new.len() as u64).await?;
        self.device.write(Bytes::from(new)).await?;
        let before = self.device.finish().await?;
        if context.halt.kind().is_some() {
            return Err(Failure::Halted);
        }
        let change = Change { target: order.target, digest, before, commit: None };
        self.put_in_force(change, context).await
    }
}

pub(crate) fn order(digest: Digest, len: usize) -> Order {
    Order { target: Target::Config(NAME.to_owned()), digest, size: Some(len as u64), version: None }
}

/// The file that the update asks for, as text: indented, with a newline at its end, for people.
pub(crate) fn compose(current: Option<&[u8]>, update: &UpdateConfig) -> Result<Vec<u8>, String> {
    let new = match update.mode {
        Mode::Replace => Value::Object(update.config.clone()),
        Mode::Merge => {
            let mut target = match current {
                None => Value::Object(Map::new()),
                Some(bytes) => serde_json::from_slice(bytes).map_err(|error| {
                    format!("the file in force is not JSON ({error}): use \"mode\":\"replace\"")
                })?,
            };
            merge_patch(&mut target, &Value::Object(update.config.clone()));
            target
        }
    };
    let mut text = serde_json::to_vec_pretty(&new).map_err(|error| error.to_string())?;
    text.push(b'\n');
    Ok(text)
}

/// RFC 7396, section 2, as it is written there.
fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge_patch(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
        UpdateConfig { config: config.as_object().unwrap().clone(), mode }
    }

    #[test]
    fn a_file_in_force_that_is_not_json_is_not_merged_but_can_be_replaced() {
        assert!(compose(Some(b"rate = 5"), &update(Mode::Merge, json!({"rate": 5}))).is_err());
        let new = compose(Some(b"rate = 5"), &update(Mode::Replace, json!({"rate": 5}))).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&new).unwrap(), json!({"rate": 5}));
    }

    #[test]
    fn merging_twice_is_merging_once() {
        let update = update(Mode::Merge, json!({"a": {"b": 1}, "c": null}));
        let once = compose(Some(br#"{"c":1,"d":2}"#), &update).unwrap();
        assert_eq!(compose(Some(&once), &update).unwrap(), once);
    }
}

//! The new file, composed in memory from the file in force and the update. The merge is done on JSON values, once for
//! all formats; what a format adds is to keep of the old text what the new value does not change.

use serde_json::{Map, Value};

use super::format::{Format, Misfit};
use crate::operation::{Mode, UpdateConfig};

/// A configuration file beyond this is not one.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, PartialEq)]
pub(crate) struct Composed {
    pub text: String,
    pub value: Value,
    /// What the file in force says, where it says anything.
    pub before: Option<Value>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ComposeError {
    #[error("the file in force is not {format} ({why}): use \"mode\":\"replace\"")]
    Unreadable { format: &'static str, why: String },
    #[error(transparent)]
    Misfit(#[from] Misfit),
    #[error("the file in force cannot be changed to what was asked for ({0}): use \"mode\":\"replace\"")]
    Unmergeable(String),
}

impl ComposeError {
    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } | Self::Unmergeable(_) => "config-unreadable",
            Self::Misfit(_) => "config-invalid",
        }
    }
}

pub(crate) fn compose(current: Option<&[u8]>, update: &UpdateConfig) -> Result<Composed, ComposeError> {
    let format = update.file.format;
    let wanted = Value::Object(update.config.clone());
    let (old, before, value) = match (current.map(|bytes| read(bytes, format)), update.mode) {
        (Some(Ok((text, before))), Mode::Replace) => (text, Some(before), wanted),
        (Some(Ok((text, before))), Mode::Merge) => {
            let mut merged = before.clone();
            merge_patch(&mut merged, &wanted);
            (text, Some(before), merged)
        }
        (Some(Err(_)), Mode::Replace) => ("", None, wanted),
        (Some(Err(why)), Mode::Merge) => {
            return Err(ComposeError::Unreadable { format: format.name(), why });
        }
        (None, Mode::Replace) => ("", None, wanted),
        (None, Mode::Merge) => {
            let mut merged = Value::Object(Map::new());
            merge_patch(&mut merged, &wanted);
            ("", None, merged)
        }
    };
    // A file that says so already stays as it is, however it is written.
    let unchanged = before.as_ref() == Some(&value);
    let text = if unchanged { old.to_owned() } else { rewritten(old, &value, format)? };
    Ok(Composed { text, value, before })
}

fn read(bytes: &[u8], format: Format) -> Result<(&str, Value), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    Ok((text, format.parse(text)?))
}

/// Read back before anything is written: whatever the old text had in it, the new one says what was asked for.
fn rewritten(old: &str, value: &Value, format: Format) -> Result<String, ComposeError> {
    let text = format.rewrite(old, value)?;
    if text.len() > MAX_BYTES {
        let problem = format!("it would have {} bytes, expected at most {MAX_BYTES}", text.len());
        return Err(Misfit { pointer: String::new(), problem }.into());
    }
    match format.parse(&text) {
        Ok(said) if said == *value => Ok(text),
        Ok(_) => Err(ComposeError::Unmergeable(format!("as {} it would say something else", format.name()))),
        Err(why) => Err(ComposeError::Unmergeable(format!("it would not be {}: {why}", format.name()))),
    }
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
mod tests;

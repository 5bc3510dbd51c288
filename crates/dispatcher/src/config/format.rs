//! The formats of configuration files, behind two functions: what a text says as a JSON value, and a text that says
//! another value. Nothing else of the agent knows that there is more than one format.

use std::path::Path;

use serde_json::Value;

use super::{toml, yaml};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Toml,
    Yaml,
}

/// A place in the new configuration that cannot be as it was asked for: nothing is written then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", if pointer.is_empty() { "the whole file" } else { pointer })]
pub(crate) struct Misfit {
    /// A JSON Pointer, RFC 6901.
    pub pointer: String,
    pub problem: String,
}

impl Format {
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Toml => "toml",
            Self::Yaml => "yaml",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Json, Self::Toml, Self::Yaml].into_iter().find(|format| format.name() == name)
    }

    /// `None` for an extension that says nothing: a guess could destroy the file.
    pub fn by_extension(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }

    pub(crate) fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
            Self::Toml => toml::parse(text),
            Self::Yaml => yaml::parse(text),
        }
    }

    /// A text that says `wanted`, and keeps of `old` what the format can keep. `old` is a text that `parse` takes.
    pub(crate) fn rewrite(self, old: &str, wanted: &Value) -> Result<String, Misfit> {
        match self {
            // Indented, with a newline at its end, for people.
            Self::Json => Ok(format!("{wanted:#}\n")),
            Self::Toml => toml::rewrite(old, wanted),
            Self::Yaml => Ok(yaml::rewrite(old, wanted)),
        }
    }
}

/// One step down in a JSON Pointer.
pub(super) fn step(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

//! What was found, for a person while it is found, or as one JSON document.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

/// Raised when the meaning of a member changes.
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    Ok,
    /// It works, and will not for ever.
    Warning,
    Failed,
    /// It could not be looked at, or must not be.
    Skipped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub result: Found,
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    pub fn ok(name: &'static str, text: impl Display) -> Self {
        Self { name, result: Found::Ok, text: text.to_string(), advice: None }
    }

    pub fn skipped(name: &'static str, text: impl Display) -> Self {
        Self { result: Found::Skipped, ..Self::ok(name, text) }
    }

    pub fn warning(name: &'static str, text: impl Display, advice: impl Display) -> Self {
        Self { result: Found::Warning, ..Self::failed(name, text, advice) }
    }

    pub fn failed(name: &'static str, text: impl Display, advice: impl Display) -> Self {
        let advice = Some(advice.to_string()).filter(|advice| !advice.is_empty());
        Self { result: Found::Failed, advice, ..Self::ok(name, text) }
    }
}

pub struct Report {
    json: bool,
    checks: Vec<Check>,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self { json, checks: Vec::new() }
    }

    /// A person reads it at once: the next check may take its time.
    pub fn add(&mut self, check: Check) {
        if !self.json {
            let word = match check.result {
                Found::Ok => "ok",
                Found::Warning => "warning",
                Found::Failed => "FAILED",
                Found::Skipped => "skipped",
            };
            let mut lines = format!("{word:<8} {:<14} {}\n", check.name, check.text);
            if let Some(advice) = &check.advice {
                lines += &format!("{:23} what to do: {advice}\n", "");
            }
            // A reader that has gone does not want the rest.
            let _ = std::io::stdout().write_all(lines.as_bytes());
        }
        self.checks.push(check);
    }

    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|check| check.result != Found::Failed)
    }

    pub fn end(self) -> anyhow::Result<ExitCode> {
        if self.json {
            let document = json!({"format": FORMAT, "ok": self.is_ok(), "checks": self.checks});
            writeln!(std::io::stdout(), "{document:#}")?;
        }
        Ok(if self.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

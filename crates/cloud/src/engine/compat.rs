//! Where AWS's own texts disagree or are silent: one named switch each.

use std::str::FromStr;

#[derive(Clone, Debug, Default)]
pub struct Compat {}

impl FromStr for Compat {
    type Err = String;
    fn from_str(_: &str) -> Result<Compat, String> {
        Ok(Compat {})
    }
}

impl Compat {
    /// Sets one switch from its command line form, `NAME=VALUE`.
    pub fn set(&mut self, assignment: &str) -> Result<(), String> {
        Err(format!("unknown switch {assignment}"))
    }
}

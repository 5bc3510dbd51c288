//! Versions of the agent: the three numbers of semantic versioning.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Compared number by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentVersion([u32; 3]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a version like 1.2.3")]
pub struct VersionError;

impl FromStr for AgentVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or(VersionError)
        };
        let parts: Vec<u32> = text.split('.').take(4).map(number).collect::<Result<_, _>>()?;
        parts.try_into().map(Self).map_err(|_| VersionError)
    }
}

impl fmt::Display for AgentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Serialize for AgentVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AgentVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_as_numbers() {
        let version = |text: &str| text.parse::<AgentVersion>().unwrap();
        assert!(version("0.9.10") < version("0.10.0"));
        assert!(version("1.0.0") > version("0.99.99"));
        assert_eq!(version("1.2.3").to_string(), "1.2.3");
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "1.2.", "+1.2.3", "1.2.4294967296", "1.2.3-rc1"] {
            assert_eq!(text.parse::<AgentVersion>(), Err(VersionError), "{text}");
        }
    }
}

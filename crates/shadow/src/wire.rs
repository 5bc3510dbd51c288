//! What the service says, and the two requests that we make. A message that is not understood is `None`: it is as good
//! as lost, and what is lost is asked for again.

use serde::{Deserialize, Serialize};

use crate::document::Members;

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Sections {
    /// Twice optional: absent is not the same as null, which removes a section.
    #[serde(default, deserialize_with = "present")]
    pub desired: Option<Option<Members>>,
    #[serde(default, deserialize_with = "present")]
    pub reported: Option<Option<Members>>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<Members>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

/// `get/accepted` and `update/accepted`; a state that is null removes both sections.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    pub state: Option<Sections>,
    pub version: u64,
    pub client_token: Option<String>,
}

/// All that differs, and in which version.
#[derive(Debug, Deserialize)]
pub(crate) struct Delta {
    pub state: Members,
    pub version: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Deleted {
    pub version: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rejected {
    pub code: u16,
    #[serde(default)]
    pub message: String,
    pub client_token: Option<String>,
}

impl Rejected {
    /// Refused for now: the same may be taken later.
    pub fn is_transient(&self) -> bool {
        self.code == 429 || self.code >= 500
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Get<'a> {
    pub client_token: &'a str,
}

/// Without a version: what a device reports is so, whatever anybody has written meanwhile.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Update<'a> {
    pub state: Reported<'a>,
    pub client_token: &'a str,
}

#[derive(Serialize)]
pub(crate) struct Reported<'a> {
    pub reported: &'a Members,
}

pub(crate) fn body(message: &impl Serialize) -> Vec<u8> {
    // Strings and numbers: it cannot fail.
    serde_json::to_vec(message).unwrap_or_default()
}

pub(crate) fn read<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Option<T> {
    serde_json::from_slice(payload)
        .inspect_err(|error| tracing::warn!(%error, "a message of the shadow service is not understood"))
        .ok()
}

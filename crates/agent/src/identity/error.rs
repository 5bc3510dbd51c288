//! Why there is no new certificate, and whether asking again helps.

use std::io;
use std::path::PathBuf;

use connection::talk::Stuck;
use connection::tls::TlsError;
use device::CommandFailure;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Stuck(#[from] Stuck),
    #[error("AWS IoT rejects {request} with {code} ({status}): {message}{}", advice(.code))]
    Rejected { request: &'static str, status: u16, code: String, message: String },
    #[error("AWS IoT's answer to {request} is not understood: {problem}")]
    Malformed { request: &'static str, problem: String },
    #[error("the new certificate does not work, and is given up: {0}")]
    NewRefused(String),
    #[error("the cloud calls this device {found:?}, and it is configured as {configured:?}")]
    OtherThing { configured: String, found: String },
    #[error("the certificate does not belong to this device's key: {0}")]
    Mismatch(TlsError),
    #[error("{0}")]
    Files(#[from] TlsError),
    #[error("no template: neither the document nor `[provisioning] rotation_template` names one")]
    NoTemplate,
    #[error("parameter {name}: {source}")]
    Command { name: String, source: CommandFailure },
    #[error("parameter {name}: {problem}")]
    Parameter { name: String, problem: &'static str },
    #[error("{}: {source}", path.display())]
    Storage { path: PathBuf, source: io::Error },
    #[error(
        "the device's key is in a token, and not replaced by a file: another certificate for it comes by `fleethand setup`"
    )]
    KeyInToken,
    #[error("no key can be made: {0}")]
    Key(#[from] rcgen::Error),
}

/// What asking again is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// The network's fault: as often as it takes.
    Outage,
    /// It may pass, and nobody knows when.
    Perhaps,
    /// Somebody has to change something first.
    Useless,
}

impl Error {
    pub fn again(&self) -> Again {
        match self {
            Self::Stuck(stuck) if !stuck.cause.is_about_identity() => Again::Outage,
            Self::Stuck(_) | Self::Command { .. } | Self::Storage { .. } => Again::Perhaps,
            Self::Rejected { status: 429 | 500.., .. } => Again::Perhaps,
            Self::Rejected { code, .. } if code.contains("hrottl") => Again::Perhaps,
            _ => Again::Useless,
        }
    }

    /// The token has been used, or is too old. If it was used, then by us: the answer was lost.
    pub fn is_about_token(&self) -> bool {
        matches!(self, Self::Rejected { code, message, .. }
            if [code, message].iter().any(|text| text.to_lowercase().contains("token")))
    }

    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Stuck(_) | Self::Malformed { .. } => "provisioning-unavailable",
            Self::Rejected { .. } | Self::OtherThing { .. } => "provisioning-rejected",
            Self::NewRefused(_) => "new-certificate-refused",
            Self::Mismatch(_) | Self::Files(_) => "certificate-mismatch",
            Self::NoTemplate => "not-configured",
            Self::KeyInToken => "key-in-token",
            Self::Command { source, .. } => source.reason(),
            Self::Parameter { .. } => "parameter-unusable",
            Self::Storage { source, .. } if source.kind() == io::ErrorKind::StorageFull => "no-space",
            Self::Storage { .. } | Self::Key(_) => "storage-error",
        }
    }
}

fn advice(code: &str) -> &'static str {
    match code {
        "ResourceNotFound" => ": is there a template of this name, in this account and region?",
        "AccessDenied" => ": does the policy of the certificate that asks allow it?",
        _ => "",
    }
}

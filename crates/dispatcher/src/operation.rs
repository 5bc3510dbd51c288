//! The door at which a document is understood, or rejected with a precise reason. Nothing behind it sees JSON
//! of the job document again.

use std::path::PathBuf;
use std::time::Duration;

use device::{Compression, Order, Target, When};
use downloader::{Artifact, Digest, SourceUrl};
use release::Envelope;
use serde_json::{Map, Value};

use crate::config::Format;
use crate::rotate::{RotateCertificate, rotate_certificate};

/// A reboot may be ordered at most a day ahead: what is further away belongs into a scheduled job.
const MAX_DELAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As long as AWS lets an execution be in progress.
const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const MAX_VERSION_CHARACTERS: usize = 128;

#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    UpdateFirmware(UpdateFirmware),
    UpdateConfig(UpdateConfig),
    Reboot(Reboot),
    RotateCertificate(RotateCertificate),
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpdateFirmware {
    pub version: String,
    pub artifact: Artifact,
    /// What the maker signed; what it is worth is decided where bytes are written.
    pub release: Option<Envelope>,
    pub activate: When,
    pub compression: Compression,
}

impl UpdateFirmware {
    /// What the device is asked to take.
    pub(crate) fn order(&self) -> Order {
        Order {
            target: Target::Firmware,
            digest: self.artifact.digest,
            size: self.artifact.size,
            compression: self.compression,
            version: Some(self.version.clone()),
            release: self.release.clone(),
            activate: self.activate,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct UpdateConfig {
    pub file: ConfigFile,
    pub config: Map<String, Value>,
    pub mode: Mode,
}

/// A configured configuration file, as far as deciding needs it. Where it is, the device knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    pub name: String,
    pub format: Format,
    /// A file with the JSON Schema that its content must fit.
    pub schema: Option<PathBuf>,
}

impl ConfigFile {
    pub const NAME: &str = "the name of a file: 1 to 64 characters, without / ? and control characters";

    /// What can stand in messages and in the journal: no address, and not long.
    pub fn is_name(text: &str) -> bool {
        (1..=64).contains(&text.chars().count())
            && !text.contains(|c: char| c.is_control() || "/?".contains(c))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// JSON Merge Patch, RFC 7396.
    Merge,
    Replace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reboot {
    pub delay: Duration,
}

/// What of a document depends on the device's configuration.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Plain `http` to hosts other than this one.
    pub allow_http: bool,
    /// Firmware stays only if the cloud is reached within this time.
    pub cloud_within: Option<Duration>,
    /// The artifact is this file, whatever `url` says: an installation without the cloud.
    pub local_artifact: Option<PathBuf>,
    /// Empty where none is configured, or where no device is asked: then any name is taken.
    pub configs: Vec<ConfigFile>,
}

/// An operation, how long it may take, and what was ignored on the way to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub operation: Operation,
    /// The document's own limit, where it has one.
    pub timeout: Option<Duration>,
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error(
        "unknown operation {0:?}: this agent knows update-firmware, update-config, reboot and rotate-certificate"
    )]
    UnknownOperation(String),
    #[error("file: found {found}, expected one of {known}")]
    UnknownFile { found: String, known: String },
    #[error("{member}: found {found}, expected {expected}")]
    Invalid { member: &'static str, found: String, expected: &'static str },
}

impl DocumentError {
    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownOperation(_) => "unknown-operation",
            Self::UnknownFile { .. } => "unknown-file",
            Self::Invalid { .. } => "invalid-document",
        }
    }
}

impl Operation {
    pub fn name(&self) -> &'static str {
        match self {
            Self::UpdateFirmware(_) => "update-firmware",
            Self::UpdateConfig(_) => "update-config",
            Self::Reboot(_) => "reboot",
            Self::RotateCertificate(_) => "rotate-certificate",
        }
    }

    pub fn parse(document: &Value, rules: &Rules) -> Result<Parsed, DocumentError> {
        let mut members = Members::of(document)?;
        let name = members.required("operation", "a string", |v| v.as_str().map(str::to_owned))?;
        let timeout = members.optional("timeoutSeconds", "whole seconds from 1 to 604800", |v| {
            v.as_u64().map(Duration::from_secs).filter(|t| !t.is_zero() && *t <= MAX_TIMEOUT)
        });
        let operation = match name.as_str() {
            "update-firmware" => Self::UpdateFirmware(update_firmware(&mut members, rules)?),
            "update-config" => Self::UpdateConfig(update_config(&mut members, rules)?),
            "reboot" => Self::Reboot(reboot(&mut members)?),
            "rotate-certificate" => Self::RotateCertificate(rotate_certificate(&mut members)?),
            _ => return Err(DocumentError::UnknownOperation(shorten(&name))),
        };
        Ok(Parsed { operation, timeout: timeout?, warnings: members.unknown() })
    }
}

fn update_firmware(members: &mut Members, rules: &Rules) -> Result<UpdateFirmware, DocumentError> {
    let url = members.required("url", "a string with an https URL", as_string)?;
    let version = members.required("version", VERSION, |v| {
        as_string(v).filter(|s| {
            !s.is_empty() && s.chars().count() <= MAX_VERSION_CHARACTERS && !s.chars().any(char::is_control)
        })
    })?;
    let checksum = members.required("checksum", "a string like \"sha256:<64 hex digits>\"", as_string)?;
    let compression = members.optional("compression", "\"none\", \"gzip\", \"xz\" or \"zstd\"", |v| {
        v.as_str().and_then(Compression::named)
    })?;
    let size =
        members.optional("size", "a number of bytes above zero", |v| v.as_u64().filter(|size| *size > 0))?;
    let activate = members.optional("activate", "\"now\" or \"next-reboot\"", |v| match v.as_str()? {
        "now" => Some(When::Now),
        "next-reboot" => Some(When::NextReboot),
        _ => None,
    })?;
    let url = match &rules.local_artifact {
        Some(file) => SourceUrl::local(file),
        None => SourceUrl::parse(&url, rules.allow_http),
    };
    let url = url.map_err(|error| DocumentError::Invalid {
        member: "url",
        found: error.to_string(),
        expected: "an https URL (http only to this host, or where [download] allow_http is set)",
    })?;
    let digest: Digest =
        checksum.parse().map_err(|error: downloader::DigestError| DocumentError::Invalid {
            member: "checksum",
            found: error.to_string(),
            expected: "\"sha256:\" and 64 hex digits",
        })?;
    let release = release(members)?;
    let artifact = Artifact { url, digest, size };
    let (activate, compression) = (activate.unwrap_or_default(), compression.unwrap_or_default());
    Ok(UpdateFirmware { version, artifact, release, activate, compression })
}

fn release(members: &mut Members) -> Result<Option<Envelope>, DocumentError> {
    const EXPECTED: &str = "a DSSE envelope: an object with payload, payloadType and signatures";
    let object = members.optional("release", EXPECTED, |v| v.is_object().then(|| v.clone()))?;
    object.map(|object| Envelope::from_value(&object)).transpose().map_err(|error| DocumentError::Invalid {
        member: "release",
        found: error.to_string(),
        expected: EXPECTED,
    })
}

const VERSION: &str = "a string of 1 to 128 characters without control characters";

fn update_config(members: &mut Members, rules: &Rules) -> Result<UpdateConfig, DocumentError> {
    let config = members.required("config", "an object", |v| v.as_object().cloned())?;
    let mode = members.optional("mode", "\"merge\" or \"replace\"", |v| match v.as_str()? {
        "merge" => Some(Mode::Merge),
        "replace" => Some(Mode::Replace),
        _ => None,
    })?;
    let name =
        members.optional("file", ConfigFile::NAME, |v| as_string(v).filter(|s| ConfigFile::is_name(s)))?;
    let file = config_file(name, &rules.configs)?;
    Ok(UpdateConfig { file, config, mode: mode.unwrap_or(Mode::Merge) })
}

/// Which file is meant. It need not be named where there is one only.
fn config_file(name: Option<String>, configured: &[ConfigFile]) -> Result<ConfigFile, DocumentError> {
    let found = match (&name, configured) {
        (None, [only]) => Some(only),
        (_, []) => {
            let name = name.unwrap_or_else(|| "config".to_owned());
            return Ok(ConfigFile { name, format: Format::Json, schema: None });
        }
        (Some(name), files) => files.iter().find(|file| file.name == *name),
        (None, _) => None,
    };
    found.cloned().ok_or_else(|| DocumentError::UnknownFile {
        found: name.map_or_else(|| "nothing".to_owned(), |name| format!("{name:?}")),
        known: configured.iter().map(|file| format!("{:?}", file.name)).collect::<Vec<_>>().join(", "),
    })
}

fn reboot(members: &mut Members) -> Result<Reboot, DocumentError> {
    let delay = members.optional("delay", "whole seconds from 0 to 86400", |v| {
        v.as_u64().map(Duration::from_secs).filter(|delay| *delay <= MAX_DELAY)
    })?;
    Ok(Reboot { delay: delay.unwrap_or_default() })
}

pub(crate) fn as_string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Takes members out of a document one by one; what is left over was not understood.
pub(crate) struct Members(Map<String, Value>);

impl Members {
    fn of(document: &Value) -> Result<Self, DocumentError> {
        document.as_object().cloned().map(Self).ok_or_else(|| DocumentError::Invalid {
            member: "the document",
            found: kind(document),
            expected: "a JSON object",
        })
    }

    pub(crate) fn optional<T>(
        &mut self,
        member: &'static str,
        expected: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, DocumentError> {
        let Some(value) = self.0.remove(member) else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(DocumentError::Invalid { member, found: kind(&value), expected }),
        }
    }

    fn required<T>(
        &mut self,
        member: &'static str,
        expected: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<T, DocumentError> {
        self.optional(member, expected, read)?.ok_or(DocumentError::Invalid {
            member,
            found: "nothing".to_owned(),
            expected,
        })
    }

    fn unknown(self) -> Vec<String> {
        self.0.keys().map(|name| format!("member {:?} is not known, and ignored", shorten(name))).collect()
    }
}

/// Names what was found without quoting a whole document. Strings are named by their kind alone where they
/// could be long or secret (a presigned URL).
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) if s.is_empty() => "an empty string".to_owned(),
        Value::String(s) if s.len() <= 32 && !s.contains('?') => format!("the string {s:?}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Without what could be the query of a presigned URL.
fn shorten(text: &str) -> String {
    const MAX: usize = 64;
    let shown: String = text.chars().take(MAX).take_while(|c| *c != '?').collect();
    if shown.len() == text.len() { shown } else { shown + "…" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rotate::PEM_BEGINS;

    fn parse(document: Value) -> Result<Parsed, DocumentError> {
        Operation::parse(&document, &Rules::default())
    }

    fn firmware() -> Value {
        json!({
            "operation": "update-firmware",
            "url": "https://bucket.s3.us-east-1.amazonaws.com/fw.bin?X-Amz-Signature=secret",
            "version": "2.0",
            "checksum": format!("sha256:{}", "ab".repeat(32)),
        })
    }

    fn with(mut document: Value, member: &str, value: Value) -> Value {
        document[member] = value;
        document
    }

    #[test]
    fn the_three_operations_are_understood() {
        let Operation::UpdateFirmware(update) = parse(firmware()).unwrap().operation else { panic!() };
        assert_eq!((update.version.as_str(), update.artifact.size), ("2.0", None));
        let Operation::UpdateFirmware(update) = parse(with(firmware(), "size", json!(7))).unwrap().operation
        else {
            panic!()
        };
        assert_eq!(update.artifact.size, Some(7));
        let config = json!({"operation": "update-config", "config": {"a": 1}});
        let Operation::UpdateConfig(update) = parse(config.clone()).unwrap().operation else { panic!() };
        assert_eq!(update.mode, Mode::Merge);
        let replace = parse(with(config, "mode", json!("replace"))).unwrap().operation;
        assert!(matches!(replace, Operation::UpdateConfig(UpdateConfig { mode: Mode::Replace, .. })));
        let now = parse(json!({"operation": "reboot"})).unwrap().operation;
        assert_eq!(now, Operation::Reboot(Reboot { delay: Duration::ZERO }));
        let day = parse(json!({"operation": "reboot", "delay": 86400})).unwrap().operation;
        assert_eq!(day, Operation::Reboot(Reboot { delay: MAX_DELAY }));
    }

    #[test]
    fn a_file_is_named_where_there_is_more_than_one() {
        let file = |name: &str| ConfigFile { name: name.to_owned(), format: Format::Toml, schema: None };
        let parse = |names: &[&str], document: &Value| {
            let rules = Rules { configs: names.iter().map(|name| file(name)).collect(), ..Rules::default() };
            match Operation::parse(document, &rules).map(|parsed| parsed.operation) {
                Ok(Operation::UpdateConfig(update)) => Ok(update.file.name),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err((error.reason(), error.to_string())),
            }
        };
        let unnamed = json!({"operation": "update-config", "config": {}});
        let named = with(unnamed.clone(), "file", json!("b"));
        assert_eq!(parse(&["a"], &unnamed), Ok("a".to_owned()));
        assert_eq!(parse(&["a", "b"], &named), Ok("b".to_owned()));
        // That nothing is configured, the device says.
        assert_eq!(parse(&[], &named), Ok("b".to_owned()));
        assert_eq!(parse(&[], &unnamed), Ok("config".to_owned()));
        let unknown = |found: &str, known: &str| {
            Err(("unknown-file", format!("file: found {found}, expected one of {known}")))
        };
        assert_eq!(parse(&["a", "b"], &unnamed), unknown("nothing", r#""a", "b""#));
        assert_eq!(parse(&["a", "c"], &named), unknown(r#""b""#, r#""a", "c""#));
        assert_eq!(parse(&["a"], &named), unknown(r#""b""#, r#""a""#));
    }

    #[test]
    fn any_operation_may_have_a_limit_of_its_own() {
        assert_eq!(parse(firmware()).unwrap().timeout, None);
        let limited = parse(with(firmware(), "timeoutSeconds", json!(90))).unwrap();
        assert_eq!((limited.timeout, limited.warnings), (Some(Duration::from_secs(90)), vec![]));
    }

    #[test]
    fn an_upper_case_digest_is_accepted() {
        let checksum = json!(format!("sha256:{}", "AB".repeat(32)));
        assert!(parse(with(firmware(), "checksum", checksum)).is_ok());
    }

    #[test]
    fn unknown_members_are_warned_of_and_ignored() {
        let parsed = parse(json!({"operation": "reboot", "why": 1})).unwrap();
        assert_eq!(parsed.warnings, ["member \"why\" is not known, and ignored"]);
    }

    #[test]
    fn what_is_not_understood_is_rejected_by_name() {
        let cases = [
            (json!([]), "the document"),
            (json!("reboot"), "the document"),
            (json!(null), "the document"),
            (json!({}), "operation"),
            (json!({"operation": 1}), "operation"),
            (json!({"operation": "update-firmware"}), "url"),
            (with(firmware(), "url", json!(7)), "url"),
            (with(firmware(), "url", json!("http://example.com/fw")), "url"),
            (with(firmware(), "url", json!("file:///etc/passwd")), "url"),
            (with(firmware(), "url", json!("fw.bin")), "url"),
            (with(firmware(), "version", json!(2.0)), "version"),
            (with(firmware(), "version", json!("")), "version"),
            (with(firmware(), "version", json!("2\n0")), "version"),
            (with(firmware(), "checksum", json!("md5:00")), "checksum"),
            (with(firmware(), "checksum", json!("sha256:00")), "checksum"),
            (with(firmware(), "checksum", json!(format!("sha256:{}", "zz".repeat(32)))), "checksum"),
            (with(firmware(), "checksum", json!("ab".repeat(32))), "checksum"),
            (with(firmware(), "compression", json!("ZSTD")), "compression"),
            (with(firmware(), "compression", json!("bzip2")), "compression"),
            (with(firmware(), "compression", json!(true)), "compression"),
            (with(firmware(), "size", json!("7")), "size"),
            (with(firmware(), "size", json!(-7)), "size"),
            (with(firmware(), "size", json!(0)), "size"),
            (with(firmware(), "release", json!("signed")), "release"),
            (with(firmware(), "release", json!({})), "release"),
            (with(firmware(), "release", json!({"payload": "", "payloadType": ""})), "release"),
            (json!({"operation": "update-config"}), "config"),
            (json!({"operation": "update-config", "config": [1]}), "config"),
            (json!({"operation": "update-config", "config": {}, "mode": "patch"}), "mode"),
            (json!({"operation": "update-config", "config": {}, "file": 1}), "file"),
            (json!({"operation": "update-config", "config": {}, "file": ""}), "file"),
            (json!({"operation": "update-config", "config": {}, "file": "/etc/passwd"}), "file"),
            (json!({"operation": "update-config", "config": {}, "file": "x".repeat(65)}), "file"),
            (json!({"operation": "reboot", "delay": "60"}), "delay"),
            (json!({"operation": "reboot", "delay": 1.5}), "delay"),
            (json!({"operation": "reboot", "delay": -1}), "delay"),
            (json!({"operation": "reboot", "delay": 86401}), "delay"),
            (json!({"operation": "rotate-certificate", "template": ""}), "template"),
            (json!({"operation": "rotate-certificate", "template": "a/b"}), "template"),
            (json!({"operation": "rotate-certificate", "template": "x".repeat(37)}), "template"),
            (json!({"operation": "rotate-certificate", "parameters": {"a": 1}}), "parameters"),
            (json!({"operation": "rotate-certificate", "certificate": "x"}), "certificate"),
            (
                json!({"operation": "rotate-certificate", "certificate": PEM_BEGINS, "template": "t"}),
                "certificate",
            ),
            (json!({"operation": "reboot", "timeoutSeconds": 0}), "timeoutSeconds"),
            (json!({"operation": "reboot", "timeoutSeconds": 604801}), "timeoutSeconds"),
            (json!({"operation": "reboot", "timeoutSeconds": "60"}), "timeoutSeconds"),
        ];
        for (document, expected) in cases {
            match parse(document.clone()) {
                Err(DocumentError::Invalid { member, .. }) => assert_eq!(member, expected, "{document}"),
                other => panic!("{document}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_operation_is_named() {
        let error = parse(json!({"operation": "format-disk"})).unwrap_err();
        assert_eq!(error.reason(), "unknown-operation");
        assert!(error.to_string().contains("format-disk"));
        let long = parse(json!({"operation": "x".repeat(10_000)})).unwrap_err();
        assert!(long.to_string().chars().count() < 200);
    }

    #[test]
    fn no_error_shows_a_presigned_query() {
        for url in ["https://user:pw@host/fw?X-Amz-Signature=secret", "http://host/fw?X-Amz-Signature=secret"]
        {
            let error = parse(with(firmware(), "url", json!(url))).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
        let parsed = parse(firmware()).unwrap();
        assert!(!format!("{parsed:?}").contains("secret"), "{parsed:?}");
    }
}

//! JSON Schema: what a configuration must look like before it is written. The schema is a file on the device; nothing
//! that it refers to is fetched from anywhere.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::format::Misfit;

/// A schema beyond this is not one.
const MAX_BYTES: u64 = 1024 * 1024;

/// Whether schemas can be used at all: the feature is half as large again as the small agent.
pub const JSON_SCHEMA: bool = cfg!(feature = "json-schema");

#[derive(Debug, thiserror::Error)]
pub(crate) enum SchemaError {
    #[error(transparent)]
    Unusable(#[from] Unusable),
    #[error(transparent)]
    Misfit(#[from] Misfit),
}

#[derive(Debug, thiserror::Error)]
#[error("the schema {file} cannot be used: {why}")]
pub struct Unusable {
    file: String,
    why: String,
}

impl SchemaError {
    /// The reason code, as `docs/reasons.md` lists it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unusable(_) => "schema-unusable",
            Self::Misfit(_) => "config-invalid",
        }
    }
}

/// Can this file be used as a schema? Asked when the agent's own configuration is checked.
pub fn check_schema(file: &Path) -> Result<(), Unusable> {
    engine::compile(&read(file)?).map(drop).map_err(|why| unusable(file, why))
}

/// Read at each use: a schema may come with the firmware that understands the configuration.
pub(crate) fn validate(file: &Path, config: &Value) -> Result<(), SchemaError> {
    let schema = engine::compile(&read(file)?).map_err(|why| unusable(file, why))?;
    Ok(engine::validate(&schema, config)?)
}

fn unusable(file: &Path, why: impl ToString) -> Unusable {
    Unusable { file: file.display().to_string(), why: why.to_string() }
}

fn read(file: &Path) -> Result<Value, Unusable> {
    let mut text = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(MAX_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| unusable(file, error))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(unusable(file, format!("it has more than {MAX_BYTES} bytes")));
    }
    serde_json::from_slice(&text).map_err(|error| unusable(file, format!("not JSON: {error}")))
}

#[cfg(feature = "json-schema")]
mod engine {
    use boon::{CompileError, Compiler, ErrorKind, SchemaIndex, Schemas, UrlLoader, ValidationError};
    use serde_json::Value;

    use super::Misfit;

    /// Not an address of anything: what the references within the file count from.
    const BASE: &str = "schema:///this";

    pub(super) struct Compiled {
        schemas: Schemas,
        index: SchemaIndex,
    }

    struct NothingElse;

    impl UrlLoader for NothingElse {
        fn load(&self, _: &str) -> Result<Value, Box<dyn std::error::Error>> {
            Err("a schema may refer to parts of itself alone".into())
        }
    }

    pub(super) fn compile(schema: &Value) -> Result<Compiled, String> {
        let mut compiler = Compiler::new();
        compiler.use_loader(Box::new(NothingElse));
        // What a schema asks of a format is meant, also where the newer drafts leave it open.
        compiler.enable_format_assertions();
        let mut schemas = Schemas::new();
        let compiled = match compiler.add_resource(BASE, schema.clone()) {
            Ok(()) => compiler.compile(BASE, &mut schemas),
            Err(error) => Err(error),
        };
        match compiled {
            Ok(index) => Ok(Compiled { schemas, index }),
            Err(CompileError::LoadUrlError { url, src }) => Err(format!("{url}: {src}")),
            Err(CompileError::ValidationError { src, .. }) => Err(misfit(&src).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(super) fn validate(schema: &Compiled, config: &Value) -> Result<(), Misfit> {
        schema.schemas.validate(config, schema.index).map_err(|error| misfit(&error))
    }

    /// What exactly is wrong, below what only says that something is.
    fn misfit(error: &ValidationError) -> Misfit {
        match (&error.kind, error.causes.first()) {
            // Of several ways none fits: which one was meant, nobody knows.
            (ErrorKind::AnyOf | ErrorKind::OneOf(_), _) | (_, None) => {
                Misfit { pointer: error.instance_location.to_string(), problem: expected(&error.kind) }
            }
            (_, Some(cause)) => misfit(cause),
        }
    }

    /// Never with the value that was found: the file in force may hold secrets, and this is sent to the cloud.
    fn expected(kind: &ErrorKind) -> String {
        match kind {
            ErrorKind::Format { want, .. } => format!("expected the format {want}"),
            ErrorKind::Pattern { want, .. } => format!("expected what matches {want}"),
            ErrorKind::Minimum { want, .. } => format!("expected at least {want}"),
            ErrorKind::Maximum { want, .. } => format!("expected at most {want}"),
            ErrorKind::ExclusiveMinimum { want, .. } => format!("expected more than {want}"),
            ErrorKind::ExclusiveMaximum { want, .. } => format!("expected less than {want}"),
            ErrorKind::MultipleOf { want, .. } => format!("expected a multiple of {want}"),
            ErrorKind::ContentEncoding { want, .. } => format!("expected the encoding {want}"),
            ErrorKind::ContentMediaType { want, .. } => format!("expected the media type {want}"),
            ErrorKind::Type { got, want } => {
                let want: Vec<_> = want.iter().map(|kind| kind.to_string()).collect();
                format!("found {got}, expected {}", want.join(" or "))
            }
            ErrorKind::FalseSchema => "expected nothing here".to_owned(),
            ErrorKind::AnyOf | ErrorKind::OneOf(None) => "expected one of several, and fits none".to_owned(),
            ErrorKind::OneOf(Some(_)) => "expected one of several, and fits more than one".to_owned(),
            ErrorKind::Not => "expected what the schema does not exclude".to_owned(),
            other => other.to_string(),
        }
    }
}

#[cfg(not(feature = "json-schema"))]
mod engine {
    use serde_json::Value;

    use super::Misfit;

    pub(super) enum Compiled {}

    pub(super) fn compile(_: &Value) -> Result<Compiled, &'static str> {
        Err("this fleethand was built without the feature json-schema")
    }

    pub(super) fn validate(schema: &Compiled, _: &Value) -> Result<(), Misfit> {
        match *schema {}
    }
}

#[cfg(test)]
#[cfg(feature = "json-schema")]
mod tests;

//! `[credentials]`: whose AWS credentials sign a WebSocket.

use std::fmt::{Formatter, Result as Shown};
use std::path::Path;

use connection::credentials::{Cognito, Login, RoleAlias, Source};
use connection::{Route, Signer};

use super::ConfigError;
use super::show::{command_line, path, text};
use super::table::Table;

/// Parsed, and perhaps of no use: it counts with `transport = "websocket"` alone.
#[derive(Debug)]
pub(super) struct Credentials {
    region: Option<String>,
    source: Source,
}

impl Credentials {
    pub(super) fn parse(
        table: Option<Table<'_>>,
        state_directory: &Path,
        thing_name: &str,
    ) -> Result<Self, ConfigError> {
        let Some(mut table) = table else {
            return Ok(Self { region: None, source: Source::Default { profile: None } });
        };
        let region = table.string("region", "a region")?;
        let profile = table.string("profile", "the name of a profile")?;
        let cognito = table.optional_table_in("cognito", "credentials.cognito")?;
        let role_alias = table.optional_table_in("role_alias", "credentials.role_alias")?;
        let source = match (cognito, role_alias) {
            (None, None) => Source::Default { profile },
            (Some(_), Some(_)) => {
                return Err(table.unusable("cognito", "expected one of cognito and role_alias, found both"));
            }
            _ if profile.is_some() => {
                return Err(table.unusable("profile", "expected without cognito and role_alias"));
            }
            (Some(table), None) => Source::Cognito(cognito_pool(table, state_directory)?),
            (None, Some(table)) => Source::RoleAlias(alias(table, thing_name)?),
        };
        table.finish()?;
        Ok(Self { region, source })
    }

    /// The region is in the names of AWS's own endpoints.
    pub(super) fn route(self, endpoint: &str, table: &Table<'_>) -> Result<Route, ConfigError> {
        let environment =
            || ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| std::env::var(name).ok());
        let region = self.region.or_else(|| region_of(endpoint)).or_else(environment);
        let region = region.ok_or_else(|| {
            table.unusable(
                "transport",
                format!("\"websocket\" needs [credentials] region, which {endpoint:?} does not tell"),
            )
        })?;
        Ok(Route::websocket(Signer::new(region, self.source)))
    }
}

/// `PREFIX-ats.iot.REGION.amazonaws.com`
fn region_of(endpoint: &str) -> Option<String> {
    let mut labels = endpoint.split('.');
    let region = (labels.nth(1)? == "iot").then(|| labels.next())??;
    endpoint.contains(".amazonaws.com").then(|| region.to_owned())
}

fn cognito_pool(mut table: Table<'_>, state_directory: &Path) -> Result<Cognito, ConfigError> {
    let identity_pool = table.required_string("identity_pool", "REGION:GUID")?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "-:".contains(c);
    if identity_pool.split(':').count() != 2 || !identity_pool.chars().all(legal) {
        return Err(table.unusable("identity_pool", format!("found {identity_pool:?}, expected REGION:GUID")));
    }
    let provider = table.string("login", "the name of a login provider")?;
    let (file, command) = (table.path("token_file")?, table.command("token_command")?);
    let login = match (provider, file, command) {
        (None, None, None) => None,
        (Some(provider), Some(file), None) => Some(Login::File { provider, file }),
        (Some(provider), None, Some((program, arguments))) => {
            Some(Login::Command { provider, program, arguments })
        }
        _ => return Err(table.unusable("login", "expected with either token_file or token_command")),
    };
    let url = table.string("url", "a URL")?;
    if url.as_ref().is_some_and(|url| !url.starts_with("https://")) {
        return Err(table.unusable("url", "expected https://…"));
    }
    table.finish()?;
    Ok(Cognito { identity_pool, url, login, identity_file: state_directory.join("cognito-identity") })
}

fn alias(mut table: Table<'_>, thing_name: &str) -> Result<RoleAlias, ConfigError> {
    let alias = RoleAlias {
        endpoint: table.required_string("endpoint", "a host name")?,
        port: table.integer("port", 1..=65535)?.map_or(443, |port| port as u16),
        name: table.required_string("name", "the name of a role alias")?,
        thing_name: thing_name.to_owned(),
    };
    table.finish()?;
    Ok(alias)
}

pub(super) fn show(f: &mut Formatter<'_>, signer: &Signer) -> Shown {
    writeln!(f, "\n[credentials]")?;
    text(f, "region", signer.region())?;
    match signer.source() {
        Source::Default { profile: Some(profile) } => text(f, "profile", profile),
        Source::Default { profile: None } => writeln!(f, "# profile: that of AWS_PROFILE, or \"default\""),
        Source::Cognito(cognito) => {
            writeln!(f, "\n[credentials.cognito]")?;
            text(f, "identity_pool", &cognito.identity_pool)?;
            match &cognito.login {
                None => writeln!(f, "# login: none, a guest")?,
                Some(Login::File { provider, file }) => {
                    text(f, "login", provider)?;
                    path(f, "token_file", file)?;
                }
                Some(Login::Command { provider, program, arguments }) => {
                    text(f, "login", provider)?;
                    command_line(f, "token_command", program, arguments)?;
                }
            }
            match &cognito.url {
                Some(url) => text(f, "url", url),
                None => writeln!(f, "# url: the region's"),
            }
        }
        Source::RoleAlias(alias) => {
            writeln!(f, "\n[credentials.role_alias]")?;
            text(f, "endpoint", &alias.endpoint)?;
            writeln!(f, "port = {}", alias.port)?;
            text(f, "name", &alias.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_told_by_aws_s_own_endpoints() {
        for (endpoint, region) in [
            ("abc-ats.iot.eu-west-1.amazonaws.com", Some("eu-west-1")),
            ("abc.ats.iot.cn-north-1.amazonaws.com.cn", None),
            ("abc-ats.iot.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("iot.example.com", None),
            ("x.iot.example.com", None),
            ("localhost", None),
        ] {
            assert_eq!(region_of(endpoint).as_deref(), region, "{endpoint}");
        }
    }
}

//! `[connection]`: the endpoint, who this device is there, and how it gets there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "websocket")]
use connection::credentials::Source;
use connection::tls::{self, IdentityFiles, TlsError, Uri};
use connection::{HttpProxy, Proxy, Route, Transport};

use super::credentials::Credentials;
use super::table::Table;
use super::{ConfigError, DAY};

/// A password is a line.
const MAX_PASSWORD_BYTES: u64 = 1024;
const TRANSPORTS: &str = "\"tls\", \"alpn\", \"auto\" or \"websocket\"";

#[derive(Debug, Clone)]
pub struct Connection {
    pub endpoint: String,
    pub route: Route,
    pub fallback: Option<Route>,
    pub proxy: Proxy,
    pub thing_name: String,
    /// Both are empty where only the cloud knows them yet.
    pub client_id: String,
    /// The one in force, once somebody has looked.
    pub identity: IdentityFiles,
    /// That of the file.
    pub configured: IdentityFiles,
    /// Which one is in force; 0 is the configured one.
    pub generation: Option<u64>,
    /// Over a WebSocket that is signed a device may have no certificate: the files of its identity are not there then.
    pub anonymous: Option<Anonymous>,
    pub keep_alive: Duration,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    pub reconnect_min: Duration,
    pub reconnect_max: Duration,
    pub stable_after: Duration,
    pub poll_interval: Duration,
}

/// Who may sign the endpoint's certificate, where none of ours is shown: this root, or whom the system trusts.
#[derive(Debug, Clone)]
pub struct Anonymous {
    pub root_ca: Option<PathBuf>,
}

impl Connection {
    /// As `[connection] transport` says it.
    pub fn transport(&self) -> &'static str {
        match (&self.route.transport, &self.fallback) {
            (_, Some(_)) => "auto",
            (Transport::Tls, None) => "tls",
            (Transport::Alpn, None) => "alpn",
            #[cfg(feature = "websocket")]
            (Transport::WebSocket(_), None) => "websocket",
        }
    }

    /// Does it connect with its certificate? Otherwise that a connection succeeds says nothing of it.
    pub fn shows_certificate(&self) -> bool {
        matches!(self.route.transport, Transport::Tls | Transport::Alpn)
    }

    /// What TLS is made of with this identity, read and fitted together.
    pub fn tls(&self, identity: &IdentityFiles) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        match &self.anonymous {
            None => tls::client_config(identity),
            Some(anonymous) => tls::anonymous_config(anonymous.root_ca.as_deref()),
        }
    }
}

/// AWS's rule for thing names. It also keeps `+`, `#` and `/` out of topics.
pub fn is_thing_name(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || ":_-".contains(c);
    (1..=128).contains(&name.len()) && name.chars().all(legal)
}

/// With a claim, the thing's name and its certificate may come from the cloud, into the state directory.
pub(super) fn connection(
    top: &mut Table<'_>,
    state_directory: &Path,
    by_claim: bool,
) -> Result<Connection, ConfigError> {
    let mut table = top.table("connection")?;
    let credentials = top.optional_table("credentials")?;
    let endpoint = table.required_string("endpoint", "a host name")?;
    if endpoint.contains(['/', ':', ' ']) {
        return Err(table.unusable(
            "endpoint",
            format!("{endpoint:?} is not a host name alone, without scheme and port"),
        ));
    }
    let thing_name = match by_claim {
        false => Some(table.required_string("thing_name", "the thing's name")?),
        true => table.string("thing_name", "the thing's name")?,
    };
    if thing_name.as_ref().is_some_and(|name| !is_thing_name(name)) {
        return Err(table.unusable("thing_name", "expected 1 to 128 of the characters a-z A-Z 0-9 : _ -"));
    }
    let thing_name = thing_name.unwrap_or_default();
    let client_id = table.string("client_id", "a client id")?.unwrap_or_else(|| thing_name.clone());
    if client_id.len() > 128 || client_id.starts_with('$') {
        return Err(table.unusable("client_id", "expected 1 to 128 bytes, not beginning with $"));
    }
    let credentials = Credentials::parse(credentials, state_directory, &thing_name)?;
    let (route, fallback) = routes(&mut table, &endpoint, credentials)?;
    let (identity, anonymous) = identity(&mut table, &route, state_directory, by_claim)?;
    let settings = Connection {
        endpoint,
        route,
        fallback,
        proxy: proxy(&mut table)?,
        thing_name,
        client_id,
        identity: identity.clone(),
        configured: identity,
        generation: None,
        anonymous,
        keep_alive: table.seconds("keep_alive_seconds", 5..=1200)?.unwrap_or(Duration::from_secs(60)),
        connect_timeout: table
            .seconds("connect_timeout_seconds", 1..=600)?
            .unwrap_or(Duration::from_secs(20)),
        request_timeout: table
            .seconds("request_timeout_seconds", 1..=600)?
            .unwrap_or(Duration::from_secs(10)),
        reconnect_min: table.seconds("reconnect_min_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(1)),
        reconnect_max: table.seconds("reconnect_max_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(32)),
        stable_after: table.seconds("stable_after_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(20)),
        poll_interval: table
            .seconds("poll_interval_seconds", 10..=7 * DAY)?
            .unwrap_or(Duration::from_secs(DAY)),
    };
    if settings.reconnect_max < settings.reconnect_min {
        return Err(table.unusable("reconnect_max_seconds", "expected at least reconnect_min_seconds"));
    }
    table.finish()?;
    Ok(settings)
}

fn identity(
    table: &mut Table<'_>,
    route: &Route,
    state_directory: &Path,
    by_claim: bool,
) -> Result<(IdentityFiles, Option<Anonymous>), ConfigError> {
    let root_ca = table.path("root_ca")?;
    let mut path = |key| table.path_unless(key, Uri::is_one);
    let (certificate, private_key) = (path("certificate")?, path("private_key")?);
    let none = |key: &str| state_directory.join("identity/none").join(key);
    let is_anonymous =
        certificate.is_none() && private_key.is_none() && !by_claim && does_without(&route.transport);
    let file = |found: Option<PathBuf>, key: &str| match found {
        Some(found) => Ok(found),
        // A file that is not there is what makes the device ask for one.
        None if by_claim || is_anonymous => Ok(none(key)),
        None => Err(table.missing(key, "a path")),
    };
    let anonymous = is_anonymous.then(|| Anonymous { root_ca: root_ca.clone() });
    let (certificate, private_key) = (file(certificate, "certificate")?, file(private_key, "private_key")?);
    let root_ca = match root_ca {
        None if !is_anonymous => return Err(table.missing("root_ca", "a path")),
        found => found.unwrap_or_else(|| none("root_ca")),
    };
    Ok((IdentityFiles { certificate, private_key, root_ca }, anonymous))
}

/// A device's certificate is what a WebSocket does without, but for the credentials of a role alias.
fn does_without(transport: &Transport) -> bool {
    match transport {
        #[cfg(feature = "websocket")]
        Transport::WebSocket(signer) => !matches!(signer.source(), Source::RoleAlias(_)),
        _ => false,
    }
}

fn routes(
    table: &mut Table<'_>,
    endpoint: &str,
    credentials: Credentials,
) -> Result<(Route, Option<Route>), ConfigError> {
    let transport = table.string("transport", TRANSPORTS)?;
    let port = table.integer("port", 1..=65535)?.map(|port| port as u16);
    let at = |route: Route| (Route { port: port.unwrap_or(route.port), ..route }, None);
    match transport.as_deref() {
        None | Some("tls") => Ok(at(Route::TLS)),
        Some("alpn") => Ok(at(Route::ALPN)),
        Some("auto") if port.is_some() => {
            Err(table.unusable("port", "expected none beside transport = \"auto\", which tries 8883 and 443"))
        }
        Some("auto") => Ok((Route::TLS, Some(Route::ALPN))),
        Some("websocket") => Ok(at(credentials.route(endpoint, table)?)),
        Some(other) => Err(table.unusable("transport", format!("found {other:?}, expected {TRANSPORTS}"))),
    }
}

fn proxy(table: &mut Table<'_>) -> Result<Proxy, ConfigError> {
    let url = table.secret("proxy", "a URL, or \"environment\"")?;
    let password = match table.path("proxy_password_file")? {
        Some(file) => Some(password(&file).map_err(|error| {
            table.unusable("proxy_password_file", format!("{}: {error}", file.display()))
        })?),
        None => None,
    };
    match url.as_deref() {
        None if password.is_some() => {
            Err(table.unusable("proxy", "not set, expected http://USER@HOST:PORT beside proxy_password_file"))
        }
        None => Ok(Proxy::None),
        Some("environment") => Ok(Proxy::Environment),
        Some(url) => {
            let proxy = HttpProxy::parse(url, password);
            Ok(Proxy::Http(proxy.map_err(|malformed| table.unusable("proxy", malformed))?))
        }
    }
}

/// Its first line.
fn password(file: &PathBuf) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_PASSWORD_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_PASSWORD_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_PASSWORD_BYTES} bytes")));
    }
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

//! `fleethand.toml`: read, checked and understood once, at the start. Nothing else of the agent sees TOML.

mod boot;
mod connection;
#[cfg_attr(not(feature = "websocket"), path = "config/credentials/none.rs")]
mod credentials;
mod device;
mod files;
mod policy;
mod provisioning;
mod publish;
mod seeing;
mod shadow;
mod show;
mod swupdate;
mod table;
mod trust;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::connection::Proxy;
use ::connection::tls::{self, TlsError};
use ::device::HostSettings;
use dispatcher::policy::Policy;
use dispatcher::{ConfigFile, Rules};

pub use self::connection::{Connection, is_thing_name};
pub use provisioning::{Claim, Provisioning};
pub use publish::Publish;
pub use shadow::{Member, Package, Report, ReportPackage, ShadowFile, Shadows, Version};
pub use table::ConfigError;

use crate::identity::{Error, Generation, Store};
use crate::metrics::MetricsSettings;
use table::Table;

/// What the package installs, and what is used where no `--config` is given.
pub const DEFAULT_FILE: &str = "/etc/fleethand/fleethand.toml";
/// A configuration beyond this is not one.
const MAX_BYTES: u64 = 1024 * 1024;
const DAY: u64 = 24 * 60 * 60;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the process with the network: the journal, the history.
    pub state_directory: PathBuf,
    /// Present: what needs privileges is done by another process.
    pub helper: Option<Helper>,
    pub connection: Connection,
    pub provisioning: Provisioning,
    pub host: HostSettings,
    /// What `update-config` may change, in the order of the file.
    pub configs: Vec<ConfigFile>,
    pub shadows: Shadows,
    /// Firmware stays only if the cloud is reached within this time.
    pub cloud_within: Option<Duration>,
    pub download: downloader::Settings,
    /// When the device may be disturbed.
    pub policy: Policy,
    /// At most one progress report in this time.
    pub progress_interval: Duration,
    /// The cloud's step timer: it times an execution out when nothing was heard of it for so long.
    pub step_timeout: Option<Duration>,
    /// How long an operation may take, unless its document says otherwise.
    pub operation_timeout: Duration,
    /// Where `fleethand status` asks.
    pub status_socket: Option<PathBuf>,
    pub metrics: Option<MetricsSettings>,
    /// What other programs may publish.
    pub publish: Option<Publish>,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    pub socket: PathBuf,
    /// Who may ask it, besides root.
    pub user: String,
    pub state_directory: PathBuf,
    pub idle: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    pub level: tracing::level_filters::LevelFilter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person on a terminal, plain lines otherwise.
    Auto,
    Json,
}

impl Settings {
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = read(file).map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        let mut top = Table::parse(file, &text)?;
        let state_directory = top.path("state_directory")?.unwrap_or("/var/lib/fleethand".into());
        let helper = helper(top.optional_table("helper")?)?;
        let mut provisioning = provisioning::provisioning(top.table("provisioning")?)?;
        let by_claim = provisioning.claim.is_some();
        let connection = connection::connection(&mut top, &state_directory, by_claim)?;
        if let Some(claim) = &mut provisioning.claim {
            claim.files.root_ca.clone_from(&connection.identity.root_ca);
        }
        let (health, cloud_within) = device::health(top.table("health")?)?;
        let (mut config_files, configs) = files::configs(top.tables("config")?)?;
        let shadow_files = shadow::files(top.tables("shadow")?, &configs, &mut config_files)?;
        let shadows = shadow::shadows(top.table("shadows")?, shadow_files)?;
        let boot = boot::boot(top.optional_table("boot")?)?;
        let (policy, hook, holds) = policy::policy(top.table("policy")?)?;
        let compatible = trust::compatible(top.table("device")?)?;
        let trust = trust::trust(top.table("release")?, &compatible)?;
        // The device's own state is with whoever touches the device.
        let device_state = helper.as_ref().map_or(&state_directory, |helper| &helper.state_directory);
        let host = HostSettings {
            firmware: device::firmware(top.optional_table("firmware")?, boot, health, device_state)?,
            state_directory: device_state.clone(),
            hook,
            holds,
            configs: config_files,
            reboot: device::reboot(top.table("reboot")?)?,
            trust,
            compatible,
        };
        let download = download(top.table("download")?, &connection.proxy)?;
        let mut report = top.table("report")?;
        let progress_interval = report.seconds("progress_interval_seconds", 1..=DAY)?;
        let step_timeout = report.integer("step_timeout_minutes", 0..=10_080)?.unwrap_or(30);
        report.finish()?;
        let mut operation = top.table("operation")?;
        let operation_timeout = operation.seconds("timeout_seconds", 1..=7 * DAY)?;
        operation.finish()?;
        let status_socket = seeing::status(top.table("status")?)?;
        let metrics = seeing::metrics(top.table("metrics")?)?;
        let publish = publish::publish(top.optional_table("publish")?, &connection.thing_name)?;
        let log = log(top.table("log")?)?;
        top.finish()?;
        Ok(Self {
            state_directory,
            helper,
            connection,
            provisioning,
            host,
            configs,
            shadows,
            cloud_within,
            download,
            policy,
            progress_interval: progress_interval.unwrap_or(Duration::from_secs(10)),
            step_timeout: (step_timeout > 0).then(|| Duration::from_secs(step_timeout * 60)),
            operation_timeout: operation_timeout.unwrap_or(Duration::from_secs(DAY)),
            status_socket,
            metrics,
            publish,
            log,
        })
    }

    /// The same, as the device is: with the identity that is in force, wherever it came from.
    pub fn of_device(file: &Path) -> Result<Self, ConfigError> {
        let settings = Self::load(file)?;
        let in_force = settings.identities().in_force();
        Ok(in_force.map(|generation| settings.with(&generation)).unwrap_or(settings))
    }

    /// Where the device's identities are.
    pub fn identities(&self) -> Store {
        Store::new(self.state_directory.join("identity"), self.connection.configured.clone())
    }

    /// With this identity.
    pub fn with(&self, generation: &Generation) -> Self {
        let mut settings = self.clone();
        let connection = &mut settings.connection;
        connection.identity = generation.files.clone();
        connection.generation = Some(generation.number);
        if let (Some(about), true) = (&generation.about, connection.thing_name.is_empty()) {
            connection.thing_name.clone_from(&about.thing_name);
        }
        if connection.client_id.is_empty() {
            connection.client_id.clone_from(&connection.thing_name);
        }
        settings
    }

    /// The claim, while there is nothing else that the device could connect with.
    pub fn awaits_provisioning(&self) -> Option<&Claim> {
        self.provisioning.claim.as_ref().filter(|_| self.connection.generation.is_none())
    }

    /// A link as whoever has the claim, and nothing subscribed.
    pub fn claim_link(&self, claim: &Claim) -> Result<::connection::Settings, Error> {
        let mut link = crate::route::link(self, ::connection::tls::client_config(&claim.files)?);
        link.subscriptions.clear();
        if let Some(client_id) = &claim.client_id {
            link.client_id.clone_from(client_id);
        } else if link.client_id.is_empty() {
            link.client_id = format!("fleethand-{:016x}", fastrand::u64(..));
        }
        Ok(link)
    }

    /// What `fleethand helper` cannot do without.
    pub fn required_helper(&self, file: &Path) -> Result<&Helper, ConfigError> {
        self.helper.as_ref().ok_or_else(|| ConfigError::Missing {
            file: file.to_owned(),
            key: "[helper] socket".to_owned(),
            expected: "a path".to_owned(),
        })
    }

    pub fn rules(&self) -> Rules {
        Rules {
            allow_http: self.download.allow_http,
            cloud_within: self.cloud_within,
            configs: self.configs.clone(),
            local_artifact: None,
        }
    }

    /// Can every configured schema be used? A job would say so too late.
    pub fn check_schemas(&self, file: &Path) -> Result<(), ConfigError> {
        let of_shadows = self.shadows.files.iter().map(|shadow| &shadow.file);
        for schema in self.configs.iter().chain(of_shadows).filter_map(|config| config.schema.as_ref()) {
            dispatcher::check_schema(schema).map_err(|error| ConfigError::Unusable {
                file: file.to_owned(),
                key: "[config] schema".to_owned(),
                problem: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// What the session has to know.
    pub fn session(&self) -> jobs::Settings {
        jobs::Settings {
            request_timeout: self.connection.request_timeout,
            poll_interval: self.connection.poll_interval,
            ..jobs::Settings::new(&self.connection.thing_name)
        }
    }

    /// What the link has to know.
    pub fn link(&self, tls: Arc<rustls::ClientConfig>) -> ::connection::Settings {
        let settings = &self.connection;
        ::connection::Settings {
            endpoint: settings.endpoint.clone(),
            route: settings.route.clone(),
            fallback: settings.fallback.clone(),
            proxy: settings.proxy.clone(),
            client_id: settings.client_id.clone(),
            tls,
            keep_alive: settings.keep_alive,
            connect_timeout: settings.connect_timeout,
            reconnect_min: settings.reconnect_min,
            reconnect_max: settings.reconnect_max,
            stable_after: settings.stable_after,
            subscriptions: [jobs::subscriptions(&settings.thing_name), self.shadow_filters()].concat(),
            seed: fastrand::u64(..),
        }
    }

    /// What there is to connect with: the device's identity, or the claim by which it gets one.
    pub fn check_identity(&self, file: &Path) -> Result<(), ConfigError> {
        let Some(claim) = self.awaits_provisioning() else { return self.try_identity(file) };
        ::connection::tls::client_config(&claim.files).map(drop).map_err(|error| {
            let key = match &error.file {
                file if *file == claim.files.certificate => "[provisioning] claim_certificate",
                file if *file == claim.files.root_ca => "[connection] root_ca",
                _ => "[provisioning] claim_private_key",
            };
            ConfigError::Unusable { file: file.to_owned(), key: key.to_owned(), problem: error.to_string() }
        })
    }

    /// The device's identity, read and fitted together.
    pub fn identity(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        self.connection.tls(&self.connection.identity)
    }

    /// The same. An error names the configuration's key, too.
    pub fn tls(&self, file: &Path) -> Result<Arc<rustls::ClientConfig>, ConfigError> {
        self.identity().map_err(|error| self.unusable(file, &error))
    }

    /// A key in a token may come later, and the agent waits for it; who asks whether all is well wants to know now.
    fn try_identity(&self, file: &Path) -> Result<(), ConfigError> {
        self.tls(file)?;
        tls::try_key(&self.connection.identity).map_err(|error| self.unusable(file, &error))
    }

    fn unusable(&self, file: &Path, error: &TlsError) -> ConfigError {
        let identity = &self.connection.identity;
        let is_root = *error.file == identity.root_ca || self.connection.anonymous.is_some();
        let key = match &error.file {
            file if *file == identity.certificate => "[connection] certificate",
            _ if is_root => "[connection] root_ca",
            _ => "[connection] private_key",
        };
        ConfigError::Unusable { file: file.to_owned(), key: key.to_owned(), problem: error.to_string() }
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::other(format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

fn helper(table: Option<Table<'_>>) -> Result<Option<Helper>, ConfigError> {
    let Some(mut table) = table else { return Ok(None) };
    let helper = Helper {
        socket: table.required_path("socket")?,
        user: table.string("user", "the name of a user")?.unwrap_or_else(|| "fleethand".to_owned()),
        state_directory: table.path("state_directory")?.unwrap_or("/var/lib/fleethand-helper".into()),
        idle: table.seconds("idle_seconds", 1..=DAY)?.unwrap_or(Duration::from_secs(10)),
    };
    table.finish()?;
    Ok(Some(helper))
}

fn download(mut table: Table<'_>, proxy: &Proxy) -> Result<downloader::Settings, ConfigError> {
    let defaults = downloader::Limits::default();
    let limits = downloader::Limits {
        max_size: table.integer("max_size_bytes", 1..=u64::MAX >> 1)?.unwrap_or(defaults.max_size),
        min_rate: table.integer("min_rate_bytes_per_second", 0..=1 << 40)?.unwrap_or(defaults.min_rate),
        rate_window: table.seconds("rate_window_seconds", 1..=3600)?.unwrap_or(defaults.rate_window),
        max_rate: table.integer("max_rate_bytes_per_second", 0..=1 << 40)?.unwrap_or(defaults.max_rate),
        deadline: table.seconds("timeout_seconds", 1..=30 * DAY)?.unwrap_or(defaults.deadline),
        ..defaults
    };
    if limits.max_rate > 0 && limits.max_rate < limits.min_rate {
        let problem = "expected 0, or at least min_rate_bytes_per_second";
        return Err(table.unusable("max_rate_bytes_per_second", problem));
    }
    let settings = downloader::Settings {
        limits,
        root_ca: table.path("root_ca")?,
        user_agent: concat!("fleethand/", env!("CARGO_PKG_VERSION")).to_owned(),
        allow_http: table.boolean("allow_http")?.unwrap_or(false),
        // Without one that is configured: the environment's, as ever.
        proxy: match proxy {
            Proxy::None | Proxy::Environment => None,
            Proxy::Http(proxy) => {
                let proxy = downloader::Proxy::new(&proxy.url());
                Some(proxy.map_err(|error| table.unusable("proxy", error))?)
            }
        },
    };
    table.finish()?;
    Ok(settings)
}

fn log(mut table: Table<'_>) -> Result<Log, ConfigError> {
    use tracing::level_filters::LevelFilter;
    let format = match table.string("format", "\"auto\" or \"json\"")?.as_deref() {
        None | Some("auto") => LogFormat::Auto,
        Some("json") => LogFormat::Json,
        Some(other) => {
            return Err(table.unusable("format", format!("found {other:?}, expected \"auto\" or \"json\"")));
        }
    };
    let level = match table.string("level", "a level")?.as_deref() {
        Some("error") => LevelFilter::ERROR,
        Some("warn") => LevelFilter::WARN,
        None | Some("info") => LevelFilter::INFO,
        Some("debug") => LevelFilter::DEBUG,
        Some("trace") => LevelFilter::TRACE,
        Some(other) => {
            let expected = "expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
            return Err(table.unusable("level", format!("found {other:?}, {expected}")));
        }
    };
    table.finish()?;
    Ok(Log { format, level })
}

#[cfg(test)]
mod tests;

//! Start-up: listeners first, so that ports are known; then state, the hub, and one task for each way in.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::broker::Broker;
use crate::cli;
use crate::clock::Clock;
use crate::cloud::Cloud;
use crate::engine::{Compat, Engine, Settings};
use crate::faults::Faults;
use crate::http::{self, sigv4::Credentials};
use crate::identity::Identity;
use crate::s3::{ObjectStore, Presigner, Storage};
use crate::shadow::{self, Shadows};
use crate::store::{Row, Store};
use crate::temporary::Temporary;

pub(crate) async fn run(options: cli::Serve) -> anyhow::Result<()> {
    // Before anything else: who starts this may tell it to stop as soon as it runs.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    raise_open_files();
    let mut compat = Compat::default();
    for switch in &options.compat {
        compat.set(switch).map_err(|error| anyhow::anyhow!("--compat {switch}: {error}"))?;
    }
    let api = listen(options.api, "--api").await?;
    let s3 = listen(options.s3, "--s3").await?;
    let mqtts = listen(options.mqtts, "--mqtts").await?;
    let mqtt = match options.mqtt {
        Some(address) => Some(listen(address, "--mqtt").await?),
        None => None,
    };

    let https = match options.https {
        Some(address) => Some(listen(address, "--https").await?),
        None => None,
    };

    let folder = Folder::open(options.data.as_deref())?;
    let store = folder.kept.then(|| Store::open(&folder.path.join("state.db"))).transpose()?.map(Arc::new);
    let rows = Rows::sort(store.as_ref().map(|store| store.rows()).transpose()?.unwrap_or_default());

    let clock = Arc::new(Clock::new(options.clock));
    let faults = Arc::new(Faults::default());
    let identity = identity(&options, rows.identity)?;
    let limits = options.limits();
    let outside = options.outside();
    let credentials = Credentials { access_key: options.s3_access_key, secret_key: options.s3_secret_key };

    let storage = Storage::open(folder.path.join("objects"), clock.clone(), store.clone(), &rows.objects)?;
    let storage = Arc::new(storage);
    let s3_url = format!("http://{}", s3.local_addr()?);
    let presigner = Presigner {
        storage: storage.clone(),
        credentials: credentials.clone(),
        region: options.region.clone(),
        address: options.s3_url.unwrap_or_else(|| s3_url.clone()).trim_end_matches('/').to_owned(),
        sessions: Default::default(),
    };
    let settings = Settings {
        region: options.region,
        account: options.account,
        compat: compat.clone(),
        endpoint: host(mqtts.local_addr()?),
        record_changes: store.is_some(),
    };
    let engine = Engine::load(settings, Arc::new(presigner), rows.engine).map_err(anyhow::Error::msg)?;
    let shadows = Shadows::load(compat, rows.shadows).map_err(anyhow::Error::msg)?;
    let broker = {
        let clock = clock.clone();
        let millis = Arc::new(move || u64::try_from(clock.now().millis()).unwrap_or(0));
        Broker::new(identity.clone(), millis, limits)
    };

    let ca = folder.path.join("root-ca.pem");
    std::fs::write(&ca, identity.ca_pem()).with_context(|| format!("{} cannot be written", ca.display()))?;
    let ready = json!({
        "api": format!("http://{}", api.local_addr()?),
        "s3": s3_url,
        "mqtts": mqtts.local_addr()?.to_string(),
        "https": https.as_ref().map(|listener| listener.local_addr()).transpose()?.map(|address| address.to_string()),
        "mqtt": mqtt.as_ref().map(|listener| listener.local_addr()).transpose()?.map(|address| address.to_string()),
        "ca": ca.display().to_string(),
    });

    let cloud = Arc::new(Cloud::new(clock, faults.clone(), identity, engine, shadows, broker.clone(), store));
    let api_state = Arc::new(http::Api {
        cloud: cloud.clone(),
        credentials: credentials.clone(),
        temporary: Temporary::default(),
        requires_signature: options.require_sigv4,
        ready: ready.clone(),
    });
    if let Some(https) = https {
        let tls = cloud.identity.web_tls(options.strict_sni)?;
        tokio::spawn(http::web::serve(https, tls.into(), api_state.clone()));
    }
    let objects = Arc::new(ObjectStore::new(storage, credentials, faults));
    tokio::spawn(http::serve(api, api_state));
    tokio::spawn(objects.serve(s3));
    let timers = cloud.clone();
    tokio::spawn(async move { timers.run_timers().await });

    if let Some(outside) = outside {
        let attachment = broker.attach(&outside).context("--broker")?;
        tokio::spawn(attachment.run(cloud.clone()));
    }

    say(&ready)?;
    tracing::info!(%ready, "serving");
    tokio::select! {
        result = broker.serve(cloud, mqtts, mqtt) => result.context("MQTT cannot be served")?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    Ok(())
}

/// The one line on stdout: whoever started this waits for it.
fn say(ready: &Value) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{ready}")?;
    stdout.flush()
}

/// The name by which clients reach an address: TLS clients send SNI for a name alone.
fn host(address: SocketAddr) -> String {
    if address.ip().is_loopback() { "localhost".to_owned() } else { address.ip().to_string() }
}

/// Thousands of connections need more than the customary 1,024 files; as many as allowed then.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

async fn listen(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{option} {address} cannot be listened on"))
}

fn identity(options: &cli::Serve, rows: Vec<Row>) -> anyhow::Result<Identity> {
    // A server on a certain address is reached by that address; the certificate has loopback's names anyway.
    let address = options.mqtts.ip();
    let names = if address.is_unspecified() { Vec::new() } else { vec![address.to_string()] };
    let identity = Identity::new(&options.region, &options.account, &names)?;
    identity.load(rows)?;
    Ok(identity)
}

/// Where files go: the folder of `--data`, or one that is removed at the end.
struct Folder {
    path: PathBuf,
    kept: bool,
    _temporary: Option<tempfile::TempDir>,
}

impl Folder {
    fn open(data: Option<&Path>) -> anyhow::Result<Folder> {
        let Some(path) = data else {
            let temporary = tempfile::Builder::new().prefix("fleethand-cloud-").tempdir()?;
            return Ok(Folder {
                path: temporary.path().to_owned(),
                kept: false,
                _temporary: Some(temporary),
            });
        };
        let problem = || format!("--data {} cannot be used", path.display());
        std::fs::create_dir_all(path).with_context(problem)?;
        let path = path.canonicalize().with_context(problem)?;
        Ok(Folder { path, kept: true, _temporary: None })
    }
}

/// What was kept, by whom it belongs to.
#[derive(Default)]
struct Rows {
    engine: Vec<Row>,
    identity: Vec<Row>,
    objects: Vec<Row>,
    shadows: Vec<Row>,
}

impl Rows {
    fn sort(rows: Vec<Row>) -> Rows {
        let mut sorted = Rows::default();
        for row in rows {
            let owner = match row.0.as_str() {
                kind if kind.starts_with("identity.") => &mut sorted.identity,
                kind if kind.starts_with("s3-") => &mut sorted.objects,
                shadow::ROWS => &mut sorted.shadows,
                _ => &mut sorted.engine,
            };
            owner.push(row);
        }
        sorted
    }
}

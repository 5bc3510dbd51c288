//! A broker that is not ours, such as mosquitto: the cloud attaches to it as a client (`--broker`), answers the things
//! that are connected there, and notifies them. What it cannot do like AWS: an answer reaches everybody who is
//! subscribed to its topic, and nobody who is not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    AsyncClient, Event, EventLoop, Incoming, MqttOptions, PublishOptions, QoS, TlsConfiguration, Transport,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::sleep;

use super::limits::PACKET_BYTES;
use super::topic::{is_jobs_request, jobs_thing};
use super::{ConnectionId, Service};
use crate::shadow::Topic;

/// What requests from there are said to come from: our own connections are numbered from 1.
pub(super) const CONNECTION: ConnectionId = 0;

const REQUESTS: [&str; 2] = ["$aws/things/+/jobs/#", "$aws/things/+/shadow/#"];
/// Messages that wait for the other broker. Beyond it, new ones are dropped: devices ask again.
const QUEUE: usize = 20_000;
const RETRY: Duration = Duration::from_secs(1);

/// Where it is, and how to get in.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// TLS if there is one.
    pub(crate) ca: Option<PathBuf>,
    /// Certificate and key.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path} holds no usable {expected}")]
    File { path: PathBuf, expected: &'static str, source: pem::Error },
    #[error("the other broker's TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("a broker was attached already")]
    Twice,
}

/// The sending half.
pub(super) struct Sender(AsyncClient);

impl Sender {
    pub(super) fn publish(&self, topic: &str, payload: Bytes) {
        if let Err(error) = self.0.try_publish(topic.to_owned(), payload, PublishOptions::at_least_once()) {
            tracing::warn!(topic, %error, "not sent to the other broker");
        }
    }
}

/// The connection, which somebody has to `run`.
pub(crate) struct Attachment {
    client: AsyncClient,
    events: EventLoop,
}

pub(super) fn connect(outside: &Outside) -> Result<(Sender, Attachment), Error> {
    let client_id = format!("fleethand-cloud-{:08x}", fastrand::u32(..));
    let mut options = MqttOptions::new(client_id, (outside.host.clone(), outside.port));
    let most = usize::try_from(PACKET_BYTES).unwrap_or(usize::MAX);
    options.set_max_packet_size(most, most);
    if let Some(ca) = &outside.ca {
        let tls = Arc::new(client_config(ca, outside.certificate.as_ref())?);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
    }
    let (client, events) = AsyncClient::builder(options).capacity(QUEUE).build();
    Ok((Sender(client.clone()), Attachment { client, events }))
}

pub(super) fn client_config(
    ca: &Path,
    certificate: Option<&(PathBuf, PathBuf)>,
) -> Result<ClientConfig, Error> {
    let file = |path: &Path, expected| {
        let path = path.to_owned();
        move |source| Error::File { path, expected, source }
    };
    let mut roots = RootCertStore::empty();
    for root in chain_from(ca).map_err(file(ca, "certificate"))? {
        roots.add(root)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some((certificate, key)) = certificate else { return Ok(builder.with_no_client_auth()) };
    let chain = chain_from(certificate).map_err(file(certificate, "certificate"))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(file(key, "private key"))?;
    Ok(builder.with_client_auth_cert(chain, key)?)
}

fn chain_from(path: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) }
}

impl Attachment {
    /// Passes on what devices ask there, for as long as it is polled; a broken connection is made anew.
    pub(crate) async fn run(mut self, service: Arc<dyn Service>) {
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(Incoming::ConnAck(_))) => {
                    tracing::info!("attached to the other broker");
                    for filter in REQUESTS {
                        if let Err(error) = self.client.try_subscribe(filter, QoS::AtLeastOnce) {
                            tracing::error!(%error, filter, "no subscription at the other broker");
                        }
                    }
                }
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    pass_on(&publish.topic, &publish.payload, &*service);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection to the other broker");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// Our own answers and notifications come back to us there as well: only requests are passed on.
fn pass_on(topic: &[u8], payload: &[u8], service: &dyn Service) {
    let Ok(topic) = std::str::from_utf8(topic) else { return };
    let jobs = jobs_thing(topic).filter(|_| is_jobs_request(topic));
    if let Some(thing) = jobs.or_else(|| Some(Topic::parse(topic)?.thing)) {
        // Who may publish as which thing is for the other broker to know.
        service.published(CONNECTION, thing, Some(thing), topic, payload);
    }
}

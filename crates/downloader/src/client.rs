//! One HTTP client for one transfer. It is not kept: an idle device should hold no trusted roots in memory, and a
//! changed bundle or proxy counts from the next transfer on.

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::{header, redirect};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{Error, Settings};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) async fn client(settings: &Settings) -> Result<reqwest::Client, Error> {
    let settings = settings.clone();
    // The system's bundle takes long enough to parse that the link to the cloud would feel it.
    let built = tokio::task::spawn_blocking(move || build(&settings)).await;
    built.map_err(|e| Error::TrustedRoots(e.to_string()))?
}

fn build(settings: &Settings) -> Result<reqwest::Client, Error> {
    let mut headers = header::HeaderMap::new();
    // The digest is that of the object, and ranges count its bytes: no coding on the way.
    headers.insert(header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity"));
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(settings.root_ca.as_deref())?)
        .http1_only()
        .default_headers(headers)
        .redirect(redirect::Policy::none()) // followed by the plan, under its own rules
        .retry(reqwest::retry::never()) // likewise
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true);
    if !settings.user_agent.is_empty() {
        builder = builder.user_agent(&settings.user_agent);
    }
    if let Some(proxy) = &settings.proxy {
        builder = builder.proxy(proxy.get());
    }
    builder.build().map_err(|e| Error::TrustedRoots(e.without_url().to_string()))
}

fn tls(root_ca: Option<&Path>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match root_ca {
        Some(path) => {
            let fail = |why: String| Error::TrustedRoots(format!("{}: {why}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))? {
                let certificate = certificate.map_err(|e| fail(e.to_string()))?;
                roots.add(certificate).map_err(|e| fail(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(fail("expected a PEM certificate, found none".to_owned()));
            }
        }
        None => {
            let system = rustls_native_certs::load_native_certs();
            for error in system.errors {
                tracing::warn!(%error, "a trusted root of the system cannot be read");
            }
            // None at all is no error here: plain http to this machine needs none, and https will say what it misses.
            roots.add_parsable_certificates(system.certs);
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::TrustedRoots(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

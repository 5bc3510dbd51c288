//! A proxy that is not the environment's.

use std::fmt;

/// Made from a URL, which may hold a password: neither is shown.
#[derive(Clone)]
pub struct Proxy(reqwest::Proxy);

#[derive(Debug, thiserror::Error)]
#[error("not the URL of a proxy")]
pub struct ProxyError;

impl Proxy {
    pub fn new(url: &str) -> Result<Self, ProxyError> {
        reqwest::Proxy::all(url).map(Self).map_err(|_| ProxyError)
    }

    pub(crate) fn get(&self) -> reqwest::Proxy {
        self.0.clone()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxy")
    }
}

//! Which way to the cloud worked last, for the next start: only where there is a choice.

use std::path::PathBuf;
use std::sync::Arc;

use connection::{Route, Settings};
use device::{Durability, write_atomically};

/// The link of this device, beginning with the way that worked.
pub fn link(settings: &crate::config::Settings, tls: Arc<rustls::ClientConfig>) -> Settings {
    Remembered::open(settings).first(settings.link(tls))
}

#[derive(Debug)]
pub struct Remembered {
    path: PathBuf,
    /// As it is in the file: a port, which tells the routes apart.
    port: Option<u16>,
    has_choice: bool,
}

impl Remembered {
    /// What cannot be read is no loss: the first route is tried first then.
    pub fn open(settings: &crate::config::Settings) -> Self {
        let state_directory = &settings.state_directory;
        let path = state_directory.join("route");
        let port = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        Self { path, port, has_choice: settings.connection.fallback.is_some() }
    }

    /// The same settings, beginning with the way that worked.
    pub fn first(&self, mut settings: Settings) -> Settings {
        if let Some(fallback) = settings.fallback.as_mut().filter(|route| Some(route.port) == self.port) {
            std::mem::swap(&mut settings.route, fallback);
        }
        settings
    }

    /// It is connected this way.
    pub fn worked(&mut self, route: &Route) {
        if !self.has_choice || self.port == Some(route.port) {
            return;
        }
        tracing::info!(
            port = route.port,
            "this way to the cloud works, and is tried first at the next start"
        );
        self.port = Some(route.port);
        let text = format!("{}\n", route.port);
        if let Err(error) = write_atomically(&self.path, text.as_bytes(), Durability::PowerCut) {
            tracing::warn!(path = %self.path.display(), %error, "the way to the cloud cannot be remembered");
        }
    }
}

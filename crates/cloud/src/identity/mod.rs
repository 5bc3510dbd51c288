//! Who may connect and what for: the certificate authority, certificates, policies and what they are attached to.

/// Row of the store: kind, key, and its value or nothing when it was deleted.
pub(crate) type Row = (String, String, Option<serde_json::Value>);

/// The registry of certificates and policies; cheap to clone.
#[derive(Clone)]
pub(crate) struct Identity;

impl Identity {
    /// A fresh certificate authority, in memory. `names`: more names or addresses for the server's certificate.
    pub(crate) fn new(region: &str, account: &str, names: &[String]) -> Result<Self, Error> {
        let _ = (region, account, names);
        Ok(Self)
    }

    /// Brings back what `take_changes` once handed out, the authority's key included.
    pub(crate) fn load(&self, rows: Vec<Row>) -> Result<(), Error> {
        let _ = rows;
        Ok(())
    }

    pub(crate) fn take_changes(&self) -> Vec<Row> {
        Vec::new()
    }

    /// The authority's certificate, which clients trust.
    pub(crate) fn ca_pem(&self) -> String {
        String::new()
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {}

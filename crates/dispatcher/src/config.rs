//! `update-config`: the new configuration is composed in memory, then takes the same way into force as firmware.

mod changes;
mod compose;
mod format;
mod schema;
mod toml;
mod yaml;
mod yaml_text;

use bytes::Bytes;
use device::{Before, Change, Device, DeviceError, Order, Target, When};
use downloader::Digest;
use serde_json::Value;

pub(crate) use changes::changes;
use compose::{Composed, compose};
pub use format::Format;
pub use schema::{JSON_SCHEMA, Unusable, check_schema};

use crate::dispatcher::{Context, Dispatcher, Failure};
use crate::firmware::MAX_LOSSES;
use crate::operation::{ConfigFile, UpdateConfig};
use crate::outcome::{Outcome, Progress};

impl<D: Device> Dispatcher<D> {
    pub(crate) async fn update_config(
        &mut self,
        update: &UpdateConfig,
        context: &Context,
    ) -> Result<Outcome, Failure> {
        context.report(Progress::phase("configuring"));
        let current = self.device.read_config(&update.file.name).await?;
        let new = Bytes::from(prepare(current, update).await.map_err(Failure::Outcome)?.text);
        let order = order(&update.file, &new);
        let mut losses = 0;
        let before = loop {
            match self.stage(&order, new.clone()).await {
                Err(error) if error.is_lost() && losses < MAX_LOSSES => losses += 1,
                staged => break staged?,
            }
        };
        if context.halt.kind().is_some() {
            return Err(Failure::Halted);
        }
        let change = Change { target: order.target, digest: order.digest, before, commit: None };
        self.put_in_force(change, context).await
    }

    /// What a file in force says; none where there is no file. An error is in words.
    pub async fn config_in_force(&mut self, file: &ConfigFile) -> Result<Option<Value>, String> {
        let bytes = self.device.read_config(&file.name).await.map_err(|error| error.to_string())?;
        let parse = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
            file.format.parse(&text)
        };
        bytes.map(parse).transpose()
    }

    async fn stage(&mut self, order: &Order, new: Bytes) -> Result<Before, DeviceError> {
        // A leftover of an earlier attempt is not continued: the bytes are all here.
        self.device.discard(&order.target).await?;
        self.device.begin(order).await?;
        self.device.reserve(new.len() as u64).await?;
        self.device.write(new).await?;
        self.device.finish().await
    }
}

pub(crate) fn order(file: &ConfigFile, new: &[u8]) -> Order {
    Order {
        target: Target::Config(file.name.clone()),
        digest: Digest::of_bytes(new),
        size: Some(new.len() as u64),
        compression: device::Compression::None,
        version: None,
        release: None,
        activate: When::Now,
    }
}

/// Composed and checked, before anything is written; or how it ends without.
pub(crate) async fn prepare(current: Option<Vec<u8>>, update: &UpdateConfig) -> Result<Composed, Outcome> {
    let update = update.clone();
    // Some megabytes take a while, and the loop must go on answering the broker.
    match tokio::task::spawn_blocking(move || checked(current.as_deref(), &update)).await {
        Ok(prepared) => prepared,
        Err(error) => Err(Outcome::failed("config-unreadable", error.to_string())),
    }
}

fn checked(current: Option<&[u8]>, update: &UpdateConfig) -> Result<Composed, Outcome> {
    let new = compose(current, update).map_err(|error| Outcome::failed(error.reason(), error.to_string()))?;
    if current == Some(new.text.as_bytes()) {
        return Err(Outcome::succeeded("unchanged", "the configuration says this already"));
    }
    if let Some(schema) = &update.file.schema {
        schema::validate(schema, &new.value)
            .map_err(|error| Outcome::failed(error.reason(), error.to_string()))?;
    }
    Ok(new)
}

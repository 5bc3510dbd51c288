//! Whether firmware may be installed at all: who signed it, for which hardware, and how far back it goes; and later,
//! whether it is what was let in. What nobody has to sign is not asked again: whoever may call may order it anyway.

use std::path::PathBuf;
use std::time::SystemTime;

use release::{Envelope, Facts, Keyring, Refusal, Release};

use crate::HostSettings;
use crate::device::{Admitted, Change, Installed, Order, Target};
use crate::error::DeviceError;
use crate::floor::Floor;
use crate::ledger::Ledger;

/// Whose firmware this device installs.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Where the keys were read.
    pub folder: PathBuf,
    pub keyring: Keyring,
}

pub(crate) struct Gate {
    /// `None`: no keys are configured, and every order passes.
    keyring: Option<Keyring>,
    compatible: Vec<String>,
    floor: Floor,
    ledger: Ledger,
    /// What was verified last: nothing is read twice.
    held: Option<(Envelope, Release)>,
}

impl Gate {
    pub(crate) fn new(settings: &HostSettings) -> Self {
        Self {
            keyring: settings.trust.as_ref().map(|trust| trust.keyring.clone()),
            compatible: settings.compatible.clone(),
            floor: Floor::in_folder(&settings.state_directory),
            ledger: Ledger::in_folder(&settings.state_directory),
            held: None,
        }
    }

    /// A configuration is the account's to order; firmware is the maker's to sign.
    pub(crate) fn admit(&mut self, order: &Order) -> Result<Admitted, DeviceError> {
        let (Some(keyring), Target::Firmware) = (&self.keyring, &order.target) else {
            if order.release.is_some() {
                tracing::warn!("the job's release is not looked at: no [release] keys are configured");
            }
            return Ok(Admitted { sequence: None, size: order.size });
        };
        let envelope = order.release.as_ref().ok_or(Refusal::Missing)?;
        let release = match self.held.take().filter(|(held, _)| held == envelope) {
            Some((_, release)) => release,
            None => keyring.verify(envelope)?,
        };
        // The clock and the floor may have moved since it was verified.
        release.admits(&Facts {
            sha256: order.digest.as_bytes(),
            length: order.size,
            version: order.version.as_deref().unwrap_or_default(),
            compression: order.compression.signed(),
            compatible: &self.compatible,
            agent_version: env!("CARGO_PKG_VERSION"),
            now: release::plausible(SystemTime::now()),
            floor: self.floor.read()?,
        })?;
        let signed = release.statement();
        let admitted = Admitted { sequence: Some(signed.sequence), size: Some(signed.length) };
        self.held = Some((envelope.clone(), release));
        Ok(admitted)
    }

    fn is_closed_to(&self, target: &Target) -> bool {
        self.keyring.is_some() && *target == Target::Firmware
    }

    /// An admitted order is whole and verified. On disk when this returns.
    pub(crate) fn verified(&self, change: &Change) -> Result<(), DeviceError> {
        if self.is_closed_to(&change.target) { self.ledger.enter(change) } else { Ok(()) }
    }

    /// Is this change as it was verified here, and not committed yet?
    pub(crate) fn knows(&self, change: &Change) -> Result<bool, DeviceError> {
        if self.is_closed_to(&change.target) {
            return self.ledger.has(change);
        }
        // A configuration is never recorded as firmware.
        Ok(change.target == Target::Firmware || change.commit.is_none())
    }

    /// What of a change that it knows is to be recorded: without keys nobody has verified a sequence.
    pub(crate) fn verified_part(&self, installed: Installed) -> Installed {
        Installed { sequence: installed.sequence.filter(|_| self.keyring.is_some()), ..installed }
    }

    /// It is committed, and there is no way back below it.
    pub(crate) fn committed(&self, sequence: Option<u64>) -> Result<(), DeviceError> {
        let Some(sequence) = sequence else { return Ok(()) };
        self.floor.raise(sequence)?;
        self.ledger.strike()
    }
}

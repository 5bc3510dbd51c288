//! What the agent touches the device with: its own hands, or the helper's.

use bytes::Bytes;
use device::{
    Admitted, Before, Boot, Change, Device, DeviceError, Effect, Halt, HostDevice, Installed, Order, Percent,
    Question, RemoteDevice, RolledBack, Target,
};

use dispatcher::policy::Policy;
use dispatcher::{Dispatcher, Journal, Rules};
use downloader::Downloader;

use crate::config::Settings;
use crate::worker::Host;

pub enum Hands {
    Own(Box<HostDevice>),
    Helper(RemoteDevice),
}

impl Hands {
    /// With a helper configured, this process opens nothing of the device by itself. Returns when the helper is there.
    pub async fn new(settings: &Settings) -> Self {
        match &settings.helper {
            None => Self::own(settings),
            Some(helper) => {
                let mut device = RemoteDevice::new(&helper.socket);
                device.wait_for_helper().await;
                Self::Helper(device)
            }
        }
    }

    pub fn own(settings: &Settings) -> Self {
        Self::Own(Box::new(HostDevice::new(settings.host.clone())))
    }

    pub fn dispatcher(self, settings: &Settings, rules: Rules, policy: Policy) -> anyhow::Result<Host> {
        let downloader = Downloader::new(settings.download.clone());
        let journal = Journal::in_folder(&settings.state_directory);
        let (dispatcher, warning) = Dispatcher::open(self, downloader, rules, policy, journal)?;
        if let Some(warning) = warning {
            tracing::error!("{warning}");
        }
        Ok(dispatcher)
    }
}

/// Every call, to whichever it is.
macro_rules! whichever {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        impl Device for Hands {
            $(async fn $name(&mut self, $($arg: $type),*) -> Result<$out, DeviceError> {
                match self {
                    Self::Own(device) => device.$name($($arg),*).await,
                    Self::Helper(device) => device.$name($($arg),*).await,
                }
            })*
        }
    };
}

whichever! {
    boot() -> Boot;
    installed() -> Option<Installed>;
    read_config(name: &str) -> Option<Vec<u8>>;
    admit(order: &Order) -> Admitted;
    begin(order: &Order) -> u64;
    reserve(total: u64) -> ();
    write(bytes: Bytes) -> ();
    restart() -> ();
    finish() -> Before;
    discard(target: &Target) -> ();
    discard_all() -> ();
    may_disturb(question: &Question, halt: &Halt) -> bool;
    activate(change: &Change, halt: &Halt, percent: &Percent) -> Effect;
    confirm(change: &Change, halt: &Halt) -> ();
    commit(change: &Change) -> ();
    roll_back(change: &Change) -> RolledBack;
    reboot(halt: &Halt) -> ();
}

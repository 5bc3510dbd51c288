//! RAUC's D-Bus interface, `de.pengutronix.rauc.Installer`, as much of it as is needed.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use zbus::message::Type;
use zbus::zvariant::OwnedVariant;
use zbus::{Connection, MatchRule, Message, MessageStream, connection};

use super::error::{RaucError, one_line};
use super::slots::{Slot, Slots};
use crate::{DeviceError, Halt, Percent};

const SERVICE: &str = "de.pengutronix.rauc";
const INTERFACE: &str = "de.pengutronix.rauc.Installer";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// For a call. None of them waits for an installation; some run the bootloader's tools.
const CALL: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub(super) enum Mark {
    Good,
    Bad,
    /// Boots next.
    Active,
}

pub(super) struct Rauc {
    bus: Connection,
}

impl Rauc {
    pub(super) async fn connect() -> Result<Self, RaucError> {
        let bus = connection::Builder::system().method_timeout(CALL).build().await;
        Ok(Self { bus: bus.map_err(|error| RaucError::Unreachable(error.to_string()))? })
    }

    /// Only an idle RAUC answers, and this is the one proof that it is idle: its property `Operation` says so, too, after
    /// it has refused somebody's second installation while the first goes on (1.8).
    pub(super) async fn slots(&self) -> Result<Slots, RaucError> {
        const CALL: &str = "GetSlotStatus";
        let answer = self.call(CALL, &()).await.map_err(|error| match error {
            RaucError::Refused { message, .. } => RaucError::NoBooted(message),
            error => error,
        })?;
        let body = answer.body();
        let slots: Vec<(String, HashMap<String, OwnedVariant>)> =
            body.deserialize().map_err(nonsense(CALL))?;
        Ok(Slots(slots.into_iter().map(|(name, status)| Slot::new(name, status)).collect()))
    }

    /// The slot that boots next.
    pub(super) async fn primary(&self) -> Result<String, RaucError> {
        let answer = self.call("GetPrimary", &()).await?;
        answer.body().deserialize().map_err(nonsense("GetPrimary"))
    }

    pub(super) async fn mark(&self, mark: Mark, slot: &str) -> Result<(), RaucError> {
        let state = match mark {
            Mark::Good => "good",
            Mark::Bad => "bad",
            Mark::Active => "active",
        };
        tracing::info!(slot, state, "marking the slot");
        self.call("Mark", &(state, slot)).await.map(drop)
    }

    /// An empty string where there is none.
    pub(super) async fn property(&self, name: &'static str) -> Result<String, RaucError> {
        let answer = self
            .bus
            .call_method(Some(SERVICE), "/", Some(PROPERTIES), "Get", &(INTERFACE, name))
            .await
            .map_err(|error| failure(name, error))?;
        let value: OwnedVariant = answer.body().deserialize().map_err(nonsense(name))?;
        String::try_from(value).map_err(nonsense(name))
    }

    /// Returns when RAUC has said how the installation ended, and for a stop: RAUC then goes on alone.
    pub(super) async fn install(
        &self,
        bundle: &Path,
        timeout: Duration,
        halt: &Halt,
        percent: &Percent,
    ) -> Result<(), DeviceError> {
        let mut service = self.watch().await?;
        let no_options = HashMap::<&str, zbus::zvariant::Variant<'_>>::new();
        let path = bundle.display().to_string();
        let begun = self.call("InstallBundle", &(path.as_str(), &no_options)).await?.recv_position();
        let end = tokio::time::sleep(timeout);
        tokio::pin!(end);
        loop {
            tokio::select! {
                biased;
                message = service.signals.next() => {
                    let message = message.and_then(Result::ok).ok_or(RaucError::Vanished)?;
                    // What was said before the call was taken is about somebody else's installation.
                    if message.recv_position() < begun {
                        continue;
                    }
                    match Said::by(&message) {
                        Some(Said::Completed(0)) => return Ok(()),
                        Some(Said::Completed(_)) => {
                            let error = self.property("LastError").await.unwrap_or_default();
                            return Err(RaucError::Failed(one_line(&error)).into());
                        }
                        Some(Said::Percent(done)) => drop(percent.send_replace(done)),
                        None => {}
                    }
                }
                _ = service.owners.next() => return Err(RaucError::Vanished.into()),
                () = halt.stopped() => return Err(DeviceError::halted("the wait for RAUC")),
                () = &mut end => return Err(RaucError::TooSlow(timeout).into()),
            }
        }
    }

    /// Before the call whose end is to be heard. The signals are those of the process that runs now: another one knows
    /// nothing of the installation.
    async fn watch(&self) -> Result<Service, RaucError> {
        const CALL: &str = "GetNameOwner";
        let bus = |error: zbus::Error| failure("watch", error);
        let changes = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, SERVICE);
        let rule = changes.build().map_err(bus)?;
        let owners = MessageStream::for_match_rule(rule, &self.bus, None).await.map_err(bus)?;
        let answer = self
            .bus
            .call_method(
                Some("org.freedesktop.DBus"),
                "/org/freedesktop/DBus",
                Some("org.freedesktop.DBus"),
                CALL,
                &SERVICE,
            )
            .await
            .map_err(bus)?;
        let owner: String = answer.body().deserialize().map_err(nonsense(CALL))?;
        let rule =
            MatchRule::builder().msg_type(Type::Signal).sender(owner).path("/").build().map_err(bus)?;
        let signals = MessageStream::for_match_rule(rule, &self.bus, None).await.map_err(bus)?;
        Ok(Service { owners, signals })
    }

    async fn call<B>(&self, method: &'static str, body: &B) -> Result<Message, RaucError>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let answer = self.bus.call_method(Some(SERVICE), "/", Some(INTERFACE), method, body).await;
        answer.map_err(|error| failure(method, error))
    }
}

struct Service {
    /// A message here: the service has ended, or another has taken its place.
    owners: MessageStream,
    signals: MessageStream,
}

/// What a signal says of an installation.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Completed(i32),
    Percent(u8),
}

impl Said {
    fn by(signal: &Message) -> Option<Self> {
        let (header, body) = (signal.header(), signal.body());
        let (interface, member) = (header.interface()?.as_str(), header.member()?.as_str());
        match (interface, member) {
            (INTERFACE, "Completed") => body.deserialize().ok().map(Self::Completed),
            (PROPERTIES, "PropertiesChanged") => {
                type Changed = (String, HashMap<String, OwnedVariant>, Vec<String>);
                let (_, mut changed, _): Changed = body.deserialize().ok()?;
                let progress: (i32, String, i32) = changed.remove("Progress")?.try_into().ok()?;
                Some(Self::Percent(u8::try_from(progress.0.clamp(0, 100)).ok()?))
            }
            _ => None,
        }
    }
}

/// RAUC's own errors have one name and a sentence; everything else is the bus.
fn failure(call: &'static str, error: zbus::Error) -> RaucError {
    match error {
        zbus::Error::MethodError(_, message, _) => {
            let message = one_line(&message.unwrap_or_default());
            if message.contains("rocessing a different method") {
                RaucError::Busy
            } else {
                RaucError::Refused { call, message }
            }
        }
        error => RaucError::Unreachable(one_line(&error.to_string())),
    }
}

fn nonsense(call: &'static str) -> impl FnOnce(zbus::Error) -> RaucError {
    move |error| RaucError::Nonsense { call, message: one_line(&error.to_string()) }
}

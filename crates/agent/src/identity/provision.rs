//! The first identity, by claim: asked for until there is one, at a pace that fits what went wrong.

use std::time::{Duration, Instant};

use connection::talk::TalkMeter;

use super::error::Again;
use super::prove::prove;
use super::{Error, Generation, Order, evaluate, obtain};
use crate::config::{Claim, Settings};
use crate::meter::Meter;
use crate::notify::Notify;
use crate::route::link;

const MINUTE: Duration = Duration::from_secs(60);

/// Once: from the claim to a certificate that works, and is in force.
pub async fn try_to_provision(
    settings: &Settings,
    claim: &Claim,
    meter: &TalkMeter,
) -> Result<Generation, Error> {
    let store = settings.identities();
    let configured = &settings.connection.thing_name;
    let order = Order {
        made_for: format!("provisioning {}", claim.template),
        template: claim.template.clone(),
        parameters: evaluate(&settings.provisioning.parameters).await?,
        thing_name: Some(configured).filter(|name| !name.is_empty()).cloned(),
    };
    let generation = obtain(&store, &settings.claim_link(claim)?, &order, meter).await?;
    let thing = settings.with(&generation);
    let proved = prove(&link(&thing, thing.identity()?), &thing.connection.thing_name, meter).await;
    if let Err(Error::NewRefused(_)) = proved {
        store.discard();
    }
    proved?;
    store.put_in_force(&generation)?;
    Ok(generation)
}

/// Until it is done. `false`: it was stopped before.
pub async fn provision(
    settings: &Settings,
    claim: &Claim,
    stop: &mut (impl Future<Output = ()> + Unpin),
) -> bool {
    let mut notify = Notify::from_environment(Instant::now());
    notify.ready();
    let (mut meter, talks) = (Meter::open(&settings.state_directory), TalkMeter::default());
    let mut failures = 0;
    loop {
        notify.status(|| format!("is being provisioned with the template {}", claim.template));
        tracing::info!(name: "provisioning", template = claim.template, "asking for an identity");
        let attempt = beside(try_to_provision(settings, claim, &talks), &mut notify, stop).await;
        meter.add(&talks.take());
        meter.save();
        let error = match attempt {
            Some(Ok(generation)) => {
                let thing = generation.about.map(|about| about.thing_name).unwrap_or_default();
                tracing::info!(name: "provisioned", thing, "this device has an identity now");
                return true;
            }
            Some(Err(error)) => error,
            None => return false,
        };
        failures += 1;
        let connection = &settings.connection;
        let most = longest(error.again(), failures, (connection.reconnect_min, connection.reconnect_max));
        // At least half: a fleet that was switched on at one moment does not ask again at one.
        let retry_in = most.mul_f64(0.5 + fastrand::f64() / 2.0);
        let retry_in_s = retry_in.as_secs();
        tracing::error!(name: "not-provisioned", %error, retry_in_s, "this device has no identity yet");
        notify.status(|| format!("NOT provisioned: {error}"));
        if beside(tokio::time::sleep(retry_in), &mut notify, stop).await.is_none() {
            return false;
        }
    }
}

/// Between two attempts. What cannot work by itself is asked seldom, and still asked: somebody may have put it right.
fn longest(again: Again, failures: u32, (min, max): (Duration, Duration)) -> Duration {
    let (first, last) = match again {
        Again::Outage => (min * 2, max),
        Again::Perhaps => (Duration::from_secs(10), 15 * MINUTE),
        Again::Useless => (15 * MINUTE, 240 * MINUTE),
    };
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(last.max(first))
}

/// Runs it to its end, with systemd's watchdog fed meanwhile; nothing, when it was stopped.
async fn beside<T>(
    work: impl Future<Output = T>,
    notify: &mut Notify,
    stop: &mut (impl Future<Output = ()> + Unpin),
) -> Option<T> {
    tokio::pin!(work);
    loop {
        notify.turned(Instant::now(), true);
        let due = notify.due();
        let tick = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = &mut work => return Some(done),
            () = &mut *stop => return None,
            () = tick => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_fits_what_went_wrong_and_never_ends() {
        let seconds = |again, failures| {
            let limits = (Duration::from_secs(1), Duration::from_secs(32));
            longest(again, failures, limits).as_secs()
        };
        let of = |again| [1, 2, 6, 1000].map(|failures| seconds(again, failures));
        assert_eq!(of(Again::Outage), [2, 4, 32, 32]);
        assert_eq!(of(Again::Perhaps), [10, 20, 320, 900]);
        assert_eq!(of(Again::Useless), [900, 1800, 14_400, 14_400]);
    }
}

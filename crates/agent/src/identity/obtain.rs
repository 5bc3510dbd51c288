//! A new certificate from the fleet provisioning service, on disk beside the one in force.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use connection::talk::{Talk, TalkMeter};

use super::service::{Registered, create_from_csr, register, subscriptions};
use super::store::{About, Candidate, Generation, Store};
use super::{Error, key};
use crate::config::is_thing_name;

/// A token lives for an hour, and clocks differ.
const TOKEN_IS_FRESH: Duration = Duration::from_secs(50 * 60);

/// What a certificate is asked for with.
#[derive(Debug, Clone)]
pub struct Order {
    /// Names what it is for: what a restart finds half done is gone on with for the same order alone.
    pub made_for: String,
    pub template: String,
    pub parameters: BTreeMap<String, String>,
    /// Who the device is, where it knows that already.
    pub thing_name: Option<String>,
}

/// Asks over a talk of its own, with whatever certificate `link` has. Interrupted at any point, it goes on with the
/// certificate that was issued, as long as its token is good.
pub async fn obtain(
    store: &Store,
    link: &connection::Settings,
    order: &Order,
    meter: &TalkMeter,
) -> Result<Generation, Error> {
    if let Some(registered) = store.pending_for(&order.made_for) {
        return Ok(registered);
    }
    let mut link = link.clone();
    link.subscriptions = subscriptions(&order.template);
    let mut talk = Talk::open(&link, meter).await?;
    let obtained = converse(store, &mut talk, order).await;
    talk.leave().await;
    obtained
}

async fn converse(store: &Store, talk: &mut Talk, order: &Order) -> Result<Generation, Error> {
    let now = SystemTime::now();
    let kept = store.candidate().filter(|candidate| candidate.is_for(order) && candidate.is_fresh(now));
    let is_kept = kept.is_some();
    let mut candidate = match kept {
        Some(candidate) => candidate,
        None => issue(store, talk, order).await?,
    };
    let registered = match candidate.register(talk, order).await {
        // A restart has come between the registration and its answer, or an hour has passed.
        Err(error) if is_kept && error.is_about_token() => match &order.thing_name {
            // In the first case it works, and it is tried before anything depends on it.
            Some(thing_name) => {
                Registered { thing_name: thing_name.clone(), device_configuration: Default::default() }
            }
            None => {
                candidate = issue(store, talk, order).await?;
                candidate.register(talk, order).await?
            }
        },
        other => other?,
    };
    if let Some(configured) = order.thing_name.as_ref().filter(|name| **name != registered.thing_name) {
        return Err(Error::OtherThing { configured: configured.clone(), found: registered.thing_name });
    }
    if !is_thing_name(&registered.thing_name) {
        let problem =
            "its thing name has other characters than a-z A-Z 0-9 : _ -, or more than 128".to_owned();
        return Err(Error::Malformed { request: "the registration", problem });
    }
    let about = About {
        thing_name: registered.thing_name,
        made_for: order.made_for.clone(),
        device_configuration: registered.device_configuration,
    };
    store.install(&candidate.certificate, &candidate.private_key, &about)
}

/// A new key, and its certificate; both are kept before anything is done with them.
async fn issue(store: &Store, talk: &mut Talk, order: &Order) -> Result<Candidate, Error> {
    let made = key::make()?;
    let issued = create_from_csr(talk, &made.request).await?;
    let issued_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let candidate = Candidate {
        made_for: order.made_for.clone(),
        template: order.template.clone(),
        private_key: made.private_key,
        certificate: issued.certificate_pem,
        token: issued.certificate_ownership_token,
        issued_at,
    };
    store.keep(&candidate)?;
    Ok(candidate)
}

impl Candidate {
    fn is_for(&self, order: &Order) -> bool {
        self.made_for == order.made_for && self.template == order.template
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        let issued = SystemTime::UNIX_EPOCH + Duration::from_secs(self.issued_at);
        // A clock that was set meanwhile makes an old token of it.
        now.duration_since(issued).is_ok_and(|age| age < TOKEN_IS_FRESH)
    }

    async fn register(&self, talk: &mut Talk, order: &Order) -> Result<Registered, Error> {
        register(talk, &order.template, &self.token, &order.parameters).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_again_for_its_own_order_and_while_it_is_good() {
        let order = Order {
            made_for: "job".to_owned(),
            template: "t".to_owned(),
            parameters: BTreeMap::new(),
            thing_name: None,
        };
        let candidate = |made_for: &str, template: &str, issued_at| Candidate {
            made_for: made_for.to_owned(),
            template: template.to_owned(),
            private_key: String::new(),
            certificate: String::new(),
            token: String::new(),
            issued_at,
        };
        assert!(candidate("job", "t", 0).is_for(&order));
        assert!(!candidate("other", "t", 0).is_for(&order) && !candidate("job", "u", 0).is_for(&order));
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (now, expected) in [(999, false), (1000, true), (3999, true), (4000, false), (9_999_999, false)] {
            assert_eq!(candidate("job", "t", 1000).is_fresh(at(now)), expected, "{now}");
        }
    }
}

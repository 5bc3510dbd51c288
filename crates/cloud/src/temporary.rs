//! Temporary credentials, as the security token service hands them out: good until they end, and only with their token.
//! They last by the machine's clock, which is the one that clients look at; and they are forgotten at a restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::engine::Time;

/// More at once are not kept: the oldest go.
const MAX: usize = 10_000;

#[derive(Clone, Default)]
pub(crate) struct Temporary(Arc<Mutex<BTreeMap<String, Session>>>);

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) token: String,
    pub(crate) expires: Time,
    /// Of Cognito, when somebody vouched for it: then IoT's own policies count, too.
    pub(crate) authenticated_identity: Option<String>,
}

impl Temporary {
    pub(crate) fn issue(&self, now: Time, seconds: i64, authenticated_identity: Option<String>) -> Session {
        let session = Session {
            access_key: format!("ASIA{}", letters(16)),
            secret_key: BASE64_STANDARD.encode(bytes(30)),
            // As long as AWS's, and with all the characters that have to be encoded.
            token: format!("{}//+/==", BASE64_STANDARD.encode(bytes(480))),
            expires: now.plus_secs(seconds),
            authenticated_identity,
        };
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| session.expires > now);
        if sessions.len() >= MAX {
            let oldest = sessions.values().min_by_key(|session| session.expires.millis());
            let oldest = oldest.map(|session| session.access_key.clone()).unwrap_or_default();
            sessions.remove(&oldest);
        }
        sessions.insert(session.access_key.clone(), session.clone());
        session
    }

    /// Those of this access key, if they are good and the token is theirs.
    pub(crate) fn find(&self, now: Time, access_key: &str, token: Option<&str>) -> Option<Session> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(access_key)?;
        (session.expires > now && token == Some(session.token.as_str())).then(|| session.clone())
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|_| fastrand::u8(..)).collect()
}

fn letters(count: usize) -> String {
    (0..count).map(|_| fastrand::alphanumeric().to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_good_with_their_token_until_they_end() {
        let temporary = Temporary::default();
        let at = Time::from_secs;
        let session = temporary.issue(at(1000), 900, None);
        let find = |now, token: Option<&str>| temporary.find(at(now), &session.access_key, token).is_some();
        assert!(find(1000, Some(&session.token)) && find(1899, Some(&session.token)));
        assert!(!find(1900, Some(&session.token)));
        assert!(!find(1000, None) && !find(1000, Some("another")));
        assert!(temporary.find(at(1000), "ASIA", Some(&session.token)).is_none());
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let temporary = Temporary::default();
        let first = temporary.issue(Time::from_secs(0), 900, None);
        for n in 1..=MAX {
            temporary.issue(Time::from_secs(1), 900 + i64::try_from(n).unwrap(), None);
        }
        assert_eq!(temporary.0.lock().unwrap().len(), MAX);
        assert!(temporary.find(Time::from_secs(1), &first.access_key, Some(&first.token)).is_none());
    }
}

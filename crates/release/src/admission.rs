//! Whether a verified release may be installed here and now: a pure function of it and of what the device knows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{AgentVersion, Refusal, Release};

/// 1 November 2026: no clock that shows less has been set since this agent was made.
const MADE: Duration = Duration::from_secs(1_793_491_200);

/// What the job asks for, and what the device is.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub sha256: &'a [u8; 32],
    /// Where the job declares it. What arrives is held to the release's length in any case.
    pub length: Option<u64>,
    pub version: &'a str,
    pub compression: Option<&'a str>,
    /// The device's names.
    pub compatible: &'a [String],
    pub agent_version: &'a str,
    /// `None` while the clock has not been set; see [`plausible`].
    pub now: Option<SystemTime>,
    /// The highest sequence that was ever committed here.
    pub floor: Option<u64>,
}

/// A clock that cannot be right is none. A release that expires is then refused: whoever can keep a device from the
/// time could otherwise have it install what has expired.
pub fn plausible(now: SystemTime) -> Option<SystemTime> {
    (now >= UNIX_EPOCH + MADE).then_some(now)
}

impl Release {
    pub fn admits(&self, facts: &Facts<'_>) -> Result<(), Refusal> {
        self.is_what_is_asked_for(facts)?;
        let signed = self.statement();
        if !signed.compatible.iter().any(|name| facts.compatible.contains(name)) {
            let (signed, device) = (signed.compatible.clone(), facts.compatible.to_vec());
            return Err(Refusal::Incompatible { signed, device });
        }
        if let Some(needed) = signed.min_agent_version {
            let found = facts.agent_version;
            // A version of its own that an agent cannot read satisfies nobody.
            if !found.parse::<AgentVersion>().is_ok_and(|found| found >= needed) {
                return Err(Refusal::AgentTooOld { needed, found: found.to_owned() });
            }
        }
        match (&signed.expires, facts.now) {
            (Some(expires), None) => return Err(Refusal::ClockNotSet(expires.clone())),
            (Some(expires), Some(now)) if now >= expires.time() => {
                return Err(Refusal::Expired(expires.clone()));
            }
            _ => {}
        }
        let (sequence, permit) = (signed.sequence, signed.permit_floor);
        match facts.floor {
            // Equal is a retry, or the same release once more.
            Some(floor) if sequence < floor && permit.is_none_or(|permit| permit < floor) => {
                Err(Refusal::SequenceTooLow { sequence, floor, permit })
            }
            _ => Ok(()),
        }
    }

    fn is_what_is_asked_for(&self, facts: &Facts<'_>) -> Result<(), Refusal> {
        let signed = self.statement();
        let none = || "none".to_owned();
        let other = |member, signed, asked| Err(Refusal::Mismatch { member, signed, asked });
        if signed.sha256 != *facts.sha256 {
            return other("sha256", hex::encode(signed.sha256), hex::encode(facts.sha256));
        }
        if let Some(asked) = facts.length.filter(|asked| *asked != signed.length) {
            return other("length", signed.length.to_string(), asked.to_string());
        }
        if signed.version != facts.version {
            return other("version", signed.version.clone(), facts.version.to_owned());
        }
        if signed.compression.as_deref() != facts.compression {
            let asked = facts.compression.map_or_else(none, str::to_owned);
            return other("compression", signed.compression.clone().unwrap_or_else(none), asked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Statement;

    const SHA256: [u8; 32] = [7; 32];

    fn at(text: &str) -> SystemTime {
        text.parse::<crate::Timestamp>().unwrap().time()
    }

    fn statement() -> Statement {
        Statement {
            expires: Some("2030-01-01T00:00:00Z".parse().unwrap()),
            min_agent_version: Some("0.1.0".parse().unwrap()),
            ..Statement::new(SHA256, 100, "2.0", 5, &["board-1".to_owned(), "board-2".to_owned()])
        }
    }

    fn reason(change: impl FnOnce(&mut Statement, &mut Facts<'_>)) -> &'static str {
        let device = ["board-2".to_owned(), "board-3".to_owned()];
        let mut facts = Facts {
            sha256: &SHA256,
            length: Some(100),
            version: "2.0",
            compression: None,
            compatible: &device,
            agent_version: "0.1.0",
            now: Some(at("2029-12-31T23:59:59Z")),
            floor: Some(5),
        };
        let mut statement = statement();
        change(&mut statement, &mut facts);
        match Release::assume_verified(statement).admits(&facts) {
            Ok(()) => "admitted",
            Err(refusal) => {
                assert!(!refusal.to_string().is_empty());
                refusal.reason()
            }
        }
    }

    #[test]
    fn what_is_signed_must_be_what_is_asked_for() {
        assert_eq!(reason(|_, _| {}), "admitted");
        assert_eq!(reason(|_, facts| facts.length = None), "admitted");
        assert_eq!(reason(|_, facts| facts.sha256 = &[8; 32]), "release-mismatch");
        assert_eq!(reason(|_, facts| facts.length = Some(99)), "release-mismatch");
        assert_eq!(reason(|_, facts| facts.version = "2.0 "), "release-mismatch");
        assert_eq!(reason(|_, facts| facts.compression = Some("zstd")), "release-mismatch");
        assert_eq!(reason(|signed, _| signed.compression = Some("zstd".to_owned())), "release-mismatch");
        let both = reason(|signed, facts| {
            signed.compression = Some("zstd".to_owned());
            facts.compression = Some("zstd");
        });
        assert_eq!(both, "admitted");
    }

    #[test]
    fn only_hardware_that_is_named_takes_it() {
        assert_eq!(
            reason(|signed, _| signed.compatible = vec!["board-4".to_owned()]),
            "release-incompatible"
        );
        assert_eq!(reason(|signed, _| signed.compatible = vec!["board".to_owned()]), "release-incompatible");
        assert_eq!(
            reason(|signed, _| signed.compatible = vec!["BOARD-2".to_owned()]),
            "release-incompatible"
        );
        assert_eq!(reason(|_, facts| facts.compatible = &[]), "release-incompatible");
    }

    #[test]
    fn it_expires_and_a_clock_that_was_not_set_does_not_help() {
        assert_eq!(reason(|_, facts| facts.now = Some(at("2030-01-01T00:00:00Z"))), "release-expired");
        assert_eq!(reason(|_, facts| facts.now = None), "clock-not-set");
        let never = reason(|signed, facts| {
            signed.expires = None;
            facts.now = None;
        });
        assert_eq!(never, "admitted");
        assert_eq!(plausible(at("2026-10-31T23:59:59Z")), None);
        assert_eq!(plausible(at("2026-11-01T00:00:00Z")), Some(at("2026-11-01T00:00:00Z")));
    }

    #[test]
    fn an_agent_that_is_too_old_says_so() {
        for (version, expected) in
            [("0.0.9", "agent-too-old"), ("0.10.0", "admitted"), ("x", "agent-too-old")]
        {
            assert_eq!(reason(|_, facts| facts.agent_version = version), expected, "{version}");
        }
    }

    /// Floor, sequence, permit.
    #[test]
    fn below_the_floor_only_a_permit_helps_and_only_until_the_floor_has_moved_on() {
        let cases = [
            (None, 0, None, "admitted"),
            (Some(5), 6, None, "admitted"),
            (Some(5), 5, None, "admitted"),
            (Some(5), 4, None, "release-sequence-too-low"),
            (Some(5), 4, Some(5), "admitted"),
            (Some(5), 4, Some(9), "admitted"),
            (Some(6), 4, Some(5), "release-sequence-too-low"),
            (Some(u64::MAX), 4, Some(5), "release-sequence-too-low"),
        ];
        for (floor, sequence, permit, expected) in cases {
            let found = reason(|signed, facts| {
                (signed.sequence, signed.permit_floor, facts.floor) = (sequence, permit, floor);
            });
            assert_eq!(found, expected, "floor {floor:?}, sequence {sequence}, permit {permit:?}");
        }
    }
}

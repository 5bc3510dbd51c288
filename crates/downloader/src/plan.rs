//! What to do next in a transfer. Pure: no sockets, no files, no clock.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::{
    Error, UrlError,
    response::{self, ContentRange},
};

/// What bounds a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest artifact that is taken, in bytes.
    pub max_size: u64,
    /// The slowest transfer that is kept up: bytes a second over `rate_window`.
    pub min_rate: u64,
    pub rate_window: Duration,
    /// The fastest, in bytes a second; 0 is without a limit. Above `min_rate`, or it is in its own way.
    pub max_rate: u64,
    /// For the whole transfer, with every attempt and every pause.
    pub deadline: Duration,
    /// Attempts in a row that brought nothing, before the transfer fails.
    pub max_attempts: u32,
    /// The pause after the first failed attempt; it doubles up to `backoff_max`, with jitter.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_size: 4 << 30,
            min_rate: 1024,
            rate_window: Duration::from_secs(60),
            max_rate: 0,
            deadline: Duration::from_secs(6 * 3600),
            max_attempts: 60,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// At least one byte, so that a dead connection is noticed where no rate is asked for.
    pub(crate) fn least_per_window(&self) -> u64 {
        (self.min_rate as f64 * self.rate_window.as_secs_f64()).max(1.0) as u64
    }
}

/// What ties the bytes that are there to the object they came from. Kept by the caller: in memory to go on with a
/// fresh URL, in its journal to go on after a restart. The default knows nothing, so the transfer starts from zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    pub validator: Option<Validator>,
    pub total: Option<u64>,
}

/// What `If-Range` can be asked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Validator {
    /// A strong one; a weak one says nothing about bytes.
    Etag(String),
    LastModified(String),
}

/// Attempts in a row that were too slow, before the transfer is given up: another connection may well be faster.
const SLOW_ATTEMPTS: u32 = 3;
/// How often a transfer may begin again from zero: an object that keeps changing, a server that cannot do ranges.
const RESTARTS: u32 = 5;
const REDIRECTS: u32 = 5;
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// One transfer: asked what is next, told how it went. An `Err` ends the transfer.
pub(crate) struct Plan<'a> {
    limits: &'a Limits,
    declared: Option<u64>,
    resume: &'a mut Resume,
    rng: fastrand::Rng,
    started: Instant,
    attempts: u32,
    failures: u32,
    slow: u32,
    restarts: u32,
    redirects: u32,
    pause: Option<Duration>,
    last: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// From this position, if the object is still the one of the validator; or the whole.
    Get(Option<(u64, Validator)>),
    Wait(Duration),
    Done,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Body(Body),
    Follow(String),
    /// Drop the response, and ask what is next.
    Nothing,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// The sink starts from zero: these are the first bytes of the whole object.
    pub(crate) restart: bool,
    /// No byte is taken from here on.
    pub(crate) end: u64,
    pub(crate) total: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Complete,
    Broken(String),
    TooSlow,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(
        limits: &'a Limits,
        declared: Option<u64>,
        resume: &'a mut Resume,
        rng: fastrand::Rng,
        started: Instant,
    ) -> Result<Self, Error> {
        if let Some(found) = declared.filter(|size| *size > limits.max_size) {
            return Err(Error::TooLarge { found, limit: limits.max_size });
        }
        if declared.is_some() && resume.total.is_some() && declared != resume.total {
            *resume = Resume::default(); // of another object
        }
        Ok(Self {
            limits,
            declared,
            resume,
            rng,
            started,
            attempts: 0,
            failures: 0,
            slow: 0,
            restarts: 0,
            redirects: 0,
            pause: None,
            last: None,
        })
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(crate) fn object(&self) -> &Resume {
        self.resume
    }

    fn total(&self) -> Option<u64> {
        self.declared.or(self.resume.total)
    }

    pub(crate) fn next(&mut self, position: u64, now: Instant) -> Result<Step, Error> {
        if self.total() == Some(position) {
            return Ok(Step::Done);
        }
        let pause = self.pause.take();
        // A pause that outlasts the deadline need not be waited for.
        if now.duration_since(self.started) + pause.unwrap_or_default() >= self.limits.deadline {
            return Err(self.out_of_time());
        }
        if let Some(pause) = pause {
            return Ok(Step::Wait(pause));
        }
        self.attempts += 1;
        self.redirects = 0;
        let more = position > 0 && self.total().is_none_or(|total| position < total);
        Ok(Step::Get(self.resume.validator.clone().filter(|_| more).map(|validator| (position, validator))))
    }

    pub(crate) fn out_of_time(&self) -> Error {
        Error::Deadline { limit: self.limits.deadline, last: self.last.clone() }
    }

    /// The headers of an answer. `ranged`: a range was asked for, beginning at `position`.
    pub(crate) fn on_response(
        &mut self,
        status: u16,
        headers: &HeaderMap,
        ranged: bool,
        position: u64,
    ) -> Result<Answer, Error> {
        match status {
            200 => self.on_whole(headers, position),
            206 if ranged => self.on_range(headers, position),
            301 | 302 | 303 | 307 | 308 => match response::location(headers) {
                Some(_) if self.redirects == REDIRECTS => {
                    Err(UrlError::TooManyRedirects { limit: REDIRECTS }.into())
                }
                Some(location) => {
                    self.redirects += 1;
                    Ok(Answer::Follow(location.to_owned()))
                }
                None => Err(Error::BadResponse(format!("a redirect ({status}) without a location"))),
            },
            401 | 403 => Err(Error::Forbidden { status }),
            408 | 429 | 500..=599 => {
                self.failed(format!("the HTTP status {status}"), response::retry_after(headers))?;
                Ok(Answer::Nothing)
            }
            416 if ranged => self.distrust("there is nothing at the position that was asked for"),
            _ => Err(Error::Status { status }),
        }
    }

    fn on_whole(&mut self, headers: &HeaderMap, position: u64) -> Result<Answer, Error> {
        refuse_coding(headers)?;
        let length = response::content_length(headers);
        if let Some(found) = length {
            self.check_length(found)?;
        }
        let restart = position > 0;
        if restart {
            self.restarts += 1;
            if self.restarts > RESTARTS {
                let last = self.last.take().unwrap_or_else(|| "the object keeps changing".to_owned());
                return Err(Error::Network { attempts: self.attempts, last });
            }
        }
        *self.resume = Resume { validator: Validator::of(headers), total: length.or(self.declared) };
        Ok(Answer::Body(Body {
            restart,
            end: self.total().unwrap_or(self.limits.max_size),
            total: self.total(),
        }))
    }

    fn on_range(&mut self, headers: &HeaderMap, position: u64) -> Result<Answer, Error> {
        refuse_coding(headers)?;
        let Some(range) = ContentRange::of(headers) else {
            return self.distrust("a partial answer without a sound Content-Range");
        };
        if range.start != position {
            return self.distrust("a partial answer that begins elsewhere");
        }
        if !self.resume.validator.as_ref().is_some_and(|validator| validator.holds_for(headers)) {
            return self.distrust("a partial answer from another object");
        }
        let total = range.total.or(self.total());
        if self.total().is_some_and(|known| total != Some(known) || range.last >= known) {
            return self.distrust("a partial answer from an object of another length");
        }
        self.check_length(total.unwrap_or(range.last))?;
        self.resume.total = total;
        Ok(Answer::Body(Body { restart: false, end: range.last + 1, total }))
    }

    fn check_length(&self, found: u64) -> Result<(), Error> {
        match self.declared {
            Some(expected) if expected != found => Err(Error::SizeMismatch { expected, found }),
            _ if found > self.limits.max_size => Err(Error::TooLarge { found, limit: self.limits.max_size }),
            _ => Ok(()),
        }
    }

    /// The bytes that are there may belong to something else: the next request asks for the whole.
    fn distrust(&mut self, why: &str) -> Result<Answer, Error> {
        *self.resume = Resume::default();
        self.failed(why.to_owned(), None)?;
        Ok(Answer::Nothing)
    }

    /// More came than the headers announced, or than is allowed.
    pub(crate) fn overrun(&self, end: u64) -> Error {
        match self.total() {
            Some(expected) if expected == end => {
                Error::SizeMismatch { expected, found: end.saturating_add(1) }
            }
            None => Error::TooLarge { found: end.saturating_add(1), limit: self.limits.max_size },
            Some(_) => Error::BadResponse("the body is longer than its Content-Range".to_owned()),
        }
    }

    /// The body ended, or its connection, after `received` bytes of this attempt.
    pub(crate) fn on_body(&mut self, ended: Ended, received: u64, position: u64) -> Result<(), Error> {
        if received > 0 {
            self.failures = 0;
        }
        // An attempt that brought a window's worth is not one in a row of slow ones.
        if received >= self.limits.least_per_window() {
            self.slow = 0;
        }
        match ended {
            Ended::Complete if self.total().is_none() => {
                self.resume.total = Some(position);
                Ok(())
            }
            Ended::Complete if self.total() == Some(position) => Ok(()),
            Ended::Complete => self.failed(format!("the body ended at byte {position}"), None),
            Ended::Broken(why) => self.failed(why, None),
            Ended::TooSlow => {
                self.slow += 1;
                if self.slow >= SLOW_ATTEMPTS {
                    let Limits { min_rate, rate_window: window, .. } = *self.limits;
                    return Err(Error::TooSlow { min_rate, window, attempts: self.slow });
                }
                self.failed("the transfer was too slow".to_owned(), None)
            }
        }
    }

    /// An attempt failed in a way that another may cure.
    pub(crate) fn failed(&mut self, why: String, retry_after: Option<Duration>) -> Result<(), Error> {
        self.failures += 1;
        if self.failures >= self.limits.max_attempts {
            return Err(Error::Network { attempts: self.failures, last: why });
        }
        self.pause = Some(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX).max(self.backoff()));
        self.last = Some(why);
        Ok(())
    }

    /// Doubles with each failure in a row; between half of it and all of it, so that a fleet does not come back as one.
    fn backoff(&mut self) -> Duration {
        let doublings = 2u32.saturating_pow(self.failures.saturating_sub(1).min(30));
        let full = self.limits.backoff_min.saturating_mul(doublings).min(self.limits.backoff_max);
        full.mul_f64(0.5 + 0.5 * self.rng.f64())
    }
}

fn refuse_coding(headers: &HeaderMap) -> Result<(), Error> {
    match response::coding(headers) {
        // Bounded: a header may be long, and this ends up in a status.
        Some(coding) => {
            let coding: String = coding.chars().take(32).collect();
            Err(Error::BadResponse(format!(
                "the body is encoded as `{coding}`, expected no Content-Encoding"
            )))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

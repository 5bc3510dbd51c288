//! The driver: carries out what the plan says, over reqwest.

use std::{path::PathBuf, time::Instant};

use bytes::Bytes;
use reqwest::{
    Response,
    header::{IF_RANGE, RANGE},
};
use rustls::CertificateError;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    Artifact, Error, Limits, Proxy, Resume, Sink, SourceUrl, Validator,
    client::client,
    local,
    plan::{Answer, Body, Ended, Plan, Step},
    rate::{Rate, Verdict},
    throttle::Throttle,
};

#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub limits: Limits,
    /// PEM. `None`: the system's roots, read when a transfer begins.
    pub root_ca: Option<PathBuf>,
    /// `User-Agent`; empty: none is sent.
    pub user_agent: String,
    /// Plain http to other machines.
    pub allow_http: bool,
    /// `None`: what the environment says.
    pub proxy: Option<Proxy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub received: u64,
    pub total: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The length of the whole artifact.
    pub bytes: u64,
    /// Requests that were sent, without redirects.
    pub attempts: u32,
}

pub struct Downloader {
    settings: Settings,
}

impl Downloader {
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Brings the artifact's bytes into `sink`, going on at its position if `resume` knows the object. All bytes are
    /// there when this is Ok, and not verified: that is the sink's. After [`Error::Forbidden`] call again with a
    /// fresh URL and the same `resume` and `sink`: the same bytes go on.
    pub async fn fetch(
        &self,
        artifact: &Artifact,
        resume: &mut Resume,
        sink: &mut impl Sink,
        progress: &mut dyn FnMut(Progress),
        cancel: &CancellationToken,
    ) -> Result<Fetched, Error> {
        let limits = &self.settings.limits;
        if let Some(path) = artifact.url.local_path() {
            let copy = local::copy(&path, limits, artifact.size, sink, progress);
            return cancel.run_until_cancelled(copy).await.unwrap_or(Err(Error::Canceled));
        }
        let mut plan = Plan::new(limits, artifact.size, resume, fastrand::Rng::new(), Instant::now())?;
        let transfer = self.transfer(&mut plan, &artifact.url, sink, progress);
        match cancel.run_until_cancelled(timeout(limits.deadline, transfer)).await {
            None => Err(Error::Canceled),
            Some(Err(_)) => Err(plan.out_of_time()),
            Some(Ok(done)) => done,
        }
    }

    async fn transfer(
        &self,
        plan: &mut Plan<'_>,
        url: &SourceUrl,
        sink: &mut impl Sink,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Fetched, Error> {
        let http = client(&self.settings).await?;
        loop {
            match plan.next(sink.position(), Instant::now())? {
                Step::Done => return Ok(Fetched { bytes: sink.position(), attempts: plan.attempts() }),
                Step::Wait(pause) => sleep(pause).await,
                Step::Get(range) => self.attempt(&http, plan, url, range, sink, progress).await?,
            }
        }
    }

    /// One request, with its redirects, and as much of the body as comes.
    async fn attempt(
        &self,
        http: &reqwest::Client,
        plan: &mut Plan<'_>,
        url: &SourceUrl,
        range: Option<(u64, Validator)>,
        sink: &mut impl Sink,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let mut url = url.clone();
        let (mut response, body) = loop {
            tracing::debug!(%url, from = range.as_ref().map_or(0, |(from, _)| *from), "request");
            let response =
                match timeout(self.settings.limits.rate_window, request(http, &url, range.as_ref())).await {
                    Ok(Ok(response)) => response,
                    Ok(Err(error)) => return plan.failed(explain(error)?, None),
                    Err(_) => return plan.failed("no answer to the request".to_owned(), None),
                };
            let status = response.status().as_u16();
            match plan.on_response(status, response.headers(), range.is_some(), sink.position())? {
                Answer::Body(body) => break (response, body),
                Answer::Follow(location) => url = url.redirected(&location, self.settings.allow_http)?,
                Answer::Nothing => return Ok(()),
            }
        };
        if body.restart {
            sink.restart().await?;
        }
        sink.reserve(plan.object()).await?;
        let begin = sink.position();
        let ended = self.receive(&mut response, plan, &body, sink, progress).await?;
        if let Ended::Broken(why) = &ended {
            tracing::debug!(why, position = sink.position(), "the transfer broke");
        }
        plan.on_body(ended, sink.position() - begin, sink.position())
    }

    async fn receive(
        &self,
        response: &mut Response,
        plan: &Plan<'_>,
        body: &Body,
        sink: &mut impl Sink,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Ended, Error> {
        let limits = &self.settings.limits;
        let mut rate = Rate::new(limits);
        let mut throttle = Throttle::new(limits.max_rate, Instant::now());
        loop {
            let asked = Instant::now();
            let chunk = match timeout(rate.left(), response.chunk()).await {
                Ok(Ok(Some(chunk))) => Some(chunk),
                Ok(Ok(None)) => return Ok(Ended::Complete),
                Ok(Err(error)) => return Ok(Ended::Broken(explain(error)?)),
                Err(_) => None,
            };
            let verdict = rate.add(asked.elapsed(), chunk.as_ref().map_or(0, Bytes::len));
            if let Some(mut chunk) = chunk {
                let next_read = throttle.took(chunk.len(), Instant::now());
                let room = usize::try_from(body.end.saturating_sub(sink.position())).unwrap_or(usize::MAX);
                let overrun = chunk.len() > room;
                chunk.truncate(room);
                sink.write(chunk).await?;
                progress(Progress { received: sink.position(), total: body.total });
                if overrun {
                    return Err(plan.overrun(body.end));
                }
                if let Some(next_read) = next_read {
                    sleep_until(next_read.into()).await;
                }
            }
            match verdict {
                Verdict::Fine => {}
                Verdict::Slow => return Ok(Ended::TooSlow),
                Verdict::Dead => return Ok(Ended::Broken("the connection went silent".to_owned())),
            }
        }
    }
}

async fn request(
    http: &reqwest::Client,
    url: &SourceUrl,
    range: Option<&(u64, Validator)>,
) -> Result<Response, reqwest::Error> {
    let mut request = http.get(url.expose());
    if let Some((from, validator)) = range {
        request = request.header(RANGE, format!("bytes={from}-")).header(IF_RANGE, validator.as_str());
    }
    request.send().await
}

/// The whole chain of causes, without the URL that reqwest would put in. A certificate that will not become right by
/// waiting ends the transfer.
fn explain(error: reqwest::Error) -> Result<String, Error> {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidCertificate(why)) = unwrap_io(cause).downcast_ref()
            && !is_about_time(why)
        {
            return Err(Error::Untrusted(format!("{why:?}")));
        }
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    Ok(text)
}

/// What an io::Error wraps is not its source, but the error itself; and it may wrap another one.
fn unwrap_io<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        error = inner;
    }
    error
}

/// A device without a clock of its own starts in the past, until it has asked for the time.
fn is_about_time(why: &CertificateError) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(why, Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. })
}

//! An installation without a cloud: from a USB stick, or in the factory. The same path as a job takes, with the same
//! checks and the same journal; only nobody is told but the terminal.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use device::{Halt, HaltKind};
use dispatcher::policy::Policy;
use dispatcher::{
    AfterStart, Context, Ended, ExecutionId, Operation, Outcome, Phase, Progress, Rules, Until, Verdict,
};
use downloader::Digest;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::config::Settings;
use crate::dry_run::progress_bar;
use crate::hands::Hands;
use crate::worker::Host;

/// AWS takes no larger document, and what is larger is no document.
const MAX_DOCUMENT_BYTES: u64 = 32 * 1024;

/// What was typed.
#[derive(clap::Args)]
pub struct Order {
    /// A job document (JSON), or the firmware itself: an image, or a RAUC or SWUpdate bundle.
    file: PathBuf,
    /// The firmware that the document is about. Default: the file beside it that its `url` ends with.
    #[arg(long, value_name = "FILE")]
    artifact: Option<PathBuf>,
    /// The version to record, where the firmware itself is given.
    #[arg(long)]
    version: Option<String>,
}

pub async fn run(
    order: &Order,
    settings: &Settings,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<ExitCode> {
    let (document, artifact) = order.understand()?;
    let rules = Rules { local_artifact: artifact, ..settings.rules() };
    let operation = match Operation::parse(&document, &rules) {
        Ok(parsed) => {
            for warning in parsed.warnings {
                tracing::warn!("{warning}");
            }
            parsed.operation
        }
        Err(error) => return say(&Outcome::from(&error)),
    };
    // Whoever stands before the device has chosen the time. The hook may still know better.
    let policy = Policy { windows: Vec::new(), ..settings.policy.clone() };
    let mut host = Hands::own(settings).dispatcher(settings, rules, policy)?;
    // What a job has begun is not ours to end, nor what is on trial after a reboot.
    match host.after_start().await? {
        AfterStart::Clean => {}
        AfterStart::AskCloud if host.entry().is_some_and(|entry| entry.execution.is_local()) => {}
        _ => bail!("{} is unfinished on this device: let `fleethand run` end it first", unfinished(&host)),
    }
    host.abandon().await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    host.accept(&ExecutionId::local(now))?;

    let halt = Halt::default();
    let (progress, says) = watch::channel(Progress::phase("starting"));
    let (fresh_document, _) = mpsc::channel(1);
    // There is no cloud to be reached. A trial after a reboot is the agent's, which reaches it.
    let (_, connected) = watch::channel(true);
    let context = Context { progress, fresh_document, connected, halt: halt.clone() };
    let mut chosen = says.clone();
    let chosen = async move {
        let waits = |progress: &Progress| progress.wait.is_some_and(|wait| wait.until == Until::NextReboot);
        if chosen.wait_for(waits).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let ended = {
        let work = host.run(&operation, &context);
        tokio::pin!(work, stop, chosen);
        let bar = show(says);
        tokio::pin!(bar);
        tokio::select! {
            ended = &mut work => ended,
            () = &mut bar => work.await,
            () = &mut chosen => {
                halt.stop();
                work.await
            }
            () = &mut stop => {
                // With a reboot under way this is the system that goes down; else somebody has changed their mind.
                halt_by(&context, &halt);
                work.await
            }
        }
    };
    match ended {
        Ended::Outcome(outcome) => {
            host.settled();
            say(&outcome)
        }
        Ended::Rebooting => say(&Outcome::succeeded("rebooting", "the agent goes on after the start")),
        Ended::Halted(HaltKind::Stop) => say(&Outcome::succeeded(
            "rebooting",
            "it is chosen for the next boot, and the agent goes on after that",
        )),
        Ended::Halted(_) => say(&Outcome::failed("canceled", "it was interrupted, and undone")),
    }
}

fn halt_by(context: &Context, halt: &Halt) {
    if context.progress.borrow().phase == "rebooting" { halt.stop() } else { halt.cancel() }
}

fn unfinished(host: &Host) -> String {
    match host.entry() {
        Some(entry) if matches!(entry.phase, Phase::Reporting { .. }) => {
            format!("the report of job {}", entry.execution)
        }
        Some(entry) => format!("job {}", entry.execution),
        None => "something".to_owned(),
    }
}

impl Order {
    /// The document, and where its artifact is.
    fn understand(&self) -> anyhow::Result<(Value, Option<PathBuf>)> {
        match self.document()? {
            Some(mut document) => {
                if self.version.is_some() {
                    bail!("--version is for firmware that is given without a document: this one has its own");
                }
                let artifact = match (&self.artifact, document.get("url").and_then(Value::as_str)) {
                    (Some(artifact), _) => Some(artifact.clone()),
                    (None, Some(url)) => Some(beside(&self.file, url)),
                    (None, None) => None,
                };
                if let (Some(_), Some(members)) = (&artifact, document.as_object_mut()) {
                    // On a stick there need not be any.
                    members.entry("url").or_insert_with(|| json!("local"));
                }
                Ok((document, artifact))
            }
            None => {
                if self.artifact.is_some() {
                    bail!("{} is not a job document, so --artifact has no meaning", self.file.display());
                }
                let version = self.version.as_ref().context("firmware without a document needs --version")?;
                let digest = Digest::of_file(&self.file)
                    .with_context(|| format!("cannot read {}", self.file.display()))?;
                let document = json!({
                    "operation": "update-firmware", "url": "local", "version": version,
                    "checksum": digest.to_string(),
                });
                Ok((document, Some(self.file.clone())))
            }
        }
    }

    /// What begins with `{` and is small is a document, and then must be one.
    fn document(&self) -> anyhow::Result<Option<Value>> {
        use std::io::Read;
        let mut text = Vec::new();
        let read = std::fs::File::open(&self.file)
            .and_then(|file| file.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut text));
        read.with_context(|| format!("cannot read {}", self.file.display()))?;
        let looks_like_one = text.trim_ascii_start().starts_with(b"{");
        if !looks_like_one || text.len() as u64 > MAX_DOCUMENT_BYTES {
            return Ok(None);
        }
        let document = serde_json::from_slice(&text);
        document.map(Some).with_context(|| format!("{} is not JSON", self.file.display()))
    }
}

/// The last part of a URL's path, in the document's folder. The presign placeholder ends with a brace.
fn beside(document: &Path, url: &str) -> PathBuf {
    let path = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('}');
    let name = path.rsplit('/').next().unwrap_or_default();
    document.with_file_name(name)
}

/// Never returns.
async fn show(mut says: watch::Receiver<Progress>) {
    let bar = progress_bar();
    let mut phase = "";
    while says.changed().await.is_ok() {
        let progress = *says.borrow_and_update();
        if progress.phase != phase {
            phase = progress.phase;
            bar.println(phase);
        }
        if let Some(total) = progress.total {
            bar.set_length(total);
            bar.set_position(progress.done);
        }
    }
    std::future::pending::<()>().await;
}

fn say(outcome: &Outcome) -> anyhow::Result<ExitCode> {
    let word = match outcome.verdict {
        Verdict::Succeeded => "succeeded",
        Verdict::Failed => "failed",
        Verdict::Rejected => "rejected",
    };
    writeln!(std::io::stdout(), "{word}: {}: {}", outcome.reason, outcome.message)?;
    Ok(if outcome.verdict == Verdict::Succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_artifact_is_beside_its_document() {
        let cases = [
            ("https://host/a/fw-2.bin", "/stick/fw-2.bin"),
            ("https://host/fw-2.bin?X-Amz-Signature=s#x", "/stick/fw-2.bin"),
            (
                "${aws:iot:s3-presigned-url:https://s3.eu-west-1.amazonaws.com/B/k/fw-2.bin}",
                "/stick/fw-2.bin",
            ),
            ("fw-2.bin", "/stick/fw-2.bin"),
        ];
        for (url, expected) in cases {
            assert_eq!(beside(Path::new("/stick/job.json"), url), Path::new(expected), "{url}");
        }
    }
}

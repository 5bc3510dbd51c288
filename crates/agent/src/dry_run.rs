//! What a job would do on this device, in words or as JSON. Nothing is changed, nothing is reported.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use connection::{Connection, Event};
use device::Step;
use dispatcher::{Operation, Outcome, UpdateFirmware, Verdict, describe};
use downloader::{Downloader, Resume, Staging};
use jobs::{Action, ExecutionKey, Session, StatusUpdate};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::report;

/// AWS takes no larger document.
const MAX_DOCUMENT_BYTES: u64 = 32 * 1024;

/// What would happen, ready to be shown.
struct Description {
    operation: Option<&'static str>,
    warnings: Vec<String>,
    steps: Vec<Step>,
    updates: Vec<StatusUpdate>,
    outcome: Outcome,
}

pub async fn document(
    path: &Path,
    settings: &Settings,
    download: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let text = match read(path) {
        Ok(text) => text,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "fleethand: {}: {error}", path.display());
            return Ok(ExitCode::from(2));
        }
    };
    let document = serde_json::from_slice(&text);
    let mut description = match document {
        Ok(document) => understand(&document, settings).await,
        Err(error) => {
            Description::rejected(Outcome::rejected("invalid-document", format!("not JSON: {error}")))
        }
    };
    if let (true, Ok(document)) = (download, serde_json::from_slice(&text)) {
        description.download(&document, settings).await;
    }
    let mut stdout = std::io::stdout().lock();
    if json {
        writeln!(stdout, "{:#}", description.json())?;
    } else {
        write!(stdout, "{}", description.text())?;
    }
    let succeeds = description.outcome.verdict == Verdict::Succeeded;
    Ok(if succeeds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Listens to the real queue. Executions are only looked at: no update is ever published.
pub async fn listen(
    settings: &Settings,
    tls: Arc<rustls::ClientConfig>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut link = Connection::start(settings.link(tls));
    let mut session = Session::new(settings.session(), fastrand::u64(..));
    let mut described: Option<ExecutionKey> = None;
    tokio::pin!(stop);
    loop {
        let now = Instant::now();
        while let Some(action) = session.poll_action() {
            match action {
                Action::Publish { topic, payload } => {
                    let _ = link.publish(topic, payload);
                }
                Action::Offer(execution) => {
                    let key = execution.key();
                    session.pass(now, &key);
                    if described.as_ref() == Some(&key) {
                        continue;
                    }
                    let document = execution.document.unwrap_or_default();
                    let description = understand(&document, settings).await;
                    let mut stdout = std::io::stdout().lock();
                    write!(
                        stdout,
                        "job {}, execution {}:\n{}",
                        key.job_id,
                        key.execution_number,
                        description.text()
                    )?;
                    described = Some(key);
                }
                _ => {}
            }
        }
        let due = session.deadline();
        let time = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            event = link.next() => Some(event),
            () = time => None,
            () = &mut stop => break,
        };
        let now = Instant::now();
        match event {
            Some(Event::Connected) => session.connected(now),
            Some(Event::Disconnected { cause, .. }) => {
                tracing::warn!(%cause, "not connected");
                session.disconnected(now);
            }
            Some(Event::Message { topic, payload }) => session.message(now, &topic, &payload),
            None => session.tick(now),
        }
    }
    link.stop().await;
    Ok(())
}

pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut text)?;
    } else {
        std::fs::File::open(path)?.take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut text)?;
    }
    if text.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(std::io::Error::other(format!(
            "more than the {MAX_DOCUMENT_BYTES} bytes that AWS IoT takes"
        )));
    }
    Ok(text)
}

async fn understand(document: &Value, settings: &Settings) -> Description {
    let parsed = match Operation::parse(document, &settings.rules()) {
        Ok(parsed) => parsed,
        Err(error) => return Description::rejected(Outcome::from(&error)),
    };
    let (steps, outcome) = describe(&parsed.operation, &settings.host, &settings.policy).await;
    let updates = vec![
        report::starting(&parsed.operation, "the boot id", settings.step_timeout),
        report::terminal(&outcome),
    ];
    Description {
        operation: Some(parsed.operation.name()),
        warnings: parsed.warnings,
        steps,
        updates,
        outcome,
    }
}

impl Description {
    fn rejected(outcome: Outcome) -> Self {
        let updates = vec![report::terminal(&outcome)];
        Self { operation: None, warnings: Vec::new(), steps: Vec::new(), updates, outcome }
    }

    /// The transfer for real, into a file that is gone afterwards.
    async fn download(&mut self, document: &Value, settings: &Settings) {
        let parsed = Operation::parse(document, &settings.rules()).map(|parsed| parsed.operation);
        let (Ok(Operation::UpdateFirmware(update)), Verdict::Succeeded) = (parsed, self.outcome.verdict)
        else {
            return;
        };
        match fetch(&update, settings).await {
            Ok(bytes) => {
                let text = format!("fetched {bytes} bytes and verified them: {}", update.artifact.digest);
                self.steps.push(Step { phase: "verified", text });
            }
            Err(outcome) => {
                self.updates.pop();
                self.updates.push(report::terminal(&outcome));
                self.outcome = outcome;
            }
        }
    }

    fn text(&self) -> String {
        let mut text = format!("operation: {}\n", self.operation.unwrap_or("not understood"));
        for warning in &self.warnings {
            text += &format!("warning: {warning}\n");
        }
        for Step { phase, text: step } in &self.steps {
            text += &format!("  {phase:<12} {step}\n");
        }
        text += "status updates that would be sent:\n";
        for update in &self.updates {
            let details: Vec<_> =
                update.details.iter().map(|(key, value)| format!("{key}={value}")).collect();
            text += &format!("  {:<12} {}\n", status(update), details.join(", "));
        }
        let would = if self.outcome.verdict == Verdict::Succeeded { "succeed" } else { "fail" };
        text + &format!("would {would}: {}: {}\n", self.outcome.reason, self.outcome.message)
    }

    fn json(&self) -> Value {
        json!({
            "operation": self.operation,
            "warnings": self.warnings,
            "steps": self.steps.iter().map(|s| json!({"phase": s.phase, "text": s.text})).collect::<Vec<_>>(),
            "updates": self.updates.iter()
                .map(|u| json!({"status": status(u), "statusDetails": u.details}))
                .collect::<Vec<_>>(),
            "wouldSucceed": self.outcome.verdict == Verdict::Succeeded,
            "reason": self.outcome.reason,
            "message": self.outcome.message,
        })
    }
}

fn status(update: &StatusUpdate) -> String {
    serde_json::to_value(update.status).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

async fn fetch(update: &UpdateFirmware, settings: &Settings) -> Result<u64, Outcome> {
    let failed = |reason: &str, error: &dyn std::fmt::Display| Outcome::failed(reason, error.to_string());
    // Where a real update would be staged: the same file system, and so the same space.
    let firmware = settings.host.firmware.as_ref();
    let folder = firmware.and_then(|firmware| firmware.target.staging_folder());
    let folder = folder.unwrap_or(&settings.host.state_directory);
    let folder = tempfile::Builder::new()
        .prefix(".fleethand-dry-run-")
        .tempdir_in(folder)
        .map_err(|error| failed("storage-error", &error))?;
    let artifact = &update.artifact;
    let mut staging = Staging::create(&folder.path().join("firmware"), artifact.digest, artifact.size)
        .map_err(|error| failed(error.reason(), &error))?;
    let bar = progress_bar();
    let mut progress = |progress: downloader::Progress| {
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_position(progress.received);
    };
    let fetched = Downloader::new(settings.download.clone())
        .fetch(artifact, &mut Resume::default(), &mut staging, &mut progress, &CancellationToken::new())
        .await;
    bar.finish_and_clear();
    fetched.map_err(|error| failed(error.reason(), &error))?;
    let verified = staging.finish().await.map_err(|error| failed(error.reason(), &error))?;
    Ok(verified.len())
}

pub fn progress_bar() -> indicatif::ProgressBar {
    if !std::io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let style =
        indicatif::ProgressStyle::with_template("{bytes}/{total_bytes} {wide_bar} {bytes_per_sec} {eta}");
    match style {
        Ok(style) => indicatif::ProgressBar::new(0).with_style(style),
        Err(_) => indicatif::ProgressBar::new(0),
    }
}

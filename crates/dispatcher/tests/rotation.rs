#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
//! What becomes of a rotation that is interrupted, told by whose certificate is in force.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use device::{CommandSpec, Halt, HaltKind, HostDevice, HostSettings, RebootSpec};
use dispatcher::policy::Policy;
use dispatcher::{
    AfterStart, Context, Dispatcher, Ended, ExecutionId, Identity, Journal, Operation, Outcome, Progress,
    Renewing, RotateCertificate, Rules,
};
use downloader::Downloader;
use serde_json::json;
use tokio::sync::{mpsc, watch};

#[derive(Default)]
struct Seen {
    in_force: Cell<bool>,
    discarded: Cell<u32>,
}

/// Comes to its end at once, or never; in force or not, as the test says.
struct Scripted {
    seen: Rc<Seen>,
    outcome: Option<Outcome>,
}

impl Identity for Scripted {
    fn renewed_for(&self, execution: &ExecutionId) -> bool {
        self.seen.in_force.get() && *execution == id()
    }

    fn renew<'a>(&'a mut self, _: &'a RotateCertificate, _: &'a ExecutionId) -> Renewing<'a> {
        Box::pin(async move {
            match self.outcome.clone() {
                Some(outcome) => outcome,
                None => std::future::pending().await,
            }
        })
    }

    fn discard(&mut self) {
        self.seen.discarded.set(self.seen.discarded.get() + 1);
    }
}

fn id() -> ExecutionId {
    ExecutionId { job_id: "job".into(), execution_number: 1, queued_at: 1_700_000_000 }
}

fn dispatcher(folder: &Path, seen: &Rc<Seen>, outcome: Option<Outcome>) -> Dispatcher<HostDevice> {
    std::fs::write(folder.join("boot_id"), "boot-1\n").unwrap();
    let command = CommandSpec { program: "false".into(), arguments: vec![], timeout: Duration::from_secs(1) };
    let device = HostDevice::new(HostSettings {
        state_directory: folder.to_owned(),
        firmware: None,
        configs: Default::default(),
        reboot: RebootSpec { command, boot_id_file: folder.join("boot_id") },
        holds: Default::default(),
        hook: None,
        trust: None,
        compatible: Vec::new(),
    });
    let downloader = Downloader::new(downloader::Settings::default());
    let journal = Journal::in_folder(folder);
    let opened = Dispatcher::open(device, downloader, Rules::default(), Policy::default(), journal);
    opened.unwrap().0.with_identity(Box::new(Scripted { seen: Rc::clone(seen), outcome }))
}

fn context(halt: &Halt) -> Context {
    let (progress, _) = watch::channel(Progress::phase("starting"));
    let (fresh_document, _) = mpsc::channel(1);
    let (_, connected) = watch::channel(true);
    Context { progress, fresh_document, connected, halt: halt.clone() }
}

fn rotation() -> Operation {
    Operation::parse(&json!({"operation": "rotate-certificate"}), &Rules::default()).unwrap().operation
}

fn rotated() -> Outcome {
    Outcome::succeeded("rotated", "the new certificate is in force")
}

#[tokio::test]
async fn how_it_ended_is_the_outcome() {
    for outcome in [rotated(), Outcome::failed("provisioning-rejected", "no")] {
        let (folder, seen) = (tempfile::tempdir().unwrap(), Rc::default());
        let mut host = dispatcher(folder.path(), &seen, Some(outcome.clone()));
        host.accept(&id()).unwrap();
        let ended = host.run(&rotation(), &context(&Halt::default())).await;
        assert_eq!(ended, Ended::Outcome(outcome));
    }
}

/// However often the agent ended on the way: it looks at what is in force, and at nothing else.
#[tokio::test]
async fn what_is_in_force_for_this_execution_is_its_success() {
    let (folder, seen) = (tempfile::tempdir().unwrap(), Rc::<Seen>::default());
    for _ in 0..3 {
        let mut host = dispatcher(folder.path(), &seen, None);
        assert!(matches!(host.after_start().await.unwrap(), AfterStart::Clean | AfterStart::AskCloud));
        host.accept(&id()).unwrap();
    }
    let crashed = dispatcher(folder.path(), &seen, None).after_start().await.unwrap();
    let AfterStart::Report(outcome) = crashed else { panic!("{crashed:?}") };
    assert_eq!(outcome.reason, "agent-crashed");
    seen.in_force.set(true);
    let mut host = dispatcher(folder.path(), &seen, None);
    assert_eq!(host.after_start().await.unwrap(), AfterStart::Report(rotated()));
    // And where the journal is lost, when it is offered again.
    host.accept(&id()).unwrap();
    assert_eq!(host.run(&rotation(), &context(&Halt::default())).await, Ended::Outcome(rotated()));
    // Another execution has its own to do.
    host.settled();
    host.accept(&ExecutionId { execution_number: 2, ..id() }).unwrap();
    let halt = Halt::default();
    halt.stop();
    assert_eq!(host.run(&rotation(), &context(&halt)).await, Ended::Halted(HaltKind::Stop));
}

#[tokio::test]
async fn what_was_obtained_is_kept_for_a_restart_and_for_nothing_else() {
    type Order = fn(&Halt);
    let cases: [(Order, u32, bool); 3] =
        [(Halt::stop, 0, false), (Halt::cancel, 1, false), (Halt::expire, 1, true)];
    for (order, discarded, reports) in cases {
        let (folder, seen) = (tempfile::tempdir().unwrap(), Rc::<Seen>::default());
        let mut host = dispatcher(folder.path(), &seen, None);
        host.accept(&id()).unwrap();
        let halt = Halt::default();
        let context = context(&halt);
        let operation = rotation();
        let (ended, ()) = tokio::join!(host.run(&operation, &context), async { order(&halt) });
        assert_eq!(seen.discarded.get(), discarded, "{ended:?}");
        match ended {
            Ended::Outcome(outcome) => assert_eq!((outcome.reason.as_str(), reports), ("timeout", true)),
            other => assert!(!reports, "{other:?}"),
        }
    }
}

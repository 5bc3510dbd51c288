//! An installer of the product's own. It is given the verified file, and tells by its exit code how it went; what it
//! does with the file, and how it goes back, only it knows. Its verbs and exit codes are documented in
//! `docs/targets.md`.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::command::{self, CommandFailure, CommandSpec};
use crate::device::{Before, Change, Effect, Order, Percent, RolledBack, Step, Target};
use crate::error::DeviceError;
use crate::place::{Place, Stage};
use crate::staged::StagedFile;
use crate::storage::free_space;
use crate::{Halt, Installed};

/// Of `install` and `rollback`: done, and in force after a reboot.
const AFTER_REBOOT: i32 = 10;
/// Of `install`: refused, and nothing was changed. Of `check`: what was before runs.
const NO: i32 = 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallerTarget {
    /// A verb comes after its arguments.
    pub command: CommandSpec,
    pub staging: PathBuf,
}

pub(crate) struct InstallerPlace {
    command: CommandSpec,
    staged: StagedFile,
    /// The installer has said that it changed nothing: there is nothing to roll back.
    refused: bool,
}

impl InstallerPlace {
    pub(crate) fn new(settings: InstallerTarget) -> Self {
        let staged = StagedFile::in_private_folder(Target::Firmware, &settings.staging);
        Self { command: settings.command, staged, refused: false }
    }

    fn with_verb(&self, verb: &[&str]) -> CommandSpec {
        let mut spec = self.command.clone();
        spec.arguments.extend(verb.iter().map(|&word| word.to_owned()));
        spec
    }

    async fn run(
        &self,
        verb: &[&str],
        firmware: Option<&Installed>,
        halt: &Halt,
        stdout: &mut dyn FnMut(&[u8]),
    ) -> Result<(), CommandFailure> {
        let checksum = firmware.map(|firmware| firmware.digest.to_string()).unwrap_or_default();
        let environment = [
            ("FLEETHAND_VERSION", firmware.map_or("", |firmware| &firmware.version)),
            ("FLEETHAND_CHECKSUM", &checksum),
        ];
        command::run_watched(&self.with_verb(verb), &environment, halt, stdout).await
    }
}

#[async_trait(?Send)]
impl Place for InstallerPlace {
    fn stage(&mut self) -> &mut dyn Stage {
        &mut self.staged
    }

    async fn before(&mut self) -> Result<Before, DeviceError> {
        Ok(Before::Installer)
    }

    async fn admit(&mut self, _: &Order) -> Result<(), DeviceError> {
        Ok(())
    }

    async fn plan(&mut self, order: &Order) -> Result<Vec<Step>, DeviceError> {
        let free = free_space(self.staged.path())?;
        if let Some(needed) = order.size.filter(|size| *size > free) {
            return Err(downloader::SinkError::NoSpace { needed, available: free }.into());
        }
        let staged = self.staged.path().display().to_string();
        let compare = format!("{staged} is read back and compared with {}", order.digest);
        Ok(vec![
            Step::new("verifying", compare),
            Step::new("installing", format!("run {}", self.with_verb(&["install", &staged]))),
            Step::new("rebooting", format!("if it ends with exit code {AFTER_REBOOT}: reboot")),
            Step::new("confirming", format!("run {}: does it run?", self.with_verb(&["check"]))),
            Step::new("confirming", format!("if all is well: run {}", self.with_verb(&["confirm"]))),
            Step::new("rolling-back", format!("otherwise: run {}", self.with_verb(&["rollback"]))),
        ])
    }

    async fn holds(&mut self, installed: &Installed, _: Option<&str>) -> Result<bool, DeviceError> {
        match self.run(&["check"], Some(installed), &Halt::default(), &mut |_| {}).await {
            Ok(()) => Ok(true),
            // Whatever it means by that: it does not say that it runs.
            Err(CommandFailure::Exit { .. }) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn activate(
        &mut self,
        change: &Change,
        halt: &Halt,
        percent: &Percent,
    ) -> Result<Effect, DeviceError> {
        self.refused = false;
        let Some(artifact) = self.staged.take_verified(change.digest).await? else {
            return Err(DeviceError::Lost(Target::Firmware));
        };
        let file = artifact.path().to_string_lossy();
        let mut lines = ProgressLines::default();
        let mut stdout = |bytes: &[u8]| {
            if let Some(latest) = lines.take(bytes) {
                percent.send_replace(latest);
            }
        };
        match self.run(&["install", &file], change.commit.as_ref(), halt, &mut stdout).await {
            Ok(()) => Ok(Effect::Now),
            Err(CommandFailure::Exit { code: AFTER_REBOOT, .. }) => Ok(Effect::Reboot),
            Err(refusal @ CommandFailure::Exit { code: NO, .. }) => {
                self.refused = true;
                Err(DeviceError::InstallerRefused(refusal))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    async fn take_up(&mut self, change: &Change, halt: &Halt) -> Result<(), DeviceError> {
        match self.run(&["check"], change.commit.as_ref(), halt, &mut |_| {}).await {
            Ok(()) => Ok(()),
            Err(no @ CommandFailure::Exit { code: NO, .. }) => Err(DeviceError::FellBack(no)),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn mark_good(&mut self, change: &Change) -> Result<(), DeviceError> {
        Ok(self.run(&["confirm"], change.commit.as_ref(), &Halt::default(), &mut |_| {}).await?)
    }

    async fn roll_back(&mut self, change: &Change) -> Result<RolledBack, DeviceError> {
        let back = |effect| Ok(RolledBack { effect, remark: None });
        if self.refused {
            return back(Effect::Now);
        }
        // Its own halt: what stops the operation must not stop the system from going back.
        match self.run(&["rollback"], change.commit.as_ref(), &Halt::default(), &mut |_| {}).await {
            Ok(()) => back(Effect::Now),
            Err(CommandFailure::Exit { code: AFTER_REBOOT, .. }) => back(Effect::Reboot),
            Err(failure) => Err(failure.into()),
        }
    }
}

/// Finds the lines `progress 42` in what an installer prints. Whatever it prints, this stays small.
#[derive(Default)]
struct ProgressLines {
    /// The beginning of one, up to a byte more than what is understood.
    line: Vec<u8>,
}

impl ProgressLines {
    const LONGEST: usize = "progress 100\r".len();

    /// The latest that is in these bytes.
    fn take(&mut self, bytes: &[u8]) -> Option<u8> {
        let mut latest = None;
        for &byte in bytes {
            if byte == b'\n' {
                if self.line.len() <= Self::LONGEST {
                    latest = percent(&self.line).or(latest);
                }
                self.line.clear();
            } else if self.line.len() <= Self::LONGEST {
                self.line.push(byte);
            }
        }
        latest
    }
}

fn percent(line: &[u8]) -> Option<u8> {
    let number = std::str::from_utf8(line).ok()?.strip_prefix("progress ")?;
    number.trim_end().parse().ok().filter(|percent| *percent <= 100)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use downloader::Digest;
    use tokio::sync::watch;

    use super::*;

    const NEW: &[u8] = b"the new firmware";

    #[test]
    fn progress_lines_are_found_in_whatever_pieces_they_come() {
        let cases = [
            ("progress 42\n", Some(42)),
            ("progress 1\nprogress 2\n", Some(2)),
            ("writing\nprogress 7\r\nstill writing\n", Some(7)),
            ("progress 100\n", Some(100)),
            ("progress 101\n", None),
            ("progress -1\n", None),
            ("progress 42", None),
            ("xprogress 42\n", None),
            ("progress 42 of 100\n", None),
            ("progress 00000000000000000042\n", None),
            ("progress \n", None),
        ];
        for (text, expected) in cases {
            assert_eq!(ProgressLines::default().take(text.as_bytes()), expected, "{text:?}");
            let mut lines = ProgressLines::default();
            let bytewise = text.bytes().filter_map(|byte| lines.take(&[byte])).last();
            assert_eq!(bytewise, expected, "{text:?}, byte by byte");
        }
        let mut lines = ProgressLines::default();
        assert_eq!(lines.take(&[b'x'; 100_000]), None);
        assert!(lines.line.len() < 100, "a line without end is not kept");
    }

    /// An installer that appends to `calls` what it is called with, and then does `script`.
    struct Bench {
        folder: tempfile::TempDir,
        place: InstallerPlace,
        change: Change,
    }

    impl Bench {
        async fn new(script: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let calls = folder.path().join("calls");
            let script = format!(
                "echo $1 $FLEETHAND_VERSION ${{FLEETHAND_CHECKSUM%%:*}} >> {}\n{script}",
                calls.display()
            );
            let arguments = ["-c", &script, "installer"].map(str::to_owned).to_vec();
            let command =
                CommandSpec { program: "/bin/sh".into(), arguments, timeout: Duration::from_secs(1) };
            let staging = folder.path().join("staging");
            let mut place = InstallerPlace::new(InstallerTarget { command, staging });
            let (digest, version) = (Digest::of_bytes(NEW), "2.0".to_owned());
            let order = Order {
                compression: crate::Compression::None,
                target: Target::Firmware,
                digest,
                size: Some(NEW.len() as u64),
                version: Some(version.clone()),
                release: None,
                activate: crate::When::Now,
            };
            let stage = place.stage();
            assert_eq!(stage.begin(&order).await.unwrap(), 0);
            stage.write(Bytes::from_static(NEW)).await.unwrap();
            stage.finish().await.unwrap();
            let commit = Some(Installed { version, digest, sequence: None });
            let before = place.before().await.unwrap();
            Self { folder, place, change: Change { target: Target::Firmware, digest, before, commit } }
        }

        async fn activate(&mut self) -> Result<Effect, DeviceError> {
            let (percent, _) = watch::channel(0);
            self.place.activate(&self.change, &Halt::default(), &percent).await
        }

        fn calls(&self) -> String {
            std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default()
        }
    }

    #[tokio::test]
    async fn every_way_in_which_install_can_end() {
        let cases = [
            ("exit 0", "now"),
            ("exit 10", "after a reboot"),
            ("echo no such board; exit 20", "installer-refused"),
            ("exit 1", "command-failed"),
            ("exit 127", "command-failed"),
            ("kill -KILL $$", "command-killed"),
            ("sleep 1000", "command-timeout"),
            ("yes", "command-output-overrun"),
        ];
        for (script, expected) in cases {
            let mut bench = Bench::new(script).await;
            let activated = bench.activate().await;
            let found = match &activated {
                Ok(Effect::Now) => "now",
                Ok(Effect::Reboot) => "after a reboot",
                Err(error) => error.reason(),
            };
            assert_eq!(found, expected, "{script}");
            assert_eq!(bench.calls(), "install 2.0 sha256\n", "{script}");
        }
    }

    #[tokio::test]
    async fn what_was_refused_is_not_rolled_back_and_everything_else_is() {
        for (script, calls) in [("exit 20", "install\n"), ("exit 1", "install\nrollback\n")] {
            let mut bench = Bench::new(script).await;
            assert!(bench.activate().await.is_err());
            let _ = bench.place.roll_back(&bench.change).await;
            assert_eq!(bench.calls().replace(" 2.0 sha256", ""), calls, "{script}");
        }
    }

    #[tokio::test]
    async fn the_exit_codes_of_the_other_verbs() {
        let effect = |rolled_back: Result<RolledBack, DeviceError>| rolled_back.map(|back| back.effect);
        let mut bench = Bench::new("exit 0").await;
        let (change, halt) = (bench.change.clone(), Halt::default());
        let installed = change.commit.clone().unwrap();
        assert_eq!(effect(bench.place.roll_back(&change).await).unwrap(), Effect::Now);
        assert!(bench.place.holds(&installed, None).await.unwrap());
        bench.place.take_up(&change, &halt).await.unwrap();
        bench.place.mark_good(&change).await.unwrap();

        let mut bench = Bench::new("exit 10").await;
        assert_eq!(effect(bench.place.roll_back(&change).await).unwrap(), Effect::Reboot);
        assert!(!bench.place.holds(&installed, None).await.unwrap());
        let failed = bench.place.take_up(&change, &halt).await.unwrap_err();
        assert_eq!(failed.reason(), "command-failed");
        assert!(bench.place.mark_good(&change).await.is_err());

        let mut bench = Bench::new("exit 20").await;
        assert!(bench.place.roll_back(&change).await.is_err());
        assert!(!bench.place.holds(&installed, None).await.unwrap());
        let fell_back = bench.place.take_up(&change, &halt).await.unwrap_err();
        assert_eq!(fell_back.reason(), "bootloader-rolled-back");

        let mut bench = Bench::new("kill -KILL $$").await;
        // It cannot be told: that is neither yes nor no.
        assert!(bench.place.holds(&installed, None).await.is_err());
    }

    #[tokio::test]
    async fn the_file_is_there_as_it_was_verified_and_is_read_again_after_a_restart() {
        let mut bench = Bench::new("cmp $2 new && test $(stat -c %a $2) = 600").await;
        let new = bench.folder.path().join("new");
        std::fs::write(&new, NEW).unwrap();
        let script = &mut bench.place.command.arguments[1];
        *script = script.replace("cmp $2 new", &format!("cmp $2 {}", new.display()));
        assert_eq!(bench.activate().await.unwrap(), Effect::Now);

        let staging = bench.folder.path().join("staging");
        let command = bench.place.command.clone();
        bench.place = InstallerPlace::new(InstallerTarget { command, staging: staging.clone() });
        assert_eq!(bench.activate().await.unwrap(), Effect::Now);
        std::fs::write(staging.join("firmware.staged"), "something else").unwrap();
        assert_eq!(bench.activate().await.unwrap_err().reason(), "checksum-mismatch");
        bench.place.stage().discard().await.unwrap();
        assert_eq!(bench.activate().await.unwrap_err().reason(), "storage-error");
        assert_eq!(bench.calls(), "install 2.0 sha256\n".repeat(2));
    }

    #[tokio::test]
    async fn progress_is_passed_on() {
        let mut bench = Bench::new("echo progress 42").await;
        let (percent, says) = watch::channel(0);
        bench.place.activate(&bench.change, &Halt::default(), &percent).await.unwrap();
        assert_eq!(*says.borrow(), 42);
    }
}

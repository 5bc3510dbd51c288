//! The bootloader: which slot runs, which one boots next, and for how long it may try.

mod command;
mod grub;
mod u_boot;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use crate::command::{CommandSpec, answer};
use crate::error::DeviceError;
use crate::storage::read_bounded;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSettings {
    pub kind: BootloaderKind,
    pub booted: Booted,
    /// For each run of a program of the bootloader's.
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootloaderKind {
    Grub {
        editenv: String,
        env: PathBuf,
        tries: u64,
    },
    UBoot {
        printenv: String,
        setenv: String,
        config: Option<PathBuf>,
        tries: u64,
    },
    /// A program of the user's, with the verbs of `docs/targets.md`.
    Command {
        program: String,
        arguments: Vec<String>,
    },
}

/// What tells which slot runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Booted {
    /// A parameter that the bootloader gave the kernel, in `/proc/cmdline` except where a device is simulated.
    Cmdline { file: PathBuf, parameter: String },
    /// The command's verb `booted`.
    Command,
}

/// Each call is whole or has not happened, also over a power cut, as far as the bootloader's storage allows, and is on
/// disk when it returns.
#[async_trait(?Send)]
pub(crate) trait Bootloader {
    /// `slot` is about to be overwritten, and `running` boots whatever happens. An error if that cannot be had.
    async fn mark_bad(&self, slot: &str, running: &str) -> Result<(), DeviceError>;
    /// `slot` boots next, a few times at most; `running` after that.
    async fn try_next(&self, slot: &str, running: &str) -> Result<(), DeviceError>;
    /// `slot` boots from now on.
    async fn mark_good(&self, slot: &str) -> Result<(), DeviceError>;
    /// The slot that runs, where the bootloader is the one to ask.
    async fn booted(&self) -> Result<String, DeviceError> {
        Err(DeviceError::SlotUnknown("this bootloader does not tell it".to_owned()))
    }
    /// What `try_next` does, in words.
    fn describe(&self, slot: &str) -> String;
}

impl BootSettings {
    /// `scratch` is a folder for what is gone after each call.
    pub(crate) fn bootloader(&self, scratch: &Path) -> Box<dyn Bootloader> {
        let timeout = self.timeout;
        let run = move |program: &str, arguments: Vec<String>| CommandSpec {
            program: program.to_owned(),
            arguments,
            timeout,
        };
        match &self.kind {
            BootloaderKind::Grub { editenv, env, tries } => Box::new(grub::Grub {
                editenv: run(editenv, Vec::new()),
                env: env.clone(),
                copy: scratch.join("grubenv.new"),
                tries: *tries,
            }),
            BootloaderKind::UBoot { printenv, setenv, config, tries } => {
                let config = config.iter().flat_map(|file| ["-c".into(), file.display().to_string()]);
                let config: Vec<_> = config.collect();
                Box::new(u_boot::UBoot {
                    printenv: run(printenv, config.clone()),
                    setenv: run(setenv, config),
                    script: scratch.join("fw_setenv.script"),
                    tries: *tries,
                })
            }
            BootloaderKind::Command { program, arguments } => {
                Box::new(command::Command(run(program, arguments.clone())))
            }
        }
    }

    pub(crate) async fn booted(&self, bootloader: &dyn Bootloader) -> Result<String, DeviceError> {
        match &self.booted {
            Booted::Command => bootloader.booted().await,
            Booted::Cmdline { file, parameter } => {
                let line = read_bounded(file).map_err(DeviceError::storage("read", file))?;
                let line = String::from_utf8_lossy(&line);
                slot_in(&line, parameter).map_err(|why| {
                    DeviceError::SlotUnknown(format!("{why} in the kernel command line {}", file.display()))
                })
            }
        }
    }
}

/// Two that differ are as good as none.
fn slot_in(line: &str, parameter: &str) -> Result<String, String> {
    let mut values = line.split_ascii_whitespace().filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        (name == parameter).then_some(value)
    });
    let Some(slot) = values.next().filter(|slot| !slot.is_empty()) else {
        return Err(format!("there is no `{parameter}=`"));
    };
    match values.find(|other| *other != slot) {
        Some(other) => Err(format!("there are both `{parameter}={slot}` and `{parameter}={other}`")),
        None => Ok(slot.to_owned()),
    }
}

/// The variables of a bootloader's environment; an empty one is as good as none.
type Variables = BTreeMap<String, String>;
type Assignments = Vec<(String, String)>;

/// `name=value`, one a line.
fn variables(listing: &str) -> Variables {
    let lines = listing.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// What is not so yet: an environment wears out by being written.
fn changes(have: &Variables, want: Assignments) -> Assignments {
    let same = |(name, value): &(String, String)| have.get(name).map_or("", String::as_str) == value;
    want.into_iter().filter(|assignment| !same(assignment)).collect()
}

fn assign<const N: usize>(pairs: [(&str, &str); N]) -> Assignments {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Runs a program of the bootloader's; nothing stops it half-way.
async fn ask<S: Into<String>>(
    spec: &CommandSpec,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, DeviceError> {
    let mut spec = spec.clone();
    spec.arguments.extend(arguments.into_iter().map(Into::into));
    answer(&spec).await.map_err(|failure| DeviceError::Bootloader(failure.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_is_told_by_the_kernel_command_line_or_not_at_all() {
        let cases = [
            ("root=/dev/vda2 ro slot=A quiet\n", Ok("A")),
            ("slot=B", Ok("B")),
            ("slot=A slot=A", Ok("A")),
            ("slot=A slot=B", Err("both `slot=A` and `slot=B`")),
            ("root=/dev/vda2", Err("no `slot=`")),
            ("slot=", Err("no `slot=`")),
            ("slot", Err("no `slot=`")),
            ("rauc.slot=A bootslot=A", Err("no `slot=`")),
            ("", Err("no `slot=`")),
        ];
        for (line, expected) in cases {
            match (slot_in(line, "slot"), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{line}"),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{line}: {found}"),
                (found, _) => panic!("{line}: {found:?}"),
            }
        }
        assert_eq!(slot_in("rauc.slot=A slot=B", "rauc.slot").unwrap(), "A");
    }

    #[test]
    fn only_what_differs_is_written_and_empty_is_unset() {
        let have = variables("good=A\ntry=\nleft=3\nno assignment\n");
        let want = assign([("good", "A"), ("try", ""), ("left", ""), ("rolledback", "")]);
        assert_eq!(changes(&have, want), assign([("left", "")]));
    }
}

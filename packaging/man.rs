//! `PROGRAM man FOLDER`: the man pages and completions of the program's package. Only where it was built with the feature
//! `man`, by `scripts/build-deb`; and it is no subcommand of clap's, so that neither of them mentions it. Each program has
//! this file as a module of its own.

use std::io::Write as _;
use std::path::Path;

use clap_complete::Shell;

/// Writes them if that is what the program was called for.
pub fn asked(command: &clap::Command) -> bool {
    let mut arguments = std::env::args_os().skip(1);
    let Some(folder) = arguments.next().filter(|word| word == "man").and(arguments.next()) else {
        return false;
    };
    if let Err(error) = write(command, Path::new(&folder)) {
        let _ = writeln!(std::io::stderr(), "{}: {error}", folder.display());
        std::process::exit(1);
    }
    true
}

fn write(command: &clap::Command, folder: &Path) -> std::io::Result<()> {
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut command.clone(), command.get_name(), folder)?;
    }
    clap_mangen::generate_to(command.clone(), folder)
}

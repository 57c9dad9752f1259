//! What is made of the command line and of the API for other programs: completions, manual pages, the OpenAPI document.

use super::{Failed, command, output};
use std::path::{Path, PathBuf};

/// Completions of a shell.
#[derive(clap::Args)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

/// A shell with completions.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Shell {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// fish.
    Fish,
}

impl Completions {
    pub fn run(self) -> Result<(), Failed> {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command(), "agentry", &mut script);
        output::data(&String::from_utf8_lossy(&script))
    }
}

/// Manual pages.
#[derive(clap::Args)]
pub struct Man {
    /// The folder that they are written to; it is made if it is missing.
    folder: PathBuf,
}

impl Man {
    pub fn run(self) -> Result<(), Failed> {
        let failed = |error: &dyn std::fmt::Display| {
            Failed::usage(format!("failed to write to {}: {error}; name a folder of yours", self.folder.display()))
        };
        std::fs::create_dir_all(&self.folder).map_err(|error| failed(&error))?;
        let pages = pages(&self.folder).map_err(|error| failed(&error))?;
        output::data(&format!(
            "{pages} pages in {}; read one with: man -l {}/agentry.1",
            self.folder.display(),
            self.folder.display()
        ))
    }
}

/// Writes a page for each command that is shown. Returns their number.
fn pages(folder: &Path) -> std::io::Result<usize> {
    let mut command = command().disable_help_subcommand(true);
    command.build();
    let mut pending = vec![command];
    let mut pages = 0;
    while let Some(command) = pending.pop() {
        pending.extend(command.get_subcommands().filter(|below| !below.is_hide_set()).cloned());
        clap_mangen::Man::new(command).generate_to(folder)?;
        pages += 1;
    }
    Ok(pages)
}

/// The OpenAPI document of the API. No daemon is asked.
#[derive(clap::Args)]
pub struct OpenApi {}

impl OpenApi {
    pub fn run(self) -> Result<(), Failed> {
        output::data(crate::api::document())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        let pages = pages(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), pages);
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("agentry.1").contains("Exit codes"));
        assert!(read("agentry-task-list.1").contains("Examples"));
        assert!(!folder.path().join("agentry-isolate.1").exists(), "it is hidden");
    }

    #[test]
    fn completions_know_every_command_that_is_shown() {
        for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "agentry", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in command().get_subcommands().filter(|c| !c.is_hide_set()).map(clap::Command::get_name) {
                assert!(script.contains(name), "{shell}: {name}");
            }
        }
    }
}

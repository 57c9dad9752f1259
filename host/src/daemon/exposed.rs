//! Files that other users of the machine may read or write although they hold tasks, results or secrets. What this program makes is
//! for its user alone. What exists keeps its mode, since others may need it: the operator is told the command that closes it.

use crate::config::Settings;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What the group and others may do: read, write, enter.
const OF_GROUP_AND_OTHERS: u32 = 0o077;
/// What others may do. A group may have been given a file with secrets on purpose.
const OF_OTHERS: u32 = 0o007;

/// One warning for the data folder, and one for each file with secrets that settings refer to, if it is open to other users. Files
/// within a closed folder are closed. A file or folder that is missing, or cannot be looked at, is none of these.
pub fn warnings(settings: &Settings) -> Vec<String> {
    let folder = open(&settings.data.dir, OF_GROUP_AND_OTHERS).map(|(mode, owner)| {
        let path = settings.data.dir.display();
        format!(
            "the data folder {path} is open to other users (mode {mode:04o}{owner}), and with it inputs and results of tasks; run \
             `chmod -R go= {}`",
            quoted(&settings.data.dir)
        )
    });
    let files = settings.references.files.iter().filter_map(|path| {
        let (mode, owner) = open(path, OF_OTHERS)?;
        Some(format!(
            "{} holds secrets and is open to every user (mode {mode:04o}{owner}); run `chmod o= {}`",
            path.display(),
            quoted(path)
        ))
    });
    folder.into_iter().chain(files).collect()
}

/// Mode and, if it is another, owner of a path that grants one of these rights.
fn open(path: &Path, rights: u32) -> Option<(u32, String)> {
    let found: Metadata = path.metadata().ok()?;
    let mode = found.mode() & 0o7777;
    let is_own = found.uid() == rustix::process::geteuid().as_raw();
    let owner = if is_own { String::new() } else { format!(", owner {}", found.uid()) };
    (mode & rights != 0).then_some((mode, owner))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{FlagValue, Machine, Sources};
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_may_read_is_named_with_the_command_that_closes_it() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let data = at("its data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(at("tokens"), "a full 0123456789abcdef\n").unwrap();
        std::fs::write(at("key"), "secret\n").unwrap();
        let text = "api.tokens_file = \"tokens\"\n[llm.providers.one]\nkind = \"openai\"\nkey = \"${file:key}\"\n";
        std::fs::write(at("agentry.toml"), text).unwrap();
        let dir = FlagValue { key: "data.dir", flag: "--data-dir", values: vec![data.display().to_string()] };
        let sources = Sources {
            file: Some(at("agentry.toml")),
            flags: vec![dir],
            env: Vec::new(),
            cwd: scratch.path().to_owned(),
            machine: Machine::here(),
        };
        let settings = Settings::load(&sources).unwrap();
        let with = |modes: [u32; 3]| {
            for (path, mode) in [&data, &at("tokens"), &at("key")].into_iter().zip(modes) {
                set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
            warnings(&settings)
        };
        assert_eq!(with([0o700, 0o600, 0o640]), Vec::<String>::new(), "a group may have been given a secret");
        let folder = with([0o750, 0o600, 0o600]);
        assert!(folder.len() == 1 && folder[0].contains("mode 0750"), "{folder:?}");
        assert!(folder[0].ends_with(&format!("`chmod -R go= '{}'`", data.display())), "{folder:?}");
        let files = with([0o700, 0o644, 0o604]);
        let closes =
            |name: &str| files.iter().any(|line| line.ends_with(&format!("`chmod o= {}`", at(name).display())));
        assert!(files.len() == 2 && closes("tokens") && closes("key"), "{files:?}");
    }

    #[test]
    fn a_path_is_quoted_where_a_shell_would_split_it() {
        assert_eq!(quoted(Path::new("/var/lib/agentry")), "/var/lib/agentry");
        assert_eq!(quoted(Path::new("/it's")), r"'/it'\''s'");
    }
}

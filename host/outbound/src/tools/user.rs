//! The user that a server runs as, if it is another than the daemon's.
//!
//! The supervisor keeps the daemon's rights and gives the server none of them: it drops its supplementary groups and its ambient
//! capabilities, and the server changes its ids before it is executed. So the server can read neither the daemon's files nor its
//! processes, and cannot end its supervisor.

use rustix::process::{getegid, geteuid};
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Capabilities that it takes to start a program as another user, and to end it: bits of `CapEff` in `/proc/thread-self/status`, and their names
/// (capabilities(7)).
const NEEDED: [(u64, &str); 3] = [(1 << 7, "CAP_SETUID"), (1 << 6, "CAP_SETGID"), (1 << 5, "CAP_KILL")];
/// The same for a folder that is made for that user: it is given away, entered as the daemon's user, and removed. Without these, root itself
/// cannot, as in a container that drops them.
const NEEDED_OF_A_FOLDER: [(u64, &str); 2] = [(1, "CAP_CHOWN"), (1 << 1, "CAP_DAC_OVERRIDE")];

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    ids: Ids,
    /// Its home folder.
    pub(super) home: PathBuf,
    /// It is the daemon's own, so that nothing changes.
    is_own: bool,
}

/// User and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// Rights of this process.
struct Rights {
    user: u32,
    capabilities: u64,
}

impl User {
    /// Looks a user up by name or number. `has_dir`: the operator named a folder to run in.
    ///
    /// # Errors
    /// There is no such user, or this process may not start programs as it; with the remedy.
    pub(super) fn check(name: &str, has_dir: bool) -> Result<User, String> {
        let failed = |error: nix::errno::Errno| format!("the user {name:?} cannot be looked up: {error}");
        let by_number = || match name.parse() {
            Ok(number) => nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(number)).map_err(failed),
            Err(_) => Ok(None),
        };
        let found = match nix::unistd::User::from_name(name).map_err(failed)? {
            Some(found) => Some(found),
            None => by_number()?,
        };
        let Some(found) = found else {
            return Err(format!(
                "there is no user {name:?} on this machine; create it, such as with `useradd --system {name}`, or leave user out"
            ));
        };
        let ids = Ids { user: found.uid.as_raw(), group: found.gid.as_raw() };
        let is_own = ids == Ids { user: geteuid().as_raw(), group: getegid().as_raw() };
        if !is_own {
            Rights::of_this_process().allow(has_dir)?;
        }
        Ok(User { ids, home: found.dir, is_own })
    }

    /// The argument that tells the supervisor whom to start the server as.
    pub(super) fn argument(user: Option<&User>) -> OsString {
        match user.filter(|user| !user.is_own) {
            Some(User { ids: Ids { user, group }, .. }) => format!("{user}:{group}").into(),
            None => OWN.into(),
        }
    }

    /// Gives it a folder that this process has made.
    pub(super) fn own(&self, folder: &Path) -> io::Result<()> {
        if self.is_own { Ok(()) } else { chown(folder, Some(self.ids.user), Some(self.ids.group)) }
    }
}

/// The argument for the daemon's own user.
const OWN: &str = "-";

/// The ids of [`User::argument`]; `None`: the daemon's own.
pub(super) fn ids(argument: &str) -> Option<Option<Ids>> {
    if argument == OWN {
        return Some(None);
    }
    let (user, group) = argument.split_once(':')?;
    Some(Some(Ids { user: u32::from_str(user).ok()?, group: u32::from_str(group).ok()? }))
}

/// In the supervisor: gives up what the server must not inherit and a change of its ids alone does not take away.
pub(super) fn drop_privileges() -> io::Result<()> {
    nix::unistd::setgroups(&[])?;
    drop_ambient()
}

/// Keeps what this process starts from the capabilities with which an ordinary user's daemon was started for [`User`]: they are
/// inherited by each program otherwise, and CAP_SETUID is enough to become root (`capabilities(7)`).
pub(super) fn drop_ambient() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::thread::clear_ambient_capability_set()?;
    Ok(())
}

impl Rights {
    fn of_this_process() -> Rights {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let capabilities = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        Rights { user: geteuid().as_raw(), capabilities: capabilities.unwrap_or(0) }
    }

    /// The names of those that this process lacks.
    fn lacking(&self, needed: &[(u64, &'static str)]) -> String {
        let lacking = needed.iter().filter(|(bit, _)| self.capabilities & bit == 0);
        lacking.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }

    fn allow(&self, has_dir: bool) -> Result<(), String> {
        let otherwise = "or leave user out: the server then runs as the daemon's user, and can read what that user can";
        let lacking = self.lacking(&NEEDED);
        if !lacking.is_empty() {
            return Err(format!(
                "a program is started as another user only by root, or with the capabilities CAP_SETUID, CAP_SETGID and \
                 CAP_KILL, and this process lacks {lacking}; start the daemon with them (AmbientCapabilities= of systemd, \
                 --cap-add of a container), {otherwise}"
            ));
        }
        if has_dir {
            return Ok(());
        }
        if self.user != 0 {
            return Err(format!(
                "only root can give a folder to another user; set dir to one of that user's, {otherwise}"
            ));
        }
        let lacking = self.lacking(&NEEDED_OF_A_FOLDER);
        if !lacking.is_empty() {
            return Err(format!(
                "without dir a folder is made for the user, and this process, although it is root's, lacks {lacking}; set dir to \
                 a folder of that user's, start the daemon with them (--cap-add of a container), {otherwise}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_does_not_exist_is_refused_with_the_remedy() {
        for name in ["no-such-user", "4294967294"] {
            let error = User::check(name, false).unwrap_err();
            let remedy =
                format!("there is no user {name:?} on this machine; create it, such as with `useradd --system {name}`");
            assert!(error.starts_with(&remedy), "{error}");
        }
    }

    #[test]
    fn the_daemons_own_user_needs_no_right_and_changes_nothing() {
        let own = User::check(&geteuid().as_raw().to_string(), false);
        // A machine may have no name for it.
        if let Ok(own) = own {
            assert_eq!(User::argument(Some(&own)), OWN);
        }
        assert_eq!(User::argument(None), OWN);
    }

    #[test]
    fn another_user_needs_root_or_three_capabilities_and_a_folder() {
        let allow = |user, capabilities, has_dir| Rights { user, capabilities }.allow(has_dir);
        assert_eq!(allow(0, u64::MAX, false), Ok(()));
        let needed = NEEDED.iter().fold(0, |set, (bit, _)| set | bit);
        assert_eq!(allow(1_000, needed, true), Ok(()));
        for (bit, name) in NEEDED {
            let error = allow(0, needed & !bit, true).unwrap_err();
            assert!(error.contains("root") && error.contains(&format!("this process lacks {name};")), "{error}");
        }
        assert!(allow(1_000, needed, false).unwrap_err().contains("set dir"));
    }

    #[test]
    fn root_without_the_capabilities_for_a_folder_is_told_which_and_needs_dir() {
        for (bit, name) in NEEDED_OF_A_FOLDER {
            let root = Rights { user: 0, capabilities: !bit };
            let error = root.allow(false).unwrap_err();
            assert!(error.contains(&format!("lacks {name};")) && error.contains("set dir"), "{error}");
            assert_eq!(root.allow(true), Ok(()));
        }
    }

    /// Of a thread, as a container sets them for the whole process.
    #[cfg(target_os = "linux")]
    #[test]
    fn capabilities_are_looked_at_and_not_the_user_alone() {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        assert!(geteuid().is_root(), "it needs root; cargo xtask test skips it for other users");
        let checked = std::thread::spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::CHOWN);
            set_capabilities(None, sets).unwrap();
            User::check("nobody", false)
        });
        let error = checked.join().unwrap().unwrap_err();
        assert!(error.contains("lacks CAP_CHOWN"), "{error}");
    }

    #[test]
    fn ids_go_to_the_supervisor_and_come_back() {
        let ids = Ids { user: 65_534, group: 7 };
        let user = User { ids, home: "/".into(), is_own: false };
        let argument = User::argument(Some(&user)).into_string().unwrap();
        assert_eq!(super::ids(&argument), Some(Some(ids)));
        assert_eq!(super::ids(OWN), Some(None));
        for bad in ["", "0", "0:", "a:b", "-1:0", "0:0:0"] {
            assert_eq!(super::ids(bad), None, "{bad}");
        }
    }
}

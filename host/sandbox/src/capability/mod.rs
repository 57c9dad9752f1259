//! What a guest may import, and who says so.
//!
//! Every import belongs to one of three classes: always linked and inert without a grant; linked when granted; anything
//! else, refused by name. One file below holds one capability: its state per instance, its implementation, its tests.

pub(crate) mod context;
pub(crate) mod log;

use wasmtime::component::{HasSelf, Linker};

use crate::instance::State;
use crate::plugin::{Grants, LoadError};

/// The host's side of `wit/`, generated.
#[allow(missing_docs, reason = "generated from wit/, which holds the documentation")]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "plugin",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

/// The version of `agentry:plugin` that this host implements is `0.1.PATCH`; [`HANDLER`] says the same.
const PATCH: u64 = 0;

/// The WASI packages that every guest may import, at any 0.2.
const WASI: [&str; 6] = ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];

/// Packages behind a grant: package, the capability's name in `plugin.toml`, and a line that asks for it.
const GRANTED: [(&str, &str, &str); 6] = [
    ("wasi:http", "http", "http = [\"GET https://api.example.com\"]"),
    ("wasi:keyvalue", "keyvalue", "keyvalue = [\"memory\"]"),
    ("wasi:config", "config", "config = [\"region\"]"),
    ("agentry:llm", "llm", "llm = [\"default\"]"),
    ("agentry:tools", "tools", "tools = { search = [\"web_search\"] }"),
    ("agentry:memory", "memory", "memory = [\"default\"]"),
];

/// The one logging interface; drafts link by their exact version.
const LOGGING: &str = "wasi:logging/logging@0.1.0-draft";

/// The export that makes a component a plugin, as the newest that this host runs.
pub(crate) const HANDLER: &str = "agentry:plugin/handler@0.1.0";

/// Puts everything that this build provides into a linker.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    bindings::wasi::logging::logging::add_to_linker::<State, HasSelf<State>>(linker, State::called)?;
    bindings::agentry::plugin::types::add_to_linker::<State, HasSelf<State>>(linker, |state| state)?;
    bindings::agentry::plugin::context::add_to_linker::<State, HasSelf<State>>(linker, State::called)?;
    Ok(())
}

/// Types only; nothing to call.
impl bindings::agentry::plugin::types::Host for State {}

/// An import or export name in its parts: `wasi:cli/exit@0.2.6`.
struct Name<'a> {
    package: &'a str,
    interface: &'a str,
    version: &'a str,
}

impl<'a> Name<'a> {
    fn parse(name: &'a str) -> Option<Name<'a>> {
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        let (package, interface) = path.split_once('/')?;
        Some(Name { package, interface, version })
    }

    /// The patch number of a plain `0.MINOR.PATCH`.
    fn patch(&self, minor: &str) -> Option<u64> {
        let patch = self.version.strip_prefix("0.")?.strip_prefix(minor)?.strip_prefix('.')?;
        patch.bytes().all(|byte| byte.is_ascii_digit()).then(|| patch.parse().ok())?
    }
}

/// Refuses an import that is not linked, or not granted.
pub(crate) fn check_import(import: &str, grants: &Grants) -> Result<(), LoadError> {
    let unknown = || LoadError::UnknownImport { import: import.to_owned() };
    let version = |serves: String| LoadError::ImportVersion { import: import.to_owned(), serves };
    let name = Name::parse(import).ok_or_else(unknown)?;

    if WASI.contains(&name.package) {
        return match name.patch("2") {
            Some(_) => Ok(()),
            None => Err(version(format!("{}/{}@0.2.x", name.package, name.interface))),
        };
    }
    if name.package == "wasi:logging" {
        return match import {
            LOGGING => Ok(()),
            _ => Err(version(LOGGING.to_owned())),
        };
    }
    if name.package == "agentry:plugin" {
        if !["types", "context"].contains(&name.interface) {
            return Err(unknown());
        }
        return match name.patch("1") {
            Some(patch) if (0..=PATCH).contains(&patch) => Ok(()),
            _ => Err(version(format!("agentry:plugin/{}@0.1.{PATCH}", name.interface))),
        };
    }
    let Some((_, capability, line)) = GRANTED.iter().find(|(package, ..)| *package == name.package) else {
        return Err(unknown());
    };
    if grants.capabilities.contains(*capability) {
        Err(LoadError::NotProvided { import: import.to_owned(), capability })
    } else {
        Err(LoadError::NotGranted { import: import.to_owned(), capability, line })
    }
}

/// Refuses a component that does not export the handler, or a handler newer than this host.
pub(crate) fn check_exports<'a>(exports: impl Iterator<Item = &'a str>) -> Result<(), LoadError> {
    let mut other = None;
    for export in exports {
        let Some(name) = Name::parse(export) else {
            continue;
        };
        if (name.package, name.interface) != ("agentry:plugin", "handler") {
            continue;
        }
        match name.patch("1") {
            Some(patch) if (0..=PATCH).contains(&patch) => return Ok(()),
            _ => other = Some(export.to_owned()),
        }
    }
    Err(match other {
        Some(export) => LoadError::HandlerVersion { export, serves: HANDLER },
        None => LoadError::NoHandler { wants: HANDLER },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(import: &str) -> String {
        check_import(import, &Grants::default()).unwrap_err().to_string()
    }

    #[test]
    fn what_standard_libraries_bring_along_is_linked_at_any_0_2() {
        for import in [
            "wasi:cli/environment@0.2.0",
            "wasi:io/streams@0.2.12",
            "wasi:clocks/wall-clock@0.2.6",
            "wasi:random/random@0.2.3",
            "wasi:filesystem/preopens@0.2.9",
            "wasi:sockets/tcp@0.2.6",
            "wasi:logging/logging@0.1.0-draft",
            "agentry:plugin/types@0.1.0",
            "agentry:plugin/context@0.1.0",
        ] {
            check_import(import, &Grants::default()).unwrap();
        }
    }

    #[test]
    fn another_version_is_refused_with_the_one_that_is_served() {
        assert!(refused("wasi:cli/environment@0.3.0").contains("0.2.x"));
        assert!(refused("wasi:cli/environment@0.2.0-rc.1").contains("0.2.x"));
        assert!(refused("wasi:cli/environment").contains("0.2.x"));
        assert!(refused("wasi:logging/logging@0.1.0").contains(LOGGING));
        assert!(refused("agentry:plugin/context@0.1.1").contains("agentry:plugin/context@0.1.0"));
        assert!(refused("agentry:plugin/context@0.2.0").contains("agentry:plugin/context@0.1.0"));
    }

    #[test]
    fn a_capability_without_a_grant_is_refused_with_the_line_to_add() {
        let error = refused("wasi:http/outgoing-handler@0.2.6");
        assert!(error.contains("wasi:http/outgoing-handler@0.2.6"));
        assert!(error.contains("http = [\"GET https://api.example.com\"]"));
        assert!(error.contains("[capabilities]"));
    }

    #[test]
    fn a_granted_capability_that_this_build_lacks_is_refused_and_says_so() {
        let grants = Grants { capabilities: ["keyvalue".to_owned()].into() };
        let error = check_import("wasi:keyvalue/store@0.2.0-draft2", &grants).unwrap_err();
        assert!(matches!(error, LoadError::NotProvided { capability: "keyvalue", .. }));
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for import in ["acme:secrets/vault@1.0.0", "wasi:nn/graph@0.2.0", "agentry:plugin/root@0.1.0", "plain"] {
            assert!(refused(import).contains(import));
        }
    }

    #[test]
    fn the_version_served_is_the_one_in_wit() {
        let wit = include_str!("../../../../wit/plugin.wit");
        assert!(wit.contains(&format!("package agentry:plugin@0.1.{PATCH};")));
        assert_eq!(HANDLER, format!("agentry:plugin/handler@0.1.{PATCH}"));
    }

    #[test]
    fn a_handler_is_wanted_and_none_newer_than_the_host() {
        check_exports(["init", "agentry:plugin/handler@0.1.0"].into_iter()).unwrap();
        let newer = check_exports(["agentry:plugin/handler@0.1.7"].into_iter()).unwrap_err().to_string();
        assert!(newer.contains("agentry:plugin/handler@0.1.7") && newer.contains("agentry:plugin/handler@0.1.0"));
        let none = check_exports(["wasi:cli/run@0.2.0"].into_iter()).unwrap_err().to_string();
        assert!(none.contains("agentry:plugin/handler@0.1.0"));
    }
}

//! What a guest may import, and who says so.
//!
//! Every import belongs to one of three classes: always linked and inert without a grant; linked when granted; anything
//! else, refused by name. One file below holds one capability: its state per instance, its implementation, its tests.

pub(crate) mod allowance;
mod config;
pub(crate) mod context;
pub(crate) mod held;
pub(crate) mod http;
mod keyvalue;
mod llm;
pub(crate) mod log;
mod memory;
mod tools;

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

    /// What a grant can give besides `wasi:http`, which the engine's own crate has.
    mod granted {
        wasmtime::component::bindgen!({
            path: "../../wit",
            inline: "
                package agentry:host;
                world granted {
                    import agentry:llm/chat@0.1.0;
                    import agentry:tools/tools@0.1.0;
                    import agentry:memory/memory@0.1.0;
                    import wasi:keyvalue/store@0.2.0-draft;
                    import wasi:keyvalue/atomics@0.2.0-draft;
                    import wasi:keyvalue/batch@0.2.0-draft;
                    import wasi:config/store@0.2.0-rc.1;
                }",
            world: "agentry:host/granted",
            imports: { default: async | trappable },
            with: { "wasi:keyvalue/store.bucket": super::super::keyvalue::Bucket },
        });
    }

    pub(crate) mod capabilities {
        pub(crate) use super::granted::agentry::{llm, memory, tools};
        pub(crate) use super::granted::wasi::{config, keyvalue};
    }
}

/// The version of `agentry:plugin` that this host implements is `0.1.PATCH`; [`HANDLER`] says the same.
const PATCH: u64 = 0;

/// The WASI packages that every guest may import, at any 0.2.
const WASI: [&str; 6] = ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];

/// A package behind a grant.
struct Granted {
    package: &'static str,
    /// The capability's name in `plugin.toml`.
    capability: &'static str,
    /// A line that asks for it.
    line: &'static str,
    /// The versions that are served.
    serves: Serves,
}

/// Which versions of a package link.
enum Serves {
    /// Any `0.MINOR.PATCH` up to this patch; drafts by semver.
    UpTo(&'static str, u64),
    /// A draft: exactly this one.
    Exactly(&'static str),
}

const GRANTED: [Granted; 6] = [
    Granted {
        package: "wasi:http",
        capability: "http",
        line: "http = [\"GET https://api.example.com\"]",
        serves: Serves::UpTo("2", u64::MAX),
    },
    Granted {
        package: "wasi:keyvalue",
        capability: "keyvalue",
        line: "keyvalue = [\"cache\"]",
        serves: Serves::Exactly("0.2.0-draft"),
    },
    Granted {
        package: "wasi:config",
        capability: "config",
        line: "config = [\"region\"]",
        serves: Serves::Exactly("0.2.0-rc.1"),
    },
    Granted { package: "agentry:llm", capability: "llm", line: "llm = [\"default\"]", serves: Serves::UpTo("1", 0) },
    Granted {
        package: "agentry:tools",
        capability: "tools",
        line: "tools = { search = [\"web_search\"] }",
        serves: Serves::UpTo("1", 0),
    },
    Granted {
        package: "agentry:memory",
        capability: "memory",
        line: "memory = [\"notes\"]",
        serves: Serves::UpTo("1", 0),
    },
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
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    held::link(linker)?;
    {
        use bindings::capabilities::{config, keyvalue, llm, memory, tools};
        llm::chat::add_to_linker::<State, HasSelf<State>>(linker, State::called)?;
        tools::tools::add_to_linker::<State, HasSelf<State>>(linker, State::called)?;
        memory::memory::add_to_linker::<State, HasSelf<State>>(linker, State::called)?;
        keyvalue::store::add_to_linker::<State, HasSelf<State>>(linker, State::called)?;
        keyvalue::atomics::add_to_linker::<State, HasSelf<State>>(linker, State::called)?;
        keyvalue::batch::add_to_linker::<State, HasSelf<State>>(linker, State::called)?;
        config::store::add_to_linker::<State, HasSelf<State>>(linker, State::called)?;
    }
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
    let Some(granted) = GRANTED.iter().find(|granted| granted.package == name.package) else {
        return Err(unknown());
    };
    let (capability, line) = (granted.capability, granted.line);
    match granted.serves {
        Serves::UpTo(minor, most) if name.patch(minor).is_none_or(|patch| patch > most) => {
            return Err(version(format!("{}/{}@0.{minor}.x", name.package, name.interface)));
        }
        Serves::Exactly(draft) if name.version != draft => {
            return Err(version(format!("{}/{}@{draft}", name.package, name.interface)));
        }
        _ => {}
    }
    if !grants.capabilities.contains(capability) {
        return Err(LoadError::NotGranted { import: import.to_owned(), capability, line });
    }
    Ok(())
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
    fn a_granted_capability_is_linked_in_the_versions_that_are_served() {
        let all = GRANTED.iter().map(|granted| granted.capability.to_owned()).collect();
        let grants = Grants { capabilities: all };
        for import in [
            "wasi:http/types@0.2.0",
            "wasi:http/outgoing-handler@0.2.12",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:config/store@0.2.0-rc.1",
            "agentry:llm/chat@0.1.0",
            "agentry:tools/tools@0.1.0",
            "agentry:memory/memory@0.1.0",
        ] {
            check_import(import, &grants).unwrap();
        }
        for (import, serves) in [
            ("wasi:http/types@0.3.0", "wasi:http/types@0.2.x"),
            ("wasi:keyvalue/store@0.2.0-draft2", "wasi:keyvalue/store@0.2.0-draft"),
            ("wasi:config/runtime@0.2.0-draft", "wasi:config/runtime@0.2.0-rc.1"),
            ("agentry:llm/chat@0.1.1", "agentry:llm/chat@0.1.x"),
        ] {
            let error = check_import(import, &grants).unwrap_err();
            assert!(matches!(&error, LoadError::ImportVersion { .. }) && error.to_string().contains(serves), "{error}");
        }
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

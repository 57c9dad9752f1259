//! Where the plugins of a name may come from, and what is noticed without a pin.

use super::super::pins::{Newest, Origins};
use super::*;
use std::io::Write;
use std::sync::Mutex;

/// A folder with `x` 0.1.0, and one with a higher version of it.
fn claimed() -> (Dir, PathBuf, PathBuf) {
    let dir = Dir::new();
    let own = dir.put("own/x", "x", "0.1.0", "", &component("1"));
    let other = dir.put("other/x", "x", "9.0.0", "", &component("9"));
    (dir, own, other)
}

#[tokio::test]
async fn a_plugin_outside_the_folder_of_its_pin_is_refused_with_both_named() {
    let (dir, own, other) = claimed();
    let within = own.parent().unwrap();
    let registry = dir.start_with_policies(&format!("[x]\npins.dir = [{within:?}]")).await;
    assert_eq!(says(&ready(&registry, "x")).await, "1");
    let cause = format!(
        "{} holds a plugin named x, and the operator's policy for x has dir = {}: move the folder there, give the plugin \
         another name, or change dir",
        other.display(),
        within.display()
    );
    assert_eq!(broken(&registry, "x@9"), cause);
    assert_eq!(registry.served().plugins, ["x@0.1.0"]);
}

#[tokio::test]
async fn a_pin_that_is_a_link_is_followed() {
    let (dir, own, _) = claimed();
    let link = dir.path.with_extension("link");
    std::os::unix::fs::symlink(own.parent().unwrap(), &link).unwrap();
    let registry = dir.start_with_policies(&format!("[\"*\"]\npins.dir = [\"/nowhere\", {link:?}]")).await;
    assert_eq!(registry.served().plugins, ["x@0.1.0"]);
}

#[tokio::test]
async fn a_component_with_another_digest_than_its_pins_is_refused_with_both_named() {
    let (dir, own, other) = claimed();
    let digest = |output| agentry_sandbox::digest(&component(output));
    let pins = format!("[x]\npins.digest = [{:?}, {:?}]", digest("1"), digest("2"));
    let registry = dir.start_with_policies(&pins).await;
    assert_eq!(says(&ready(&registry, "x")).await, "1");
    let cause = format!(
        "{} holds a component with the digest {}, and the operator's policy for x has digest = {} or {}: install that \
         build, or change digest",
        other.display(),
        digest("9"),
        digest("1"),
        digest("2")
    );
    assert_eq!(broken(&registry, "x@9"), cause);
    // Both builds of a rolling update may be listed.
    dir.put("own/x", "x", "0.2.0", "", &component("2"));
    registry.reload().await;
    assert_eq!(says(&ready(&registry, "x")).await, "2");
    // What is refused does not end what serves.
    dir.put("own/x", "x", "0.3.0", "", &component("3"));
    registry.reload().await;
    assert_eq!(says(&ready(&registry, "x")).await, "2");
    assert!(broken(&registry, "x@0.3").contains(own.to_str().unwrap()));
}

#[tokio::test]
async fn a_plugin_above_its_own_ceiling_is_refused_with_the_limit_named() {
    let dir = Dir::new();
    let more = "[limits]\nmemory_mib = 65";
    let path = dir.put("x", "x", "0.1.0", more, &component("1"));
    dir.put("y", "y", "0.1.0", more, &component("1"));
    let registry = dir.start_with_policies("[x]\nmax.memory_mib = 64\nmax.timeout_seconds = 7").await;
    let cause = format!(
        "{}: limits.memory_mib in plugin.toml asks for 65, and the ceiling limits.max.memory_mib of the operator's policy \
         is 64: ask for less, or raise the ceiling",
        path.display()
    );
    assert_eq!(broken(&registry, "x"), cause);
    assert_eq!(ready(&registry, "y").timeout_ceiling(), Some(Duration::from_secs(900)));
    dir.put("x", "x", "0.1.0", "", &component("1"));
    registry.reload().await;
    let runner = ready(&registry, "x");
    assert_eq!(runner.memory_limit(), 64 << 20);
    assert_eq!((runner.timeout(), runner.timeout_ceiling()), (Duration::from_secs(7), Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn a_newest_version_from_another_folder_is_noticed_also_after_a_restart() {
    let (dir, own, other) = claimed();
    let file = dir.path.with_extension("json");
    let open = async |path: &Path| Registry::open(dir.config(), path).await.unwrap();
    let (first, second) = (open(&own).await, open(&other).await);
    let note = |origins: &mut Origins, build: &Arc<Installed>| -> Vec<Newest> {
        origins.note(std::iter::once(build)).into_iter().map(|(_, before)| before).collect()
    };
    let mut origins = Origins::read(Some(file.clone()));
    assert_eq!(note(&mut origins, &first), [], "nothing is known before");
    origins.save().await;

    let mut origins = Origins::read(Some(file.clone()));
    assert_eq!(note(&mut origins, &first), []);
    let before = note(&mut origins, &second);
    assert_eq!((before.len(), &before[0].path, before[0].version.as_str()), (1, &own, "0.1.0"));
    assert_eq!(note(&mut origins, &second), [], "it is noticed once");
    // A new version in the folder of the last one, and the same build in another, are what an operator does.
    dir.put("other/x", "x", "9.1.0", "", &component("2"));
    assert_eq!(note(&mut origins, &open(&other).await), []);
    let copied = dir.put("copied/x", "x", "9.1.0", "", &component("2"));
    assert_eq!(note(&mut origins, &open(&copied).await), []);

    fs::write(&file, "damaged").unwrap();
    assert_eq!(note(&mut Origins::read(Some(file)), &second), []);
}

/// The log of this thread.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Said {
    fn warnings(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
        text.lines().filter(|line| line.contains("another folder than before")).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn a_newest_version_from_another_folder_is_logged_unless_it_is_pinned() {
    let said = Said::default();
    let writer = said.clone();
    let logged = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _log = tracing::subscriber::set_default(logged);
    let dir = Dir::new();
    dir.put("own/x", "x", "0.1.0", "", &component("1"));
    let origins = dir.path.with_extension("json");
    let first = RegistryConfig { origins: Some(origins.clone()), ..dir.config() };
    drop(Registry::start(first.clone()).await.unwrap());
    let other = dir.put("other/x", "x", "9.0.0", "", &component("9"));
    let policies = format!("[x]\npins.dir = [{:?}]", dir.path);
    let policies = Policies::new(::toml::from_str(&policies).unwrap()).unwrap();
    // It knows what was before, too.
    let copy = dir.path.with_extension("copy");
    fs::copy(origins, &copy).unwrap();
    drop(Registry::start(RegistryConfig { policies, origins: Some(copy), ..dir.config() }).await.unwrap());
    assert_eq!(said.warnings(), Vec::<String>::new());
    let registry = Registry::start(first).await.unwrap();
    let warnings = said.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["9.0.0", other.to_str().unwrap(), "own/x", "set dir or digest in [plugins.\"x\"]"] {
        assert!(warnings[0].contains(part), "{part}: {}", warnings[0]);
    }
    registry.reload().await;
    assert_eq!(said.warnings(), Vec::<String>::new());
}

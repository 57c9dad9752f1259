//! The registry against real folders and a real sandbox.

use super::*;
use crate::task::settle::Verdict;
use agentry_sandbox::Sandbox;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

mod fixture;
mod open;
mod pinned;
mod reload;

use fixture::{component, component_with_import, component_with_memory};

/// The longest that anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One for all tests: it reserves address space.
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    let settings = SandboxSettings {
        cache_dir: None,
        slots: 2,
        compile_concurrency: 2,
        compiler: agentry_sandbox::Compiler::Here,
        source_lines: false,
    };
    sandbox(settings, &LimitSettings::default(), &Ceilings::default()).unwrap()
});

/// A plugin folder to play with.
struct Dir {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Dir {
    fn new() -> Dir {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("plugins");
        fs::create_dir(&path).unwrap();
        Dir { _dir: dir, path }
    }

    /// Put a plugin into a folder; `more` goes behind its `[plugin]`.
    fn put(&self, folder: &str, name: &str, version: &str, more: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path.join(folder);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("a.wasm"), bytes).unwrap();
        fs::write(path.join("plugin.toml"), toml(name, version, more)).unwrap();
        path
    }

    fn config(&self) -> RegistryConfig {
        RegistryConfig {
            dirs: vec![self.path.clone()],
            mutable: false,
            sandbox: SANDBOX.clone(),
            defaults: LimitSettings::default(),
            max: Ceilings::default(),
            retry: RetryPolicy::default(),
            policies: Policies::default(),
            calls: CallsPolicy::default(),
            reach: Reach::default(),
            origins: None,
        }
    }

    async fn start(&self) -> Registry {
        Registry::start(self.config()).await.unwrap()
    }

    async fn start_with_policies(&self, policies: &str) -> Registry {
        let policies = Policies::new(::toml::from_str(policies).unwrap()).unwrap();
        Registry::start(RegistryConfig { policies, ..self.config() }).await.unwrap()
    }
}

fn toml(name: &str, version: &str, more: &str) -> String {
    format!("manifest = 1\n[plugin]\nname = \"{name}\"\nversion = \"{version}\"\ncomponent = \"a.wasm\"\n{more}")
}

fn resolve(registry: &Registry, plugin: &str) -> Resolved {
    registry.resolve(&plugin.parse().unwrap())
}

#[track_caller]
fn ready(registry: &Registry, plugin: &str) -> Arc<dyn Runner> {
    match resolve(registry, plugin) {
        Resolved::Ready(runner) => runner,
        other => panic!("{plugin} is {other:?}"),
    }
}

#[track_caller]
fn broken(registry: &Registry, plugin: &str) -> String {
    match resolve(registry, plugin) {
        Resolved::Broken { cause } => cause,
        other => panic!("{plugin} is {other:?}"),
    }
}

#[track_caller]
fn unknown(registry: &Registry, plugin: &str) -> Vec<String> {
    match resolve(registry, plugin) {
        Resolved::Unknown { known } => known,
        other => panic!("{plugin} is {other:?}"),
    }
}

fn job(input: &str) -> Job {
    Job {
        memory: None,
        turn: None,
        id: uuid::Uuid::from_u128(1),
        attempt: 1,
        max_attempts: 3,
        fence: None,
        input: input.into(),
        labels: BTreeMap::new(),
        timeout: None,
        deadline: None,
        stop: CancellationToken::new(),
        on_log: None,
    }
}

/// What the fixture's build says when it runs.
async fn says(runner: &Arc<dyn Runner>) -> String {
    match runner.run(job("{}")).await.verdict {
        Verdict::Output(output) => output.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_plugin_is_loaded_on_start_and_runs() {
    let dir = Dir::new();
    let more =
        "description = \"Says one.\"\nqueue = \"slow\"\n[limits]\ntimeout_seconds = 30\n[retry]\nmax_attempts = 7";
    let path = dir.put("one", "one", "0.1.0", more, &component("1"));
    let registry = dir.start_with_policies("[\"o*\"]\nconcurrency = 4").await;
    let runner = ready(&registry, "one");
    assert_eq!((&**runner.name(), &**runner.version(), runner.queue()), ("one", "0.1.0", "slow"));
    assert_eq!(**runner.digest(), agentry_sandbox::digest(&component("1")));
    assert_eq!((runner.retry().max_attempts, runner.concurrency()), (7, Some(4)));
    assert_eq!(runner.timeout(), Duration::from_secs(30));
    assert_eq!(runner.memory_reserve(), (4 << 20) + 65_536, "its initial memory and 4 MiB");
    assert_eq!(says(&runner).await, "1");

    let list = registry.list();
    assert_eq!((list.len(), list[0].state, list[0].concurrency), (1, PluginState::Ready, Some(4)));
    let version = &list[0].versions[0];
    assert_eq!(version.version.as_deref(), Some("0.1.0"));
    assert_eq!(version.digest.as_deref(), Some(&**runner.digest()));
    assert_eq!((version.path.as_str(), version.description.as_str()), (path.to_str().unwrap(), "Says one."));
    assert_eq!(version.limits["timeout_seconds"], LimitInfo { value: 30, origin: Origin::Plugin, ceiling: 900 });
    assert_eq!(version.limits["cpu_seconds"].origin, Origin::Default);
    assert_eq!(version.limits["memory_reserve_mib"], LimitInfo { value: 5, origin: Origin::Derived, ceiling: 128 });
    assert!(version.cause.is_none() && version.loaded_at.is_some());
    assert_eq!(registry.served(), Served { plugins: vec!["one@0.1.0".into()], broken: vec![] });
}

#[tokio::test]
async fn the_highest_version_that_fits_is_chosen() {
    let dir = Dir::new();
    for version in ["0.1.0", "0.1.2", "0.2.0", "0.3.0-rc.1"] {
        dir.put(&format!("a/{version}"), "a", version, "", &component(&format!("\"{version}\"")));
    }
    let registry = dir.start().await;
    for (asked, version) in
        [("a", "0.2.0"), ("a@0.1", "0.1.2"), ("a@=0.1.0", "0.1.0"), ("a@>=0.3.0-rc", "0.3.0-rc.1"), ("a@*", "0.2.0")]
    {
        assert_eq!(&**ready(&registry, asked).version(), version, "{asked}");
    }
    assert_eq!(unknown(&registry, "a@1"), ["a@0.3.0-rc.1", "a@0.2.0", "a@0.1.2", "a@0.1.0"]);
    let versions: Vec<_> = registry.list()[0].versions.iter().filter_map(|v| v.version.clone()).collect();
    assert_eq!(versions, ["0.3.0-rc.1", "0.2.0", "0.1.2", "0.1.0"]);
}

#[tokio::test]
async fn an_unknown_plugin_is_answered_with_the_nearest_names_first() {
    let dir = Dir::new();
    for name in ["outline", "word-count", "word-court"] {
        dir.put(name, name, "0.1.0", "", &component("1"));
    }
    let registry = dir.start().await;
    assert_eq!(unknown(&registry, "word-coun"), ["word-count", "word-court", "outline"]);
}

#[tokio::test]
async fn a_plugin_folder_that_is_missing_is_an_error_at_start() {
    let dir = Dir::new();
    let none = dir.path.join("none");
    let error = Registry::start(RegistryConfig { dirs: vec![none.clone()], ..dir.config() }).await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("open the plugin folder {}: ", none.display())), "{text}");
    assert!(text.ends_with("; create it, or name another as plugins.dir (--plugins)"), "{text}");
}

#[tokio::test]
async fn settings_that_contradict_themselves_are_an_error_at_start() {
    let dir = Dir::new();
    let max = Ceilings { memory_mib: 1, ..Ceilings::default() };
    let error = Registry::start(RegistryConfig { max, ..dir.config() }).await.unwrap_err();
    assert!(error.to_string().starts_with("settle the limits: limits.default.memory_mib is 128, above"), "{error}");
}

#[tokio::test]
async fn a_bad_plugin_is_reported_by_name_and_cause_and_the_others_are_unharmed() {
    let dir = Dir::new();
    dir.put("good", "good", "0.1.0", "", &component("1"));
    let typo = dir.put("typo", "typo", "0.1.0", "descripton = \"x\"", &component("1"));
    let garbage = dir.put("garbage", "garbage", "0.1.0", "", b"garbage");
    let greedy = dir.put("greedy", "greedy", "0.1.0", "[limits]\nmemory_mib = 9999", &component("1"));
    let small = dir.put("small", "small", "0.1.0", "[limits]\nmemory_mib = 1", &component_with_memory("1", 32));
    let reserve = dir.put("reserve", "reserve", "0.1.0", "[limits]\nmemory_reserve_mib = 129", &component("1"));
    let unbuilt = dir.put("unbuilt", "unbuilt", "0.1.0", "", b"");
    fs::remove_file(unbuilt.join("a.wasm")).unwrap();
    fs::write(unbuilt.join("Cargo.toml"), "").unwrap();
    let nameless = dir.put("nameless", "", "0.1.0", "", &component("1"));
    fs::create_dir(dir.path.join("no-plugin")).unwrap();

    let registry = dir.start().await;
    ready(&registry, "good");
    for (name, cause) in [
        (
            "typo",
            format!(
                "{}/plugin.toml: plugin.descripton is not known; did you mean description? allowed are name, version, \
                 component, description, queue",
                typo.display()
            ),
        ),
        (
            "garbage",
            format!(
                "{}/a.wasm: failed to load the component: it does not begin like a WebAssembly file",
                garbage.display()
            ),
        ),
        (
            "greedy",
            format!(
                "{}: limits.memory_mib in plugin.toml asks for 9999, and the ceiling limits.max.memory_mib is 512: ask \
                 for less, or raise the ceiling",
                greedy.display()
            ),
        ),
        (
            "small",
            format!(
                "{}/a.wasm begins with 2 MiB of memory, and its limits.memory_mib is 1: ask for more in plugin.toml",
                small.display()
            ),
        ),
        (
            "reserve",
            format!(
                "{}: limits.memory_reserve_mib asks for 129, above the plugin's limits.memory_mib, which is 128",
                reserve.display()
            ),
        ),
        (
            "unbuilt",
            format!("{}/a.wasm is missing: build it with `cargo xtask plugins --only unbuilt`", unbuilt.display()),
        ),
        (
            "nameless",
            format!(
                "{}/plugin.toml: plugin.name is empty; it must be a lower-case letter, then at most 62 lower-case \
                 letters, digits or hyphens",
                nameless.display()
            ),
        ),
    ] {
        assert_eq!(broken(&registry, name), cause);
        assert!(registry.served().broken.contains(&format!("{name}: {cause}")));
        let info = registry.list().into_iter().find(|p| p.name == name).unwrap();
        assert_eq!((info.state, info.cause.as_deref()), (PluginState::Broken, Some(&*cause)));
        assert_eq!(info.versions[0].state, PluginState::Broken);
    }
    assert_eq!(registry.served().plugins, ["good@0.1.0"]);
    assert_eq!(unknown(&registry, "goo"), ["good"], "only what can run is offered instead");
}

#[tokio::test]
async fn a_component_above_its_ceiling_is_not_read() {
    let dir = Dir::new();
    let path = dir.put("big", "big", "0.1.0", "", b"");
    let file = fs::File::create(path.join("a.wasm")).unwrap();
    file.set_len((32 << 20) + 1).unwrap();
    let registry = dir.start().await;
    assert_eq!(
        broken(&registry, "big"),
        format!("{}/a.wasm has 33554433 bytes; limits.max.component_mib allows 33554432", path.display())
    );
}

#[tokio::test]
async fn a_broken_version_does_not_stand_in_the_way_of_another() {
    let dir = Dir::new();
    dir.put("old", "a", "0.1.0", "", &component("1"));
    dir.put("new", "a", "0.2.0", "", b"garbage");
    let registry = dir.start().await;
    assert_eq!(&**ready(&registry, "a").version(), "0.1.0");
    assert!(broken(&registry, "a@0.2").contains("new/a.wasm: failed to load the component"));
    let list = registry.list();
    assert_eq!((list[0].state, list[0].cause.as_deref()), (PluginState::Ready, None));
    let states: Vec<_> = list[0].versions.iter().map(|v| (v.version.as_deref().unwrap(), v.state)).collect();
    assert_eq!(states, [("0.1.0", PluginState::Ready), ("0.2.0", PluginState::Broken)]);
}

#[tokio::test]
async fn a_plugin_that_the_operator_turned_off_is_not_even_compiled() {
    let dir = Dir::new();
    dir.put("off", "off-one", "0.1.0", "description = \"Off.\"", b"garbage");
    dir.put("on", "on", "0.1.0", "", &component("1"));
    let registry = dir.start_with_policies("[\"off-*\"]\nenabled = false").await;
    assert!(matches!(resolve(&registry, "off-one"), Resolved::Disabled));
    assert_eq!(registry.served(), Served { plugins: vec!["on@0.1.0".into()], broken: vec![] });
    let info = &registry.list()[0];
    assert_eq!((info.state, info.versions[0].state), (PluginState::Disabled, PluginState::Disabled));
    assert_eq!(info.cause.as_deref(), Some("the operator's policy for off-one has enabled = false"));
    assert_eq!(unknown(&registry, "off"), ["on"]);
}

#[tokio::test]
async fn a_grant_that_is_missing_is_reported_with_whose_half_it_is() {
    let dir = Dir::new();
    let import = "wasi:keyvalue/store@0.2.0-draft";
    for (name, more) in [("neither", ""), ("mine", "[capabilities]\nkeyvalue = [\"memory\"]"), ("theirs", "")] {
        dir.put(name, name, "0.1.0", more, &component_with_import(import));
    }
    let registry = dir.start_with_policies("[theirs]\ncapabilities.keyvalue = [\"memory\"]").await;
    let of = |name: &str, cause: &str| format!("{}/{name}/a.wasm: {cause}", dir.path.display());
    let cause = broken(&registry, "neither");
    assert!(cause.contains(import) && cause.contains("without a grant"), "{cause}");
    let theirs = format!(
        "it imports {import}, and the operator allows none of capabilities.keyvalue = [\"memory\"] that its plugin.toml \
         asks for: allow it in the settings under [plugins.\"mine\"]"
    );
    assert_eq!(broken(&registry, "mine"), of("mine", &theirs));
    let its_own = format!(
        "it imports {import}, which the operator allows and its plugin.toml does not ask for: add keyvalue to \
         [capabilities]"
    );
    assert_eq!(broken(&registry, "theirs"), of("theirs", &its_own));
}

#[tokio::test]
async fn two_folders_with_one_version_must_hold_the_same() {
    let dir = Dir::new();
    let first = dir.put("a", "x", "0.1.0", "", &component("1"));
    dir.put("b", "x", "0.1.0", "", &component("1"));
    let third = dir.put("c", "x", "0.1.0", "", &component("3"));
    let registry = dir.start().await;
    assert_eq!(says(&ready(&registry, "x")).await, "1");
    let digest = |output| agentry_sandbox::digest(&component(output));
    let cause = format!(
        "{} holds x@0.1.0 with the digest {}, and {} holds the same version with {}, which serves: remove one of the \
         folders, or give one a new plugin.version",
        third.display(),
        digest("3"),
        first.display(),
        digest("1")
    );
    assert_eq!(registry.served().broken, [format!("x: {cause}")]);
    fs::remove_dir_all(first).unwrap();
    registry.reload().await;
    assert_eq!(says(&ready(&registry, "x")).await, "1", "what serves goes on from its second folder");
}

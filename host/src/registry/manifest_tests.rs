use super::*;

const WORD_COUNT: &str = r#"
manifest = 1
[plugin]
name = "word-count"
version = "0.1.0"
component = "word_count.wasm"
description = "Counts words."
queue = "default"

[limits]
timeout_seconds = 30
memory_mib = 64
memory_reserve_mib = 8

[retry]
max_attempts = 5
base_seconds = 0.5
factor = 3
max_seconds = 60
on = ["trap", "timeout"]

[capabilities]
http = ["GET https://api.example.com"]
llm = ["default"]
tools = { search = ["web_search"] }
keyvalue = ["memory"]
config = ["region"]

[config]
region = "eu"
"#;

fn parse(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(Path::new("p/plugin.toml"), text)
}

/// The smallest manifest, with more behind `[plugin]`.
fn with(more: &str) -> String {
    format!("manifest = 1\n[plugin]\nname = \"a\"\nversion = \"0.1.0\"\ncomponent = \"a.wasm\"\n{more}")
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(parse(text).unwrap_err().to_string(), format!("p/plugin.toml: {expected}"));
}

#[test]
fn a_full_manifest_is_read() {
    let manifest = parse(WORD_COUNT).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.version.to_string().as_str()), ("word-count", "0.1.0"));
    assert_eq!(manifest.component, Path::new("word_count.wasm"));
    assert_eq!((manifest.description.as_str(), manifest.queue.as_str()), ("Counts words.", "default"));
    assert_eq!((manifest.limits.timeout_seconds, manifest.limits.memory_mib), (Some(30), Some(64)));
    assert_eq!(manifest.memory_reserve_mib, Some(8));
    let retry = manifest.retry.or(&RetryPolicy::default());
    assert_eq!((retry.max_attempts, retry.base, retry.factor), (5, Duration::from_millis(500), 3.0));
    assert_eq!(retry.on, Some(vec![FailureKind::Trap, FailureKind::Timeout]));
    assert_eq!(manifest.capabilities.tools["search"], ["web_search"]);
    assert_eq!(manifest.config["region"], "eu");
}

#[test]
fn a_small_manifest_leaves_the_rest_to_the_settings() {
    let manifest = parse(&with("")).unwrap();
    assert_eq!(manifest.queue, "default");
    assert_eq!(manifest.limits, LimitWishes::default());
    assert_eq!(manifest.retry.or(&RetryPolicy::default()), RetryPolicy::default());
    assert_eq!(manifest.capabilities, CapabilityWishes::default());
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_known_one() {
    refused(
        &with("versoin = \"1.0.0\""),
        "plugin.versoin is not known; did you mean version? allowed are name, version, component, description, queue",
    );
    refused(
        &with("[limit]\nmemory_mib = 1"),
        "limit is not known; did you mean limits? allowed are manifest, plugin, limits, retry, capabilities, config",
    );
    let error = parse(&with("[limits]\nmemory_mb = 1")).unwrap_err().to_string();
    assert!(
        error.starts_with("p/plugin.toml: limits.memory_mb is not known; did you mean memory_mib? allowed"),
        "{error}"
    );
    refused(
        &with("[capabilities]\nsockets = []"),
        "capabilities.sockets is not known; did you mean folders? allowed are http, llm, tools, keyvalue, memory, config, \
         folders",
    );
    refused(
        &with("\"na\\nme\" = 1"),
        "plugin.\"na\\nme\" is not known; did you mean name? allowed are name, version, component, description, queue",
    );
}

#[test]
fn another_manifest_version_is_refused() {
    refused("manifest = 2", "manifest is 2; this host reads manifest = 1");
    refused("manifest = \"1\"", "manifest is the text \"1\"; it must be a whole number");
    refused("[plugin]\nname = \"a\"", "manifest is missing; begin the file with manifest = 1");
    refused("manifest = 1", "plugin is missing; it must be a table with name, version and component");
    refused("manifest = 1\nplugin = 3", "plugin is the number 3; it must be a table, written [plugin]");
}

#[test]
fn what_is_not_toml_is_refused_with_its_line() {
    let error = parse("manifest = 1\n[plugin\n").unwrap_err().to_string();
    assert!(error.starts_with("p/plugin.toml: line 2: not TOML: "), "{error}");
    let twice = parse("manifest = 1\nmanifest = 1\n").unwrap_err().to_string();
    assert!(twice.starts_with("p/plugin.toml: line 2: not TOML: duplicate key"), "{twice}");
    assert!(!error.contains('\n') && !twice.contains('\n'));
}

#[test]
fn name_version_and_component_must_be_there_and_right() {
    let name = "a lower-case letter, then at most 62 lower-case letters, digits or hyphens";
    let version = "a semantic version such as 0.1.0";
    let component = "the path of a file in this folder, such as word_count.wasm";
    let plugin = |text: &str| format!("manifest = 1\n[plugin]\n{text}");
    refused(&plugin(""), &format!("plugin.name is missing; it must be {name}"));
    refused(&plugin("name = \"\""), &format!("plugin.name is empty; it must be {name}"));
    refused(&plugin("name = \"Word_Count\""), &format!("plugin.name is \"Word_Count\"; it must be {name}"));
    refused(&plugin("name = 1"), "plugin.name is the number 1; it must be text, in quotes");
    refused(&plugin("name = \"a\""), &format!("plugin.version is missing; it must be {version}"));
    let error = parse(&plugin("name = \"a\"\nversion = \"1\"")).unwrap_err().to_string();
    assert!(error.starts_with(&format!("p/plugin.toml: plugin.version is \"1\"; it must be {version}: ")), "{error}");
    refused(
        &plugin("name = \"a\"\nversion = \"1.0.0\""),
        &format!("plugin.component is missing; it must be {component}"),
    );
    for path in ["../a.wasm", "/etc/passwd", "x/../../a.wasm", "./a.wasm", ".."] {
        refused(
            &plugin(&format!("name = \"a\"\nversion = \"1.0.0\"\ncomponent = \"{path}\"")),
            &format!("plugin.component is \"{path}\"; it must be {component}"),
        );
    }
}

#[test]
fn description_and_queue_are_checked() {
    refused(
        &with("description = \"\\u001b[2J\""),
        "plugin.description holds a control character; it must be text on one line",
    );
    refused(
        &with(&format!("description = \"{}\"", "x".repeat(1_025))),
        "plugin.description has 1025 bytes; allowed are 1024",
    );
    refused(
        &with("queue = \"a b\""),
        "plugin.queue is \"a b\"; it must be 1 to 128 letters, digits, dots, hyphens or underscores",
    );
}

#[test]
fn limits_are_whole_numbers_from_one() {
    let allowed = "it must be a whole number, 1 or more";
    refused(&with("[limits]\nmemory_mib = 0"), &format!("limits.memory_mib is the number 0; {allowed}"));
    refused(&with("[limits]\nmemory_mib = -1"), &format!("limits.memory_mib is the number -1; {allowed}"));
    refused(&with("[limits]\nmemory_mib = 1.5"), &format!("limits.memory_mib is the number 1.5; {allowed}"));
    refused(&with("[limits]\nmemory_mib = \"64\""), &format!("limits.memory_mib is the text \"64\"; {allowed}"));
    refused(&with("[limits]\nmemory_reserve_mib = true"), &format!("limits.memory_reserve_mib is true; {allowed}"));
}

#[test]
fn retry_is_checked() {
    refused(
        &with("[retry]\nmax_attempts = 101"),
        "retry.max_attempts is the number 101; it must be a whole number from 1 to 100",
    );
    refused(&with("[retry]\nfactor = 0.5"), "retry.factor is the number 0.5; it must be a number from 1 to 100");
    refused(
        &with("[retry]\nbase_seconds = nan"),
        "retry.base_seconds is the number NaN; it must be a number from 0 to 2592000",
    );
    refused(&with("[retry]\non = \"trap\""), "retry.on is the text \"trap\"; it must be a list of texts");
    refused(
        &with("[retry]\non = [\"trap\", \"invalid_input\"]"),
        "retry.on holds \"invalid_input\"; allowed are plugin_error, trap, timeout, cpu_limit, memory_limit, \
         resource_limit, output_too_large, invalid_output, denied, budget_exceeded, internal",
    );
    assert_eq!(parse(&with("[retry]\non = []")).unwrap().retry.on, Some(vec![]));
}

#[test]
fn capabilities_and_config_are_checked() {
    refused(
        &with("[capabilities]\nhttp = [1]"),
        "capabilities.http holds the number 1 at place 1; it must be a list of texts",
    );
    refused(&with("[capabilities]\nllm = [\"a\", \"a\"]"), "capabilities.llm holds \"a\" twice");
    refused(
        &with("[capabilities]\nkeyvalue = [\"\"]"),
        "capabilities.keyvalue holds \"\" at place 1; an entry has 1 to 1024 bytes on one line",
    );
    refused(
        &with("[capabilities]\ntools = [\"a\"]"),
        "capabilities.tools is a list; it must be a table of lists of texts",
    );
    refused(
        &with("[capabilities]\ntools = { search = \"a\" }"),
        "capabilities.tools.search is the text \"a\"; it must be a list of texts",
    );
    refused(&with("[config]\nregion = 1"), "config.region is the number 1; it must be text, in quotes");
}

#[test]
fn the_gist_of_a_broken_manifest_names_its_plugin() {
    let (name, version) = gist(&with("x = 1"));
    assert_eq!((name.as_deref(), version), (Some("a"), Some(Version::new(0, 1, 0))));
    assert_eq!(gist("[plugin"), (None, None));
    assert_eq!(gist("[plugin]\nname = \"A\""), (None, None));
}

#[test]
fn an_error_repeats_no_more_of_a_key_than_of_a_value() {
    let error = parse(&with(&format!("{} = 1\n", "k".repeat(60_000)))).unwrap_err().to_string();
    assert!(error.starts_with("p/plugin.toml: plugin.\"kkkk") && error.len() < 300, "{} bytes", error.len());
}

#[test]
fn a_manifest_nested_without_end_is_refused_and_harms_nobody() {
    for deep in [
        "a.".repeat(30_000) + "b = 1\n",
        "x = ".to_owned() + &"[".repeat(60_000),
        format!("[{}a]\n", "a.".repeat(30_000)),
    ] {
        assert!(parse(&format!("manifest = 1\n{deep}")).is_err());
        assert_eq!(gist(&deep), (None, None));
    }
}

#[test]
fn a_plugin_cannot_have_its_own_calls_recorded_with_their_bodies() {
    for more in ["[calls]\nbodies = [\"llm\"]", "calls.bodies = [\"llm\"]"] {
        let told = parse(&with(more)).unwrap_err().to_string();
        assert!(told.contains("calls"), "{told}");
    }
}

//! Settings as an operator meets them: layers, origins, and what is said when something is wrong.

use super::*;
use std::ffi::OsString;
use std::path::Path;

mod calls;
mod outside;
mod pins;
mod texts;

const MACHINE: Machine = Machine { cores: 4, memory_mib: 8_192, mappings: 65_530 };

/// A folder with an `agentry.toml`, and what else is read.
struct Setup {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Setup {
    fn new(toml: &str) -> Setup {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("agentry.toml"), toml).unwrap();
        let cwd = folder.path().to_owned();
        Setup { folder, sources: Sources { file: None, flags: vec![], env: vec![], cwd, machine: MACHINE } }
    }

    fn env(mut self, name: &str, value: &str) -> Setup {
        self.sources.env.push((OsString::from(name), OsString::from(value)));
        self
    }

    fn flag(mut self, key: &'static str, flag: &'static str, values: &[&str]) -> Setup {
        self.sources.flags.push(FlagValue { key, flag, values: values.iter().map(|v| (*v).to_owned()).collect() });
        self
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        Settings::load(&self.sources)
    }

    fn settings(&self) -> Settings {
        self.load().unwrap_or_else(|e| panic!("{e}"))
    }

    /// The one problem, with the folder's own path left out.
    fn problem(&self) -> String {
        let error = self.load().expect_err("settings that are wrong");
        assert_eq!(error.problems().len(), 1, "{error}");
        error.to_string().replace(&self.path(""), "FOLDER/")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

fn shown(settings: &Settings, key: &str) -> (String, String) {
    let setting = settings.effective().iter().find(|e| e.key == key).unwrap_or_else(|| panic!("{key}"));
    (setting.text(), setting.origin.to_string())
}

#[test]
fn the_default_file_holds_exactly_the_settings_that_are_read() {
    let settings = Setup::new("").settings();
    insta::assert_snapshot!("defaults", {
        let lines: Vec<String> =
            settings.effective().iter().map(|e| format!("{} = {} <- {}", e.key, e.text(), e.origin)).collect();
        lines.join("\n").replace(&settings.data.dir.parent().unwrap().display().to_string(), "FOLDER")
    });
}

#[test]
fn no_two_settings_share_a_variable() {
    let settings = Setup::new("").settings();
    let mut variables: Vec<String> = settings.effective().iter().map(|e| environment::variable(&e.key)).collect();
    let all = variables.len();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), all);
}

#[test]
fn every_default_has_a_comment() {
    let bare: Vec<&str> = DEFAULTS
        .lines()
        .take_while(|line| !line.starts_with("[limits.max]")) // the same names, described one section above
        .filter(|line| line.contains('=') && !line.starts_with('#') && !line.contains(" # "))
        .collect();
    assert_eq!(bare, Vec::<&str>::new());
}

#[test]
fn the_defaults_of_the_task_are_those_of_the_file() {
    let settings = Setup::new("").settings();
    assert_eq!(settings.retry.policy, RetryPolicy::default());
    assert_eq!(settings.message_limits().body_bytes, MessageLimits::default().body_bytes);
}

#[test]
fn a_later_layer_wins_and_its_origin_is_told() {
    let file = Setup::new("[worker]\nslots = 3");
    assert_eq!(shown(&file.settings(), "worker.slots"), ("3".into(), format!("{}:2", file.path("agentry.toml"))));
    let env = file.env("AGENTRY_WORKER_SLOTS", "4");
    assert_eq!(shown(&env.settings(), "worker.slots"), ("4".into(), "env AGENTRY_WORKER_SLOTS".into()));
    let flag = env.flag("worker.slots", "--slots", &["5"]);
    assert_eq!(shown(&flag.settings(), "worker.slots"), ("5".into(), "flag --slots".into()));
    assert_eq!(flag.settings().worker.slots, 5);
}

#[test]
fn an_empty_value_is_unset() {
    let setup = Setup::new("[worker]\nslots = 3\n[broker]\nprefix = ''").env("AGENTRY_WORKER_SLOTS", "");
    assert_eq!(setup.settings().worker.slots, 3);
    assert_eq!(setup.settings().broker.prefix, "agentry");
}

#[test]
fn a_file_is_named_by_flag_then_variable_then_the_folder() {
    let mut setup = Setup::new("[worker]\nslots = 1").env("AGENTRY_CONFIG", "b.toml");
    std::fs::write(setup.path("b.toml"), "[worker]\nslots = 2").unwrap();
    std::fs::write(setup.path("c.toml"), "[worker]\nslots = 3").unwrap();
    assert_eq!(setup.settings().worker.slots, 2);
    setup.sources.file = Some("c.toml".into());
    assert_eq!(setup.settings().worker.slots, 3);
    setup.sources.file = Some("none.toml".into());
    assert!(setup.problem().starts_with("the settings file FOLDER/none.toml (flag --config) cannot be read: "));
}

#[test]
fn a_relative_path_starts_at_the_file_that_names_it() {
    let mut setup = Setup::new("").env("AGENTRY_DATA_DIR", "from-env");
    std::fs::create_dir(setup.path("etc")).unwrap();
    std::fs::write(setup.path("etc/a.toml"), "[plugins]\ndir = ['./p', '/q']\n[data]\ndir = 'from-file'").unwrap();
    setup.sources.file = Some("etc/a.toml".into());
    let settings = setup.settings();
    assert_eq!(settings.plugins.dirs, [Path::new(&setup.path("etc/p")), Path::new("/q")]);
    assert_eq!(settings.data.dir, Path::new(&setup.path("from-env")));
}

#[test]
fn lists_are_separated_by_commas_in_the_environment() {
    let setup = Setup::new("").env("AGENTRY_BROKER_QUEUES", "a, b,");
    assert_eq!(setup.settings().broker.queues, ["a", "b"]);
    let setup = setup.flag("broker.queues", "--queue", &["c", "d"]);
    assert_eq!(setup.settings().broker.queues, ["c", "d"]);
}

#[test]
fn unknown_names_are_all_reported_with_the_nearest_known_one() {
    let setup = Setup::new("[worker]\nslot = 3\n[brokr]\nurl = 'x'\n").env("AGENTRY_LEASE_TTL", "3");
    let error = setup.load().unwrap_err().to_string().replace(&setup.path(""), "FOLDER/");
    insta::assert_snapshot!(error, @"
    env AGENTRY_LEASE_TTL: unknown variable; did you mean AGENTRY_LEASE_TTL_SECONDS?
    FOLDER/agentry.toml:3: unknown setting brokr; did you mean broker?
    FOLDER/agentry.toml:2: unknown setting worker.slot; did you mean worker.slots?
    ");
}

#[test]
fn every_bad_value_is_one_line_that_names_key_place_and_what_is_allowed() {
    let cases = [
        "[worker]\nslots = 0",
        "[worker]\nslots = 'many'",
        "[worker]\nslots = 2.5",
        "worker = 3",
        "[worker]\nslots = 2\nslots = 3",
        "[worker\nslots = 2",
        "[broker]\nqueues = []",
        "[broker]\nqueues = ['a', 'a']",
        "[broker]\nqueues = ['a.dead']",
        "[broker]\nqueues = [1]",
        "[broker]\nevents = true",
        "[log]\nlevel = 'loud'",
        "[plugins]\nmutable = 'yes'",
        "[api]\nlisten = 'here'",
        "[api]\nlisten = '0.0.0.0:7070'",
        "[api]\nlisten = '0.0.0.0:7070'\ntokens_file = 'tokens'",
        "[api]\ntls_cert = 'cert.pem'",
        "[broker]\nurl = 'amqp://broker'\n[database]\nurl = 'postgres://u@localhost/d'",
        "[broker]\nurl = 'amqps://broker'\n[database]\nurl = 'postgres://u@db/d?sslmode=require'",
        "[retry]\nfactor = 0.5",
        "[retry]\nmax_seconds = 0.5",
        "[limits.default]\nmemory_mib = 1024",
        "[worker]\nmemory_mib = 256",
        "[limits.default]\nmemory = 1024",
        "[queues.other]\nslots = 3",
        "[queues.default]\nack = 'early'",
        "[queues.default]\nslot = 3",
        "[plugins.\"Fetch\"]\nenabled = true",
        "[plugins.fetch]\nenable = true",
        "[plugins.fetch]\nenabled = 'true'",
        "[plugins.fetch]\nlimits.memory_mib = 4096",
        "[plugins.fetch]\nlimits.memory = 1",
        "[plugins.fetch]\ncapabilities.disk = true",
        "[plugins]\nfetch = 3",
    ];
    let told: Vec<String> = cases
        .iter()
        .map(|toml| {
            let problem = Setup::new(toml).problem();
            assert!(!problem.contains('\n'), "{problem}");
            format!("{toml:?}\n    {problem}")
        })
        .collect();
    insta::assert_snapshot!("problems", told.join("\n"));
}

#[test]
fn broker_and_database_are_set_both_or_neither() {
    let one = Setup::new("").env("AGENTRY_BROKER_URL", "amqp://localhost");
    assert!(one.problem().contains("set database.url (AGENTRY_DATABASE_URL) too, or neither"), "{}", one.problem());
    let other = Setup::new("[database]\nurl = 'postgres://u@localhost/d'");
    assert!(other.problem().contains("set broker.url (AGENTRY_BROKER_URL) too, or neither"), "{}", other.problem());
    assert!(matches!(Setup::new("").settings().services(), Services::Embedded));
    let both = one.env("AGENTRY_DATABASE_URL", "postgres://u@localhost/d").settings();
    assert!(matches!(both.services(), Services::External { .. }));
}

#[test]
fn a_secret_is_read_from_a_file_and_shown_nowhere() {
    let setup = Setup::new("[broker]\nurl_file = 'amqp.secret'\n[database]\nurl = 'postgres://u:hunter2@localhost/d'");
    std::fs::write(setup.path("amqp.secret"), "amqp://u:hunter2@localhost/v\n").unwrap();
    let settings = setup.settings();
    assert_eq!(settings.broker.url.as_ref().unwrap().expose(), "amqp://u:hunter2@localhost/v");
    let printed = format!("{settings:?} {:?} {}", settings.startup_lines(), shown(&settings, "database.url").0);
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(shown(&settings, "broker.url").0, "amqp://u:***@localhost/v");
}

#[test]
fn an_error_never_repeats_a_secret() {
    for toml in [
        "[broker]\nurl = 'hunter2'",
        "[broker]\nurl = 'http://u:hunter2@h'",
        "[broker]\nurl = ['hunter2']",
        "[broker]\nurl = { p = 'hunter2' }",
        "[broker]\nurl = 'hunter2",
        "[broker]\nmanagement_url = 'http://u:hunter2@h'",
        "[broker]\nurl_file = 'amqp://u:hunter2@h'",
        "[database]\nurl_file = 'amqp://u:hunter2@h'",
        "[broker]\nurl = 'amqp:/u:hunter2@localhost/v'",
    ] {
        let problem = Setup::new(toml).problem();
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn a_problem_is_one_line_whatever_a_key_is_called() {
    let problem = Setup::new("\"a\\nb\\u001b[2J\" = 1").problem();
    assert_eq!(
        problem,
        "FOLDER/agentry.toml:1: unknown setting a\\u{a}b\\u{1b}[2J; `agentry config show` lists every setting"
    );
}

#[test]
fn the_higher_layer_decides_between_an_address_and_its_file() {
    let setup = Setup::new("[broker]\nurl_file = 'absent'").env("AGENTRY_BROKER_URL", "amqp://localhost:1");
    let setup = setup.env("AGENTRY_DATABASE_URL", "postgres://u@localhost/d");
    assert_eq!(setup.settings().broker.url.unwrap().to_string(), "amqp://localhost:1");
    let setup = setup.env("AGENTRY_BROKER_URL_FILE", "absent");
    assert!(setup.problem().contains("are both set; set one"), "{}", setup.problem());
}

#[test]
fn a_password_in_a_flag_works_and_is_warned_about() {
    let setup = Setup::new("[broker]\nurl = 'amqp://localhost'").flag(
        "database.url",
        "--database-url",
        &["postgres://u:hunter2@localhost/d"],
    );
    let warnings = setup.settings().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("AGENTRY_DATABASE_URL") && !warnings[0].contains("hunter2"), "{warnings:?}");
}

#[test]
fn what_is_allowed_in_the_clear_is_warned_about() {
    let setup = Setup::new(
        "[broker]\nurl = 'amqp://broker'\nplaintext = true\n[database]\nurl = 'postgres://u@db/d'\nplaintext = true\n\
         [api]\nlisten = '0.0.0.0:7070'\ntokens_file = 'tokens'\nplaintext = true",
    );
    let warnings = setup.settings().warnings;
    let allows = ["broker.plaintext", "database.plaintext", "api.plaintext"];
    assert!(allows.iter().all(|key| warnings.iter().any(|line| line.contains(key))), "{warnings:?}");
    // Allowed, and not made use of.
    let setup = Setup::new("[broker]\nplaintext = true\n[database]\nplaintext = true\n[api]\nplaintext = true");
    assert_eq!(setup.settings().warnings, Vec::<String>::new());
}

#[test]
fn a_deadline_beyond_half_of_the_consumer_timeout_is_refused() {
    let setup = Setup::new("[limits.max]\ntimeout_seconds = 901\n");
    setup.settings(); // embedded: there is no broker to take anything back
    let setup =
        setup.env("AGENTRY_BROKER_URL", "amqp://localhost").env("AGENTRY_DATABASE_URL", "postgres://u@localhost/d");
    assert!(setup.problem().contains("lower it to 900"), "{}", setup.problem());
    setup.env("AGENTRY_BROKER_CONSUMER_TIMEOUT_SECONDS", "1802").settings();
    // A queue that acknowledges when it claims has nothing to fear; one beside it that does not is named.
    let claimed = "[limits.max]\ntimeout_seconds = 901\n[queues.slow]\nack = 'claimed'\n[broker]\nqueues = ";
    let services = |queues: &str| {
        let setup = Setup::new(&format!("{claimed}{queues}\n"));
        setup.env("AGENTRY_BROKER_URL", "amqp://localhost").env("AGENTRY_DATABASE_URL", "postgres://u@localhost/d")
    };
    services("['slow']").settings();
    let problem = services("['slow', 'quick']").problem();
    assert!(problem.contains("the queue quick") && problem.contains("[queues.quick]"), "{problem}");
}

#[test]
fn slots_follow_from_the_memory_budget_and_turns_from_cores() {
    let auto = Setup::new("").settings();
    assert_eq!((auto.worker.slots, auto.worker.computing, auto.worker.memory_mib), (4_096, 64, 4_096));
    let small = Setup::new("[worker]\nmemory_mib = 160\n[limits.max]\nmemory_mib = 160").settings();
    assert_eq!((small.worker.slots, small.worker.computing, small.worker.memory_mib), (160, 64, 160));
    let large = Setup::new("[limits.max]\nmemory_mib = 4096").env("AGENTRY_WORKER_MEMORY_MIB", "auto").settings();
    assert_eq!(large.worker.memory_mib, 4_096, "half of the machine's");
    let mut tight = Setup::new("");
    tight.sources.machine.memory_mib = 600;
    assert_eq!(tight.settings().worker.memory_mib, 512, "one task at the ceiling always has room");
}

#[test]
fn automatic_slots_fit_the_addresses_and_the_mappings_of_a_process() {
    let slots = |memory_mib, mappings| {
        let mut setup = Setup::new("");
        (setup.sources.machine.memory_mib, setup.sources.machine.mappings) = (memory_mib, mappings);
        setup.settings().worker.slots
    };
    assert_eq!(slots(1 << 20, u64::MAX), 10_000, "addresses");
    assert_eq!(slots(1 << 20, 65_530), 10_000);
    assert_eq!(slots(1 << 20, 32_000), 4_960, "mappings");
    assert_eq!(slots(1 << 20, 100), 1);
}

#[test]
fn rules_and_queues_are_read_with_their_origins() {
    let setup = Setup::new(
        "[queues.default]\nslots = 8\n[plugins.\"fetch-*\"]\nenabled = false\nconcurrency = 2\n\
         capabilities.http = ['GET https://api.example.com']\nlimits.memory_mib = 256\n",
    );
    let settings = setup.settings();
    assert_eq!(settings.queues["default"].slots, Some(8));
    let rule = &settings.plugins.rules[0];
    assert_eq!((rule.enabled, rule.concurrency, rule.limits["memory_mib"]), (Some(false), Some(2), 256));
    assert_eq!(rule.capabilities["http"], serde_json::json!(["GET https://api.example.com"]));
    let (_, origin) = shown(&settings, "plugins.\"fetch-*\".concurrency");
    assert_eq!(origin, format!("{}:5", setup.path("agentry.toml")));
}

#[test]
fn the_digest_follows_what_holds_and_not_where_it_came_from() {
    let file = Setup::new("[worker]\nslots = 3\n[data]\ndir='/d'\n[plugins]\ndir='/p'").settings().digest();
    let env = Setup::new("[data]\ndir='/d'\n[plugins]\ndir='/p'").env("AGENTRY_WORKER_SLOTS", "3").settings().digest();
    let other = Setup::new("[worker]\nslots = 4\n[data]\ndir='/d'\n[plugins]\ndir='/p'").settings().digest();
    assert_eq!(file, env);
    assert_ne!(file, other);
}

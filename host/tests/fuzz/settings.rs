//! What an operator may set: a file, the environment and flags over one another, with a password somewhere in an address.

use crate::{Share, assert_fit_to_show, draw, while_testing};
use agentry::config::{FlagValue, Machine, Settings, Sources};
use bolero::{Driver, ValueGenerator};
use std::ffi::OsString;
use std::path::Path;

/// The password. It is shown nowhere, however the address around it is mistyped.
const CANARY: &str = "c4n4ry";

/// Addresses as people type them: right, and with the slips that make of a password something else.
const ADDRESSES: &[&str] = &[
    "amqp://u:c4n4ry@h:5672/v",
    "amqps://u:c4n4ry@h/%2f",
    "postgres://u:c4n4ry@h/d",
    "postgresql://h/d?user=u&password=c4n4ry",
    "amqp:/u:c4n4ry@h/v",
    "amqp:u:c4n4ry@h",
    "amqp:///u:c4n4ry@h/v",
    "amqp//u:c4n4ry@h",
    "amqp://u:1/c4n4ry@h/v",
    "amqp://u:1?c4n4ry@h/v",
    "amqp://u:1#c4n4ry@h/v",
    "amqp://u:1?a=b&c4n4ry@h",
    "amqp://u:p@c4n4ry@h/v",
    "amqp://u:c4n4ry@h:x/v",
    "http://u:c4n4ry@h",
    "amqp://u:c4n4ry@",
    "c4n4ry",
    "amqp://:c4n4ry@h",
    "postgres:///d?host=/run&password=c4n4ry",
    "postgres://u:c4n4ry@/d",
    "postgres://h/u:c4n4ry@d",
];
/// What an address is bent with; no piece of it makes a part that is meant to be shown of what was a password.
const SLIPS: &[&str] =
    &["/", ":", " ", "%", "\\", "\t", "[", "]", "'", "\"", "\n", "://", ".", "é", "\u{1b}", "\0", ","];

const LINES: &[&str] = &[
    "prefix = 'x'",
    "queues = ['default', 'slow']",
    "queues = 'a,b'",
    "declare = 'yes'",
    "slots = 0",
    "slots = 'auto'",
    "slots = 99999999999999999999",
    "memory_mib = 1e3",
    "listen = '0.0.0.0:1'",
    "listen = 'localhost:7'",
    "ttl_seconds = -1",
    "base_seconds = 1e308",
    "base_seconds = nan",
    "max_seconds = 0.5",
    "factor = '2.5'",
    "level = 'loud'",
    "dir = ['a', 'a']",
    "timeout_seconds = 604800",
    "memory_mib = 4096",
    "ack = 'claimed'",
    "enabled = false",
    "capabilities.http = ['GET x']",
    "limits.memory_mib = 1",
    "unknown = 1",
    "a.b.c = {}",
    "\"a\\nb\" = 1",
    "when = 1979-05-27",
    "url_file = 'nowhere'",
    "url_file = 'amqp://u:c4n4ry@h'",
];
const SECTIONS: &[&str] = &[
    "[broker]",
    "[database]",
    "[worker]",
    "[api]",
    "[retry]",
    "[limits.default]",
    "[limits.max]",
    "[queues.default]",
    "[queues.\"a\\u001bb\"]",
    "[plugins.\"*\"]",
    "[plugins]",
    "[lease]",
    "[log]",
    "[nonesuch]",
    "[data]",
];
const VARIABLES: &[&str] = &[
    "AGENTRY_BROKER_URL",
    "AGENTRY_DATABASE_URL",
    "AGENTRY_WORKER_SLOTS",
    "AGENTRY_BROKER_QUEUES",
    "AGENTRY_API_LISTEN",
    "AGENTRY_LIMITS_MAX_MEMORY_MIB",
    "AGENTRY_RETRY_BASE_SECONDS",
    "AGENTRY_LOG",
    "AGENTRY_QUEUES_A",
    "AGENTRY_WORKER_SLOT",
    "AGENTRY_SERVICE_HOST",
    "AGENTRY_PORT",
    "AGENTRY_BROKER_DECLARE",
    "AGENTRY_\u{1b}",
];

/// Sections with nothing wrong in them.
const RIGHT: &[&str] = &[
    "[worker]\nslots = 3",
    "[retry]\nmax_seconds = 60.5",
    "[queues.default]\nack = 'claimed'",
    "[log]\nlevel = 'debug'",
    "[lease]\nttl_seconds = 60",
    "[limits.max]\nmemory_mib = 600",
    "[plugins.\"fetch-*\"]\nenabled = false",
];

#[derive(Debug)]
struct Written {
    file: String,
    env: Vec<(String, String)>,
    flags: Vec<(&'static str, &'static str, String)>,
}

struct Layers;

fn address<D: Driver>(driver: &mut D) -> Option<String> {
    let address = draw::one_of(driver, ADDRESSES)?.to_owned();
    if draw::once_in(driver, 2)? {
        return Some(address);
    }
    let mut bent = address;
    for _ in 0..draw::below(driver, 3)? {
        // The password itself stays whole: a half of it could not be told from any other word.
        let within = bent.find(CANARY).unwrap_or(0);
        let at = draw::below(driver, bent.len() + 1)?;
        let at = bent.floor_char_boundary(if (within + 1..within + CANARY.len()).contains(&at) { within } else { at });
        bent.insert_str(at, draw::one_of(driver, SLIPS)?);
    }
    Some(bent)
}

impl ValueGenerator for Layers {
    type Output = Written;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Written> {
        let mut file = String::new();
        if draw::once_in(driver, 2)? {
            let quoted = |text: String| serde_json::to_string(&text).unwrap();
            file = format!(
                "[broker]\nurl = {}\n[database]\nurl = {}\n",
                quoted(address(driver)?),
                quoted(address(driver)?)
            );
        }
        for _ in 0..draw::below(driver, 5)? {
            file += draw::one_of(driver, SECTIONS)?;
            file.push('\n');
            for _ in 0..draw::below(driver, 3)? {
                file += &draw::text_or(driver, LINES)?;
                file.push('\n');
            }
        }
        if draw::once_in(driver, 2)? {
            // Most settings are right, and only then is it seen what is made of them.
            file = format!("{}\n", draw::one_of(driver, RIGHT)?);
            if draw::once_in(driver, 2)? {
                file += "[broker]\nurl = 'amqp://u:c4n4ry@h/v'\n[database]\nurl = 'postgres://u:c4n4ry@h/d?password=c4n4ry'\n";
            }
        }
        let mut env = Vec::new();
        for _ in 0..[0, 0, 0, 1, 2, 3][draw::below(driver, 6)?] {
            let name = draw::one_of(driver, VARIABLES)?.to_owned();
            let value = match name.ends_with("_URL") {
                true => address(driver)?,
                false => {
                    draw::text_or(driver, &["", "7", "auto", "true", "0.5", "a,b", "127.0.0.1:0", "[::]:1", "info"])?
                }
            };
            // No system has a variable with NUL in it.
            env.push((name, value.replace('\0', "")));
        }
        let mut flags = Vec::new();
        if draw::once_in(driver, 4)? {
            flags.push(("broker.url", "--broker-url", address(driver)?));
        }
        if draw::once_in(driver, 4)? {
            flags.push(("worker.slots", "--slots", draw::text_or(driver, &["1", "10000", "10001"])?));
        }
        Some(Written { file, env, flags })
    }
}

/// The ranges that `host/docs/settings.md` gives.
fn assert_within_range(settings: &Settings) {
    assert!((1..=10_000).contains(&settings.worker.slots) && settings.worker.memory_mib >= 16);
    assert!(!settings.broker.queues.is_empty() && !settings.plugins.dirs.is_empty());
    assert!(settings.plugins.dirs.iter().all(|dir| dir.is_absolute()) && settings.data.dir.is_absolute());
    assert!(settings.api.listen.ip().is_loopback() || settings.api.tokens_file.is_some());
    assert_eq!(settings.broker.url.is_some(), settings.database.url.is_some(), "both or neither");
    let policy = &settings.retry.policy;
    assert!(policy.base <= policy.max && (1.0..=100.0).contains(&policy.factor));
    let (default, max) = (settings.limits.default.numbers(), settings.limits.max.numbers());
    assert!(default.iter().zip(max).all(|((_, value), (_, ceiling))| (1..=ceiling).contains(value)));
    assert!(settings.queues.keys().all(|queue| settings.broker.queues.contains(queue)));
    assert!(settings.effective().iter().all(|setting| !setting.key.is_empty()));
}

fn load(folder: &Path, written: &Written) -> Result<Settings, String> {
    std::fs::write(folder.join("agentry.toml"), &written.file).unwrap();
    let os = |text: &String| OsString::from(text);
    let sources = Sources {
        file: None,
        flags: written.flags.iter().map(|(key, flag, v)| FlagValue { key, flag, values: vec![v.clone()] }).collect(),
        env: written.env.iter().map(|(name, value)| (os(name), os(value))).collect(),
        cwd: folder.to_owned(),
        machine: Machine { cores: 4, memory_mib: 8_192, mappings: 65_530 },
    };
    Settings::load(&sources).map_err(|error| {
        assert!(!error.problems().is_empty());
        for problem in error.problems() {
            assert_fit_to_show(&problem.to_string(), usize::MAX);
        }
        format!("{error}\n{error:?}")
    })
}

#[test]
fn any_settings_are_within_range_or_a_problem_on_one_line_and_a_password_is_shown_by_neither() {
    let folder = tempfile::tempdir().unwrap();
    let share = Share::default();
    bolero::check!().with_test_time(while_testing()).with_generator(Layers).for_each(|written| {
        let loaded = load(folder.path(), written);
        share.count(loaded.is_ok());
        let shown = match loaded {
            Err(problems) => problems,
            Ok(settings) => {
                assert_within_range(&settings);
                let effective: Vec<String> =
                    settings.effective().iter().map(|e| format!("{} {e:?}", e.text())).collect();
                format!("{settings:?} {effective:?} {:?}", settings.startup_lines())
            }
        };
        if let Some(at) = shown.find(CANARY) {
            panic!("the password is shown: …{}", &shown[shown.floor_char_boundary(at.saturating_sub(80))..]);
        }
    });
    share.assert_fair();
}

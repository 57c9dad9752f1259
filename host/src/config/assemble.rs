//! From merged layers to [`Settings`]: which setting takes what, and which ones belong together.

use super::file::Section;
use super::layers::Layers;
use super::limits::limits;
use super::origin::{ConfigError, Origin, Problem};
use super::reader::{Effective, Reader};
use super::{
    Ack, Api, Broker, Data, Database, Lease, Limits, Log, LogFormat, Machine, Plugins, Queue, Retry, Settings,
    Shutdown, Tls, Worker, calls, outside, plaintext, plugins, prices,
};
use crate::broker::amqp::{AmqpAddress, Trust};
use crate::db::Retention;
use crate::task::RetryPolicy;
use crate::task::limits::MAX_ATTEMPTS;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most guests in memory: their linear memories reserve 4 GiB of addresses each, and a process has 128 TiB.
const MOST_SLOTS: u32 = 10_000;
/// A guest that waits occupies far less than this; one that computes reserves more, and others wait for it.
const MIB_PER_SLOT: u64 = 1;
/// Mappings of four slots: of each its stack, its guard page, and a little more than four of a linear memory in use.
const MAPPINGS_OF_FOUR: u64 = 25;
/// Mappings of the rest of the process.
const MAPPINGS_BESIDE: u64 = 1_000;
/// Guests that compute, for each core. More than one, since a guest may block its thread in short host calls, and so that
/// there is always one at hand.
const COMPUTING_PER_CORE: u32 = 16;

pub(super) fn assemble(mut layers: Layers, machine: Machine) -> Result<Settings, ConfigError> {
    let mut read = Reader::new(&mut layers);
    let broker = broker(&mut read)?;
    let database = database(&mut read)?;
    both_or_neither(&read, broker.url.is_some(), database.url.is_some())?;
    let of_broker = broker.url.as_ref().and_then(plaintext::broker);
    let of_management = broker.management_url.as_ref().and_then(plaintext::management);
    let mut exposed = plaintext::check(&mut read, [of_broker, of_management], "broker.plaintext")?;
    let of_database = database.url.as_ref().and_then(plaintext::database);
    exposed.extend(plaintext::check(&mut read, [of_database], "database.plaintext")?);
    let api = api(&mut read)?;
    exposed.extend(plaintext::check(&mut read, [plaintext::api(api.listen, api.tls.is_some())], "api.plaintext")?);
    let limits = limits(&mut read)?;
    let queues = queues(&layers, &broker)?;
    if broker.url.is_some() {
        within_consumer_timeout(&read, &broker, &limits, &queues)?;
    }
    let dirs = read.paths("plugins.dir")?;
    let calls = calls::read(&mut read)?;
    let outside = outside::read(&mut read, &layers, &limits)?;
    let mut settings = Settings {
        data: Data { dir: read.path("data.dir")?.unwrap_or_default() },
        plugins: Plugins {
            dirs,
            mutable: read.flag("plugins.mutable")?,
            unknown_grace: read.seconds("plugins.unknown_grace_seconds", 0..=86_400)?,
            rules: plugins::rules(&layers.tables_of(Section::Plugins), &limits.max, &calls)?,
        },
        api,
        worker: worker(&mut read, machine, &limits)?,
        lease: Lease { ttl: read.seconds("lease.ttl_seconds", 1..=3_600)? },
        shutdown: Shutdown { grace: read.seconds("shutdown.grace_seconds", 0..=3_600)? },
        retention: Retention {
            completed: read.days("retention.completed_days", 0..=36_500)?,
            failed: read.days("retention.failed_days", 0..=36_500)?,
            dead: read.days("retention.dead_days", 0..=36_500)?,
            audit: read.days("retention.audit_days", 1..=36_500)?,
        },
        retry: retry(&mut read)?,
        log: Log {
            level: read
                .choice("log.level", &["error", "warn", "info", "debug", "trace"].map(|level| (level, level)))?,
            directives: layers.environment.log.clone(),
            format: read.choice("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])?,
            warn_pending_after: read.seconds("log.warn_pending_after_seconds", 0..=86_400)?,
        },
        prices: prices::read(&mut read, &layers)?,
        queues,
        calls,
        outside,
        file: layers.file.clone(),
        references: layers.variables.used(),
        warnings: Vec::new(),
        effective: Vec::new(),
        broker,
        database,
        limits,
    };
    if let Some(key) = read.unread().next() {
        return Err(Problem(format!("{key}: config.default.toml, built in, names it and nothing reads it")).into());
    }
    settings.warnings = warnings(&settings, &read);
    settings.warnings.extend(exposed);
    settings.warnings.extend(agentry_outbound::unused_proxy(|name| layers.variables.value_of(name).map(Into::into)));
    settings.references.files.extend(read.files);
    settings.references.files.extend(settings.api.tokens_file.clone());
    settings.references.files.extend(settings.api.tls.as_ref().map(|tls| tls.key.clone()));
    settings.references.files.extend(settings.broker.trust.key_file.clone());
    settings.effective = effective(read.shown, &layers);
    Ok(settings)
}

fn broker(read: &mut Reader) -> Result<Broker, Problem> {
    let url = read.secret("broker.url", &["amqp", "amqps"], "amqp://user:password@host:5672/vhost")?;
    let invalid = |read: &Reader, what: String| Problem::invalid("broker.url", &read.origin("broker.url"), what);
    let address = url.as_ref().map(|url| url.expose().parse::<AmqpAddress>()).transpose();
    let address = address.map_err(|what| invalid(read, what))?;
    let trust = Trust {
        ca_file: read.path("broker.ca_file")?,
        cert_file: read.path("broker.cert_file")?,
        key_file: read.path("broker.key_file")?,
        name: None,
    };
    let trust = address.as_ref().map(|address| address.trust(&trust)).transpose();
    let trust = trust.map_err(|what| invalid(read, what))?.unwrap_or_default();
    let prefix = read.word("broker.prefix", NAME_RULE, is_name)?;
    let queues = read.list("broker.queues")?;
    if let Some(bad) = queues.iter().find(|q| !is_name(q)) {
        let what = format!("{bad:?} is not allowed; a queue's name takes {NAME_RULE}");
        return Err(Problem::invalid("broker.queues", &read.origin("broker.queues"), what));
    }
    let declare = read.flag("broker.declare")?;
    if read.flag("broker.events")? {
        return Err(not_in_this_build("broker.events", &read.origin("broker.events")));
    }
    let management_url = read.secret("broker.management_url", &["http", "https"], "http://user:password@host:15672")?;
    let consumer_timeout = read.seconds("broker.consumer_timeout_seconds", 60..=31_536_000)?;
    Ok(Broker { url, management_url, trust, prefix, queues, declare, consumer_timeout })
}

fn database(read: &mut Reader) -> Result<Database, Problem> {
    let takes = "lower-case letters, digits and underscores, at most 63, a letter or underscore first";
    let is_schema = |text: &str| {
        let bytes = text.as_bytes();
        (1..=63).contains(&bytes.len())
            && !bytes[0].is_ascii_digit()
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_')
    };
    let url =
        read.secret("database.url", &["postgres", "postgresql"], "postgres://user:password@host:5432/database")?;
    if let Some(Err(what)) = url.as_ref().map(|url| crate::db::postgres::check(url.expose())) {
        let what = what.strip_prefix("database.url ").unwrap_or(&what).to_owned();
        return Err(Problem::invalid("database.url", &read.origin("database.url"), format_args!("it {what}")));
    }
    Ok(Database {
        url,
        schema: read.word("database.schema", takes, is_schema)?,
        migrate: read.flag("database.migrate")?,
        pool: read.number("database.pool", 2..=1_000)?,
        timeout: read.seconds("database.timeout_seconds", 1..=600)?,
    })
}

/// One alone would run on half of what the operator meant.
fn both_or_neither(read: &Reader, broker: bool, database: bool) -> Result<(), Problem> {
    let (set, missing) = match (broker, database) {
        (true, false) => ("broker.url", "database.url"),
        (false, true) => ("database.url", "broker.url"),
        _ => return Ok(()),
    };
    let variable = super::environment::variable(missing);
    let what = format!(
        "it is set and {missing} is not; set {missing} ({variable}) too, or neither to run embedded in this process alone"
    );
    Err(Problem::invalid(set, &read.origin(set), what))
}

/// A delivery that is unacknowledged for longer than the broker's `consumer_timeout` closes the channel, and comes
/// again, and again.
fn within_consumer_timeout(
    read: &Reader,
    broker: &Broker,
    limits: &Limits,
    queues: &BTreeMap<String, Queue>,
) -> Result<(), Problem> {
    let key = "limits.max.timeout_seconds";
    let half = broker.consumer_timeout.as_secs() / 2;
    if u64::from(limits.max.timeout_seconds) <= half {
        return Ok(());
    }
    let settled = |queue: &&String| queues.get(*queue).map_or(Ack::Settled, |q| q.ack) == Ack::Settled;
    let Some(queue) = broker.queues.iter().find(settled) else { return Ok(()) };
    let what = format!(
        "{} is more than half of broker.consumer_timeout_seconds ({}): the broker would take deliveries of the queue \
         {queue} back while they run; lower it to {half}, or set ack = \"claimed\" in [queues.{queue}], or raise \
         consumer_timeout at the broker and say so in broker.consumer_timeout_seconds",
        limits.max.timeout_seconds,
        broker.consumer_timeout.as_secs(),
    );
    Err(Problem::invalid(key, &read.origin(key), what))
}

fn api(read: &mut Reader) -> Result<Api, Problem> {
    let listen = read.address("api.listen")?;
    let tokens_file = read.path("api.tokens_file")?;
    if !listen.ip().is_loopback() && tokens_file.is_none() {
        let what = format!(
            "{listen} is reachable from other machines and api.tokens_file is not set; set it, or listen on 127.0.0.1"
        );
        return Err(Problem::invalid("api.listen", &read.origin("api.listen"), what));
    }
    let body_bytes = read.number("api.body_mib", 1..=1_024u32)? as usize * 1_024 * 1_024;
    let connections = read.number("api.connections", 8..=100_000u32)? as usize;
    let tls = match (read.path("api.tls_cert")?, read.path("api.tls_key")?) {
        (Some(certificate), Some(key)) => Some(Tls { certificate, key }),
        (None, None) => None,
        (certificate, _) => {
            let (set, missing) =
                if certificate.is_some() { ("api.tls_cert", "api.tls_key") } else { ("api.tls_key", "api.tls_cert") };
            let what = format!("it is set and {missing} is not; set both, or neither");
            return Err(Problem::invalid(set, &read.origin(set), what));
        }
    };
    Ok(Api { listen, tokens_file, tls, connections, body_bytes })
}

/// Mappings that a process with so many slots needs when all are in use.
pub fn mappings(slots: u32) -> u64 {
    (u64::from(slots) * MAPPINGS_OF_FOUR).div_ceil(4) + MAPPINGS_BESIDE
}

fn worker(read: &mut Reader, machine: Machine, limits: &Limits) -> Result<Worker, Problem> {
    let (key, ceiling, most) = ("worker.memory_mib", "limits.max.memory_mib", limits.max.memory_mib);
    let memory_mib = read.number_or_auto(key, 1..=16_777_216u64, (machine.memory_mib / 2).max(most))?;
    if memory_mib < most {
        let what = format!(
            "{memory_mib} is less than {ceiling} ({most}, {}): a task that needs as much could never run; raise it, or lower \
             that",
            read.origin(ceiling)
        );
        return Err(Problem::invalid(key, &read.origin(key), what));
    }
    // The inverse of `mappings`.
    let mapped = machine.mappings.saturating_sub(MAPPINGS_BESIDE).saturating_mul(4) / MAPPINGS_OF_FOUR;
    let slots = (memory_mib / MIB_PER_SLOT).min(mapped).max(1);
    let slots = u32::try_from(slots).map_or(MOST_SLOTS, |slots| slots.min(MOST_SLOTS));
    let slots = read.number_or_auto("worker.slots", 1..=MOST_SLOTS, slots)?;
    let computing = machine.cores.saturating_mul(COMPUTING_PER_CORE).clamp(1, MOST_SLOTS);
    let computing = read.number_or_auto("worker.computing", 1..=MOST_SLOTS, computing)?;
    let claim_after = Duration::from_millis(read.number("worker.claim_after_ms", 0..=10_000u64)?);
    Ok(Worker { slots, computing, memory_mib, claim_after })
}

fn retry(read: &mut Reader) -> Result<Retry, Problem> {
    let base = read.decimal("retry.base_seconds", 0.0..=86_400.0)?;
    let max = read.decimal("retry.max_seconds", 0.0..=2_592_000.0)?;
    if max < base {
        let what = format!("{max} is less than retry.base_seconds ({base})");
        return Err(Problem::invalid("retry.max_seconds", &read.origin("retry.max_seconds"), what));
    }
    Ok(Retry {
        policy: RetryPolicy {
            max_attempts: read.number("retry.max_attempts", MAX_ATTEMPTS)?,
            base: Duration::from_secs_f64(base),
            factor: read.decimal("retry.factor", 1.0..=100.0)?,
            max: Duration::from_secs_f64(max),
            on: None,
        },
        max_snoozes: read.number("retry.max_snoozes", 0..=1_000_000)?,
    })
}

fn queues(layers: &Layers, broker: &Broker) -> Result<BTreeMap<String, Queue>, Problem> {
    let mut queues = BTreeMap::new();
    for table in layers.tables_of(Section::Queues) {
        if !broker.queues.contains(&table.name) {
            let known = broker.queues.join(", ");
            let what = format!("{} is none of broker.queues ({known}); add it there, or remove it", table.title());
            return Err(Problem(format!("{}: {what}", table.origin)));
        }
        table.only(&["ack", "slots"])?;
        let mut ack = Ack::default();
        if let Some((value, origin)) = table.values.get("ack") {
            ack = match value.0.as_str() {
                Some("settled") => Ack::Settled,
                Some("claimed") => Ack::Claimed,
                _ => {
                    let what = format_args!("{} is not allowed; it takes \"settled\" or \"claimed\"", value.0);
                    return Err(table.invalid("ack", origin, what));
                }
            };
        }
        let slots = table.number("slots", 1..=10_000)?.and_then(|n| u32::try_from(n).ok());
        queues.insert(table.name.clone(), Queue { ack, slots });
    }
    Ok(queues)
}

/// The settings by name, and what stands in tables after them.
fn effective(mut shown: Vec<Effective>, layers: &Layers) -> Vec<Effective> {
    for table in &layers.tables {
        for (key, (value, origin)) in &table.values {
            let secret = table.section.is_secret(key);
            shown.push(Effective {
                key: table.key(key),
                value: if secret { json!("***") } else { value.0.clone() },
                origin: origin.clone(),
                note: None,
            });
        }
    }
    shown.sort_by(|a, b| a.key.cmp(&b.key));
    shown
}

fn warnings(settings: &Settings, read: &Reader) -> Vec<String> {
    let mut warnings = Vec::new();
    for (key, url) in [("broker.url", &settings.broker.url), ("database.url", &settings.database.url)] {
        if let (Some(url), Origin::Flag(flag)) = (url, read.origin(key))
            && url.has_password()
        {
            let variable = super::environment::variable(key);
            warnings.push(format!(
                "{flag} holds a password, which every user of this machine can read in the list of processes; use \
                 {variable} or {key}_file"
            ));
        }
    }
    warnings
}

fn not_in_this_build(key: &str, origin: &Origin) -> Problem {
    Problem::invalid(key, origin, "it is not available in this build; remove it")
}

/// What queues and the prefix may be called; they become parts of AMQP names and routing keys.
const NAME_RULE: &str = "1 to 63 lower-case letters, digits, hyphens and underscores, a letter or digit first";

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && (bytes[0].is_ascii_lowercase() || bytes[0].is_ascii_digit())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
}

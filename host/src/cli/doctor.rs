//! `agentry doctor`.

use super::client::{ABSENT, Client};
use super::{DEFAULT_SERVER, Failed, Server, escape, output, sources};
use crate::config::{Origin, Settings};
use crate::doctor::{self, Check, Daemon, Report, Status, Subject};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Columns of the output.
const WIDTH: usize = 80;
/// Columns of the status, and of the name of a check.
const STATUS: usize = 9;
const NAME: usize = 23;
/// The time that the daemon may take to say whether it is ready.
const READY: Duration = Duration::from_secs(4);

/// Checks everything that a daemon needs: settings, services, plugins, this machine, hosts.
///
/// Run it before the first `agentry up`, or whenever something is odd. It changes nothing, works without a daemon and with either service
/// away, and takes at most 15 seconds. Each finding has its remedy. The exit code is 1 if a check failed.
#[derive(clap::Args)]
pub struct Doctor {
    /// Ask language model providers and tool servers as well: one request each, without tokens; tool servers are started.
    #[arg(long)]
    outside: bool,
    #[command(flatten)]
    server: Server,
}

impl Doctor {
    pub async fn run(self, file: Option<PathBuf>) -> Result<(), Failed> {
        let settings = Settings::load(&sources(file, Vec::new())?);
        let server = Server { server: address(&self.server.server, settings.as_ref().ok()), ..self.server };
        let client = Client::new(&server)?;
        let daemon = async move {
            match client.readiness(READY).await {
                Ok(answer) => answers(client.address(), &answer),
                Err(failed) => {
                    let listens = !failed.message.starts_with(ABSENT);
                    Daemon::Silent { reason: failed.message, listens }
                }
            }
        };
        let subject = Subject { settings, daemon: Box::pin(daemon), outside: self.outside };
        let report = match tokio::time::timeout(doctor::LONGEST, doctor::examine(subject)).await {
            Ok(report) => report,
            Err(_) => {
                let seconds = doctor::LONGEST.as_secs();
                return Err(Failed { code: 1, message: format!("the checks did not end within {seconds} s") });
            }
        };
        match server.json {
            true => output::json(&as_json(&report))?,
            false => output::data(&shown(&report))?,
        }
        match report.status {
            Status::Failed => Err(Failed { code: 1, message: String::new() }),
            _ => Ok(()),
        }
    }
}

/// The address of the daemon: `api.listen` where no other was given.
fn address(given: &str, settings: Option<&Settings>) -> String {
    let Some(settings) = settings else { return given.to_owned() };
    let listen = settings.api.listen;
    if given != DEFAULT_SERVER || *settings.origin("api.listen") == Origin::Default || listen.port() == 0 {
        return given.to_owned();
    }
    let scheme = if settings.api.tls.is_some() { "https" } else { "http" };
    let host = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    format!("{scheme}://{}", SocketAddr::new(host, listen.port()))
}

/// The answer of `/readyz`.
fn answers(address: &str, answer: &Value) -> Daemon {
    let text = |reason: &Value, name: &str| reason[name].as_str().unwrap_or_default().to_owned();
    let reasons = answer["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    Daemon::Answers {
        address: address.to_owned(),
        ready: answer["ready"] == true,
        reasons: reasons.iter().map(|reason| (text(reason, "code"), text(reason, "message"))).collect(),
    }
}

fn as_json(report: &Report) -> Value {
    let counts: serde_json::Map<String, Value> = [Status::Ok, Status::Warning, Status::Failed, Status::Skipped]
        .into_iter()
        .map(|status| (status.as_str().to_owned(), json!(report.count(status))))
        .collect();
    let mut value = serde_json::to_value(report).unwrap_or_default();
    value["counts"] = counts.into();
    value
}

/// One line for each check, then what was found: failures first.
fn shown(report: &Report) -> String {
    let file = report.file.as_deref().unwrap_or("no file");
    let mut text = wrapped(&format!("agentry {}, settings: {file}", report.build), "");
    text += "\n";
    for check in &report.checks {
        let head = format!("{:<STATUS$}{:<NAME$}", check.status.as_str(), check.name);
        text += &line(&format!("{head}{}", summary(check)));
    }
    text += &own_settings(report);
    let of = |status| report.count(status);
    text += &format!(
        "\n{} ok, {} skipped, {} with warnings, {} failed; took {:.1} s\n",
        of(Status::Ok),
        of(Status::Skipped),
        of(Status::Warning),
        of(Status::Failed),
        report.took_ms as f64 / 1_000.0
    );
    for status in [Status::Failed, Status::Warning, Status::Skipped] {
        for check in &report.checks {
            let findings = check.findings.iter().filter(|finding| finding.status == status);
            // A part that is skipped for want of another one needs no remedy of its own.
            for finding in findings.filter(|finding| status != Status::Skipped || finding.remedy.is_some()) {
                text += &format!("\n{:<STATUS$}{}\n", status.as_str(), check.name);
                text += &wrapped(&finding.message, "         ");
                if let Some(remedy) = &finding.remedy {
                    text += &wrapped(&format!("remedy: {remedy}"), "         ");
                }
            }
        }
    }
    text
}

fn summary(check: &Check) -> &str {
    let first = check.findings.iter().max_by_key(|finding| finding.status).filter(|_| check.summary.is_empty());
    first.map_or(check.summary.as_str(), |finding| finding.message.as_str())
}

/// Settings that differ from the defaults, each with its origin.
fn own_settings(report: &Report) -> String {
    let own =
        report.checks.iter().find(|check| check.name == "settings").and_then(|check| check.facts["own"].as_array());
    let Some(own) = own.filter(|own| !own.is_empty()) else { return String::new() };
    let mut text = "\nsettings that differ from the defaults:\n".to_owned();
    for setting in own {
        let [key, value, origin] = ["key", "text", "origin"].map(|name| setting[name].as_str().unwrap_or_default());
        text += &wrapped(&format!("{key} = {value} ({origin})"), "  ");
    }
    text
}

/// One line of at most [`WIDTH`] columns; what is cut is told below or in `--json`.
fn line(text: &str) -> String {
    let text = escape::line(text);
    match text.chars().count() > WIDTH {
        true => format!("{}…\n", text.chars().take(WIDTH - 1).collect::<String>().trim_end()),
        false => format!("{}\n", text.trim_end()),
    }
}

/// Lines of at most [`WIDTH`] columns, broken at spaces. A word that is longer stands on a line of its own.
fn wrapped(text: &str, indent: &str) -> String {
    let (mut lines, mut current) = (String::new(), String::new());
    for word in escape::line(text).split(' ') {
        let width = indent.chars().count() + current.chars().count() + 1 + word.chars().count();
        if !current.is_empty() && width > WIDTH {
            lines += &format!("{indent}{current}\n");
            current.clear();
        }
        if !current.is_empty() {
            current.push(' ');
        }
        current += word;
    }
    lines + &format!("{indent}{current}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Finding;

    fn report() -> Report {
        let finding = |status, message: &str, remedy: Option<&str>| Finding {
            status,
            message: message.into(),
            remedy: remedy.map(str::to_owned),
        };
        let check = |name, status, summary: &str, findings, facts| Check {
            name,
            status,
            summary: summary.into(),
            findings,
            facts,
        };
        let own =
            json!({"own": [{"key": "broker.url", "text": "amqp://u:***@host/", "origin": "env AGENTRY_BROKER_URL"}]});
        let long = "postgres@db.example:5432/agentry, schema agentry: database unavailable: no connection to it: \
                    Connection refused (os error 111)";
        Report {
            status: Status::Failed,
            build: "0.1.0",
            at: "2026-01-02T03:04:05Z".parse().unwrap(),
            took_ms: 1_234,
            file: Some("/etc/agentry.toml".into()),
            checks: vec![
                check("settings", Status::Ok, "1 differs from the defaults", vec![], own),
                check(
                    "database.connection",
                    Status::Failed,
                    "",
                    vec![finding(Status::Failed, long, Some("start its server, or correct database.url"))],
                    json!({}),
                ),
                check(
                    "database.schema",
                    Status::Skipped,
                    "",
                    vec![finding(Status::Skipped, "the database does not respond", None)],
                    json!({}),
                ),
                check(
                    "broker.management",
                    Status::Skipped,
                    "",
                    vec![finding(Status::Skipped, "broker.management_url is not set", Some("set it"))],
                    json!({}),
                ),
                check(
                    "hosts",
                    Status::Warning,
                    "no host \u{1b}[31m",
                    vec![finding(Status::Warning, "no host has a lease", Some("start a daemon (`agentry up`)"))],
                    json!({}),
                ),
            ],
        }
    }

    #[test]
    fn failures_come_first_within_80_columns_and_text_from_elsewhere_is_escaped() {
        let text = shown(&report());
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(!text.contains('\u{1b}'));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn shape_of_the_json_is_stable() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&as_json(&report())).unwrap());
    }
}

//! The daemon at `--server`.

use super::Check;
use serde_json::json;

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// No answer.
    Silent {
        /// The reason.
        reason: String,
        /// Something listens at the address.
        listens: bool,
    },
    /// The answer of `/readyz`.
    Answers {
        /// Its address.
        address: String,
        /// It takes tasks.
        ready: bool,
        /// Code and message of each reason; empty without a token that may read.
        reasons: Vec<(String, String)>,
    },
}

pub(super) fn judge(daemon: Daemon) -> Check {
    let name = "daemon";
    let (address, ready, reasons) = match daemon {
        Daemon::Silent { reason, listens: true } => {
            let remedy = "see the daemon's log; one that was stopped (SIGSTOP) or that has no processor time accepts connections and is silent";
            return Check::failed(name, reason, remedy);
        }
        Daemon::Silent { reason, listens: false } => {
            let mut check = Check::new(name, "");
            check.skip(reason, Some("name the address of a running daemon with --server to check it as well"));
            return check;
        }
        Daemon::Answers { address, ready, reasons } => (address, ready, reasons),
    };
    let listed: Vec<_> = reasons.iter().map(|(code, message)| json!({"code": code, "message": message})).collect();
    let facts = json!({"address": address, "ready": ready, "reasons": listed});
    let word = if ready { "ready" } else { "not ready" };
    let mut check = Check::new(name, format!("{address} is {word}")).with(facts);
    for (code, message) in &reasons {
        let text = format!("it reports {code:?}: {message}");
        match ready {
            true => check.warn(text, remedy(code)),
            false => check.fail(text, remedy(code)),
        }
    }
    if !ready && reasons.is_empty() {
        check.fail("it is not ready", "set AGENTRY_TOKEN to a token that may read, to see the reasons of /readyz");
    }
    check
}

/// By the codes of `/readyz`.
fn remedy(code: &str) -> &'static str {
    match code {
        "plugins" | "starting" => "wait until it has started; its log says what it waits for",
        "database" | "lease" => {
            "see database.connection above; the daemon goes on by itself once the database responds"
        }
        "broker" | "consumer" => "see broker.connection and broker.topology above; the daemon reconnects by itself",
        "stalled" => {
            "see broker.queues and broker.management above; restart the daemon if its consumer stays without deliveries"
        }
        "closing" => "start it again (`agentry up`)",
        "tools" => "see the server's own log; `agentry doctor --outside` asks each server",
        "publishing" => {
            "free memory or disk on the broker (`rabbitmqctl list_alarms`), or repair the queue that the message names"
        }
        _ => "see the daemon's log",
    }
}

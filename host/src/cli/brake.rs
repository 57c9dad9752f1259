//! Brakes, as `queue`, `plugin` and `host` set and release them.

use super::client::{Client, encode, rows};
use super::output;
use super::{Failed, Server};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long the hosts may take to heed a change before the command says which do not.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often they are asked.
const LOOK: Duration = Duration::from_millis(200);

/// A target to hold.
#[derive(clap::Args)]
pub struct Set {
    /// Its name (of a plugin also NAME@VERSION; of a host its id).
    target: String,
    /// The reason, which is shown wherever the brake is.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    server: Server,
}

/// A target to release.
#[derive(clap::Args)]
pub struct Release {
    /// Its name (of a plugin also NAME@VERSION; of a host its id).
    target: String,
    #[command(flatten)]
    server: Server,
}

impl Set {
    /// Set it under `/v1/PLACE/TARGET/VERB`; `done` is what it is then.
    pub async fn run(self, place: &str, verb: &str, done: &str) -> Result<(), Failed> {
        let body = self.reason.map(|reason| json!({"reason": reason}).to_string()).unwrap_or_default();
        change(&self.server, &format!("/v1/{place}/{}/{verb}", encode(&self.target)), body, &self.target, done).await
    }
}

impl Release {
    /// Release it under `/v1/PLACE/TARGET/VERB`; `done` is what it is then.
    pub async fn run(self, place: &str, verb: &str, done: &str) -> Result<(), Failed> {
        let path = format!("/v1/{place}/{}/{verb}", encode(&self.target));
        change(&self.server, &path, String::new(), &self.target, done).await
    }
}

async fn change(server: &Server, path: &str, body: String, target: &str, done: &str) -> Result<(), Failed> {
    let client = Client::new(server)?;
    let mut answer = client.post(path, body).await?;
    let began = Instant::now();
    // A host that does not heed it yet may begin a task meanwhile: the command ends once none does.
    while answer["changed"] == true && !rows(&answer, "behind").is_empty() && began.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
        let now = client.get("/v1/brakes").await?;
        (answer["behind"], answer["unaware"]) = (now["behind"].clone(), now["unaware"].clone());
    }
    warn(&answer);
    if server.json {
        return output::json(&answer);
    }
    let target = super::escape::line(target);
    let unchanged = if answer["changed"] == true { "" } else { " already" };
    output::data(&format!("{target} is{unchanged} {done}"))
}

/// Say which live hosts do not heed the brakes.
pub fn warn(answer: &Value) {
    for host in rows(answer, "behind").iter().filter_map(Value::as_str) {
        output::say(&format!("warning: {} does not heed it yet; see its /readyz", super::escape::line(host)));
    }
    for host in rows(answer, "unaware").iter().filter_map(Value::as_str) {
        let host = super::escape::line(host);
        output::say(&format!("warning: {host} is of an earlier build, which heeds no brakes; stop or replace it"));
    }
}

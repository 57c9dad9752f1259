//! A secret that must come out nowhere.

use std::fs;
use std::path::Path;

use e2e::{Daemon, Setup, Site};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

/// Where a secret may stand: two that differ, so that a leak tells where it came from.
#[derive(Clone, Debug)]
pub struct Canary {
    name: String,
}

impl Canary {
    /// One for this run.
    #[expect(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Self {
        Self { name: Uuid::new_v4().simple().to_string() }
    }

    /// The secret for one place.
    pub fn secret(&self, place: &str) -> String {
        format!("canary-{place}-{}", self.name)
    }

    /// A daemon that knows secrets: in its environment, as its API's token, and as the password of its database where any will do.
    pub fn plant(&self, site: &Site, setup: Setup) -> Setup {
        let mut url: reqwest::Url = site.database_url().parse().expect("a URL");
        if url.password().is_none() {
            // A server that asks for none takes any.
            url.set_password(Some(&self.secret("database"))).expect("a URL with a host");
        }
        let setup = setup.set("database.url", url.to_string()).token(&self.secret("token"));
        setup.variable("SECRET_CANARY", self.secret("environment"))
    }

    /// What no output may hold: what all of them have in common.
    pub fn mark(&self) -> &str {
        &self.name
    }

    /// Where it came out, of everything that others may read.
    pub async fn leaks(&self, site: &Site, daemon: &Daemon, ids: &[Uuid]) -> Vec<String> {
        let mut leaks = Vec::new();
        self.look("standard error", daemon.said().as_bytes(), &mut leaks);
        for path in ["/healthz", "/readyz", "/metrics", "/v1/plugins", "/v1/hosts", "/v1/queues", "/v1/dead"] {
            self.look(path, daemon.http().get(path).await.text.as_bytes(), &mut leaks);
        }
        let pages = ["", "/events", "/logs", "/attempts"];
        for (id, page) in ids.iter().flat_map(|id| pages.iter().map(move |page| (id, page))) {
            let path = format!("/v1/tasks/{id}{page}");
            self.look(&path, daemon.http().get(&path).await.text.as_bytes(), &mut leaks);
        }
        for (table, rows) in dump(&site.database_url()).await {
            self.look(&table, rows.as_bytes(), &mut leaks);
        }
        self.look_below(&site.data("data"), &mut leaks);
        leaks
    }

    fn look(&self, place: &str, text: &[u8], leaks: &mut Vec<String>) {
        let hex: String = self.name.bytes().map(|byte| format!("{byte:02x}")).collect();
        for mark in [self.name.as_bytes(), hex.as_bytes()] {
            if text.windows(mark.len()).any(|window| window == mark) {
                leaks.push(format!("a secret came out in {place}"));
            }
        }
    }

    fn look_below(&self, folder: &Path, leaks: &mut Vec<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.look_below(&path, leaks);
            } else if let Ok(bytes) = fs::read(&path) {
                self.look(&path.display().to_string(), &bytes, leaks);
            }
        }
    }
}

/// Every row of every table, as text.
async fn dump(url: &str) -> Vec<(String, String)> {
    let mut connection = PgConnection::connect(url).await.expect("the test's database answers");
    let tables = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'agentry' ORDER BY 1";
    let tables = sqlx::query(tables).fetch_all(&mut connection).await.expect("the tables' names");
    let mut dumped = Vec::new();
    for table in tables.iter().map(|row| row.get::<String, _>(0)) {
        let all = AssertSqlSafe(format!("SELECT t::text FROM agentry.{table} t"));
        let rows = sqlx::query(all).fetch_all(&mut connection).await.expect("its rows");
        dumped.push((table, rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")));
    }
    dumped
}

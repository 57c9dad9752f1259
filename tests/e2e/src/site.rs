//! What one test has for itself, and what goes with it: a database, names in the broker, a folder.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::daemon::{Daemon, Setup};
use crate::database::{self, Database};
use crate::http::is_terminal;
use crate::patience::{eventually, holds};
use crate::task::Task;
use crate::{Amqp, variables};

/// What stands around the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// RabbitMQ and Postgres.
    Services,
    /// Nothing: a SQLite file and the queue in it.
    Embedded,
}

/// A test's own place. Dropped: gone, with its database and queues.
pub struct Site {
    /// What stands around its daemons.
    pub mode: Mode,
    name: String,
    folder: tempfile::TempDir,
    amqp: Option<Amqp>,
    broker: String,
    server: reqwest::Url,
    /// Whether its broker goes with the test, with everything in it.
    private: bool,
}

impl Site {
    /// A new place.
    pub async fn new(mode: Mode) -> Self {
        Self::with(mode, variables::amqp(), variables::postgres(), false).await
    }

    /// A new place on a broker, and on a database server, of the test's own.
    pub async fn private(broker: &str, server: &reqwest::Url) -> Self {
        Self::with(Mode::Services, broker.to_owned(), server.clone(), true).await
    }

    async fn with(mode: Mode, broker: String, server: reqwest::Url, private: bool) -> Self {
        let name = format!("e2e_{}", Uuid::new_v4().simple());
        let folder = tempfile::Builder::new().prefix("agentry-e2e-").tempdir().expect("a temporary folder");
        let amqp = match mode {
            Mode::Services => {
                database::create(&server, &name).await;
                Some(Amqp::connect(&broker).await)
            }
            Mode::Embedded => None,
        };
        Self { mode, name, folder, amqp, broker, server, private }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The broker's prefix.
    pub fn prefix(&self) -> &str {
        &self.name
    }

    /// The name in the broker of a logical queue.
    pub fn queue(&self, logical: &str) -> String {
        format!("{}.{logical}", self.name)
    }

    /// The URL of its database.
    pub fn database_url(&self) -> String {
        database::url_on(&self.server, &self.name).to_string()
    }

    /// A client of the broker.
    pub fn amqp(&self) -> &Amqp {
        self.amqp.as_ref().expect("only over services is there a broker")
    }

    /// The URL of its broker.
    pub fn broker_url(&self) -> &str {
        &self.broker
    }

    /// Connects its client again, after the broker ended the connection.
    pub async fn reconnect(&mut self) {
        self.amqp = Some(Amqp::connect(&self.broker).await);
    }

    /// The folder of the data of the daemon called `name`.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// A daemon with every plugin and guest, about to be set up.
    pub fn setup(&self) -> Setup {
        self.setup_named("data")
    }

    /// One of several, each with its own data.
    pub fn setup_named(&self, name: &str) -> Setup {
        let setup = Setup::new(self.folder(), name)
            .plugins([variables::plugins(), variables::guests()])
            .set("api.listen", "127.0.0.1:0")
            .set("worker.slots", 4);
        match self.mode {
            Mode::Services => setup
                .set("broker.url", self.broker_url())
                .set("broker.prefix", self.prefix())
                .set("database.url", self.database_url()),
            Mode::Embedded => setup,
        }
    }

    /// A daemon as it comes, ready.
    pub async fn start(&self) -> Daemon {
        self.setup().start().await
    }

    /// A reader of the database. Embedded, that of the daemon whose data is at [`Site::setup`]'s place.
    pub async fn database(&self) -> Database {
        match self.mode {
            Mode::Services => Database::postgres(&self.database_url()).await,
            Mode::Embedded => Database::sqlite_in(&self.data("data")).await,
        }
    }

    /// Hands tasks over, as a producer does: plain AMQP, or HTTP where there is no broker.
    pub async fn submit(&self, daemon: &Daemon, tasks: &[Task]) {
        match self.mode {
            Mode::Services => self.publish(tasks).await,
            Mode::Embedded => {
                let tasks: Vec<Value> = tasks.iter().map(Task::body).collect();
                let answer = daemon.http().post("/v1/tasks/batch", &json!({"tasks": tasks})).await;
                assert!(matches!(answer.status, 200 | 201), "{answer:?}");
            }
        }
    }

    /// Publishes tasks to the queue `default`.
    pub async fn publish(&self, tasks: &[Task]) {
        self.amqp().publish(self.prefix(), "default", tasks.iter().map(Task::message)).await;
    }

    /// Waits until all these tasks are terminal in the database.
    pub async fn at_rest(&self, ids: &[Uuid]) {
        let database = self.database().await;
        let began = Instant::now();
        eventually(&format!("{} tasks end", ids.len()), async || {
            let rows = database.tasks().await;
            let open: Vec<_> = ids
                .iter()
                .filter(|id| !rows.get(*id).is_some_and(|row| is_terminal(&row.state)))
                .map(|id| (*id, rows.get(id).map(|row| row.state.clone())))
                .collect();
            holds(open.is_empty(), || {
                format!(
                    "after {:?} {} are not terminal, such as {:?}",
                    began.elapsed(),
                    open.len(),
                    &open[..open.len().min(3)]
                )
            })
        })
        .await;
    }

    /// Waits until at least `enough` tasks run, and says which do.
    pub async fn running(&self, enough: usize) -> Vec<Uuid> {
        let database = self.database().await;
        eventually(&format!("{enough} tasks run"), async || {
            let rows = database.tasks().await;
            let running: Vec<_> = rows.iter().filter(|(_, row)| row.state == "running").map(|(id, _)| *id).collect();
            if running.len() >= enough { Ok(running) } else { Err(format!("{rows:?}")) }
        })
        .await
    }

    /// Waits until all these complete, and checks that each has run once.
    pub async fn once_each(&self, daemon: &Daemon, ids: &[Uuid]) {
        self.at_rest(ids).await;
        let rows = self.database().await.tasks().await;
        assert!(ids.iter().all(|id| rows[id].state == "completed"), "{rows:?}");
        for id in ids {
            assert_eq!(daemon.http().attempts(*id).await.len(), 1, "one run: {:?}", daemon.http().events(*id).await);
        }
    }

    /// Waits until at least `enough` tasks of the database are terminal, and says how many are.
    pub async fn ended_at_least(&self, enough: usize) -> usize {
        let database = self.database().await;
        eventually(&format!("{enough} tasks end"), async || {
            let ended = database.tasks().await.values().filter(|row| is_terminal(&row.state)).count();
            if ended >= enough { Ok(ended) } else { Err(format!("{ended} have ended")) }
        })
        .await
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.mode == Mode::Embedded {
            return;
        }
        self.amqp = None;
        let (name, broker, server, private) =
            (self.name.clone(), self.broker.clone(), self.server.clone(), self.private);
        // The test's own runtime cannot be waited for in a drop.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let queues = ["default", "second"].map(str::to_owned);
                if !private {
                    Amqp::connect(&broker).await.delete(&name, &queues).await;
                }
                database::delete(&server, &name).await;
            });
        });
        let cleaned = cleaning.join();
        if !std::thread::panicking() {
            cleaned.expect("the test's database and queues are deleted");
        }
    }
}

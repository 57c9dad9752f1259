//! The harness of the black-box tests: it starts the real binary as a child process against a real RabbitMQ and a real
//! Postgres (or embedded), drives it as users do, and reads what came of it as operators do. It links no host code: what
//! it knows of the daemon is what `host/docs` says.
//!
//! ```text
//! Site ─▶ a database, a broker prefix and a folder of its own, gone when dropped
//!   └─▶ Setup ─▶ Daemon ─▶ Http           (a child process; killed, stopped, restarted at will)
//!   └─▶ Amqp                              (a plain client, as a producer has one)
//!   └─▶ Database ─▶ invariants            (plain SQL, as an operator writes it)
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a harness: whatever is not as it must be fails the test that uses it"
)]

pub mod amqp;
pub mod chaos;
pub mod daemon;
pub mod database;
pub mod exposition;
pub mod forward;
pub mod http;
pub mod invariants;
pub mod ledger;
pub mod outside;
pub mod patience;
pub mod peers;
pub mod plugin;
pub mod private;
pub mod probe;
pub mod site;
pub mod task;
pub mod variables;

pub use amqp::Amqp;
pub use daemon::{Daemon, Ended, Setup};
pub use database::Database;
pub use http::{Answer, Http};
pub use patience::{eventually, patience};
pub use site::{Mode, Site};
pub use task::Task;

/// One body, two tests: over RabbitMQ and Postgres, and embedded. Each named function takes a [`Mode`].
#[macro_export]
macro_rules! in_both_modes {
    ($($name:ident)*) => {
        mod services {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::Mode::Services).await;
            })*
        }
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::Mode::Embedded).await;
            })*
        }
    };
}

//! Where the tests find what they need. Nothing is guessed: a missing variable fails the test, by name.

use std::path::PathBuf;

/// The daemon's binary.
pub fn binary() -> PathBuf {
    required("AGENTRY_TEST_BIN").into()
}

/// The daemon of an earlier version.
pub fn previous_binary() -> PathBuf {
    required("AGENTRY_TEST_PREVIOUS_BIN").into()
}

/// The daemon's binary with faults on demand.
pub fn faulty_binary() -> PathBuf {
    required("AGENTRY_TEST_FAULTY_BIN").into()
}

/// The folder of the example plugins, built.
pub fn plugins() -> PathBuf {
    required("AGENTRY_TEST_PLUGINS").into()
}

/// The folder of the test guests, built.
pub fn guests() -> PathBuf {
    required("AGENTRY_TEST_GUESTS").into()
}

/// The servers that others wrote, installed: `node_modules` and `python`.
pub fn peers() -> PathBuf {
    required("AGENTRY_TEST_PEERS").into()
}

/// What drives the API by its OpenAPI document, installed: `python`.
pub fn openapi() -> PathBuf {
    required("AGENTRY_TEST_OPENAPI").into()
}

/// The component of the guest in JavaScript.
pub fn javascript() -> PathBuf {
    required("AGENTRY_TEST_JAVASCRIPT").into()
}

/// The component of the guest in Python.
pub fn python() -> PathBuf {
    required("AGENTRY_TEST_PYTHON").into()
}

/// A Postgres server on which databases may be created.
pub fn postgres() -> reqwest::Url {
    required("AGENTRY_TEST_POSTGRES").parse().expect("AGENTRY_TEST_POSTGRES holds a URL")
}

/// A RabbitMQ virtual host in which queues may be created.
pub fn amqp() -> String {
    required("AGENTRY_TEST_AMQP")
}

/// The command that takes `rabbitmqctl`'s arguments and steers the broker of [`amqp`].
pub fn rabbitmqctl() -> Vec<String> {
    required("AGENTRY_TEST_RABBITMQCTL").split(' ').map(str::to_owned).collect()
}

/// The folder of another Debian with RabbitMQ in it, if a test's own broker is to be of that one.
pub fn rabbitmq_root() -> Option<PathBuf> {
    optional("AGENTRY_TEST_RABBITMQ_ROOT")
}

/// The same for PostgreSQL.
pub fn postgres_root() -> Option<PathBuf> {
    optional("AGENTRY_TEST_POSTGRES_ROOT")
}

fn optional(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn required(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("set {name}, or run `cargo xtask test`"),
    }
}

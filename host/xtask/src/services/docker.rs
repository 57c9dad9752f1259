//! Both services from their official images, where nothing is installed.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::launch::{self, Launch, Place, Running};
use super::probe;
use crate::guard::StopSignal;
use crate::process::Terms;

/// The image of PostgreSQL.
pub const POSTGRES: &str = "postgres:17-alpine";
/// The image of RabbitMQ.
pub const RABBITMQ: &str = "rabbitmq:4-alpine";

/// An image may have to be downloaded first.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whether a Docker daemon answers.
pub fn works() -> bool {
    let asked =
        Command::new("docker").arg("info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

/// Starts PostgreSQL. A container keeps nothing, wherever its place is.
pub fn start_postgres(place: &Place) -> anyhow::Result<Running> {
    launch::with_attempts(|| {
        let [port] = launch::free_ports(place)?;
        let (mut command, name) = container("postgres", port, 5432);
        command.args(["--env", "POSTGRES_HOST_AUTH_METHOD=trust", POSTGRES]);
        command.args(["-c", "max_connections=300"]);
        if !matches!(place, Place::Synced) {
            command.args(["-c", "fsync=off", "-c", "synchronous_commit=off"]);
        }
        start(command, &name, place, port, probe::postgres)
    })
}

/// Starts RabbitMQ; with it, the command that steers it.
pub fn start_rabbitmq(place: &Place) -> anyhow::Result<(Running, String)> {
    launch::with_attempts(|| {
        let [port] = launch::free_ports(place)?;
        let (mut command, name) = container("rabbitmq", port, 5672);
        command.arg(RABBITMQ);
        Ok((start(command, &name, place, port, probe::amqp)?, format!("docker exec {name} rabbitmqctl")))
    })
}

/// `docker run` up to the image, in the foreground: what it prints is the log.
fn container(service: &str, port: u16, inner: u16) -> (Command, String) {
    let name = format!("agentry-{service}-{}-{port}", std::process::id());
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--name", &name, "--publish", &format!("127.0.0.1:{port}:{inner}")]);
    (command, name)
}

fn start(
    command: Command,
    name: &str,
    place: &Place,
    port: u16,
    probe: fn(u16) -> Option<String>,
) -> anyhow::Result<Running> {
    let folder = launch::Folder::make("docker", place, None, None)?;
    let terms = Terms {
        // Killing the client leaves the container, which the guard then removes by its name.
        stop: StopSignal::Kill,
        patience: Duration::ZERO,
        container: Some(name.to_owned()),
        ..folder.terms(place)
    };
    let log = folder.path.join("server.log");
    Launch { command, terms, log, port, probe, patience: PATIENCE, origin: " in Docker" }.start()
}

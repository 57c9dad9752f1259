//! Private RabbitMQ and PostgreSQL: from installed packages, else from Docker. They listen on loopback only, on free
//! ports, and share nothing with a system's own or with another run's: not a port, not a folder, not a node name, not an
//! Erlang cookie, not a port mapper.

pub mod developer;
mod docker;
mod install;
mod launch;
mod postgres;
mod probe;
mod rabbitmq;
mod root;
mod user;

pub use install::debian_packages;
pub use user::is_root;

use anyhow::Context;

use self::launch::{Place, Running};
use self::root::Root;
use crate::Ending;

/// The package of RabbitMQ in Debian 13.
const RABBITMQ_4: &str = "rabbitmq-server";
/// The package of PostgreSQL in Debian 13.
const POSTGRES_17: &str = "postgresql-17";

/// Newer services than the installed ones, of Debian 13 in a folder (needs root, mmdebstrap and a mirror of Debian).
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// Of this major version: that of Debian 13, in a folder of its own.
    #[arg(long, value_name = "VERSION", value_parser = ["4"])]
    rabbitmq: Option<String>,
    /// The same for PostgreSQL.
    #[arg(long, value_name = "VERSION", value_parser = ["17"])]
    postgres: Option<String>,
}

impl Generation {
    /// The newest of both.
    pub fn newest() -> Self {
        Self { rabbitmq: Some("4".to_owned()), postgres: Some("17".to_owned()) }
    }

    /// Whether it is that of the installed services.
    pub fn is_installed(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a service's program comes from.
#[derive(Debug)]
enum Source<P> {
    Installed(P),
    Docker,
}

/// The means to start both services, known to be there.
#[derive(Debug)]
pub struct Found {
    postgres: Source<postgres::Programs>,
    rabbitmq: Source<rabbitmq::Programs>,
}

/// Looks for both services: installed, then (with `install`) as Debian packages that are installed now, then Docker.
pub fn find(install: bool) -> anyhow::Result<Found> {
    let look = || (postgres::Programs::find(), rabbitmq::Programs::find());
    let (mut postgres, mut rabbitmq) = look();
    if install {
        let missing = [(postgres.is_none(), "postgresql"), (rabbitmq.is_none(), "rabbitmq-server")];
        let missing: Vec<_> = missing.into_iter().filter_map(|(missing, package)| missing.then_some(package)).collect();
        if !missing.is_empty() {
            install::debian_packages(&missing)?;
            (postgres, rabbitmq) = look();
        }
    }
    let docker = (postgres.is_none() || rabbitmq.is_none()) && docker::works();
    match (source(postgres, docker), source(rabbitmq, docker)) {
        (Some(postgres), Some(rabbitmq)) => Ok(Found { postgres, rabbitmq }),
        (postgres, rabbitmq) => Err(missing(postgres.is_none(), rabbitmq.is_none()).into()),
    }
}

/// The same, with services of this generation. `Err`: this machine cannot have it, and why.
pub fn find_generation(generation: &Generation, install: bool) -> anyhow::Result<Result<Found, String>> {
    let root = |wanted: &Option<String>, package| wanted.as_ref().map(|_| Root::with(package, install)).transpose();
    let rabbitmq = match root(&generation.rabbitmq, RABBITMQ_4)? {
        Some(Err(reason)) => return Ok(Err(reason)),
        Some(Ok(root)) => Some(rabbitmq::Programs::in_root(root)),
        None => None,
    };
    let postgres = match (root(&generation.postgres, POSTGRES_17)?, &generation.postgres) {
        (Some(Err(reason)), _) => return Ok(Err(reason)),
        (Some(Ok(root)), Some(version)) => Some(postgres::Programs::in_root(root, version)),
        _ => None,
    };
    Ok(Ok(match (postgres, rabbitmq) {
        (Some(postgres), Some(rabbitmq)) => {
            Found { postgres: Source::Installed(postgres), rabbitmq: Source::Installed(rabbitmq) }
        }
        (postgres, rabbitmq) => {
            let found = find(install)?;
            Found {
                postgres: postgres.map_or(found.postgres, Source::Installed),
                rabbitmq: rabbitmq.map_or(found.rabbitmq, Source::Installed),
            }
        }
    }))
}

/// The same for a command line that names the generation: what cannot be had ends the command.
pub fn find_named(generation: &Generation, install: bool) -> anyhow::Result<Found> {
    find_generation(generation, install)?.map_err(|reason| Ending::Unprepared(reason).into())
}

fn source<P>(programs: Option<P>, docker: bool) -> Option<Source<P>> {
    programs.map(Source::Installed).or(docker.then_some(Source::Docker))
}

fn missing(postgres: bool, rabbitmq: bool) -> Ending {
    let (name, package) = match (postgres, rabbitmq) {
        (true, true) => ("PostgreSQL and RabbitMQ are", "postgresql rabbitmq-server"),
        (true, false) => ("PostgreSQL is", "postgresql"),
        (false, _) => ("RabbitMQ is", "rabbitmq-server"),
    };
    Ending::Unprepared(format!(
        "{name} not installed, and Docker does not answer `docker info`; one of these helps:\n  \
         apt-get install {package}        (as root, on Debian or Ubuntu)\n  \
         cargo xtask test --install       (as root: does the same)\n  \
         starting Docker                  (images {} and {} are used)",
        docker::POSTGRES,
        docker::RABBITMQ,
    ))
}

/// Both services, running. Dropped: stopped, their folders gone.
pub struct Services {
    /// A server on which databases may be created, as its superuser.
    pub postgres_url: String,
    /// The broker, as its administrator.
    pub amqp_url: String,
    /// A command line, split at spaces, that takes `rabbitmqctl`'s arguments and steers this broker.
    pub rabbitmqctl: String,
    /// What runs where, for a person.
    pub description: String,
    running: [Running; 2],
}

impl Services {
    /// Starts both in temporary folders, from whatever [`find`] finds without installing.
    #[allow(dead_code, reason = "for commands that have no --install")]
    pub fn start() -> anyhow::Result<Self> {
        find(false)?.start()
    }

    fn new(postgres: Running, rabbitmq: Running, rabbitmqctl: String) -> Self {
        Self {
            postgres_url: format!("postgres://postgres@127.0.0.1:{}/postgres", postgres.port),
            amqp_url: format!("amqp://guest:guest@127.0.0.1:{}/%2f", rabbitmq.port),
            rabbitmqctl,
            description: format!(
                "PostgreSQL {} on 127.0.0.1:{}{}, RabbitMQ {} on 127.0.0.1:{}{}",
                postgres.version, postgres.port, postgres.origin, rabbitmq.version, rabbitmq.port, rabbitmq.origin,
            ),
            running: [postgres, rabbitmq],
        }
    }

    /// The environment variables by which tests find the services.
    pub fn env(&self) -> [(&'static str, &str); 3] {
        [
            ("AGENTRY_TEST_POSTGRES", &self.postgres_url),
            ("AGENTRY_TEST_AMQP", &self.amqp_url),
            ("AGENTRY_TEST_RABBITMQCTL", &self.rabbitmqctl),
        ]
    }

    /// Lets go of detached services: they live on.
    fn release(self) {
        for running in self.running {
            running.guard.release();
        }
    }
}

impl Found {
    /// Whether both are installed here, none in Docker.
    pub fn is_installed(&self) -> bool {
        matches!((&self.postgres, &self.rabbitmq), (Source::Installed(_), Source::Installed(_)))
    }

    /// Variables by which tests find the Debian of a service, to start one of their own.
    pub fn roots(&self) -> Vec<(&'static str, &std::path::Path)> {
        let mut roots = Vec::new();
        if let Source::Installed(programs) = &self.rabbitmq {
            roots.extend(programs.root().map(|root| ("AGENTRY_TEST_RABBITMQ_ROOT", root.path())));
        }
        if let Source::Installed(programs) = &self.postgres {
            roots.extend(programs.root().map(|root| ("AGENTRY_TEST_POSTGRES_ROOT", root.path())));
        }
        roots
    }

    /// Starts both in temporary folders, at the same time.
    pub fn start(&self) -> anyhow::Result<Services> {
        self.start_in(|_| Ok(Place::Temporary))
    }

    /// Starts both in temporary folders, synced to disk as in production.
    pub fn start_synced(&self) -> anyhow::Result<Services> {
        self.start_in(|_| Ok(Place::Synced))
    }

    fn start_in(&self, place: impl Fn(&str) -> anyhow::Result<Place>) -> anyhow::Result<Services> {
        let (for_postgres, for_rabbitmq) = (place("postgres")?, place("rabbitmq")?);
        std::thread::scope(|scope| {
            let postgres = scope.spawn(|| match &self.postgres {
                Source::Installed(programs) => programs.start(&for_postgres),
                Source::Docker => docker::start_postgres(&for_postgres),
            });
            let rabbitmq = match &self.rabbitmq {
                Source::Installed(programs) => programs.start(&for_rabbitmq),
                Source::Docker => docker::start_rabbitmq(&for_rabbitmq),
            };
            let postgres = postgres.join().unwrap_or_else(|_| anyhow::bail!("the thread that starts it panicked"));
            let postgres = postgres.context("failed to start PostgreSQL")?;
            let (rabbitmq, rabbitmqctl) = rabbitmq.context("failed to start RabbitMQ")?;
            Ok(Services::new(postgres, rabbitmq, rabbitmqctl))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let Ending::Unprepared(text) = missing(false, true) else { panic!("another ending") };
        assert!(text.starts_with("RabbitMQ is not installed"), "{text}");
        assert!(text.contains("apt-get install rabbitmq-server "), "{text}");
        let Ending::Unprepared(text) = missing(true, true) else { panic!("another ending") };
        assert!(text.contains("apt-get install postgresql rabbitmq-server "), "{text}");
    }

    #[test]
    fn an_installed_service_is_preferred_to_docker() {
        assert!(matches!(source(Some(()), true), Some(Source::Installed(()))));
        assert!(matches!(source::<()>(None, true), Some(Source::Docker)));
        assert!(source::<()>(None, false).is_none());
    }
}

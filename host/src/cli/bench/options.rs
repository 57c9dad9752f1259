//! The options of `agentry bench`.

use super::super::Server;
use super::super::pace::Rate;
use super::shape::Seconds;
use crate::api::is_run;
use std::path::PathBuf;

/// Measure a daemon under load: throughput, latency and cost per task.
#[derive(clap::Args)]
#[command(
    after_help = "Exit codes: 0 every task completed; 1 some did not, or --clean left some or found no task of --run; 2 usage; \
                  3 no daemon or broker responds; 130 interrupted with Ctrl-C, 143 with SIGTERM.\n\
                  AGENTRY_TOKEN holds the token of a daemon that has some; SSL_CERT_FILE names authorities of your own."
)]
pub struct Bench {
    /// Send this many tasks as fast as possible, from 1 to 5,000,000.
    #[arg(long, value_name = "N", default_value_t = 20_000, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    pub(super) tasks: u32,
    /// Send at this rate instead, such as 200/s: from 1 to 1,000,000 per s, m or h. Late tasks are not skipped; latency counts
    /// from the intended time.
    #[arg(long, requires = "duration")]
    pub(super) rate: Option<Rate>,
    /// How long to send at --rate, such as 500ms, 30s, 2m or 1h: the number is from 1 to 1,000,000, and the tasks are at most
    /// 5,000,000.
    #[arg(long = "for", id = "duration", value_name = "TIME", requires = "rate")]
    pub(super) duration: Option<Seconds>,
    /// `name` or `name@requirement`.
    #[arg(long, value_name = "NAME", default_value = "word-count")]
    pub(super) plugin: String,
    /// JSON, @file, or - for standard input [default: a short text for word-count]. The daemon's limits.max.message_kib and
    /// api.body_mib bound its size.
    #[arg(long, short, value_name = "JSON")]
    pub(super) input: Option<String>,
    /// The logical queue; otherwise the plugin's own.
    #[arg(long, value_name = "NAME")]
    pub(super) queue: Option<String>,
    /// How tasks are sent. AMQP uses broker.url and broker.prefix of the settings.
    #[arg(long, value_enum, default_value = "http")]
    pub(super) via: Via,
    /// Tasks of one request, or of one window of confirms, from 1 to 10,000. A request holds fewer where it would exceed
    /// api.body_mib.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) batch: u32,
    /// At most this many tasks sent and not yet ended, from 1 to 5,000,000; otherwise unbounded.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    pub(super) in_flight: Option<u32>,
    /// The longest wait for a response of the daemon or broker, or for the next task to end.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub(super) patience: Seconds,
    /// Start an embedded daemon of this binary for the run, with a temporary data folder and default settings, instead of
    /// using --server.
    #[arg(long, conflicts_with = "server")]
    pub(super) embedded: bool,
    /// Plugin folder of the embedded daemon.
    #[arg(long, value_name = "FOLDER", default_value = "plugins", requires = "embedded")]
    pub(super) plugins: PathBuf,
    /// Draw latency and throughput as an SVG picture.
    #[arg(long, value_name = "FILE")]
    pub(super) svg: Option<PathBuf>,
    /// Do not ask before loading or cleaning a daemon or broker whose address is not loopback. Without a terminal this is needed.
    #[arg(long)]
    pub(super) yes: bool,
    /// Instead of a load: delete the tasks of earlier runs. Runs that may still be going are left, and are named.
    #[arg(long, conflicts_with_all = [
        "tasks", "rate", "duration", "plugin", "input", "queue", "via", "batch", "in_flight", "embedded", "plugins", "svg",
    ])]
    pub(super) clean: bool,
    /// With --clean: only the tasks of this run. Those that have not ended are cancelled first.
    #[arg(long, requires = "clean", value_name = "RUN", value_parser = run_id)]
    pub(super) run: Option<String>,
    /// The daemon's address, URL or HOST:PORT [env: AGENTRY_SERVER] [default: http://127.0.0.1:7070].
    // Not read from the environment by clap: a variable must not conflict with --embedded.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// The id of a run, as it was printed.
fn run_id(text: &str) -> Result<String, String> {
    match is_run(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("expected the id of a run: the 32 hexadecimal digits that `agentry bench` prints after \"run\""
                .to_owned())
        }
    }
}

impl Bench {
    /// The daemon to load or to clean.
    pub(super) fn server(&self) -> Server {
        let variable = || std::env::var("AGENTRY_SERVER").ok().filter(|text| !text.is_empty());
        let server = self.server.clone().or_else(variable);
        Server { server: server.unwrap_or_else(|| "http://127.0.0.1:7070".to_owned()), json: self.json }
    }
}

/// How tasks are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// `POST /v1/tasks/batch`.
    Http,
    /// Published with confirms.
    Amqp,
}

impl Via {
    pub(super) fn name(self) -> &'static str {
        match self {
            Via::Http => "http",
            Via::Amqp => "amqp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::command;
    use clap::error::ErrorKind;

    const RUN: &str = "019f0c51e6f27a06b1c39f4d2a0be5c1";

    fn parse(words: &[&str]) -> Result<(), clap::Error> {
        command().try_get_matches_from([&["agentry", "bench"], words].concat()).map(drop)
    }

    #[test]
    fn an_option_without_effect_is_rejected() {
        let pairs: [&[&str]; 9] = [
            &["--embedded", "--server", "http://127.0.0.1:1"],
            &["--clean", "--batch", "5"],
            &["--clean", "--plugin", "p"],
            &["--clean", "--input", "1"],
            &["--clean", "--queue", "q"],
            &["--clean", "--in-flight", "1"],
            &["--clean", "--plugins", "p"],
            &["--clean", "--tasks", "1"],
            &["--tasks", "1", "--rate", "1/s", "--for", "1s"],
        ];
        for words in pairs {
            assert_eq!(parse(words).unwrap_err().kind(), ErrorKind::ArgumentConflict, "{words:?}");
        }
        for words in [&["--plugins", "p"], &["--run", RUN], &["--rate", "1/s"], &["--for", "1s"]] {
            assert_eq!(parse(words).unwrap_err().kind(), ErrorKind::MissingRequiredArgument, "{words:?}");
        }
        let valid: [&[&str]; 4] = [
            &[],
            &["--embedded", "--plugins", "p"],
            &["--clean", "--run", RUN, "--yes"],
            &["--clean", "--patience", "1s"],
        ];
        for words in valid {
            assert!(parse(words).is_ok(), "{words:?}");
        }
    }

    #[test]
    fn only_the_id_of_a_run_names_one() {
        for text in ["", "hello", "019f0c51-e6f2-7a06-b1c3-9f4d2a0be5c1"] {
            let error = parse(&["--clean", "--run", text]).unwrap_err().to_string();
            assert!(error.contains("32 hexadecimal digits"), "{text}: {error}");
        }
    }

    #[test]
    fn the_error_names_the_bounds() {
        let cases =
            [("--tasks", "5000001", "5000000"), ("--batch", "0", "1..=10000"), ("--in-flight", "0", "1..=5000000")];
        let more =
            [("--rate", "1000001/s", "1,000,000"), ("--for", "0s", "1,000,000"), ("--patience", "5d", "1,000,000")];
        for (option, value, bound) in cases.into_iter().chain(more) {
            let error = parse(&[option, value]).unwrap_err().to_string();
            assert!(error.contains(bound), "{option} {value}: {error}");
        }
    }
}

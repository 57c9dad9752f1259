//! The tests that need what others wrote.

mod answers;
mod requests;

use crate::site;
use agentry_outbound::llm::ProviderKind::{Anthropic, Gemini, OpenAi};
use agentry_outbound::llm::{Llm, ProviderKind};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Each provider, what it is called there, and the version in its addresses.
const KINDS: [(ProviderKind, &str, &str); 3] =
    [(OpenAi, "openai", "v1"), (Anthropic, "anthropic", "v1"), (Gemini, "gemini", "v1beta")];

/// The three providers, one process for all tests. It ends with its standard input, which this process has.
struct Providers {
    _process: Child,
    port: String,
}

impl Providers {
    fn get() -> &'static Providers {
        static PROVIDERS: OnceLock<Providers> = OnceLock::new();
        PROVIDERS.get_or_init(Providers::start)
    }

    fn start() -> Providers {
        let peers = std::env::var_os("AGENTRY_TEST_PEERS").expect("set AGENTRY_TEST_PEERS, or run `cargo xtask test`");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/e2e/peers/shapes");
        let mut command = Command::new(Path::new(&peers).join("python/bin/python"));
        // Their settings in the environment of whoever runs the tests are none of theirs.
        command.arg("-B").arg(script).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        assert!(!port.is_empty(), "the providers did not start; see above");
        Providers { _process: process, port: port.trim().to_owned() }
    }

    /// Where one answers with a case.
    fn root(&self, (_, name, version): (ProviderKind, &str, &str), case: &str) -> String {
        format!("http://127.0.0.1:{}/{name}/{}/{version}", self.port, case.replace('/', "~"))
    }

    /// A client of one that answers with a case.
    fn llm(&self, kind: (ProviderKind, &str, &str), case: &str) -> Llm {
        let mut provider = site::provider(kind.0, ([127, 0, 0, 1], 1).into());
        provider.url = self.root(kind, case).parse().unwrap();
        site::llm(provider)
    }

    /// The cases of each.
    async fn cases(&self) -> Value {
        let cases = client().get(format!("http://127.0.0.1:{}/cases", self.port)).send().await.unwrap();
        serde_json::from_slice(&cases.bytes().await.unwrap()).unwrap()
    }
}

/// A client of none of ours. It wants a TLS to be chosen, which it does not use.
fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default(); // a test before may have done it
    reqwest::Client::new()
}

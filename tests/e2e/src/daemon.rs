//! The daemon as a child process: started from an empty environment, killed, stopped, started again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::http::Http;
use crate::patience::{eventually, patience};
use crate::private::Certificate;
use crate::variables;

/// A daemon about to be started.
#[derive(Clone)]
pub struct Setup {
    folder: PathBuf,
    name: String,
    settings: BTreeMap<String, Value>,
    arguments: Vec<String>,
    environment: Vec<(String, OsString)>,
    binary: PathBuf,
    token: Option<String>,
    authority: Option<PathBuf>,
}

impl Setup {
    /// A daemon called `name` with its data and settings below `folder`, and nothing set.
    pub fn new(folder: &Path, name: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            name: name.to_owned(),
            settings: BTreeMap::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            binary: variables::binary(),
            token: None,
            authority: None,
        }
        .set("data.dir", folder.join(name).to_string_lossy().into_owned())
        .set("log.level", "debug")
    }

    /// The same with a setting in its file.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// The same without a setting.
    #[must_use]
    pub fn unset(mut self, key: &str) -> Self {
        self.settings.remove(key);
        self
    }

    /// The same with these plugin folders.
    #[must_use]
    pub fn plugins(self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let folders: Vec<_> = folders.into_iter().map(|folder| folder.to_string_lossy().into_owned()).collect();
        self.set("plugins.dir", folders)
    }

    /// The same with an argument more.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// The same with a variable in its otherwise empty environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// The same without a variable.
    #[must_use]
    pub fn without_variable(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// The same with this token, which its API asks for.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        let file = self.folder.join("tokens");
        std::fs::write(&file, format!("test full {token}\n")).expect("the tokens are written");
        self.token = Some(token.to_owned());
        self.set("api.tokens_file", file.to_string_lossy().into_owned())
    }

    /// The same with an API over TLS.
    #[must_use]
    pub fn https(mut self, certificate: &Certificate) -> Self {
        self.authority = Some(certificate.certificate.clone());
        let [shown, key] = [&certificate.certificate, &certificate.key].map(|file| file.to_string_lossy().into_owned());
        self.set("api.tls_cert", shown).set("api.tls_key", key)
    }

    /// The same with the binary that has faults on demand.
    #[must_use]
    pub fn faulty(mut self) -> Self {
        self.binary = variables::faulty_binary();
        self
    }

    /// The same with another build of the binary.
    #[must_use]
    pub fn binary(mut self, binary: PathBuf) -> Self {
        self.binary = binary;
        self
    }

    /// Starts it and waits until it says that it is ready.
    pub async fn start(self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.ready().await;
        daemon
    }

    /// Starts it and waits for nothing.
    pub fn spawn(self) -> Daemon {
        let mut child = self.command().spawn().expect("the binary of AGENTRY_TEST_BIN starts");
        let said = Said::default();
        let listening = said.listen(child.stderr.take().expect("standard error is piped"));
        Daemon { setup: self, child, said, listening: Some(listening), http: None }
    }

    /// Runs it until it ends by itself, which it must.
    pub async fn run_to_end(self) -> Ended {
        let mut daemon = self.spawn();
        let status = daemon.exited().await;
        daemon.join_listening();
        Ended { code: status.code(), stdout: String::new(), stderr: daemon.said.text() }
    }

    /// The command that starts it, with nobody reading what it says. Writes its settings.
    pub fn command(&self) -> Command {
        let settings = self.folder.join(format!("{}.toml", self.name));
        let mut text = String::new();
        for (key, value) in &self.settings {
            let _ = writeln!(text, "{key} = {}", toml(value)); // writing to a text does not fail
        }
        std::fs::write(&settings, text).expect("the settings are written");
        let mut command = command_of(&self.binary, &self.folder);
        command.arg("up").arg("--config").arg(settings).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// The binary in an empty environment, with `folder` as its current one. Where the system can, it dies with the thread
/// that starts it: the test's.
pub fn command(folder: &Path) -> Command {
    command_of(&variables::binary(), folder)
}

fn command_of(binary: &Path, folder: &Path) -> Command {
    let setpriv = Path::new("/usr/bin/setpriv");
    let mut command = if setpriv.exists() {
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
        command
    } else {
        Command::new(binary)
    };
    command.env_clear().current_dir(folder).stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs one of the binary's commands to its end.
pub async fn run(folder: &Path, arguments: &[&str]) -> Ended {
    run_command(command(folder).args(arguments)).await
}

/// Runs a command to its end.
pub async fn run_command(command: &mut Command) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let mut stdout = child.stdout.take().expect("standard output is piped");
    let stdout = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let said = Said::default();
    let listening = said.listen(child.stderr.take().expect("standard error is piped"));
    let status = exited(&mut child, &said).await;
    listening.join().expect("standard error is read");
    let stdout = stdout.join().expect("standard output is read").expect("standard output is text");
    Ended { code: status.code(), stdout, stderr: said.text() }
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; `None`: a signal ended it.
    pub code: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ended {
    /// Checks exit code, and that standard error holds each of these.
    #[track_caller]
    pub fn expect(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in says {
            assert!(self.stderr.contains(part), "{part:?} is not said: {self:?}");
        }
    }
}

/// A daemon that runs. Dropped: killed.
pub struct Daemon {
    setup: Setup,
    child: Child,
    said: Said,
    listening: Option<JoinHandle<()>>,
    http: Option<Http>,
}

impl Daemon {
    /// Waits until it says that it is ready, and where.
    pub async fn ready(&mut self) {
        let began = Instant::now();
        loop {
            if let Some(address) = self.said.address() {
                let (token, authority) = (self.setup.token.as_deref(), self.setup.authority.as_deref());
                self.http = Some(Http::of(&address, token, authority));
                return;
            }
            let status = self.child.try_wait().expect("a child can be waited for");
            assert!(status.is_none(), "the daemon ended ({status:?}) before it was ready:\n{}", self.said.text());
            assert!(began.elapsed() < patience(), "the daemon is not ready within {:?}", patience());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// A client of its API.
    pub fn http(&self) -> &Http {
        self.http.as_ref().expect("only a ready daemon has an address")
    }

    /// Waits until `/readyz` says 503 and names this.
    pub async fn not_ready(&self, named: &str) {
        eventually(&format!("it is not ready because of {named}"), async || {
            let answer = self.http().get("/readyz").await;
            if answer.status == 503 && answer.text.contains(named) { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has said on standard error, over all its starts.
    pub fn said(&self) -> String {
        self.said.text()
    }

    /// Waits until it says this.
    pub async fn says(&self, part: &str) {
        eventually(&format!("the daemon says {part:?}"), async || {
            if self.said.text().contains(part) { Ok(()) } else { Err("it did not".to_owned()) }
        })
        .await;
    }

    /// SIGKILL, and it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
        self.join_listening();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("a child can be signalled");
    }

    /// SIGTERM, and its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let status = self.exited().await;
        self.join_listening();
        status.code()
    }

    /// SIGTERM; it must end cleanly.
    pub async fn stop(mut self) {
        assert_eq!(self.terminate().await, Some(0), "a clean end:\n{}", self.said.text());
    }

    /// Starts it again, with the same settings and data, after it has ended.
    pub async fn start_again(&mut self) {
        self.http = None;
        self.said.forget_address();
        self.child = self.setup.command().spawn().expect("the binary of AGENTRY_TEST_BIN starts");
        let stderr = self.child.stderr.take().expect("standard error is piped");
        self.listening = Some(self.said.listen(stderr));
        self.ready().await;
    }

    /// Changes what it is started with from now on.
    pub fn change(&mut self, change: impl FnOnce(Setup) -> Setup) {
        self.setup = change(self.setup.clone());
    }

    /// Waits until it has ended.
    pub async fn exited(&mut self) -> ExitStatus {
        exited(&mut self.child, &self.said).await
    }

    fn join_listening(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.join().expect("standard error is read");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = self.said.text();
            let lines: Vec<_> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(80)..];
            eprintln!("--- the daemon {} said, at the end:\n{}\n---", self.setup.name, tail.join("\n"));
        }
    }
}

/// Waits until a program that says nothing here has ended.
pub(crate) async fn exited_quietly(child: &mut Child) -> ExitStatus {
    exited(child, &Said::default()).await
}

async fn exited(child: &mut Child, said: &Said) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        if began.elapsed() > patience() {
            let _ = child.kill();
            panic!("it did not end within {:?}:\n{}", patience(), said.text());
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// What a child says on standard error.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<(String, Option<String>)>>);

impl Said {
    fn listen(&self, stderr: ChildStderr) -> JoinHandle<()> {
        let said = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stderr);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                let mut said = said.0.lock().expect("no panic while it is held");
                if let Some(address) = text.trim_end().strip_prefix("ready ") {
                    said.1 = Some(address.to_owned());
                }
                said.0.push_str(&text);
                drop(said);
                line.clear();
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().expect("no panic while it is held").0.clone()
    }

    fn address(&self) -> Option<String> {
        self.0.lock().expect("no panic while it is held").1.clone()
    }

    fn forget_address(&self) {
        self.0.lock().expect("no panic while it is held").1 = None;
    }
}

/// A value as TOML writes it, which for these types is as JSON does.
fn toml(value: &Value) -> String {
    assert!(!value.is_null() && !value.is_object(), "a setting is a text, a number, a truth or a list: {value}");
    value.to_string()
}

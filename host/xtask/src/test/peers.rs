//! Servers written by other people, SDKs of providers, and the compiler of JavaScript: installed once, into the target folder,
//! from pinned lists.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use uuid::Uuid;

use crate::process::{self, Read, Terms};
use crate::talk;
use crate::workspace::{self, Workspace};

/// The tests that need the servers. Those of [`JAVASCRIPT`] are among them by name, and need none.
const SERVERS: &str = "peers::";
/// The tests that need the guest in JavaScript.
const JAVASCRIPT: &str = "peers::javascript::";

/// The tests that need the guest in Python; they need no server either.
const PYTHON: &str = "peers::python::";

/// The tests that need what drives the API by its OpenAPI document; they need no server either.
const OPENAPI: &str = "peers::openapi::";

/// What is there for the tests, and what is not.
#[derive(Default)]
pub struct Peers {
    /// Variables of the environment for the tests.
    pub variables: Vec<(&'static str, PathBuf)>,
    /// Tests that cannot run, by name.
    pub skipped: Vec<String>,
}

/// Sees to what those of the `tests` need that will run. What cannot be had is said, with the tests that do not run for it.
pub fn prepare(workspace: &Workspace, tests: &[String]) -> anyhow::Result<Peers> {
    let of_peers = tests.iter().filter(|name| name.starts_with(SERVERS)).cloned();
    let (javascript, others): (Vec<_>, Vec<_>) = of_peers.partition(|name| name.starts_with(JAVASCRIPT));
    let (python, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| name.starts_with(PYTHON));
    let (openapi, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| name.starts_with(OPENAPI));
    let folder = workspace.target.join("peers");
    let mut peers = Peers::default();
    if [&others, &javascript, &python, &openapi].into_iter().all(Vec::is_empty) {
        return Ok(peers);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    // Two runs that share a target folder install one after the other.
    let lock = std::fs::File::create(folder.join("lock")).context("failed to make a file to lock")?;
    lock.lock().context("failed to lock the folder of the peers")?;
    let root = workspace::root();
    peers.take("AGENTRY_TEST_PEERS", others, || servers(&root.join("tests/e2e/peers"), &folder))?;
    let list = root.join("tests/e2e/peers/openapi/requirements.txt");
    peers.take("AGENTRY_TEST_OPENAPI", openapi, || drivers(&list, &folder))?;
    let source = root.join("tests/guests/js-fetch");
    let code = source.join("fetch.js");
    peers.take("AGENTRY_TEST_JAVASCRIPT", javascript, || in_javascript("js-fetch", &code, &[], &root, &folder))?;
    let code = root.join("tests/guests/py-fetch/app.py");
    peers.take("AGENTRY_TEST_PYTHON", python, || in_python("py-fetch", &code, "http-plugin", &root, &folder))?;
    Ok(peers)
}

impl Peers {
    /// Does the work if there are tests for it.
    fn take(
        &mut self,
        variable: &'static str,
        tests: Vec<String>,
        work: impl FnOnce() -> Result<PathBuf, Missing>,
    ) -> anyhow::Result<()> {
        if tests.is_empty() {
            return Ok(());
        }
        match work() {
            Ok(path) => self.variables.push((variable, path)),
            Err(Missing::Here(why)) => {
                // What does not run is not to read as passed.
                tests.iter().for_each(|test| println!("skipped: {test}: {why}"));
                self.skipped.extend(tests);
            }
            Err(Missing::Broken(error)) => return Err(error),
        }
        Ok(())
    }
}

/// Why something could not be had.
enum Missing {
    /// This machine lacks what it takes; the text says what.
    Here(String),
    /// Anything else.
    Broken(anyhow::Error),
}

impl From<anyhow::Error> for Missing {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// Node's and Python's servers, in one folder: `node_modules` and `python`.
fn servers(lists: &Path, folder: &Path) -> Result<PathBuf, Missing> {
    let (node, python) = (node()?, version("python3")?);
    let key = key(&[&lists.join("package-lock.json"), &lists.join("requirements.txt")], &[&node, &python])?;
    once(folder, "servers", &key, "servers by others", |made| {
        install_node(lists, made)?;
        install_python(&lists.join("requirements.txt"), &made.join("python"))
    })
}

/// What drives the API by its OpenAPI document, in the folder `python`.
fn drivers(list: &Path, folder: &Path) -> Result<PathBuf, Missing> {
    let key = key(&[list], &[&version("python3")?])?;
    once(folder, "openapi", &key, "what drives the API", |made| install_python(list, &made.join("python")))
}

/// The guests that `cargo xtask bench` measures, in JavaScript and in Python; or why one could not be built.
pub fn measured(workspace: &Workspace) -> [Result<PathBuf, String>; 2] {
    let (root, folder) = (workspace::root(), workspace.target.join("peers"));
    let guests = root.join("tests/bench/guests");
    let why = |missing| match missing {
        Missing::Here(why) => why,
        Missing::Broken(error) => format!("{error:#}"),
    };
    if let Err(error) = std::fs::create_dir_all(&folder) {
        return [Err(error.to_string()), Err(error.to_string())];
    }
    let nothing_outside = ["--disable", "http", "fetch-event"];
    let javascript = in_javascript("js-count", &guests.join("word_count.js"), &nothing_outside, &root, &folder);
    let python = in_python("py-count", &guests.join("word_count.py"), "plugin", &root, &folder);
    [javascript.map_err(why), python.map_err(why)]
}

/// A guest in Python, built with the SDK's one module.
fn in_python(name: &str, code: &Path, world: &str, root: &Path, folder: &Path) -> Result<PathBuf, Missing> {
    let python = version("python3")?;
    let (sdk, wit) = (root.join("plugins/sdk/python"), root.join("wit"));
    let source = code.parent().unwrap_or(root);
    let module = code.file_stem().unwrap_or_default();
    let list = root.join("tests/guests/py-fetch/requirements.txt");
    let component = format!("{}.wasm", name.replace('-', "_"));
    let tools = once(folder, "componentize-py", &key(&[&list], &[&python])?, "the compiler of Python", |made| {
        install_python(&list, &made.join("python"))
    })?;
    let parts = [code.to_owned(), sdk.join("agentry_http.py"), wit.join("plugin.wit")];
    let files: Vec<&Path> = parts.iter().map(PathBuf::as_path).chain([list.as_path()]).collect();
    let built = once(folder, name, &key(&files, &[&python, world])?, "a guest in Python", |made| {
        let mut command = Command::new(tools.join("python/bin/componentize-py"));
        command.arg("-d").arg(&wit).args(["-w", world, "componentize"]);
        command.arg("-p").arg(source).arg("-p").arg(&sdk).arg(module).arg("-o").arg(made.join(&component));
        match quietly(&command, "") {
            Err(Missing::Here(why)) => {
                Err(Missing::Broken(anyhow::anyhow!("failed to build {}{why}", parts[0].display())))
            }
            other => other,
        }
    })?;
    Ok(built.join(&component))
}

/// Installs what a list pins, into an environment of its own.
fn install_python(list: &Path, environment: &Path) -> Result<(), Missing> {
    quietly(Command::new("python3").args(["-m", "venv"]).arg(environment), "this machine's python3 has no venv")?;
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--requirement"]);
    quietly(pip.arg(list), "pip could not install them")
}

/// A guest in JavaScript, built.
fn in_javascript(name: &str, code: &Path, more: &[&str], root: &Path, folder: &Path) -> Result<PathBuf, Missing> {
    let node = node()?;
    let (source, wit) = (root.join("tests/guests/js-fetch"), root.join("wit"));
    let list = source.join("package-lock.json");
    let component = format!("{}.wasm", name.replace('-', "_"));
    let tools = once(folder, "componentize", &key(&[&list], &[&node])?, "the compiler of JavaScript", |made| {
        install_node(&source, made)
    })?;
    let versions: Vec<&str> = std::iter::once(node.as_str()).chain(more.iter().copied()).collect();
    let key = key(&[&list, code, &wit.join("plugin.wit")], &versions)?;
    let built = once(folder, name, &key, "a guest in JavaScript", |made| {
        let mut command = Command::new("node");
        command.arg(tools.join("node_modules/.bin/componentize-js")).arg(code);
        command.arg("--wit").arg(&wit).args(["--world-name", "plugin", "--out"]).arg(made.join(&component));
        command.args(more);
        match quietly(&command, "") {
            Err(Missing::Here(why)) => Err(Missing::Broken(anyhow::anyhow!("failed to build {}{why}", code.display()))),
            other => other,
        }
    })?;
    Ok(built.join(&component))
}

fn node() -> Result<String, Missing> {
    version("npm")?;
    version("node")
}

/// Which one there is.
fn version(program: &str) -> Result<String, Missing> {
    let output = Command::new(program).arg("--version").output();
    match output {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        _ => Err(Missing::Here(format!("there is no {program} on this machine"))),
    }
}

/// What is pinned, and by what it was installed: another key is another folder.
fn key(files: &[&Path], versions: &[&str]) -> anyhow::Result<String> {
    let mut all = Vec::new();
    for file in files {
        all.extend(std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?);
        all.push(0);
    }
    versions.iter().for_each(|version| all.extend(version.bytes()));
    Ok(Uuid::new_v5(&Uuid::NAMESPACE_OID, &all).simple().to_string())
}

/// The folder of what was made for this key; made now, if it is not there as a whole.
fn once(
    folder: &Path,
    name: &str,
    key: &str,
    what: &str,
    make: impl FnOnce(&Path) -> Result<(), Missing>,
) -> Result<PathBuf, Missing> {
    let made = folder.join(format!("{name}-{key}"));
    let whole = made.join("whole"); // written last: without it something was interrupted
    if whole.is_file() {
        return Ok(made);
    }
    let fresh = || -> anyhow::Result<()> {
        if made.exists() {
            std::fs::remove_dir_all(&made).with_context(|| format!("failed to remove {}", made.display()))?;
        }
        std::fs::create_dir(&made).with_context(|| format!("failed to make {}", made.display()))
    };
    fresh()?;
    let mut missing = None;
    let done = talk::phase(
        "peers",
        what,
        || match make(&made) {
            Ok(()) => std::fs::write(&whole, key).context("failed to mark it whole").map(|()| true),
            Err(Missing::Broken(error)) => Err(error),
            Err(here) => {
                missing = Some(here);
                Ok(false)
            }
        },
        |done| if *done { made.display().to_string() } else { "not to be had".to_owned() },
    )?;
    match missing {
        Some(missing) if !done => Err(missing),
        _ => Ok(made),
    }
}

/// Installs what a lock file pins, without running anything of it.
fn install_node(list: &Path, made: &Path) -> Result<(), Missing> {
    for file in ["package.json", "package-lock.json"] {
        let copied = std::fs::copy(list.join(file), made.join(file));
        copied.with_context(|| format!("failed to copy {}", list.join(file).display()))?;
    }
    let mut npm = Command::new("npm");
    // Not `ci`, which wants every platform's optional packages in the lock file, and not every registry has them.
    npm.args(["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    npm.current_dir(made);
    quietly(&npm, "npm could not install them")
}

/// Runs a command to its end; what it says is shown when somebody watches, or when it fails.
fn quietly(command: &Command, failing: &str) -> Result<(), Missing> {
    let mut said = Vec::new();
    let each = |line: &[u8]| if talk::watched() { process::pass(line) } else { said.extend_from_slice(line) };
    let status = process::read(command, &Terms::default(), Read::Both, each)?;
    if status.success() {
        return Ok(());
    }
    process::pass(&said);
    Err(Missing::Here(format!("{failing} ({status}), see above")))
}

/// The names of the tests that these filters leave, of the black box and of the providers' shapes.
pub fn wanted(workspace: &Workspace, filters: &[String], ignored_too: bool) -> anyhow::Result<Vec<String>> {
    let mut command = workspace::cargo(&["test", "--quiet"]);
    command.args(workspace.native_selection()).args([
        "--test",
        "e2e",
        "--test",
        "shapes",
        "--",
        "--list",
        "--format=terse",
    ]);
    command.args(filters);
    let mut listed = |only: &[&str]| -> anyhow::Result<Vec<String>> {
        let mut output = Vec::new();
        command.args(only);
        let each = |line: &[u8]| output.extend_from_slice(line);
        let status = process::read(&command, &Terms::default(), Read::Stdout, each)?;
        if !status.success() {
            bail!("failed to list the tests ({status}), see above");
        }
        Ok(names(&String::from_utf8_lossy(&output)))
    };
    let mut all = listed(&[])?;
    if !ignored_too && all.iter().any(|name| name.starts_with(SERVERS)) {
        let ignored = listed(&["--ignored"])?;
        all.retain(|name| !ignored.contains(name));
    }
    Ok(all)
}

/// The tests of a list in its terse form: `NAME: test`, a line each.
fn names(list: &str) -> Vec<String> {
    list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_tests_are_read_from_their_list() {
        assert_eq!(names("peers::a: test\npath::b: test\n2 benchmarks\n"), ["peers::a", "path::b"]);
    }

    #[test]
    fn what_is_pinned_otherwise_is_installed_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        let key_of = |pinned: &str, version: &str| {
            std::fs::write(&list, pinned).unwrap();
            key(&[&list], &[version]).unwrap()
        };
        let first = key_of("a 1", "v20");
        assert_eq!(first, key_of("a 1", "v20"));
        assert_ne!(first, key_of("a 2", "v20"));
        assert_ne!(first, key_of("a 1", "v22"));
        assert!(key(&[&folder.path().join("none")], &[]).is_err());
    }

    #[test]
    fn what_is_there_as_a_whole_is_not_made_again_and_a_half_is() {
        let folder = tempfile::tempdir().unwrap();
        let make = |content: &'static str| {
            let made = once(folder.path(), "x", "k", "a test's things", |made| {
                std::fs::write(made.join("content"), content).map_err(|error| Missing::Broken(error.into()))
            });
            let Ok(made) = made else { panic!("nothing fails here") };
            std::fs::read_to_string(made.join("content")).unwrap()
        };
        std::fs::create_dir(folder.path().join("x-k")).unwrap();
        std::fs::write(folder.path().join("x-k/half"), "").unwrap();
        assert_eq!(make("first"), "first");
        assert!(!folder.path().join("x-k/half").exists());
        assert_eq!(make("second"), "first");
    }

    #[test]
    fn tests_that_lack_something_are_skipped_by_name_and_no_others() {
        let mut peers = Peers::default();
        let tests = || vec!["peers::a".to_owned()];
        peers.take("A", tests(), || Err(Missing::Here("there is no such program".into()))).unwrap();
        peers.take("B", vec![], || Err(Missing::Broken(anyhow::anyhow!("not asked for")))).unwrap();
        peers.take("C", vec!["peers::c".into()], || Ok("there".into())).unwrap();
        assert_eq!(peers.skipped, ["peers::a"]);
        assert_eq!(peers.variables, [("C", PathBuf::from("there"))]);
        assert!(peers.take("D", tests(), || Err(Missing::Broken(anyhow::anyhow!("a disk")))).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_is_missing_and_not_broken() {
        assert!(
            matches!(version("no-such-program-of-ours"), Err(Missing::Here(why)) if why.contains("no-such-program"))
        );
    }
}

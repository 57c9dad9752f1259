//! `cargo xtask release`: the daemon as it is installed, with its debug information in a file beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::host::BINARY;
use crate::workspace::{self, Workspace};
use crate::{process, talk};

/// Builds the daemon and prints where it is.
pub fn run() -> anyhow::Result<()> {
    let mut build = workspace::cargo(&["build", "--release", "--locked", "--package", BINARY, "--bin", BINARY]);
    if !talk::watched() {
        build.arg("--quiet");
    }
    if !process::run(&build)?.success() {
        bail!("failed to build {BINARY}, see above");
    }
    let built = Workspace::read()?.target.join("release");
    let folder = built.join("dist");
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    for file in split(&built.join(BINARY), &folder)? {
        let bytes = std::fs::metadata(&file).with_context(|| format!("failed to read {}", file.display()))?.len();
        println!("{} ({:.1} MB)", file.display(), bytes as f64 / 1e6);
    }
    Ok(())
}

/// Splits a program in two files in `folder`: what runs, and symbols and line tables. Backtraces find the second by the
/// first's `.gnu_debuglink` section if it lies beside it.
pub fn split(program: &Path, folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let name = program.file_name().context("a program has a name")?;
    let stripped = folder.join(name);
    let mut debug_name = name.to_owned();
    debug_name.push(".debug");
    let debug = folder.join(&debug_name);
    succeed(objcopy()?.args(["--only-keep-debug", "--compress-debug-sections=zlib"]).arg(program).arg(&debug))?;
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    succeed(objcopy()?.arg("--strip-all").arg(link).arg(program).arg(&stripped))?;
    Ok([stripped, debug])
}

/// `rust-objcopy`, which comes with the compiler.
fn objcopy() -> anyhow::Result<Command> {
    let output = Command::new("rustc").current_dir(workspace::root()).args(["--print", "target-libdir"]).output();
    let output = output.context("failed to run rustc")?;
    let libraries = String::from_utf8(output.stdout).context("failed to read rustc's folder")?;
    // lib/rustlib/TARGET/lib, beside lib/rustlib/TARGET/bin; the compiler's own libraries are in lib.
    let libraries = Path::new(libraries.trim());
    let program = libraries.with_file_name("bin").join("rust-objcopy");
    if !program.is_file() {
        bail!("{} is missing; it comes with the toolchain that rustup installs", program.display());
    }
    let mut command = Command::new(program);
    if let Some(own) = libraries.ancestors().nth(3) {
        command.env("LD_LIBRARY_PATH", own);
    }
    Ok(command)
}

/// It takes seconds and starts nothing, so it needs no guard.
fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("failed to run {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} failed ({status}), see above", command.get_program());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_without_its_debug_information_and_finds_it_beside() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("program.rs");
        std::fs::write(&source, "fn a_name_to_find() { panic!(\"as asked\") }\nfn main() { a_name_to_find() }\n")
            .unwrap();
        let built = folder.path().join("program");
        let compile = Command::new("rustc")
            .current_dir(workspace::root())
            .args(["-Cdebuginfo=line-tables-only", "-o"])
            .arg(&built)
            .arg(&source)
            .status()
            .unwrap();
        assert!(compile.success());
        let dist = folder.path().join("dist");
        std::fs::create_dir(&dist).unwrap();
        let [program, debug] = split(&built, &dist).unwrap();
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(size(&program) * 2 < size(&built), "{} of {}", size(&program), size(&built));
        let backtrace = || {
            let output = Command::new(&program).env("RUST_BACKTRACE", "1").output().unwrap();
            String::from_utf8(output.stderr).unwrap()
        };
        let with = backtrace();
        assert!(with.contains("a_name_to_find") && with.contains("program.rs:1"), "{with}");
        std::fs::remove_file(debug).unwrap();
        let without = backtrace();
        assert!(without.contains("as asked") && !without.contains("a_name_to_find"), "{without}");
    }
}

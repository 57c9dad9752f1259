//! The daemon with faults on demand, for tests; never shipped. See the module `failpoints`.

fn main() -> std::process::ExitCode {
    agentry::cli::main()
}

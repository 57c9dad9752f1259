//! The binary: everything is in the library.

fn main() -> std::process::ExitCode {
    agentry::cli::main()
}

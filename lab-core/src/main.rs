//! The `lab` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    let (mut out, mut errors) = (std::io::stdout().lock(), std::io::stderr().lock());
    ExitCode::from(lab_core::cli::run(std::env::args_os(), &mut out, &mut errors))
}

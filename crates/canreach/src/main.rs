//! The `canreach` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    canreach::run(std::env::args_os()).into()
}

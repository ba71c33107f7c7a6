//! The command line: what was typed becomes questions, answers become text or JSON.
//!
//! Reading order: [`cli`] (what can be typed), `command` (one file for each), `state` (the machine
//! or a file), `output` (the only place that writes), [`exit`].

pub mod cli;
mod command;
pub mod exit;
mod output;
mod state;

use std::ffi::OsString;

pub use exit::Exit;

/// Runs the program with its arguments, the first of which is its own name.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    exit::report_panics();
    let typed: Vec<OsString> = cli::complete_command(arguments.into_iter().collect());
    let cli = match cli::parse(&typed) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    cli.global.color.write_global();
    let advice = match &cli.global.snapshot {
        // What a file lacks can only be had where it was made.
        Some(_) => "canreach snapshot FILE".to_owned(),
        None => cli::as_typed(&typed),
    };
    match command::dispatch(&cli, &advice) {
        Ok(exit) => exit,
        Err(error) => {
            output::error(&error);
            Exit::of_error(&error)
        }
    }
}

//! From what was typed to the command that answers it.

use super::{check, completions, diff, explain, ip, list, man, schema, snapshot, why};
use crate::cli::{Cli, Command};
use crate::exit::Exit;

/// Runs the command that was typed. `typed` is the command line, for advice.
pub(crate) fn dispatch(cli: &Cli, typed: &str) -> anyhow::Result<Exit> {
    match &cli.command {
        Command::List(arguments) => list::run(&cli.global, arguments, typed),
        Command::Why(arguments) => why::run(&cli.global, arguments, typed),
        Command::Ip(arguments) => ip::run(&cli.global, arguments),
        Command::Diff(arguments) => diff::run(&cli.global, arguments, typed),
        Command::Check(arguments) => check::run(&cli.global, arguments, typed),
        Command::Explain(arguments) => explain::run(&cli.global, arguments),
        Command::Snapshot(arguments) => snapshot::run(&cli.global, arguments),
        Command::Schema(arguments) => schema::run(arguments),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man => man::run(),
    }
}

//! `completions`: what a shell needs to complete command lines.

use crate::cli::{CompletionsArguments, description};
use crate::exit::Exit;
use crate::output;

pub(super) fn run(arguments: &CompletionsArguments) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut description(), "canreach", &mut script);
    output::answer(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Yes)
}

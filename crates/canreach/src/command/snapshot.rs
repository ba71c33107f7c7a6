//! `snapshot`: the state in one file.

use std::path::Path;

use crate::cli::{Global, SnapshotArguments};
use crate::exit::{Exit, UsageError};
use crate::output;
use crate::state::{self, Wanted};

pub(super) fn run(global: &Global, arguments: &SnapshotArguments) -> anyhow::Result<Exit> {
    let file = arguments.output.as_deref().or(arguments.file.as_deref());
    let file = file.filter(|file| *file != Path::new("-"));
    if file.is_none() && output::is_terminal() {
        let form = "snapshot writes a file, for example: canreach snapshot machine.json";
        return Err(UsageError(form.to_owned()).into());
    }
    let wanted = Wanted { all_namespaces: arguments.all_namespaces, ..Wanted::ALL };
    let snapshot = state::read(global, &wanted)?;
    let snapshot = if arguments.redact { snapshot.redact() } else { snapshot };
    let bytes = snapshot.to_bytes();
    match file {
        Some(file) => output::private_file(file, &bytes)?,
        // The bytes are JSON.
        None => output::answer(&String::from_utf8_lossy(&bytes))?,
    }
    Ok(Exit::Yes)
}

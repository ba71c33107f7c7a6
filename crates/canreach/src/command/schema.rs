//! `schema`: the JSON Schema of an answer.

use canreach_report::json::schema::schema;

use crate::cli::SchemaArguments;
use crate::exit::Exit;
use crate::output;

pub(super) fn run(arguments: &SchemaArguments) -> anyhow::Result<Exit> {
    // clap takes only names that have a schema.
    output::answer(&schema(&arguments.name).unwrap_or_default())?;
    Ok(Exit::Yes)
}

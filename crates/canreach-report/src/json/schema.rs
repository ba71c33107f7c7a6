//! The JSON Schemas, made from the wire types.

use schemars::{Schema, schema_for};

/// The names that `schema` takes.
pub const NAMES: [&str; 5] = ["check", "diff", "ip", "list", "why"];

/// The schema of one kind of object; `None` for a name that is none.
///
/// # Panics
/// Never: a schema is plain data with string keys.
#[must_use]
pub fn schema(name: &str) -> Option<String> {
    let schema: Schema = match name {
        "check" => schema_for!(super::check::Check),
        "diff" => schema_for!(super::diff::Diff),
        "ip" => schema_for!(super::ip::Ip),
        "list" => schema_for!(super::list::List),
        "why" => schema_for!(super::why::Why),
        _ => return None,
    };
    let mut text = serde_json::to_string_pretty(&schema).expect("plain data with string keys");
    text.push('\n');
    Some(text)
}

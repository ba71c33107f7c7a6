//! Whole objects, and what they share.

use canreach_engine::AddressSet;
use serde::Serialize;

/// A set of addresses as the fewest prefixes.
pub(super) fn prefixes(set: &AddressSet) -> Vec<String> {
    set.to_prefixes().iter().map(ToString::to_string).collect()
}

/// One object on one line, as `--json` prints it.
///
/// # Panics
/// Never: the wire types are plain data with string keys.
#[must_use]
pub fn print<T: Serialize>(object: &T) -> String {
    let mut text = serde_json::to_string(object).expect("plain data with string keys");
    text.push('\n');
    text
}

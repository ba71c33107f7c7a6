//! What an answer could not take into account, on the wire.

use schemars::JsonSchema;
use serde::Serialize;

use crate::report::unknown::UnknownThing;

/// Something that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Unknown {
    /// What: `firewall`, `owners`, `sockets`...
    pub what: String,
    /// Why: a code, such as `needs-root` or `not-modelled`.
    pub reason: String,
    /// What would help, where something would.
    pub how: Option<String>,
}

impl Unknown {
    pub(super) fn all(things: &[UnknownThing]) -> Vec<Self> {
        let one = |thing: &UnknownThing| Self {
            what: thing.what.clone(),
            reason: thing.reason.to_owned(),
            how: thing.how.clone(),
        };
        things.iter().map(one).collect()
    }
}

//! Redaction of rulesets: constants that are addresses or names of links follow the maps of those.
//!
//! What a constant is follows from what the register holds that it is compared with, or from what is
//! done with it: [`meaning`] knows registers and keys, [`site`] finds the constants of a rule, and
//! [`ruleset`] visits and exchanges them. A constant whose meaning is not known stays as it is.

mod meaning;
mod ruleset;
mod site;
#[cfg(test)]
mod tests;

pub(super) use ruleset::{AddressUse, NameUse, addresses, names, redact};

//! Answers as JSON: the wire types, version 1. Fields are only ever added within a version.
//!
//! The types here and the snapshot are the only ones that leave the program. Their JSON Schemas are
//! made from the types, so the two cannot differ.

pub mod check;
pub mod diff;
pub mod ip;
pub mod list;
pub mod object;
pub mod process;
pub mod schema;
pub mod subject;
pub mod unknown;
pub mod why;
pub use object::print;

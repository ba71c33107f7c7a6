//! The commands, one file each.

mod check;
mod completions;
mod diff;
mod dispatch;
mod explain;
mod ip;
mod list;
mod man;
mod schema;
mod snapshot;
mod why;

pub(crate) use dispatch::dispatch;

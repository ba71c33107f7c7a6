//! The resolved machine: a namespace, indexed for the walk.

pub mod fib;
pub mod flow;
pub(crate) mod hook_order;
pub(crate) mod others;
pub mod policy;
pub mod resolve;
pub(crate) mod ruleset;
pub(crate) mod set_index;
pub mod sockets;
pub mod table;

pub use resolve::Host;

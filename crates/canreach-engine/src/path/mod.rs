//! The stages of the path, and the walk through them.

pub(crate) mod acknowledgement;
pub(crate) mod appearance;
pub(crate) mod arrival;
pub(crate) mod discovery;
pub(crate) mod forward;
pub mod group;
pub(crate) mod hook;
pub(crate) mod ingress;
pub(crate) mod input;
pub(crate) mod ipv6_source;
pub(crate) mod link;
pub(crate) mod local;
pub(crate) mod output;
pub(crate) mod prerouting;
pub mod receive;
pub(crate) mod rejection;
pub(crate) mod reply;
pub(crate) mod route_input;
pub(crate) mod sending;
pub(crate) mod sets;
pub(crate) mod settle;
pub(crate) mod socket_gate;
pub(crate) mod socket_lookup;
pub(crate) mod source;
pub(crate) mod source_choice;
pub(crate) mod stage;
pub(crate) mod tail;
pub(crate) mod trail;

pub use group::{answer, answer_with};
pub use receive::Walk;

#[cfg(test)]
mod tests;

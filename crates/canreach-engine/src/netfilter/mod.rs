//! Rules of every generation of netfilter, for all sources at once.

#![allow(dead_code, reason = "the walk does not ask rules yet")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "one match owns all expressions, keys and matches; what it calls takes its own"
)]

pub(crate) mod chain;
pub(crate) mod conntrack;
pub(crate) mod expr;
pub(crate) mod fib;
pub(crate) mod header;
pub(crate) mod hook;
pub(crate) mod ipset;
pub(crate) mod meta;
pub(crate) mod nat;
pub(crate) mod register;
pub(crate) mod residue;
pub(crate) mod set;
pub(crate) mod socket;
pub(crate) mod statement;
pub(crate) mod sweep;
pub(crate) mod unknown;
pub(crate) mod view;
pub(crate) mod xt_match;
pub(crate) mod xt_target;
pub(crate) mod xt_u32;

#[cfg(test)]
mod tests;

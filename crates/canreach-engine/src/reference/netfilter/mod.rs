//! Packet filters: what becomes of one packet at one hook.
//!
//! Reading order: `skb` (the packet), `value` (bytes that are not all known), `order` (what is
//! registered at a hook, and in which order), `conntrack`, `nat`, `chain` (nftables), `expr` and the
//! files it needs (`header`, `meta`, `ct`, `fib`, `socket`, `set`), `table` (iptables-legacy), `xt_match`,
//! `xt_target`, `ipset`; `exchange` makes the packets of an exchange.

mod chain;
mod conntrack;
mod ct;
mod exchange;
mod expr;
mod fib;
mod header;
mod ipset;
mod meta;
mod nat;
mod order;
mod set;
pub(super) mod skb;
mod socket;
mod table;
#[cfg(test)]
mod tests;
mod value;
mod xt_match;
mod xt_target;

pub(super) use exchange::Rejection;
pub(super) use order::NfStop;
pub(super) use set::Change;

//! Expressions: one decoder for each module of the kernel (net/netfilter/nft_*.c, the `dump` function).

mod action;
mod compat;
mod condition;
mod dispatch;
mod load;
mod statement;
mod value;

pub use dispatch::decode;

pub(super) use dispatch::{decode_as, list, single};

//! The nftables ruleset (nfnetlink), as the kernel holds it: the bytecode, not what `nft` prints.
//!
//! Each message is a [`Part`]; `ruleset` asks for all of them and puts them together. An expression
//! that is not known, or has an attribute, key or flag that is not known, is kept by its name
//! (`Expr::Opaque`): what a later kernel adds may change the meaning of the rest.

mod chain;
mod comment;
mod constant;
mod element;
mod expr;
mod field;
mod object;
mod part;
mod ruleset;
mod set;

pub use expr::decode as decode_expr;
pub use part::Part;
pub use ruleset::assemble;

pub(crate) use chain::hook;
pub(crate) use field::Fields;
pub(crate) use part::{decode, family, family_number};
pub(crate) use ruleset::{hooked_chains, read};

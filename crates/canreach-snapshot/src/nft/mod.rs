//! nftables as the kernel holds it: tables, chains, rules as lists of expressions, sets, objects.
//!
//! What `nft` prints is a translation of this; the expressions are what runs. Values in registers and
//! sets are bytes, in the order in which the packet has them.

pub mod bytes;
pub mod expr;
pub mod ruleset;
pub mod set;

pub use bytes::Bytes;
pub use expr::Expr;
pub use ruleset::{BaseChain, Chain, Flowtable, Handle, Object, Rule, Ruleset, Table};
pub use set::{Element, Set, SetFlags};

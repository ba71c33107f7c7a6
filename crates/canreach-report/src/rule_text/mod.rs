//! Rules of packet filters as text: what `nft list ruleset` and `iptables -S` print, on one line.
//!
//! Kernel counterpart: none; nft and iptables translate the kernel's expressions and structures in
//! the same way. Left out: what the kernel does not keep, such as the names of variables. What has no
//! known spelling stands as its name in brackets: `[osf]`.
//!
//! Reading order: `nft` walks the expressions of a rule and keeps what each register holds
//! (`held`); `field` names what was loaded, `value` prints what it is compared with, `set` the
//! elements of sets and maps. `xt` has the rules of iptables, `xt_match` and `xt_target` their parts.

mod field;
mod held;
mod key;
mod nft;
mod set;
mod spelling;
mod statement;
mod value;
mod xt;
mod xt_match;
mod xt_nft;
mod xt_target;

pub use nft::nft_rule;
pub use spelling::RULE_LENGTH_MAX;
pub use xt::xt_rule;
pub use xt_nft::{in_own_words, is_iptables_table};

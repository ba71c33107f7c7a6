//! Matches and targets of xtables: the structures that iptables-legacy keeps in its tables and
//! iptables-nft in nftables rules (include/uapi/linux/netfilter/xt_*.h, netfilter_ipv4/ipt_*.h,
//! netfilter_ipv6/ip6t_*.h).
//!
//! A name and a revision say which structure it is, and the family of the table what addresses in it
//! are. The kernel sends a structure padded to eight bytes, its own pointers zeroed. A name or a
//! revision that is not known here, or a length that is not that of the structure, leaves the bytes
//! as they came. Structures that kernels since 3.10 do not have are not decoded.

mod conntrack_match;
mod decode;
mod limit_match;
mod link_match;
mod nat_target;
mod packet_match;
mod set;
mod socket_match;
mod structure;
mod table;
mod target;

pub use self::decode::{decode_match, decode_target};
pub use self::table::{TableLayout, decode_table};

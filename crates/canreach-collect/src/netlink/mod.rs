//! The kernel's state over netlink: sockets of three families, and a decoder per kind of object.
//!
//! Decoders are pure: bytes of one message in, one row out. They read only what a snapshot keeps,
//! so a kernel that adds attributes or lengthens one stays readable.
//!
//! `netlink-packet-route` is not used for reading, only to hold these decoders against in tests: it
//! refuses a whole message when any attribute in it surprises, allocates for each attribute (at
//! 100,000 routes that is most of the time), and has no room for what is read here besides: unknown
//! selectors of policy rules, the arrays of sysctls in a link, nexthop objects.

pub mod attr;
pub mod datagram;
pub mod message;

pub(crate) mod address;
pub(crate) mod hook_list;
pub mod ipset;
pub(crate) mod link;
pub(crate) mod neighbor;
pub(crate) mod netconf;
pub(crate) mod nexthop;
pub mod nft;
pub(crate) mod policy_rule;
pub(crate) mod route;
pub mod sock_diag;
pub(crate) mod socket;
pub(crate) mod tc;
pub mod xt;

//! The state of a machine, as its kernel reported it.
//!
//! A [`Snapshot`] is plain data: what was read, in the kernel's own terms, and a [`Gap`] for
//! each thing that could not be read. It holds no conclusions. `collect` writes it, `engine` reads
//! it, and a file carries it from one machine to another, so nothing here does I/O.
//!
//! Reading order: [`snapshot`] (the root), [`link`], [`address`], [`route`], [`policy_rule`],
//! [`socket`], then the rest.

pub mod address;
pub mod bpf;
pub mod cgroup_path;
mod compat;
pub mod file;
pub mod firewall;
pub mod gap;
pub mod hook_list;
pub mod inconsistency;
pub mod ipset;
pub mod link;
pub mod neighbor;
pub mod nexthop;
pub mod nft;
pub mod policy_rule;
pub mod process;
pub mod redact;
pub mod route;
pub mod snapshot;
pub mod socket;
pub mod sysctl;
pub mod xt;

pub use address::{Address, AddressFlags, Family, Prefix, PrefixError, Scope};
pub use bpf::{AttachPoint, BpfAttachment};
pub use file::{FORMAT_VERSION, FileError, OtherSchema};
pub use firewall::{
    ChainKind, ChainPolicy, Firewall, FirewallHint, HookedChain, LegacyTable, NfFamily, NfHook,
    UfwRule,
};
pub use gap::{Gap, GapReason, GapSubject};
pub use hook_list::{HookEntry, HookOwner};
pub use inconsistency::{Contradiction, Inconsistency};
pub use ipset::{Ipset, IpsetEntry};
pub use link::{Ifindex, Link, LinkFlags, LinkKind, MacAddress, OperState, Wireless};
pub use neighbor::{Neighbor, NudState};
pub use nexthop::NexthopObject;
pub use policy_rule::{PolicyAction, PolicyRule};
pub use process::{Cgroup, Container, Owner, OwnerReason, Pid, Process, ResolvedBy, Unit};
pub use route::{NextHop, NextHopFlags, Route, RouteProtocol, RouteType, TableId};
pub use snapshot::{FibLayout, Machine, Netns, NetnsId, Snapshot, Virtualization};
pub use socket::{Backlog, CgroupId, Cookie, Mark, Port, Proto, Socket, SocketState};
pub use sysctl::{Combinator, GlobalSysctl, LinkSysctl, Sysctls};

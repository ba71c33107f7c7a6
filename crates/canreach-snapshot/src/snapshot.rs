//! The root: a [`Snapshot`] holds one [`Netns`] for each network namespace that was read.

use serde::{Deserialize, Serialize};

use crate::{
    Address, BpfAttachment, Cgroup, Firewall, Gap, Link, Neighbor, NexthopObject, Owner,
    PolicyRule, Process, Route, Socket, Sysctls,
};

/// What was read of a machine at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The machine itself: kernel, name, what it runs in.
    pub machine: Machine,
    /// The network namespaces that were read. The first is the one the question is about.
    pub namespaces: Vec<Netns>,
    /// Processes that hold a listed socket, and their ancestors.
    pub processes: Vec<Process>,
    /// Control groups that a listed socket was created in.
    pub cgroups: Vec<Cgroup>,
    /// What could not be read and belongs to no single namespace.
    pub gaps: Vec<Gap>,
}

impl Snapshot {
    /// The namespace the question is about; `None` only for a file that holds no namespace at all.
    #[must_use]
    pub fn subject(&self) -> Option<&Netns> {
        self.namespaces.first()
    }

    /// The process with this number, if it was read.
    #[must_use]
    pub fn process(&self, pid: crate::Pid) -> Option<&Process> {
        self.processes.iter().find(|process| process.pid == pid)
    }

    /// A process and those above it, nearest first, as far as they were read.
    ///
    /// It ends in a file whose processes are each other's parents, too.
    pub fn ancestry(&self, pid: crate::Pid) -> impl Iterator<Item = &Process> {
        let first = self.process(pid);
        std::iter::successors(first, |process| self.process(process.parent?))
            .take(self.processes.len())
    }

    /// The control group with this id, if it was read.
    #[must_use]
    pub fn cgroup(&self, id: crate::CgroupId) -> Option<&Cgroup> {
        self.cgroups.iter().find(|cgroup| cgroup.id == id)
    }
}

/// The machine that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// `uname -r`. Some rules differ between kernel versions.
    pub kernel_release: String,
    /// The host name, unless it was removed by redaction.
    pub hostname: Option<String>,
    /// Milliseconds since 1970-01-01 UTC when collecting began.
    pub collected_at_ms: u64,
    /// What this system runs inside, where that could be told.
    pub virtualization: Option<Virtualization>,
    /// Whether the reader had `CAP_NET_ADMIN` in the user namespace that owns the network namespace.
    pub privileged: bool,
}

impl Machine {
    /// Major and minor number of the kernel release, for rules that changed between versions.
    #[must_use]
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut numbers =
            self.kernel_release.split(|byte: char| !byte.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

/// A system that hides the real network behind its own: the address others need may be outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Virtualization {
    /// Windows Subsystem for Linux, version 1: shares the Windows network.
    Wsl1,
    /// Windows Subsystem for Linux, version 2: a virtual machine, by default behind NAT.
    Wsl2,
    /// A container (Docker, Podman, LXC, systemd-nspawn, Kubernetes).
    Container,
    /// A virtual machine; whether its network is bridged or behind NAT cannot be seen from inside.
    VirtualMachine,
}

/// The inode number of a network namespace in nsfs: its identity while it lives.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NetnsId(pub u64);

/// One network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Netns {
    /// Its identity.
    pub id: NetnsId,
    /// Its name under `/run/netns`, or the container or process it was found through.
    pub name: Option<String>,
    /// `true` for the namespace canreach itself runs in.
    pub own: bool,
    /// Links (network interfaces), by ifindex.
    pub links: Vec<Link>,
    /// Addresses, in the kernel's order: the first of a link and subnet is the primary one.
    pub addresses: Vec<Address>,
    /// Routes of every table, in dump order.
    pub routes: Vec<Route>,
    /// Nexthop objects (`ip nexthop`).
    pub nexthops: Vec<NexthopObject>,
    /// Policy rules (`ip rule`) of both families, in the kernel's order.
    pub policy_rules: Vec<PolicyRule>,
    /// Neighbours (ARP and ND entries).
    pub neighbors: Vec<Neighbor>,
    /// The sysctls the model reads.
    pub sysctls: Sysctls,
    /// Whether IPv4 searches tables local and main as one (see [`FibLayout`]).
    pub fib_layout: FibLayout,
    /// Sockets that packets can arrive at, in the order of the kernel's dump.
    ///
    /// The order is a fact of its own: within one lookup bucket the first of two equals wins, and
    /// the dump walks the buckets' chains (net/ipv4/inet_diag.c).
    pub sockets: Vec<Socket>,
    /// Who holds the sockets, by inode.
    pub owners: Vec<Owner>,
    /// What is known of packet filters.
    pub firewall: Firewall,
    /// BPF programs attached where a packet of this namespace passes.
    pub bpf: Vec<BpfAttachment>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

impl Netns {
    /// The link with this index.
    #[must_use]
    pub fn link(&self, ifindex: crate::Ifindex) -> Option<&Link> {
        self.links.iter().find(|link| link.ifindex == ifindex)
    }

    /// The link with this name.
    #[must_use]
    pub fn link_named(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Who holds the socket with this inode.
    #[must_use]
    pub fn owner(&self, inode: u64) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.inode == inode)
    }
}

/// How IPv4 keeps its tables local and main (net/ipv4/fib_frontend.c, `fib_unmerge`).
///
/// Until the first policy rule is added or deleted, both tables are one trie and the longest prefix
/// wins across them; from then on, for the life of the namespace, rules are walked one by one and
/// table local wins whatever its prefix length. No dump says which; `/proc/net/fib_trie` shows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FibLayout {
    /// One trie: no policy rule was ever added or deleted.
    Merged,
    /// Separate tables, walked by rules. Also the sticky flag of source validation
    /// (`fib_has_custom_rules`).
    Split,
    /// `/proc/net/fib_trie` could not be read.
    #[default]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pid;

    fn process(pid: u32, parent: u32) -> Process {
        Process {
            pid: Pid(pid),
            parent: Some(Pid(parent)),
            comm: String::new(),
            cmdline: Vec::new(),
            cwd: None,
            uid: 0,
            user: None,
            cgroup_path: None,
            started_at_ms: None,
        }
    }

    fn check(parents: &[(u32, u32)], of: u32, expect: &[u32]) {
        let snapshot = Snapshot {
            machine: Machine::default(),
            namespaces: Vec::new(),
            processes: parents.iter().map(|(pid, parent)| process(*pid, *parent)).collect(),
            cgroups: Vec::new(),
            gaps: Vec::new(),
        };
        let found: Vec<u32> = snapshot.ancestry(Pid(of)).map(|process| process.pid.0).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn ancestors_come_nearest_first_and_end() {
        check(&[(1, 0), (7, 1), (9, 7)], 9, &[9, 7, 1]);
        check(&[(9, 7)], 9, &[9]);
        check(&[], 9, &[]);
        check(&[(3, 4), (4, 3)], 3, &[3, 4]);
        check(&[(5, 5)], 5, &[5]);
    }
}

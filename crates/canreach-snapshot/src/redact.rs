//! Redaction: a snapshot without names and public addresses, of which every question has the same
//! answer.
//!
//! Numbers that only mean something on the machine itself (interface indices, process and user
//! numbers, marks, inode numbers) stay. Texts that tell who and where are removed, or replaced by
//! counters where equal texts must stay equal: names of links, units, containers, control groups.
//! Private and special addresses stay, for they are the same everywhere; public ones are exchanged
//! for others, all by one rule that keeps every prefix a prefix ([`AddressMap`]). Nothing of the
//! rule is kept, so what was removed cannot be had back from the file.
//!
//! Rules lose what is text, and what looks at addresses in a way that no exchange keeps (a mask that is
//! no prefix, a program over bytes) becomes opaque: answers that depend on it become unknown.
//!
//! What remains visible: which kinds of programs run (by names from a list), how networks nest,
//! prefix lengths, ports, and the lowest byte of IPv4 addresses.

mod address_map;
mod exchange;
mod met;
mod name_map;
mod nft;

pub use address_map::AddressMap;

use std::net::IpAddr;

use crate::{
    Address, Firewall, Gap, GapSubject, HookOwner, Link, MacAddress, Netns, NextHop, Prefix,
    Process, Route, Snapshot,
};
use exchange::Exchange;
use name_map::NameMap;

impl Snapshot {
    /// The same state without names and public addresses.
    #[must_use]
    pub fn redact(&self) -> Self {
        self.redact_with(&AddressMap::new(self))
    }

    /// As [`Snapshot::redact`], with an address map made of this very snapshot: who has the map can
    /// put the same question to both.
    #[must_use]
    pub fn redact_with(&self, addresses: &AddressMap) -> Self {
        let mut redacted = self.clone();
        Redaction { addresses, names: NameMap::new(self) }.snapshot(&mut redacted);
        redacted
    }
}

struct Redaction<'a> {
    addresses: &'a AddressMap,
    names: NameMap,
}

impl Redaction<'_> {
    fn snapshot(&mut self, snapshot: &mut Snapshot) {
        snapshot.machine.hostname = None;
        // `6.12.9-acme-prod` names its owner; which rules hold, the numbers say.
        let release = &mut snapshot.machine.kernel_release;
        let numbers = release.find(|byte: char| !byte.is_ascii_digit() && byte != '.');
        release.truncate(numbers.unwrap_or(release.len()));
        for netns in &mut snapshot.namespaces {
            self.netns(netns);
        }
        for process in &mut snapshot.processes {
            self.process(process);
        }
        for group in &mut snapshot.cgroups {
            group.path = self.names.cgroup_path(&group.path);
            if let Some(unit) = &mut group.unit {
                unit.name = self.names.unit(&unit.name);
                unit.starts = unit.starts.as_ref().map(|name| self.names.unit(name));
            }
            if let Some(container) = &mut group.container {
                container.id = self.names.container(&container.id);
            }
        }
        self.gaps(&mut snapshot.gaps);
    }

    fn netns(&mut self, netns: &mut Netns) {
        netns.name = netns.name.as_ref().map(|name| self.names.netns(name));
        for link in &mut netns.links {
            self.link(link);
        }
        for address in &mut netns.addresses {
            self.address(address);
        }
        for route in &mut netns.routes {
            self.route(route);
        }
        for nexthop in &mut netns.nexthops {
            self.ip(&mut nexthop.gateway);
        }
        for rule in &mut netns.policy_rules {
            self.network(&mut rule.source);
            self.network(&mut rule.destination);
            self.link_name(&mut rule.iif);
            self.link_name(&mut rule.oif);
        }
        // Groups that this machine listens to spell out the last bytes of its addresses.
        netns.neighbors.retain(|neighbor| !neighbor.address.is_multicast());
        for neighbor in &mut netns.neighbors {
            neighbor.address = self.addresses.address(neighbor.address);
            neighbor.mac = neighbor.mac.map(|mac| self.names.mac(mac));
        }
        let links = std::mem::take(&mut netns.sysctls.links).into_iter();
        netns.sysctls.links =
            links.map(|(name, values)| (self.names.link(&name), values)).collect();
        for socket in &mut netns.sockets {
            socket.address = self.addresses.address(socket.address);
            if let Some((peer, _)) = &mut socket.peer {
                *peer = self.addresses.address(*peer);
            }
        }
        self.firewall(&mut netns.firewall);
        for attachment in &mut netns.bpf {
            attachment.name = None;
        }
        self.gaps(&mut netns.gaps);
    }

    fn link(&mut self, link: &mut Link) {
        link.name = self.names.link(&link.name);
        link.mac = link.mac.map(|mac| self.names.mac(mac));
        if let Some(wireless) = &mut link.wireless {
            wireless.ssid = None;
        }
    }

    fn address(&mut self, address: &mut Address) {
        address.prefix = self.addresses.prefix(address.prefix);
        self.ip(&mut address.peer);
        self.ip(&mut address.broadcast);
        // A label is the link's name, and behind a colon what the administrator liked.
        if let Some(label) = &mut address.label {
            let link = label.split(':').next().unwrap_or_default();
            *label = self.names.link(link);
        }
    }

    fn route(&mut self, route: &mut Route) {
        route.destination = self.addresses.prefix(route.destination).network();
        self.network(&mut route.source);
        self.ip(&mut route.preferred_source);
        for NextHop { gateway, .. } in &mut route.nexthops {
            self.ip(gateway);
        }
    }

    fn firewall(&mut self, firewall: &mut Firewall) {
        for table in &mut firewall.xt_tables {
            exchange::table(table, self);
        }
        for set in firewall.ipsets.iter_mut().flatten() {
            exchange::ipset(set, self);
        }
        for table in &mut firewall.legacy_tables {
            table.name = self.names.filter(&table.name);
        }
        if let Some(ruleset) = &mut firewall.nft {
            nft::redact(self, ruleset);
        }
        for entry in firewall.hook_list.iter_mut().flatten() {
            entry.device = entry.device.as_ref().map(|device| self.names.link(device));
            match &mut entry.owner {
                HookOwner::Chain(_, table, name) | HookOwner::Flowtable(_, table, name) => {
                    *table = self.names.filter(table);
                    *name = self.names.filter(name);
                }
                HookOwner::Bpf(_) | HookOwner::Function => {}
            }
        }
        for chain in &mut firewall.chains {
            chain.table = self.names.filter(&chain.table);
            chain.name = self.names.filter(&chain.name);
            for device in chain.devices.iter_mut().filter(|device| !device.ends_with('*')) {
                *device = self.names.link(device);
            }
        }
    }

    fn process(&mut self, process: &mut Process) {
        process.comm = self.names.program(&process.comm);
        process.cmdline = Vec::new();
        process.cwd = None;
        process.user = None;
        process.cgroup_path = process.cgroup_path.as_ref().map(|path| self.names.cgroup_path(path));
    }

    fn gaps(&mut self, gaps: &mut [Gap]) {
        for gap in gaps {
            // Free text: paths, names, whatever an error spoke of.
            gap.detail = "removed by redaction".to_owned();
            match &mut gap.subject {
                GapSubject::Sysctl(name) => *name = self.names.sysctl(name),
                GapSubject::Netns(name) => *name = self.names.netns(name),
                GapSubject::Links
                | GapSubject::Addresses(_)
                | GapSubject::Routes(_)
                | GapSubject::PolicyRules(_)
                | GapSubject::Nexthops
                | GapSubject::Neighbors
                | GapSubject::Sockets(..)
                | GapSubject::SocketDetails(..)
                | GapSubject::SocketMarks
                | GapSubject::Owners
                | GapSubject::FibLayout
                | GapSubject::NftRuleset
                | GapSubject::LegacyTables(_)
                | GapSubject::Ipsets
                | GapSubject::Xdp
                | GapSubject::Tc
                | GapSubject::CgroupBpf
                | GapSubject::SkLookup
                | GapSubject::NetfilterBpf => {}
            }
        }
    }

    fn ip(&self, address: &mut Option<IpAddr>) {
        *address = address.map(|address| self.addresses.address(address));
    }

    /// A network stays one: its host bits are clear before and after.
    fn network(&self, prefix: &mut Option<Prefix>) {
        *prefix = prefix.map(|prefix| self.addresses.prefix(prefix).network());
    }

    fn link_name(&mut self, name: &mut Option<String>) {
        *name = name.as_ref().map(|name| self.names.link(name));
    }
}

impl Exchange for Redaction<'_> {
    fn prefix(&mut self, prefix: Prefix) -> Prefix {
        self.addresses.prefix(prefix)
    }

    /// Between its ends nothing is exchanged that would take an address out of it.
    fn range(&mut self, low: IpAddr, high: IpAddr) -> (IpAddr, IpAddr) {
        (self.addresses.address(low), self.addresses.address(high))
    }

    fn link(&mut self, name: &str) -> String {
        self.names.link(name)
    }

    fn link_start(&mut self, start: &str) -> String {
        self.names.link_start(start)
    }

    fn chain(&mut self, name: &str) -> String {
        self.names.filter(name)
    }

    fn set(&mut self, name: &str) -> String {
        self.names.set(name)
    }

    fn mac(&mut self, mac: [u8; 6]) -> [u8; 6] {
        self.names.mac(MacAddress(mac)).0
    }

    fn cgroup_path(&mut self, path: &str) -> String {
        self.names.cgroup_path(path)
    }
}

#[cfg(test)]
mod tests;

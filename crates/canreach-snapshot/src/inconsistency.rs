//! What a snapshot must hold to, so that the engine needs no checks of its own.
//!
//! The kernel keeps all of this true by itself; a file, edited or cut, may not. Things that a
//! living machine can show are allowed: a socket bound to a link that is gone, a process that ended,
//! a policy rule for a link that never was, a neighbour heard on a link that came up meanwhile.

mod ruleset;

use std::collections::BTreeMap;

use crate::link::LOOPBACK_IFINDEX;
use crate::{
    Address, Family, GapSubject, Ifindex, Link, Netns, PolicyAction, PolicyRule, Prefix, Proto,
    Route, Snapshot, Socket, SocketState,
};

/// How deep links may be stacked (`MAX_NEST_DEV` of include/linux/netdevice.h).
const MAX_MASTER_DEPTH: usize = 8;

/// Where a snapshot contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network namespace {namespace}, {list} {position}: {contradiction}")]
pub struct Inconsistency {
    /// Position of the namespace in the snapshot.
    pub namespace: usize,
    /// The list, as the file names it: `routes`.
    pub list: &'static str,
    /// Position in that list, from 0.
    pub position: usize,
    /// What is wrong with it.
    pub contradiction: Contradiction,
}

/// What cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Index 0 means "no link" to the kernel.
    #[error("interface index 0 is never given to a link")]
    ZeroIfindex,
    /// Two links with one index.
    #[error("interface index {0} is taken by an earlier link")]
    DuplicateIfindex(u32),
    /// Two links with one name.
    #[error("the name `{0}` is taken by an earlier link")]
    DuplicateName(String),
    /// The kernel makes one loopback link, before all others, and nobody can change what it is.
    #[error("only the link with interface index 1 is the loopback link")]
    SecondLoopback,
    /// A link that is part of itself, or stacked deeper than the kernel allows.
    #[error("it is part of itself, or stacked more than {MAX_MASTER_DEPTH} deep")]
    MasterLoop,
    /// A reference to a link that is not in the file.
    #[error("no link has the interface index {0}")]
    NoSuchLink(u32),
    /// IPv4 and IPv6 in one object.
    #[error("it mixes IPv4 and IPv6")]
    MixedFamilies,
    /// The kernel ignores 0.0.0.0 as an address of a link, and refuses `::`.
    #[error("no link has the unspecified address")]
    UnspecifiedAddress,
    /// A field that only the other family's routes have.
    #[error("routes of its family have no {0}")]
    ForeignSelector(&'static str),
    /// A destination with bits behind its prefix length.
    #[error("the destination {0} has bits set behind its prefix length")]
    HostBits(Prefix),
    /// A nexthop that gets no share.
    #[error("a nexthop has weight 0")]
    ZeroWeight,
    /// A range that ends before it starts.
    #[error("a range ends before it starts")]
    EmptyRange,
    /// Rules that would go round for ever.
    #[error("it goes to priority {0}, which does not lie behind its own")]
    GotoBackwards(u32),
    /// The kernel lists the rules of a family by priority.
    #[error("its priority {0} is smaller than that of an earlier rule of its family")]
    Unordered(u32),
    /// A listening UDP socket, for instance.
    #[error("a {proto} socket is never {state}", proto = .0.name(), state = state_name(*.1))]
    SocketState(Proto, SocketState),
    /// Connected without a peer, or the other way around.
    #[error("only a connected socket has a peer, and it always has one")]
    SocketPeer,
    /// Two tables, or two chains or sets of a table, with one name.
    #[error("the name `{0}` is taken by an earlier one")]
    DuplicateRulesName(String),
    /// A jump to a chain that is not in the table.
    #[error("it has no chain `{0}`, and a rule goes there")]
    NoSuchChain(String),
    /// A reference to a set that is not in the table.
    #[error("it has no set `{0}`, and a rule looks there")]
    NoSuchSet(String),
    /// A register behind the last.
    #[error("there is no register {0}")]
    NoSuchRegister(u8),
    /// Jumps that lead round, or deeper than the kernel allows, or to a base chain.
    #[error("jumps to chain `{0}` lead round, or too deep, or to where packets enter")]
    JumpLoop(String),
}

const fn state_name(state: SocketState) -> &'static str {
    match state {
        SocketState::Listen => "listening",
        SocketState::Unconnected => "unconnected",
        SocketState::Connected => "connected",
    }
}

impl Snapshot {
    /// Checks that nothing in it contradicts itself.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self) -> Result<(), Inconsistency> {
        for (namespace, netns) in self.namespaces.iter().enumerate() {
            netns.validate().map_err(|found| Inconsistency { namespace, ..found })?;
        }
        Ok(())
    }
}

impl Netns {
    /// Checks that nothing in it contradicts itself; see [`Snapshot::validate`].
    ///
    /// # Errors
    /// The first contradiction, as if this were the first namespace.
    pub fn validate(&self) -> Result<(), Inconsistency> {
        let links = LinkTable::new(self)?;
        each("links", &self.links, |link| links.check_masters(link))?;
        each("addresses", &self.addresses, |address| {
            links.check(Some(address.ifindex))?;
            check_address(address)
        })?;
        each("routes", &self.routes, |route| {
            route.nexthops.iter().try_for_each(|nexthop| links.check(nexthop.ifindex))?;
            check_route(route)
        })?;
        each("nexthops", &self.nexthops, |nexthop| links.check(nexthop.ifindex))?;
        each("policy_rules", &self.policy_rules, check_policy_rule)?;
        check_rule_order(&self.policy_rules)?;
        each("sockets", &self.sockets, check_socket)?;
        self.firewall.nft.as_ref().map_or(Ok(()), ruleset::check)
    }
}

fn each<'a, T>(
    list: &'static str,
    items: &'a [T],
    mut check: impl FnMut(&'a T) -> Result<(), Contradiction>,
) -> Result<(), Inconsistency> {
    items.iter().enumerate().try_for_each(|(position, item)| {
        check(item).map_err(|contradiction| Inconsistency {
            namespace: 0,
            list,
            position,
            contradiction,
        })
    })
}

/// Links by index, for references to them.
struct LinkTable {
    /// Each link's master.
    masters: BTreeMap<Ifindex, Option<Ifindex>>,
    /// Without all links, a reference to one that is missing proves nothing.
    complete: bool,
}

impl LinkTable {
    fn new(netns: &Netns) -> Result<Self, Inconsistency> {
        let mut masters = BTreeMap::new();
        let mut names = std::collections::BTreeSet::new();
        each("links", &netns.links, |link| {
            if link.ifindex == Ifindex(0) {
                return Err(Contradiction::ZeroIfindex);
            }
            if masters.insert(link.ifindex, link.master).is_some() {
                return Err(Contradiction::DuplicateIfindex(link.ifindex.0));
            }
            if link.is_loopback() && link.ifindex != LOOPBACK_IFINDEX {
                return Err(Contradiction::SecondLoopback);
            }
            if !names.insert(link.name.as_str()) {
                return Err(Contradiction::DuplicateName(link.name.clone()));
            }
            Ok(())
        })?;
        let complete = !netns.gaps.iter().any(|gap| gap.subject == GapSubject::Links);
        Ok(Self { masters, complete })
    }

    fn check(&self, ifindex: Option<Ifindex>) -> Result<(), Contradiction> {
        match ifindex {
            Some(ifindex) if self.complete && !self.masters.contains_key(&ifindex) => {
                Err(Contradiction::NoSuchLink(ifindex.0))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_masters(&self, link: &Link) -> Result<(), Contradiction> {
        self.check(link.master)?;
        let mut master = link.master;
        for _ in 0..MAX_MASTER_DEPTH {
            let Some(next) = master else { return Ok(()) };
            master = self.masters.get(&next).copied().flatten();
        }
        Err(Contradiction::MasterLoop)
    }
}

fn check_address(address: &Address) -> Result<(), Contradiction> {
    if address.address().is_unspecified() {
        return Err(Contradiction::UnspecifiedAddress);
    }
    let family = address.prefix.family();
    let others = [address.peer, address.broadcast];
    same_family(family, others.into_iter().flatten().map(Family::of))
}

fn check_route(route: &Route) -> Result<(), Contradiction> {
    let family = route.family();
    let source = route.source.map(Prefix::family);
    same_family(family, source.into_iter().chain(route.preferred_source.map(Family::of)))?;
    match family {
        Family::Ipv4 if route.source.is_some() => {
            return Err(Contradiction::ForeignSelector("source prefix"));
        }
        Family::Ipv6 if route.tos != 0 => {
            return Err(Contradiction::ForeignSelector("TOS"));
        }
        Family::Ipv4 | Family::Ipv6 => {}
    }
    if route.destination != route.destination.network() {
        return Err(Contradiction::HostBits(route.destination));
    }
    for nexthop in &route.nexthops {
        // An IPv4 route may lead to an IPv6 router (RFC 8950), never the other way around.
        if family == Family::Ipv6 {
            same_family(family, nexthop.gateway.map(Family::of).into_iter())?;
        }
        if nexthop.weight == 0 {
            return Err(Contradiction::ZeroWeight);
        }
    }
    Ok(())
}

fn check_policy_rule(rule: &PolicyRule) -> Result<(), Contradiction> {
    let prefixes = [rule.source, rule.destination];
    same_family(rule.family, prefixes.into_iter().flatten().map(Prefix::family))?;
    let ports = [rule.source_ports, rule.destination_ports];
    let uids_empty = rule.uid_range.is_some_and(|(low, high)| low > high);
    if uids_empty || ports.into_iter().flatten().any(|(low, high)| low > high) {
        return Err(Contradiction::EmptyRange);
    }
    match rule.action {
        PolicyAction::Goto(target) if target <= rule.priority => {
            Err(Contradiction::GotoBackwards(target))
        }
        PolicyAction::Goto(_)
        | PolicyAction::Lookup(_)
        | PolicyAction::Nop
        | PolicyAction::Blackhole
        | PolicyAction::Unreachable
        | PolicyAction::Prohibit
        | PolicyAction::Other(_) => Ok(()),
    }
}

fn check_rule_order(rules: &[PolicyRule]) -> Result<(), Inconsistency> {
    let mut last = BTreeMap::new();
    each("policy_rules", rules, |rule| {
        let earlier = last.insert(rule.family, rule.priority);
        if earlier.is_some_and(|earlier| earlier > rule.priority) {
            return Err(Contradiction::Unordered(rule.priority));
        }
        Ok(())
    })
}

fn check_socket(socket: &Socket) -> Result<(), Contradiction> {
    let peer = socket.peer.map(|(address, _)| Family::of(address));
    same_family(socket.family, [Family::of(socket.address)].into_iter().chain(peer))?;
    let possible = match socket.proto {
        Proto::Tcp => socket.state == SocketState::Listen,
        Proto::Udp => socket.state != SocketState::Listen,
    };
    if !possible {
        return Err(Contradiction::SocketState(socket.proto, socket.state));
    }
    if (socket.state == SocketState::Connected) != socket.peer.is_some() {
        return Err(Contradiction::SocketPeer);
    }
    Ok(())
}

fn same_family(
    family: Family,
    mut others: impl Iterator<Item = Family>,
) -> Result<(), Contradiction> {
    if others.all(|other| other == family) { Ok(()) } else { Err(Contradiction::MixedFamilies) }
}

#[cfg(test)]
mod tests;

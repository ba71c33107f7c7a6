//! Everything in rules of xtables and in sets of ipset that tells who and where, one after the other:
//! to learn what there is, and to exchange it.
//!
//! What cannot be exchanged for something that decides the same is made opaque: a mask that is no
//! prefix, a program that looks at bytes. Texts that decide nothing go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::nft::Bytes;
use crate::nft::expr::NfVerdict;
use crate::xt::{
    ConntrackMatch, HeaderMatch, MaskedAddress, Match, MatchKind, NatRange, Rule, SetReference,
    Table, Target, TargetKind,
};
use crate::{Family, Ipset, IpsetEntry, Prefix};

/// Helpers that come with the kernel; others are named by people.
const HELPERS: [&str; 12] = [
    "",
    "RAS",
    "Q.931",
    "H.245",
    "amanda",
    "ftp",
    "irc",
    "netbios-ns",
    "pptp",
    "sip",
    "snmp",
    "tftp",
];

/// What is done with each thing: each gives what takes its place.
pub(super) trait Exchange {
    /// A network.
    fn prefix(&mut self, prefix: Prefix) -> Prefix;
    /// All addresses from one to another.
    fn range(&mut self, low: IpAddr, high: IpAddr) -> (IpAddr, IpAddr);
    /// The name of a link.
    fn link(&mut self, name: &str) -> String;
    /// How names of links start.
    fn link_start(&mut self, start: &str) -> String;
    /// A table or a chain.
    fn chain(&mut self, name: &str) -> String;
    /// A set, a list of addresses, a rate: what rules share by name.
    fn set(&mut self, name: &str) -> String;
    /// A hardware address.
    fn mac(&mut self, mac: [u8; 6]) -> [u8; 6];
    /// A control group.
    fn cgroup_path(&mut self, path: &str) -> String;
}

/// A table of iptables-legacy.
pub(super) fn table(table: &mut Table, to: &mut impl Exchange) {
    table.name = to.chain(&table.name);
    for chain in &mut table.chains {
        chain.name = to.chain(&chain.name);
        for row in &mut chain.rules {
            rule(row, to);
        }
    }
}

fn rule(rule: &mut Rule, to: &mut impl Exchange) {
    let Rule { header, matches, target: does } = rule;
    if !header_match(header, to) {
        // Whatever it asked of addresses is undecided now.
        let kind = MatchKind::Opaque(Bytes::default());
        matches.push(Match { name: "address".to_owned(), revision: 0, kind });
    }
    for row in matches {
        one_match(row, to);
    }
    target(does, to);
}

/// What a rule asks of the header. `false` where a mask was none of a prefix: it asks nothing then.
fn header_match(header: &mut HeaderMatch, to: &mut impl Exchange) -> bool {
    header.iniface = link_pattern(&header.iniface, to);
    header.outiface = link_pattern(&header.outiface, to);
    let mut all = true;
    let ends = [
        (&mut header.source, &mut header.source_inverted),
        (&mut header.destination, &mut header.destination_inverted),
    ];
    for (address, inverted) in ends {
        if let Some(exchanged) = masked(*address, to) {
            *address = exchanged;
        } else {
            let any = Family::of(address.address).unspecified();
            *address = MaskedAddress { address: any, mask: any };
            *inverted = false;
            all = false;
        }
    }
    all
}

fn link_pattern(pattern: &str, to: &mut impl Exchange) -> String {
    match pattern.strip_suffix('+') {
        _ if pattern.is_empty() => String::new(),
        Some(start) => format!("{}+", to.link_start(start)),
        None => to.link(pattern),
    }
}

/// How many leading bits count; `None` where others do.
fn prefix_length(mask: IpAddr) -> Option<u8> {
    let (ones, zeros, bits) = match mask {
        IpAddr::V4(mask) => (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros(), 32),
        IpAddr::V6(mask) => (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros(), 128),
    };
    u8::try_from(ones).ok().filter(|_| ones + zeros == bits)
}

fn masked(masked: MaskedAddress, to: &mut impl Exchange) -> Option<MaskedAddress> {
    let MaskedAddress { address, mask } = masked;
    let length = prefix_length(mask)?;
    let prefix = Prefix::new(address, length)?;
    if prefix.network() != prefix {
        // No packet has such an address, and none has all bits that do not count.
        let address = match mask {
            IpAddr::V4(mask) => IpAddr::V4(Ipv4Addr::from_bits(!mask.to_bits())),
            IpAddr::V6(mask) => IpAddr::V6(Ipv6Addr::from_bits(!mask.to_bits())),
        };
        return Some(MaskedAddress { address, mask });
    }
    Some(MaskedAddress { address: to.prefix(prefix).network().address(), mask })
}

/// A match, in a rule of either kind of iptables.
pub(super) fn one_match(row: &mut Match, to: &mut impl Exchange) {
    let range = |range: &mut Option<(IpAddr, IpAddr)>, to: &mut _| {
        *range = range.map(|(low, high)| Exchange::range(to, low, high));
    };
    let mut opaque = false;
    match &mut row.kind {
        MatchKind::Conntrack(asks) => opaque = !connection(asks, to),
        MatchKind::Comment(text) => text.clear(),
        MatchKind::Iprange { source, destination, .. } => {
            range(source, to);
            range(destination, to);
        }
        MatchKind::Set(set) => reference(set, to),
        MatchKind::Mac { address, .. } => *address = to.mac(*address),
        MatchKind::Physdev { physin, physout, .. } => {
            *physin = link_pattern(physin, to);
            *physout = link_pattern(physout, to);
        }
        MatchKind::Policy { raw, .. } | MatchKind::String { raw } => *raw = Bytes::default(),
        MatchKind::Hashlimit { name, raw } => {
            *name = to.set(name);
            *raw = Bytes::default();
        }
        MatchKind::Recent { name, .. } | MatchKind::Nfacct { name } => *name = to.set(name),
        MatchKind::Cgroup { path, .. } => {
            *path = path.as_ref().map(|path| to.cgroup_path(path));
        }
        MatchKind::Helper { name, .. } => *name = helper(name, to),
        // Programs over bytes, addresses among them.
        MatchKind::U32 { .. } | MatchKind::Bpf { .. } | MatchKind::Opaque(_) => opaque = true,
        MatchKind::Tcp { .. }
        | MatchKind::Udp { .. }
        | MatchKind::Icmp { .. }
        | MatchKind::Multiport { .. }
        | MatchKind::Addrtype { .. }
        | MatchKind::State { .. }
        | MatchKind::Mark { .. }
        | MatchKind::Connmark { .. }
        | MatchKind::Pkttype { .. }
        | MatchKind::Rpfilter { .. }
        | MatchKind::Socket { .. }
        | MatchKind::Owner { .. }
        | MatchKind::Limit { .. }
        | MatchKind::Connlimit { .. }
        | MatchKind::Statistic { .. }
        | MatchKind::Time(_)
        | MatchKind::Ttl { .. }
        | MatchKind::Dscp { .. }
        | MatchKind::Tos { .. }
        | MatchKind::Ecn { .. }
        | MatchKind::Length { .. }
        | MatchKind::Tcpmss { .. }
        | MatchKind::Realm { .. }
        | MatchKind::Cpu { .. }
        | MatchKind::Devgroup { .. }
        | MatchKind::Connbytes { .. }
        | MatchKind::Connlabel { .. }
        | MatchKind::Quota { .. } => {}
    }
    if opaque {
        row.kind = MatchKind::Opaque(Bytes::default());
    }
}

fn helper(name: &str, to: &mut impl Exchange) -> String {
    if HELPERS.contains(&name) { name.to_owned() } else { to.set(name) }
}

/// `false` where a mask was none of a prefix.
fn connection(asks: &mut ConntrackMatch, to: &mut impl Exchange) -> bool {
    let ConntrackMatch {
        orig_source,
        orig_destination,
        reply_source,
        reply_destination,
        state: _,
        protocol: _,
        orig_source_port: _,
        orig_destination_port: _,
        reply_source_port: _,
        reply_destination_port: _,
        status: _,
        expires: _,
        direction: _,
    } = asks;
    let ends = [orig_source, orig_destination, reply_source, reply_destination];
    ends.into_iter().flatten().all(|(address, _)| {
        let exchanged = masked(*address, to);
        *address = exchanged.unwrap_or(*address);
        exchanged.is_some()
    })
}

fn reference(set: &mut SetReference, to: &mut impl Exchange) {
    set.name = set.name.as_ref().map(|name| to.set(name));
}

/// A target, in a rule of either kind of iptables.
pub(super) fn target(row: &mut Target, to: &mut impl Exchange) {
    match &mut row.kind {
        TargetKind::Standard(NfVerdict::Jump(chain) | NfVerdict::Goto(chain)) => {
            *chain = to.chain(chain);
        }
        TargetKind::Dnat(range)
        | TargetKind::Snat(range)
        | TargetKind::Masquerade(range)
        | TargetKind::Redirect(range)
        | TargetKind::Netmap(range) => {
            let NatRange { addresses, ports: _, base_port: _, flags: _ } = range;
            *addresses = addresses.map(|(low, high)| to.range(low, high));
        }
        TargetKind::Ct { helper: name, .. } => {
            *name = name.as_ref().map(|name| helper(name, to));
        }
        TargetKind::Tproxy { address, .. } => {
            *address = address.map(|address| to.prefix(Prefix::host(address)).address());
        }
        TargetKind::Set { add, delete, map, .. } => {
            [add, delete, map].into_iter().flatten().for_each(|set| reference(set, to));
        }
        TargetKind::Opaque(bytes) => *bytes = Bytes::default(),
        TargetKind::Standard(
            NfVerdict::Accept
            | NfVerdict::Drop
            | NfVerdict::Stolen
            | NfVerdict::Queue { .. }
            | NfVerdict::Continue
            | NfVerdict::Break
            | NfVerdict::Return
            | NfVerdict::Other(_),
        )
        | TargetKind::Continue
        | TargetKind::Error
        | TargetKind::Reject { .. }
        | TargetKind::NoVerdict
        | TargetKind::Mark { .. }
        | TargetKind::Connmark { .. }
        | TargetKind::Nfqueue { .. }
        | TargetKind::Ttl { .. }
        | TargetKind::Tos { .. }
        | TargetKind::Synproxy => {}
    }
}

/// A set of ipset.
pub(super) fn ipset(set: &mut Ipset, to: &mut impl Exchange) {
    set.name = to.set(&set.name);
    set.opaque |= set.bitmask.is_some_and(|mask| prefix_length(mask).is_none());
    // Ports have no family.
    if let (Some((first, last)), Some(Family::Ipv4)) = (set.range, set.family) {
        let [first, last] = [first, last].map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
        set.range = match to.range(first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => Some((first.to_bits(), last.to_bits())),
            (IpAddr::V6(_), _) | (_, IpAddr::V6(_)) => None,
        };
    }
    if set.opaque {
        set.entries.clear();
    }
    for row in &mut set.entries {
        entry(row, to);
    }
}

fn entry(row: &mut IpsetEntry, to: &mut impl Exchange) {
    let IpsetEntry {
        network,
        network_to,
        second,
        mac,
        iface,
        iface_wildcard,
        set,
        ports: _,
        protocol: _,
        mark: _,
        nomatch: _,
        expires_s: _,
    } = row;
    if let (Some(low), Some(high)) = (*network, *network_to) {
        let (low, high) = to.range(low.address(), high);
        *network = Some(Prefix::host(low));
        *network_to = Some(high);
    } else {
        *network = network.map(|network| to.prefix(network).network());
    }
    *second = second.map(|network| to.prefix(network).network());
    *mac = mac.map(|mac| to.mac(mac));
    if let Some((name, _)) = iface {
        *name = if *iface_wildcard { to.link_start(name) } else { to.link(name) };
    }
    *set = set.as_ref().map(|name| to.set(name));
}

#[cfg(test)]
mod tests;

//! The IPv6 source of what this machine sends, where nothing fixes it.
//!
//! *Kernel:* `ipv6_dev_get_saddr`, `ipv6_get_saddr_eval` (net/ipv6/addrconf.c), `ipv6_addr_label`.
//! *Decides:* the address for each destination; several where nothing shows which comes first.
//! *Reads:* addresses, their prefixes and flags; `use_tempaddr`, `use_oif_addrs_only`.
//! *Not modelled:* label tables other than the default one; home addresses; preferences of sockets;
//! `use_optimistic`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use canreach_snapshot::address::address_value;
use canreach_snapshot::{Address, AddressFlags, Family, Ifindex, LinkSysctl};

use crate::AddressSet;
use crate::host::Host;
use crate::packet::packet_set::PacketSet;
use crate::path::sets::Sets;
use crate::path::stage::Asked;

/// The prefixes that labels go by, and their labels (net/ipv6/addrlabel.c, `ip6addrlbl_init_table`).
const LABELS: [(Ipv6Addr, u8, u32); 10] = [
    (Ipv6Addr::UNSPECIFIED, 0, 1),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, 5),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, 11),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, 2),
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16, 12),
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32, 6),
    (ORCHID, 28, 7),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, 4),
    (Ipv6Addr::UNSPECIFIED, 96, 3),
    (Ipv6Addr::LOCALHOST, 128, 0),
];
const ORCHID: Ipv6Addr = Ipv6Addr::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
/// More equally good addresses than this are not told apart.
const MAX_COMPARED: usize = 64;

/// The first and the last of a range of addresses.
type Range = (u128, u128);
/// How good a source is for a destination, before their common prefix counts; the smallest is best.
type Rank = (bool, u8, bool, bool, bool, bool, bool);

/// The sources of everything that is sent by a link (or, without a route, by none yet): a partition
/// of the destinations, which are the question's sources.
pub(crate) fn sources_by_destination(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    link: Option<Ifindex>,
) -> Vec<(PacketSet, Vec<IpAddr>)> {
    let mut parts: BTreeMap<Vec<IpAddr>, Vec<Range>> = BTreeMap::new();
    for (range, chosen) in Candidates::new(host, link).choices() {
        parts.entry(chosen).or_default().push(range);
    }
    let in_sets = |(chosen, ranges)| {
        (asked.from(sets, &AddressSet::from_ranges(Family::Ipv6, ranges)), chosen)
    };
    parts.into_iter().map(in_sets).collect()
}

/// The destinations for which the source is known to be one address.
pub(crate) fn destinations_of(
    host: &Host<'_>,
    link: Option<Ifindex>,
    source: IpAddr,
) -> AddressSet {
    let choices = Candidates::new(host, link).choices().into_iter();
    let fitting = choices.filter(|(_, chosen)| *chosen == [source]);
    AddressSet::from_ranges(Family::Ipv6, fitting.map(|(range, _)| range))
}

/// The best source for one destination, as far as it can be told: the first of several.
pub(crate) fn first_source(
    host: &Host<'_>,
    link: Option<Ifindex>,
    destination: IpAddr,
) -> Option<IpAddr> {
    let candidates = Candidates::new(host, link);
    let destination = address_value(destination);
    let best = candidates.best(destination);
    candidates.nearest(&best, destination).into_iter().next()
}

/// The addresses that could be a source.
struct Candidates<'h> {
    own: Vec<Candidate<'h>>,
    link: Option<Ifindex>,
    /// Only addresses of the link count.
    of_link: bool,
}

struct Candidate<'h> {
    address: &'h Address,
    value: u128,
    elsewhere: bool,
    /// It is no temporary address where those are preferred, or one where they are not.
    unwanted: bool,
}

impl<'h> Candidates<'h> {
    fn new(host: &Host<'h>, link: Option<Ifindex>) -> Self {
        let vrf = |link: Option<Ifindex>| {
            let link = link.and_then(|link| host.link(link));
            link.and_then(|link| host.vrf_of(link)).map(|(master, _)| master)
        };
        let wanted = vrf(link);
        let sysctl =
            |sysctl, link| host.link(link).map_or(0, |link| host.link_sysctl(sysctl, link).value);
        let suits = |own: &&Address| {
            matches!(own.address(), IpAddr::V6(_))
                && !own.is_tentative()
                && vrf(Some(own.ifindex)) == wanted
        };
        let candidate = |address: &'h Address| {
            let temporary = address.flags.has(AddressFlags::TEMPORARY_OR_SECONDARY);
            let preferred = sysctl(LinkSysctl::V6UseTempaddr, address.ifindex) >= 2;
            Candidate {
                address,
                value: address_value(address.address()),
                elsewhere: link.is_some_and(|link| link != address.ifindex),
                unwanted: temporary != preferred,
            }
        };
        let own = host.netns().addresses.iter().filter(suits).map(candidate).collect();
        let of_link = link.is_some_and(|link| sysctl(LinkSysctl::V6UseOifAddrsOnly, link) != 0);
        Self { own, link, of_link }
    }

    /// The sources of all destinations, range by range.
    fn choices(&self) -> Vec<(Range, Vec<IpAddr>)> {
        let mut own: BTreeSet<u128> = self.own.iter().map(|own| own.value).collect();
        // An address is the source of what is sent to itself, if its link is not the wrong one.
        own.retain(|value| self.usable(*value).any(|own| own.value == *value));
        let mut choices: Vec<_> =
            own.iter().map(|value| ((*value, *value), vec![address(*value)])).collect();
        for (low, high) in regions() {
            let sample = (low..=high).find(|value| !own.contains(value)).unwrap_or(low);
            // Within a region the rank is the same for all destinations.
            let best = self.best(sample);
            let mut bounds = BTreeSet::from([low]);
            if (2..=MAX_COMPARED).contains(&best.len()) {
                for candidate in &best {
                    for length in 1..=candidate.address.prefix.length() {
                        let (first, last) = range(candidate.value, length);
                        bounds.extend([Some(first), last.checked_add(1)].into_iter().flatten());
                    }
                }
            }
            bounds.extend(own.range(low..=high).flat_map(|value| [*value, value.wrapping_add(1)]));
            let bounds: Vec<u128> =
                bounds.into_iter().filter(|bound| (low..=high).contains(bound)).collect();
            for (position, first) in bounds.iter().enumerate() {
                let last = bounds.get(position + 1).map_or(high, |next| next - 1);
                if !own.contains(first) {
                    choices.push(((*first, last), self.nearest(&best, *first)));
                }
            }
        }
        choices
    }

    /// Of equally good ones, those that share the longest prefix with the destination (rule 8); of one
    /// link, the first. Which link comes first is not shown.
    fn nearest(&self, best: &[&Candidate<'h>], destination: u128) -> Vec<IpAddr> {
        let common = |own: &Candidate<'_>| {
            let equal = (own.value ^ destination).leading_zeros() as u8;
            equal.min(own.address.prefix.length())
        };
        let compared = best.len() <= MAX_COMPARED;
        let longest = best.iter().map(|own| common(own)).max();
        let mut links = BTreeSet::new();
        let mut chosen: Vec<IpAddr> = best
            .iter()
            .filter(|own| !compared || Some(common(own)) == longest)
            .filter(|own| links.insert(own.address.ifindex) || !compared)
            .map(|own| own.address.address())
            .collect();
        chosen.dedup();
        chosen
    }

    fn usable(&self, destination: u128) -> impl Iterator<Item = &Candidate<'h>> {
        let near = scope(destination) <= scope(u128::from(LINK_LOCAL));
        let only = self.of_link || (near && self.link.is_some());
        self.own.iter().filter(move |own| !(only && own.elsewhere))
    }

    /// Those of the best rank, in the order of the snapshot.
    fn best(&self, destination: u128) -> Vec<&Candidate<'h>> {
        let best = self.usable(destination).map(|own| rank(own, destination)).min();
        self.usable(destination).filter(|own| Some(rank(own, destination)) == best).collect()
    }
}

/// All addresses, cut where label or scope change.
fn regions() -> Vec<Range> {
    let prefixes = LABELS.iter().map(|(prefix, length, _)| (*prefix, *length));
    let prefixes = prefixes.chain([(LINK_LOCAL, 10), (ORCHID, 28), (Ipv6Addr::LOCALHOST, 128)]);
    let mut bounds = BTreeSet::from([0]);
    for (prefix, length) in prefixes {
        let (low, high) = range(u128::from(prefix), length);
        bounds.extend([Some(low), high.checked_add(1)].into_iter().flatten());
    }
    let bounds: Vec<u128> = bounds.into_iter().collect();
    let region = |(position, low): (usize, &u128)| {
        (*low, bounds.get(position + 1).map_or(u128::MAX, |next| next - 1))
    };
    bounds.iter().enumerate().map(region).collect()
}

/// The rules of RFC 6724 up to the last, in the kernel's order.
fn rank(own: &Candidate<'_>, destination: u128) -> Rank {
    let far = {
        let (own, destination) = (scope(own.value), scope(destination));
        // The smallest that is wide enough, else the widest.
        if own >= destination { own } else { 128 - own }
    };
    let avoided = own.address.flags.has(AddressFlags::DEPRECATED)
        || own.address.flags.has(AddressFlags::OPTIMISTIC);
    let is_orchid = |value| range(u128::from(ORCHID), 28) == range(value, 28);
    (
        own.value != destination,
        far,
        avoided && !is_always_preferred(own.value),
        own.elsewhere,
        label(own.value) != label(destination),
        own.unwanted,
        is_orchid(own.value) != is_orchid(destination),
    )
}

/// The scope of a unicast address, as the kernel counts it (`__ipv6_addr_type`).
const fn scope(value: u128) -> u8 {
    match value >> 118 {
        0x3fa => 2,
        0x3fb => 5,
        _ if value == 1 => 2,
        _ => 14,
    }
}

/// Loopback, IPv4-compatible and IPv4-mapped addresses (`ipv6_saddr_preferred`).
const fn is_always_preferred(value: u128) -> bool {
    value >> 32 == 0 || value >> 32 == 0xffff
}

fn label(value: u128) -> u32 {
    let matching = LABELS
        .iter()
        .filter(|(prefix, length, _)| range(u128::from(*prefix), *length) == range(value, *length));
    matching.max_by_key(|(_, length, _)| *length).map_or(u32::MAX, |(_, _, label)| *label)
}

/// The first and the last address of a prefix.
const fn range(value: u128, length: u8) -> Range {
    let host = if length == 0 { u128::MAX } else { (1 << (128 - length as u32)) - 1 };
    (value & !host, value | host)
}

const fn address(value: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_scopes_are_the_kernels() {
        for (address, expect) in [
            ("::1", (0, 2)),
            ("::2", (3, 14)),
            ("::ffff:10.0.0.1", (4, 14)),
            ("fd00::1", (5, 14)),
            ("fe80::1", (1, 2)),
            ("fec0::1", (11, 5)),
            ("2001::1", (6, 14)),
            ("2001:10::1", (7, 14)),
            ("2001:db8::1", (1, 14)),
            ("2002:a00:1::", (2, 14)),
            ("3ffe::1", (12, 14)),
        ] {
            let value = u128::from(address.parse::<Ipv6Addr>().expect("the test's own address"));
            assert_eq!((label(value), scope(value)), expect, "{address}");
        }
    }

    #[test]
    fn ranges_have_both_ends() {
        assert_eq!(range(0, 0), (0, u128::MAX));
        assert_eq!(range(7, 128), (7, 7));
        assert_eq!(range(0x1234, 120), (0x1200, 0x12ff));
    }
}

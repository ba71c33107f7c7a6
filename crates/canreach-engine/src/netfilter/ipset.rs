//! Lookups in sets of ipset.
//!
//! *Kernel:* `ip_set_test` (net/netfilter/ipset/ip_set_core.c), `mtype_test_cidrs` (ip_set_hash_gen.h),
//! `list_set_ktest`. Of networks that hold an address the longest decides, also where it is an exception.
//! Left out: counters that are asked about, exceptions that are asked for, hardware addresses of packets
//! together with addresses.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::xt::{MaskedAddress, SetReference};
use canreach_snapshot::{Family, Ipset, IpsetEntry, Prefix};

use crate::netfilter::chain::Evaluation;
use crate::netfilter::header::{TCP, UDP};
use crate::netfilter::sweep::{Piece, partition};
use crate::netfilter::unknown::{Cause, Sameness, Unknowns};
use crate::netfilter::view::{Part, View};
use crate::netfilter::xt_match::truth;
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;
use crate::{NfSubject, UnknownReason};

/// How deep lists of sets are followed; the kernel has one level.
const MAX_NESTING: u32 = 4;

impl Evaluation<'_, '_, '_> {
    /// `set_match_v4`.
    pub(crate) fn ipset_match(
        &mut self,
        subject: NfSubject,
        view: &View,
        reference: &SetReference,
    ) -> PacketSet {
        let asks_more = SetReference::MATCH_COUNTERS | SetReference::RETURN_NOMATCH;
        let set = if reference.flags & asks_more != 0 {
            self.of_ipset(subject, reference.index, UnknownReason::NotModelled)
        } else {
            self.ipset(subject, view, reference.index, &reference.source, 0)
        };
        self.invert(set, reference.inverted)
    }

    /// Something about a set that nobody knows.
    fn of_ipset(&mut self, subject: NfSubject, index: u16, reason: UnknownReason) -> PacketSet {
        let cause = Cause { reason, subject: Some(subject) };
        let variable = if reason == UnknownReason::EarlierPackets {
            self.unknowns.fresh(cause, 0, 1)
        } else {
            let same = Sameness::Machine(format!("ipset {index} {reason:?}"));
            self.unknowns.same(same, cause, 0, 1)
        };
        Unknowns::happens(self.sets, variable)
    }

    fn ipset(
        &mut self,
        subject: NfSubject,
        view: &View,
        index: u16,
        sides: &[bool],
        depth: u32,
    ) -> PacketSet {
        let host = self.host;
        let sets = host.netns().firewall.ipsets.as_ref();
        let found = sets.and_then(|sets| sets.iter().find(|set| set.index == index));
        let Some(set) = found else {
            return self.of_ipset(subject, index, UnknownReason::Unread);
        };
        if set.opaque || depth > MAX_NESTING {
            return self.of_ipset(subject, index, UnknownReason::NotModelled);
        }
        if view.filled_sets.contains(&(None, usize::from(index))) {
            return self.of_ipset(subject, index, UnknownReason::EarlierPackets);
        }
        let Some((_, dimensions)) = set.type_name.split_once(':') else {
            return self.of_ipset(subject, index, UnknownReason::NotModelled);
        };
        let dimensions: Vec<&str> = dimensions.split(',').collect();
        // A set of another family, or with more fields than the rule names, holds nothing.
        if set.family.is_some_and(|family| family != view.family) || sides.len() < dimensions.len()
        {
            return PacketSet::NONE;
        }
        if dimensions == ["set"] {
            let mut union = PacketSet::NONE;
            for name in set.entries.iter().filter_map(|entry| entry.set.as_ref()) {
                let member = sets.and_then(|sets| sets.iter().find(|set| set.name == *name));
                let member = match member {
                    Some(member) => self.ipset(subject, view, member.index, sides, depth + 1),
                    None => self.of_ipset(subject, index, UnknownReason::Unread),
                };
                union = self.sets.or(union, member);
            }
            return union;
        }
        self.entries(subject, view, set, (&dimensions, sides))
    }

    fn entries(
        &mut self,
        subject: NfSubject,
        view: &View,
        set: &Ipset,
        (dimensions, sides): (&[&str], &[bool]),
    ) -> PacketSet {
        let not_modelled = UnknownReason::NotModelled;
        if dimensions == ["mac"] {
            return self.macs(subject, view, set, sides[0]);
        }
        if dimensions.contains(&"mac") {
            return self.of_ipset(subject, set.index, not_modelled);
        }
        if dimensions.contains(&"port") && !matches!(view.protocol, TCP | UDP) {
            return PacketSet::NONE;
        }
        if let Some(mask) = set.bitmask {
            return self.masked_entries(subject, view, (set, mask), (dimensions, sides));
        }
        let mut order: Vec<&IpsetEntry> = set.entries.iter().collect();
        if order.iter().any(|entry| entry.nomatch) {
            let length = |prefix: Option<Prefix>| prefix.map_or(0, |prefix| prefix.length());
            order.sort_by_key(|entry| {
                (std::cmp::Reverse(length(entry.network)), std::cmp::Reverse(length(entry.second)))
            });
        }
        let mut pieces: Vec<Piece> = Vec::with_capacity(order.len());
        for entry in order {
            let mut piece = Piece { outcome: u32::from(entry.nomatch), ..Piece::default() };
            let mut holds = true;
            let mut addresses = 0;
            for (dimension, source) in dimensions.iter().zip(sides) {
                addresses += u32::from(matches!(*dimension, "ip" | "net"));
                let place = (*dimension, *source, addresses == 1);
                let judged = self.dimension(view, (set, entry), place, &mut piece, &mut holds);
                if judged != Some(true) {
                    return self.of_ipset(subject, set.index, not_modelled);
                }
            }
            if holds {
                pieces.push(piece);
            }
        }
        match partition(self.sets, &pieces, 2) {
            Some(parts) => {
                let matching = parts.into_iter().find(|(_, outcome)| *outcome == 0);
                matching.map_or(PacketSet::NONE, |(set, _)| set)
            }
            None => self.of_ipset(subject, set.index, UnknownReason::LimitReached),
        }
    }

    /// Of a set with a bitmask: addresses are put under it before they are looked up.
    fn masked_entries(
        &mut self,
        subject: NfSubject,
        view: &View,
        (set, mask): (&Ipset, IpAddr),
        (dimensions, sides): (&[&str], &[bool]),
    ) -> PacketSet {
        let ranges = set.entries.iter().any(|entry| entry.nomatch || entry.network_to.is_some());
        if ranges {
            return self.of_ipset(subject, set.index, UnknownReason::NotModelled);
        }
        let mut union = PacketSet::NONE;
        for entry in &set.entries {
            let (mut piece, mut holds) = (Piece::default(), true);
            let mut matching = PacketSet::ALL;
            let mut addresses = 0;
            for (dimension, source) in dimensions.iter().zip(sides) {
                if matches!(*dimension, "ip" | "net") {
                    addresses += 1;
                    let network = if addresses == 1 { entry.network } else { entry.second };
                    let part = if *source { view.source } else { view.destination };
                    let Some(masked) = network.and_then(|network| under(network, mask)) else {
                        return self.of_ipset(subject, set.index, UnknownReason::NotModelled);
                    };
                    let within = self.part_masked(subject, part, masked);
                    matching = self.sets.and(matching, within);
                    continue;
                }
                let place = (*dimension, *source, false);
                if self.dimension(view, (set, entry), place, &mut piece, &mut holds) != Some(true) {
                    return self.of_ipset(subject, set.index, UnknownReason::NotModelled);
                }
            }
            if let Some(ports) = piece.port {
                let ports = self.sets.ranges(Field::SourcePort, &[ports]);
                matching = self.sets.and(matching, ports);
            }
            if holds {
                union = self.sets.or(union, matching);
            }
        }
        union
    }

    /// One field of an entry: narrows what the entry holds for. `None` or `false` where that cannot be
    /// said.
    fn dimension(
        &self,
        view: &View,
        (set, entry): (&Ipset, &IpsetEntry),
        (dimension, source, first): (&str, bool, bool),
        piece: &mut Piece,
        holds: &mut bool,
    ) -> Option<bool> {
        match dimension {
            "ip" | "net" => {
                let range = if first {
                    first_range(set, entry)
                } else {
                    entry.second.map(|second| cut(set, second).range())
                };
                let part = if source { view.source } else { view.destination };
                range.map(|range| narrow(part, range, piece, holds, true))
            }
            "port" => {
                let part = if source { view.source_port } else { view.destination_port };
                *holds &= entry.protocol.is_none_or(|own| own == view.protocol);
                entry.ports.map(|(low, high)| {
                    let range = (u128::from(low.0), u128::from(high.0));
                    narrow(part, range, piece, holds, false)
                })
            }
            "mark" => entry.mark.map(|mark| {
                *holds &= mark == view.mark & set.markmask.unwrap_or(u32::MAX);
                true
            }),
            "iface" => entry.iface.as_ref().map(|(name, physical)| {
                let link = match (source, *physical) {
                    (true, false) => view.iif,
                    (true, true) => view.physical_iif,
                    (false, false) => view.oif,
                    (false, true) => view.physical_oif,
                };
                let link = link.and_then(|link| self.host.link(link));
                *holds &= link.is_some_and(|link| {
                    if entry.iface_wildcard {
                        link.name.starts_with(name)
                    } else {
                        link.name == *name
                    }
                });
                true
            }),
            _ => None,
        }
    }

    /// `hash:mac`: the sender's hardware address.
    fn macs(&mut self, subject: NfSubject, view: &View, set: &Ipset, source: bool) -> PacketSet {
        use canreach_snapshot::nft::expr::PayloadBase;
        let link = view.iif.and_then(|iif| self.host.link(iif));
        let Some(link) = link.filter(|_| source) else {
            return if source || view.iif.is_none() {
                PacketSet::NONE
            } else {
                self.of_ipset(subject, set.index, UnknownReason::NotModelled)
            };
        };
        let values = set
            .entries
            .iter()
            .filter_map(|entry| entry.mac)
            .map(|mac| mac.iter().fold(0, |sum, byte| (sum << 8) | u128::from(*byte)));
        let mut values: Vec<u128> = values.collect();
        values.sort_unstable();
        values.dedup();
        if link.is_loopback() {
            return truth(values.contains(&0));
        }
        let cause = Cause { reason: UnknownReason::PacketDetails, subject: Some(subject) };
        let same = Sameness::Header(view.turn, PayloadBase::Link, 6);
        let variable = self.unknowns.same(same, cause, 0, 0xffff_ffff_ffff);
        let ranges: Vec<_> = values.into_iter().map(|value| (value, value)).collect();
        variable.within(self.sets, &ranges)
    }
}

/// The addresses of an entry's first field.
fn first_range(set: &Ipset, entry: &IpsetEntry) -> Option<(u128, u128)> {
    let network = entry.network?;
    if let Some(last) = entry.network_to {
        return Some((network.range().0, address_value(last)));
    }
    Some(cut(set, network).range())
}

/// With a netmask, sets keep the first address of each network.
fn cut(set: &Ipset, network: Prefix) -> Prefix {
    let length = set.netmask.filter(|mask| *mask < network.length());
    let whole = length.and_then(|length| Prefix::new(network.address(), length));
    whole.map_or(network, |prefix| prefix.network())
}

/// A network of a set with a bitmask.
fn under(network: Prefix, mask: IpAddr) -> Option<MaskedAddress> {
    let family = network.family();
    if Family::of(mask) != family {
        return None;
    }
    let bits = u32::from(family.bits());
    let hosts = bits.checked_sub(u32::from(network.length()))?;
    let prefix = u128::MAX.checked_shl(hosts).unwrap_or(0);
    let mask = address_value(mask) & prefix;
    let address = address_value(network.address()) & mask;
    Some(MaskedAddress { address: family.address(address), mask: family.address(mask) })
}

/// Narrows a piece to packets whose part lies in a range; `false` where that cannot be said.
fn narrow(
    part: Part,
    range: (u128, u128),
    piece: &mut Piece,
    holds: &mut bool,
    address: bool,
) -> bool {
    match part {
        Part::Is(value) => *holds &= (range.0..=range.1).contains(&value),
        Part::Client if address => piece.narrow_source(range, holds),
        Part::Client => piece.narrow_port(range, holds),
        Part::Chosen(_) => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_under_a_bitmask() {
        let of = |network: &str, mask: &str| {
            let network: Prefix = network.parse().expect(network);
            let masked = under(network, mask.parse().expect(mask))?;
            Some((masked.address.to_string(), masked.mask.to_string()))
        };
        let text = |address: &str, mask: &str| Some((address.to_owned(), mask.to_owned()));
        assert_eq!(of("10.0.0.5/32", "255.0.0.255"), text("10.0.0.5", "255.0.0.255"));
        assert_eq!(of("10.0.0.0/8", "255.0.0.255"), text("10.0.0.0", "255.0.0.0"));
        assert_eq!(of("0.0.0.0/0", "255.0.0.255"), text("0.0.0.0", "0.0.0.0"));
        assert_eq!(of("fd00::5/128", "ffff::ff"), text("fd00::5", "ffff::ff"));
        assert_eq!(of("fd00::5/128", "255.0.0.0"), None);
    }
}

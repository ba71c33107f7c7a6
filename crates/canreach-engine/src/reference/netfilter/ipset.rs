//! Sets of ipset.
//!
//! Mirrors `ip_set_test` and the `kadt` functions of net/netfilter/ipset. A set is taken with what it
//! holds in the snapshot; once the exchange has changed it, what it holds cannot be told. Left out:
//! counters that a rule compares, ports of bridges.

use std::net::IpAddr;

use canreach_snapshot::xt::SetReference;
use canreach_snapshot::{Family, Ifindex, Ipset, IpsetEntry, Prefix};

use super::skb::{Place, Skb};
use super::value::Tri;
use crate::UnknownReason;
use crate::reference::walk::Walk;

/// How deep a list of sets is followed; the kernel allows no list in a list.
const MAX_DEPTH: u8 = 4;

impl<'a> Walk<'a> {
    /// `set_match_v4`: whether the packet is in the set a rule names.
    pub(super) fn in_ipset(&self, reference: &SetReference, skb: &Skb, place: &Place) -> Tri {
        let asks_more = SetReference::MATCH_COUNTERS | SetReference::RETURN_NOMATCH;
        let found = match self.ipset(reference) {
            Some(set) if reference.flags & asks_more != 0 => {
                let content = format!("ipset {} flags {}", set.name, reference.flags);
                Tri::Maybe(UnknownReason::NotModelled, Some(content))
            }
            Some(set) => self.ip_set_test(set, &reference.source, skb, place, 0),
            None => Tri::Maybe(UnknownReason::Unread, Some(format!("ipset {}", reference.index))),
        };
        found.inverted_if(reference.inverted)
    }

    fn ipset(&self, reference: &SetReference) -> Option<&'a Ipset> {
        let sets = self.netns.firewall.ipsets.iter().flatten();
        let by_name = |set: &&Ipset| reference.name.as_ref() == Some(&set.name);
        sets.clone().find(|set| set.index == reference.index).or_else(|| sets.clone().find(by_name))
    }

    /// Notes that a packet changed a set.
    pub(super) fn change_ipset(&mut self, reference: &SetReference) {
        self.changed_ipsets.push(reference.index);
    }

    fn ip_set_test(
        &self,
        set: &'a Ipset,
        sides: &[bool],
        skb: &Skb,
        place: &Place,
        depth: u8,
    ) -> Tri {
        let name = &set.name;
        if set.opaque || depth > MAX_DEPTH {
            return Tri::Maybe(UnknownReason::NotModelled, Some(format!("ipset {name}")));
        }
        if self.changed_ipsets.contains(&set.index) {
            let content = format!("ipset {name} by now");
            return Tri::Maybe(UnknownReason::EarlierPackets, Some(content));
        }
        let Some((_, fields)) = set.type_name.split_once(':') else { return Tri::No };
        if fields == "set" {
            let sets = || self.netns.firewall.ipsets.iter().flatten();
            let member = |entry: &IpsetEntry| {
                let name = entry.set.as_ref()?;
                let member = sets().find(|set| set.name == *name)?;
                Some(self.ip_set_test(member, sides, skb, place, depth + 1))
            };
            return set.entries.iter().filter_map(member).fold(Tri::No, Tri::or);
        }
        if set.family.is_some() && set.family != skb.family {
            return Tri::No;
        }
        let fields: Vec<&str> = fields.split(',').collect();
        let mut entries: Vec<&IpsetEntry> = set.entries.iter().collect();
        // The longest prefix decides, which may be an exception.
        let length = |prefix: Option<Prefix>| prefix.map_or(0, Prefix::length);
        entries.sort_by_key(|entry| {
            (u8::MAX - length(entry.network), u8::MAX - length(entry.second), !entry.nomatch)
        });
        let mut found = Tri::No;
        for entry in entries {
            let is_it = self.is_entry(set, entry, &fields, sides, skb, place);
            match (is_it, entry.nomatch) {
                (Tri::No, _) => {}
                (Tri::Yes, true) => return found,
                (Tri::Maybe(reason, content), true) => {
                    return Tri::Maybe(reason, content);
                }
                (is_it, false) => found = found.or(is_it),
            }
            if found == Tri::Yes {
                break;
            }
        }
        found
    }

    /// Whether an entry is what the set's fields of the packet make.
    fn is_entry(
        &self,
        set: &Ipset,
        entry: &IpsetEntry,
        fields: &[&str],
        sides: &[bool],
        skb: &Skb,
        place: &Place,
    ) -> Tri {
        let mut holds = Tri::Yes;
        let mut addresses = 0;
        for (at, field) in fields.iter().enumerate() {
            let from_source = sides.get(at).copied().unwrap_or(false);
            let address = if from_source { skb.source } else { skb.destination };
            let one = match *field {
                "ip" | "net" => {
                    addresses += 1;
                    let within = if addresses == 1 { entry.network } else { entry.second };
                    let to = entry.network_to.filter(|_| addresses == 1);
                    Tri::of(is_within(set, address, within, to))
                }
                "port" => has_port(entry, from_source, skb),
                "mac" => match entry.mac {
                    None => Tri::Yes,
                    Some(mac) => {
                        let content = format!("{:?} comes from {mac:02x?}", skb.turn);
                        Tri::Maybe(UnknownReason::PacketDetails, Some(content))
                    }
                },
                "mark" => {
                    let kept = skb.mark & set.markmask.unwrap_or(u32::MAX);
                    Tri::of(entry.mark.unwrap_or(0) == kept)
                }
                "iface" => {
                    self.is_interface(entry, if from_source { place.iif } else { place.oif })
                }
                _unknown => {
                    Tri::Maybe(UnknownReason::NotModelled, Some(format!("ipset {}", set.name)))
                }
            };
            holds = holds.and(one);
        }
        holds
    }

    fn is_interface(&self, entry: &IpsetEntry, link: Option<Ifindex>) -> Tri {
        let name = link.and_then(|link| self.link(link)).map(|link| link.name.as_str());
        match &entry.iface {
            None => Tri::Yes,
            Some((wanted, true)) => {
                let content = format!("comes by port {wanted}");
                Tri::Maybe(UnknownReason::NotModelled, Some(content))
            }
            Some((wanted, false)) if entry.iface_wildcard => {
                Tri::of(name.is_some_and(|name| name.starts_with(wanted)))
            }
            Some((wanted, false)) => Tri::of(name == Some(wanted.as_str())),
        }
    }
}

fn is_within(set: &Ipset, address: IpAddr, of: Option<Prefix>, to: Option<IpAddr>) -> bool {
    let Some(of) = of else { return false };
    let cut = |address: IpAddr| {
        let prefix = set.netmask.and_then(|length| Prefix::new(address, length));
        prefix.map_or(address, |prefix| prefix.network().address())
    };
    let address = match set.bitmask {
        Some(mask) => match masked(address, mask) {
            Some(address) => address,
            None => return false,
        },
        None => cut(address),
    };
    let same_family = of.family() == Family::of(address);
    same_family
        && match to {
            Some(to) => (of.address()..=to).contains(&address),
            None => of.contains(address),
        }
}

/// The bits of an address that a bitmask keeps.
fn masked(address: IpAddr, mask: IpAddr) -> Option<IpAddr> {
    match (address, mask) {
        (IpAddr::V4(address), IpAddr::V4(mask)) => Some(IpAddr::V4(address & mask)),
        (IpAddr::V6(address), IpAddr::V6(mask)) => Some(IpAddr::V6(address & mask)),
        (_, _) => None,
    }
}

/// `ip_set_get_ip4_port`. A bitmap of ports does not tell TCP from UDP.
fn has_port(entry: &IpsetEntry, from_source: bool, skb: &Skb) -> Tri {
    if !skb.has_ports() {
        return Tri::No;
    }
    let port = if from_source { skb.source_port } else { skb.destination_port };
    let protocol = entry.protocol.is_none_or(|of| of == 0 || of == skb.protocol);
    let within = entry.ports.is_some_and(|(low, high)| (low.0..=high.0).contains(&port));
    Tri::of(protocol && within)
}

//! The rule by which public addresses are exchanged: a bijection of all addresses that keeps every
//! prefix a prefix.
//!
//! Think of the addresses of a family as the leaves of a binary tree; a prefix is a node. The map
//! swaps the two halves below some nodes. Whatever nodes those are, two addresses share as many
//! leading bits afterwards as before. So longest-prefix match, nesting, and the ranking of source
//! addresses (RFC 6724, rule 8) come out the same, for every address and not only for those in the
//! file.
//!
//! Nodes above a special block (private, loopback, multicast, documentation...) are never swapped:
//! each block stays in its place. Elsewhere a node is swapped if that leads the first address of the
//! snapshot that passes it to the half with bit 0. The result shows in which order and how deep the
//! public prefixes branch, and nothing else of them but the few bits above a special block.

use std::net::IpAddr;

use super::met::Met;
use super::nft::{self, AddressUse};
use crate::address::address_value;
use crate::{Family, Netns, Prefix, RouteType, Snapshot};

/// Bits of an IPv4 address that may be exchanged. The last byte stays: in nearly every network it
/// is the host's part, which tells nobody whose network it is, and readers look for `.1` and `.255`.
const IPV4_BITS: u8 = 24;

/// The network's part of an IPv6 address.
const IPV6_NETWORK_BITS: u8 = 64;

/// An interface identifier below 2^16 was given by hand (`::1`, `::53`): it stays.
const IPV6_SMALL_IDENTIFIER_BITS: u8 = 112;

/// What may be exchanged inside a special block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Nothing.
    Nothing,
    /// Interface identifiers: many are made of the hardware address.
    Identifiers,
    /// Everything: only the block itself must stay where it is.
    Everything,
}

/// A block that stays in its place.
struct Block {
    address: u128,
    length: u8,
    inside: Inside,
}

const fn v4(a: u8, b: u8, c: u8, length: u8) -> Block {
    let address = u32::from_be_bytes([a, b, c, 0]) as u128;
    Block { address, length, inside: Inside::Nothing }
}

/// The first 64 bits in four groups.
const fn v6(groups: [u16; 4], length: u8, inside: Inside) -> Block {
    let [a, b, c, d] = groups;
    let network = (a as u128) << 48 | (b as u128) << 32 | (c as u128) << 16 | d as u128;
    Block { address: network << 64, length, inside }
}

/// RFC 6890 and its successors; 224.0.0.0/3 holds multicast and what is reserved above it.
const SPECIAL_V4: [Block; 13] = [
    v4(0, 0, 0, 8),
    v4(10, 0, 0, 8),
    v4(100, 64, 0, 10),
    v4(127, 0, 0, 8),
    v4(169, 254, 0, 16),
    v4(172, 16, 0, 12),
    v4(192, 0, 0, 24),
    v4(192, 0, 2, 24),
    v4(192, 168, 0, 16),
    v4(198, 18, 0, 15),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    v4(224, 0, 0, 3),
];

/// `::/8` holds `::`, `::1` and the blocks that embed IPv4. Teredo, ORCHID, 6to4 and 6bone have
/// labels of their own in the ranking of source addresses (net/ipv6/addrlabel.c).
const SPECIAL_V6: [Block; 12] = [
    v6([0, 0, 0, 0], 8, Inside::Nothing),
    v6([0x2001, 0, 0, 0], 32, Inside::Everything),
    v6([0x2001, 0x10, 0, 0], 28, Inside::Everything),
    v6([0x2001, 0x20, 0, 0], 28, Inside::Everything),
    v6([0x2001, 0xdb8, 0, 0], 32, Inside::Nothing),
    v6([0x2002, 0, 0, 0], 16, Inside::Everything),
    v6([0x3ffe, 0, 0, 0], 16, Inside::Everything),
    v6([0x3fff, 0, 0, 0], 20, Inside::Nothing),
    v6([0xfc00, 0, 0, 0], 7, Inside::Identifiers),
    v6([0xfe80, 0, 0, 0], 10, Inside::Identifiers),
    v6([0xfec0, 0, 0, 0], 10, Inside::Identifiers),
    v6([0xff00, 0, 0, 0], 8, Inside::Nothing),
];

/// Blocks of 96 bits that embed IPv4 addresses: IPv4-mapped, and NAT64 (RFC 6052).
const EMBEDDING: [u128; 2] = [0xffff << 32, 0x0064_ff9b << 96];

/// How public addresses are exchanged for others.
#[derive(Debug, Clone)]
pub struct AddressMap {
    v4: Tree,
    v6: Tree,
}

impl AddressMap {
    /// A map that removes the public addresses of a snapshot.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let mut map = Self { v4: Tree::new(Family::Ipv4), v6: Tree::new(Family::Ipv6) };
        let rules: Vec<_> =
            snapshot.namespaces.iter().map(|netns| Met::of(&netns.firewall)).collect();
        for netns in &snapshot.namespaces {
            map.pin_edges(netns);
            map.pin_ranges(netns);
        }
        for &(low, high) in rules.iter().flat_map(|met| &met.ranges) {
            map.pin_range(low, high);
        }
        for netns in &snapshot.namespaces {
            map.meet(netns);
        }
        for met in &rules {
            met.prefixes.iter().for_each(|prefix| map.meet_prefix(*prefix));
            map.meet_all(met.ranges.iter().flat_map(|&(low, high)| [low, high]));
        }
        map
    }

    /// What an address became.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> IpAddr {
        self.prefix(Prefix::host(address)).address()
    }

    /// What a prefix became. Its host bits, if any are set, are exchanged too.
    #[must_use]
    pub fn prefix(&self, prefix: Prefix) -> Prefix {
        let (family, value) = (prefix.family(), address_value(prefix.address()));
        let mapped = match family {
            Family::Ipv4 => self.v4.map(value),
            Family::Ipv6 => match embedded(prefix) {
                Some(inner) => {
                    value & !u128::from(u32::MAX) | self.v4.map(address_value(inner.address()))
                }
                None => self.v6.map(value),
            },
        };
        Prefix::new(family.address(mapped), prefix.length()).unwrap_or(prefix)
    }

    /// The lowest and the highest addresses of a network are found by counting, by the kernel
    /// (broadcast) and by the model (a neighbour that stands for others): they stay its edges.
    fn pin_edges(&mut self, netns: &Netns) {
        let connected = netns.routes.iter().filter(|route| {
            route.kind == RouteType::Unicast
                && route.nexthops.iter().any(|nexthop| nexthop.gateway.is_none())
        });
        let networks = netns.addresses.iter().map(|address| address.prefix);
        for network in networks.chain(connected.map(|route| route.destination)) {
            let (low, high) = network.range();
            self.tree(network.family()).pin(low, network.length());
            self.tree(network.family()).pin(high, network.length());
        }
    }

    /// A range of addresses in a rule or a set stays one: on the way to its ends, below what both have
    /// in common, nothing is swapped. What is between them still is afterwards.
    fn pin_ranges(&mut self, netns: &Netns) {
        if let Some(ruleset) = &netns.firewall.nft {
            nft::addresses(ruleset, &mut |used| match used {
                AddressUse::Range(low, high) => self.pin_range(low, high),
                AddressUse::Prefix(_) => {}
            });
        }
    }

    /// From where its ends part, nothing on the way to either is swapped: what is between them stays
    /// there.
    fn pin_range(&mut self, low: IpAddr, high: IpAddr) {
        let ends = [low, high].map(|end| {
            let host = Prefix::host(end);
            embedded(host).unwrap_or(host)
        });
        let [low, high] = ends.map(|end| address_value(end.address()));
        if ends.iter().any(|end| end.family() != ends[0].family()) {
            return;
        }
        let tree = self.tree(ends[0].family());
        let bits = tree.family.bits();
        // The addresses are no longer than the family's bits, nor is what they share.
        let apart = 128 - (low ^ high).leading_zeros() as u8;
        for end in [low, high] {
            tree.decide(end, bits.saturating_sub(apart)..bits, |_, _| false);
        }
    }

    fn meet(&mut self, netns: &Netns) {
        if let Some(ruleset) = &netns.firewall.nft {
            nft::addresses(ruleset, &mut |used| match used {
                AddressUse::Prefix(prefix) => self.meet_prefix(prefix),
                AddressUse::Range(low, high) => self.meet_all([low, high]),
            });
        }
        for address in &netns.addresses {
            self.meet_prefix(Prefix::host(address.address()));
            self.meet_all(address.peer.into_iter().chain(address.broadcast));
        }
        for route in &netns.routes {
            self.meet_prefix(route.destination);
            route.source.into_iter().for_each(|source| self.meet_prefix(source));
            self.meet_all(route.preferred_source);
            self.meet_all(route.nexthops.iter().filter_map(|nexthop| nexthop.gateway));
        }
        self.meet_all(netns.nexthops.iter().filter_map(|nexthop| nexthop.gateway));
        for rule in &netns.policy_rules {
            rule.source.into_iter().chain(rule.destination).for_each(|it| self.meet_prefix(it));
        }
        self.meet_all(netns.neighbors.iter().map(|neighbor| neighbor.address));
        for socket in &netns.sockets {
            self.meet_all([socket.address].into_iter().chain(socket.peer.map(|(peer, _)| peer)));
        }
    }

    fn meet_all(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        addresses.into_iter().for_each(|address| self.meet_prefix(Prefix::host(address)));
    }

    fn meet_prefix(&mut self, prefix: Prefix) {
        let prefix = embedded(prefix).unwrap_or(prefix);
        let value = address_value(prefix.address());
        self.tree(prefix.family()).meet(value, prefix.length());
    }

    const fn tree(&mut self, family: Family) -> &mut Tree {
        match family {
            Family::Ipv4 => &mut self.v4,
            Family::Ipv6 => &mut self.v6,
        }
    }
}

/// The IPv4 prefix that an IPv6 prefix embeds.
fn embedded(prefix: Prefix) -> Option<Prefix> {
    let value = address_value(prefix.address());
    let length = prefix.length().checked_sub(96)?;
    let embeds = prefix.family() == Family::Ipv6 && EMBEDDING.contains(&(value >> 32 << 32));
    let inner = Family::Ipv4.address(value & u128::from(u32::MAX));
    Prefix::new(inner, length).filter(|_| embeds)
}

/// The nodes of one family that something is known of. A node decides the bit at its depth.
#[derive(Debug, Clone)]
struct Tree {
    family: Family,
    nodes: Vec<Node>,
}

/// Below a node without a child of its own nothing is swapped.
#[derive(Debug, Clone, Copy, Default)]
struct Node {
    /// Positions in the list; 0, the root, is nobody's child and stands for none.
    children: [u32; 2],
    /// `None` where nothing is decided yet.
    swapped: Option<bool>,
}

impl Tree {
    fn new(family: Family) -> Self {
        Self { family, nodes: vec![Node::default()] }
    }

    /// The bits that may be exchanged outside of interface identifiers.
    const fn network_bits(&self) -> u8 {
        match self.family {
            Family::Ipv4 => IPV4_BITS,
            Family::Ipv6 => IPV6_NETWORK_BITS,
        }
    }

    const fn blocks(&self) -> &'static [Block] {
        match self.family {
            Family::Ipv4 => &SPECIAL_V4,
            Family::Ipv6 => &SPECIAL_V6,
        }
    }

    const fn bit(&self, value: u128, depth: u8) -> bool {
        value >> (self.family.bits() - 1 - depth) & 1 == 1
    }

    /// Whether two addresses share their first bits.
    fn share(&self, one: u128, other: u128, bits: u8) -> bool {
        (one ^ other).checked_shr(u32::from(self.family.bits() - bits)).is_none_or(|rest| rest == 0)
    }

    fn map(&self, value: u128) -> u128 {
        let mut mapped = value;
        let mut node = self.nodes.first();
        for depth in 0..self.family.bits() {
            let Some(Node { children, swapped }) = node else { break };
            let swap = u128::from(swapped.unwrap_or(false));
            mapped ^= swap << (self.family.bits() - 1 - depth);
            let child = children[usize::from(self.bit(value, depth))];
            node = if child == 0 { None } else { self.nodes.get(child as usize) };
        }
        mapped
    }

    /// Makes a prefix known: nodes on its way that may be swapped lead it to bit 0.
    fn meet(&mut self, value: u128, length: u8) {
        let untouched = |block: &Block| {
            block.inside == Inside::Nothing
                && block.length <= length
                && self.share(value, block.address, block.length)
        };
        if self.blocks().iter().any(untouched) {
            return;
        }
        let length = match self.family {
            Family::Ipv4 => length.min(IPV4_BITS),
            Family::Ipv6 => length,
        };
        self.decide(value, 0..length, |tree, depth| {
            tree.bit(value, depth) && tree.may_swap(value, depth)
        });
    }

    /// Decides that nothing is swapped from a depth on, on the way to an address.
    fn pin(&mut self, value: u128, from: u8) {
        self.decide(value, from..self.network_bits(), |_, _| false);
    }

    fn decide(
        &mut self,
        value: u128,
        depths: std::ops::Range<u8>,
        swap: impl Fn(&Self, u8) -> bool,
    ) {
        let mut node = 0;
        for depth in 0..depths.end {
            if depth >= depths.start && self.nodes[node].swapped.is_none() {
                self.nodes[node].swapped = Some(swap(self, depth));
            }
            let side = usize::from(self.bit(value, depth));
            let mut child = self.nodes[node].children[side];
            if child == 0 {
                // A snapshot with 2^32 different bits of prefixes fits in no memory.
                child = u32::try_from(self.nodes.len()).unwrap_or(0);
                self.nodes.push(Node::default());
                self.nodes[node].children[side] = child;
            }
            node = child as usize;
        }
    }

    /// Whether the node at a depth on the way to an address may be swapped.
    fn may_swap(&self, value: u128, depth: u8) -> bool {
        for block in self.blocks() {
            if !self.share(value, block.address, block.length.min(depth)) {
                continue;
            }
            let moves_the_block = block.length > depth;
            let within = match block.inside {
                Inside::Nothing => true,
                Inside::Identifiers => depth < IPV6_NETWORK_BITS,
                Inside::Everything => false,
            };
            if moves_the_block || within {
                return false;
            }
        }
        if depth < self.network_bits() {
            return true;
        }
        let leading = depth.min(IPV6_SMALL_IDENTIFIER_BITS) - self.network_bits();
        let identifier = value << IPV6_NETWORK_BITS >> IPV6_NETWORK_BITS;
        let small_so_far = identifier >> (64 - leading) == 0;
        self.family == Family::Ipv6 && !small_so_far
    }
}

#[cfg(test)]
mod tests;

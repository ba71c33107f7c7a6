//! Address translation.
//!
//! Mirrors `nf_nat_inet_fn`, `nf_nat_setup_info`, `nf_nat_packet` (net/netfilter/nf_nat_core.c),
//! `nf_nat_ipv4_local_fn` (nf_nat_proto.c), nf_nat_redirect.c and nf_nat_masquerade.c. A connection is
//! translated once for each side, by the first rule that says so at the engine's own place. Left out:
//! ports that are taken; which of several addresses or ports is chosen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canreach_snapshot::address::address_value;
use canreach_snapshot::nft::expr::NatRange;
use canreach_snapshot::{Family, NfHook, Scope, xt};

use super::order::{NfStop, Registered};
use super::skb::{Connection, Ct, CtState, Place, Skb, Tuple};
use super::value::Registers;
use crate::reference::route::is_link_local;
use crate::reference::walk::Walk;
use crate::{DoubtEffect, UnknownReason};

/// `NF_NAT_RANGE_PROTO_RANDOM`, `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const RANDOM_PORT: u32 = 4 | 16;
/// `NF_NAT_RANGE_PROTO_OFFSET`.
const PORT_OFFSET: u32 = 32;
/// `NF_NAT_RANGE_NETMAP`.
const NETMAP: u32 = 64;

/// What a rule wants an address and port to become (`struct nf_nat_range2`).
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::reference) struct Range {
    addresses: Option<(IpAddr, IpAddr)>,
    ports: Option<(u16, u16)>,
    base_port: u16,
    flags: u32,
    /// A register held something that is not known.
    unsure: bool,
}

impl Range {
    /// `nft_nat_setup_addr`, `nft_nat_setup_proto`.
    pub(super) fn from_registers(range: &NatRange, registers: &Registers, skb: &Skb) -> Self {
        let len = if skb.family == Some(Family::Ipv4) { 4 } else { 16 };
        let mut unsure = false;
        let mut address = |register: Option<canreach_snapshot::nft::expr::Register>| {
            let value = registers.load(register?.0, len);
            let address = value.bytes().and_then(|bytes| address_of(&bytes));
            unsure |= address.is_none();
            address
        };
        let low = address(range.addr_min);
        let high = address(range.addr_max).or(low);
        let mut port = |register: Option<canreach_snapshot::nft::expr::Register>| {
            let value = registers.load(register?.0, 2);
            let bytes = value.bytes().and_then(|bytes| bytes.try_into().ok());
            unsure |= bytes.is_none();
            bytes.map(u16::from_be_bytes)
        };
        let first = port(range.proto_min);
        let last = port(range.proto_max).or(first);
        Self {
            addresses: low.zip(high),
            ports: first.zip(last),
            base_port: 0,
            flags: range.flags,
            unsure,
        }
    }

    pub(super) fn from_xt(range: &xt::NatRange) -> Self {
        Self {
            addresses: range.addresses,
            ports: range.ports,
            base_port: range.base_port.unwrap_or(0),
            flags: range.flags,
            unsure: false,
        }
    }

    const fn with_address(self, address: IpAddr) -> Self {
        Self { addresses: Some((address, address)), ..self }
    }

    /// The network part of one address with the host part of the other (`nft_nat_setup_netmap`,
    /// xt_NETMAP.c).
    pub(super) fn mapped(self, address: IpAddr) -> Self {
        let Some((low, high)) = self.addresses else { return self };
        let family = Family::of(low);
        let network = !(address_value(low) ^ address_value(high));
        let value = (address_value(address) & !network) | (address_value(low) & network);
        let bits = u128::MAX >> (128 - u32::from(family.bits()));
        self.with_address(family.address(value & bits))
    }
}

/// An address of four or sixteen bytes.
pub(super) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(bytes)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))
}

/// `HOOK2MANIP`: whether the engine translates sources there.
const fn is_source(hook: NfHook) -> bool {
    matches!(hook, NfHook::Input | NfHook::Postrouting)
}

impl Walk<'_> {
    /// `nf_nat_inet_fn` and its wrappers.
    pub(super) fn nat_hook(&mut self, skb: &mut Skb, place: &Place) -> Result<(), NfStop> {
        let Ct::Tracked { state, reply } = skb.ct else { return Ok(()) };
        let source = is_source(place.hook);
        let is_error = state == CtState::Related && skb.is_icmp();
        let done = |connection: &Connection| {
            if source { connection.source_done } else { connection.destination_done }
        };
        let is_done = |walk: &Self| walk.connection.as_ref().is_none_or(done);
        if state != CtState::Established && !is_error && !is_done(self) {
            for registered in self.nat_lookups(place) {
                match registered {
                    Registered::Chain(table, chain, base) => {
                        self.base_chain(table, chain, base, skb, place)?;
                    }
                    Registered::Legacy(table, chain, policy) => {
                        self.legacy_table(table, chain, policy, skb, place)?;
                    }
                    Registered::Conntrack | Registered::Confirm | Registered::Nat => {}
                }
                if is_done(self) {
                    break;
                }
            }
            if !is_done(self) {
                // `nf_nat_alloc_null_binding`.
                self.nat_setup(Range::default(), source, skb)?;
            }
        }
        self.nat_packet(skb, source, reply);
        let rerouted = place.hook == NfHook::Output && self.is_redirected(reply);
        if rerouted { self.route_me_harder(skb) } else { Ok(()) }
    }

    /// Whether a connection's packets in one direction go to another address than they were sent to.
    fn is_redirected(&self, reply: bool) -> bool {
        let differ = |connection: &Connection| {
            let tuple = connection.tuple(reply);
            tuple.destination != connection.tuple(!reply).source
        };
        self.connection.as_ref().is_some_and(differ)
    }

    /// `nf_nat_setup_info`.
    pub(super) fn nat_setup(
        &mut self,
        range: Range,
        source: bool,
        skb: &Skb,
    ) -> Result<(), NfStop> {
        if range.unsure {
            self.doubt(UnknownReason::NotModelled, DoubtEffect::MayRedirect);
        }
        let Some(connection) = self.connection.clone() else { return Ok(()) };
        if connection.confirmed {
            return Ok(());
        }
        let current = connection.reply.inverted();
        let range = if range.flags & NETMAP == 0 {
            range
        } else {
            range.mapped(if source { skb.source } else { skb.destination })
        };
        let wanted = self.unique_tuple(current, range, source);
        let Some(connection) = &mut self.connection else { return Ok(()) };
        if wanted != current {
            connection.reply = wanted.inverted();
            if source {
                connection.source_nat = true;
            } else {
                connection.destination_nat = true;
            }
        }
        if source {
            connection.source_done = true;
        } else {
            connection.destination_done = true;
        }
        Ok(())
    }

    /// `get_unique_tuple`. The tuple of a new connection is unique already.
    fn unique_tuple(&mut self, current: Tuple, range: Range, source: bool) -> Tuple {
        let mut wanted = current;
        let (address, port) = if source {
            (&mut wanted.source, &mut wanted.source_port)
        } else {
            (&mut wanted.destination, &mut wanted.destination_port)
        };
        let mut at_random = false;
        if let Some((low, high)) = range.addresses {
            // A source that is in the range keeps its address.
            let (from, to) = (address_value(low), address_value(high));
            let keeps = source && (from..=to).contains(&address_value(*address));
            if !keeps {
                *address = low;
                at_random = low != high;
            }
        }
        let shifts = range.flags & PORT_OFFSET != 0;
        match range.ports {
            Some((first, last)) if shifts => {
                let size = u32::from(last.saturating_sub(first)) + 1;
                let offset = u32::from(port.wrapping_sub(range.base_port)) % size;
                *port = first.wrapping_add(offset as u16);
            }
            Some((first, last)) => {
                let keeps = (first..=last).contains(port) && range.flags & RANDOM_PORT == 0;
                if !keeps {
                    // A destination gets the first port, unless it is to be drawn.
                    *port = first;
                    at_random |= first != last && (source || range.flags & RANDOM_PORT != 0);
                }
            }
            // Only a source port is drawn without a range.
            None if range.flags & RANDOM_PORT != 0 && source => at_random = true,
            None => {}
        }
        if at_random {
            let effect = if source { DoubtEffect::MayStop } else { DoubtEffect::MayRedirect };
            self.doubt(UnknownReason::RandomChoice, effect);
        }
        wanted
    }

    /// `nf_nat_packet`.
    fn nat_packet(&self, skb: &mut Skb, source: bool, reply: bool) {
        let Some(connection) = &self.connection else { return };
        let translated =
            if source == reply { connection.destination_nat } else { connection.source_nat };
        if !translated {
            return;
        }
        let target = connection.tuple(!reply).inverted();
        if source {
            skb.source = target.source;
            if skb.has_ports() {
                skb.source_port = target.source_port;
            }
        } else {
            skb.destination = target.destination;
            if skb.has_ports() {
                skb.destination_port = target.destination_port;
            }
        }
    }

    /// `nf_nat_redirect_ipv4`, `nf_nat_redirect_ipv6`: to this machine.
    pub(super) fn redirect(
        &mut self,
        range: Range,
        skb: &Skb,
        place: &Place,
    ) -> Result<(), NfStop> {
        let address = match (place.hook, skb.family) {
            (NfHook::Output, Some(Family::Ipv6)) => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            (NfHook::Output, _) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            (_, family) => self.netns.addresses.iter().find_map(|own| {
                let address = own.address();
                let fits = match family {
                    Some(Family::Ipv6) => {
                        // For a global destination any address will do.
                        !own.is_tentative()
                            && (!is_link_local(skb.destination) || is_link_local(address))
                    }
                    _ => true,
                };
                let here = Some(own.ifindex) == place.iif && Some(own.prefix.family()) == family;
                (here && fits).then_some(address)
            }),
        };
        let Some(address) = address else { return Err(NfStop::NAT) };
        self.nat_setup(range.with_address(address), false, skb)
    }

    /// `nf_nat_masquerade_ipv4`, `nf_nat_masquerade_ipv6`: behind an address of the way out.
    pub(super) fn masquerade(
        &mut self,
        range: Range,
        skb: &Skb,
        place: &Place,
    ) -> Result<(), NfStop> {
        let unset = |connection: &Connection| connection.original.source.is_unspecified();
        if skb.family == Some(Family::Ipv4) && self.connection.as_ref().is_some_and(unset) {
            return Ok(());
        }
        let Some(out) = place.oif else { return Err(NfStop::NAT) };
        let address = match skb.family {
            Some(Family::Ipv6) => {
                self.ipv6_dev_get_saddr(Some(out), skb.destination).first().copied()
            }
            _ => {
                let hop = skb.rerouted.as_ref().and_then(|way| way.nexthops.first());
                let gateway = hop.and_then(|hop| hop.gateway).unwrap_or(skb.destination);
                self.inet_select_addr(out, Some(gateway), Scope::UNIVERSE).first().copied()
            }
        };
        let Some(address) = address else { return Err(NfStop::NAT) };
        self.nat_setup(range.with_address(address), true, skb)
    }
}

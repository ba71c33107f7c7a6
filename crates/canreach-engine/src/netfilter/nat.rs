//! Translation of addresses and ports: what rules decide for new connections, and what becomes of each
//! packet at the NAT engine's own places.
//!
//! *Kernel:* `nf_nat_inet_fn`, `nf_nat_setup_info`, `get_unique_tuple`, `nf_nat_packet`
//! (net/netfilter/nf_nat_core.c), `nf_nat_redirect_ipv4`, `nf_nat_masquerade_ipv4` and their IPv6
//! counterparts. Left out: ports that are taken by other connections; a masqueraded connection whose
//! packets come to leave by another link; that translating the source to what it is already is none.

use std::net::IpAddr;
use std::rc::Rc;

use canreach_snapshot::address::address_value;
use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{NatRange, Register};
use canreach_snapshot::{Family, LinkKind, NfFamily, NfHook, Scope};

use crate::host::ruleset::NatChain;
use crate::netfilter::chain::{Decision, Evaluation, State};
use crate::netfilter::expr::{ACCEPT, At, Sink};
use crate::netfilter::header::{ICMP, ICMPV6};
use crate::netfilter::hook::{NfStop, Open, push_open};
use crate::netfilter::register::Byte;
use crate::netfilter::unknown::Cause;
use crate::netfilter::view::{Part, Tracking, View};
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;
use crate::path::ipv6_source::first_source;
use crate::path::source_choice::select_address;
use crate::{DropReason, NfSubject, UnknownReason};

/// `NF_NAT_RANGE_*` of include/uapi/linux/netfilter/nf_nat.h.
pub(crate) mod flag {
    pub(crate) const RANDOM: u32 = 4;
    pub(crate) const RANDOM_FULLY: u32 = 16;
    pub(crate) const OFFSET: u32 = 32;
    pub(crate) const NETMAP: u32 = 64;
}

/// The most targets that one translation may choose among.
const MAX_TARGETS: u128 = 256;

/// What a translation asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// Of the source, or the destination.
    pub(crate) source: bool,
    pub(crate) addresses: Addresses,
    pub(crate) ports: Option<(u16, u16)>,
    /// Where `ports` starts from, with a shift.
    pub(crate) base_port: Option<u16>,
    pub(crate) flags: u32,
}

/// The addresses of a translation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Addresses {
    /// The one it has.
    Same,
    /// This.
    One(Part),
    /// One of these.
    Between(u128, u128),
    /// The network part of these, the rest of what it has.
    Network(u128, u128),
}

impl<'a> Evaluation<'_, '_, 'a> {
    /// `nft_nat_eval`, `nft_masq_eval`, `nft_redir_eval`.
    pub(crate) fn translate(&mut self, at: At, expr: &'a Expr, state: State, sink: &mut Sink<'_>) {
        let (source, range) = match expr {
            // `nft_nat_inet_eval` passes over packets of the other family.
            Expr::Nat { family, .. } if !is_of(*family, state.view.family) => {
                return sink.go_on(state);
            }
            Expr::Nat { source, range, .. } => (*source, range),
            Expr::Masq { range } => return self.masquerade(at, range, state, sink),
            Expr::Redir { range } => return self.redirect(at, range, state, sink),
            _ => return sink.go_on(state),
        };
        let not_modelled = Decision::Lost(UnknownReason::NotModelled);
        let Some((ports, base_port)) = ports_of(&state, range) else {
            return sink.decide(state, not_modelled);
        };
        let size = usize::from(state.view.family.bits() / 8);
        let part =
            |register: Register| part_of(state.registers.bytes(register, size), state.view.family);
        let low = range.addr_min.map(&part);
        let high = range.addr_max.map(&part).or(low);
        let addresses = match (low, high) {
            (None, _) => Addresses::Same,
            (Some(Some(Part::Is(low))), Some(Some(Part::Is(high)))) => {
                if range.flags & flag::NETMAP != 0 {
                    Addresses::Network(low, high)
                } else if low == high {
                    Addresses::One(Part::Is(low))
                } else {
                    Addresses::Between(low, high)
                }
            }
            (Some(Some(low)), Some(Some(high))) if low == high => Addresses::One(low),
            (_, _) => return sink.decide(state, not_modelled),
        };
        let request = Request { source, addresses, ports, base_port, flags: range.flags };
        self.set_up(at.1, request, state, sink);
    }

    fn masquerade(&mut self, at: At, range: &NatRange, state: State, sink: &mut Sink<'_>) {
        match ports_of(&state, range) {
            Some((ports, _)) => self.masquerade_to(at.1, (ports, range.flags), state, sink),
            None => sink.decide(state, Decision::Lost(UnknownReason::NotModelled)),
        }
    }

    /// `nf_nat_masquerade_ipv4`, `nf_nat_masquerade_ipv6`.
    pub(crate) fn masquerade_to(
        &mut self,
        subject: NfSubject,
        (ports, flags): (Option<(u16, u16)>, u32),
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let view = &state.view;
        let Some(link) = view.oif else {
            return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
        };
        let destination = match view.destination {
            Part::Is(value) => Some(view.family.address(value)),
            Part::Client | Part::Chosen(_) => None,
        };
        let address = match (view.family, destination) {
            (Family::Ipv4, _) => {
                let next = view.next_hop.or(destination);
                select_address(self.host, link, next, Scope::UNIVERSE)
            }
            (Family::Ipv6, Some(destination)) => first_source(self.host, Some(link), destination),
            (Family::Ipv6, None) => {
                return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
            }
        };
        let Some(address) = address else {
            return sink.decide(state, Decision::Stop(DropReason::NatFailed, None));
        };
        let addresses = Addresses::One(Part::Is(address_value(address)));
        let request = Request { source: true, addresses, ports, base_port: None, flags };
        self.set_up(subject, request, state, sink);
    }

    fn redirect(&mut self, at: At, range: &NatRange, state: State, sink: &mut Sink<'_>) {
        match ports_of(&state, range) {
            Some((ports, _)) => self.redirect_to(at.1, (ports, range.flags), state, sink),
            None => sink.decide(state, Decision::Lost(UnknownReason::NotModelled)),
        }
    }

    /// `nf_nat_redirect_ipv4`, `nf_nat_redirect_ipv6`.
    pub(crate) fn redirect_to(
        &mut self,
        subject: NfSubject,
        (ports, flags): (Option<(u16, u16)>, u32),
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let address = if self.place.hook == NfHook::Output {
            Some(match state.view.family {
                Family::Ipv4 => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
                Family::Ipv6 => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            })
        } else {
            self.redirect_address(&state.view)
        };
        let Some(address) = address else {
            return sink.decide(state, Decision::Stop(DropReason::NatFailed, None));
        };
        let addresses = Addresses::One(Part::Is(address_value(address)));
        let request = Request { source: false, addresses, ports, base_port: None, flags };
        self.set_up(subject, request, state, sink);
    }

    /// The address of the link it came in by: the first; of IPv6, the first that suits.
    fn redirect_address(&self, view: &View) -> Option<IpAddr> {
        let own = self.host.addresses_of(view.iif?).iter();
        let mut own = own.map(|index| &self.host.netns().addresses[*index]);
        match view.family {
            Family::Ipv4 => own
                .find(|own| own.prefix.family() == Family::Ipv4)
                .map(canreach_snapshot::Address::address),
            Family::Ipv6 => {
                let scope = match view.destination {
                    Part::Is(value) => scope_of(Family::Ipv6.address(value)),
                    Part::Client | Part::Chosen(_) => Ipv6Scope::Other,
                };
                own.find(|own| {
                    own.prefix.family() == Family::Ipv6
                        && !own.is_tentative()
                        && (scope == Ipv6Scope::Other || scope_of(own.address()) == scope)
                })
                .map(canreach_snapshot::Address::address)
            }
        }
    }

    /// `nf_nat_setup_info`: decides a translation, and ends the chain.
    pub(crate) fn set_up(
        &mut self,
        subject: NfSubject,
        request: Request,
        mut state: State,
        sink: &mut Sink<'_>,
    ) {
        let connection = state.view.connection;
        let Some(reply) = connection.direction_tuple(true) else {
            return sink.decide(state, ACCEPT);
        };
        if connection.confirmed || !connection.is_attached() {
            return sink.decide(state, ACCEPT);
        }
        let current = reply.inverse();
        let (address, port) = if request.source {
            (current.source, current.source_port)
        } else {
            (current.destination, current.destination_port)
        };
        let Some(addresses) = self.addresses(subject, request, address) else {
            return sink.decide(state, Decision::Lost(UnknownReason::LimitReached));
        };
        let Some(ports) = self.ports(subject, request, port) else {
            return sink.decide(state, Decision::Lost(UnknownReason::LimitReached));
        };
        state.changed = true;
        for (among, new_address) in &addresses {
            for (within, new_port) in &ports {
                let set = self.sets.and(state.set, *among);
                let set = self.sets.and(set, *within);
                let mut state = State { set, ..state.clone() };
                let new = (*new_address, *new_port);
                state.change(|view| {
                    let translated = (new != (address, port)).then_some(new);
                    let connection = &mut view.connection;
                    if request.source {
                        connection.source_nat = translated.or(connection.source_nat);
                        connection.source_done = true;
                    } else {
                        connection.destination_nat = translated.or(connection.destination_nat);
                        connection.destination_done = true;
                    }
                });
                sink.decide(state, ACCEPT);
            }
        }
    }

    /// The addresses it may get, and for which packets (`find_best_ips_proto`).
    fn addresses(
        &mut self,
        subject: NfSubject,
        request: Request,
        own: Part,
    ) -> Option<Vec<(PacketSet, Part)>> {
        match request.addresses {
            Addresses::Same => Some(vec![(PacketSet::ALL, own)]),
            Addresses::One(part) => Some(vec![(PacketSet::ALL, part)]),
            Addresses::Network(low, high) => {
                // The bits that both ends share are the network's.
                let bits = low ^ high;
                match own {
                    Part::Is(own) => {
                        Some(vec![(PacketSet::ALL, Part::Is((own & bits) | (low & !bits)))])
                    }
                    Part::Client | Part::Chosen(_) => None,
                }
            }
            Addresses::Between(low, high) => self.choices(subject, low, high),
        }
    }

    /// One of some values, which no one can tell.
    fn choices(
        &mut self,
        subject: NfSubject,
        low: u128,
        high: u128,
    ) -> Option<Vec<(PacketSet, Part)>> {
        let (low, high) = (low.min(high), low.max(high));
        if high - low >= MAX_TARGETS {
            return None;
        }
        let cause = Cause { reason: UnknownReason::RandomChoice, subject: Some(subject) };
        let variable = self.unknowns.fresh(cause, low, high);
        let values = low..=high;
        Some(
            values
                .map(|value| (variable.within(self.sets, &[(value, value)]), Part::Is(value)))
                .collect(),
        )
    }

    /// The ports it may get, and for which packets (`nf_nat_l4proto_unique_tuple`).
    fn ports(
        &mut self,
        subject: NfSubject,
        request: Request,
        own: Part,
    ) -> Option<Vec<(PacketSet, Part)>> {
        let random = request.flags & (flag::RANDOM | flag::RANDOM_FULLY) != 0;
        let same = Some(vec![(PacketSet::ALL, own)]);
        let Some((low, high)) = request.ports else {
            if !random || !request.source {
                return same;
            }
            return Some(self.random_source_ports(subject, own));
        };
        let (low, high) = (u128::from(low.min(high)), u128::from(low.max(high)));
        if request.flags & flag::OFFSET != 0 {
            let (Part::Is(own), Some(base)) = (own, request.base_port) else { return None };
            // `u16` arithmetic, then into the range.
            let offset = u128::from((own as u16).wrapping_sub(base));
            let port = low + offset % (high - low + 1);
            return Some(vec![(PacketSet::ALL, Part::Is(port))]);
        }
        if low == high && !random {
            return Some(vec![(PacketSet::ALL, Part::Is(low))]);
        }
        let inside = match own {
            Part::Is(own) if (low..=high).contains(&own) => PacketSet::ALL,
            Part::Is(_) => PacketSet::NONE,
            Part::Client => self.sets.ranges(Field::SourcePort, &[(low, high)]),
            Part::Chosen(number) => {
                self.unknowns.variable(number).within(self.sets, &[(low, high)])
            }
        };
        let inside = if random { PacketSet::NONE } else { inside };
        let outside = self.sets.not(inside);
        let mut found = vec![(inside, own)];
        if outside.is_empty() {
            return Some(found);
        }
        if request.source {
            found.push((outside, self.chosen_port(subject, low, high)));
        } else if random {
            for (set, part) in self.choices(subject, low, high)? {
                found.push((self.sets.and(set, outside), part));
            }
        } else {
            // The first one, as nothing has it yet.
            found.push((outside, Part::Is(low)));
        }
        found.retain(|(set, _)| !set.is_empty());
        Some(found)
    }

    fn chosen_port(&mut self, subject: NfSubject, low: u128, high: u128) -> Part {
        let cause = Cause { reason: UnknownReason::RandomChoice, subject: Some(subject) };
        Part::Chosen(self.unknowns.fresh(cause, low, high).number)
    }

    /// A port at random, of the same kind as the one it had.
    fn random_source_ports(&mut self, subject: NfSubject, own: Part) -> Vec<(PacketSet, Part)> {
        const KINDS: [((u128, u128), (u128, u128)); 3] =
            [((0, 511), (1, 511)), ((512, 1023), (600, 1023)), ((1024, 0xffff), (1024, 0xffff))];
        let mut found = Vec::new();
        for (kind, (low, high)) in KINDS {
            let set = match own {
                Part::Is(own) if (kind.0..=kind.1).contains(&own) => PacketSet::ALL,
                Part::Is(_) => continue,
                Part::Client => self.sets.ranges(Field::SourcePort, &[kind]),
                Part::Chosen(number) => self.unknowns.variable(number).within(self.sets, &[kind]),
            };
            found.push((set, self.chosen_port(subject, low, high)));
        }
        found
    }

    /// `nf_nat_inet_fn`: decides for new connections, then translates each packet.
    pub(crate) fn translate_all(&mut self, source: bool, open: Vec<Open>) -> Vec<Open> {
        let mut passed = Vec::new();
        for strand in open {
            let view = &strand.view;
            let connection = &view.connection;
            let of_vrf = self.place.hook == NfHook::Postrouting
                && view
                    .oif
                    .and_then(|oif| self.host.link(oif))
                    .is_some_and(|link| link.kind == LinkKind::Vrf);
            if !connection.is_attached() || of_vrf {
                push_open(self.sets, &mut passed, strand.set, strand.view);
                continue;
            }
            let done = if source { connection.source_done } else { connection.destination_done };
            let asks = matches!(connection.tracking, Tracking::New | Tracking::Related)
                && !matches!(view.protocol, ICMP | ICMPV6)
                && !done;
            let decided = if asks { self.ask_nat(source, strand) } else { vec![strand] };
            for mut strand in decided {
                self.translate_packet(source, Rc::make_mut(&mut strand.view));
                push_open(self.sets, &mut passed, strand.set, strand.view);
            }
        }
        passed
    }

    /// Asks the NAT chains of the hook, in order, until one decides; if none does, nothing changes.
    fn ask_nat(&mut self, source: bool, strand: Open) -> Vec<Open> {
        let host = self.host;
        let is_done = |view: &View| {
            let connection = &view.connection;
            if source { connection.source_done } else { connection.destination_done }
        };
        let mut open = vec![strand];
        let mut decided = Vec::new();
        let Some(family) = open.first().map(|open| open.view.family) else { return open };
        for chain in host.ruleset().nat_chains(family, self.place.hook, self.other_order) {
            let mut next = Vec::new();
            for strand in std::mem::take(&mut open) {
                for strand in self.run_nat_chain(chain, strand) {
                    let list = if is_done(&strand.view) { &mut decided } else { &mut next };
                    push_open(self.sets, list, strand.set, strand.view);
                }
            }
            open = next;
        }
        for mut strand in open {
            let connection = &mut Rc::make_mut(&mut strand.view).connection;
            if source {
                connection.source_done = true;
            } else {
                connection.destination_done = true;
            }
            push_open(self.sets, &mut decided, strand.set, strand.view);
        }
        decided
    }

    /// One NAT chain: packets it does not stop.
    fn run_nat_chain(&mut self, chain: &NatChain, strand: Open) -> Vec<Open> {
        self.kind = canreach_snapshot::ChainKind::Nat;
        let (mut passed, ended) = self.run_base(chain.chain, strand);
        passed.extend(self.apply_policy(chain.chain.policy(), chain.policy, ended));
        passed
    }

    /// `nf_nat_packet`: gives a packet the addresses its connection was given.
    fn translate_packet(&self, source: bool, view: &mut View) {
        let connection = view.connection;
        // For replies, what was done to the source is undone at the destination.
        let by_source = source != connection.reply;
        let status = if by_source { connection.source_nat } else { connection.destination_nat };
        if status.is_none() {
            return;
        }
        let Some(target) =
            connection.direction_tuple(!connection.reply).map(|tuple| tuple.inverse())
        else {
            return;
        };
        // ICMP errors have no ports.
        let ports = !matches!(view.protocol, ICMP | ICMPV6);
        if source {
            view.source = target.source;
            if ports {
                view.source_port = target.source_port;
            }
        } else {
            // `nf_nat_ipv4_local_fn`: what was sent elsewhere is routed again.
            view.reroute |=
                self.place.hook == NfHook::Output && view.destination != target.destination;
            view.destination = target.destination;
            if ports {
                view.destination_port = target.destination_port;
            }
        }
    }

    /// What the policy of a base chain makes of the packets that reach its end.
    pub(crate) fn apply_policy(
        &mut self,
        subject: NfSubject,
        policy: canreach_snapshot::ChainPolicy,
        ended: Vec<Open>,
    ) -> Vec<Open> {
        if policy == canreach_snapshot::ChainPolicy::Accept || self.neutral.has(subject) {
            return ended;
        }
        for open in ended {
            let stop = NfStop { subject, reason: DropReason::FwDrop, answer: None };
            self.stop(open.set, &open.view, stop);
        }
        Vec::new()
    }
}

/// What kind of IPv6 address it is (`ipv6_addr_scope`), as far as `redirect` tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ipv6Scope {
    Loopback,
    LinkLocal,
    Other,
}

const fn scope_of(address: IpAddr) -> Ipv6Scope {
    match address {
        IpAddr::V6(address) if address.is_loopback() => Ipv6Scope::Loopback,
        IpAddr::V6(address) if address.is_unicast_link_local() => Ipv6Scope::LinkLocal,
        IpAddr::V6(_) | IpAddr::V4(_) => Ipv6Scope::Other,
    }
}

/// Lowest and highest port of a translation, if it says, and where they start from; `None` if they are
/// not known.
#[allow(clippy::type_complexity, reason = "two optional things, each of them named above")]
fn ports_of(state: &State, range: &NatRange) -> Option<(Option<(u16, u16)>, Option<u16>)> {
    let port = |register: Register| {
        let bytes: Option<Vec<u8>> =
            state.registers.bytes(register, 2).iter().map(|byte| byte.known()).collect();
        Some(u16::from_be_bytes(bytes?.try_into().ok()?))
    };
    let Some(low) = range.proto_min else { return Some((None, None)) };
    let low = port(low)?;
    let high = match range.proto_max {
        Some(high) => port(high)?,
        None => low,
    };
    Some((Some((low, high)), None))
}

/// Whether a translation is for packets of a family.
const fn is_of(family: NfFamily, packet: Family) -> bool {
    match family {
        NfFamily::Ip => matches!(packet, Family::Ipv4),
        NfFamily::Ip6 => matches!(packet, Family::Ipv6),
        NfFamily::Inet | NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => true,
    }
}

/// The address that some bytes are, if they are one.
fn part_of(bytes: &[Byte], family: Family) -> Option<Part> {
    let known: Option<Vec<u8>> = bytes.iter().map(|byte| byte.known()).collect();
    if let Some(known) = known {
        return Some(Part::Is(crate::host::set_index::number(&known)));
    }
    let size = i8::try_from(family.bits() / 8).ok()?;
    let whole = bytes.iter().zip(0..size).all(|(byte, index)| {
        let shift = 8 * (size - 1 - index);
        *byte == Byte::Of { field: Field::Source, shift, mask: 0xff, flip: 0 }
    });
    whole.then_some(Part::Client)
}

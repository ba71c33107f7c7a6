//! Rules that ask for the socket of a packet, or give it one: `socket`, `tproxy`.
//!
//! *Kernel:* `nft_socket_eval`, `socket_match`, `nf_sk_lookup_slow_v4`, `nft_tproxy_eval`,
//! `nf_tproxy_laddr4`. Left out: connections that were there before; control groups of sockets.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::nft::expr::{Register, SocketKey};
use canreach_snapshot::{AddressFlags, Family, NfFamily, Port, Proto};

use crate::netfilter::chain::{Decision, Evaluation, State};
use crate::netfilter::expr::{At, Sink, Value};
use crate::netfilter::header::{TCP, UDP};
use crate::netfilter::view::{Part, Turn, View};
use crate::packet::packet_set::PacketSet;
use crate::path::socket_lookup::{Lookup, SocketQuery, look_up_sockets};
use crate::{NfSubject, SocketIndex, UnknownReason};

impl Evaluation<'_, '_, '_> {
    /// The sockets that a lookup finds for packets that go to an address and port; `None` for those
    /// that it finds none for.
    fn sockets_at(
        &mut self,
        view: &View,
        to: (u128, u16),
    ) -> Vec<(PacketSet, Option<Vec<SocketIndex>>)> {
        let proto = match view.protocol {
            TCP => Proto::Tcp,
            UDP => Proto::Udp,
            _ => return vec![(PacketSet::ALL, None)],
        };
        let source = match view.source {
            Part::Is(value) => Some(view.family.address(value)),
            Part::Client | Part::Chosen(_) => None,
        };
        let query = SocketQuery {
            family: view.family,
            proto,
            port: Port(to.1),
            to: view.family.address(to.0),
            device: view.iif,
            slave: view.sdif,
            to_everyone: false,
            source,
        };
        let found = look_up_sockets(self.host, self.sets, &query);
        found
            .into_iter()
            .map(|(set, lookup)| match lookup {
                Lookup::Sockets(sockets) => (set, Some(sockets)),
                Lookup::Missed(..) => (set, None),
            })
            .collect()
    }

    /// The sockets of packets as they are: `skb->sk`, else those that a lookup finds.
    fn sockets_of(&mut self, view: &View) -> Vec<(PacketSet, Option<Vec<SocketIndex>>)> {
        if let Some(socket) = view.socket {
            return vec![(PacketSet::ALL, Some(vec![socket]))];
        }
        match (view.iif, view.destination, view.destination_port, view.turn) {
            (Some(_), Part::Is(to), Part::Is(port), Turn::First | Turn::Second) => {
                self.sockets_at(view, (to, port as u16))
            }
            _ => vec![(PacketSet::ALL, None)],
        }
    }

    /// `nft_socket_eval`.
    pub(crate) fn socket(
        &mut self,
        at: At,
        register: Register,
        key: SocketKey,
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let view = std::rc::Rc::clone(&state.view);
        for (set, sockets) in self.sockets_of(&view) {
            let here = self.sets.and(state.set, set);
            if here.is_empty() {
                continue;
            }
            let state = State { set: here, ..state.clone() };
            // The second packet finds the request, which is no full socket yet.
            let is_request = view.turn == Turn::Second && view.socket.is_none();
            let value = match sockets {
                Some(_) if is_request && key != SocketKey::Transparent => Value::Missing,
                None => Value::Missing,
                Some(sockets) => self.socket_value(&sockets, key),
            };
            self.store(at, register, value, state, sink);
        }
    }

    /// What all of some sockets say; not known where they differ.
    fn socket_value(&self, sockets: &[SocketIndex], key: SocketKey) -> Value {
        let all = &self.host.netns().sockets;
        let mut found: Option<Vec<u8>> = None;
        for socket in sockets.iter().filter_map(|index| all.get(index.0)) {
            let value = match key {
                SocketKey::Transparent => socket.transparent.map(|set| vec![u8::from(set)]),
                SocketKey::Mark => socket.mark.map(|mark| mark.0.to_le_bytes().to_vec()),
                SocketKey::Wildcard => Some(vec![u8::from(socket.is_wildcard())]),
                SocketKey::Cgroupv2(_) => None,
            };
            match (value, &found) {
                (None, _) => {
                    let reason = match key {
                        SocketKey::Cgroupv2(_) => UnknownReason::NotModelled,
                        _ => UnknownReason::Unread,
                    };
                    return Value::Unknown(reason);
                }
                (Some(value), None) => found = Some(value),
                (Some(value), Some(known)) if value == *known => {}
                (Some(_), Some(_)) => return Value::Unknown(UnknownReason::RandomChoice),
            }
        }
        found.map_or(Value::Missing, |bytes| Value::known(&bytes))
    }

    /// `socket_match` of xtables.
    pub(crate) fn socket_match(&mut self, flags: u8, state: State, sink: &mut Sink<'_>) {
        const TRANSPARENT: u8 = 1;
        const NOWILDCARD: u8 = 2;
        const RESTORE_MARK: u8 = 4;
        let view = std::rc::Rc::clone(&state.view);
        for (set, sockets) in self.sockets_of(&view) {
            let here = self.sets.and(state.set, set);
            if here.is_empty() {
                continue;
            }
            let state = State { set: here, ..state.clone() };
            let all = &self.host.netns().sockets;
            let sockets: Vec<_> =
                sockets.iter().flatten().filter_map(|index| all.get(index.0)).collect();
            let wants_transparent = flags & TRANSPARENT != 0;
            // The second packet finds the request, which listens nowhere (`sk_fullsock`).
            let is_request = view.turn == Turn::Second && view.socket.is_none();
            let unread = wants_transparent && sockets.iter().any(|s| s.transparent.is_none());
            let holds = |socket: &&canreach_snapshot::Socket| {
                let wildcard = flags & NOWILDCARD == 0 && socket.is_wildcard() && !is_request;
                let transparent = !wants_transparent || socket.transparent == Some(true);
                !wildcard && transparent
            };
            let matching = sockets.iter().filter(|socket| holds(socket)).count();
            if unread || (matching != 0 && matching != sockets.len()) {
                let reason =
                    if unread { UnknownReason::Unread } else { UnknownReason::RandomChoice };
                sink.decide(state, Decision::Lost(reason));
            } else if matching == 0 {
                sink.leave(state);
            } else if flags & RESTORE_MARK == 0 {
                sink.go_on(state);
            } else {
                let mark = sockets.first().and_then(|socket| socket.mark);
                match mark.filter(|mark| sockets.iter().all(|s| s.mark == Some(*mark))) {
                    Some(mark) => self.set_mark(mark.0, state, sink),
                    None => sink.decide(state, Decision::Lost(UnknownReason::Unread)),
                }
            }
        }
    }

    /// `nft_tproxy_eval`: the rule ends where there is no transparent socket.
    pub(crate) fn tproxy(
        &mut self,
        at: At,
        (family, address, port): (NfFamily, Option<Register>, Option<Register>),
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let suits = match family {
            NfFamily::Ip => state.view.family == Family::Ipv4,
            NfFamily::Ip6 => state.view.family == Family::Ipv6,
            NfFamily::Inet | NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => true,
        };
        if !suits {
            return sink.leave(state);
        }
        let size = usize::from(state.view.family.bits() / 8);
        let known = |register: Register, length: usize| -> Option<Vec<u8>> {
            state.registers.bytes(register, length).iter().map(|byte| byte.known()).collect()
        };
        let address = address.map(|register| known(register, size));
        let port = port.map(|register| known(register, 2));
        if address == Some(None) || port == Some(None) {
            return sink.decide(state, Decision::Lost(UnknownReason::NotModelled));
        }
        let number = |bytes: Vec<u8>| crate::host::set_index::number(&bytes);
        let address = address.flatten().map(number).filter(|value| *value != 0);
        let port = port.flatten().map(number).filter(|port| *port != 0);
        let to =
            (address.map(|value| state.view.family.address(value)), port.map(|port| port as u16));
        let (found, missed) = self.tproxy_target(at.1, &state, to);
        for (set, socket) in found {
            let mut state = State { set, ..state.clone() };
            state.change(|view| {
                view.tproxy = Some(socket);
                view.socket = Some(socket);
            });
            sink.go_on(state);
        }
        sink.leave(State { set: missed, ..state });
    }

    /// The transparent sockets that packets are given to, and the packets for which there is none.
    pub(crate) fn tproxy_target(
        &mut self,
        subject: NfSubject,
        state: &State,
        (address, port): (Option<IpAddr>, Option<u16>),
    ) -> (Vec<(PacketSet, SocketIndex)>, PacketSet) {
        let view = &state.view;
        let (Part::Is(own), Part::Is(own_port)) = (view.destination, view.destination_port) else {
            return (Vec::new(), state.set);
        };
        let address = address.map(address_value).or_else(|| self.link_address(view)).unwrap_or(own);
        let port = port.unwrap_or(own_port as u16);
        let (mut found, mut missed) = (Vec::new(), PacketSet::NONE);
        for (set, sockets) in self.sockets_at(view, (address, port)) {
            let here = self.sets.and(state.set, set);
            if here.is_empty() {
                continue;
            }
            let all = &self.host.netns().sockets;
            let first = sockets.iter().flatten().next().copied();
            let socket = first.and_then(|index| all.get(index.0));
            // `nf_tproxy_get_sock_v4`: of UDP, connected sockets do not count as listeners.
            let listens = socket
                .is_some_and(|socket| socket.state != canreach_snapshot::SocketState::Connected);
            match (first, socket.and_then(|socket| socket.transparent)) {
                (Some(index), Some(true)) if listens => found.push((here, index)),
                (Some(index), None) if listens => {
                    let chance = self.chance(UnknownReason::Unread, subject);
                    let hit = self.sets.and(here, chance);
                    found.push((hit, index));
                    let miss = self.sets.difference(here, hit);
                    missed = self.sets.or(missed, miss);
                }
                (_, _) => missed = self.sets.or(missed, here),
            }
        }
        (found, missed)
    }

    /// The address of the link that a packet without another target is sent to (`nf_tproxy_laddr4`,
    /// `nf_tproxy_laddr6`).
    fn link_address(&self, view: &View) -> Option<u128> {
        let own = self.host.addresses_of(view.iif?).iter();
        let mut own = own.map(|index| &self.host.netns().addresses[*index]);
        let first = own.find(|own| {
            let suits = match view.family {
                Family::Ipv4 => !own.is_secondary(),
                Family::Ipv6 => {
                    !own.flags.has(AddressFlags::TENTATIVE)
                        && !own.flags.has(AddressFlags::DEPRECATED)
                }
            };
            own.prefix.family() == view.family && suits
        });
        first.map(|own| address_value(own.address()))
    }
}

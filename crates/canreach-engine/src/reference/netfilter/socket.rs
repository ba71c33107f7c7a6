//! Rules that look for the packet's socket, or attach another one.
//!
//! Mirrors `nft_socket_eval`, `nft_tproxy_eval`, `nf_tproxy_get_sock_v4` and xt_socket.c, xt_TPROXY.c.

use std::net::IpAddr;

use canreach_snapshot::nft::expr::{NfVerdict, SocketKey};
use canreach_snapshot::{AddressFlags, Family, Ifindex, Socket, SocketState};

use super::chain::Step;
use super::header::Load;
use super::nat::address_of;
use super::skb::{Owner, Place, Skb, TCP, Turn};
use super::value::{Tri, Value};
use crate::reference::walk::Walk;
use crate::{DoubtEffect, SocketIndex, UnknownReason};

impl Walk<'_> {
    /// `nft_socket_eval`.
    pub(super) fn socket_key(&self, key: SocketKey, skb: &Skb, place: &Place) -> Load {
        let unknown = |len: usize, reason| {
            let name = format!("{:?} socket {key:?}", skb.turn);
            Load::Value(Value::unknown(&vec![0xff; len], reason, Some(&name)))
        };
        let sockets = self.sockets_of(skb, place);
        let Some(first) = sockets.first() else { return Load::Break };
        // A handshake that is not over has no socket of its own yet.
        let is_request = skb.protocol == TCP && skb.turn != Turn::First;
        let of = |index: &SocketIndex| &self.netns.sockets[index.0];
        let value = |socket: &Socket| -> Option<Vec<u8>> {
            match key {
                SocketKey::Transparent => socket.transparent.map(|set| vec![u8::from(set)]),
                SocketKey::Mark => socket.mark.map(|mark| mark.0.to_le_bytes().to_vec()),
                SocketKey::Wildcard => {
                    Some(vec![u8::from(socket.address.to_canonical().is_unspecified())])
                }
                SocketKey::Cgroupv2(_) => None,
            }
        };
        match key {
            SocketKey::Mark | SocketKey::Wildcard if is_request => return Load::Break,
            SocketKey::Cgroupv2(_) => return unknown(8, UnknownReason::NotModelled),
            SocketKey::Transparent | SocketKey::Mark | SocketKey::Wildcard => {}
        }
        let len = if key == SocketKey::Mark { 4 } else { 1 };
        if sockets.iter().any(|other| value(of(other)) != value(of(first))) {
            return unknown(len, UnknownReason::Multipath);
        }
        match value(of(first)) {
            Some(bytes) => Load::Value(Value::of(&bytes)),
            None => unknown(len, UnknownReason::Unread),
        }
    }

    /// The packet's own socket, or those the lookup may give for its addresses.
    fn sockets_of(&self, skb: &Skb, place: &Place) -> Vec<SocketIndex> {
        match (skb.owner, &skb.stolen, place.iif) {
            (Owner::Socket(index), ..) => vec![index],
            (_, Some(stolen), _) => stolen.clone(),
            (_, None, Some(iif)) if skb.has_ports() => {
                self.sockets_at(skb, iif, skb.destination, skb.destination_port)
            }
            (_, None, _) => Vec::new(),
        }
    }

    /// What the ordinary lookup finds at an address and port.
    fn sockets_at(
        &self,
        skb: &Skb,
        iif: Ifindex,
        destination: IpAddr,
        port: u16,
    ) -> Vec<SocketIndex> {
        self.attempt(|walk| {
            walk.packet.destination = destination;
            walk.packet.destination_port.0 = port;
            walk.packet.source = skb.source;
            walk.packet.source_port.0 = skb.source_port;
            walk.plain_lookup(skb.source, destination, iif)
        })
    }

    /// `socket_match` of xt_socket.c.
    pub(super) fn xt_socket(&self, flags: u8, skb: &Skb, place: &Place) -> Tri {
        let (transparent_only, any_address) = (flags & 1 != 0, flags & 2 != 0);
        let sockets = self.sockets_of(skb, place);
        let one = |index: &SocketIndex| {
            let socket = &self.netns.sockets[index.0];
            let is_wildcard = socket.address.to_canonical().is_unspecified();
            if !any_address && is_wildcard && skb.turn == Turn::First {
                return Tri::No;
            }
            match socket.transparent {
                _ if !transparent_only => Tri::Yes,
                Some(set) => Tri::of(set),
                None => {
                    Tri::Maybe(UnknownReason::Unread, Some("a socket is transparent".to_owned()))
                }
            }
        };
        let all: Vec<Tri> = sockets.iter().map(one).collect();
        match all.split_first() {
            None => Tri::No,
            Some((first, rest)) if rest.iter().all(|other| other == first) => first.clone(),
            Some(_) => Tri::Maybe(UnknownReason::Multipath, Some("which socket it is".to_owned())),
        }
    }

    /// nft's `tproxy`: the rule goes on if a socket was attached.
    pub(super) fn tproxy_by_registers(
        &mut self,
        address: Option<Value>,
        port: Option<Value>,
        skb: &mut Skb,
        place: &Place,
    ) -> Step {
        let address = address.map(|value| value.bytes().and_then(|bytes| address_of(&bytes)));
        let port = port.map(|value| value.bytes().and_then(|bytes| bytes.try_into().ok()));
        if address == Some(None) || port == Some(None) {
            self.doubt(UnknownReason::NotModelled, DoubtEffect::MayRedirect);
            return Step::Break;
        }
        let port = port.flatten().map(u16::from_be_bytes);
        match self.tproxy(address.flatten(), port, skb, place) {
            true => Step::Next,
            false => Step::Break,
        }
    }

    /// xt's TPROXY ends the table, and drops what no socket is there for.
    pub(super) fn xt_tproxy(
        &mut self,
        address: Option<IpAddr>,
        port: Option<u16>,
        mark: (u32, u32),
        skb: &mut Skb,
        place: &Place,
    ) -> NfVerdict {
        if self.tproxy(address, port, skb, place) {
            skb.mark = (skb.mark & !mark.0) ^ mark.1;
            return NfVerdict::Accept;
        }
        NfVerdict::Drop
    }

    /// `nft_tproxy_eval_v4`: attaches a transparent socket, if there is one.
    fn tproxy(
        &mut self,
        address: Option<IpAddr>,
        port: Option<u16>,
        skb: &mut Skb,
        place: &Place,
    ) -> bool {
        let Some(iif) = place.iif.filter(|_| skb.has_ports()) else { return false };
        if skb.turn == Turn::Third && skb.stolen.is_some() {
            return true;
        }
        let given = address.filter(|address| !address.is_unspecified());
        let address = given.or_else(|| self.tproxy_address(iif, skb)).unwrap_or(skb.destination);
        let port = port.filter(|port| *port != 0).unwrap_or(skb.destination_port);
        let sockets = self.sockets_at(skb, iif, address, port);
        let takes = |index: &SocketIndex| {
            let socket = &self.netns.sockets[index.0];
            match (socket.state == SocketState::Connected, socket.transparent) {
                (true, _) => Tri::No,
                (false, Some(set)) => Tri::of(set),
                (false, None) => {
                    Tri::Maybe(UnknownReason::Unread, Some(format!("{index:?} is transparent")))
                }
            }
        };
        let answers: Vec<bool> = sockets.iter().map(|index| self.holds(takes(index))).collect();
        if answers.iter().any(|takes| *takes != answers[0]) {
            self.doubt(UnknownReason::Multipath, DoubtEffect::MayRedirect);
        }
        if answers.first() != Some(&true) {
            return false;
        }
        skb.stolen = Some(sockets);
        true
    }

    /// `nf_tproxy_laddr4`, `nf_tproxy_laddr6`: the first address of the link.
    fn tproxy_address(&self, iif: Ifindex, skb: &Skb) -> Option<IpAddr> {
        let family = skb.family?;
        let own = self.netns.addresses.iter().find(|own| {
            own.ifindex == iif
                && own.prefix.family() == family
                && match family {
                    Family::Ipv4 => !own.is_secondary(),
                    Family::Ipv6 => !own.is_tentative() && !own.flags.has(AddressFlags::DEPRECATED),
                }
        });
        own.map(canreach_snapshot::Address::address)
    }
}

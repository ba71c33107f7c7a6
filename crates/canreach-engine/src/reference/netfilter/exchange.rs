//! The packets of an exchange, and the hooks each of them passes.
//!
//! Mirrors the callers of `NF_HOOK`: `__netif_receive_skb_core`, `br_handle_frame_finish`, `ip_rcv`,
//! `ip_local_deliver`, `ip_local_out`, `ip_output`, `arp_rcv`, `arp_xmit`, their IPv6 twins, and
//! `ip_route_me_harder`. Left out: frames that a bridge only forwards.

use std::net::{IpAddr, Ipv6Addr};

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Family, GlobalSysctl, Ifindex, LinkKind, NfFamily, NfHook, Proto};

use super::order::NfStop;
use super::skb::{
    ACK, Ct, ICMP, ICMPV6, Owner, PACKET_BROADCAST, PACKET_HOST, PACKET_MULTICAST, Place, SYN, Skb,
    Tuple, Turn,
};
use crate::reference::output::NoWayOut;
use crate::reference::route::is_link_local;
use crate::reference::table::Flow;
use crate::reference::walk::Walk;
use crate::{DoubtEffect, DropReason, SocketIndex, UnknownReason};

/// What a rule sends back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::reference) enum Rejection {
    /// TCP reset; nothing to anything but TCP.
    Reset,
    /// ICMP destination unreachable, with this code.
    Unreachable(u8),
}

/// The most ports of a bridge that are tried one by one.
const MAX_PORTS: usize = 16;

/// `RTN_UNICAST` and `RTN_LOCAL`.
const SENDABLE: [u32; 2] = [1, 2];

impl Walk<'_> {
    /// A packet without anything of its own.
    fn skb(&self, turn: Turn, tuple: Tuple) -> Skb {
        Skb {
            turn,
            family: Some(Family::of(tuple.destination)),
            protocol: self.packet.proto.number(),
            source: tuple.source,
            destination: tuple.destination,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            tcp_flags: 0,
            target: None,
            packet_type: PACKET_HOST,
            mark: 0,
            priority: 0,
            ct: Ct::None,
            zone: None,
            owner: Owner::Nobody,
            stolen: None,
            sdif: None,
            port: None,
            rerouted: None,
        }
    }

    /// The SYN, or the datagram, between these ends.
    pub(in crate::reference) fn first_skb(&self, tuple: Tuple) -> Skb {
        let mut skb = self.skb(Turn::First, tuple);
        if self.packet.proto == Proto::Tcp {
            skb.tcp_flags = SYN;
        }
        if tuple.destination.is_multicast() {
            skb.packet_type = PACKET_MULTICAST;
        }
        skb
    }

    /// The client's ACK.
    pub(in crate::reference) fn third_skb(&self, tuple: Tuple) -> Skb {
        Skb { tcp_flags: ACK, ..self.skb(Turn::Third, tuple) }
    }

    /// The SYN-ACK, or a datagram from the socket.
    pub(in crate::reference) fn answer_skb(
        &self,
        tuple: Tuple,
        socket: SocketIndex,
        mark: u32,
    ) -> Skb {
        let tcp_flags = if self.packet.proto == Proto::Tcp { SYN | ACK } else { 0 };
        Skb { tcp_flags, mark, owner: Owner::Socket(socket), ..self.skb(Turn::Answer, tuple) }
    }

    /// A reset in answer to a packet.
    pub(in crate::reference) fn reset_skb(&self, tuple: Tuple, owner: Owner) -> Skb {
        let tcp_flags = super::skb::RST | ACK;
        Skb { tcp_flags, owner, ..self.skb(Turn::Refusal, tuple) }
    }

    /// An ICMP error to the sender of a packet.
    pub(in crate::reference) fn unreachable_skb(
        &self,
        source: IpAddr,
        destination: IpAddr,
        code: u8,
    ) -> Skb {
        let (protocol, kind) = match Family::of(destination) {
            Family::Ipv4 => (ICMP, 3),
            Family::Ipv6 => (ICMPV6, 1),
        };
        let (source_port, destination_port) = (kind, u16::from(code));
        let tuple = Tuple { source, source_port, destination, destination_port };
        Skb { protocol, owner: Owner::Kernel, ..self.skb(Turn::Refusal, tuple) }
    }

    /// The mark of an answer that no socket sends (`IP4_REPLY_MARK`).
    pub(in crate::reference) fn reflected_mark(&mut self) -> u32 {
        let reflects = match self.family() {
            Family::Ipv4 => GlobalSysctl::FwmarkReflect,
            Family::Ipv6 => GlobalSysctl::V6FwmarkReflect,
        };
        if self.mark == 0 || self.global_sysctl(reflects) == 0 { 0 } else { self.mark }
    }

    /// What the answer of a rule inherits of the connection (`nf_ct_attach`).
    pub(in crate::reference) const fn attach(&self, to: &mut Skb, from: &Skb) {
        to.ct = Self::attached(from);
    }

    /// A frame from the wire, up to and with the prerouting hook. `port` is where it came in, `link`
    /// what IP sees.
    pub(in crate::reference) fn come_in(
        &mut self,
        skb: &mut Skb,
        port: Ifindex,
        link: Ifindex,
    ) -> Result<(), NfStop> {
        self.frame_in(skb, port, link)?;
        skb.rerouted = None;
        let vrf = self.l3mdev_master(link).filter(|vrf| *vrf != link);
        self.ip_hook(NfHook::Prerouting, skb, Some(link), None)?;
        if let Some(vrf) = vrf {
            skb.sdif = Some(link);
            self.ip_hook(NfHook::Prerouting, skb, Some(vrf), None)?;
        }
        Ok(())
    }

    /// What sees frames: chains of the links and of the bridge.
    fn frame_in(&mut self, skb: &mut Skb, port: Ifindex, link: Ifindex) -> Result<(), NfStop> {
        let netdev = |iif| Place {
            family: NfFamily::Netdev,
            hook: NfHook::Ingress,
            iif: Some(iif),
            oif: None,
        };
        if port != link {
            self.nf_hook(skb, &netdev(port))?;
        }
        if self.link(link).is_some_and(|link| link.kind == LinkKind::Bridge) {
            let iif = Some(port).filter(|port| *port != link).or_else(|| self.some_port(link));
            if let Some(port) = iif.filter(|_| port == link) {
                skb.port = Some(port);
                self.nf_hook(skb, &netdev(port))?;
            }
            for hook in [NfHook::Prerouting, NfHook::Input] {
                self.nf_hook(skb, &Place { family: NfFamily::Bridge, hook, iif, oif: None })?;
            }
        }
        self.nf_hook(skb, &netdev(link))
    }

    /// The port of a bridge that a frame comes in by: where that is not known, and rules may ask for
    /// it, each of them.
    fn some_port(&mut self, bridge: Ifindex) -> Option<Ifindex> {
        let ports: Vec<Ifindex> = self
            .netns
            .links
            .iter()
            .filter(|link| link.master == Some(bridge))
            .map(|link| link.ifindex)
            .collect();
        let (last, others) = ports.split_last()?;
        let mut chains = self.netns.firewall.nft.iter().flat_map(|ruleset| ruleset.hooked());
        let asked_for = chains.any(|(_, _, table, _, base)| {
            let of_port = |link: &Ifindex| {
                self.link(*link).is_some_and(|link| base.devices.contains(&link.name))
            };
            table.family == NfFamily::Bridge
                || (base.hook == NfHook::Ingress && ports.iter().any(of_port))
        });
        if !asked_for || others.is_empty() {
            return Some(*last);
        }
        if ports.len() > MAX_PORTS {
            self.doubt(UnknownReason::LimitReached, DoubtEffect::MayRedirect);
        }
        let is_it = |port: &&Ifindex| {
            self.forks.decide(UnknownReason::NotModelled, Some(format!("comes by port {port:?}")))
        };
        Some(*others.iter().take(MAX_PORTS).find(is_it).unwrap_or(last))
    }

    /// Everything registered for the packet's family at a hook of IP.
    pub(in crate::reference) fn ip_hook(
        &mut self,
        hook: NfHook,
        skb: &mut Skb,
        iif: Option<Ifindex>,
        oif: Option<Ifindex>,
    ) -> Result<(), NfStop> {
        let family = match skb.family {
            Some(Family::Ipv4) => NfFamily::Ip,
            Some(Family::Ipv6) => NfFamily::Ip6,
            None => NfFamily::Arp,
        };
        self.nf_hook(skb, &Place { family, hook, iif, oif })
    }

    /// A packet from here, out by a link.
    pub(in crate::reference) fn go_out(
        &mut self,
        skb: &mut Skb,
        link: Ifindex,
    ) -> Result<Ifindex, NfStop> {
        skb.rerouted = None;
        self.ip_hook(NfHook::Output, skb, None, Some(link))?;
        let rerouted = skb.rerouted.as_ref().and_then(|way| self.sent_by(way));
        // What only means something on one link stays on it (`ip6_route_me_harder`, strict).
        let stays = is_link_local(skb.destination);
        let link = rerouted.filter(|_| !stays).unwrap_or(link);
        self.post_route(skb, link)?;
        Ok(link)
    }

    /// The link that a route sends by: what is for this machine loops through `lo`.
    fn sent_by(&self, way: &crate::reference::output::WayOut) -> Option<Ifindex> {
        if self.stays(way) { Some(LOOPBACK_IFINDEX) } else { way.links.first().copied() }
    }

    /// Behind output: postrouting, the bridge, the link.
    pub(in crate::reference) fn post_route(
        &mut self,
        skb: &mut Skb,
        link: Ifindex,
    ) -> Result<(), NfStop> {
        self.ip_hook(NfHook::Postrouting, skb, None, Some(link))?;
        self.frame_out(skb, link)
    }

    fn frame_out(&mut self, skb: &mut Skb, link: Ifindex) -> Result<(), NfStop> {
        let netdev =
            Place { family: NfFamily::Netdev, hook: NfHook::Egress, iif: None, oif: Some(link) };
        self.nf_hook(skb, &netdev)?;
        if self.link(link).is_some_and(|link| link.kind == LinkKind::Bridge) {
            let oif = skb.port;
            for hook in [NfHook::Output, NfHook::Postrouting] {
                self.nf_hook(skb, &Place { family: NfFamily::Bridge, hook, iif: None, oif })?;
            }
        }
        Ok(())
    }

    /// A packet of this machine to itself, from `lo` up to the input hook.
    pub(in crate::reference) fn loop_back(
        &mut self,
        skb: &mut Skb,
        device: Ifindex,
    ) -> Result<(), NfStop> {
        // The loopback device takes the socket off.
        skb.owner = Owner::Nobody;
        self.come_in(skb, device, device)?;
        self.ip_hook(NfHook::Input, skb, Some(device), None)
    }

    /// `ip_route_me_harder`, `ip6_route_me_harder`: the route of a packet that rules have changed.
    pub(super) fn route_me_harder(&mut self, skb: &mut Skb) -> Result<(), NfStop> {
        let Some(family) = skb.family else { return Ok(()) };
        let kind = match family {
            Family::Ipv4 => self.inet_addr_type(skb.source, None, None),
            Family::Ipv6 => SENDABLE[0],
        };
        let keeps_source = SENDABLE.contains(&kind);
        let bound = match skb.owner {
            Owner::Socket(index) => {
                self.netns.sockets.get(index.0).and_then(|socket| socket.device)
            }
            Owner::Nobody | Owner::Client(_) | Owner::Kernel => None,
        };
        let uid = match family {
            Family::Ipv4 => 0,
            Family::Ipv6 => self.owner_uid(skb).unwrap_or(0),
        };
        let dissected = self.rules_require_dissection(family) && skb.has_ports();
        let ports = if dissected { (skb.source_port, skb.destination_port) } else { (0, 0) };
        let flow = Flow {
            source: Some(skb.source).filter(|_| keeps_source),
            oif: bound,
            mark: skb.mark,
            uid,
            ip_protocol: if dissected { skb.protocol } else { 0 },
            source_port: ports.0,
            destination_port: ports.1,
            ..self.output_flow(skb.destination)
        };
        match self.ip_route_output(&flow, keeps_source) {
            Ok(way) => {
                skb.rerouted = Some(way);
                Ok(())
            }
            Err(error) => {
                let reason = if skb.turn == Turn::First {
                    DropReason::NatFailed
                } else {
                    DropReason::NoReplyRoute
                };
                let sees = Some(match error {
                    NoWayOut::Source => crate::TheySee::InvalidArgument,
                    NoWayOut::Fib(error) => crate::reference::local::errno(error),
                });
                Err(NfStop { reason, answer: None, sees })
            }
        }
    }

    /// The question who has the address, and the answer: both pass rules.
    pub(in crate::reference) fn neighbor_hooks(
        &mut self,
        sender: IpAddr,
        port: Ifindex,
        link: Ifindex,
    ) -> Result<(), NfStop> {
        let target = self.packet.destination;
        let tuple = |source, destination, kind| Tuple {
            source,
            source_port: kind,
            destination,
            destination_port: 0,
        };
        let (mut question, mut answer) = match target {
            IpAddr::V4(_) => {
                let arp = |skb| Skb { family: None, protocol: 0, ..skb };
                let mut question = arp(self.skb(Turn::Neighbor, tuple(sender, target, 1)));
                question.packet_type = PACKET_BROADCAST;
                (question, arp(self.skb(Turn::Neighbor, tuple(target, sender, 2))))
            }
            IpAddr::V6(v6) => {
                let nd = |skb| Skb { protocol: ICMPV6, target: Some(target), ..skb };
                let group = IpAddr::V6(solicited_node(v6));
                let mut question = nd(self.skb(Turn::Neighbor, tuple(sender, group, 135)));
                question.packet_type = PACKET_MULTICAST;
                (question, nd(self.skb(Turn::Neighbor, tuple(target, sender, 136))))
            }
        };
        answer.owner = Owner::Kernel;
        answer.port = Some(port).filter(|port| *port != link);
        self.frame_in(&mut question, port, link)?;
        if question.family.is_some() {
            let seen_on = self.l3mdev_master(link).unwrap_or(link);
            self.ip_hook(NfHook::Prerouting, &mut question, Some(link), None)?;
            self.ip_hook(NfHook::Input, &mut question, Some(seen_on), None)?;
            self.ip_hook(NfHook::Output, &mut answer, None, Some(link))?;
            return self.post_route(&mut answer, link);
        }
        self.ip_hook(NfHook::Input, &mut question, Some(link), None)?;
        self.ip_hook(NfHook::Output, &mut answer, None, Some(link))?;
        self.frame_out(&mut answer, link)
    }
}

/// `addrconf_addr_solict_mult`.
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

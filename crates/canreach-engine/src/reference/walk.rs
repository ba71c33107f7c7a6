//! The walk: the stages in order, and the fate that follows from what was met.
//!
//! Mirrors the receive path from `__netif_receive_skb_core` to `tcp_v4_rcv` and `__udp4_lib_rcv`.
//! It ends at the first stop, because the fate of a packet needs no more. Left out: what happens
//! before the packet is on this machine's link.

use canreach_snapshot::{
    Combinator, Family, FibLayout, Gap, GapReason, GapSubject, GlobalSysctl, Ifindex, Link,
    LinkKind, LinkSysctl, Netns, NfHook, Proto,
};

use super::fork::{Forks, Leaf, every_way};
use super::netfilter::Change;
use super::netfilter::skb::{Connection, PACKET_BROADCAST, Skb, Tuple};
use super::route::is_link_local;
use crate::{
    Arrival, DoubtEffect, DropReason, Fate, Outcome, Packet, SocketIndex, Stage, TheySee,
    UnknownReason,
};

/// The fate of one packet.
///
/// Where it could not be read whether IPv4 keeps tables local and main as one, both are tried; a
/// fate that hangs on it is unknown. Where a rule cannot be told, see `super::fork`.
#[must_use]
pub fn walk(netns: &Netns, packet: &Packet) -> Fate {
    let under = |split| every_way(&|forks| Walk::new(netns, packet, split, forks).fate());
    match netns.fib_layout {
        FibLayout::Merged => under(false),
        FibLayout::Split => under(true),
        FibLayout::Unknown => {
            let (merged, split) = (under(false), under(true));
            if merged == split {
                merged
            } else if merged.outcome == split.outcome {
                Fate { outcome: merged.outcome, they_see: None }
            } else {
                Fate { outcome: Outcome::Unknown(UnknownReason::FibLayout), they_see: None }
            }
        }
    }
}

/// The end of the path: why, and what the sender sees if nothing before it is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) reason: DropReason,
    pub(super) they_see: Option<TheySee>,
}

/// Something on the path that cannot be judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    pub(super) reason: UnknownReason,
    pub(super) effect: DoubtEffect,
    /// How many questions had been put to the forks before it.
    met: usize,
}

/// One packet on its way through one namespace.
#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    pub(super) netns: &'a Netns,
    /// The packet as it is now: rules may have changed its addresses and ports.
    pub(super) packet: Packet,
    /// Its mark.
    pub(super) mark: u32,
    /// The two ends as the client has them.
    pub(super) client: Tuple,
    /// The client's packet as it was last seen by rules.
    pub(super) current: Option<Skb>,
    /// The link it came in by: of a bridge, the port.
    pub(super) port: Option<Ifindex>,
    /// The connection that conntrack has made of it.
    pub(super) connection: Option<Connection>,
    /// What the exchange has changed in sets.
    pub(super) changes: Vec<Change>,
    /// The sets of ipset that the exchange has changed, by number.
    pub(super) changed_ipsets: Vec<u16>,
    /// Whoever decides what cannot be told.
    pub(super) forks: &'a Forks,
    /// IPv4 tables are walked by rules (`fib_has_custom_rules`).
    pub(super) split: bool,
    /// What could not be judged so far, in path order.
    pub(super) doubts: Vec<Doubt>,
    /// The sender, or the router before this machine, gets no answer when it asks for the address:
    /// whatever would stop the packet here, it is never sent.
    pub(super) unheard: bool,
}

impl<'a> Walk<'a> {
    fn new(netns: &'a Netns, packet: &Packet, split: bool, forks: &'a Forks) -> Self {
        let client = Tuple {
            source: packet.source,
            source_port: packet.source_port.0,
            destination: packet.destination,
            destination_port: packet.destination_port.0,
        };
        Self {
            netns,
            packet: *packet,
            mark: 0,
            client,
            current: None,
            port: None,
            connection: None,
            changes: Vec::new(),
            changed_ipsets: Vec::new(),
            forks,
            split,
            doubts: Vec::new(),
            unheard: false,
        }
    }

    /// Takes every stage, and judges what was met.
    fn fate(mut self) -> Leaf {
        let end = match self.packet.arrival {
            Arrival::Link(ifindex) => self.arrive_on_link(ifindex),
            Arrival::Local { uid } => self.leave_and_return(uid),
        };
        let unknown = |first: &Doubt| Leaf::unknown(first.reason, first.met);
        match (end, self.doubts.first()) {
            (Err(stop), None) => Leaf::known(Outcome::Stopped(stop.reason), stop.they_see),
            (Err(stop), Some(first)) => {
                let redirects = |doubt: &Doubt| doubt.effect == DoubtEffect::MayRedirect;
                if self.doubts.iter().any(redirects) {
                    unknown(first)
                } else {
                    Leaf::known(Outcome::Stopped(stop.reason), None)
                }
            }
            (Ok(_), Some(first)) => unknown(first),
            (Ok(sockets), None) => {
                let they_see = match self.packet.proto {
                    Proto::Tcp => TheySee::Connected,
                    Proto::Udp => TheySee::Delivered,
                };
                Leaf::known(Outcome::Delivered(sockets), Some(they_see))
            }
        }
    }

    /// The stages for a packet from the wire.
    fn arrive_on_link(&mut self, ifindex: Ifindex) -> Result<Vec<SocketIndex>, Stop> {
        self.port = Some(ifindex);
        let link = self.link_stage(ifindex)?;
        self.ingress_hooks(link);
        self.hooks(Stage::Prerouting);
        let mut skb = self.first_skb(self.client);
        skb.port = Some(ifindex).filter(|port| *port != link);
        if self.is_broadcast_on(link, skb.destination) {
            skb.packet_type = PACKET_BROADCAST;
        }
        if let Err(stop) = self.come_in(&mut skb, ifindex, link) {
            return Err(self.nf_stopped(stop, &skb, &self.before_routing(link)));
        }
        self.adopt(&skb);
        let mut arrived = self.route_stage(link)?;
        if self.unheard {
            // Translation makes of it what would be accepted, but nobody learns where to send it.
            let they_see = Some(self.neighbor_fails());
            return Err(Stop { reason: DropReason::NeighborSilent, they_see });
        }
        self.hooks(Stage::Input);
        if let Err(stop) = self.ip_hook(NfHook::Input, &mut skb, Some(arrived.seen_on()), None) {
            return Err(self.nf_stopped(stop, &skb, &arrived));
        }
        self.adopt(&skb);
        arrived.source = skb.source;
        let sockets = self.socket_stage(&arrived)?;
        self.gate_stage(&sockets)?;
        if !arrived.broadcast {
            let reply_links = self.reply_stage(&arrived, &sockets)?;
            self.output_hooks(&reply_links, &sockets);
        }
        Ok(sockets)
    }

    /// Takes over what rules made of the packet.
    pub(super) fn adopt(&mut self, skb: &Skb) {
        self.packet.source = skb.source;
        self.packet.source_port.0 = skb.source_port;
        self.packet.destination = skb.destination;
        self.packet.destination_port.0 = skb.destination_port;
        self.mark = skb.mark;
        self.current = Some(skb.clone());
    }

    /// A doubt at the place the walk has reached.
    pub(super) fn doubt(&mut self, reason: UnknownReason, effect: DoubtEffect) {
        self.doubts.push(Doubt { reason, effect, met: self.forks.count() });
    }

    /// A doubt that stood before some of the questions put already.
    pub(super) fn doubt_at(&mut self, met: usize, reason: UnknownReason, effect: DoubtEffect) {
        self.doubts.push(Doubt { reason, effect, met });
    }

    /// A stop that nobody answers.
    pub(super) fn silent(&self, reason: DropReason) -> Stop {
        Stop { reason, they_see: Some(self.nothing_comes_back()) }
    }

    /// What a client sees when nothing comes back.
    pub(super) const fn nothing_comes_back(&self) -> TheySee {
        match self.packet.proto {
            Proto::Tcp => TheySee::Timeout,
            Proto::Udp => TheySee::Silence,
        }
    }

    /// What a client sees when nobody answers its question who has the address, or answers the router
    /// before this machine. The error its own kernel makes of that is not fatal to UDP, and it does
    /// not match a TCP socket bound to a link, as one with a link-local address is (`tcp_v6_err`).
    pub(super) fn neighbor_fails(&self) -> TheySee {
        let bound = [self.packet.source, self.packet.destination].into_iter().any(is_link_local);
        match self.packet.proto {
            Proto::Tcp if !bound => TheySee::HostUnreachable,
            Proto::Tcp | Proto::Udp => self.nothing_comes_back(),
        }
    }

    /// What the rest of the walk would do from here, without leaving a trace of it.
    pub(super) fn attempt<T>(&self, rest: impl FnOnce(&mut Self) -> T) -> T {
        rest(&mut Self { doubts: Vec::new(), ..self.clone() })
    }

    pub(super) fn family(&self) -> Family {
        self.packet.family()
    }

    pub(super) fn link(&self, ifindex: Ifindex) -> Option<&'a Link> {
        self.netns.link(ifindex)
    }

    /// The VRF a link is or belongs to (net/l3mdev/l3mdev.c, `l3mdev_master_ifindex_rcu`).
    pub(super) fn l3mdev_master(&self, ifindex: Ifindex) -> Option<Ifindex> {
        let link = self.link(ifindex)?;
        if link.kind == LinkKind::Vrf {
            return Some(ifindex);
        }
        link.master
            .filter(|master| self.link(*master).is_some_and(|master| master.kind == LinkKind::Vrf))
    }

    /// A sysctl of a link as the kernel combines it with `all` (include/linux/inetdevice.h). What is
    /// missing counts as 0; a gap about one of the values read is a doubt.
    pub(super) fn link_sysctl(&mut self, sysctl: LinkSysctl, ifindex: Ifindex) -> i64 {
        let name = self.link(ifindex).map_or("", |link| link.name.as_str());
        let own = self.netns.sysctls.of_link(sysctl, name).unwrap_or(0);
        self.doubt_sysctl(&sysctl_name(sysctl, name));
        if sysctl.combinator() == Combinator::Link {
            return own;
        }
        let all = self.all_sysctl(sysctl);
        match sysctl.combinator() {
            Combinator::Max => own.max(all),
            Combinator::Or => i64::from(own != 0 || all != 0),
            Combinator::And => i64::from(own != 0 && all != 0),
            Combinator::Link => own,
        }
    }

    /// The value of `all` alone.
    pub(super) fn all_sysctl(&mut self, sysctl: LinkSysctl) -> i64 {
        self.doubt_sysctl(&sysctl_name(sysctl, "all"));
        self.netns.sysctls.all.get(&sysctl).copied().unwrap_or(0)
    }

    /// A sysctl the namespace has once.
    pub(super) fn global_sysctl(&mut self, sysctl: GlobalSysctl) -> i64 {
        self.doubt_sysctl(sysctl.name());
        self.netns.sysctls.global.get(&sysctl).copied().unwrap_or(0)
    }

    fn doubt_sysctl(&mut self, name: &str) {
        let about = |gap: &&Gap| matches!(&gap.subject, GapSubject::Sysctl(gap) if gap == name);
        let reasons: Vec<_> = self.netns.gaps.iter().filter(about).map(gap_reason).collect();
        for reason in reasons {
            self.doubt(reason, DoubtEffect::MayStop);
        }
    }
}

fn sysctl_name(sysctl: LinkSysctl, link: &str) -> String {
    let family = if sysctl.is_ipv6() { "ipv6" } else { "ipv4" };
    format!("net.{family}.conf.{link}.{}", sysctl.name())
}

/// What a gap makes of an answer.
pub(super) const fn gap_reason(gap: &Gap) -> UnknownReason {
    match gap.reason {
        GapReason::NeedsRoot => UnknownReason::NeedsRoot,
        GapReason::ChangedWhileReading => UnknownReason::ChangedWhileReading,
        GapReason::Unsupported
        | GapReason::Vanished
        | GapReason::Malformed
        | GapReason::Failed
        | GapReason::NotRead => UnknownReason::Unread,
    }
}

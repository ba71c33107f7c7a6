//! The walk: the stages in order, and the fate that follows from what was met.
//!
//! Mirrors the receive path from `__netif_receive_skb_core` to `tcp_v4_rcv` and `__udp4_lib_rcv`.
//! It ends at the first stop, because the fate of a packet needs no more. Left out: what happens
//! before the packet is on this machine's link.

use canreach_snapshot::{
    Combinator, Family, FibLayout, Gap, GapReason, GapSubject, GlobalSysctl, Ifindex, Link,
    LinkKind, LinkSysctl, Netns, Proto,
};

use super::route::is_link_local;
use crate::{
    Arrival, DoubtEffect, DropReason, Fate, Outcome, Packet, SocketIndex, Stage, TheySee,
    UnknownReason,
};

/// The fate of one packet.
///
/// Where it could not be read whether IPv4 keeps tables local and main as one, both are tried; a
/// fate that hangs on it is unknown.
#[must_use]
pub fn walk(netns: &Netns, packet: &Packet) -> Fate {
    let under = |split| Walk::new(netns, packet, split).fate();
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
}

/// One packet on its way through one namespace.
#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    pub(super) netns: &'a Netns,
    pub(super) packet: &'a Packet,
    /// IPv4 tables are walked by rules (`fib_has_custom_rules`).
    pub(super) split: bool,
    /// What could not be judged so far, in path order.
    pub(super) doubts: Vec<Doubt>,
    /// The sender, or the router before this machine, gets no answer when it asks for the address:
    /// whatever would stop the packet here, it is never sent.
    pub(super) unheard: bool,
}

impl<'a> Walk<'a> {
    fn new(netns: &'a Netns, packet: &'a Packet, split: bool) -> Self {
        Self { netns, packet, split, doubts: Vec::new(), unheard: false }
    }

    /// Takes every stage, and judges what was met.
    fn fate(mut self) -> Fate {
        let end = match self.packet.arrival {
            Arrival::Link(ifindex) => self.arrive_on_link(ifindex),
            Arrival::Local { uid } => self.leave_and_return(uid),
        };
        let unknown = |reason| Fate { outcome: Outcome::Unknown(reason), they_see: None };
        match (end, self.doubts.first()) {
            (Err(stop), None) => {
                Fate { outcome: Outcome::Stopped(stop.reason), they_see: stop.they_see }
            }
            (Err(stop), Some(first)) => {
                let redirects = |doubt: &Doubt| doubt.effect == DoubtEffect::MayRedirect;
                if self.doubts.iter().any(redirects) {
                    unknown(first.reason)
                } else {
                    Fate { outcome: Outcome::Stopped(stop.reason), they_see: None }
                }
            }
            (Ok(_), Some(first)) => unknown(first.reason),
            (Ok(sockets), None) => {
                let they_see = match self.packet.proto {
                    Proto::Tcp => TheySee::Connected,
                    Proto::Udp => TheySee::Delivered,
                };
                Fate { outcome: Outcome::Delivered(sockets), they_see: Some(they_see) }
            }
        }
    }

    /// The stages for a packet from the wire.
    fn arrive_on_link(&mut self, ifindex: Ifindex) -> Result<Vec<SocketIndex>, Stop> {
        let link = self.link_stage(ifindex)?;
        self.ingress_hooks(link);
        self.hooks(Stage::Prerouting);
        let arrived = self.route_stage(link)?;
        self.hooks(Stage::Input);
        let sockets = self.socket_stage(&arrived)?;
        self.gate_stage(&sockets)?;
        if !arrived.broadcast {
            let reply_links = self.reply_stage(&arrived, &sockets)?;
            self.output_hooks(&reply_links, &sockets);
        }
        Ok(sockets)
    }

    /// A doubt at the place the walk has reached.
    pub(super) fn doubt(&mut self, reason: UnknownReason, effect: DoubtEffect) {
        self.doubts.push(Doubt { reason, effect });
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

//! What sits on the path and cannot be judged: unread packet filters, BPF programs, gaps about them.
//!
//! Mirrors where `NF_HOOK`, `sch_handle_ingress`, XDP and the BPF hooks of control groups and of the
//! socket lookup are called. Of packet filters whose rules were not read, and of programs, only the
//! presence is known; each is a doubt. What was read is judged in `netfilter/`. Left out: forward
//! hooks, which cannot change that a packet is sent on.

use canreach_snapshot::{
    AttachPoint, CgroupId, Family, Gap, GapSubject, HookedChain, Ifindex, LinkKind, NfFamily,
    NfHook, xt,
};

use super::walk::{Walk, gap_reason};
use crate::{Arrival, DoubtEffect, SocketIndex, Stage, UnknownReason};

use DoubtEffect::{MayRedirect, MayStop};

impl<'a> Walk<'a> {
    /// XDP, tc and ingress chains of the link the packet comes in by, or of a port of it; chains of
    /// the bridge family where that link is a bridge, except those for frames sent on or out.
    pub(super) fn ingress_hooks(&mut self, link: Ifindex) {
        let names: Vec<&str> = self
            .netns
            .links
            .iter()
            .filter(|other| other.ifindex == link || other.master == Some(link))
            .map(|other| other.name.as_str())
            .collect();
        for chain in self.unread_chains() {
            let on_link = chain.devices.iter().any(|device| names.contains(&device.as_str()));
            if chain.hook == NfHook::Ingress && on_link {
                self.doubt(UnknownReason::NotModelled, MayRedirect);
            } else if matches!(chain.hook, NfHook::Prerouting | NfHook::Input)
                && chain.family == NfFamily::Bridge
                && self.is_bridge(link)
            {
                self.doubt(UnknownReason::NotModelled, MayStop);
            }
        }
        for attachment in &self.netns.bpf {
            let on_link = |at: Ifindex| {
                at == link || self.link(at).is_some_and(|port| port.master == Some(link))
            };
            let here = match attachment.point {
                AttachPoint::Xdp(at) | AttachPoint::TcIngress(at) => on_link(at),
                AttachPoint::Netfilter(hook) => hook == NfHook::Ingress,
                AttachPoint::TcEgress(_)
                | AttachPoint::CgroupIngress(_)
                | AttachPoint::CgroupEgress(_)
                | AttachPoint::CgroupConnect(_)
                | AttachPoint::SkLookup => false,
            };
            if here {
                self.doubt(UnknownReason::OpaqueProgram, MayRedirect);
            }
        }
        self.gaps(MayRedirect, |subject| matches!(subject, GapSubject::Xdp | GapSubject::Tc));
    }

    /// Chains of nftables that do something, where their rules were not read.
    fn unread_chains(&self) -> impl Iterator<Item = &'a HookedChain> + use<'a> {
        let firewall = &self.netns.firewall;
        let unread = firewall.nft.is_none();
        firewall.chains.iter().filter(move |chain| unread && !chain.is_idle())
    }

    fn is_bridge(&self, link: Ifindex) -> bool {
        self.link(link).is_some_and(|link| link.kind == LinkKind::Bridge)
    }

    /// The chains of the ARP family, when ARP is needed.
    pub(super) fn arp_hooks(&mut self) {
        for chain in self.unread_chains() {
            if chain.family == NfFamily::Arp {
                self.doubt(UnknownReason::NotModelled, MayStop);
            }
        }
    }

    /// Netfilter at one of the stages prerouting, input and output.
    pub(super) fn hooks(&mut self, stage: Stage) {
        let effect = self.hook_effect(stage);
        for chain in self.unread_chains() {
            if concerns(chain.family, self.family()) && stage_of(chain.hook) == Some(stage) {
                self.doubt(UnknownReason::NotModelled, effect);
            }
        }
        for table in &self.netns.firewall.legacy_tables {
            let is_read = |read: &xt::Table| read.family == table.family && read.name == table.name;
            let here = concerns(table.family, self.family())
                && table.idle != Some(true)
                && !self.netns.firewall.xt_tables.iter().any(is_read);
            if let Some(effect) = legacy_effect(&table.name, stage, effect).filter(|_| here) {
                self.doubt(UnknownReason::NotModelled, effect);
            }
        }
        for attachment in &self.netns.bpf {
            let AttachPoint::Netfilter(hook) = attachment.point else { continue };
            if stage_of(hook) == Some(stage) {
                self.doubt(UnknownReason::OpaqueProgram, effect);
            }
        }
        // Rules that could not be read do what rules do, unless nothing here can rewrite addresses.
        let effect = if self.netns.firewall.cannot_redirect { MayStop } else { effect };
        let family = self.family();
        let firewall = |subject: &GapSubject| {
            *subject == GapSubject::NftRuleset
                || *subject == GapSubject::LegacyTables(family)
                || (*subject == GapSubject::NetfilterBpf && stage == Stage::Input)
        };
        self.gaps(effect, firewall);
    }

    /// A chain before routing may rewrite the address; one on the way out only for a packet that
    /// starts here.
    const fn hook_effect(&self, stage: Stage) -> DoubtEffect {
        let local = matches!(self.packet.arrival, Arrival::Local { .. });
        match stage {
            Stage::Prerouting => MayRedirect,
            Stage::Output if local => MayRedirect,
            Stage::Output
            | Stage::Link
            | Stage::Ingress
            | Stage::Route
            | Stage::Input
            | Stage::Forward
            | Stage::Socket
            | Stage::Gate
            | Stage::Reply => MayStop,
        }
    }

    /// The output stage of an answer: netfilter, then what sits on the links it leaves by, and on the
    /// control groups of its senders.
    pub(super) fn output_hooks(&mut self, links: &[Ifindex], senders: &[SocketIndex]) {
        self.hooks(Stage::Output);
        let leaves_by = |device: &String| {
            self.netns.link_named(device).is_some_and(|link| links.contains(&link.ifindex))
        };
        let egress = self.unread_chains().filter(|chain| match (chain.family, chain.hook) {
            (NfFamily::Bridge, NfHook::Output | NfHook::Postrouting) => {
                links.iter().any(|link| self.is_bridge(*link))
            }
            (_, NfHook::Egress) => chain.devices.iter().any(leaves_by),
            (_, _) => false,
        });
        for _ in 0..egress.count() {
            self.doubt(UnknownReason::NotModelled, MayStop);
        }
        for attachment in &self.netns.bpf {
            let here = match attachment.point {
                AttachPoint::TcEgress(at) => links.contains(&at),
                AttachPoint::CgroupEgress(group) => self.any_in_cgroup(senders, group),
                AttachPoint::Xdp(_)
                | AttachPoint::TcIngress(_)
                | AttachPoint::CgroupIngress(_)
                | AttachPoint::CgroupConnect(_)
                | AttachPoint::SkLookup
                | AttachPoint::Netfilter(_) => false,
            };
            if here {
                self.doubt(UnknownReason::OpaqueProgram, MayStop);
            }
        }
    }

    /// Programs that look at connect(2) of a client on this machine; its control group is not known.
    pub(super) fn connect_hooks(&mut self) {
        for attachment in &self.netns.bpf {
            if matches!(attachment.point, AttachPoint::CgroupConnect(_)) {
                self.doubt(UnknownReason::OpaqueProgram, MayRedirect);
            }
        }
    }

    /// Programs that choose the socket before the ordinary lookup does.
    pub(super) fn lookup_hooks(&mut self) {
        for attachment in &self.netns.bpf {
            if attachment.point == AttachPoint::SkLookup {
                self.doubt(UnknownReason::OpaqueProgram, MayRedirect);
            }
        }
    }

    /// Programs of the control groups of the sockets that get the packet.
    pub(super) fn cgroup_hooks(&mut self, sockets: &[SocketIndex]) {
        for attachment in &self.netns.bpf {
            let AttachPoint::CgroupIngress(group) = attachment.point else { continue };
            if self.any_in_cgroup(sockets, group) {
                self.doubt(UnknownReason::OpaqueProgram, MayStop);
            }
        }
        self.gaps(MayStop, |subject| *subject == GapSubject::CgroupBpf);
    }

    /// Whether one of the sockets is, or may be, in a control group.
    fn any_in_cgroup(&self, sockets: &[SocketIndex], group: CgroupId) -> bool {
        sockets
            .iter()
            .any(|socket| self.netns.sockets[socket.0].cgroup.is_none_or(|cgroup| cgroup == group))
    }

    /// A doubt for each gap about one of the subjects.
    pub(super) fn gaps(&mut self, effect: DoubtEffect, concerns: impl Fn(&GapSubject) -> bool) {
        let found: Vec<&Gap> =
            self.netns.gaps.iter().filter(|gap| concerns(&gap.subject)).collect();
        for gap in found {
            self.doubt(gap_reason(gap), effect);
        }
    }
}

/// Whether a family of netfilter sees packets of a family.
const fn concerns(of: NfFamily, family: Family) -> bool {
    match of {
        NfFamily::Inet => true,
        NfFamily::Ip => matches!(family, Family::Ipv4),
        NfFamily::Ip6 => matches!(family, Family::Ipv6),
        NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => false,
    }
}

/// The stage a hook belongs to, of those that [`Walk::hooks`] takes.
const fn stage_of(hook: NfHook) -> Option<Stage> {
    match hook {
        NfHook::Prerouting => Some(Stage::Prerouting),
        NfHook::Input => Some(Stage::Input),
        NfHook::Output | NfHook::Postrouting => Some(Stage::Output),
        NfHook::Ingress | NfHook::Egress | NfHook::Forward => None,
    }
}

/// Where a legacy table has chains, and what they may do there.
fn legacy_effect(table: &str, stage: Stage, of_chain: DoubtEffect) -> Option<DoubtEffect> {
    match (table, stage) {
        ("mangle" | "nat", Stage::Prerouting | Stage::Output) => Some(of_chain),
        ("raw", Stage::Prerouting | Stage::Output)
        | ("mangle" | "filter" | "security", Stage::Input)
        | ("filter" | "security", Stage::Output) => Some(MayStop),
        _absent => None,
    }
}

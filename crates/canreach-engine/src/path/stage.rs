//! What a stage is asked and what it hands on: a partition of all packets by what it finds.
//!
//! *Kernel:* none; the stages follow `reference` section 1 of the receive path, function by function.
//! *Decides:* nothing by itself.
//! *Reads:* nothing.
//! *Not modelled:* nothing is left out here; each stage names what it leaves out.

use std::net::IpAddr;
use std::rc::Rc;

use canreach_snapshot::address::address_value;
use canreach_snapshot::{Family, Ifindex, Link, Port, Proto, TableId};

use crate::AddressSet;
use crate::host::Host;
use crate::host::flow::Term;
use crate::netfilter::view::{Part, View};
use crate::packet::packet_set::PacketSet;
use crate::path::sets::Sets;
use crate::path::trail::Result;
use crate::{
    Doubt, DoubtEffect, DropReason, NetnsIndex, SocketIndex, Stage, Subject, TheySee, UnknownReason,
};

/// What a stage found for some packets. Its doubts are met before its stop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Finding {
    /// The stage.
    pub(crate) stage: Stage,
    /// The object that decided, if it let them pass.
    pub(crate) subject: Option<Subject>,
    /// What cannot be judged here.
    pub(crate) doubts: Vec<Doubt>,
    /// What stops them here.
    pub(crate) stop: Option<Stop>,
    /// The path ends here: asking what comes after makes no sense.
    pub(crate) ends: bool,
    /// At the socket stage: who gets it.
    pub(crate) sockets: Vec<SocketIndex>,
    /// At the forward stage: what becomes of it in the namespace it is sent on to.
    pub(crate) beyond: Option<Rc<Beyond>>,
}

/// What becomes of packets in another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Beyond {
    pub(crate) netns: NetnsIndex,
    /// In terms of that namespace.
    pub(crate) result: Result,
}

/// A stop, and what the sender would see if it is the first one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Stop {
    /// Why.
    pub(crate) reason: DropReason,
    /// The object that decides.
    pub(crate) subject: Option<Subject>,
    /// What the sender sees.
    pub(crate) they_see: Option<TheySee>,
}

/// A partition of packets by what a stage found. What no part holds passes without a trace.
pub(crate) type Partition = Vec<(PacketSet, Finding)>;

impl Finding {
    /// They pass.
    pub(crate) const fn pass(stage: Stage, subject: Option<Subject>) -> Self {
        Self {
            stage,
            subject,
            doubts: Vec::new(),
            stop: None,
            ends: false,
            sockets: Vec::new(),
            beyond: None,
        }
    }

    /// They are stopped; the path is walked on as if they were not.
    pub(crate) const fn stop(
        stage: Stage,
        reason: DropReason,
        subject: Option<Subject>,
        they_see: Option<TheySee>,
    ) -> Self {
        let stop = Some(Stop { reason, subject, they_see });
        Self {
            stage,
            subject: None,
            doubts: Vec::new(),
            stop,
            ends: false,
            sockets: Vec::new(),
            beyond: None,
        }
    }

    /// They are stopped, and nothing comes after.
    pub(crate) const fn end(
        stage: Stage,
        reason: DropReason,
        subject: Option<Subject>,
        they_see: Option<TheySee>,
    ) -> Self {
        let stop = Some(Stop { reason, subject, they_see });
        Self {
            stage,
            subject: None,
            doubts: Vec::new(),
            stop,
            ends: true,
            sockets: Vec::new(),
            beyond: None,
        }
    }

    /// They pass as far as can be told.
    pub(crate) const fn doubtful(stage: Stage, doubts: Vec<Doubt>) -> Self {
        Self {
            stage,
            subject: None,
            doubts,
            stop: None,
            ends: false,
            sockets: Vec::new(),
            beyond: None,
        }
    }

    /// One thing that cannot be judged.
    pub(crate) fn doubt(
        stage: Stage,
        reason: UnknownReason,
        effect: DoubtEffect,
        subject: Option<Subject>,
    ) -> Self {
        Self::doubtful(stage, vec![Doubt { stage, reason, effect, subject }])
    }

    /// Says nothing: passes, without subject or doubt.
    pub(crate) fn is_silent(&self) -> bool {
        self.subject.is_none() && self.doubts.is_empty() && self.stop.is_none() && !self.ends
    }
}

/// What is asked of every stage: the part of a question that does not depend on the source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) family: Family,
    pub(crate) proto: Proto,
    pub(crate) port: Port,
    /// The address dialled.
    pub(crate) to: IpAddr,
    /// The link that receives: the bridge or bond, if a port of one was asked for.
    pub(crate) link: &'a Link,
    /// The link that input routing sees: the VRF, if the link is part of one.
    pub(crate) routed_link: &'a Link,
    /// The VRF and its table.
    pub(crate) vrf: Option<(Ifindex, TableId)>,
    /// IPv4: policy rules are walked, instead of the merged trie.
    pub(crate) split: bool,
    /// The mark that rules gave the packet.
    pub(crate) mark: u32,
    /// The packet as rules left it; `None` where it has met none.
    pub(crate) view: Option<&'a View>,
    /// Who sends it: everybody, or one whose address was put there on the way.
    pub(crate) client: Term,
    /// It is handed over by this machine itself, which knows where the address is.
    pub(crate) handed_over: bool,
}

impl<'a> Asked<'a> {
    /// Prepares a question about packets from a link; `None` if there is no such link.
    pub(crate) fn new(
        host: &Host<'a>,
        proto: Proto,
        port: Port,
        to: IpAddr,
        via: Ifindex,
        split: bool,
    ) -> Option<Self> {
        let link = host.receiving_link(via)?;
        let vrf = host.vrf_of(link);
        // `l3mdev_l3_rcv` hands packets to the VRF's own link, except IPv6 ones whose addresses only
        // mean something on the link itself (`vrf_ip6_rcv`).
        let keeps_link = needs_strict(to);
        let routed_link =
            vrf.filter(|_| !keeps_link).and_then(|(master, _)| host.link(master)).unwrap_or(link);
        let family = Family::of(to);
        let (mark, view, client, handed_over) = (0, None, Term::AnySource, false);
        let asked = Self {
            family,
            proto,
            port,
            to,
            link,
            routed_link,
            vrf,
            split,
            mark,
            view,
            client,
            handed_over,
        };
        Some(asked)
    }

    /// The same question about packets that rules have changed to this.
    pub(crate) fn as_seen<'v>(self, view: &'v View) -> Asked<'v>
    where
        'a: 'v,
    {
        let to = match view.destination {
            Part::Is(value) => self.family.address(value),
            Part::Client | Part::Chosen(_) => self.to,
        };
        let port = match view.destination_port {
            Part::Is(value) => Port(value as u16),
            Part::Client | Part::Chosen(_) => self.port,
        };
        Asked { to, port, client: view.source.term(), mark: view.mark, view: Some(view), ..self }
    }

    /// The address dialled, as a number.
    pub(crate) const fn value(&self) -> u128 {
        address_value(self.to)
    }

    /// Packets whose client is one of these.
    pub(crate) fn from(&self, sets: &mut Sets, addresses: &AddressSet) -> PacketSet {
        match self.client {
            Term::AnySource => sets.from_sources(addresses),
            Term::Is(value) if addresses.contains(addresses.family().address(value)) => {
                PacketSet::ALL
            }
            Term::Is(_) => PacketSet::NONE,
        }
    }

    /// What a sender sees when nothing comes back.
    pub(crate) const fn silence(&self) -> TheySee {
        silence(self.proto)
    }
}

impl Part {
    /// An address as lookups take it.
    pub(crate) const fn term(self) -> Term {
        match self {
            Self::Is(value) => Term::Is(value),
            Self::Client | Self::Chosen(_) => Term::AnySource,
        }
    }
}

/// What a sender sees when nothing comes back.
pub(crate) const fn silence(proto: Proto) -> TheySee {
    match proto {
        Proto::Tcp => TheySee::Timeout,
        Proto::Udp => TheySee::Silence,
    }
}

/// IPv6 addresses that only mean something on one link (`rt6_need_strict`): link-local ones,
/// groups, and ::1.
pub(crate) const fn needs_strict(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.is_multicast() || address.is_loopback()
        }
    }
}

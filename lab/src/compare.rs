//! Kernel, reference evaluator and engine, asked the same: where do they differ?
//!
//! The kernel is what happened. The reference evaluator says the fate of the very packet that was
//! sent; the engine is asked about every source at once, and the group that holds this packet's
//! source must say the same.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;
use canreach_engine::{
    AddressSet, Arrival, DropReason, Fate, Host, Outcome, Packet, Question, SocketIndex, TheySee,
    UnknownReason, answer, reference,
};
use canreach_snapshot::{Family, Ifindex, Link, LinkKind, Netns, Port, Proto, Scope};

use crate::examine::Examined;
use crate::probe::{Client, Observation, Probe};
use crate::topology::Topology;

/// What the kernel is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// Both evaluators, and those against each other.
    Both,
    /// The reference evaluator alone.
    Reference,
    /// The engine alone.
    Engine,
    /// Nothing: what the kernel does is counted.
    Nothing,
}

impl Against {
    /// What is left when some are left out.
    #[must_use]
    pub const fn of(without_engine: bool, without_reference: bool) -> Self {
        match (without_engine, without_reference) {
            (false, false) => Self::Both,
            (true, true) => Self::Nothing,
            (true, false) => Self::Reference,
            (false, true) => Self::Engine,
        }
    }
}

/// What the three said about one probe.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What happened.
    pub kernel: Observation,
    /// What the reference evaluator says.
    pub reference: Fate,
    /// What the engine says; `None` where it cannot be asked (a local client that chose its source).
    pub engine: Option<Fate>,
    /// Where they differ, in words.
    pub mismatches: Vec<String>,
}

impl Comparison {
    /// The reason for which the answer cannot be told, if it cannot.
    #[must_use]
    pub const fn unknown(&self) -> Option<UnknownReason> {
        match self.reference.outcome {
            Outcome::Unknown(reason) => Some(reason),
            Outcome::Delivered(_) | Outcome::DeliveredIn(..) | Outcome::Stopped(_) => None,
        }
    }
}

impl Comparison {
    /// Whether the client got through.
    #[must_use]
    pub fn got_through(&self) -> bool {
        got_through(&self.kernel)
    }

    /// Whether asking once more may come out differently: the client heard nothing, and should have.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let unknown = matches!(self.reference.outcome, Outcome::Unknown(_));
        let from_kernel = self.mismatches.iter().any(|mismatch| mismatch.starts_with("kernel"));
        from_kernel && !unknown && !self.got_through()
    }

    /// Whether another comparison shows the same disagreement.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let outcome = |fate: &Fate| match &fate.outcome {
            Outcome::Delivered(_) => None,
            other => Some((other.clone(), fate.they_see)),
        };
        self.kernel.they_see == other.kernel.they_see
            && self.mismatches == other.mismatches
            && outcome(&self.reference) == outcome(&other.reference)
            && self.engine.as_ref().map(outcome) == other.engine.as_ref().map(outcome)
    }
}

/// The packet that a probe's client sends.
///
/// # Errors
/// If it names a link that is not there.
pub fn packet(topology: &Topology, probe: &Probe, source_port: u16) -> Result<Packet> {
    let (source, arrival) = match &probe.client {
        Client::Own { source, uid } => {
            (source.unwrap_or_else(|| probe.family().unspecified()), Arrival::Local { uid: *uid })
        }
        Client::Peer { source, via, .. } => (*source, Arrival::Link(Ifindex(topology.index(via)?))),
    };
    Ok(Packet {
        proto: probe.proto,
        source,
        source_port: Port(source_port),
        destination: probe.to.ip(),
        destination_port: Port(probe.to.port()),
        arrival,
    })
}

/// Asks the reference evaluator and the engine about one probe, and compares with what happened and
/// with the kernel's own lookup.
///
/// # Errors
/// If the probe names a link that is not there.
pub fn compare(
    examined: &Examined,
    number: usize,
    probe: &Probe,
    kernel: Observation,
    against: Against,
) -> Result<Comparison> {
    let (topology, netns) = (&examined.topology, &examined.netns);
    let packet = packet(topology, probe, kernel.source_port)?;
    let mut reference = reference::walk(netns, &packet);
    let host = Host::resolve(netns);
    let mut engine = match against {
        Against::Both | Against::Engine => ask_engine(&host, &packet),
        Against::Reference | Against::Nothing => None,
    };
    if against == Against::Engine
        && let Some(Ok(fate)) = &engine
    {
        reference = fate.clone();
        engine = None;
    }
    if against == Against::Nothing {
        return Ok(Comparison { kernel, reference, engine: None, mismatches: Vec::new() });
    }
    let happened = Happened {
        packet: &packet,
        kernel: &kernel,
        served: &sockets_of(topology, netns, &kernel),
        raw: matches!(probe.client, Client::Peer { raw: true, .. }),
        shared: topology.wiring.is_shared(probe.to.ip()),
        unnumbered: netns.links.iter().any(|link| !is_numbered(netns, link)),
        by_some_port: is_bridge(netns, &packet),
    };
    let mut mismatches = Vec::new();
    match &engine {
        Some(Ok(fate)) if *fate != reference => {
            mismatches.push("the engine and the reference evaluator differ".to_owned());
        }
        Some(Err(message)) => mismatches.push(message.clone()),
        Some(Ok(_)) | None => {}
    }
    if let Err(message) = happened.agrees(&reference) {
        mismatches.push(format!("kernel and reference evaluator: {message}"));
    }
    if let Some(found) = examined.lookups.get(number).copied().flatten()
        && !lookup_agrees(netns, &reference, found)
    {
        let found = if found.is_some() { "another" } else { "none" };
        mismatches.push(format!("the kernel's own socket query finds {found}"));
    }
    let engine = engine.and_then(Result::ok);
    Ok(Comparison { kernel, reference, engine, mismatches })
}

/// Whether the kernel's lookup finds what a fate says, where the fate says anything about it.
fn lookup_agrees(netns: &Netns, fate: &Fate, found: Option<u64>) -> bool {
    match &fate.outcome {
        Outcome::Delivered(sockets) => sockets
            .iter()
            .filter_map(|socket| netns.sockets.get(socket.0))
            .any(|socket| Some(socket.inode) == found),
        // That lookup is of another namespace.
        Outcome::DeliveredIn(..) => true,
        Outcome::Stopped(
            DropReason::NotListening
            | DropReason::BindLoopback
            | DropReason::BindAddress
            | DropReason::BindDevice
            | DropReason::V6Only
            | DropReason::ConnectedElsewhere,
        ) => found.is_none(),
        Outcome::Stopped(_) | Outcome::Unknown(_) => true,
    }
}

/// The engine's fate for one packet, from its answer about all sources; `None` where it cannot be
/// asked.
fn ask_engine(host: &Host<'_>, packet: &Packet) -> Option<Result<Fate, String>> {
    let local = matches!(packet.arrival, Arrival::Local { .. });
    if local && !packet.source.is_unspecified() {
        return None;
    }
    let question = Question {
        proto: packet.proto,
        port: packet.destination_port,
        from: AddressSet::all(packet.family()),
        to: packet.destination,
        via: packet.arrival,
    };
    let answer = answer(host, &question);
    let port = packet.source_port.0;
    let mut holding = answer.groups.iter().filter(|group| {
        let ports = group.ports.as_ref();
        (local || group.sources.contains(packet.source))
            && ports
                .is_none_or(|ports| ports.iter().any(|(low, high)| (*low..=*high).contains(&port)))
    });
    Some(match (holding.next(), holding.next()) {
        (Some(group), None) => Ok(group.fate.clone()),
        (None, _) => Err("no group of the engine's answer holds the source".to_owned()),
        (Some(_), Some(_)) => Err("two groups of the engine's answer hold the source".to_owned()),
    })
}

/// Whether a link has an IPv4 address that reaches everywhere.
fn is_numbered(netns: &Netns, link: &Link) -> bool {
    netns.addresses.iter().any(|address| {
        address.ifindex == link.ifindex
            && Family::of(address.address()) == Family::Ipv4
            && address.scope == Scope::UNIVERSE
    })
}

/// The sockets of the snapshot that are the servers which got something.
fn sockets_of(topology: &Topology, netns: &Netns, kernel: &Observation) -> BTreeSet<SocketIndex> {
    let inodes: Vec<u64> =
        kernel.served_by.iter().map(|position| topology.servers[*position].inode).collect();
    let sockets = netns.sockets.iter().enumerate();
    let serving = sockets.filter(|(_, socket)| inodes.contains(&socket.inode));
    serving.map(|(index, _)| SocketIndex(index)).collect()
}

/// Whether a client got an answer, and a server the client: who is told that it is connected may
/// have no server, where the last step of the handshake is dropped.
#[must_use]
pub fn got_through(kernel: &Observation) -> bool {
    match kernel.they_see {
        TheySee::Connected => !kernel.served_by.is_empty(),
        TheySee::Delivered => true,
        _ => false,
    }
}

/// What happened to one packet.
struct Happened<'a> {
    packet: &'a Packet,
    kernel: &'a Observation,
    /// The sockets that got it.
    served: &'a BTreeSet<SocketIndex>,
    /// The lab wrote the frame.
    raw: bool,
    /// It was for everybody somewhere.
    shared: bool,
    /// Some link has no IPv4 address of its own that it could send from.
    unnumbered: bool,
    /// The question names a bridge, and not the port that the packet comes in by.
    by_some_port: bool,
}

impl Happened<'_> {
    fn got_through(&self) -> bool {
        got_through(self.kernel)
    }

    /// Whether a fate is what happened.
    fn agrees(&self, fate: &Fate) -> Result<(), &'static str> {
        match &fate.outcome {
            Outcome::DeliveredIn(..) => {
                if self.got_through() {
                    Ok(())
                } else {
                    Err("it did not get through")
                }
            }
            Outcome::Delivered(sockets) => {
                let expected: BTreeSet<SocketIndex> = sockets.iter().copied().collect();
                if self.shared {
                    // Nobody answers from the address of a group: what counts is that each of its
                    // sockets has a copy.
                    return if *self.served == expected {
                        Ok(())
                    } else {
                        Err("other sockets got it")
                    };
                }
                if !self.got_through() {
                    return Err("it did not get through");
                }
                if self.served.is_empty() || !self.served.is_subset(&expected) {
                    return Err("another socket got it");
                }
                Ok(())
            }
            Outcome::Stopped(reason) => {
                if self.raw && matches!(reason, DropReason::NeighborSilent | DropReason::Tentative)
                {
                    // The lab knows the hardware address: nobody had to ask for it.
                    return Ok(());
                }
                if self.got_through() {
                    return Err("it got through");
                }
                if !self.served.is_empty() && !is_stopped_late(*reason) {
                    return Err("a socket got it");
                }
                match fate.they_see {
                    // Without anybody asking for it, the frame is sent on and whoever has the address
                    // answers.
                    _ if self.raw && *reason == DropReason::Forwarded => Ok(()),
                    Some(expected) if !is_same(expected, self.kernel.they_see, self.raw) => {
                        Err("the client saw something else")
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Outcome::Unknown(reason) if self.is_really_unknown(*reason) => Ok(()),
            Outcome::Unknown(_) => Err("what it calls unknown is known here"),
        }
    }

    /// Whether the reason of an unknown is true. The lab's hosts are read whole, by root, with no
    /// filter loaded: only what the kernel shows nobody may be unknown.
    fn is_really_unknown(&self, reason: UnknownReason) -> bool {
        let udp = self.packet.proto == Proto::Udp;
        let ipv4 = self.packet.family() == Family::Ipv4;
        match reason {
            // The ports of a bridge may have chains of their own.
            UnknownReason::NotModelled => self.by_some_port,
            // An answer that leaves by another link never comes back to the sender here.
            UnknownReason::ReplyElsewhere => !self.got_through(),
            // Addresses of which link the kernel asks first is not shown; it may be the right one.
            UnknownReason::ReplyAddress => {
                let told = ipv4 && !self.unnumbered && self.got_through();
                udp && !self.served.is_empty() && !told
            }
            UnknownReason::FibHistory => ipv4,
            UnknownReason::MulticastMembership => udp && self.packet.destination.is_multicast(),
            UnknownReason::Multipath => true,
            // A rule that is loaded may well depend on these.
            UnknownReason::RateLimit
            | UnknownReason::EarlierPackets
            | UnknownReason::RandomChoice
            | UnknownReason::TimeOfDay
            | UnknownReason::PacketDetails
            | UnknownReason::UserSpace
            | UnknownReason::OtherNamespace
            | UnknownReason::HookOrder => true,
            UnknownReason::NeedsRoot
            | UnknownReason::OpaqueProgram
            | UnknownReason::ChangedWhileReading
            | UnknownReason::Unread
            | UnknownReason::FibLayout
            | UnknownReason::LimitReached => false,
        }
    }
}

/// The socket had it, and the answer was lost.
const fn is_stopped_late(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::NoReplyRoute
            | DropReason::ReplySourceNotLocal
            | DropReason::VpnReply
            // A rule may stop the answer alone.
            | DropReason::FwDrop
            | DropReason::FwReject
            | DropReason::NatFailed
    )
}

fn is_bridge(netns: &Netns, packet: &Packet) -> bool {
    let Arrival::Link(ifindex) = packet.arrival else { return false };
    netns.link(ifindex).is_some_and(|link| link.kind == LinkKind::Bridge)
}

/// A frame that the lab wrote itself was resolved by nobody, so an unreachable neighbour looks like
/// silence.
fn is_same(expected: TheySee, seen: TheySee, raw: bool) -> bool {
    let silent = [TheySee::Timeout, TheySee::Silence, TheySee::HostUnreachable];
    expected == seen || (raw && silent.contains(&expected) && silent.contains(&seen))
}

impl fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "  kernel     {}, served by {:?}",
            self.kernel.they_see.slug(),
            self.kernel.served_by
        )?;
        writeln!(formatter, "  reference  {}", fate_text(&self.reference))?;
        match &self.engine {
            Some(fate) => writeln!(formatter, "  engine     {}", fate_text(fate))?,
            None => writeln!(formatter, "  engine     not asked")?,
        }
        for mismatch in &self.mismatches {
            writeln!(formatter, "  ! {mismatch}")?;
        }
        Ok(())
    }
}

/// A fate in one line, with the codes that people see.
#[must_use]
pub fn fate_text(fate: &Fate) -> String {
    let outcome = match &fate.outcome {
        Outcome::Delivered(sockets) => {
            let sockets: Vec<_> = sockets.iter().map(|socket| socket.0).collect();
            format!("yes, socket {sockets:?}")
        }
        Outcome::DeliveredIn(netns, sockets) => {
            let sockets: Vec<_> = sockets.iter().map(|socket| socket.0).collect();
            format!("yes, socket {sockets:?} of namespace {}", netns.0)
        }
        Outcome::Stopped(reason) => format!("no, {}", reason.slug()),
        Outcome::Unknown(reason) => format!("unknown, {}", reason.slug()),
    };
    format!("{outcome}, they see {}", fate.they_see.map_or("-", TheySee::slug))
}

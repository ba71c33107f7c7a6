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
use canreach_snapshot::{Ifindex, Netns, Port};

use crate::probe::{Client, Observation, Probe};
use crate::topology::Topology;

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
            Outcome::Delivered(_) | Outcome::Stopped(_) => None,
        }
    }
}

impl Comparison {
    /// Whether the client got through.
    #[must_use]
    pub fn got_through(&self) -> bool {
        matches!(self.kernel.they_see, TheySee::Connected | TheySee::Delivered)
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

/// Asks the reference evaluator and the engine, and compares.
///
/// # Errors
/// If the probe names a link that is not there.
pub fn compare(
    topology: &Topology,
    netns: &Netns,
    probe: &Probe,
    kernel: Observation,
    with_engine: bool,
) -> Result<Comparison> {
    let packet = packet(topology, probe, kernel.source_port)?;
    let reference = reference::walk(netns, &packet);
    let host = Host::resolve(netns);
    let engine = if with_engine { ask_engine(&host, &packet) } else { None };
    let raw = matches!(probe.client, Client::Peer { raw: true, .. });
    let shared = topology.wiring.is_shared(probe.to.ip());
    let served = sockets_of(topology, netns, &kernel);
    let mut mismatches = Vec::new();
    match &engine {
        Some(Ok(fate)) if *fate != reference => {
            mismatches.push("the engine and the reference evaluator differ".to_owned());
        }
        Some(Err(message)) => mismatches.push(message.clone()),
        Some(Ok(_)) | None => {}
    }
    if let Err(message) = agrees(&reference, &kernel, &served, raw, shared) {
        mismatches.push(format!("kernel and reference evaluator: {message}"));
    }
    let engine = engine.and_then(Result::ok);
    Ok(Comparison { kernel, reference, engine, mismatches })
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

/// The sockets of the snapshot that are the servers which got something.
fn sockets_of(topology: &Topology, netns: &Netns, kernel: &Observation) -> BTreeSet<SocketIndex> {
    let inodes: Vec<u64> =
        kernel.served_by.iter().map(|position| topology.servers[*position].inode).collect();
    let sockets = netns.sockets.iter().enumerate();
    let serving = sockets.filter(|(_, socket)| inodes.contains(&socket.inode));
    serving.map(|(index, _)| SocketIndex(index)).collect()
}

/// Whether a fate is what happened.
fn agrees(
    fate: &Fate,
    kernel: &Observation,
    served: &BTreeSet<SocketIndex>,
    raw: bool,
    shared: bool,
) -> Result<(), String> {
    let got_through = matches!(kernel.they_see, TheySee::Connected | TheySee::Delivered);
    match &fate.outcome {
        Outcome::Delivered(sockets) => {
            let expected: BTreeSet<SocketIndex> = sockets.iter().copied().collect();
            if shared {
                // Nobody answers from the address of a group: what counts is that each has a copy.
                return if *served == expected {
                    Ok(())
                } else {
                    Err("other sockets got it".into())
                };
            }
            if !got_through {
                return Err("it did not get through".to_owned());
            }
            if served.is_empty() || !served.is_subset(&expected) {
                return Err("another socket got it".to_owned());
            }
            Ok(())
        }
        Outcome::Stopped(reason) => {
            if got_through {
                return Err("it got through".to_owned());
            }
            if !served.is_empty() && !is_stopped_late(*reason) {
                return Err("a socket got it".to_owned());
            }
            match fate.they_see {
                Some(expected) if !is_same(expected, kernel.they_see, raw) => {
                    Err("the client saw something else".to_owned())
                }
                Some(_) | None => Ok(()),
            }
        }
        Outcome::Unknown(reason) if may_be_unknown(*reason) => Ok(()),
        Outcome::Unknown(_) => Err("nothing here is unreadable or unmodelled".to_owned()),
    }
}

/// The socket had it, and the answer was lost.
const fn is_stopped_late(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::NoReplyRoute | DropReason::ReplySourceNotLocal | DropReason::VpnReply
    )
}

/// A frame that the lab wrote itself was resolved by nobody, so an unreachable neighbour looks like
/// silence.
fn is_same(expected: TheySee, seen: TheySee, raw: bool) -> bool {
    let silent = [TheySee::Timeout, TheySee::Silence, TheySee::HostUnreachable];
    expected == seen || (raw && silent.contains(&expected) && silent.contains(&seen))
}

/// The lab's hosts are read whole, by root, with no filter loaded: only what the kernel shows nobody
/// may be unknown.
const fn may_be_unknown(reason: UnknownReason) -> bool {
    match reason {
        UnknownReason::FibHistory
        | UnknownReason::ReplyElsewhere
        | UnknownReason::ReplyAddress
        | UnknownReason::Multipath
        | UnknownReason::MulticastMembership => true,
        UnknownReason::NeedsRoot
        | UnknownReason::NotModelled
        | UnknownReason::OpaqueProgram
        | UnknownReason::ChangedWhileReading
        | UnknownReason::Unread
        | UnknownReason::FibLayout
        | UnknownReason::LimitReached => false,
    }
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
        Outcome::Stopped(reason) => format!("no, {}", reason.slug()),
        Outcome::Unknown(reason) => format!("unknown, {}", reason.slug()),
    };
    format!("{outcome}, they see {}", fate.they_see.map_or("-", TheySee::slug))
}

//! Example packets: concrete ones that a group of an answer speaks of.
//!
//! The borders of each interval are a complete set of examples for one question, and hold the values
//! where one-off errors hide; tests and the lab send them. For people there is one readable example.

use std::net::IpAddr;

use canreach_snapshot::{Netns, Port};

use crate::{Group, Packet, Question};

/// The most packets for one group. A group with more intervals gives those of its first ones.
pub const MAX_BORDERS: usize = 256;

/// What clients use when nothing else is asked for: a port of the ephemeral range.
const EPHEMERAL: Port = Port(40_000);

/// The first and last source of every interval of a group, with the first and last of its ports.
#[must_use]
pub fn borders(question: &Question, group: &Group) -> Vec<Packet> {
    let family = question.family();
    let ports: Vec<Port> = match &group.ports {
        None => vec![Port(1), EPHEMERAL, Port(u16::MAX)],
        Some(ranges) => ranges.iter().flat_map(|(low, high)| [Port(*low), Port(*high)]).collect(),
    };
    let ends = group.sources.ranges().iter().flat_map(|(low, high)| [*low, *high]);
    let mut sources: Vec<IpAddr> = ends.map(|value| family.address(value)).collect();
    sources.dedup();
    let pairs = sources.iter().flat_map(|source| ports.iter().map(move |port| (*source, *port)));
    pairs.take(MAX_BORDERS).map(|(source, port)| packet(question, source, port)).collect()
}

/// One packet of a group: from a neighbour that this machine has heard of, if one is in the group,
/// else from the first address of its largest interval. `None` only for a group without sources.
#[must_use]
pub fn example(netns: &Netns, question: &Question, group: &Group) -> Option<Packet> {
    let known = netns.neighbors.iter().map(|neighbor| neighbor.address);
    let neighbor = known.filter(|address| group.sources.contains(*address)).min();
    let largest = group.sources.ranges().iter().max_by_key(|(low, high)| high - low);
    let source = neighbor.or_else(|| Some(question.family().address(largest?.0)))?;
    let port = group.ports.as_ref().and_then(|ranges| ranges.first());
    Some(packet(question, source, port.map_or(EPHEMERAL, |(low, _)| Port(*low))))
}

const fn packet(question: &Question, source: IpAddr, source_port: Port) -> Packet {
    Packet {
        proto: question.proto,
        source,
        source_port,
        destination: question.to,
        destination_port: question.port,
        arrival: question.via,
    }
}

#[cfg(test)]
mod tests {
    use canreach_snapshot::{Family, Ifindex, Neighbor, NudState, Proto};

    use super::*;
    use crate::{AddressSet, Arrival, Fate, Outcome, UnknownReason};

    fn group(ranges: &[(u128, u128)], ports: Option<Vec<(u16, u16)>>) -> Group {
        let fate = Fate { outcome: Outcome::Unknown(UnknownReason::Unread), they_see: None };
        let sources = AddressSet::from_ranges(Family::Ipv4, ranges.iter().copied());
        let (steps, blockers, doubts) = (Vec::new(), Vec::new(), Vec::new());
        Group {
            sources,
            ports,
            fate,
            steps,
            blockers,
            doubts,
            sockets: Vec::new(),
            sockets_in: None,
        }
    }

    fn question() -> Question {
        Question {
            proto: Proto::Tcp,
            port: Port(80),
            from: AddressSet::all(Family::Ipv4),
            to: "10.0.0.1".parse().expect("an address"),
            via: Arrival::Link(Ifindex(2)),
        }
    }

    #[test]
    fn borders_are_the_ends_of_each_interval() {
        let packets = borders(&question(), &group(&[(1, 1), (5, 9)], Some(vec![(7, 8)])));
        let ends: Vec<_> = packets
            .iter()
            .map(|packet| (packet.source.to_string(), packet.source_port.0))
            .collect();
        let expected = [("0.0.0.1", 7), ("0.0.0.1", 8), ("0.0.0.5", 7), ("0.0.0.5", 8)];
        assert_eq!(ends[..4], expected.map(|(source, port)| (source.to_owned(), port)));
        assert_eq!(ends.len(), 6);
    }

    #[test]
    fn an_example_is_a_neighbor_where_there_is_one() {
        let mut netns = Netns::default();
        let of = |netns: &Netns| {
            let packet = example(netns, &question(), &group(&[(1, 1), (5, 9)], None));
            packet.map(|packet| packet.source.to_string())
        };
        assert_eq!(of(&netns).as_deref(), Some("0.0.0.5"));
        netns.neighbors.push(Neighbor {
            ifindex: Ifindex(2),
            address: "0.0.0.8".parse().expect("an address"),
            mac: None,
            state: NudState::Reachable,
            router: false,
            proxy: false,
        });
        assert_eq!(of(&netns).as_deref(), Some("0.0.0.8"));
        assert_eq!(example(&netns, &question(), &group(&[], None)), None);
    }
}

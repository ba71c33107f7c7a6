//! Fuzz targets: each takes any bytes and must neither panic nor run for long. What must hold
//! besides is asserted.
//!
//! Two programs drive them: libFuzzer, guided by coverage (`fuzz_targets/`), and `mutate`, which
//! changes seeds at random and needs nothing but a stable compiler.

pub mod json;
pub mod random;

use std::net::{IpAddr, Ipv4Addr};

use canreach_collect::netlink::attr::{Attribute, Attributes};
use canreach_collect::netlink::datagram::{Origin, Row, rows};
use canreach_collect::netlink::xt::{TableLayout, decode_match, decode_table, decode_target};
use canreach_collect::netlink::{ipset, nft};
use canreach_engine::audience::{ListenerReach, classify};
use canreach_engine::reference::walk;
use canreach_engine::{AddressSet, Arrival, Fate, Host, Packet, Question, address_choice, answer};
use canreach_snapshot::nft::expr::NfVerdict;
use canreach_snapshot::nft::{Chain, Handle, Rule, Ruleset, Table};
use canreach_snapshot::redact::AddressMap;
use canreach_snapshot::xt::{
    Chain as XtChain, HeaderMatch, MaskedAddress, Rule as XtRule, Table as XtTable, TargetKind,
};
use canreach_snapshot::{Family, Machine, Netns, NfFamily, Port, Proto, Snapshot};

/// A target: any bytes in.
pub type Target = fn(&[u8]);

/// Every target, by the name of its seeds.
pub const TARGETS: [(&str, Target); 7] = [
    ("ipset_member", ipset_member),
    ("legacy_table", legacy_table),
    ("netlink_attr", netlink_attr),
    ("nft_expr", nft_expr),
    ("snapshot_load", snapshot_load),
    ("two_answers", two_answers),
    ("xt_match", xt_match),
];

/// The targets whose findings are always mistakes. `two_answers` also finds where the two differ on
/// what no kernel shows (a route without a link), so it is run by name.
pub const EVERY_TIME: [&str; 6] =
    ["ipset_member", "legacy_table", "netlink_attr", "nft_expr", "snapshot_load", "xt_match"];

/// The folder of a target's seeds. Both that read files share theirs.
#[must_use]
pub fn seeds_of(target: &str) -> std::path::PathBuf {
    let folder = if target == "two_answers" { "snapshot_load" } else { target };
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(folder)
}

/// The larger a snapshot, the longer its questions take. What is larger is loaded, and not asked.
const ASKED_MAX: usize = 64;

/// Datagrams of the kernel. The first byte says which part of it they come from.
pub fn netlink_attr(bytes: &[u8]) {
    let Some((origin, datagram)) = bytes.split_first() else { return };
    let origin = match origin % 4 {
        0 => Origin::Route,
        1 => Origin::SockDiag(Proto::Tcp),
        2 => Origin::SockDiag(Proto::Udp),
        _ => Origin::Netfilter,
    };
    let mut netns = Netns::default();
    let mut parts = Vec::new();
    for row in rows(origin, datagram).flatten() {
        match row {
            Row::Link(link) => netns.links.push(*link),
            Row::Address(address) => netns.addresses.push(address),
            Row::Route(route) => netns.routes.push(*route),
            Row::PolicyRule(rule) => netns.policy_rules.push(*rule),
            Row::Neighbor(neighbor) => netns.neighbors.push(neighbor),
            Row::Nexthop(nexthop) => netns.nexthops.push(nexthop),
            Row::Socket(socket) => netns.sockets.push(*socket),
            Row::Nft(part) => parts.push(*part),
            Row::Error(..) => {}
        }
    }
    netns.firewall.nft = Some(nft::assemble(parts));
    written_and_read(netns);
}

/// Expressions of a rule, in a chain of the family that the first byte says.
pub fn nft_expr(bytes: &[u8]) {
    let Some((number, list)) = bytes.split_first() else { return };
    let family = [NfFamily::Ip, NfFamily::Ip6, NfFamily::Inet, NfFamily::Netdev];
    let family = family[usize::from(*number) % family.len()];
    let decode = |attribute: Attribute<'_>| nft::decode_expr(attribute.nested(), family);
    let exprs: Vec<_> =
        Attributes::new(list).flatten().filter_map(|attribute| decode(attribute).ok()).collect();
    let rule = Rule { handle: Handle(1), exprs, comment: None };
    let chain = Chain { name: "c".to_owned(), handle: Handle(2), base: None, rules: vec![rule] };
    let table = Table {
        family,
        name: "t".to_owned(),
        handle: Handle(3),
        dormant: false,
        chains: vec![chain],
        sets: Vec::new(),
        objects: Vec::new(),
        flowtables: Vec::new(),
    };
    let mut netns = Netns::default();
    netns.firewall.nft = Some(Ruleset { generation: None, tables: vec![table] });
    written_and_read(netns);
}

/// The kernel's answers about sets of ipset.
pub fn ipset_member(datagram: &[u8]) {
    let mut netns = Netns::default();
    netns.firewall.ipsets = Some(ipset::sets(datagram));
    written_and_read(netns);
}

/// A table of iptables-legacy: the family, where its chains are, and its rules.
pub fn legacy_table(bytes: &[u8]) {
    let Some((number, rest)) = bytes.split_first() else { return };
    let family = Family::BOTH[usize::from(number % 2)];
    let Some((layout, rules)) = rest.split_at_checked(TableLayout::LENGTH) else { return };
    let Some(layout) = TableLayout::read(layout) else { return };
    let Some(table) = decode_table(family, "filter", &layout, rules) else { return };
    let jumps = table.chains.iter().flat_map(|chain| &chain.rules).map(|rule| &rule.target.kind);
    for kind in jumps {
        if let TargetKind::Standard(NfVerdict::Jump(to) | NfVerdict::Goto(to)) = kind {
            assert!(table.chains.iter().any(|chain| chain.name == *to), "{to} is a chain");
        }
    }
    let mut netns = Netns::default();
    netns.firewall.xt_tables = vec![table];
    written_and_read(netns);
}

/// A match and a target of xtables: the family, the revision, the name up to a NUL, and the structure.
pub fn xt_match(bytes: &[u8]) {
    let [number, revision, rest @ ..] = bytes else { return };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let (Some(name), Some(structure)) = (parts.next(), parts.next()) else { return };
    let family = [NfFamily::Ip, NfFamily::Ip6, NfFamily::Inet, NfFamily::Bridge];
    let family = family[usize::from(*number) % family.len()];
    let name = String::from_utf8_lossy(name);
    let any = MaskedAddress::new(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into());
    let rule = XtRule {
        header: HeaderMatch {
            source: any,
            source_inverted: false,
            destination: any,
            destination_inverted: false,
            iniface: String::new(),
            iniface_inverted: false,
            outiface: String::new(),
            outiface_inverted: false,
            protocol: 0,
            protocol_inverted: false,
            fragment: false,
            fragment_inverted: false,
        },
        matches: vec![decode_match(&name, *revision, family, structure)],
        target: decode_target(&name, *revision, family, structure),
    };
    let chain = XtChain { name: "c".to_owned(), base: None, rules: vec![rule] };
    let mut netns = Netns::default();
    let table = XtTable { family: NfFamily::Ip, name: "filter".to_owned(), chains: vec![chain] };
    netns.firewall.xt_tables = vec![table];
    written_and_read(netns);
}

/// What was decoded can be written down, and is the same when read.
fn written_and_read(netns: Netns) {
    let snapshot = Snapshot {
        machine: Machine::default(),
        namespaces: vec![netns],
        processes: Vec::new(),
        cgroups: Vec::new(),
        gaps: Vec::new(),
    };
    match Snapshot::from_bytes(&snapshot.to_bytes()) {
        Ok(read) => assert_eq!(read, snapshot),
        // The kernel's rows agree with each other; those made up here need not.
        Err(error) => {
            assert!(matches!(error, canreach_snapshot::FileError::Inconsistent(_)), "{error}");
        }
    }
}

/// Files that say they are snapshots.
pub fn snapshot_load(bytes: &[u8]) {
    let Ok(snapshot) = Snapshot::from_bytes(bytes) else { return };
    let again = Snapshot::from_bytes(&snapshot.to_bytes()).expect("what was read can be written");
    assert_eq!(again, snapshot);
    let addresses = AddressMap::new(&snapshot);
    let redacted = snapshot.redact_with(&addresses);
    redacted.validate().expect("redaction keeps what holds");
    for process in &snapshot.processes {
        assert!(snapshot.ancestry(process.pid).count() <= snapshot.processes.len());
    }
    for (netns, redacted) in snapshot.namespaces.iter().zip(&redacted.namespaces) {
        if size(netns) <= ASKED_MAX {
            same_answers(&snapshot.machine, netns, redacted, &addresses);
        }
    }
}

/// Files that say they are snapshots: the engine, which works on all sources at once, and the
/// reference, which follows one packet, come to the same fate.
pub fn two_answers(bytes: &[u8]) {
    let found = disagreements(bytes);
    assert!(found.is_empty(), "{:#?}", found.first());
}

/// A packet that the two disagree on.
#[derive(Debug)]
pub struct Disagreement {
    /// The packet.
    pub packet: Packet,
    /// What the engine says; `None` if no group of its answer holds the source.
    pub engine: Option<Fate>,
    /// What the reference says.
    pub reference: Fate,
}

/// Every packet of a few that the two disagree on.
#[must_use]
pub fn disagreements(bytes: &[u8]) -> Vec<Disagreement> {
    let mut found = Vec::new();
    let Ok(snapshot) = Snapshot::from_bytes(bytes) else { return found };
    for netns in snapshot.namespaces.iter().filter(|netns| size(netns) <= ASKED_MAX) {
        let host = Host::resolve(netns);
        for packet in packets(netns) {
            let question = Question {
                proto: packet.proto,
                port: packet.destination_port,
                from: AddressSet::all(packet.family()),
                to: packet.destination,
                via: packet.arrival,
            };
            let answer = answer(&host, &question);
            if answer.unsendable.contains(packet.source) {
                continue;
            }
            let packet = match packet.arrival {
                Arrival::Link(_) => packet,
                // The engine lets the kernel choose.
                Arrival::Local { .. } => Packet { source: packet.family().unspecified(), ..packet },
            };
            let with_port = |ports: &Option<Vec<(u16, u16)>>| {
                let holds =
                    |range: &(u16, u16)| (range.0..=range.1).contains(&packet.source_port.0);
                ports.as_ref().is_none_or(|ports| ports.iter().any(holds))
            };
            let group = answer.groups.iter().find(|group| {
                let local = matches!(packet.arrival, Arrival::Local { .. });
                (local || group.sources.contains(packet.source)) && with_port(&group.ports)
            });
            let engine = group.map(|group| group.fate.clone());
            let reference = walk(netns, &packet);
            if engine.as_ref() != Some(&reference) {
                found.push(Disagreement { packet, engine, reference });
            }
        }
    }
    found
}

fn size(netns: &Netns) -> usize {
    let routing = netns.links.len() + netns.addresses.len() + netns.routes.len();
    routing + netns.policy_rules.len() + netns.sockets.len()
}

/// Asks both what can be asked: no question panics, and redaction changes no answer.
fn same_answers(machine: &Machine, netns: &Netns, redacted: &Netns, addresses: &AddressMap) {
    let best = |netns: &Netns| {
        let choice = address_choice::choose(netns, machine);
        choice.best().map(|judged| judged.index)
    };
    assert_eq!(best(netns), best(redacted), "address to hand out");
    let reach = |netns: &Netns| classify(&Host::resolve(netns));
    let shape = |listener: &ListenerReach| {
        (listener.socket, listener.reach, listener.apart_from_doubts, listener.stop, listener.doubt)
    };
    let (before, after) = (reach(netns), reach(redacted));
    assert_eq!(
        before.iter().map(shape).collect::<Vec<_>>(),
        after.iter().map(shape).collect::<Vec<_>>(),
        "reach of the listeners"
    );
    for packet in packets(netns) {
        let mapped = Packet {
            source: addresses.address(packet.source),
            destination: addresses.address(packet.destination),
            ..packet
        };
        assert_eq!(walk(netns, &packet), walk(redacted, &mapped), "{packet:?}");
    }
}

/// A few packets of each kind: to each socket's port, on each link, to own and strange addresses.
fn packets(netns: &Netns) -> Vec<Packet> {
    let mut ends: Vec<IpAddr> = netns.addresses.iter().map(|it| it.address()).take(6).collect();
    ends.extend(netns.routes.iter().map(|route| route.destination.address()).take(6));
    for text in ["203.0.113.9", "9.9.9.9", "10.1.2.3", "2001:db8::9", "2a00::9", "fe80::9"] {
        ends.extend(text.parse::<IpAddr>());
    }
    let mut arrivals = vec![Arrival::Local { uid: 0 }];
    // Nothing comes in on the loopback link from elsewhere.
    let wires = netns.links.iter().filter(|link| !link.is_loopback());
    arrivals.extend(wires.take(4).map(|link| Arrival::Link(link.ifindex)));
    let mut ports: Vec<(Proto, Port)> =
        netns.sockets.iter().map(|socket| (socket.proto, socket.port)).take(3).collect();
    ports.push((Proto::Tcp, Port(1)));
    let mut packets = Vec::new();
    for (at, destination) in ends.iter().enumerate() {
        for source in &ends {
            if Family::of(*source) != Family::of(*destination) {
                continue;
            }
            let arrival = arrivals[(at + packets.len()) % arrivals.len()];
            let (proto, destination_port) = ports[packets.len() % ports.len()];
            packets.push(Packet {
                proto,
                source: *source,
                source_port: Port(40_000),
                destination: *destination,
                destination_port,
                arrival,
            });
        }
    }
    packets
}

#[cfg(test)]
mod tests {
    use canreach_collect::netlink::nft::Part;

    use super::*;
    use crate::random::Random;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let files = std::fs::read_dir(seeds_of(target)).expect("each target has seeds");
        let read = |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file?.path());
        files.map(|file| read(file).expect("it can be read")).collect()
    }

    #[test]
    fn every_seed_passes() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name}");
            seeds.iter().for_each(|seed| target(seed));
        }
    }

    /// Seeds that nothing gets through would find nothing.
    #[test]
    fn seeds_reach_every_decoder() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in seeds("netlink_attr") {
            let (origin, datagram) = seed.split_first().expect("no seed is empty");
            let origin = [
                Origin::Route,
                Origin::SockDiag(Proto::Tcp),
                Origin::SockDiag(Proto::Udp),
                Origin::Netfilter,
            ][usize::from(*origin)];
            for row in rows(origin, datagram).flatten() {
                kinds.insert(match row {
                    Row::Link(_) => "link",
                    Row::Address(_) => "address",
                    Row::Route(_) => "route",
                    Row::PolicyRule(_) => "policy rule",
                    Row::Neighbor(_) => "neighbour",
                    Row::Nexthop(_) => "nexthop",
                    Row::Socket(_) => "socket",
                    Row::Nft(part) => match *part {
                        Part::Table(..) => "table",
                        Part::Chain(..) => "chain",
                        Part::Rule(..) => "rule",
                        Part::Set(..) => "set",
                        Part::Elements(..) => "elements",
                        Part::Object(..) => "object",
                        Part::Flowtable(..) => "flowtable",
                    },
                    Row::Error(..) => "error",
                });
            }
        }
        assert_eq!(kinds.len(), 15, "{kinds:?}");
    }

    #[test]
    fn changed_files_are_snapshots_often_enough() {
        let mut random = Random::new(7);
        let seeds = seeds("snapshot_load");
        let files = (0..500).map(|at| json::mutate(&seeds[at % seeds.len()], &mut random));
        let loaded = files
            .filter(|file| Snapshot::from_bytes(file.as_deref().expect("it is JSON")).is_ok())
            .count();
        assert!((100..450).contains(&loaded), "{loaded} of 500");
    }
}

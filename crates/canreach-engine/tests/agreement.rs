//! The engine against the reference evaluator, on random hosts.
//!
//! For each host and question: the engine's groups partition the sources, and the reference, asked
//! about single packets from each group, says the same as the engine says about the group. Then laws
//! that hold between two hosts that differ in something that must not matter.
//!
//! `CANREACH_CASES` is the number of hosts (default [`HOSTS`]), `CANREACH_SEED` chooses others.

mod hosts;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use canreach_engine::{
    Answer, Arrival, Fate, Group, Host, Outcome, Packet, Question, SocketIndex, answer, reference,
};
use canreach_snapshot::address::address_value;
use canreach_snapshot::{Cookie, Family, Ifindex, Netns, Port, Prefix, Socket, SocketState};
use proptest::strategy::Strategy;
use proptest::test_runner::{
    Config, RngAlgorithm, TestCaseError, TestCaseResult, TestError, TestRng, TestRunner,
};

use hosts::{Case, case};

/// Hosts per run, unless told otherwise: some 2,500 questions and 150,000 packets.
const HOSTS: u32 = 1000;

/// Single packets per group of an answer, beside the first and last of each range.
const WITNESSES: usize = 12;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a property over random hosts, shrinks what fails, and prints how to see it again.
fn for_hosts(share: u32, property: impl Fn(&Case) -> Result<(), String>) {
    let seed = number("CANREACH_SEED").unwrap_or(1);
    let cases = number("CANREACH_CASES").map_or(HOSTS, |cases| cases as u32);
    let config = Config {
        cases: cases.div_ceil(share),
        failure_persistence: None,
        max_shrink_iters: 50_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let run = |case: Case| -> TestCaseResult { property(&case).map_err(TestCaseError::fail) };
    let result = TestRunner::new_with_rng(config, rng).run(&case(), run);
    if let Err(TestError::Fail(reason, case)) = result {
        panic!("CANREACH_SEED={seed} CANREACH_CASES={cases}\n{case:?}\n{reason}");
    } else if let Err(error) = result {
        panic!("{error}");
    }
}

/// The packet of a question.
fn packet(question: &Question, source: IpAddr, port: u16) -> Packet {
    let source = match question.via {
        Arrival::Link(_) => source,
        Arrival::Local { .. } => question.family().unspecified(),
    };
    Packet {
        proto: question.proto,
        source,
        source_port: Port(port),
        destination: question.to,
        destination_port: question.port,
        arrival: question.via,
    }
}

/// Addresses at which something may change: the ends of every prefix in sight, and their neighbours.
fn corners(netns: &Netns, family: Family) -> BTreeSet<u128> {
    let routes = netns.routes.iter();
    let rules = netns.policy_rules.iter();
    let prefixes: Vec<Prefix> = routes
        .flat_map(|route| [Some(route.destination), route.source])
        .chain(rules.flat_map(|rule| [rule.source, rule.destination]))
        .chain(
            netns
                .addresses
                .iter()
                .flat_map(|own| [Some(own.prefix), Some(Prefix::host(own.address()))]),
        )
        .chain(netns.sockets.iter().map(|socket| socket.peer.map(|peer| Prefix::host(peer.0))))
        .flatten()
        .filter(|prefix| prefix.family() == family)
        .collect();
    let last = Prefix::all(family).range().1;
    let ends = prefixes.into_iter().flat_map(|prefix| {
        let (low, high) = prefix.range();
        [low.saturating_sub(1), low, (low + 1).min(last), high, high.saturating_add(1).min(last)]
    });
    let martians = ["127.0.0.1", "224.0.0.1", "0.0.0.1", "240.0.0.1", "169.254.0.1", "8.8.8.8"]
        .into_iter()
        .chain(["::1", "fe80::77", "ff02::5", "::ffff:1.2.3.4", "2001:4860::8"])
        .map(hosts::pool::address_of)
        .filter(|address| Family::of(*address) == family)
        .map(address_value);
    ends.chain(martians).collect()
}

/// Sources of a group to ask the reference about.
fn witnesses(group: &Group, corners: &BTreeSet<u128>) -> Vec<IpAddr> {
    let family = group.sources.family();
    let ranges = group.sources.ranges();
    let mut values: BTreeSet<u128> =
        ranges.iter().flat_map(|(low, high)| [*low, *high, low + (high - low) / 3]).collect();
    let inside = corners.iter().filter(|value| group.sources.contains(family.address(**value)));
    let inside: Vec<_> = inside.collect();
    let step = inside.len().div_ceil(WITNESSES).max(1);
    values.extend(inside.into_iter().step_by(step));
    values.into_iter().map(|value| family.address(value)).collect()
}

fn source_ports(group: &Group) -> Vec<u16> {
    match &group.ports {
        None => vec![1, 40_000, 65_535],
        Some(ranges) => ranges.iter().flat_map(|(low, high)| [*low, *high]).collect(),
    }
}

/// Each source is in exactly one group, or in several that divide the ports among them.
fn check_partition(
    question: &Question,
    answer: &Answer,
    corners: &BTreeSet<u128>,
) -> Result<(), String> {
    let family = question.family();
    let mut union = canreach_engine::AddressSet::empty(family);
    for group in &answer.groups {
        if group.sources.is_empty() || group.ports.as_ref().is_some_and(Vec::is_empty) {
            return Err("a group holds no packet".to_owned());
        }
        union = union.union(&group.sources);
    }
    if union != question.from {
        return Err(format!("groups hold {union}, asked about {}", question.from));
    }
    let ends = answer.groups.iter().flat_map(|group| group.sources.ranges());
    let values: BTreeSet<u128> =
        ends.flat_map(|(low, high)| [*low, *high]).chain(corners.iter().copied()).collect();
    for value in values {
        let source = family.address(value);
        let mine: Vec<&Group> =
            answer.groups.iter().filter(|group| group.sources.contains(source)).collect();
        let mut ports: Vec<(u16, u16)> = mine
            .iter()
            .flat_map(|group| group.ports.clone().unwrap_or_else(|| vec![(0, u16::MAX)]))
            .collect();
        ports.sort_unstable();
        let contiguous = ports.windows(2).all(|pair| pair[0].1.checked_add(1) == Some(pair[1].0));
        let first = ports.first().is_none_or(|range| range.0 <= 1);
        let last = ports.last().is_none_or(|range| range.1 == u16::MAX);
        if !(contiguous && first && last) {
            return Err(format!("{source} has the ports {ports:?} in {} groups", mine.len()));
        }
    }
    Ok(())
}

fn show(fate: &Fate) -> String {
    let seen = fate.they_see.map_or("?", |seen| seen.slug());
    match &fate.outcome {
        Outcome::Delivered(sockets) => format!("delivered to {sockets:?}, {seen}"),
        // The hosts here are alone.
        Outcome::DeliveredIn(..) => unreachable!("one namespace"),
        Outcome::Stopped(reason) => format!("stopped {}, {seen}", reason.slug()),
        Outcome::Unknown(reason) => format!("unknown {}, {seen}", reason.slug()),
    }
}

fn check_question(netns: &Netns, host: &Host<'_>, question: &Question) -> Result<(), String> {
    let answer = answer(host, question);
    let corners = corners(netns, question.family());
    let asked = hosts::text::question(question);
    check_partition(question, &answer, &corners).map_err(|error| format!("? {asked}\n{error}"))?;
    for group in &answer.groups {
        for source in witnesses(group, &corners) {
            for port in source_ports(group) {
                let packet = packet(question, source, port);
                let expected = reference::walk(netns, &packet);
                if expected != group.fate {
                    let mut text = format!("? {asked}\npacket from {source} port {port}\n");
                    let _ = writeln!(text, "reference: {}", show(&expected));
                    let _ = writeln!(text, "engine:    {}", show(&group.fate));
                    let _ = writeln!(text, "steps {:?}", group.steps);
                    let _ = writeln!(text, "blockers {:?}", group.blockers);
                    let _ = writeln!(text, "doubts {:?}", group.doubts);
                    return Err(text);
                }
            }
        }
    }
    Ok(())
}

/// The two evaluators agree on every packet asked about: its outcome, and what its sender sees.
#[test]
fn the_engine_says_what_the_reference_says() {
    for_hosts(1, |case| {
        let host = Host::resolve(&case.netns);
        case.questions.iter().try_for_each(|question| check_question(&case.netns, &host, question))
    });
}

/// The fates of a question's corners, by the reference: what the laws compare.
fn fates(netns: &Netns, corners: &BTreeSet<u128>, question: &Question) -> Vec<Fate> {
    let family = question.family();
    let sources = corners.iter().map(|value| family.address(*value));
    sources.map(|source| reference::walk(netns, &packet(question, source, 40_000))).collect()
}

fn same_fates(case: &Case, other: &Netns, what: &str) -> Result<(), String> {
    for question in &case.questions {
        let corners = corners(&case.netns, question.family());
        let (before, after) =
            (fates(&case.netns, &corners, question), fates(other, &corners, question));
        if let Some(at) = (0..before.len()).find(|at| before[*at] != after[*at]) {
            let asked = hosts::text::question(question);
            return Err(format!("? {asked}\n{what}: {:?} -> {:?}", before[at], after[at]));
        }
    }
    Ok(())
}

/// The name of a link means nothing by itself.
#[test]
fn renaming_a_link_changes_nothing() {
    for_hosts(4, |case| {
        let rename =
            |name: &str| if name == "eth0" { "uplink".to_owned() } else { name.to_owned() };
        let mut other = case.netns.clone();
        for link in &mut other.links {
            link.name = rename(&link.name);
        }
        let links = std::mem::take(&mut other.sysctls.links);
        other.sysctls.links = links.into_iter().map(|(name, of)| (rename(&name), of)).collect();
        for rule in &mut other.policy_rules {
            rule.iif = rule.iif.as_deref().map(rename);
            rule.oif = rule.oif.as_deref().map(rename);
        }
        for chain in &mut other.firewall.chains {
            chain.devices = chain.devices.iter().map(|name| rename(name)).collect();
        }
        for gap in &mut other.gaps {
            if let canreach_snapshot::GapSubject::Sysctl(name) = &mut gap.subject {
                *name = name.replace(".eth0.", ".uplink.");
            }
        }
        same_fates(case, &other, "renamed")
    });
}

/// A server on another port changes nothing for this one.
#[test]
fn an_unrelated_server_changes_nothing() {
    for_hosts(4, |case| {
        let mut other = case.netns.clone();
        let Some(socket) = other.sockets.first().cloned() else { return Ok(()) };
        let state = match socket.state {
            SocketState::Connected => SocketState::Unconnected,
            state => state,
        };
        let unrelated = Socket { port: Port(9), peer: None, state, cookie: Cookie(2), ..socket };
        other.sockets.push(unrelated);
        same_fates(case, &other, "another server")
    });
}

/// Two halves of a route do what the whole did. Not where the length of the prefix itself counts:
/// suppression, a local prefix beside main, neighbours on the link, source routes below a node.
#[test]
fn two_halves_of_a_route_are_the_whole() {
    for_hosts(2, |case| {
        let lengths_count =
            case.netns.policy_rules.iter().any(|rule| rule.suppress_prefix_length.is_some())
                || case.netns.routes.iter().any(|route| route.source.is_some());
        if lengths_count {
            return Ok(());
        }
        let mut other = case.netns.clone();
        let gatewayed = |route: &canreach_snapshot::Route| {
            !route.nexthops.is_empty() && route.nexthops.iter().all(|hop| hop.gateway.is_some())
        };
        let halves_of = |prefix: Prefix| {
            let (low, high) = prefix.range();
            let middle = low + (high - low) / 2 + 1;
            let family = prefix.family();
            [low, middle].map(|start| Prefix::new(family.address(start), prefix.length() + 1))
        };
        // Only a prefix that no other route splits, and that nothing longer lies beside.
        let alone = |route: &canreach_snapshot::Route| {
            let length = route.destination.length();
            case.netns
                .routes
                .iter()
                .filter(|other| other.destination.length() == length + 1)
                .count()
                == 0
                && case
                    .netns
                    .routes
                    .iter()
                    .filter(|other| other.destination == route.destination)
                    .count()
                    == 1
        };
        let Some(index) = other
            .routes
            .iter()
            .position(|route| gatewayed(route) && alone(route) && route.destination.length() < 31)
        else {
            return Ok(());
        };
        let whole = other.routes.remove(index);
        for half in halves_of(whole.destination).into_iter().flatten() {
            other
                .routes
                .insert(index, canreach_snapshot::Route { destination: half, ..whole.clone() });
        }
        same_fates(case, &other, "two halves")
    });
}

/// In which order links have their addresses does not matter, only the order on each link.
#[test]
fn the_order_of_links_among_addresses_does_not_matter() {
    for_hosts(4, |case| {
        let mut other = case.netns.clone();
        other.addresses.sort_by_key(|address| address.ifindex);
        same_fates(case, &other, "reordered")
    });
}

/// Deliveries name sockets that exist and speak the protocol.
#[test]
fn what_is_delivered_has_a_socket() {
    for_hosts(4, |case| {
        for question in &case.questions {
            for fate in fates(&case.netns, &corners(&case.netns, question.family()), question) {
                let Outcome::Delivered(sockets) = fate.outcome else { continue };
                let fits = |SocketIndex(index): &SocketIndex| {
                    let socket = &case.netns.sockets[*index];
                    socket.proto == question.proto && socket.port == question.port
                };
                if sockets.is_empty() || !sockets.iter().all(fits) || !sockets.is_sorted() {
                    return Err(format!("{} got {sockets:?}", hosts::text::question(question)));
                }
            }
        }
        Ok(())
    });
}

/// The generator reaches what it is for: every reason of the engine appears somewhere.
#[test]
fn random_hosts_reach_every_reason() {
    let mut seen = BTreeSet::new();
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]),
    );
    let mut every: BTreeSet<&str> =
        canreach_engine::DropReason::ALL.map(|reason| reason.slug()).into();
    // No rules are made here yet.
    for of_rules in ["fw-drop", "fw-reject", "nat-failed"] {
        every.remove(of_rules);
    }
    for _ in 0..20_000 {
        use proptest::strategy::ValueTree;
        let case = case().new_tree(&mut runner).expect("no filter rejects").current();
        for question in &case.questions {
            let corners = corners(&case.netns, question.family());
            let corners: BTreeSet<_> = corners.into_iter().step_by(9).collect();
            for fate in fates(&case.netns, &corners, question) {
                if let Outcome::Stopped(reason) = fate.outcome {
                    seen.insert(reason.slug());
                }
            }
        }
        if seen.len() == every.len() {
            return;
        }
    }
    panic!("never met: {:?}", every.difference(&seen).collect::<Vec<_>>());
}

/// Sources on a link that does not exist are stopped, not a panic.
#[test]
fn a_link_that_is_not_there_is_down() {
    let netns = Netns::default();
    for to in ["10.0.0.1", "2001:db8::1"] {
        let to = hosts::pool::address_of(to);
        let question = Question {
            proto: canreach_snapshot::Proto::Tcp,
            port: Port(80),
            from: canreach_engine::AddressSet::all(Family::of(to)),
            to,
            via: Arrival::Link(Ifindex(3)),
        };
        check_question(&netns, &Host::resolve(&netns), &question).expect("both say so");
    }
}

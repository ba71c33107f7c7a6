//! Policies against the saved machines: who is outside, and what cannot be told.

use std::net::IpAddr;

use canreach_engine::access::{Access, Server, servers, unsettled, ways_to};
use canreach_engine::audience::Inquiry;
use canreach_engine::expectation::{Expectation, Holds, Judgement, Outside, Policy, judge};
use canreach_engine::{Host, UnknownReason};
use canreach_snapshot::{Gap, GapReason, GapSubject, Netns, Port, Proto, Snapshot};
use proptest::proptest;

fn machine(name: &str) -> Snapshot {
    let path = format!("{}/../../fixtures/snapshots/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    Snapshot::from_bytes(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn policy(rules: &[&str]) -> Policy {
    let rules = rules.iter().map(|rule| rule.parse::<Expectation>().expect(rule)).collect();
    Policy { rules, allow_unknown: false }
}

fn judged(
    netns: &Netns,
    rules: &[&str],
    is_called: &dyn Fn(&Server, &str) -> Option<bool>,
) -> Judgement {
    let host = Host::resolve(netns);
    judge(&host, &servers(netns, &|_| None), &policy(rules), is_called)
}

/// `tcp/22 via wlan0 to 192.168.1.20: sources`, for IPv4 alone, the first few prefixes.
fn lines(netns: &Netns, judgement: &Judgement, of: fn(&Outside) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in &judgement.findings {
        for outside in finding.outside.iter().chain(&finding.undecided).filter(|o| of(o)) {
            let via = outside.way.via.and_then(|via| netns.link(via)).expect("a link");
            let prefixes = outside.sources.to_prefixes();
            let more = if prefixes.len() > 2 { ", ..." } else { "" };
            let shown: Vec<String> = prefixes.iter().take(2).map(ToString::to_string).collect();
            lines.push(format!(
                "{}/{} via {} to {}: {} {}{more}",
                finding.server.proto.name(),
                finding.server.port,
                via.name,
                outside.way.to,
                outside.circle.slug(),
                shown.join(", "),
            ));
        }
    }
    lines
}

fn check(name: &str, rules: &[&str], holds: Holds, expected: &[&str]) {
    let snapshot = machine(name);
    let netns = snapshot.subject().expect("a namespace");
    let judgement = judged(netns, rules, &|_, _| Some(true));
    let ipv4: fn(&Outside) -> bool = |outside| outside.way.to.is_ipv4();
    assert_eq!(lines(netns, &judgement, ipv4), expected, "{name} {rules:?}");
    assert_eq!(judgement.holds(), holds, "{name} {rules:?}");
}

#[test]
fn whoever_gets_in_and_is_not_let_in_is_outside() {
    let all = ["tcp/22 from any", "tcp/80 from any", "tcp/2049 from any", "tcp/5432 from any"];
    check("server", &all, Holds::Yes, &[]);
    check("server", &["tcp/* from any"], Holds::Yes, &[]);
    // Neighbours of ens4 are in 10.0.0.0/24; what a router there lets in is not.
    check(
        "server",
        &[
            "tcp/22, tcp/80 from any",
            "tcp/2049 from any via ens3",
            "tcp/2049 from 10.0.0.0/8",
            "tcp/5432 from 10.0.0.0/24, 203.0.113.0/24",
        ],
        Holds::No,
        &["tcp/5432 via ens3 to 10.0.0.5: internet 0.0.0.0/5, 8.0.0.0/7, ..."],
    );
    check("nothing-listening", &["tcp/22 from self"], Holds::Yes, &[]);
    check("container", &["udp/53 from any"], Holds::Yes, &[]);
}

#[test]
fn what_comes_by_another_link_than_it_is_answered_by_adds_nobody() {
    // Containers that pretend to be on the LAN are answered on the LAN: whoever gets that answer is
    // on the LAN, and gets in by it anyway.
    check(
        "laptop",
        &["tcp/* from any via wlan0", "tcp/* from containers", "udp/* from any"],
        Holds::Yes,
        &[],
    );
    check(
        "laptop",
        &["tcp/* from any via wlan0", "udp/* from any"],
        Holds::No,
        &[
            "tcp/22 via docker0 to 172.17.0.1: containers 172.17.0.0/16",
            "tcp/22 via docker0 to 192.168.1.20: containers 172.17.0.0/16",
            "tcp/5173 via docker0 to 172.17.0.1: containers 172.17.0.0/16",
            "tcp/5173 via docker0 to 192.168.1.20: containers 172.17.0.0/16",
            "tcp/5432 via docker0 to 172.17.0.1: containers 172.17.0.0/16",
            "tcp/5432 via docker0 to 192.168.1.20: containers 172.17.0.0/16",
        ],
    );
}

#[test]
fn what_cannot_be_told_is_not_called_right() {
    let snapshot = machine("laptop-as-user");
    let netns = snapshot.subject().expect("a namespace");
    let judgement = judged(netns, &["tcp/22 from lan"], &|_, _| Some(true));
    assert_eq!(judgement.holds(), Holds::Unknown);
    let allowing = Judgement { allow_unknown: true, ..judgement };
    assert_eq!(allowing.holds(), Holds::Yes);
    // Everybody is let in: what cannot be told makes no difference.
    let judgement = judged(netns, &["tcp/* from any", "udp/* from any"], &|_, _| Some(true));
    assert_eq!(judgement.holds(), Holds::Yes);
}

#[test]
fn what_may_be_missing_is_not_called_right() {
    for subject in [
        GapSubject::Links,
        GapSubject::Addresses(canreach_snapshot::Family::Ipv6),
        GapSubject::Sockets(Proto::Udp, canreach_snapshot::Family::Ipv4),
    ] {
        let mut snapshot = machine("server");
        let gap = Gap { subject, reason: GapReason::Failed, detail: "EIO".to_owned() };
        snapshot.namespaces[0].gaps.push(gap);
        let netns = snapshot.subject().expect("a namespace");
        let mut judgement = judged(netns, &["tcp/* from any", "udp/* from any"], &|_, _| None);
        assert_eq!(judgement.holds(), Holds::Unknown);
        judgement.allow_unknown = true;
        assert_eq!(judgement.holds(), Holds::Unknown, "nobody looked");
    }
}

#[test]
fn a_rule_for_a_program_is_for_that_program() {
    let snapshot = machine("server");
    let netns = snapshot.subject().expect("a namespace");
    let rules = ["tcp/* from any program sshd"];
    let holds = |is_called: &dyn Fn(&Server, &str) -> Option<bool>| {
        judged(netns, &rules, is_called).holds()
    };
    assert_eq!(holds(&|_, name| Some(name == "sshd")), Holds::Yes);
    assert_eq!(holds(&|_, _| None), Holds::Unknown, "it may be sshd");
    assert_eq!(holds(&|server, _| (server.port == Port(22)).then_some(true)), Holds::Unknown);
    assert_eq!(holds(&|server, _| Some(server.port == Port(22))), Holds::No);
}

/// Who gets in at a link-local address is a neighbour. That says nothing of who has the same source
/// behind a router, and dials another address.
#[test]
fn neighbours_do_not_vouch_for_those_behind_a_router() {
    let mut snapshot = machine("laptop");
    let netns = &mut snapshot.namespaces[0];
    netns.sockets.retain(|socket| socket.port == Port(22) && socket.address.is_ipv6());
    let judgement = judged(netns, &["tcp/22 from lan, containers"], &|_, _| Some(true));
    assert_eq!(judgement.holds(), Holds::No);
    for outside in &judgement.findings[0].outside {
        let IpAddr::V6(to) = outside.way.to else { panic!("{}", outside.way.to) };
        assert!(!to.is_unicast_link_local(), "only neighbours dial {to}");
    }
    let hosts = Host::resolve(netns);
    let mut inquiry = Inquiry::new(&hosts);
    let server = &servers(netns, &|_| None)[0];
    let mut ways = ways_to(&mut inquiry, server);
    // At the global addresses it cannot be told, say for a rate limit.
    for access in &mut ways {
        let IpAddr::V6(to) = access.way.to else { continue };
        for part in access.parts.iter_mut().filter(|_| !to.is_unicast_link_local()) {
            if part.access == Access::Yes {
                (part.access, part.reason) = (Access::Probable, Some(UnknownReason::RateLimit));
            }
        }
    }
    let found = unsettled(&ways.iter().collect::<Vec<_>>());
    let global = |to: IpAddr| matches!(to, IpAddr::V6(to) if !to.is_unicast_link_local());
    assert!(found.iter().any(|(way, _)| global(ways[*way].way.to)), "the doubt stays");
}

proptest! {
    /// Whatever is written there, reading it ends.
    #[test]
    fn no_policy_panics(text in "[\\[\\]allow porfmvi=\"/*,\n0-9.:#%{}'-]{0,120}") {
        let _ = Policy::from_toml(&text);
        let _ = text.parse::<Expectation>();
    }
}

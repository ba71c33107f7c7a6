//! What would change an answer: one fix or more for each reason.
//!
//! A fix that changes the machine is tried first, on a copy of the snapshot: one that would leave
//! the reason in place is not offered. Left out: wording, which is the report's.

use std::cell::Cell;

use canreach_snapshot::{Address, Family, Netns, Port, Prefix, Proto, Snapshot};

use super::bind_remedy::bind_fixes;
use super::fix::{Fix, FixId};
use super::near_port::near_ports;
use super::{firewall_remedy, link_remedy, route_remedy};
use crate::address_choice::choose;
use crate::{
    AddressSet, Answer, Arrival, Blocker, DropReason, Group, Host, Question, SocketIndex, Subject,
    answer,
};

/// What fixes are worked out from.
#[derive(Debug)]
pub struct Case<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// The namespace asked about.
    pub netns: &'a Netns,
    /// The question, for those sources that are stopped.
    pub question: Question,
    /// The same sources in few prefixes, or all that were asked about; empty for every source.
    pub scope: Vec<Prefix>,
    /// The scope is no wider than that.
    pub scope_is_exact: bool,
    /// How many rules stop them.
    pub rules_in_the_way: usize,
    /// A change that was tried leaves no rule in the way.
    pub rules_are_passed: Cell<bool>,
}

impl Case<'_> {
    /// Whether a change of the namespace takes the reason away for the sources it holds for.
    pub fn cures(&self, reason: DropReason, change: impl FnOnce(&mut Netns)) -> bool {
        let mut changed = self.netns.clone();
        change(&mut changed);
        let host = Host::resolve(&changed);
        let answer = answer(&host, &self.question);
        answer.groups.iter().all(|group| group.blockers.iter().all(|b| b.reason != reason))
    }

    /// Whether a change of the namespace leaves fewer rules in the way.
    pub fn lessens(&self, change: impl FnOnce(&mut Netns)) -> bool {
        let mut changed = self.netns.clone();
        change(&mut changed);
        let answer = answer(&Host::resolve(&changed), &self.question);
        let left = answer.groups.iter().map(|group| rules_in_the_way(&group.blockers)).max();
        let left = left.unwrap_or(0);
        if left == 0 {
            self.rules_are_passed.set(true);
        }
        left < self.rules_in_the_way
    }
}

/// Fixes for everything that stops the first group that is stopped, in path order.
#[must_use]
pub fn remedies(snapshot: &Snapshot, netns: &Netns, answer: &Answer) -> Vec<Fix> {
    let Some((group, from)) = stopped_group(answer) else { return Vec::new() };
    let question = Question { from, ..answer.question.clone() };
    let (scope, scope_is_exact) = scope(answer, &question);
    let rules_in_the_way = rules_in_the_way(&group.blockers);
    let rules_are_passed = Cell::new(false);
    let case = Case {
        snapshot,
        netns,
        question,
        scope,
        scope_is_exact,
        rules_in_the_way,
        rules_are_passed,
    };
    let mut fixes: Vec<Fix> = Vec::new();
    let concerned = match group.blockers.first() {
        Some(first) if settles_the_rest(first.reason) => 1,
        Some(_) | None => group.blockers.len(),
    };
    for blocker in &group.blockers[..concerned] {
        // Behind a rule that lets in, its chain's policy has no say.
        if case.rules_are_passed.get()
            && matches!(blocker.reason, DropReason::FwDrop | DropReason::FwReject)
        {
            continue;
        }
        for fix in fixes_of(&case, blocker) {
            let is_new = !fixes.iter().any(|known| known.id == fix.id && known.steps == fix.steps);
            if is_new {
                fixes.push(fix);
            }
        }
    }
    fixes
}

fn rules_in_the_way(blockers: &[Blocker]) -> usize {
    let is_rule = |blocker: &&Blocker| matches!(blocker.subject, Some(Subject::Netfilter(_)));
    blockers.iter().filter(is_rule).count()
}

/// The sources that are stopped, as one would type them: addresses that nobody has are let in too.
/// Where that takes too many words, everybody who was asked about: rules that are in front of the one
/// that stops them keep what they say. Whether it is no more than those who are stopped comes with it.
fn scope(answer: &Answer, question: &Question) -> (Vec<Prefix>, bool) {
    /// More rules than this are no fix that anybody types.
    const PREFIXES_MAX: usize = 3;
    if matches!(question.via, Arrival::Local { .. }) {
        return (Vec::new(), true);
    }
    let few = |set: &AddressSet| {
        let prefixes = set.filled_up(&answer.unsendable).to_prefixes();
        (prefixes.len() <= PREFIXES_MAX).then_some(prefixes)
    };
    let exact = few(&question.from);
    let is_exact = exact.is_some();
    let prefixes = exact.or_else(|| few(&answer.question.from)).unwrap_or_default();
    let is_all = prefixes.iter().any(|prefix| prefix.length() == 0);
    (if is_all { Vec::new() } else { prefixes }, is_exact)
}

/// What is in the way further on is of no concern: packets for that address are not this machine's
/// business, or its routes are gone with the link and come back with it.
const fn settles_the_rest(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::LinkDown
            | DropReason::Tentative
            | DropReason::Ipv6Disabled
            | DropReason::Martian
            | DropReason::NotLocal
            | DropReason::NoRoute
            | DropReason::Forwarded
            | DropReason::BroadcastDestination
            | DropReason::AnycastDestination
            | DropReason::MulticastDestination
    )
}

/// The first group with blockers, and those of its sources that somebody else can have. What nobody
/// can send counts only if nothing else was asked.
fn stopped_group(answer: &Answer) -> Option<(&Group, AddressSet)> {
    let sendable = |group: &Group| group.sources.difference(&answer.unsendable);
    let nobody_can = answer.groups.iter().all(|group| sendable(group).is_empty());
    let from = |group: &Group| if nobody_can { group.sources.clone() } else { sendable(group) };
    answer
        .groups
        .iter()
        .filter(|group| !group.blockers.is_empty())
        .map(|group| (group, from(group)))
        .find(|(group, from)| !from.is_empty() || group.sources.is_empty())
}

fn fixes_of(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let reason = blocker.reason;
    match reason {
        DropReason::LinkDown => link_remedy::link_down(case, blocker),
        DropReason::NeighborSilent => {
            let fixes = link_remedy::neighbor_silent(case, blocker);
            if fixes.is_empty() { dial_other(case, reason) } else { fixes }
        }
        DropReason::Tentative => link_remedy::tentative(case, blocker),
        DropReason::Ipv6Disabled => link_remedy::ipv6_disabled(case, blocker),
        DropReason::RpFilter => link_remedy::rp_filter(case, blocker),
        DropReason::RouteUnreachable | DropReason::RouteProhibit | DropReason::RouteBlackhole => {
            route_remedy::delete_error_route(case, blocker)
        }
        DropReason::NoRoute => {
            let fixes = link_remedy::loopback_up(case, reason);
            if fixes.is_empty() { dial_other(case, reason) } else { fixes }
        }
        DropReason::Martian
        | DropReason::NotLocal
        | DropReason::Forwarded
        | DropReason::BroadcastDestination
        | DropReason::AnycastDestination
        | DropReason::MulticastDestination => dial_other(case, reason),
        // Two machines with one address, or a forged source: nothing to type here.
        DropReason::OwnSource | DropReason::ConnectedElsewhere => Vec::new(),
        DropReason::NotListening => other_ports(case, reason),
        DropReason::BindLoopback | DropReason::BindAddress => {
            let mut fixes = listener_fixes(case, blocker);
            fixes.extend(dial_bound(case, blocker));
            fixes
        }
        DropReason::BindDevice => socket_unit_or(case, blocker, FixId::UnbindDevice),
        DropReason::V6Only => socket_unit_or(case, blocker, FixId::ListenIpv4),
        DropReason::VrfUnbound => link_remedy::vrf_accept(case, blocker),
        DropReason::BacklogFull => {
            let mut fix = Fix::new(reason, FixId::UnblockProgram);
            fix.listener = listener(blocker);
            vec![fix]
        }
        DropReason::NoReplyRoute => route_remedy::no_reply_route(case, blocker),
        DropReason::ReplySourceNotLocal => route_remedy::reply_source(case, reason),
        DropReason::VpnReply => route_remedy::vpn_reply(case, reason),
        DropReason::FwDrop | DropReason::FwReject => firewall_remedy::let_in(case, blocker),
        DropReason::NatFailed => Vec::new(),
    }
}

/// The socket a blocker is about.
fn listener(blocker: &Blocker) -> Option<SocketIndex> {
    match blocker.subject {
        Some(Subject::Socket(index)) => Some(index),
        Some(
            Subject::Link(_)
            | Subject::Address(_)
            | Subject::Route(_)
            | Subject::PolicyRule(_)
            | Subject::LinkSysctl { .. }
            | Subject::Chain(_)
            | Subject::LegacyTable(_)
            | Subject::Netfilter(_)
            | Subject::In(..)
            | Subject::Bpf(_)
            | Subject::Gap(_),
        )
        | None => None,
    }
}

/// The server's own switch.
fn listener_fixes(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let Some(index) = listener(blocker) else {
        return vec![Fix::new(blocker.reason, FixId::ListenOnAll)];
    };
    let Some(socket) = case.netns.sockets.get(index.0) else { return Vec::new() };
    let mut fixes = bind_fixes(case.snapshot, case.netns, socket, &case.question, blocker.reason);
    for fix in &mut fixes {
        fix.listener = Some(index);
    }
    fixes
}

/// The socket unit where systemd holds the socket; otherwise a setting nobody here knows.
fn socket_unit_or(case: &Case<'_>, blocker: &Blocker, otherwise: FixId) -> Vec<Fix> {
    let mut fixes = listener_fixes(case, blocker);
    for fix in &mut fixes {
        if fix.id != FixId::SocketUnit {
            let listener = fix.listener;
            *fix = Fix::new(blocker.reason, otherwise);
            fix.listener = listener;
        }
    }
    fixes
}

/// The address the listener is bound to, if those asked about can dial it: on the link they are on.
/// Others are local too, but nobody there has a route to them.
fn dial_bound(case: &Case<'_>, blocker: &Blocker) -> Option<Fix> {
    let index = listener(blocker)?;
    let bound = case.netns.sockets.get(index.0)?.address;
    let Arrival::Link(ifindex) = case.question.via else { return None };
    let on_link = case.netns.addresses.iter().any(|address| {
        address.ifindex == ifindex && address.address() == bound && bound != case.question.to
    });
    let question = Question { to: bound, ..case.question.clone() };
    let reached = || {
        Family::of(bound) == case.question.family() && {
            let found = answer(&Host::resolve(case.netns), &question);
            found.groups.iter().all(|group| group.blockers.is_empty())
        }
    };
    (on_link && reached()).then(|| {
        let mut fix = Fix::new(blocker.reason, FixId::DialBoundAddress);
        fix.dial = Some(bound);
        fix.listener = Some(index);
        fix
    })
}

/// The address that would be handed out, if it is another one.
fn dial_other(case: &Case<'_>, reason: DropReason) -> Vec<Fix> {
    let choice = choose(case.netns, &case.snapshot.machine);
    let link = match case.question.via {
        Arrival::Link(ifindex) => Some(ifindex),
        Arrival::Local { .. } => None,
    };
    let of_link = choice.best_of(case.netns, case.question.family(), link);
    let best = of_link.or_else(|| choice.best_of(case.netns, case.question.family(), None));
    let other = best.map(Address::address).filter(|to| *to != case.question.to);
    other
        .map(|address| {
            let mut fix = Fix::new(reason, FixId::DialOtherAddress);
            fix.dial = Some(address);
            fix
        })
        .into_iter()
        .collect()
}

/// Ports that may have been meant.
fn other_ports(case: &Case<'_>, reason: DropReason) -> Vec<Fix> {
    const MOST: usize = 2;
    let Question { proto, port, .. } = case.question;
    let near = near_ports(case.snapshot, case.netns, proto, port, MOST);
    near.into_iter()
        .filter_map(|index| {
            let socket = case.netns.sockets.get(index.0)?;
            let port = port_argument(socket.port, socket.proto);
            let mut fix = Fix::new(reason, FixId::OtherPort).run(format!("canreach why {port}"));
            fix.listener = Some(index);
            Some(fix)
        })
        .collect()
}

/// A port as `why` takes it.
fn port_argument(port: Port, proto: Proto) -> String {
    match proto {
        Proto::Tcp => port.to_string(),
        Proto::Udp => format!("{port}/udp"),
    }
}

#[cfg(test)]
mod tests {
    use canreach_snapshot::{
        ChainKind, ChainPolicy, Ifindex, LinkFlags, LinkKind, LinkSysctl, NfFamily, NfHook,
        PolicyAction, RouteType, TableId, nft,
    };

    use super::super::fix::FixStep;
    use super::super::route_remedy::{lookup_rule, route_via};
    use super::super::test_host::{listener, question, route, snapshot};
    use super::*;
    use crate::{Fate, NfSubject, Outcome, Stage, Verdict};

    /// The fixes of a machine for a stop that was found on it.
    fn fixes(snapshot: &Snapshot, reason: DropReason, subject: Option<Subject>) -> Vec<Fix> {
        let question = question("192.168.1.20", 3000);
        let fate = Fate { outcome: Outcome::Stopped(reason), they_see: None };
        let answer = Answer {
            verdict: Verdict::No,
            unsendable: AddressSet::empty(Family::Ipv4),
            groups: vec![Group {
                sources: question.from.clone(),
                ports: None,
                fate,
                steps: Vec::new(),
                blockers: vec![Blocker { stage: Stage::Route, reason, subject }],
                doubts: Vec::new(),
                sockets: Vec::new(),
                sockets_in: None,
            }],
            question,
        };
        remedies(snapshot, snapshot.subject().expect("one namespace"), &answer)
    }

    fn machine() -> Snapshot {
        snapshot(listener("0.0.0.0", 3000), &["./shop"], None)
    }

    fn netns(snapshot: &mut Snapshot) -> &mut Netns {
        &mut snapshot.namespaces[0]
    }

    /// Commands and how to take them back.
    fn typed(fixes: &[Fix]) -> Vec<(String, Option<String>)> {
        let line = |fix: &Fix| {
            let steps = fix.steps.iter().map(|step| match step {
                FixStep::Run(line) | FixStep::Form(line) => line.clone(),
                FixStep::Write(_, lines) => lines.join("|"),
            });
            let undo = fix.undo.as_ref().map(|undo| undo.commands.join("; "));
            (steps.collect::<Vec<_>>().join("; "), undo)
        };
        fixes.iter().map(line).collect()
    }

    fn check(fixes: &[Fix], command: &str, undo: &str) {
        assert_eq!(typed(fixes), [(command.to_owned(), Some(undo.to_owned()))]);
        assert!(fixes.iter().all(|fix| fix.needs_root));
    }

    #[test]
    fn links_are_switched_on_by_their_own_name() {
        let mut machine = machine();
        netns(&mut machine).links[1].name = "eth 0".to_owned();
        netns(&mut machine).links[1].flags = LinkFlags(0);
        let subject = Some(Subject::Link(Ifindex(2)));
        check(
            &fixes(&machine, DropReason::LinkDown, subject.clone()),
            "sudo ip link set dev 'eth 0' up",
            "sudo ip link set dev 'eth 0' down",
        );
        netns(&mut machine).links[1].flags = LinkFlags::UP;
        let found = fixes(&machine, DropReason::LinkDown, subject);
        assert_eq!(found.iter().map(|fix| fix.id).collect::<Vec<_>>(), [FixId::LinkCarrier]);
    }

    #[test]
    fn sysctls_are_set_where_they_count() {
        let subject =
            |sysctl, value| Some(Subject::LinkSysctl { sysctl, link: Some(Ifindex(2)), value });
        let mut machine = machine();
        let sysctls = &mut netns(&mut machine).sysctls;
        sysctls.all.insert(LinkSysctl::RpFilter, 1);
        sysctls.all.insert(LinkSysctl::ArpIgnore, 2);
        let own = sysctls.links.entry("eth0".to_owned()).or_default();
        own.insert(LinkSysctl::RpFilter, 0);
        own.insert(LinkSysctl::ArpIgnore, 1);
        own.insert(LinkSysctl::V6DisableIpv6, 1);
        check(
            &fixes(&machine, DropReason::RpFilter, subject(LinkSysctl::RpFilter, 1)),
            "sudo sysctl -w net.ipv4.conf.eth0.rp_filter=2",
            "sudo sysctl -w net.ipv4.conf.eth0.rp_filter=0",
        );
        check(
            &fixes(&machine, DropReason::NeighborSilent, subject(LinkSysctl::ArpIgnore, 2)),
            "sudo sysctl -w net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.eth0.arp_ignore=0",
            "sudo sysctl -w net.ipv4.conf.all.arp_ignore=2 net.ipv4.conf.eth0.arp_ignore=1",
        );
        check(
            &fixes(&machine, DropReason::Ipv6Disabled, subject(LinkSysctl::V6DisableIpv6, 1)),
            "sudo sysctl -w net.ipv6.conf.eth0.disable_ipv6=0",
            "sudo sysctl -w net.ipv6.conf.eth0.disable_ipv6=1",
        );
    }

    #[test]
    fn a_loose_filter_is_not_offered_where_it_is_loose_already() {
        let mut machine = machine();
        let sysctls = &mut netns(&mut machine).sysctls;
        sysctls.all.insert(LinkSysctl::RpFilter, 2);
        sysctls.links.entry("vlan.10".to_owned()).or_default().insert(LinkSysctl::RpFilter, 1);
        netns(&mut machine).links[1].name = "vlan.10".to_owned();
        let subject =
            Subject::LinkSysctl { sysctl: LinkSysctl::RpFilter, link: Some(Ifindex(2)), value: 2 };
        check(
            &fixes(&machine, DropReason::RpFilter, Some(subject)),
            "sudo sysctl -w net.ipv4.conf.all.rp_filter=0 net/ipv4/conf/vlan.10/rp_filter=0",
            "sudo sysctl -w net.ipv4.conf.all.rp_filter=2 net/ipv4/conf/vlan.10/rp_filter=1",
        );
    }

    #[test]
    fn routes_and_rules_that_say_no_are_deleted_with_a_way_back() {
        let mut machine = machine();
        let prefix: Prefix = "192.168.1.0/24".parse().expect("a prefix");
        let mut hole = route_via(prefix, TableId(7), None, Ifindex(2));
        hole.kind = RouteType::Blackhole;
        hole.metric = 5;
        netns(&mut machine).routes.push(hole);
        check(
            &fixes(&machine, DropReason::RouteBlackhole, Some(Subject::Route(3))),
            "sudo ip route del blackhole 192.168.1.0/24 table 7 metric 5",
            "sudo ip route add blackhole 192.168.1.0/24 table 7 metric 5",
        );
        let mut rule = lookup_rule(prefix, TableId(7), 100);
        rule.action = PolicyAction::Prohibit;
        rule.iif = Some("eth0".to_owned());
        netns(&mut machine).policy_rules.push(rule);
        check(
            &fixes(&machine, DropReason::RouteProhibit, Some(Subject::PolicyRule(0))),
            "sudo ip rule del pref 100 from 192.168.1.0/24 iif eth0 prohibit",
            "sudo ip rule add pref 100 from 192.168.1.0/24 iif eth0 prohibit",
        );
        // What could not be made again is not deleted.
        netns(&mut machine).policy_rules[0].realm = Some(1);
        assert!(
            fixes(&machine, DropReason::RouteProhibit, Some(Subject::PolicyRule(0))).is_empty()
        );
    }

    #[test]
    fn answers_get_a_route_by_a_router_that_is_known() {
        let mut machine = machine();
        let question = asked_from("198.51.100.0/24");
        let form = found(&machine, &question);
        check(
            &form,
            "sudo ip route add default via ROUTER dev eth0",
            "sudo ip route del default via ROUTER dev eth0",
        );
        assert_eq!(form[0].command(), None, "not to be typed as it is");
        let gateway = Some("192.168.1.1");
        let elsewhere = route(RouteType::Unicast, "10.0.0.0/8", TableId::MAIN, gateway, 2);
        netns(&mut machine).routes.push(elsewhere);
        check(
            &found(&machine, &question),
            "sudo ip route add default via 192.168.1.1 dev eth0",
            "sudo ip route del default via 192.168.1.1 dev eth0",
        );
        // A tunnel takes everything else: answers need a rule of their own.
        let tunnel = route(RouteType::Unicast, "0.0.0.0/0", TableId::MAIN, None, 3);
        netns(&mut machine).routes.push(tunnel);
        netns(&mut machine).links[2].kind = LinkKind::Wireguard;
        for (table, priority) in [(TableId::LOCAL, 0), (TableId::MAIN, 32766)] {
            let rule = lookup_rule(Prefix::all(Family::Ipv4), table, priority);
            netns(&mut machine).policy_rules.push(rule);
        }
        check(
            &found(&machine, &question),
            "sudo ip route add default via 192.168.1.1 dev eth0 table 100; \
             sudo ip rule add pref 32765 from 192.168.1.20 lookup 100",
            "sudo ip rule del pref 32765 from 192.168.1.20 lookup 100; \
             sudo ip route del default via 192.168.1.1 dev eth0 table 100",
        );
    }

    /// The fixes for what the model itself finds.
    fn found(snapshot: &Snapshot, question: &Question) -> Vec<Fix> {
        let netns = snapshot.subject().expect("one namespace");
        remedies(snapshot, netns, &answer(&Host::resolve(netns), question))
    }

    fn asked_from(prefix: &str) -> Question {
        let from = AddressSet::from_prefixes(Family::Ipv4, [prefix.parse().expect(prefix)]);
        Question { from, ..question("192.168.1.20", 3000) }
    }

    #[test]
    fn what_would_not_help_is_not_offered() {
        // 10.0.0.0/8 is reached by eth1, so a strict filter drops it on eth0; loose accepts it.
        let mut machine = machine();
        netns(&mut machine).sysctls.all.insert(LinkSysctl::RpFilter, 1);
        let elsewhere = route(RouteType::Unicast, "10.0.0.0/8", TableId::MAIN, None, 3);
        netns(&mut machine).routes.push(elsewhere);
        let fixes = found(&machine, &asked_from("10.0.0.0/24"));
        assert_eq!(
            typed(&fixes)[0].0,
            "sudo sysctl -w net.ipv4.conf.eth0.rp_filter=2",
            "{fixes:#?}"
        );
        // Without any route to the sender, loose drops it too.
        netns(&mut machine).routes.pop();
        let fixes = found(&machine, &asked_from("10.0.0.0/24"));
        assert_eq!(typed(&fixes)[0].0, "sudo sysctl -w net.ipv4.conf.all.rp_filter=0");
        assert_eq!(fixes[0].reason, DropReason::RpFilter);
        // And then its answer has no way back: the second surprise is told at once.
        assert_eq!(fixes[1].reason, DropReason::NoReplyRoute);
    }

    #[test]
    fn a_blackhole_that_swallows_answers_is_deleted() {
        let mut machine = machine();
        let hole = route(RouteType::Blackhole, "192.168.1.64/26", TableId::MAIN, None, 2);
        netns(&mut machine).routes.push(hole);
        netns(&mut machine).routes[3].nexthops.clear();
        check(
            &found(&machine, &asked_from("192.168.1.64/26")),
            "sudo ip route del blackhole 192.168.1.64/26",
            "sudo ip route add blackhole 192.168.1.64/26",
        );
        assert!(found(&machine, &asked_from("192.168.1.0/26")).is_empty());
    }

    #[test]
    fn a_server_on_another_address_is_dialled_there_if_that_works() {
        let mut machine = snapshot(listener("192.168.1.21", 3000), &["./shop"], None);
        let ids = |machine: &Snapshot| -> Vec<FixId> {
            found(machine, &asked_from("192.168.1.64/26")).iter().map(|fix| fix.id).collect()
        };
        // Nobody's address: packets for it are not delivered.
        assert_eq!(ids(&machine), [FixId::ListenOnAll]);
        let local =
            |ifindex| route(RouteType::Local, "192.168.1.21/32", TableId::LOCAL, None, ifindex);
        let mut second = netns(&mut machine).addresses[1].clone();
        second.prefix = "192.168.1.21/24".parse().expect("a prefix");
        netns(&mut machine).routes.push(local(2));
        netns(&mut machine).addresses.push(second.clone());
        assert_eq!(ids(&machine), [FixId::ListenOnAll, FixId::DialBoundAddress]);
        // On another link it is local as well, but who asks here has no route to it.
        second.ifindex = Ifindex(3);
        netns(&mut machine).addresses[2] = second;
        assert_eq!(ids(&machine), [FixId::ListenOnAll]);
    }

    #[test]
    fn a_port_nearby_may_have_been_meant() {
        let mut machine = machine();
        netns(&mut machine).sockets[0].port = Port(3001);
        let found = fixes(&machine, DropReason::NotListening, None);
        assert_eq!(typed(&found), [("canreach why 3001".to_owned(), None)]);
        assert_eq!(found[0].listener, Some(SocketIndex(0)));
        netns(&mut machine).sockets[0].port = Port(9999);
        assert!(fixes(&machine, DropReason::NotListening, None).is_empty());
    }

    #[test]
    fn listeners_get_their_own_switch_and_sockets_their_own_reason() {
        let machine = machine();
        let socket = || Some(Subject::Socket(SocketIndex(0)));
        let ids = |reason| -> Vec<FixId> {
            fixes(&machine, reason, socket()).iter().map(|fix| fix.id).collect()
        };
        assert_eq!(ids(DropReason::BindLoopback), [FixId::ListenOnAll]);
        assert_eq!(ids(DropReason::V6Only), [FixId::ListenIpv4]);
        assert_eq!(ids(DropReason::BindDevice), [FixId::UnbindDevice]);
        assert_eq!(ids(DropReason::BacklogFull), [FixId::UnblockProgram]);
        assert_eq!(ids(DropReason::OwnSource), []);
    }

    /// A machine whose rules drop everything: in a table, by the policy of the first chain, which jumps to
    /// the others, or by a rule in the chain `dropping`.
    fn behind_rules(
        family: NfFamily,
        table: &str,
        chains: &[&str],
        dropping: Option<&str>,
    ) -> Snapshot {
        let mut machine = machine();
        let rule = |verdict| nft::Rule {
            handle: nft::Handle(12),
            exprs: vec![nft::Expr::Verdict(verdict)],
            comment: None,
        };
        let jumps = |name: &str| -> Vec<nft::Rule> {
            let others = if name == chains[0] { &chains[1..] } else { &[] };
            let jump = |to: &&str| rule(nft::expr::NfVerdict::Jump((*to).to_owned()));
            others.iter().map(jump).collect()
        };
        let drops = |name: &str| dropping == Some(name);
        let chains = chains.iter().map(|name| nft::Chain {
            name: (*name).to_owned(),
            handle: nft::Handle(1),
            base: matches!(*name, "INPUT" | "input" | "filter_INPUT").then(|| nft::BaseChain {
                hook: NfHook::Input,
                priority: 0,
                kind: ChainKind::Filter,
                policy: ChainPolicy::Drop,
                devices: Vec::new(),
            }),
            rules: jumps(name)
                .into_iter()
                .chain(drops(name).then(|| rule(nft::expr::NfVerdict::Drop)))
                .collect(),
        });
        let table = nft::Table {
            family,
            name: table.to_owned(),
            handle: nft::Handle(1),
            dormant: false,
            chains: chains.collect(),
            sets: Vec::new(),
            objects: Vec::new(),
            flowtables: Vec::new(),
        };
        netns(&mut machine).firewall.nft =
            Some(nft::Ruleset { generation: None, tables: vec![table] });
        machine
    }

    fn let_in(machine: &Snapshot, subject: NfSubject) -> Vec<(String, Option<String>)> {
        typed(&fixes(machine, DropReason::FwDrop, Some(Subject::Netfilter(subject))))
    }

    fn one(command: &str, undo: &str) -> Vec<(String, Option<String>)> {
        vec![(command.to_owned(), Some(undo.to_owned()))]
    }

    #[test]
    fn rules_are_written_by_who_keeps_them() {
        let policy = NfSubject::NftPolicy { table: 0, chain: 0 };
        let rule = |chain| NfSubject::NftRule { table: 0, chain, rule: 0 };
        let chains = ["INPUT", "ufw-user-input"];
        let machine = behind_rules(NfFamily::Ip, "filter", &chains, None);
        assert_eq!(
            let_in(&machine, policy),
            one(
                "sudo ufw allow from 192.168.1.0/24 to any port 3000 proto tcp",
                "sudo ufw delete allow from 192.168.1.0/24 to any port 3000 proto tcp",
            )
        );
        let machine = behind_rules(NfFamily::Ip, "filter", &chains, Some("ufw-user-input"));
        assert_eq!(
            let_in(&machine, rule(1))[0].0,
            "sudo ufw prepend allow from 192.168.1.0/24 to any port 3000 proto tcp",
        );
        let machine = behind_rules(
            NfFamily::Inet,
            "firewalld",
            &["filter_IN_public"],
            Some("filter_IN_public"),
        );
        assert_eq!(
            let_in(&machine, rule(0)),
            one(
                "sudo firewall-cmd --zone=public --add-rich-rule='rule family=\"ipv4\" source \
                 address=\"192.168.1.0/24\" port port=\"3000\" protocol=\"tcp\" accept'",
                "sudo firewall-cmd --zone=public --remove-rich-rule='rule family=\"ipv4\" source \
                 address=\"192.168.1.0/24\" port port=\"3000\" protocol=\"tcp\" accept'",
            )
        );
        let machine = behind_rules(NfFamily::Ip, "filter", &["DOCKER"], Some("DOCKER"));
        assert_eq!(let_in(&machine, rule(0)), []);
    }

    #[test]
    fn hand_written_rules_are_passed_by_hand() {
        let policy = NfSubject::NftPolicy { table: 0, chain: 0 };
        let rule = NfSubject::NftRule { table: 0, chain: 0, rule: 0 };
        let machine = behind_rules(NfFamily::Inet, "mine", &["input"], Some("input"));
        let words = "iifname eth0 ip saddr 192.168.1.0/24 tcp dport 3000 accept";
        let undo = "sudo nft delete rule inet mine input handle HANDLE";
        assert_eq!(
            let_in(&machine, rule),
            one(&format!("sudo nft -ea insert rule inet mine input position 12 {words}"), undo)
        );
        let machine = behind_rules(NfFamily::Inet, "mine", &["input"], None);
        assert_eq!(
            let_in(&machine, policy),
            one(&format!("sudo nft -ea add rule inet mine input {words}"), undo)
        );
        let machine = behind_rules(NfFamily::Ip, "filter", &["INPUT"], None);
        let words = "-i eth0 -s 192.168.1.0/24 -p tcp --dport 3000 -j ACCEPT";
        assert_eq!(
            let_in(&machine, rule),
            one(
                &format!("sudo iptables -I INPUT 1 {words}"),
                &format!("sudo iptables -D INPUT {words}")
            )
        );
        assert_eq!(
            let_in(&machine, policy),
            one(
                &format!("sudo iptables -A INPUT {words}"),
                &format!("sudo iptables -D INPUT {words}")
            )
        );
    }

    #[test]
    fn every_reason_is_answered_without_a_panic() {
        let subjects = [
            None,
            Some(Subject::Link(Ifindex(99))),
            Some(Subject::Route(99)),
            Some(Subject::PolicyRule(99)),
            Some(Subject::Socket(SocketIndex(99))),
            Some(Subject::Address(99)),
        ];
        let empty = Snapshot { namespaces: vec![Netns::default()], ..machine() };
        for reason in DropReason::ALL {
            for subject in &subjects {
                for machine in [&machine(), &empty] {
                    for fix in fixes(machine, reason, subject.clone()) {
                        assert_eq!(fix.reason, reason);
                    }
                }
            }
        }
    }
}

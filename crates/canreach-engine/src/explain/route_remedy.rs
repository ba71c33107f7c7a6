//! Fixes of routes and policy rules.
//!
//! Kernel counterpart: what `ip route` and `ip rule` write. Left out: making a change survive a
//! restart, which each distribution does in its own way.

use std::net::IpAddr;

use canreach_snapshot::{
    Family, FibLayout, Ifindex, NextHop, NextHopFlags, PolicyAction, PolicyRule, Prefix, Route,
    RouteProtocol, RouteType, Scope, TableId,
};

use super::command_line::shell_word;
use super::fix::{Fix, FixId, FixStep, Undo};
use super::remedy::Case;
use crate::{Arrival, Blocker, DropReason, Subject};

/// `ip`, or `ip -6`.
const fn ip(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip -6",
    }
}

/// The word of a route or rule that is an error.
const fn error_word(kind: RouteType) -> Option<&'static str> {
    match kind {
        RouteType::Blackhole => Some("blackhole"),
        RouteType::Unreachable => Some("unreachable"),
        RouteType::Prohibit => Some("prohibit"),
        RouteType::Unicast
        | RouteType::Local
        | RouteType::Broadcast
        | RouteType::Anycast
        | RouteType::Multicast
        | RouteType::Throw
        | RouteType::Nat
        | RouteType::Other(_) => None,
    }
}

/// `blackhole 10.0.0.0/8 table 7 metric 5`: enough to delete the route, and to make it again.
fn error_route_words(route: &Route) -> Option<String> {
    let mut words = format!("{} {}", error_word(route.kind)?, route.destination);
    if let Some(source) = route.source {
        words.push_str(&format!(" from {source}"));
    }
    if route.tos != 0 {
        words.push_str(&format!(" tos {:#04x}", route.tos));
    }
    if route.table != TableId::MAIN {
        words.push_str(&format!(" table {}", route.table.0));
    }
    if route.metric != 0 {
        words.push_str(&format!(" metric {}", route.metric));
    }
    Some(words)
}

/// Delete the route or rule that says no.
pub(super) fn delete_error_route(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let reason = blocker.reason;
    let fix = match blocker.subject {
        Some(Subject::Route(index)) => case.netns.routes.get(index).and_then(|route| {
            let words = error_route_words(route)?;
            let ip = ip(route.family());
            let cured = case.cures(reason, |netns| drop(netns.routes.remove(index)));
            cured.then(|| {
                let command = |verb| format!("sudo {ip} route {verb} {words}");
                Fix::as_root(reason, FixId::DeleteRoute, command("del"), command("add"))
            })
        }),
        Some(Subject::PolicyRule(index)) => case.netns.policy_rules.get(index).and_then(|rule| {
            let words = policy_rule_words(rule)?;
            let ip = ip(rule.family);
            let cured = case.cures(reason, |netns| drop(netns.policy_rules.remove(index)));
            cured.then(|| {
                let command = |verb| format!("sudo {ip} rule {verb} {words}");
                Fix::as_root(reason, FixId::DeletePolicyRule, command("del"), command("add"))
            })
        }),
        Some(
            Subject::Link(_)
            | Subject::Address(_)
            | Subject::LinkSysctl { .. }
            | Subject::Socket(_)
            | Subject::Chain(_)
            | Subject::LegacyTable(_)
            | Subject::Netfilter(_)
            | Subject::In(..)
            | Subject::Bpf(_)
            | Subject::Gap(_),
        )
        | None => None,
    };
    fix.into_iter().collect()
}

/// A policy rule as `ip rule` takes it; `None` where it uses what this does not spell out, so that a
/// rule is never deleted without a way to make it again.
fn policy_rule_words(rule: &PolicyRule) -> Option<String> {
    let action = match rule.action {
        PolicyAction::Blackhole => "blackhole".to_owned(),
        PolicyAction::Unreachable => "unreachable".to_owned(),
        PolicyAction::Prohibit => "prohibit".to_owned(),
        PolicyAction::Lookup(table) => format!("lookup {}", table.0),
        PolicyAction::Goto(_) | PolicyAction::Nop | PolicyAction::Other(_) => return None,
    };
    let is_plain = rule.tos == 0
        && rule.dscp.is_none()
        && rule.tunnel_id.is_none()
        && !rule.l3mdev
        && rule.ip_protocol.is_none()
        && rule.source_ports.is_none()
        && rule.destination_ports.is_none()
        && rule.suppress_prefix_length.is_none()
        && rule.suppress_ifgroup.is_none()
        && rule.realm.is_none()
        && rule.unrecognized.is_empty();
    if !is_plain {
        return None;
    }
    let mut words = if rule.invert { "not ".to_owned() } else { String::new() };
    words.push_str(&format!("pref {}", rule.priority));
    let prefix =
        |prefix: Option<Prefix>| prefix.map_or_else(|| "all".to_owned(), |p| p.to_string());
    words.push_str(&format!(" from {}", prefix(rule.source)));
    if rule.destination.is_some() {
        words.push_str(&format!(" to {}", prefix(rule.destination)));
    }
    for (word, name) in [("iif", &rule.iif), ("oif", &rule.oif)] {
        if let Some(name) = name {
            words.push_str(&format!(" {word} {}", shell_word(name)));
        }
    }
    if rule.mark_mask != 0 {
        words.push_str(&format!(" fwmark {:#x}/{:#x}", rule.mark, rule.mark_mask));
    }
    if let Some((low, high)) = rule.uid_range {
        words.push_str(&format!(" uidrange {low}-{high}"));
    }
    Some(format!("{words} {action}"))
}

/// A route for answers: by a router this machine already knows on that link, or one to fill in.
pub(super) fn no_reply_route(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let reason = blocker.reason;
    let is_error = match blocker.subject {
        Some(Subject::Route(index)) => {
            case.netns.routes.get(index).is_some_and(|route| error_word(route.kind).is_some())
        }
        Some(Subject::PolicyRule(_)) => true,
        _ => false,
    };
    if is_error {
        return delete_error_route(case, blocker);
    }
    let Arrival::Link(ifindex) = case.question.via else { return Vec::new() };
    let Some(link) = case.netns.link(ifindex) else { return Vec::new() };
    let family = case.question.family();
    let name = shell_word(&link.name);
    let ip = ip(family);
    let default = Prefix::all(family);
    match router_on(case, ifindex, family) {
        Some(router) => {
            let route = route_via(default, TableId::MAIN, Some(router), ifindex);
            let cured = case.cures(reason, |netns| netns.routes.push(route));
            let words = format!("default via {router} dev {name}");
            let fix = Fix::as_root(
                reason,
                FixId::AddRoute,
                format!("sudo {ip} route add {words}"),
                format!("sudo {ip} route del {words}"),
            );
            cured.then_some(fix).into_iter().collect()
        }
        None => {
            let has_default = case
                .netns
                .routes
                .iter()
                .any(|route| route.destination == default && route.table == TableId::MAIN);
            let destination = if has_default { "NETWORK".to_owned() } else { "default".to_owned() };
            let words = format!("{destination} via ROUTER dev {name}");
            let mut fix = Fix::new(reason, FixId::AddRoute);
            fix.needs_root = true;
            fix.steps = vec![FixStep::Form(format!("sudo {ip} route add {words}"))];
            let undo = format!("sudo {ip} route del {words}");
            fix.undo = Some(Undo { commands: vec![undo], take_lines_out: false });
            vec![fix]
        }
    }
}

/// A router on a link that some route uses, or that announced itself.
fn router_on(case: &Case<'_>, ifindex: Ifindex, family: Family) -> Option<IpAddr> {
    let of_routes = case.netns.routes.iter().flat_map(|route| &route.nexthops).find_map(|hop| {
        hop.gateway.filter(|gateway| hop.ifindex == Some(ifindex) && Family::of(*gateway) == family)
    });
    let of_neighbors = || {
        let announced = case.netns.neighbors.iter().find(|neighbor| {
            neighbor.router && neighbor.ifindex == ifindex && Family::of(neighbor.address) == family
        });
        announced.map(|neighbor| neighbor.address)
    };
    of_routes.or_else(of_neighbors)
}

pub(super) fn route_via(
    destination: Prefix,
    table: TableId,
    gateway: Option<IpAddr>,
    ifindex: Ifindex,
) -> Route {
    let family = destination.family();
    Route {
        table,
        kind: RouteType::Unicast,
        destination,
        source: None,
        tos: 0,
        scope: Scope::UNIVERSE,
        protocol: RouteProtocol::BOOT,
        // IPv6 routes without a metric get 1024 (IP6_RT_PRIO_USER).
        metric: if family == Family::Ipv6 { 1024 } else { 0 },
        preferred_source: None,
        preference: None,
        flags: 0,
        nexthops: vec![NextHop {
            ifindex: Some(ifindex),
            gateway,
            weight: 1,
            flags: NextHopFlags::default(),
            encapsulated: false,
        }],
        nexthop_id: None,
        realm: None,
    }
}

/// Make the address local where source checks look: in table local.
pub(super) fn reply_source(case: &Case<'_>, reason: DropReason) -> Vec<Fix> {
    let Some(loopback) = case.netns.links.iter().find(|link| link.is_loopback()) else {
        return Vec::new();
    };
    let host = Prefix::host(case.question.to);
    let mut route = route_via(host, TableId::LOCAL, None, loopback.ifindex);
    route.kind = RouteType::Local;
    route.scope = Scope::HOST;
    route.metric = 0;
    let cured = case.cures(reason, |netns| netns.routes.push(route));
    let words = format!("local {host} dev {} table local", shell_word(&loopback.name));
    let ip = ip(case.question.family());
    let fix = Fix::as_root(
        reason,
        FixId::AddLocalRoute,
        format!("sudo {ip} route add {words}"),
        format!("sudo {ip} route del {words}"),
    );
    cured.then_some(fix).into_iter().collect()
}

/// Send answers from the address dialled by its own link, in a table of their own.
pub(super) fn vpn_reply(case: &Case<'_>, reason: DropReason) -> Vec<Fix> {
    let Arrival::Link(ifindex) = case.question.via else { return Vec::new() };
    let Some(link) = case.netns.link(ifindex) else { return Vec::new() };
    let family = case.question.family();
    let Some(router) = router_on(case, ifindex, family) else { return Vec::new() };
    let Some(table) = free_table(case) else { return Vec::new() };
    let Some(priority) = first_priority(case, family) else { return Vec::new() };
    let source = Prefix::host(case.question.to);
    let cured = case.cures(reason, |netns| {
        netns.routes.push(route_via(Prefix::all(family), table, Some(router), ifindex));
        let rule = lookup_rule(source, table, priority);
        let at = netns.policy_rules.partition_point(|other| other.priority < priority);
        netns.policy_rules.insert(at, rule);
        netns.fib_layout = FibLayout::Split;
    });
    if !cured {
        return Vec::new();
    }
    let ip = ip(family);
    let route = format!("default via {router} dev {} table {}", shell_word(&link.name), table.0);
    let rule = format!("pref {priority} from {} lookup {}", case.question.to, table.0);
    let commands = |verb| {
        vec![format!("sudo {ip} route {verb} {route}"), format!("sudo {ip} rule {verb} {rule}")]
    };
    let mut fix = Fix::new(reason, FixId::AddReplyRule);
    fix.needs_root = true;
    fix.steps = commands("add").into_iter().map(FixStep::Run).collect();
    let undo = commands("del").into_iter().rev().collect();
    fix.undo = Some(Undo { commands: undo, take_lines_out: false });
    vec![fix]
}

/// A table number from 100 on that nothing uses.
fn free_table(case: &Case<'_>) -> Option<TableId> {
    (100..=250).map(TableId).find(|table| {
        !case.netns.routes.iter().any(|route| route.table == *table)
            && !case.netns.links.iter().any(|link| link.vrf_table == Some(*table))
            && !case
                .netns
                .policy_rules
                .iter()
                .any(|rule| rule.action == PolicyAction::Lookup(*table))
    })
}

/// A priority before every rule but the one for table local.
fn first_priority(case: &Case<'_>, family: Family) -> Option<u32> {
    let priorities = case.netns.policy_rules.iter().filter(|rule| rule.family == family);
    priorities.map(|rule| rule.priority).filter(|priority| *priority > 1).min().map(|p| p - 1)
}

pub(super) fn lookup_rule(source: Prefix, table: TableId, priority: u32) -> PolicyRule {
    PolicyRule {
        source: Some(source),
        ..PolicyRule::new(source.family(), priority, PolicyAction::Lookup(table))
    }
}

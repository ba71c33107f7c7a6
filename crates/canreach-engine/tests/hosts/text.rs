//! A host as text, close to what `ip` prints, for the report of a disagreement.

use std::fmt::Write;

use canreach_engine::{Arrival, Question};
use canreach_snapshot::{Address, LinkFlags, Netns, PolicyRule, Route, RouteProtocol, Socket};

/// Everything of a host that is not at its default.
pub(crate) fn describe(netns: &Netns) -> String {
    let mut text = format!("fib {:?}\n", netns.fib_layout);
    for link in &netns.links {
        let _ = writeln!(
            text,
            "link {} {} {:?} up={} carrier={} master={:?} group={} vrf_table={:?}",
            link.ifindex.0,
            link.name,
            link.kind,
            link.flags.has(LinkFlags::UP),
            link.flags.has(LinkFlags::LOWER_UP),
            link.master.map(|master| master.0),
            link.group,
            link.vrf_table.map(|table| table.0),
        );
    }
    for of in &netns.addresses {
        let _ = writeln!(text, "address {}", address(of));
    }
    for (index, of) in netns.routes.iter().enumerate() {
        let _ = writeln!(text, "route[{index}] {}", route(of));
    }
    for of in &netns.policy_rules {
        let _ = writeln!(text, "rule {}", rule(of));
    }
    for (index, of) in netns.sockets.iter().enumerate() {
        let _ = writeln!(text, "socket[{index}] {}", socket(of));
    }
    for neighbor in netns.neighbors.iter().filter(|neighbor| neighbor.proxy) {
        let _ = writeln!(text, "proxy {} dev {}", neighbor.address, neighbor.ifindex.0);
    }
    if !netns.sysctls.all.is_empty() {
        let _ = writeln!(text, "sysctl all {:?}", netns.sysctls.all);
    }
    for (link, values) in &netns.sysctls.links {
        let _ = writeln!(text, "sysctl {link} {values:?}");
    }
    if !netns.sysctls.global.is_empty() {
        let _ = writeln!(text, "sysctl {:?}", netns.sysctls.global);
    }
    for chain in &netns.firewall.chains {
        let _ = writeln!(
            text,
            "chain {:?} {:?} {:?} rules={} {:?}",
            chain.family, chain.hook, chain.devices, chain.rules, chain.policy
        );
    }
    for table in &netns.firewall.legacy_tables {
        let _ = writeln!(text, "legacy {table:?}");
    }
    if netns.firewall.cannot_redirect {
        text.push_str("cannot redirect\n");
    }
    for attachment in &netns.bpf {
        let _ = writeln!(text, "bpf {:?}", attachment.point);
    }
    for gap in &netns.gaps {
        let _ = writeln!(text, "gap {:?} {:?}", gap.subject, gap.reason);
    }
    text
}

fn address(of: &Address) -> String {
    let mut text = format!("{} dev {}", of.prefix, of.ifindex.0);
    let mut note = |present: bool, word: String| {
        if present {
            text.push_str(&word);
        }
    };
    note(of.scope.0 != 0, format!(" scope {}", of.scope.0));
    note(of.flags.0 != 0x80, format!(" flags {:#x}", of.flags.0));
    note(of.peer.is_some(), format!(" peer {:?}", of.peer));
    text
}

fn route(of: &Route) -> String {
    let mut text = format!("{:?} {}", of.kind, of.destination);
    let mut note = |present: bool, word: String| {
        if present {
            text.push_str(&word);
        }
    };
    note(of.source.is_some(), format!(" from {:?}", of.source.map(|of| of.to_string())));
    for nexthop in &of.nexthops {
        let gateway = nexthop.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        note(true, format!(" nexthop[{gateway} dev {:?}", nexthop.ifindex.map(|of| of.0)));
        note(nexthop.flags.0 != 0, format!(" flags {:#x}", nexthop.flags.0));
        note(true, "]".to_owned());
    }
    note(true, format!(" table {}", of.table.0));
    note(of.scope.0 != 0, format!(" scope {}", of.scope.0));
    note(of.metric != 0, format!(" metric {}", of.metric));
    note(of.tos != 0, format!(" tos {}", of.tos));
    note(of.protocol != RouteProtocol::KERNEL, format!(" proto {}", of.protocol.0));
    note(of.preferred_source.is_some(), format!(" src {:?}", of.preferred_source));
    note(of.preference.is_some(), format!(" pref {:?}", of.preference));
    note(of.nexthop_id.is_some(), format!(" nhid {:?}", of.nexthop_id));
    note(of.realm.is_some(), format!(" realm {:?}", of.realm));
    text
}

fn rule(of: &PolicyRule) -> String {
    let mut text = format!("{:?} {}:", of.family, of.priority);
    let mut note = |present: bool, word: String| {
        if present {
            text.push_str(&word);
        }
    };
    note(of.invert, " not".to_owned());
    note(
        of.source.is_some(),
        format!(" from {}", of.source.map_or(String::new(), |p| p.to_string())),
    );
    note(
        of.destination.is_some(),
        format!(" to {}", of.destination.map_or(String::new(), |p| p.to_string())),
    );
    note(of.iif.is_some(), format!(" iif {:?}", of.iif));
    note(of.oif.is_some(), format!(" oif {:?}", of.oif));
    note(of.mark_mask != 0, format!(" mark {}/{}", of.mark, of.mark_mask));
    note(of.uid_range.is_some(), format!(" uid {:?}", of.uid_range));
    note(of.ip_protocol.is_some(), format!(" ipproto {:?}", of.ip_protocol));
    note(of.source_ports.is_some(), format!(" sport {:?}", of.source_ports));
    note(of.destination_ports.is_some(), format!(" dport {:?}", of.destination_ports));
    note(of.tos != 0, format!(" tos {}", of.tos));
    note(of.dscp.is_some(), format!(" dscp {:?}", of.dscp));
    note(of.tunnel_id.is_some(), format!(" tunnel {:?}", of.tunnel_id));
    note(of.l3mdev, " l3mdev".to_owned());
    note(true, format!(" {:?}", of.action));
    note(
        of.suppress_prefix_length.is_some(),
        format!(" suppress_prefixlength {:?}", of.suppress_prefix_length),
    );
    note(of.suppress_ifgroup.is_some(), format!(" suppress_ifgroup {:?}", of.suppress_ifgroup));
    note(!of.unrecognized.is_empty(), format!(" unrecognized {:?}", of.unrecognized));
    text
}

fn socket(of: &Socket) -> String {
    let mut text =
        format!("{} {:?} {}:{} {:?}", of.proto.name(), of.family, of.address, of.port, of.state);
    let mut note = |present: bool, word: String| {
        if present {
            text.push_str(&word);
        }
    };
    note(of.peer.is_some(), format!(" peer {:?}", of.peer));
    note(of.device.is_some(), format!(" dev {:?}", of.device.map(|device| device.0)));
    note(of.v6only.is_some(), format!(" v6only {:?}", of.v6only));
    note(of.mark.map(|mark| mark.0) != Some(0), format!(" mark {:?}", of.mark));
    note(of.transparent == Some(true), " transparent".to_owned());
    note(of.uid != 0, format!(" uid {}", of.uid));
    note(true, format!(" cgroup {:?}", of.cgroup.map(|group| group.0)));
    note(of.backlog.is_some_and(|backlog| backlog.is_full()), " full".to_owned());
    text
}

/// A question as it would be typed.
pub(crate) fn question(of: &Question) -> String {
    let via = match of.via {
        Arrival::Link(ifindex) => format!("link {}", ifindex.0),
        Arrival::Local { uid } => format!("local uid {uid}"),
    };
    format!("{} {} to {} from {} via {via}", of.proto.name(), of.port, of.to, of.from)
}

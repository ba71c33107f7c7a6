//! Policy rules, and which tables are searched.
//!
//! Mirrors `fib_lookup` (include/net/ip_fib.h), `fib6_rule_lookup` (net/ipv6/fib6_rules.c),
//! `fib_rules_lookup` and `fib_rule_match` (net/core/fib_rules.c). Left out: selectors that this
//! version does not know; a rule that has one is a doubt of the route stage.

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Family, Ifindex, LinkKind, PolicyAction, PolicyRule, Prefix, TableId};

use super::table::{FibError, Flow, Found, ways_out};
use super::walk::Walk;

impl Walk<'_> {
    /// Looks a flow up: IPv4 in the merged tables as long as no policy rule was ever added or
    /// deleted, otherwise by the rules.
    pub(super) fn fib_lookup(&mut self, flow: &Flow) -> Result<Found, FibError> {
        let family = Family::of(flow.destination);
        if family == Family::Ipv6 || self.split {
            return self.fib_rules_lookup(family, &self.l3mdev_update_flow(flow));
        }
        let merged = match self.fib_table_lookup(&[TableId::LOCAL, TableId::MAIN], flow) {
            Err(FibError::Again) => self.fib_table_lookup(&[TableId::DEFAULT], flow),
            answer => answer,
        };
        merged.map_err(|error| if error == FibError::Again { FibError::NoRoute } else { error })
    }

    /// `l3mdev_update_flow`: a flow through a VRF belongs to it; asking for the VRF itself as way out
    /// means its table, not its link.
    pub(super) fn l3mdev_update_flow(&self, flow: &Flow) -> Flow {
        let mut flow = flow.clone();
        if let Some(oif) = flow.oif.filter(|oif| self.link(*oif).is_some()) {
            flow.l3mdev = flow.l3mdev.or_else(|| self.l3mdev_master(oif));
            if self.link(oif).is_some_and(|link| link.kind == LinkKind::Vrf) {
                flow.oif = None;
            }
        } else if let Some(iif) = flow.iif.filter(|iif| *iif > LOOPBACK_IFINDEX) {
            flow.l3mdev = flow.l3mdev.or_else(|| self.l3mdev_master(iif));
        }
        flow
    }

    /// `fib_rules_lookup`: the first rule that has an answer.
    fn fib_rules_lookup(&mut self, family: Family, flow: &Flow) -> Result<Found, FibError> {
        let rules: Vec<&PolicyRule> =
            self.netns.policy_rules.iter().filter(|rule| rule.family == family).collect();
        let mut position = 0;
        while let Some(rule) = rules.get(position) {
            position += 1;
            if !self.fib_rule_match(rule, flow) {
                continue;
            }
            let answer = match rule.action {
                PolicyAction::Goto(target) => {
                    // A rule can only send forward; without such a rule it does nothing.
                    let ahead = rules.iter().skip(position);
                    if let Some(distance) = ahead.clone().position(|rule| rule.priority == target) {
                        position += distance;
                    }
                    continue;
                }
                PolicyAction::Nop => continue,
                PolicyAction::Unreachable => Err(FibError::RuleUnreachable),
                PolicyAction::Prohibit => Err(FibError::Prohibit),
                PolicyAction::Blackhole | PolicyAction::Other(_) => Err(FibError::Blackhole),
                PolicyAction::Lookup(table) => self.rule_table_lookup(rule, table, flow),
            };
            match answer {
                Err(FibError::Again) => {}
                Ok(found) if self.fib_rule_suppress(rule, &found) => {}
                // To a rule this is a result, not an error.
                Err(FibError::Discarded(route))
                    if self.fib_rule_suppress(rule, &Found { route, nexthops: vec![0] }) => {}
                answer => return answer,
            }
        }
        Err(FibError::NoRoute)
    }

    /// `fib4_rule_action`, `fib6_rule_action`.
    fn rule_table_lookup(
        &mut self,
        rule: &PolicyRule,
        table: TableId,
        flow: &Flow,
    ) -> Result<Found, FibError> {
        let of_vrf = || flow.l3mdev.and_then(|vrf| self.link(vrf)?.vrf_table);
        let table = if rule.l3mdev { of_vrf() } else { Some(table) };
        let Some(table) = table else { return Err(FibError::Again) };
        match rule.family {
            Family::Ipv4 => self.fib_table_lookup(&[table], flow),
            Family::Ipv6 => self.fib6_table_lookup(table, flow),
        }
    }

    /// `fib_rule_match`: every selector that is set, then the inversion of the whole.
    fn fib_rule_match(&self, rule: &PolicyRule, flow: &Flow) -> bool {
        let named = |name: &Option<String>, ifindex: Option<Ifindex>| match name {
            None => true,
            Some(name) => {
                let link = self.netns.link_named(name).map(|link| link.ifindex);
                link.is_some() && link == ifindex
            }
        };
        let in_range = |range: Option<(u16, u16)>, port: u16| match range {
            // `fib_rule_port_range_set`: a range with a zero end is none.
            None | Some((0, _) | (_, 0)) => true,
            Some((low, high)) => (low..=high).contains(&port),
        };
        let of_vrf = || {
            flow.l3mdev
                .and_then(|vrf| self.link(vrf))
                .is_some_and(|link| link.kind == LinkKind::Vrf && link.vrf_table.is_some())
        };
        let matches = named(&rule.iif, flow.iif)
            && named(&rule.oif, flow.oif)
            && (rule.mark ^ flow.mark) & rule.mark_mask == 0
            && rule.tunnel_id.is_none_or(|id| id == 0)
            && (!rule.l3mdev || of_vrf())
            && rule.uid_range.is_none_or(|(low, high)| (low..=high).contains(&flow.uid))
            && rule.source.is_none_or(|prefix| matches_source(prefix, flow))
            && rule.destination.is_none_or(|prefix| prefix.contains(flow.destination))
            // A packet without special wishes has TOS and DSCP 0.
            && rule.tos == 0
            && rule.dscp.is_none_or(|dscp| dscp == 0)
            && rule.ip_protocol.is_none_or(|number| number == 0 || number == flow.ip_protocol)
            && in_range(rule.source_ports, flow.source_port)
            && in_range(rule.destination_ports, flow.destination_port);
        matches != rule.invert
    }

    /// `fib4_rule_suppress`, `fib6_rule_suppress`: a result the rule is not to use.
    fn fib_rule_suppress(&self, rule: &PolicyRule, found: &Found) -> bool {
        let route = &self.netns.routes[found.route];
        let short = rule
            .suppress_prefix_length
            .is_some_and(|length| u32::from(route.destination.length()) <= length);
        // IPv4 looks at the route's first nexthop, whichever was found.
        let nexthop = match rule.family {
            Family::Ipv4 => 0,
            Family::Ipv6 => found.nexthops[0],
        };
        let link = ways_out(route).get(nexthop).and_then(|nexthop| nexthop.ifindex);
        let group = link.and_then(|ifindex| self.link(ifindex)).map(|link| link.group);
        short || (rule.suppress_ifgroup.is_some() && rule.suppress_ifgroup == group)
    }

    /// Whether the kernel looks into received packets for ports at all
    /// (`fib_rule_requires_fldissect`): only if some rule that is not for `iif lo` asks for them.
    pub(super) fn rules_require_dissection(&self, family: Family) -> bool {
        let loopback = self.link(LOOPBACK_IFINDEX).map(|link| link.name.as_str());
        let set =
            |range: Option<(u16, u16)>| range.is_some_and(|(low, high)| low != 0 && high != 0);
        self.netns.policy_rules.iter().any(|rule| {
            rule.family == family
                && (rule.iif.is_none() || rule.iif.as_deref() != loopback)
                && (rule.ip_protocol.is_some_and(|number| number != 0)
                    || set(rule.source_ports)
                    || set(rule.destination_ports))
        })
    }
}

/// IPv4 compares bits, and a source not chosen yet is 0.0.0.0; IPv6 does not match it at all.
fn matches_source(prefix: Prefix, flow: &Flow) -> bool {
    let family = Family::of(flow.destination);
    match (family, flow.source) {
        (_, Some(source)) => prefix.contains(source),
        (Family::Ipv4, None) => prefix.contains(family.unspecified()),
        (Family::Ipv6, None) => prefix.length() == 0,
    }
}

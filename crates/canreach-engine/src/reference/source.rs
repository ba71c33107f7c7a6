//! Is the source acceptable on this link?
//!
//! Mirrors `fib_validate_source` and `__fib_validate_source` (net/ipv4/fib_frontend.c). IPv6 has no
//! such check. Left out: packets that IPsec decrypted.

use std::net::IpAddr;

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Family, Ifindex, LinkSysctl, RouteProtocol, RouteType};

use super::table::{FibError, Flow};
use super::walk::Walk;
use crate::{DoubtEffect, DropReason, UnknownReason};

impl Walk<'_> {
    /// `fib_validate_source`. `input` is the flow of the packet; `way_out` the link it would be
    /// forwarded by.
    pub(super) fn fib_validate_source(
        &mut self,
        input: &Flow,
        reverse_source: Option<IpAddr>,
        device: Ifindex,
        way_out: Option<Ifindex>,
    ) -> Result<(), DropReason> {
        let Some(source) = input.source else { return Ok(()) };
        let mode = self.link_sysctl(LinkSysctl::RpFilter, device);
        // A packet that goes back out where it came in is checked in full while redirects may be
        // sent, which is the default.
        if mode != 0 || self.routes_have_realms() || way_out == Some(device) {
            return self.full_check(input, source, reverse_source, device, way_out, mode);
        }
        if self.link_sysctl(LinkSysctl::AcceptLocal, device) != 0 {
            return Ok(());
        }
        let full = self.full_check(input, source, reverse_source, device, way_out, 0);
        if self.split || self.has_custom_local_route() {
            return full;
        }
        let own = self.netns.addresses.iter().any(|address| address.address() == source);
        let short = if own { Err(DropReason::OwnSource) } else { Ok(()) };
        // A local route that was added by hand and is gone again has left its mark, which nothing
        // shows: then the full check is done.
        if short.is_ok() != full.is_ok() {
            self.doubt(UnknownReason::FibHistory, DoubtEffect::MayStop);
            return Ok(());
        }
        short
    }

    /// `__fib_validate_source`: the route back to the source, as if this machine sent there.
    fn full_check(
        &mut self,
        input: &Flow,
        source: IpAddr,
        reverse_source: Option<IpAddr>,
        device: Ifindex,
        way_out: Option<Ifindex>,
        mode: i64,
    ) -> Result<(), DropReason> {
        let filtered = if mode == 0 { Ok(()) } else { Err(DropReason::RpFilter) };
        // The packet's mark counts only where src_valid_mark says so.
        let counts = input.mark != 0 && self.link_sysctl(LinkSysctl::SrcValidMark, device) != 0;
        let back = Flow {
            destination: source,
            source: reverse_source,
            iif: Some(way_out.unwrap_or(LOOPBACK_IFINDEX)),
            oif: None,
            l3mdev: self.l3mdev_master(device),
            mark: if counts { input.mark } else { 0 },
            uid: 0,
            ip_protocol: input.ip_protocol,
            source_port: input.destination_port,
            destination_port: input.source_port,
            input: false,
            strict: false,
        };
        let found = match self.fib_lookup(&back) {
            Ok(found) => found,
            Err(
                FibError::NoRoute
                | FibError::RuleUnreachable
                | FibError::Discarded(_)
                | FibError::RouteUnreachable
                | FibError::Prohibit
                | FibError::Blackhole
                | FibError::Again,
            ) => return filtered,
        };
        let route = &self.netns.routes[found.route];
        if route.kind == RouteType::Local {
            if self.link_sysctl(LinkSysctl::AcceptLocal, device) == 0 {
                return Err(DropReason::OwnSource);
            }
        } else if route.kind != RouteType::Unicast {
            return Err(DropReason::Martian);
        }
        // `fib_info_nh_uses_dev`: any of its nexthops, usable or not.
        let leads_back = route
            .nexthops
            .iter()
            .filter_map(|nexthop| nexthop.ifindex)
            .any(|link| link == device || self.l3mdev_master(link) == Some(device));
        let through_loopback = route.kind == RouteType::Local && device == LOOPBACK_IFINDEX;
        if leads_back || through_loopback {
            return Ok(());
        }
        let has_address =
            self.netns.addresses.iter().any(|address| {
                address.ifindex == device && address.prefix.family() == Family::Ipv4
            });
        if !has_address {
            return filtered;
        }
        if mode == 1 { Err(DropReason::RpFilter) } else { Ok(()) }
    }

    /// `fib_num_tclassid_users`: routes or rules that hand out realms.
    fn routes_have_realms(&self) -> bool {
        let routes = self.netns.routes.iter();
        let rules = self.netns.policy_rules.iter();
        routes
            .filter(|route| route.family() == Family::Ipv4)
            .any(|route| route.realm.is_some_and(|realm| realm != 0))
            || rules
                .filter(|rule| rule.family == Family::Ipv4)
                .any(|rule| rule.realm.is_some_and(|realm| realm != 0))
    }

    /// `fib_has_custom_local_routes`, as far as it shows: a local route not made by the kernel.
    fn has_custom_local_route(&self) -> bool {
        self.netns.routes.iter().any(|route| {
            route.family() == Family::Ipv4
                && route.kind == RouteType::Local
                && route.protocol != RouteProtocol::KERNEL
        })
    }
}

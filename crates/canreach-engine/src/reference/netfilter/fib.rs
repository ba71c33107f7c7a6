//! Rules that ask the routing tables.
//!
//! Mirrors `nft_fib4_eval`, `nft_fib4_eval_type` and the IPv6 twins (nft_fib_ipv4.c, nft_fib_ipv6.c),
//! xt_addrtype.c, ipt_rpfilter.c and ip6t_rpfilter.c.

use std::net::IpAddr;

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::nft::expr::{FibFlags, FibResult};
use canreach_snapshot::{Family, Ifindex, NfHook, RouteType, TableId};

use super::header::Load;
use super::skb::{Place, Skb};
use super::value::{Tri, Value};
use crate::reference::output::NoWayOut;
use crate::reference::route::{is_limited_broadcast, is_link_local};
use crate::reference::table::{FibError, Flow};
use crate::reference::walk::Walk;

/// `RTN_*`.
const UNICAST: u32 = 1;
const LOCAL: u32 = 2;
const BROADCAST: u32 = 3;
const ANYCAST: u32 = 4;
const MULTICAST: u32 = 5;
const BLACKHOLE: u32 = 6;
const UNREACHABLE: u32 = 7;
const PROHIBIT: u32 = 8;

/// Bits of `XT_ADDRTYPE_*` that IPv6 asks the tables for, or the address itself.
const XT_UNSPEC: u16 = 1;
const XT_UNICAST: u16 = 1 << UNICAST;
const XT_LOCAL: u16 = 1 << LOCAL;
const XT_ANYCAST: u16 = 1 << ANYCAST;
const XT_MULTICAST: u16 = 1 << MULTICAST;
const XT_UNREACHABLE: u16 = 1 << UNREACHABLE;

impl Walk<'_> {
    /// `nft_fib_inet_eval`.
    pub(super) fn fib(
        &mut self,
        result: FibResult,
        flags: FibFlags,
        skb: &Skb,
        place: &Place,
    ) -> Load {
        let device = match (flags.iif, flags.oif) {
            (true, _) => place.iif,
            (false, true) => place.oif,
            (false, false) => None,
        };
        let address = if flags.daddr { skb.destination } else { skb.source };
        match result {
            FibResult::Addrtype => {
                let kind = match skb.family {
                    Some(Family::Ipv4) => {
                        let near = place.iif.or(place.oif);
                        self.inet_addr_type(address, device, near)
                    }
                    Some(Family::Ipv6) => self.fib6_type(address, device, flags, skb, place),
                    None => return Load::Break,
                };
                Load::Value(Value::of(&kind.to_le_bytes()))
            }
            FibResult::Oif | FibResult::Oifname => {
                let found = self.fib_oif(flags, device, skb, place);
                let index = found.map_or(0, |link| link.0);
                Load::Value(match result {
                    FibResult::Oifname => self.link_name(found),
                    FibResult::Oif | FibResult::Addrtype if flags.present => {
                        Value::of(&[u8::from(index != 0)])
                    }
                    FibResult::Oif | FibResult::Addrtype => Value::of(&index.to_le_bytes()),
                })
            }
        }
    }

    /// `inet_addr_type_dev_table`, and with a device `inet_dev_addr_type`: by table local, or that of
    /// the VRF, alone.
    pub(super) fn inet_addr_type(
        &mut self,
        address: IpAddr,
        device: Option<Ifindex>,
        near: Option<Ifindex>,
    ) -> u32 {
        if address.is_unspecified() || is_limited_broadcast(address) {
            return BROADCAST;
        }
        if address.is_multicast() {
            return MULTICAST;
        }
        let vrf = device.or(near).and_then(|link| self.l3mdev_master(link));
        let of_vrf = vrf.and_then(|vrf| self.link(vrf)?.vrf_table);
        let merged = [TableId::LOCAL, TableId::MAIN];
        let flow = self.output_flow(address);
        let found = match of_vrf {
            Some(table) => self.fib_table_lookup(&[table], &flow),
            None if self.split => self.fib_table_lookup(&merged[..1], &flow),
            None => self.fib_table_lookup(&merged, &flow),
        };
        let Ok(found) = found else { return UNICAST };
        let route = &self.netns.routes[found.route];
        let nexthop = found.nexthops.first().and_then(|at| route.nexthops.get(*at));
        let through = nexthop.and_then(|nexthop| nexthop.ifindex);
        if device.is_some() && through != device {
            return UNICAST;
        }
        match route.kind {
            RouteType::Local => LOCAL,
            RouteType::Broadcast => BROADCAST,
            RouteType::Anycast => ANYCAST,
            RouteType::Multicast => MULTICAST,
            RouteType::Unicast
            | RouteType::Blackhole
            | RouteType::Unreachable
            | RouteType::Prohibit
            | RouteType::Throw
            | RouteType::Nat
            | RouteType::Other(_) => UNICAST,
        }
    }

    /// `__nft_fib6_eval_type`.
    fn fib6_type(
        &mut self,
        address: IpAddr,
        device: Option<Ifindex>,
        flags: FibFlags,
        skb: &Skb,
        place: &Place,
    ) -> u32 {
        let flow = self.fib_flow(flags, device, skb, place);
        let on_device = device.is_some_and(|device| self.has_address(device, address));
        let way = match self.ip_route_output(&flow, true) {
            Ok(way) => way,
            Err(NoWayOut::Fib(FibError::Blackhole)) => return BLACKHOLE,
            Err(NoWayOut::Fib(FibError::Prohibit)) => return PROHIBIT,
            Err(NoWayOut::Fib(_) | NoWayOut::Source) => return UNREACHABLE,
        };
        if way.kind == RouteType::Anycast {
            ANYCAST
        } else if on_device || (device.is_none() && way.kind == RouteType::Local) {
            LOCAL
        } else if address.is_multicast() {
            MULTICAST
        } else {
            UNICAST
        }
    }

    /// `ipv6_chk_addr`: the device has the address, and has checked it.
    fn has_address(&self, device: Ifindex, address: IpAddr) -> bool {
        self.netns
            .addresses
            .iter()
            .any(|own| own.ifindex == device && own.address() == address && !own.is_tentative())
    }

    /// The flow that `nft_fib4_eval` and `nft_fib6_flowi_init` make.
    fn fib_flow(&self, flags: FibFlags, device: Option<Ifindex>, skb: &Skb, place: &Place) -> Flow {
        let (destination, source) =
            if flags.daddr { (skb.destination, skb.source) } else { (skb.source, skb.destination) };
        let near = device.or(place.iif).or(place.oif);
        let reversed_forward = !flags.daddr && flags.iif && place.hook == NfHook::Forward;
        let usable = |source: &IpAddr| {
            skb.family == Some(Family::Ipv6)
                || !(source.is_multicast()
                    || is_limited_broadcast(*source)
                    || source.is_unspecified())
        };
        Flow {
            source: Some(source).filter(usable),
            iif: if reversed_forward { place.oif } else { Some(LOOPBACK_IFINDEX) },
            oif: near.filter(|_| is_link_local(destination)),
            l3mdev: near.and_then(|link| self.l3mdev_master(link)),
            mark: if flags.mark { skb.mark } else { 0 },
            ip_protocol: skb.protocol,
            strict: is_link_local(destination),
            ..self.output_flow(destination)
        }
    }

    /// `nft_fib4_eval`, `nft_fib6_eval`: the link found; `None` for none.
    fn fib_oif(
        &mut self,
        flags: FibFlags,
        device: Option<Ifindex>,
        skb: &Skb,
        place: &Place,
    ) -> Option<Ifindex> {
        let early = matches!(place.hook, NfHook::Prerouting | NfHook::Ingress | NfHook::Input);
        if early && self.is_loopback(place.iif) {
            return place.iif;
        }
        if skb.family == Some(Family::Ipv4)
            && skb.source.is_unspecified()
            && is_limited_broadcast(skb.destination)
        {
            return place.iif;
        }
        if skb.source.is_unspecified() && is_link_local(skb.destination) && skb.is_icmp() {
            return place.iif;
        }
        let flow = self.fib_flow(flags, device, skb, place);
        let found = self.fib_lookup(&flow).ok()?;
        let route = &self.netns.routes[found.route];
        let refuses = match skb.family {
            Some(Family::Ipv6) => matches!(route.kind, RouteType::Local | RouteType::Anycast),
            _ => route.kind == RouteType::Local,
        };
        if refuses {
            return None;
        }
        let through = |at: usize| route.nexthops.get(at).and_then(|nexthop| nexthop.ifindex);
        let first = found.nexthops.first().and_then(|at| through(*at));
        let Some(device) = device else { return first };
        let uses = |link: Ifindex| link == device || self.l3mdev_master(link) == Some(device);
        let all = match skb.family {
            // `fib_info_nh_uses_dev`: any of its nexthops.
            Some(Family::Ipv4) => (0..route.nexthops.len()).filter_map(through).any(uses),
            _ => first.is_some_and(uses),
        };
        all.then_some(device)
    }

    fn is_loopback(&self, link: Option<Ifindex>) -> bool {
        link.and_then(|link| self.link(link)).is_some_and(canreach_snapshot::Link::is_loopback)
    }

    /// `match_type` and `match_type6` of xt_addrtype.c, for one address.
    pub(super) fn xt_addrtype(
        &mut self,
        address: IpAddr,
        mask: u16,
        device: Option<Ifindex>,
    ) -> bool {
        if Family::of(address) == Family::Ipv4 {
            return mask & 1_u16.wrapping_shl(self.inet_addr_type(address, device, None)) != 0;
        }
        let is_multicast = address.is_multicast();
        let is_unicast = !is_multicast && !address.is_unspecified();
        if (mask & XT_MULTICAST != 0 && !is_multicast)
            || (mask & XT_UNICAST != 0 && !is_unicast)
            || (mask & XT_UNSPEC != 0 && !address.is_unspecified())
        {
            return false;
        }
        if mask & (XT_LOCAL | XT_ANYCAST | XT_UNREACHABLE) == 0 {
            return true;
        }
        mask & self.match_lookup_rt6(address, mask, device) != 0
    }

    /// `match_lookup_rt6`.
    fn match_lookup_rt6(&mut self, address: IpAddr, mask: u16, device: Option<Ifindex>) -> u16 {
        let on_device = device.is_some_and(|device| self.has_address(device, address));
        let mut found = if on_device && mask & XT_LOCAL != 0 { XT_LOCAL } else { 0 };
        let flow = Flow { oif: device, iif: None, ..self.output_flow(address) };
        let Ok(way) = self.ip_route_output(&flow, true) else { return XT_UNREACHABLE };
        if device.is_none() && way.kind == RouteType::Local {
            found |= XT_LOCAL;
        }
        if way.kind == RouteType::Anycast {
            found |= XT_ANYCAST;
        }
        found
    }

    /// `rpfilter_mt`.
    pub(super) fn xt_rpfilter(
        &mut self,
        loose: bool,
        valid_mark: bool,
        accept_local: bool,
        skb: &Skb,
        place: &Place,
    ) -> Tri {
        if self.is_loopback(place.iif) {
            return Tri::Yes;
        }
        let flags = FibFlags { saddr: true, mark: valid_mark, ..FibFlags::default() };
        let mut flow = self.fib_flow(flags, place.iif, skb, place);
        if skb.family == Some(Family::Ipv4) {
            flow.ip_protocol = 0;
        } else if !loose {
            // `rpfilter_lookup_reverse6` asks for the way out by the device.
            flow.oif = place.iif;
            flow.strict = true;
        }
        let Ok(found) = self.fib_lookup(&flow) else { return Tri::No };
        let route = &self.netns.routes[found.route];
        let fits = match skb.family {
            Some(Family::Ipv4) => {
                route.kind == RouteType::Unicast || (route.kind == RouteType::Local && accept_local)
            }
            _ => match route.kind {
                RouteType::Anycast => false,
                RouteType::Local => accept_local,
                RouteType::Unicast
                | RouteType::Broadcast
                | RouteType::Multicast
                | RouteType::Blackhole
                | RouteType::Unreachable
                | RouteType::Prohibit
                | RouteType::Throw
                | RouteType::Nat
                | RouteType::Other(_) => true,
            },
        };
        let device = place.iif;
        let uses = |link: Ifindex| {
            Some(link) == device || (device.is_some() && self.l3mdev_master(link) == device)
        };
        let back = route.nexthops.iter().filter_map(|nexthop| nexthop.ifindex).any(uses);
        Tri::of(fits && (loose || back))
    }
}

//! Rules that ask the routing tables: `fib`, `addrtype`, `rpfilter`.
//!
//! *Kernel:* `nft_fib4_eval`, `nft_fib4_eval_type`, `nft_fib6_eval`, `nft_fib6_eval_type`,
//! `inet_dev_addr_type`, `match_type6`, `rpfilter_mt`. Left out: multipath hashing (the first nexthop
//! stands for all where one is named), ND messages.

use canreach_snapshot::nft::expr::{FibFlags, FibResult, Register};
use canreach_snapshot::xt::MatchKind;
use canreach_snapshot::{Family, Ifindex, NfHook, TableId, link::LOOPBACK_IFINDEX};

use crate::host::flow::{Flow, Found, PortTerm, Refusal, Term, WayKind};
use crate::host::policy::Lookup;
use crate::netfilter::chain::{Evaluation, State};
use crate::netfilter::expr::{At, Sink, Value};
use crate::netfilter::unknown::{Cause, Sameness, Unknowns};
use crate::netfilter::view::{Part, View};
use crate::netfilter::xt_match::truth;
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;
use crate::{NfSubject, UnknownReason};

/// `RTN_*` of include/uapi/linux/rtnetlink.h.
mod rtn {
    pub(super) const UNSPEC: u32 = 0;
    pub(super) const UNICAST: u32 = 1;
    pub(super) const LOCAL: u32 = 2;
    pub(super) const BROADCAST: u32 = 3;
    pub(super) const ANYCAST: u32 = 4;
    pub(super) const MULTICAST: u32 = 5;
    pub(super) const BLACKHOLE: u32 = 6;
    pub(super) const UNREACHABLE: u32 = 7;
    pub(super) const PROHIBIT: u32 = 8;
}

/// What is looked up.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// The address.
    address: Part,
    /// The other one.
    other: Part,
    /// The link that counts, if one does.
    device: Option<Ifindex>,
    /// What the lookup takes for the link it came in by.
    iif: Ifindex,
    /// The link that nexthops must use.
    oif: Option<Ifindex>,
    mark: u32,
}

/// A partition of all packets by what was found.
type Found32 = Vec<(PacketSet, u32)>;

const LINK_LOCAL: (u128, u128) = (0xfe80 << 112, (0xfec0 << 112) - 1);
const IPV6_MULTICAST: (u128, u128) = (0xff << 120, u128::MAX);
const IPV4_MULTICAST: (u128, u128) = (0xe000_0000, 0xefff_ffff);

impl Evaluation<'_, '_, '_> {
    /// `fib`.
    pub(crate) fn fib(
        &mut self,
        at: At,
        register: Register,
        (result, flags): (FibResult, FibFlags),
        state: State,
        sink: &mut Sink<'_>,
    ) {
        let view = &state.view;
        let (address, other) = if flags.daddr {
            (view.destination, view.source)
        } else {
            (view.source, view.destination)
        };
        let device = match (flags.iif, flags.oif) {
            (true, _) => view.iif,
            (false, true) => view.oif,
            (false, false) => None,
        };
        let asked = Asked {
            address,
            other,
            device,
            iif: LOOPBACK_IFINDEX,
            oif: None,
            mark: if flags.mark { view.mark } else { 0 },
        };
        let found = if result == FibResult::Addrtype {
            self.either_layout(at.1, view, |this, split| this.address_type(view, asked, split))
        } else if self.skips(view) {
            vec![(PacketSet::ALL, view.iif.map_or(0, |link| link.0))]
        } else {
            let forwards = self.place.hook == NfHook::Forward && flags.iif && !flags.daddr;
            let iif = if forwards { view.oif } else { None }.unwrap_or(LOOPBACK_IFINDEX);
            let asked = Asked { iif, ..asked };
            self.either_layout(at.1, view, |this, split| this.out_link(view, asked, split))
        };
        for (set, number) in found {
            let here = self.sets.and(state.set, set);
            let value = match result {
                FibResult::Addrtype => Value::number(number),
                FibResult::Oif | FibResult::Oifname if flags.present => {
                    Value::known(&[u8::from(number != 0), 0, 0, 0])
                }
                FibResult::Oif => Value::number(number),
                FibResult::Oifname => Value::name(
                    self.host.link(Ifindex(number)).map_or("", |link| link.name.as_str()),
                ),
            };
            let state = State { set: here, ..state.clone() };
            if !here.is_empty() {
                self.store(at, register, value, state, sink);
            }
        }
    }

    /// `nft_fib_can_skip`: what came in by `lo` is not asked about.
    fn skips(&self, view: &View) -> bool {
        let here = matches!(self.place.hook, NfHook::Ingress | NfHook::Prerouting | NfHook::Input);
        here && (view.socket.is_some()
            || view.iif.and_then(|iif| self.host.link(iif)).is_some_and(|l| l.is_loopback()))
    }

    /// Where it could not be read whether IPv4 walks rules: what both layouts give, else not known.
    fn either_layout(
        &mut self,
        subject: NfSubject,
        view: &View,
        find: impl Fn(&mut Self, bool) -> Found32,
    ) -> Found32 {
        if view.family == Family::Ipv6 {
            return find(self, true);
        }
        if let Some(split) = self.host.is_split() {
            return find(self, split);
        }
        let (merged, split) = (find(self, false), find(self, true));
        if merged == split {
            return merged;
        }
        let cause = Cause { reason: UnknownReason::FibLayout, subject: Some(subject) };
        let same = Sameness::Machine("fib layout".to_owned());
        let variable = self.unknowns.same(same, cause, 0, 1);
        let is_split = Unknowns::happens(self.sets, variable);
        let mut both = Found32::new();
        for (set, value) in split {
            both.push((self.sets.and(set, is_split), value));
        }
        for (set, value) in merged {
            both.push((self.sets.difference(set, is_split), value));
        }
        both
    }

    fn flow(&self, view: &View, asked: Asked, split: bool) -> Option<Flow> {
        let term = |part| match part {
            Part::Is(value) => Some(Term::Is(value)),
            Part::Client => Some(Term::AnySource),
            Part::Chosen(_) => None,
        };
        let link = asked.device.or(view.iif).or(view.oif);
        let vrf = link.and_then(|link| self.host.link(link)).and_then(|l| self.host.vrf_of(l));
        Some(Flow {
            family: view.family,
            destination: term(asked.address)?,
            source: term(asked.other)?,
            iif: asked.iif,
            oif: asked.oif,
            mark: asked.mark,
            uid: 0,
            vrf_table: vrf.map(|(_, table)| table),
            protocol: view.protocol,
            source_port: PortTerm::Absent,
            destination_port: PortTerm::Absent,
            strict: false,
            split,
        })
    }

    /// Packets whose address lies in one of some ranges; and the rest.
    fn cut(&mut self, part: Part, ranges: &[(u128, u128)]) -> (PacketSet, PacketSet) {
        let inside = self.part_within(part, Field::Source, ranges);
        (inside, self.sets.not(inside))
    }

    /// The route lookup: of IPv6, link-local addresses are looked for on one link only.
    fn look_up(&mut self, view: &View, asked: Asked, split: bool, within: PacketSet) -> Lookup {
        let Some(flow) = self.flow(view, asked, split) else { return Lookup::new() };
        if view.family == Family::Ipv4 {
            return self.host.look_up(self.sets, &flow, within);
        }
        let (near, far) = self.cut(asked.address, &[LINK_LOCAL]);
        let (near, far) = (self.sets.and(near, within), self.sets.and(far, within));
        let mut found = Lookup::new();
        if !near.is_empty() {
            let oif = asked.device.or(view.iif).or(view.oif);
            let flow = Flow { oif, strict: true, ..flow };
            found.extend(self.host.look_up(self.sets, &flow, near));
        }
        if !far.is_empty() {
            found.extend(self.host.look_up(self.sets, &flow, far));
        }
        found
    }

    /// The type of an address.
    fn address_type(&mut self, view: &View, asked: Asked, split: bool) -> Found32 {
        let found = match view.family {
            Family::Ipv4 => self.ipv4_type(view, asked, split),
            Family::Ipv6 => self.ipv6_type(view, asked, split),
        };
        self.united(found)
    }

    /// `__inet_dev_addr_type`: in table local, or the VRF's.
    fn ipv4_type(&mut self, view: &View, asked: Asked, split: bool) -> Found32 {
        let (broadcast, rest) = self.cut(asked.address, &[(0, 0), (0xffff_ffff, 0xffff_ffff)]);
        let (multicast, _) = self.cut(asked.address, &[IPV4_MULTICAST]);
        let mut rest = self.sets.difference(rest, multicast);
        let mut found = vec![(broadcast, rtn::BROADCAST), (multicast, rtn::MULTICAST)];
        let Some(flow) = self.flow(view, asked, split) else { return Found32::new() };
        let lookup = match flow.vrf_table {
            Some(table) => {
                let (lookup, missed) = self.host.look_up_in(self.sets, &flow, table, rest);
                found.push((missed, rtn::UNICAST));
                lookup
            }
            None if split => {
                let (lookup, missed) = self.host.look_up_in(self.sets, &flow, TableId::LOCAL, rest);
                found.push((missed, rtn::UNICAST));
                lookup
            }
            // What the merged tables do not hold is unicast either way.
            None => self.host.look_up(self.sets, &flow, rest),
        };
        for (set, what) in lookup {
            rest = self.sets.difference(rest, set);
            let kind = match what {
                Found::Route { way, .. } => {
                    let way = self.host.fib(Family::Ipv4).way(way);
                    let first = way
                        .exits
                        .first()
                        .map(|exit| exit.link)
                        .or_else(|| way.links.first().copied());
                    let here = asked.device.is_none() || asked.device == first;
                    if here { type_of(way.kind) } else { rtn::UNICAST }
                }
                Found::Refused { .. } => rtn::UNICAST,
            };
            found.push((set, kind));
        }
        found
    }

    /// `__nft_fib6_eval_type`.
    fn ipv6_type(&mut self, view: &View, asked: Asked, split: bool) -> Found32 {
        let own = self.own_of(asked.device);
        let (own, _) = self.cut(asked.address, &own);
        let lookup = self.look_up(view, asked, split, PacketSet::ALL);
        let (multicast, _) = self.cut(asked.address, &[IPV6_MULTICAST]);
        let (unspecified, _) = self.cut(asked.address, &[(0, 0)]);
        let mut found = Found32::new();
        for (set, what) in lookup {
            let route = match what {
                Found::Route { way, .. } => Ok(self.host.fib(Family::Ipv6).way(way).kind),
                Found::Refused { refusal, .. } => Err(refusal),
            };
            let kind = match route {
                Err(refusal) => {
                    found.push((set, refused_type(refusal)));
                    continue;
                }
                Ok(WayKind::Anycast) => Some(rtn::ANYCAST),
                Ok(WayKind::Local) if asked.device.is_none() => Some(rtn::LOCAL),
                Ok(_) => None,
            };
            if let Some(kind) = kind {
                found.push((set, kind));
                continue;
            }
            let mut rest = set;
            for (of, kind) in [
                (own, rtn::LOCAL),
                (multicast, rtn::MULTICAST),
                (unspecified, rtn::UNSPEC),
                (PacketSet::ALL, rtn::UNICAST),
            ] {
                let part = self.sets.and(rest, of);
                rest = self.sets.difference(rest, part);
                found.push((part, kind));
            }
        }
        found
    }

    /// `ipv6_chk_addr`: addresses of one link.
    fn own_of(&self, device: Option<Ifindex>) -> Vec<(u128, u128)> {
        let Some(device) = device else { return Vec::new() };
        let own = self.host.addresses_of(device).iter();
        let own = own.map(|index| &self.host.netns().addresses[*index]);
        let values = own
            .filter(|own| own.prefix.family() == Family::Ipv6 && !own.is_tentative())
            .map(|own| canreach_snapshot::address::address_value(own.address()));
        let mut values: Vec<_> = values.collect();
        values.sort_unstable();
        values.dedup();
        let set = crate::AddressSet::from_ranges(
            Family::Ipv6,
            values.into_iter().map(|value| (value, value)),
        );
        set.ranges().to_vec()
    }

    /// The link a route leads to, or 0: `nft_fib4_eval`, `nft_fib6_eval`.
    fn out_link(&mut self, view: &View, asked: Asked, split: bool) -> Found32 {
        let mut found = Found32::new();
        let mut within = PacketSet::ALL;
        if view.family == Family::Ipv4 {
            // A client that has no address yet is not asked about.
            let (nobody, rest) = self.cut(view.source, &[(0, 0)]);
            let (everyone, _) = self
                .cut(view.destination, &[(0xe000_0000, 0xe000_00ff), (0xffff_ffff, 0xffff_ffff)]);
            let passes = self.sets.and(nobody, everyone);
            found.push((passes, view.iif.or(view.oif).map_or(0, |link| link.0)));
            let other = self.sets.difference(nobody, passes);
            within = self.sets.or(rest, other);
        }
        for (set, what) in self.look_up(view, asked, split, within) {
            found.push((set, self.link_of(view.family, what, asked.device)));
        }
        self.united(found)
    }

    fn link_of(&self, family: Family, what: Found, device: Option<Ifindex>) -> u32 {
        let Found::Route { way, .. } = what else { return 0 };
        let way = self.host.fib(family).way(way);
        let refuses = match family {
            Family::Ipv4 => way.kind == WayKind::Local,
            Family::Ipv6 => matches!(way.kind, WayKind::Local | WayKind::Anycast),
        };
        if refuses {
            return 0;
        }
        match device {
            None => way.exits.first().map_or(0, |exit| exit.link.0),
            Some(device) => {
                let uses = way.links.iter().any(|link| {
                    *link == device
                        || self
                            .host
                            .link(*link)
                            .and_then(|link| self.host.vrf_of(link))
                            .is_some_and(|(master, _)| master == device)
                });
                if uses { device.0 } else { 0 }
            }
        }
    }

    fn united(&mut self, found: Found32) -> Found32 {
        let mut united = Found32::new();
        for (set, value) in found {
            if set.is_empty() {
                continue;
            }
            match united.iter_mut().find(|(_, known)| *known == value) {
                Some((sum, _)) => *sum = self.sets.or(*sum, set),
                None => united.push((set, value)),
            }
        }
        united.sort_unstable_by_key(|(_, value)| *value);
        united
    }

    /// `addrtype`.
    pub(crate) fn addrtype(
        &mut self,
        subject: NfSubject,
        view: &View,
        kind: &MatchKind,
    ) -> PacketSet {
        let MatchKind::Addrtype {
            source,
            source_inverted,
            destination,
            destination_inverted,
            limit_iface_in,
            limit_iface_out,
        } = kind
        else {
            return PacketSet::NONE;
        };
        let device = match (limit_iface_in, limit_iface_out) {
            (true, _) => view.iif,
            (false, true) => view.oif,
            (false, false) => None,
        };
        let mut set = PacketSet::ALL;
        for (mask, inverted, address, other) in [
            (*source, *source_inverted, view.source, view.destination),
            (*destination, *destination_inverted, view.destination, view.source),
        ] {
            if mask == 0 {
                continue;
            }
            let asked = Asked { address, other, device, iif: LOOPBACK_IFINDEX, oif: None, mark: 0 };
            let holds = match view.family {
                Family::Ipv4 => self.has_type(subject, view, asked, mask),
                Family::Ipv6 => self.has_ipv6_type(subject, view, asked, mask),
            };
            let holds = self.invert(holds, inverted);
            set = self.sets.and(set, holds);
        }
        set
    }

    fn has_type(&mut self, subject: NfSubject, view: &View, asked: Asked, mask: u16) -> PacketSet {
        let found =
            self.either_layout(subject, view, |this, split| this.address_type(view, asked, split));
        let mut set = PacketSet::NONE;
        for (of, kind) in found {
            if u32::from(mask) & (1_u32 << kind) != 0 {
                set = self.sets.or(set, of);
            }
        }
        set
    }

    /// `match_type6`: every one of some types must hold, and one of others.
    fn has_ipv6_type(
        &mut self,
        subject: NfSubject,
        view: &View,
        asked: Asked,
        mask: u16,
    ) -> PacketSet {
        let has = |kind: u32| u32::from(mask) & (1 << kind) != 0;
        let (multicast, not_multicast) = self.cut(asked.address, &[IPV6_MULTICAST]);
        let (unspecified, specified) = self.cut(asked.address, &[(0, 0)]);
        let mut set = PacketSet::ALL;
        if has(rtn::MULTICAST) {
            set = self.sets.and(set, multicast);
        }
        if has(rtn::UNICAST) {
            let unicast = self.sets.and(not_multicast, specified);
            set = self.sets.and(set, unicast);
        }
        if has(rtn::UNSPEC) {
            set = self.sets.and(set, unspecified);
        }
        let routed =
            u32::from(mask) & ((1 << rtn::LOCAL) | (1 << rtn::ANYCAST) | (1 << rtn::UNREACHABLE));
        if routed == 0 {
            return set;
        }
        // All errors of routes count as unreachable here.
        let mut bits = routed;
        if has(rtn::UNREACHABLE) {
            bits |= (1 << rtn::BLACKHOLE) | (1 << rtn::PROHIBIT);
        }
        let holds = self.has_type(subject, view, asked, bits as u16);
        self.sets.and(set, holds)
    }

    /// `rpfilter`.
    pub(crate) fn rpfilter(
        &mut self,
        subject: NfSubject,
        view: &View,
        kind: &MatchKind,
    ) -> PacketSet {
        let MatchKind::Rpfilter { loose, valid_mark, accept_local, inverted } = kind else {
            return PacketSet::NONE;
        };
        let loopback =
            view.iif.and_then(|iif| self.host.link(iif)).is_some_and(|link| link.is_loopback());
        if loopback {
            return truth(!*inverted);
        }
        let asked = Asked {
            address: view.source,
            other: view.destination,
            device: view.iif,
            iif: LOOPBACK_IFINDEX,
            oif: if view.family == Family::Ipv6 && !*loose { view.iif } else { None },
            mark: if *valid_mark { view.mark } else { 0 },
        };
        let found = self.either_layout(subject, view, |this, split| {
            let lookup = this.look_up(view, asked, split, PacketSet::ALL);
            let mut found = Found32::new();
            for (set, what) in lookup {
                let Found::Route { way, .. } = what else { continue };
                let kind = this.host.fib(view.family).way(way).kind;
                let uses = *loose || this.uses(view.family, what, asked.device);
                let holds = match (kind, view.family) {
                    (WayKind::Unicast, _) => uses,
                    (WayKind::Local, Family::Ipv4) => *accept_local && uses,
                    (WayKind::Local, Family::Ipv6) => *accept_local,
                    (WayKind::Multicast, Family::Ipv6) => uses,
                    (_, _) => false,
                };
                if holds {
                    found.push((set, 1));
                }
            }
            this.united(found)
        });
        let special = match view.family {
            Family::Ipv4 => {
                let (nobody, _) = self.cut(view.source, &[(0, 0)]);
                let (everyone, _) = self.cut(
                    view.destination,
                    &[(0xe000_0000, 0xe000_00ff), (0xffff_ffff, 0xffff_ffff)],
                );
                self.sets.and(nobody, everyone)
            }
            Family::Ipv6 => self.cut(view.source, &[(0, 0)]).0,
        };
        let holds = found.into_iter().fold(special, |sum, (set, _)| self.sets.or(sum, set));
        self.invert(holds, *inverted)
    }

    /// `fib_info_nh_uses_dev`.
    fn uses(&self, family: Family, what: Found, device: Option<Ifindex>) -> bool {
        let Found::Route { way, .. } = what else { return false };
        self.host.fib(family).way(way).links.iter().any(|link| {
            Some(*link) == device
                || self
                    .host
                    .link(*link)
                    .and_then(|link| self.host.vrf_of(link))
                    .is_some_and(|(master, _)| Some(master) == device)
        })
    }
}

const fn type_of(kind: WayKind) -> u32 {
    match kind {
        WayKind::Unicast => rtn::UNICAST,
        WayKind::Local => rtn::LOCAL,
        WayKind::Broadcast => rtn::BROADCAST,
        WayKind::Anycast => rtn::ANYCAST,
        WayKind::Multicast => rtn::MULTICAST,
    }
}

/// The type that stands for an error (`__nft_fib6_eval_type`).
const fn refused_type(refusal: Refusal) -> u32 {
    match refusal {
        Refusal::Blackhole => rtn::BLACKHOLE,
        Refusal::Prohibit => rtn::PROHIBIT,
        Refusal::NoRoute
        | Refusal::RuleUnreachable
        | Refusal::RouteUnreachable
        | Refusal::Discarded => rtn::UNREACHABLE,
    }
}

//! One match of xtables.
//!
//! Mirrors the `match` functions of net/netfilter/xt_*.c and net/ipv4/netfilter/ipt_*.c. What depends on
//! the time, on other packets, on the sender's own choice or on a program cannot be told.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::xt::{
    ConntrackMatch, MaskedAddress, Match, MatchKind, MultiportWhich, PortRange, TimeMatch,
};
use canreach_snapshot::{Family, Ifindex, LinkKind};

use super::ct::is_untracked_icmp;
use super::header::{packet_bytes, tcp_option};
use super::skb::{Ct, CtState, Owner, Place, Skb, TCP, UDP};
use super::table::is_under;
use super::value::{Tri, Value};
use crate::UnknownReason;
use crate::reference::walk::Walk;

use UnknownReason::{
    EarlierPackets, NotModelled, OpaqueProgram, PacketDetails, RandomChoice, RateLimit, TimeOfDay,
};

/// `XT_CONNTRACK_STATE_*`.
const STATE_INVALID: u16 = 1;
const STATE_SNAT: u16 = 1 << 6;
const STATE_DNAT: u16 = 1 << 7;
const STATE_UNTRACKED: u16 = 1 << 8;
/// `XT_STATE_UNTRACKED`.
const OLD_STATE_UNTRACKED: u16 = 1 << 6;
/// `XT_RECENT_SET`.
const RECENT_SET: u8 = 2;

impl Walk<'_> {
    /// Whether a match holds.
    pub(super) fn xt_match(&mut self, of: &Match, skb: &Skb, place: &Place) -> Tri {
        let detail = |reason| Tri::Maybe(reason, Some(format!("{:?} {of:?}", skb.turn)));
        match &of.kind {
            MatchKind::Tcp { .. } | MatchKind::Udp { .. } | MatchKind::Icmp { .. } => {
                protocol_match(&of.kind, skb)
            }
            MatchKind::Multiport { which, ports, inverted } => {
                Tri::of(skb.has_ports() && has_one(*which, ports, skb) != *inverted)
            }
            MatchKind::Addrtype { .. } => self.addrtype(&of.kind, skb, place),
            MatchKind::Conntrack(wanted) => self.conntrack_match(wanted, skb),
            MatchKind::State { mask } => {
                Tri::of(mask & self.state_bit(skb, OLD_STATE_UNTRACKED) != 0)
            }
            MatchKind::Comment(_) | MatchKind::Nfacct { .. } => Tri::Yes,
            MatchKind::Iprange { .. } => iprange(&of.kind, skb),
            MatchKind::Set(reference) => self.in_ipset(reference, skb, place),
            MatchKind::Connmark { mark, mask, inverted } => {
                let found = self.connection_of(skb);
                Tri::of(found.is_some_and(|(of, _)| (of.mark & mask == *mark) != *inverted))
            }
            MatchKind::Mac { .. } if self.is_ethernet(place.iif) => detail(PacketDetails),
            MatchKind::Mac { .. } => Tri::No,
            MatchKind::Physdev { ops, inverted, .. } => {
                self.physdev(*ops, *inverted, of, skb, place)
            }
            MatchKind::Mark { .. }
            | MatchKind::Pkttype { .. }
            | MatchKind::Policy { .. }
            | MatchKind::Dscp { .. }
            | MatchKind::Tos { .. }
            | MatchKind::Helper { .. } => of_packet(&of.kind, skb),
            MatchKind::Rpfilter { loose, valid_mark, accept_local, inverted } => self
                .xt_rpfilter(*loose, *valid_mark, *accept_local, skb, place)
                .inverted_if(*inverted),
            MatchKind::Socket { flags } => self.xt_socket(*flags, skb, place),
            MatchKind::Owner { .. } => self.owner(&of.kind, of, skb),
            MatchKind::Limit { .. }
            | MatchKind::Hashlimit { .. }
            | MatchKind::Connlimit { .. }
            | MatchKind::Quota { .. }
            | MatchKind::Recent { .. }
            | MatchKind::Statistic { .. }
            | MatchKind::Cpu { .. }
            | MatchKind::Time(_)
            | MatchKind::Length { .. }
            | MatchKind::Ttl { .. } => undecided(&of.kind, skb, &detail),
            MatchKind::U32 { raw } => u32_mt(raw.as_slice(), skb, &detail),
            MatchKind::Bpf { .. } => detail(OpaqueProgram),
            MatchKind::Cgroup { .. } if self.owner_uid(skb).is_none() => Tri::No,
            MatchKind::Tcpmss { range, inverted } => {
                tcpmss(*range, *inverted, skb).unwrap_or_else(|| detail(PacketDetails))
            }
            MatchKind::Devgroup { source, destination } => {
                self.devgroup(*source, *destination, place)
            }
            MatchKind::Connbytes { .. } if self.connection_of(skb).is_none() => Tri::No,
            MatchKind::Opaque(raw) => {
                without_header(&of.name, raw.as_slice(), skb).unwrap_or_else(|| detail(NotModelled))
            }
            MatchKind::Cgroup { .. }
            | MatchKind::Ecn { .. }
            | MatchKind::Realm { .. }
            | MatchKind::Connbytes { .. }
            | MatchKind::Connlabel { .. } => detail(NotModelled),
            // Where the pattern could stand, only the sender decides what stands there.
            MatchKind::String { .. } => detail(PacketDetails),
        }
    }

    /// `mac_mt` wants a link of hardware type Ethernet.
    fn is_ethernet(&self, link: Option<Ifindex>) -> bool {
        link.is_some_and(|ifindex| {
            self.has_ethernet(ifindex)
                && self.link(ifindex).is_some_and(|link| link.kind != LinkKind::Loopback)
        })
    }

    /// `devgroup_mt`.
    fn devgroup(
        &self,
        source: Option<(u32, u32, bool)>,
        destination: Option<(u32, u32, bool)>,
        place: &Place,
    ) -> Tri {
        let fits = |wanted: Option<(u32, u32, bool)>, link: Option<Ifindex>| {
            let group = link.and_then(|link| self.link(link)).map_or(0, |link| link.group);
            wanted.is_none_or(|(value, mask, inverted)| ((value ^ group) & mask == 0) != inverted)
        };
        Tri::of(fits(source, place.iif) && fits(destination, place.oif))
    }

    fn addrtype(&mut self, kind: &MatchKind, skb: &Skb, place: &Place) -> Tri {
        let MatchKind::Addrtype {
            source,
            source_inverted,
            destination,
            destination_inverted,
            limit_iface_in,
            limit_iface_out,
        } = kind
        else {
            return Tri::No;
        };
        let device = match (limit_iface_in, limit_iface_out) {
            (true, _) => place.iif,
            (false, true) => place.oif,
            (false, false) => None,
        };
        let mut fits = |mask: u16, address: IpAddr, inverted: bool| {
            mask == 0 || self.xt_addrtype(address, mask, device) != inverted
        };
        let holds = fits(*source, skb.source, *source_inverted)
            && fits(*destination, skb.destination, *destination_inverted);
        Tri::of(holds)
    }

    /// `XT_CONNTRACK_STATE_BIT`.
    const fn state_bit(&self, skb: &Skb, untracked: u16) -> u16 {
        match skb.ct {
            Ct::Tracked { state: CtState::Established, .. } => 1 << 1,
            Ct::Tracked { state: CtState::Related, .. } => 1 << 2,
            Ct::Tracked { state: CtState::New, .. } => 1 << 3,
            Ct::Untracked => untracked,
            Ct::None if skb.zone.is_some() => 1 << 3,
            Ct::None => STATE_INVALID,
        }
    }

    /// `conntrack_mt`.
    fn conntrack_match(&self, wanted: &ConntrackMatch, skb: &Skb) -> Tri {
        let found = self.connection_of(skb);
        let mut state = self.state_bit(skb, STATE_UNTRACKED);
        if let Some((connection, _)) = found {
            state |= if connection.source_nat { STATE_SNAT } else { 0 };
            state |= if connection.destination_nat { STATE_DNAT } else { 0 };
        }
        let fits = |of: Option<(bool, bool)>| of.is_none_or(|(holds, inverted)| holds != inverted);
        if !fits(wanted.state.map(|(mask, inverted)| (mask & state != 0, inverted))) {
            return Tri::No;
        }
        let Some((connection, reply)) = found else { return Tri::of(wanted.state.is_some()) };
        let (original, back) = (connection.original, connection.reply);
        let address = |of: Option<(MaskedAddress, bool)>, address: IpAddr| {
            fits(of.map(|(masked, inverted)| (is_under(address, masked), inverted)))
        };
        let port = |of: Option<(PortRange, bool)>, port: u16| {
            fits(of.map(|(range, inverted)| (is_port_in(port, range), inverted)))
        };
        let status = connection.status();
        let holds = wanted.direction.is_none_or(|original| original != reply)
            && fits(wanted.protocol.map(|(protocol, inverted)| {
                (protocol == u16::from(connection.protocol), inverted)
            }))
            && address(wanted.orig_source, original.source)
            && address(wanted.orig_destination, original.destination)
            && address(wanted.reply_source, back.source)
            && address(wanted.reply_destination, back.destination)
            && port(wanted.orig_source_port, original.source_port)
            && port(wanted.orig_destination_port, original.destination_port)
            && port(wanted.reply_source_port, back.source_port)
            && port(wanted.reply_destination_port, back.destination_port)
            && fits(
                wanted.status.map(|(mask, inverted)| (u32::from(mask) & status != 0, inverted)),
            );
        match wanted.expires {
            Some(_) if holds => {
                Tri::Maybe(NotModelled, Some(format!("{:?} conntrack expires", skb.turn)))
            }
            Some(_) | None => Tri::of(holds),
        }
    }

    /// `physdev_mt`. Only what comes or goes by a bridge that shows its packets to IP's hooks has a
    /// port.
    fn physdev(&self, ops: u8, inverted: u8, of: &Match, skb: &Skb, place: &Place) -> Tri {
        let is_bridge = |link: Option<_>| {
            link.and_then(|link| self.link(link)).is_some_and(|link| link.kind == LinkKind::Bridge)
        };
        if is_bridge(place.iif) || is_bridge(place.oif) {
            return Tri::Maybe(NotModelled, Some(format!("{:?} {of:?}", skb.turn)));
        }
        Tri::of(ops & !inverted == 0)
    }

    /// `owner_mt`.
    fn owner(&self, kind: &MatchKind, of: &Match, skb: &Skb) -> Tri {
        let MatchKind::Owner { uid, gid, socket, .. } = kind else { return Tri::No };
        let socket_fits = |there: bool| socket.is_none_or(|wanted| wanted == there);
        let only_inverted =
            |of: &Option<((u32, u32), bool)>| of.is_none_or(|(_, inverted)| inverted);
        let Some(own) = self.owner_uid(skb) else {
            let there = skb.owner == Owner::Kernel;
            return Tri::of(socket_fits(there) && only_inverted(uid) && only_inverted(gid));
        };
        let uid_fits =
            uid.is_none_or(|((low, high), inverted)| (low..=high).contains(&own) != inverted);
        if !uid_fits || !socket_fits(true) {
            return Tri::No;
        }
        match gid {
            None => Tri::Yes,
            Some(_) => Tri::Maybe(NotModelled, Some(format!("{:?} {of:?}", skb.turn))),
        }
    }
}

/// A match on time, on other packets, or on what only the sender decides.
#[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
fn undecided(kind: &MatchKind, skb: &Skb, detail: &dyn Fn(UnknownReason) -> Tri) -> Tri {
    match kind {
        MatchKind::Limit { .. }
        | MatchKind::Hashlimit { .. }
        | MatchKind::Connlimit { .. }
        | MatchKind::Quota { .. } => Tri::Maybe(RateLimit, None),
        MatchKind::Recent { check, inverted, .. } if check & RECENT_SET != 0 => Tri::of(!inverted),
        MatchKind::Recent { .. } => Tri::Maybe(EarlierPackets, None),
        MatchKind::Statistic { random: true, probability: 0, inverted, .. } => Tri::of(*inverted),
        MatchKind::Statistic { random: true, probability, inverted, .. }
            if *probability > i32::MAX as u32 =>
        {
            Tri::of(!inverted)
        }
        MatchKind::Statistic { random: false, every: 0, inverted, .. } => Tri::of(!inverted),
        MatchKind::Statistic { .. } => Tri::Maybe(RandomChoice, None),
        MatchKind::Cpu { .. } => detail(RandomChoice),
        MatchKind::Time(time) if holds_always(time) => Tri::Yes,
        MatchKind::Time(_) => detail(TimeOfDay),
        MatchKind::Length { .. } | MatchKind::Ttl { .. } => {
            detail_of_packet(kind, skb).unwrap_or_else(|| detail(PacketDetails))
        }
        _others => detail(NotModelled),
    }
}

/// What the packet itself says, or what only packets out of the ordinary have.
#[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
fn of_packet(kind: &MatchKind, skb: &Skb) -> Tri {
    match kind {
        MatchKind::Mark { mark, mask, inverted } => {
            Tri::of((skb.mark & mask == *mark) != *inverted)
        }
        MatchKind::Pkttype { kind, inverted } => {
            Tri::of((u32::from(skb.packet_type) == *kind) != *inverted)
        }
        // No packet asked about came through IPsec.
        MatchKind::Policy { none, .. } => Tri::of(*none),
        MatchKind::Dscp { dscp, inverted } => Tri::of((*dscp == 0) != *inverted),
        MatchKind::Tos { value, inverted, .. } => Tri::of((*value == 0) != *inverted),
        // Only a connection that a helper expected has one.
        MatchKind::Helper { inverted, .. } => Tri::of(*inverted),
        _others => Tri::No,
    }
}

/// Matches that look for a header which is in no packet here: IPv6's extension headers, and transport
/// protocols other than those asked about (the kernel takes such a match in a rule for that protocol
/// only). Being inverted concerns the fields of the header, not whether there is one.
fn without_header(name: &str, raw: &[u8], skb: &Skb) -> Option<Tri> {
    const EXTENSIONS: [&str; 6] = ["rt", "frag", "hbh", "dst", "srh", "ah"];
    const TRANSPORTS: [&str; 5] = ["mh", "esp", "ipcomp", "sctp", "dccp"];
    if EXTENSIONS.contains(&name) || TRANSPORTS.contains(&name) {
        return Some(Tri::No);
    }
    match name {
        "l2tp" if skb.protocol != UDP => Some(Tri::No),
        "ipv6header" => {
            // MASK_PROTO is all there is.
            let (flags, inverted, soft) = (raw.first()?, raw.get(1)?, raw.get(2)?);
            let found: u8 = 1;
            Some(Tri::of(match (*soft, *inverted) {
                (0, 0) => found == *flags,
                (0, _) => found != *flags,
                (_, _) => flags & (found ^ flags ^ inverted) == 0,
            }))
        }
        _others => None,
    }
}

/// The layout of `struct xt_u32`: eleven tests, each of eleven locations and eleven ranges, then how
/// many there are, and whether the whole is inverted.
const U32_ELEMENTS: usize = 11;
const U32_TEST: usize = 180;

/// `u32_mt`, as far as it stays within what is known of the packet.
fn u32_mt(raw: &[u8], skb: &Skb, detail: &dyn Fn(UnknownReason) -> Tri) -> Tri {
    u32_match_it(raw, skb).unwrap_or_else(|| detail(NotModelled))
}

/// `u32_match_it`; `None` where the structure is not one, or asks beyond the headers.
fn u32_match_it(raw: &[u8], skb: &Skb) -> Option<Tri> {
    let word = |at: usize| {
        let bytes: [u8; 4] = raw.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let tests = usize::from(*raw.get(U32_ELEMENTS * U32_TEST)?);
    let inverted = *raw.get(U32_ELEMENTS * U32_TEST + 1)? != 0;
    let packet = packet_bytes(skb);
    let load = |at: u32| {
        let from = at as usize;
        let bytes = packet.0.get(from..from.checked_add(4)?)?;
        Some(Value(bytes.to_vec()))
    };
    let mut holds = Tri::Yes;
    for test in (0..tests.min(U32_ELEMENTS)).map(|test| test * U32_TEST) {
        let count = usize::from(*raw.get(test + 176)?);
        let ranges = usize::from(*raw.get(test + 177)?);
        let mut at = 0_u32;
        // What lies behind the headers is not known, nor whether it is there.
        let mut value = load(word(test)?)?;
        for location in 1..count.min(U32_ELEMENTS) {
            let number = word(test + location * 8)?;
            match *raw.get(test + location * 8 + 4)? {
                0 => value = value.and(&Value::of(&number.to_be_bytes())),
                1 => value = value.swapped(4).shifted(number, true).swapped(4),
                2 => value = value.swapped(4).shifted(number, false).swapped(4),
                _at => {
                    let bytes: [u8; 4] = value.bytes()?.try_into().ok()?;
                    at = at.checked_add(u32::from_be_bytes(bytes))?;
                    value = load(at.checked_add(number)?)?;
                }
            }
        }
        let mut any = Tri::No;
        for range in (0..ranges.min(U32_ELEMENTS)).map(|range| test + 88 + range * 8) {
            let (low, high) = (word(range)?, word(range + 4)?);
            any = any.or(value.is_within(&low.to_be_bytes(), &high.to_be_bytes()));
        }
        holds = holds.and(any);
    }
    Some(holds.inverted_if(inverted))
}

/// `iprange_mt4`, `iprange_mt6`.
fn iprange(kind: &MatchKind, skb: &Skb) -> Tri {
    let MatchKind::Iprange { source, source_inverted, destination, destination_inverted } = kind
    else {
        return Tri::No;
    };
    let fits = |range: &Option<(IpAddr, IpAddr)>, address: IpAddr, inverted: bool| {
        range.is_none_or(|range| is_between(address, range) != inverted)
    };
    Tri::of(
        fits(source, skb.source, *source_inverted)
            && fits(destination, skb.destination, *destination_inverted),
    )
}

/// `tcp_mt`, `udp_mt`, `icmp_match`.
#[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
fn protocol_match(kind: &MatchKind, skb: &Skb) -> Tri {
    match kind {
        MatchKind::Tcp {
            source_ports,
            source_ports_inverted,
            destination_ports,
            destination_ports_inverted,
            flag_mask,
            flag_value,
            flags_inverted,
            option,
            option_inverted,
        } => {
            let fits = skb.protocol == TCP
                && is_port_in(skb.source_port, *source_ports) != *source_ports_inverted
                && is_port_in(skb.destination_port, *destination_ports)
                    != *destination_ports_inverted
                && (skb.tcp_flags & flag_mask == *flag_value) != *flags_inverted;
            if !fits || *option == 0 {
                return Tri::of(fits);
            }
            tcp_option(*option, skb).inverted_if(*option_inverted)
        }
        MatchKind::Udp {
            source_ports,
            source_ports_inverted,
            destination_ports,
            destination_ports_inverted,
        } => Tri::of(
            skb.protocol == UDP
                && is_port_in(skb.source_port, *source_ports) != *source_ports_inverted
                && is_port_in(skb.destination_port, *destination_ports)
                    != *destination_ports_inverted,
        ),
        MatchKind::Icmp { kind, codes, inverted } => {
            let any = *kind == u8::MAX && skb.family == Some(Family::Ipv4);
            let code = u8::try_from(skb.destination_port).unwrap_or(u8::MAX);
            let fits = u16::from(*kind) == skb.source_port && (codes.0..=codes.1).contains(&code);
            Tri::of(skb.is_icmp() && (any || fits) != *inverted)
        }
        _others => Tri::No,
    }
}

fn is_port_in(port: u16, (low, high): PortRange) -> bool {
    (low..=high).contains(&port)
}

fn has_one(which: MultiportWhich, ports: &[PortRange], skb: &Skb) -> bool {
    ports.iter().any(|range| match which {
        MultiportWhich::Source => is_port_in(skb.source_port, *range),
        MultiportWhich::Destination => is_port_in(skb.destination_port, *range),
        MultiportWhich::Either => {
            is_port_in(skb.source_port, *range) || is_port_in(skb.destination_port, *range)
        }
    })
}

fn is_between(address: IpAddr, (low, high): (IpAddr, IpAddr)) -> bool {
    (address_value(low)..=address_value(high)).contains(&address_value(address))
}

/// `tcpmss_mt`. The value of the option is the sender's choice.
fn tcpmss(range: (u16, u16), inverted: bool, skb: &Skb) -> Option<Tri> {
    if skb.protocol != TCP {
        return Some(Tri::No);
    }
    if tcp_option(2, skb) != Tri::Yes || range == (0, u16::MAX) {
        let there = tcp_option(2, skb) == Tri::Yes;
        return Some(Tri::of(there != inverted));
    }
    None
}

/// What holds of a TTL or a length whatever it is.
#[allow(clippy::wildcard_enum_match_arm, reason = "the caller's match sends only these here")]
fn detail_of_packet(kind: &MatchKind, skb: &Skb) -> Option<Tri> {
    match kind {
        // `ndisc_rcv` takes neighbour discovery with 255 hops left only, and sends it so.
        MatchKind::Ttl { mode, value } if is_untracked_icmp(skb) && skb.source_port >= 133 => {
            Some(Tri::of(match mode {
                0 => *value == u8::MAX,
                1 => *value != u8::MAX,
                2 => false,
                _greater => *value < u8::MAX,
            }))
        }
        MatchKind::Length { range: (0, u16::MAX), inverted } => Some(Tri::of(!inverted)),
        // Nothing is less than 0, nothing more than 255.
        MatchKind::Ttl { mode: 2, value: 0 } | MatchKind::Ttl { mode: 3, value: u8::MAX } => {
            Some(Tri::No)
        }
        _others => None,
    }
}

/// All days, all hours, without a date.
fn holds_always(time: &TimeMatch) -> bool {
    const DAY: u32 = 24 * 60 * 60;
    let whole_day = time.daytime_start == 0 && time.daytime_stop >= DAY - 1;
    let any_date = time.date_start == 0 && time.date_stop >= i32::MAX as u32;
    whole_day && any_date && time.weekdays & 0xfe == 0xfe && time.monthdays & !1 == !1
}

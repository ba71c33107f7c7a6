//! Matches of xtables, in iptables-legacy and inside nftables.
//!
//! *Kernel:* net/netfilter/xt_*.c, net/ipv4/netfilter/ipt_*.c, net/ipv6/netfilter/ip6t_*.c. Left out: realms
//! where there are any, classes and paths of control groups, groups of senders, labels and counters of
//! connections.

use std::net::IpAddr;

use canreach_snapshot::address::address_value;
use canreach_snapshot::xt::{
    ConntrackMatch, HeaderMatch, MaskedAddress, Match, MatchKind, MultiportWhich, PortRange,
    TimeMatch,
};
use canreach_snapshot::{Family, GlobalSysctl, Ifindex};

use crate::netfilter::chain::Evaluation;
use crate::netfilter::conntrack::state;
use crate::netfilter::header::{ICMP, ICMPV6, TCP, UDP};
use crate::netfilter::meta::packet_type;
use crate::netfilter::unknown::{Cause, Sameness, Unknowns};
use crate::netfilter::view::{Part, Tracking, Turn, View};
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;
use crate::{NfSubject, UnknownReason};

/// `XT_PHYSDEV_OP_*`.
mod physdev {
    pub(super) const IN: u8 = 1;
    pub(super) const OUT: u8 = 2;
    pub(super) const BRIDGED: u8 = 4;
    pub(super) const ISIN: u8 = 8;
    pub(super) const ISOUT: u8 = 16;
}

/// All or nothing.
pub(crate) const fn truth(holds: bool) -> PacketSet {
    if holds { PacketSet::ALL } else { PacketSet::NONE }
}

impl Evaluation<'_, '_, '_> {
    /// Packets whose address or port lies in one of some ranges.
    pub(crate) fn part_within(
        &mut self,
        part: Part,
        field: Field,
        ranges: &[(u128, u128)],
    ) -> PacketSet {
        match part {
            Part::Is(value) => {
                truth(ranges.iter().any(|(low, high)| (low..=high).contains(&&value)))
            }
            Part::Client => self.sets.ranges(field, ranges),
            Part::Chosen(number) => self.unknowns.variable(number).within(self.sets, ranges),
        }
    }

    /// Packets whose address has these bits under a mask.
    pub(crate) fn part_masked(
        &mut self,
        subject: NfSubject,
        part: Part,
        masked: MaskedAddress,
    ) -> PacketSet {
        let (wanted, mask) = (address_value(masked.address), address_value(masked.mask));
        match part {
            Part::Is(value) => truth(value & mask == wanted),
            Part::Client | Part::Chosen(_) => self.tester(subject).source_masked(mask, wanted),
        }
    }

    pub(crate) fn invert(&mut self, set: PacketSet, inverted: bool) -> PacketSet {
        if inverted { self.sets.not(set) } else { set }
    }

    /// What a rule asks of the IP header (`ip_packet_match`, `ip6_packet_match`).
    pub(crate) fn header_match(
        &mut self,
        subject: NfSubject,
        view: &View,
        header: &HeaderMatch,
    ) -> PacketSet {
        let wildcard = |masked: &MaskedAddress| address_value(masked.mask) == 0;
        let names = self.interface_matches(view.iif, &header.iniface) != header.iniface_inverted
            && self.interface_matches(view.oif, &header.outiface) != header.outiface_inverted;
        let protocol = header.protocol == 0
            || (header.protocol == u16::from(view.protocol)) != header.protocol_inverted;
        // No packet asked about is a later fragment.
        let fragment = !header.fragment || header.fragment_inverted;
        if !names || !protocol || !fragment {
            return PacketSet::NONE;
        }
        let mut set = PacketSet::ALL;
        for (part, masked, inverted) in [
            (view.source, &header.source, header.source_inverted),
            (view.destination, &header.destination, header.destination_inverted),
        ] {
            if wildcard(masked) && !inverted && address_value(masked.address) == 0 {
                continue;
            }
            let matching = self.part_masked(subject, part, *masked);
            let matching = self.invert(matching, inverted);
            set = self.sets.and(set, matching);
        }
        set
    }

    /// A name with a trailing `+` stands for any ending; without a link the packet's is empty.
    fn interface_matches(&self, link: Option<Ifindex>, pattern: &str) -> bool {
        let name = link.and_then(|link| self.host.link(link)).map_or("", |link| &link.name);
        pattern.is_empty()
            || match pattern.strip_suffix('+') {
                Some(prefix) => name.starts_with(prefix),
                None => name == pattern,
            }
    }

    /// Packets that a match matches.
    pub(crate) fn xt_match(&mut self, subject: NfSubject, view: &View, asked: &Match) -> PacketSet {
        match &asked.kind {
            MatchKind::Tcp { .. } | MatchKind::Udp { .. } | MatchKind::Icmp { .. } => {
                self.transport_match(subject, view, &asked.kind)
            }
            MatchKind::Multiport { which, ports, inverted } => {
                self.multiport(view, *which, ports, *inverted)
            }
            MatchKind::Addrtype { .. } => self.addrtype(subject, view, &asked.kind),
            MatchKind::Conntrack(asked) => self.conntrack_match(subject, view, asked),
            MatchKind::State { mask } => truth(mask & xt_state(view, false) != 0),
            MatchKind::Comment(_) | MatchKind::Nfacct { .. } => PacketSet::ALL,
            MatchKind::Iprange { source, source_inverted, destination, destination_inverted } => {
                let source = self.iprange(view.source, *source, *source_inverted);
                let destination =
                    self.iprange(view.destination, *destination, *destination_inverted);
                self.sets.and(source, destination)
            }
            MatchKind::Set(reference) => self.ipset_match(subject, view, reference),
            MatchKind::Mark { mark, mask, inverted } => {
                truth((view.mark & mask == *mark) != *inverted)
            }
            MatchKind::Connmark { mark, mask, inverted } => {
                let own = view.connection;
                truth(own.is_attached() && (own.mark & mask == *mark) != *inverted)
            }
            MatchKind::Pkttype { kind, inverted } => {
                truth((u32::from(packet_type(view.packet_type)) == *kind) != *inverted)
            }
            // Packets asked about do not come out of IPsec, nor go into it.
            MatchKind::Policy { none, .. } => truth(*none),
            MatchKind::Rpfilter { .. } => self.rpfilter(subject, view, &asked.kind),
            MatchKind::Owner { .. } => self.owner(subject, view, &asked.kind),
            MatchKind::Physdev { physin, physout, ops, inverted } => {
                truth(self.physdev(view, (physin, physout), *ops, *inverted))
            }
            MatchKind::Devgroup { source, destination } => {
                truth(self.devgroup(view, *source, *destination))
            }
            MatchKind::Helper { inverted, .. } => truth(*inverted),
            MatchKind::Mac { .. }
            | MatchKind::Ttl { .. }
            | MatchKind::Dscp { .. }
            | MatchKind::Tos { .. }
            | MatchKind::Ecn { .. }
            | MatchKind::Length { .. }
            | MatchKind::Tcpmss { .. }
            | MatchKind::String { .. } => self.detail_match(subject, view, asked),
            MatchKind::Limit { .. }
            | MatchKind::Hashlimit { .. }
            | MatchKind::Recent { .. }
            | MatchKind::Connlimit { .. }
            | MatchKind::Statistic { .. }
            | MatchKind::Time(_)
            | MatchKind::Cpu { .. }
            | MatchKind::Quota { .. } => self.chance_match(subject, view, &asked.kind),
            MatchKind::Socket { .. }
            | MatchKind::Cgroup { .. }
            | MatchKind::U32 { .. }
            | MatchKind::Bpf { .. }
            | MatchKind::Realm { .. }
            | MatchKind::Connbytes { .. }
            | MatchKind::Connlabel { .. }
            | MatchKind::Opaque(_) => self.opaque_match(subject, view, asked),
        }
    }

    /// `devgroup_mt`: each link's group under a mask.
    fn devgroup(
        &self,
        view: &View,
        source: Option<(u32, u32, bool)>,
        destination: Option<(u32, u32, bool)>,
    ) -> bool {
        let holds = |link: Option<Ifindex>, asked: Option<(u32, u32, bool)>| {
            let own = link.and_then(|link| self.host.link(link)).map(|link| link.group);
            asked.is_none_or(|(wanted, mask, inverted)| {
                own.is_some_and(|own| ((own ^ wanted) & mask == 0) != inverted)
            })
        };
        holds(view.iif, source) && holds(view.oif, destination)
    }

    fn transport_match(&mut self, subject: NfSubject, view: &View, kind: &MatchKind) -> PacketSet {
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
                let flags = (view.tcp_flags & flag_mask == *flag_value) != *flags_inverted;
                if view.protocol != TCP || !flags {
                    return PacketSet::NONE;
                }
                let source = (*source_ports, *source_ports_inverted);
                let destination = (*destination_ports, *destination_ports_inverted);
                let ports = self.port_pair(view, source, destination);
                if *option == 0 {
                    return ports;
                }
                let option = self.tcp_option(subject, view, *option);
                let option = self.invert(option, *option_inverted);
                self.sets.and(ports, option)
            }
            MatchKind::Udp {
                source_ports,
                source_ports_inverted,
                destination_ports,
                destination_ports_inverted,
            } if view.protocol == UDP => {
                let source = (*source_ports, *source_ports_inverted);
                self.port_pair(view, source, (*destination_ports, *destination_ports_inverted))
            }
            MatchKind::Icmp { kind, codes, inverted } if matches!(view.protocol, ICMP | ICMPV6) => {
                let (Part::Is(own), Part::Is(code)) = (view.source_port, view.destination_port)
                else {
                    return PacketSet::NONE;
                };
                let any = view.protocol == ICMP && *kind == 0xff;
                let codes = u128::from(codes.0)..=u128::from(codes.1);
                let holds = any || (own == u128::from(*kind) && codes.contains(&code));
                truth(holds != *inverted)
            }
            _ => PacketSet::NONE,
        }
    }

    /// Whether an option of TCP is there.
    pub(crate) fn tcp_option(&mut self, subject: NfSubject, view: &View, kind: u8) -> PacketSet {
        const MSS: u8 = 2;
        if kind == MSS && view.has_mss() {
            return PacketSet::ALL;
        }
        let cause = Cause { reason: UnknownReason::PacketDetails, subject: Some(subject) };
        let same = Sameness::Packet(view.turn, format!("tcp option {kind}"));
        let variable = self.unknowns.same(same, cause, 0, 1);
        Unknowns::happens(self.sets, variable)
    }

    fn port_pair(
        &mut self,
        view: &View,
        source: (PortRange, bool),
        destination: (PortRange, bool),
    ) -> PacketSet {
        let source = self.port(view.source_port, source);
        let destination = self.port(view.destination_port, destination);
        self.sets.and(source, destination)
    }

    fn port(&mut self, part: Part, ((low, high), inverted): (PortRange, bool)) -> PacketSet {
        let ranges = [(u128::from(low), u128::from(high))];
        let ranges = if low <= high { &ranges[..] } else { &[] };
        let set = self.part_within(part, Field::SourcePort, ranges);
        self.invert(set, inverted)
    }

    fn multiport(
        &mut self,
        view: &View,
        which: MultiportWhich,
        ports: &[PortRange],
        inverted: bool,
    ) -> PacketSet {
        if !matches!(view.protocol, TCP | UDP) {
            return PacketSet::NONE;
        }
        let mut set = PacketSet::NONE;
        for range in ports {
            let source = which != MultiportWhich::Destination;
            let destination = which != MultiportWhich::Source;
            for (asked, part) in [(source, view.source_port), (destination, view.destination_port)]
            {
                if asked {
                    let hit = self.port(part, (*range, false));
                    set = self.sets.or(set, hit);
                }
            }
        }
        self.invert(set, inverted)
    }

    fn iprange(
        &mut self,
        part: Part,
        range: Option<(IpAddr, IpAddr)>,
        inverted: bool,
    ) -> PacketSet {
        let Some((low, high)) = range else { return PacketSet::ALL };
        let (low, high) = (address_value(low), address_value(high));
        let ranges = [(low, high)];
        let ranges = if low <= high { &ranges[..] } else { &[] };
        let set = self.part_within(part, Field::Source, ranges);
        self.invert(set, inverted)
    }

    /// `conntrack_mt`.
    fn conntrack_match(
        &mut self,
        subject: NfSubject,
        view: &View,
        asked: &ConntrackMatch,
    ) -> PacketSet {
        if let Some((mask, inverted)) = asked.state
            && (mask & xt_state(view, true) != 0) == inverted
        {
            return PacketSet::NONE;
        }
        let connection = &view.connection;
        if !connection.is_attached() {
            // What else is asked does not count then.
            return truth(asked.state.is_some());
        }
        let plain = asked.direction.is_none_or(|original| original != connection.reply)
            && asked.protocol.is_none_or(|(protocol, inverted)| {
                (protocol == u16::from(view.protocol)) != inverted
            })
            && asked.status.is_none_or(|(bits, inverted)| {
                (u32::from(bits) & connection.status_bits() != 0) != inverted
            });
        if !plain {
            return PacketSet::NONE;
        }
        let tuples = (connection.direction_tuple(false), connection.direction_tuple(true));
        let (Some(original), Some(reply)) = tuples else { return PacketSet::NONE };
        let mut set = PacketSet::ALL;
        for (masked, part) in [
            (asked.orig_source, original.source),
            (asked.orig_destination, original.destination),
            (asked.reply_source, reply.source),
            (asked.reply_destination, reply.destination),
        ] {
            if let Some((masked, inverted)) = masked {
                let hit = self.part_masked(subject, part, masked);
                let hit = self.invert(hit, inverted);
                set = self.sets.and(set, hit);
            }
        }
        for (ports, part) in [
            (asked.orig_source_port, original.source_port),
            (asked.orig_destination_port, original.destination_port),
            (asked.reply_source_port, reply.source_port),
            (asked.reply_destination_port, reply.destination_port),
        ] {
            if let Some(ports) = ports {
                let hit = self.port(part, ports);
                set = self.sets.and(set, hit);
            }
        }
        if asked.expires.is_some() {
            let chance = self.chance(UnknownReason::NotModelled, subject);
            set = self.sets.and(set, chance);
        }
        set
    }

    /// `owner_mt`: without a socket, only what is asked the other way round holds.
    fn owner(&mut self, subject: NfSubject, view: &View, kind: &MatchKind) -> PacketSet {
        let MatchKind::Owner { uid, gid, socket, .. } = kind else { return PacketSet::NONE };
        let Some(own) = self.sender_uid(view) else {
            return truth(
                uid.is_none_or(|(_, inverted)| inverted)
                    && gid.is_none_or(|(_, inverted)| inverted)
                    && *socket != Some(true),
            );
        };
        let user =
            uid.is_none_or(|((low, high), inverted)| (low..=high).contains(&own) != inverted);
        if *socket == Some(false) || !user {
            return PacketSet::NONE;
        }
        if gid.is_none() {
            return PacketSet::ALL;
        }
        let cause = Cause { reason: UnknownReason::NotModelled, subject: Some(subject) };
        let same = Sameness::Packet(view.turn, format!("group {gid:?}"));
        let variable = self.unknowns.same(same, cause, 0, 1);
        Unknowns::happens(self.sets, variable)
    }

    /// `physdev_mt`.
    fn physdev(&self, view: &View, names: (&str, &str), ops: u8, inverted: u8) -> bool {
        let asks = |op: u8| ops & op != 0;
        let inverts = |op: u8| inverted & op != 0;
        // Only br_netfilter keeps them (`nf_bridge_alloc`).
        let calls = match view.family {
            Family::Ipv4 => GlobalSysctl::BridgeNfCallIptables,
            Family::Ipv6 => GlobalSysctl::BridgeNfCallIp6tables,
        };
        let kept = self.host.sysctl(calls).is_set();
        let (physical_in, physical_out) =
            if kept { (view.physical_iif, view.physical_oif) } else { (None, None) };
        if physical_in.is_none() && physical_out.is_none() {
            let all = [physdev::BRIDGED, physdev::ISIN, physdev::ISOUT, physdev::IN, physdev::OUT];
            return all.iter().all(|op| !asks(*op) || inverts(*op));
        }
        let holds = |op: u8, what: bool| !asks(op) || what != inverts(op);
        holds(physdev::BRIDGED, physical_out.is_some())
            && holds(physdev::ISIN, physical_in.is_some())
            && holds(physdev::ISOUT, physical_out.is_some())
            && (physical_in.is_none()
                || holds(physdev::IN, self.interface_matches(physical_in, names.0)))
            && (!asks(physdev::OUT)
                || physical_out.is_some()
                    && holds(physdev::OUT, self.interface_matches(physical_out, names.1)))
    }

    /// What only the sender decides.
    fn detail_match(&mut self, subject: NfSubject, view: &View, asked: &Match) -> PacketSet {
        use canreach_snapshot::nft::expr::PayloadBase;
        let cause = Cause { reason: UnknownReason::PacketDetails, subject: Some(subject) };
        match &asked.kind {
            MatchKind::Mac { address, inverted } => {
                let link = view.iif.and_then(|iif| self.host.link(iif));
                if link.is_none_or(|link| link.is_loopback() || link.mac.is_none()) {
                    return PacketSet::NONE;
                }
                let same = Sameness::Header(view.turn, PayloadBase::Link, 6);
                let variable = self.unknowns.same(same, cause, 0, 0xffff_ffff_ffff);
                let value = address.iter().fold(0, |sum, byte| (sum << 8) | u128::from(*byte));
                let set = variable.within(self.sets, &[(value, value)]);
                self.invert(set, *inverted)
            }
            MatchKind::Ttl { mode, value } => self.ttl_match(cause, view, *mode, *value),
            MatchKind::Dscp { dscp, inverted } => truth((view.tos >> 2 == *dscp) != *inverted),
            MatchKind::Tos { mask, value, inverted } => {
                truth((view.tos & mask == *value) != *inverted)
            }
            MatchKind::Length { range, inverted } => {
                let length = self.length(subject, view);
                let range = (u128::from(range.0), u128::from(range.1));
                let set = length.within(self.sets, &[range]);
                self.invert(set, *inverted)
            }
            MatchKind::Tcpmss { range, inverted } => {
                if view.protocol != TCP {
                    return PacketSet::NONE;
                }
                let there = self.tcp_option(subject, view, 2);
                let same = Sameness::Packet(view.turn, "mss".to_owned());
                let variable = self.unknowns.same(same, cause, 0, 0xffff);
                let range = (u128::from(range.0), u128::from(range.1));
                let within = variable.within(self.sets, &[range]);
                let set = self.sets.and(there, within);
                self.invert(set, *inverted)
            }
            other => {
                // Payload that is looked through, and bits of congestion control.
                let same = Sameness::Packet(view.turn, format!("{other:?}"));
                let variable = self.unknowns.same(same, cause, 0, 1);
                Unknowns::happens(self.sets, variable)
            }
        }
    }

    fn ttl_match(&mut self, cause: Cause, view: &View, mode: u8, value: u8) -> PacketSet {
        use canreach_snapshot::nft::expr::PayloadBase;
        let at = match view.family {
            Family::Ipv4 => 8,
            Family::Ipv6 => 7,
        };
        let value = u128::from(value);
        let rewritten = view
            .rewritten
            .iter()
            .find(|(base, place, _)| (*base, *place) == (PayloadBase::Network, at));
        // Neighbour discovery does not cross routers (RFC 4861, 7.1.1).
        let is_near = matches!(view.turn, Turn::Solicitation | Turn::Advertisement);
        if let Some(own) = rewritten.map(|(.., own)| *own).or_else(|| is_near.then_some(0xff)) {
            let own = u128::from(own);
            return truth(match mode {
                0 => own == value,
                1 => own != value,
                2 => own < value,
                _ => own > value,
            });
        }
        let same = Sameness::Header(view.turn, PayloadBase::Network, at);
        let variable = self.unknowns.same(same, cause, 0, 0xff);
        match mode {
            0 | 1 => {
                let set = variable.within(self.sets, &[(value, value)]);
                self.invert(set, mode == 1)
            }
            2 if value == 0 => PacketSet::NONE,
            2 => variable.within(self.sets, &[(0, value - 1)]),
            _ => variable.within(self.sets, &[(value + 1, 0x100)]),
        }
    }

    /// What depends on chance, on time, or on packets before.
    fn chance_match(&mut self, subject: NfSubject, view: &View, kind: &MatchKind) -> PacketSet {
        match kind {
            MatchKind::Limit { .. }
            | MatchKind::Hashlimit { .. }
            | MatchKind::Connlimit { .. }
            | MatchKind::Quota { .. } => self.chance(UnknownReason::RateLimit, subject),
            // Only remembering matches always.
            MatchKind::Recent { check, inverted, .. } if check & 2 != 0 => truth(!*inverted),
            MatchKind::Recent { .. } => self.chance(UnknownReason::EarlierPackets, subject),
            MatchKind::Statistic { random, probability, every, inverted, .. } => {
                let always = if *random { *probability >= 1 << 31 } else { *every == 0 };
                let never = *random && *probability == 0;
                if always || never {
                    return truth(always != *inverted);
                }
                self.chance(UnknownReason::RandomChoice, subject)
            }
            MatchKind::Time(time) => {
                if is_always(time) {
                    return PacketSet::ALL;
                }
                let reason = UnknownReason::TimeOfDay;
                let cause = Cause { reason, subject: Some(subject) };
                let same = Sameness::Machine(format!("{time:?}"));
                let variable = self.unknowns.same(same, cause, 0, 1);
                Unknowns::happens(self.sets, variable)
            }
            MatchKind::Cpu { cpu, inverted } => {
                let reason = UnknownReason::RandomChoice;
                let cause = Cause { reason, subject: Some(subject) };
                let same = Sameness::Packet(view.turn, "cpu".to_owned());
                let variable = self.unknowns.same(same, cause, 0, 0xffff);
                let cpu = u128::from(*cpu);
                let set = variable.within(self.sets, &[(cpu, cpu)]);
                self.invert(set, *inverted)
            }
            _ => self.chance(UnknownReason::NotModelled, subject),
        }
    }

    /// What this version does not know: the same for a packet that looks the same.
    fn opaque_match(&mut self, subject: NfSubject, view: &View, asked: &Match) -> PacketSet {
        let no_socket = view.socket.is_none() && view.sender_uid.is_none();
        let reason = match &asked.kind {
            MatchKind::Cgroup { .. } if no_socket => return PacketSet::NONE,
            MatchKind::Realm { id, inverted, .. } if !self.host.fib(view.family).has_realms => {
                return truth((*id == 0) != *inverted);
            }
            MatchKind::Opaque(raw) => match header_never_there(view, &asked.name, raw.as_slice()) {
                Some(holds) => return truth(holds),
                None => UnknownReason::NotModelled,
            },
            MatchKind::Bpf { .. } => UnknownReason::OpaqueProgram,
            MatchKind::U32 { raw } => match self.u32_match(subject, view, raw.as_slice()) {
                Some(set) => return set,
                None => UnknownReason::NotModelled,
            },
            _ => UnknownReason::NotModelled,
        };
        let cause = Cause { reason, subject: Some(subject) };
        let what = format!("{asked:?} {:?}", self.place);
        let same = Sameness::Here(Box::new(view.clone()), what);
        let variable = self.unknowns.same(same, cause, 0, 1);
        Unknowns::happens(self.sets, variable)
    }
}

/// Matches on headers that no packet asked about has. Without theirs, none of them holds, whatever is
/// inverted (`ipv6_find_hdr` says ENOENT, or the rule is for another protocol only).
fn header_never_there(view: &View, name: &str, raw: &[u8]) -> Option<bool> {
    match name {
        "rt" | "frag" | "hbh" | "dst" | "srh" | "mh" | "ah" | "esp" | "ipcomp" | "sctp"
        | "dccp" => Some(false),
        // Over UDP, what the datagram carries decides.
        "l2tp" => (view.protocol != UDP).then_some(false),
        "ipv6header" => ipv6_headers(raw),
        _ => None,
    }
}

/// `ipv6header_mt6`, of a packet that has a transport protocol and nothing before it.
fn ipv6_headers(raw: &[u8]) -> Option<bool> {
    const PROTOCOL: u8 = 1;
    let [wanted, inverted, soft, ..] = *raw else { return None };
    Some(if soft != 0 {
        (PROTOCOL ^ wanted ^ inverted) & wanted == 0
    } else {
        (PROTOCOL == wanted) == (inverted == 0)
    })
}

/// The state as xtables numbers it; with what was translated, where `conntrack` asks.
fn xt_state(view: &View, translated: bool) -> u16 {
    let connection = &view.connection;
    let mut bits = match connection.tracking {
        Tracking::None if connection.template.is_some() => ConntrackMatch::NEW,
        Tracking::None => ConntrackMatch::INVALID,
        Tracking::Untracked => ConntrackMatch::UNTRACKED,
        Tracking::New | Tracking::Established | Tracking::Related => {
            debug_assert!(state::NEW == u32::from(ConntrackMatch::NEW));
            connection.state_bit() as u16
        }
    };
    if translated && connection.is_attached() {
        if connection.source_nat.is_some() {
            bits |= ConntrackMatch::SNAT;
        }
        if connection.destination_nat.is_some() {
            bits |= ConntrackMatch::DNAT;
        }
    }
    bits
}

/// Every minute of every day.
const fn is_always(time: &TimeMatch) -> bool {
    const LAST_SECOND: u32 = 24 * 60 * 60 - 1;
    const ALL_WEEKDAYS: u8 = 0xfe;
    const ALL_MONTHDAYS: u32 = 0xffff_fffe;
    time.date_start == 0
        && time.date_stop >= i32::MAX as u32
        && time.daytime_start == 0
        && time.daytime_stop >= LAST_SECOND
        && time.monthdays & ALL_MONTHDAYS == ALL_MONTHDAYS
        && time.weekdays & ALL_WEEKDAYS == ALL_WEEKDAYS
}

#[cfg(test)]
mod tests {
    use super::ipv6_headers;

    #[test]
    fn headers_of_ipv6() {
        for (raw, holds) in [
            // Exactly the protocol, and nothing else.
            ([1, 0, 0], true),
            ([0x81, 0, 0], false),
            ([1, 1, 0], false),
            // Among others.
            ([0x20, 0, 1], false),
            ([0x20, 0x20, 1], true),
            ([1, 0, 1], true),
        ] {
            assert_eq!(ipv6_headers(&raw), Some(holds), "{raw:?}");
        }
    }
}

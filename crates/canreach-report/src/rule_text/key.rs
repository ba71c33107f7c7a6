//! What `meta`, `ct` and the like load: nft's words for the kernel's keys.

use canreach_snapshot::nft::expr::{
    CtDirection, CtKey, ExthdrOp, FibFlags, FibResult, MetaKey, SocketKey,
};

use super::value::Kind;

/// The text of a selector, and what its values mean; `host` where they are in the machine's order.
pub(super) struct Named {
    pub(super) text: String,
    pub(super) kind: Kind,
    pub(super) host: bool,
}

fn named(text: impl Into<String>, kind: Kind, host: bool) -> Named {
    Named { text: text.into(), kind, host }
}

/// `meta mark`; links go without the first word, as nft writes them.
pub(super) fn meta(key: MetaKey) -> Named {
    let (word, kind, host) = match key {
        MetaKey::Iif => return named("iif", Kind::Ifindex, true),
        MetaKey::Oif => return named("oif", Kind::Ifindex, true),
        MetaKey::Iifname => return named("iifname", Kind::Name, false),
        MetaKey::Oifname => return named("oifname", Kind::Name, false),
        MetaKey::Iifgroup => return named("iifgroup", Kind::Decimal, true),
        MetaKey::Oifgroup => return named("oifgroup", Kind::Decimal, true),
        MetaKey::Len => ("length", Kind::Decimal, true),
        MetaKey::Protocol => ("protocol", Kind::EtherType, false),
        MetaKey::Priority => ("priority", Kind::Decimal, true),
        MetaKey::Mark => ("mark", Kind::Mark, true),
        MetaKey::Iiftype => ("iiftype", Kind::Decimal, true),
        MetaKey::Oiftype => ("oiftype", Kind::Decimal, true),
        MetaKey::Skuid => ("skuid", Kind::Decimal, true),
        MetaKey::Skgid => ("skgid", Kind::Decimal, true),
        MetaKey::Nftrace => ("nftrace", Kind::Decimal, true),
        MetaKey::Rtclassid => ("rtclassid", Kind::Decimal, true),
        MetaKey::Secmark => ("secmark", Kind::Decimal, true),
        MetaKey::Nfproto => ("nfproto", Kind::Nfproto, false),
        MetaKey::L4proto => ("l4proto", Kind::Protocol, false),
        MetaKey::BriIifname => ("ibrname", Kind::Name, false),
        MetaKey::BriOifname => ("obrname", Kind::Name, false),
        MetaKey::Pkttype => ("pkttype", Kind::PacketType, true),
        MetaKey::Cpu => ("cpu", Kind::Decimal, true),
        MetaKey::Cgroup => ("cgroup", Kind::Decimal, true),
        MetaKey::Prandom => ("random", Kind::Decimal, true),
        MetaKey::Secpath => ("ipsec", Kind::Boolean, true),
        MetaKey::Iifkind => ("iifkind", Kind::Name, false),
        MetaKey::Oifkind => ("oifkind", Kind::Name, false),
        MetaKey::BriIifpvid => ("ibrpvid", Kind::Decimal, true),
        MetaKey::BriIifvproto => ("ibrvproto", Kind::EtherType, false),
        MetaKey::TimeNs => ("time", Kind::Decimal, true),
        MetaKey::TimeDay => ("day", Kind::Day, true),
        MetaKey::TimeHour => ("hour", Kind::Hour, true),
        MetaKey::Sdif => ("sdif", Kind::Ifindex, true),
        MetaKey::Sdifname => ("sdifname", Kind::Name, false),
        MetaKey::BriBroute => ("broute", Kind::Decimal, true),
        MetaKey::BriIifhwaddr => ("ibrhwaddr", Kind::Mac, false),
        MetaKey::Other(number) => {
            return named(format!("[meta key {number}]"), Kind::Hex, true);
        }
    };
    named(format!("meta {word}"), kind, host)
}

/// `ct state`, `ct original saddr`. `ipv6` where the rule is about one family.
pub(super) fn ct(key: CtKey, direction: Option<CtDirection>, ipv6: bool) -> Named {
    let address = if ipv6 { Kind::Ipv6 } else { Kind::Ipv4 };
    let (word, kind, host) = match key {
        CtKey::State => ("state", Kind::CtState, true),
        CtKey::Direction => ("direction", Kind::CtDirection, true),
        CtKey::Status => ("status", Kind::CtStatus, true),
        CtKey::Mark => ("mark", Kind::Mark, true),
        CtKey::Secmark => ("secmark", Kind::Decimal, true),
        CtKey::Expiration => ("expiration", Kind::Duration, true),
        CtKey::Helper => ("helper", Kind::Name, false),
        CtKey::L3protocol => ("l3proto", Kind::Nfproto, false),
        CtKey::Src => ("saddr", address, false),
        CtKey::Dst => ("daddr", address, false),
        CtKey::Protocol => ("protocol", Kind::Protocol, false),
        CtKey::ProtoSrc => ("proto-src", Kind::Port, false),
        CtKey::ProtoDst => ("proto-dst", Kind::Port, false),
        CtKey::Labels => ("label", Kind::Hex, true),
        CtKey::Pkts => ("packets", Kind::Decimal, true),
        CtKey::Bytes => ("bytes", Kind::Decimal, true),
        CtKey::Avgpkt => ("avgpkt", Kind::Decimal, true),
        CtKey::Zone => ("zone", Kind::Decimal, true),
        CtKey::Eventmask => ("event", Kind::Hex, true),
        CtKey::SrcIp => ("ip saddr", Kind::Ipv4, false),
        CtKey::DstIp => ("ip daddr", Kind::Ipv4, false),
        CtKey::SrcIp6 => ("ip6 saddr", Kind::Ipv6, false),
        CtKey::DstIp6 => ("ip6 daddr", Kind::Ipv6, false),
        CtKey::Id => ("id", Kind::Decimal, true),
        CtKey::Other(number) => {
            return named(format!("[ct key {number}]"), Kind::Hex, true);
        }
    };
    let direction = match direction {
        Some(CtDirection::Original) => "original ",
        Some(CtDirection::Reply) => "reply ",
        None => "",
    };
    named(format!("ct {direction}{word}"), kind, host)
}

/// `fib saddr . iif oif`.
pub(super) fn fib(result: FibResult, flags: FibFlags) -> Named {
    let parts = [
        (flags.saddr, "saddr"),
        (flags.daddr, "daddr"),
        (flags.mark, "mark"),
        (flags.iif, "iif"),
        (flags.oif, "oif"),
    ];
    let parts: Vec<&str> = parts.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
    let (word, kind) = match result {
        _ if flags.present => ("oif", Kind::Boolean),
        FibResult::Oif => ("oif", Kind::Ifindex),
        FibResult::Oifname => ("oifname", Kind::Name),
        FibResult::Addrtype => ("type", Kind::AddressType),
    };
    named(format!("fib {} {word}", parts.join(" . ")), kind, kind != Kind::Name)
}

/// `socket mark`.
pub(super) fn socket(key: SocketKey) -> Named {
    match key {
        SocketKey::Transparent => named("socket transparent", Kind::Decimal, true),
        SocketKey::Mark => named("socket mark", Kind::Mark, true),
        SocketKey::Wildcard => named("socket wildcard", Kind::Decimal, true),
        SocketKey::Cgroupv2(level) => {
            named(format!("socket cgroupv2 level {level}"), Kind::Decimal, true)
        }
    }
}

/// `rt nexthop` (`enum nft_rt_keys`).
pub(super) fn rt(key: u32) -> Named {
    match key {
        0 => named("rt classid", Kind::Decimal, true),
        1 => named("rt ip nexthop", Kind::Ipv4, false),
        2 => named("rt ip6 nexthop", Kind::Ipv6, false),
        3 => named("rt mtu", Kind::Decimal, true),
        4 => named("rt ipsec", Kind::Boolean, true),
        _ => named(format!("[rt key {key}]"), Kind::Hex, true),
    }
}

/// `tcp option maxseg size`, `exthdr frag`.
pub(super) fn exthdr(op: ExthdrOp, option: u8, offset: u32, len: u32, present: bool) -> Named {
    let (prefix, word) = match (op, option) {
        (ExthdrOp::Tcpopt, 2) => ("tcp option", "maxseg"),
        (ExthdrOp::Tcpopt, 3) => ("tcp option", "window"),
        (ExthdrOp::Tcpopt, 4) => ("tcp option", "sack-perm"),
        (ExthdrOp::Tcpopt, 5) => ("tcp option", "sack"),
        (ExthdrOp::Tcpopt, 8) => ("tcp option", "timestamp"),
        (ExthdrOp::Tcpopt, 19) => ("tcp option", "md5sig"),
        (ExthdrOp::Tcpopt, 30) => ("tcp option", "mptcp"),
        (ExthdrOp::Tcpopt, 34) => ("tcp option", "fastopen"),
        (ExthdrOp::Ipv6, 0) => ("exthdr", "hbh"),
        (ExthdrOp::Ipv6, 43) => ("exthdr", "rt"),
        (ExthdrOp::Ipv6, 44) => ("exthdr", "frag"),
        (ExthdrOp::Ipv6, 60) => ("exthdr", "dst"),
        (ExthdrOp::Ipv6, 135) => ("exthdr", "mh"),
        (ExthdrOp::Ipv4, 7) => ("ip option", "rr"),
        (ExthdrOp::Ipv4, 131) => ("ip option", "lsrr"),
        (ExthdrOp::Ipv4, 137) => ("ip option", "ssrr"),
        (ExthdrOp::Ipv4, 148) => ("ip option", "ra"),
        (ExthdrOp::Tcpopt, other) => {
            return named(format!("tcp option {other}"), boolean(present), true);
        }
        (ExthdrOp::Sctp, other) => {
            return named(format!("sctp chunk {other}"), boolean(present), true);
        }
        (ExthdrOp::Ipv6 | ExthdrOp::Ipv4 | ExthdrOp::Dccp, other) => {
            return named(format!("[exthdr {other}]"), boolean(present), true);
        }
    };
    let part = match (option, offset, len) {
        _ if present => "",
        (2, 2, 2) => " size",
        (3, 2, 1) => " count",
        (_, 1, 1) => " length",
        (_, 0, 1) => " nexthdr",
        _ => " [part]",
    };
    named(format!("{prefix} {word}{part}"), boolean(present), present)
}

const fn boolean(present: bool) -> Kind {
    if present { Kind::Boolean } else { Kind::Decimal }
}

//! Values as nft prints them, by the type of what they are compared with.

use std::net::{Ipv4Addr, Ipv6Addr};

use canreach_snapshot::{Ifindex, Netns};

use crate::report::subject::link_name;

/// What a value means (nft's data types, `src/datatype.c` and `include/datatype.h` of nftables).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ipv4,
    Ipv6,
    Mac,
    Port,
    Protocol,
    EtherType,
    Nfproto,
    IcmpType,
    Icmpv6Type,
    IcmpCode,
    Icmpv6Code,
    IcmpxCode,
    TcpFlags,
    Mark,
    CtState,
    CtStatus,
    CtDirection,
    Ifindex,
    Name,
    PacketType,
    AddressType,
    Dscp,
    Ecn,
    Hour,
    Day,
    Duration,
    Boolean,
    Decimal,
    Hex,
}

impl Kind {
    /// By nft's own number (`enum datatypes`), which sets carry.
    pub(super) const fn of_number(number: u32) -> Self {
        match number {
            2 => Self::Nfproto,
            5 | 41 => Self::Name,
            7 => Self::Ipv4,
            8 => Self::Ipv6,
            9 => Self::Mac,
            10 => Self::EtherType,
            12 => Self::Protocol,
            13 => Self::Port,
            14 => Self::IcmpType,
            15 => Self::TcpFlags,
            18 => Self::Duration,
            19 => Self::Mark,
            20 => Self::Ifindex,
            26 => Self::CtState,
            27 => Self::CtDirection,
            28 => Self::CtStatus,
            29 => Self::Icmpv6Type,
            31 => Self::PacketType,
            32 => Self::IcmpCode,
            33 => Self::Icmpv6Code,
            34 => Self::IcmpxCode,
            36 => Self::Dscp,
            37 => Self::Ecn,
            38 => Self::AddressType,
            39 => Self::Boolean,
            44 => Self::Hour,
            45 => Self::Day,
            _ => Self::Decimal,
        }
    }

    /// Its bits have names, and are printed as a list.
    pub(super) const fn is_flags(self) -> bool {
        matches!(self, Self::TcpFlags | Self::CtState | Self::CtStatus)
    }

    /// Ranges that are prefixes are printed as such.
    pub(super) const fn is_address(self) -> bool {
        matches!(self, Self::Ipv4 | Self::Ipv6)
    }
}

/// A number, from bytes as the packet or as the machine has them.
pub(super) fn number(bytes: &[u8], host_order: bool) -> Option<u128> {
    if bytes.len() > 16 {
        return None;
    }
    let big = !host_order || cfg!(target_endian = "big");
    let join = |sum: u128, byte: &u8| sum << 8 | u128::from(*byte);
    Some(if big { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
}

/// One value.
pub(super) fn value(netns: &Netns, kind: Kind, host_order: bool, bytes: &[u8]) -> String {
    match kind {
        Kind::Ipv4 => match bytes.first_chunk::<4>() {
            Some(address) => Ipv4Addr::from(*address).to_string(),
            None => hex(bytes),
        },
        Kind::Ipv6 => match bytes.first_chunk::<16>() {
            Some(address) => Ipv6Addr::from(*address).to_string(),
            None => hex(bytes),
        },
        Kind::Mac => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
        Kind::Name => name(bytes),
        Kind::Hex => hex(bytes),
        _ => match number(bytes, host_order) {
            Some(number) => of_number(netns, kind, number),
            None => hex(bytes),
        },
    }
}

/// A value that is a number.
pub(super) fn of_number(netns: &Netns, kind: Kind, number: u128) -> String {
    let small = u32::try_from(number).unwrap_or(u32::MAX);
    let word = match kind {
        Kind::Mark => return format!("{number:#010x}"),
        Kind::TcpFlags => return flags(&TCP_FLAGS, number),
        Kind::CtState => return flags(&CT_STATES, number),
        Kind::CtStatus => return flags(&CT_STATUS, number),
        Kind::Ifindex => return format!("\"{}\"", link_name(netns, Ifindex(small))),
        Kind::Hour => return format!("\"{}\"", clock(small)),
        Kind::Duration => return duration(u64::try_from(number).unwrap_or(u64::MAX)),
        Kind::Boolean => Some(if number == 0 { "missing" } else { "exists" }),
        Kind::Protocol => protocol(small),
        Kind::EtherType => lookup(&ETHER_TYPES, small),
        Kind::Nfproto => lookup(&NFPROTOS, small),
        Kind::IcmpType => lookup(&ICMP_TYPES, small),
        Kind::Icmpv6Type => lookup(&ICMPV6_TYPES, small),
        Kind::IcmpCode => lookup(&ICMP_CODES, small),
        Kind::Icmpv6Code => lookup(&ICMPV6_CODES, small),
        Kind::IcmpxCode => lookup(&ICMPX_CODES, small),
        Kind::CtDirection => lookup(&[(0, "original"), (1, "reply")], small),
        Kind::PacketType => lookup(&PACKET_TYPES, small),
        Kind::AddressType => lookup(&ADDRESS_TYPES, small),
        Kind::Dscp => lookup(&DSCP, small),
        Kind::Ecn => lookup(&[(0, "not-ect"), (1, "ect1"), (2, "ect0"), (3, "ce")], small),
        Kind::Day => lookup(&DAYS, small).map(|_| ""),
        Kind::Hex => return format!("{number:#x}"),
        Kind::Port | Kind::Decimal | Kind::Ipv4 | Kind::Ipv6 | Kind::Mac | Kind::Name => None,
    };
    match (kind, word) {
        (Kind::Day, Some(_)) => format!("\"{}\"", lookup(&DAYS, small).unwrap_or_default()),
        (_, Some(word)) => word.to_owned(),
        (Kind::EtherType, None) => format!("{number:#06x}"),
        (_, None) => number.to_string(),
    }
}

/// A text that ends at its first zero byte; without one, any ending will do.
fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned();
    match end {
        Some(_) => format!("\"{text}\""),
        None if bytes.len() >= 16 => format!("\"{text}\""),
        None => format!("\"{text}*\""),
    }
}

/// Bytes as one hexadecimal number.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let digits = digits.trim_start_matches('0');
    format!("0x{}", if digits.is_empty() { "0" } else { digits })
}

/// Names of bits, lowest first; what has no name as a number.
fn flags(names: &[(u32, &str)], number: u128) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = number;
    for (bit, word) in names {
        if rest & u128::from(*bit) != 0 {
            rest &= !u128::from(*bit);
            words.push((*word).to_owned());
        }
    }
    if rest != 0 || words.is_empty() {
        words.push(format!("{rest:#x}"));
    }
    words.join(",")
}

fn lookup<'a>(table: &[(u32, &'a str)], number: u32) -> Option<&'a str> {
    table.iter().find(|(known, _)| *known == number).map(|(_, word)| *word)
}

/// The name of a transport protocol, as /etc/protocols has it.
pub(super) fn protocol(number: u32) -> Option<&'static str> {
    lookup(&PROTOCOLS, number)
}

/// Seconds since midnight, UTC.
fn clock(seconds: u32) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if seconds == 0 {
        format!("{hours:02}:{minutes:02}")
    } else {
        format!("{hours:02}:{minutes:02}:{seconds:02}")
    }
}

/// Milliseconds as nft writes them: `1h30m`.
pub(super) fn duration(milliseconds: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let mut rest = milliseconds;
    let mut text = String::new();
    for (size, unit) in units {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

const TCP_FLAGS: [(u32, &str); 8] = [
    (0x01, "fin"),
    (0x02, "syn"),
    (0x04, "rst"),
    (0x08, "psh"),
    (0x10, "ack"),
    (0x20, "urg"),
    (0x40, "ecn"),
    (0x80, "cwr"),
];
const CT_STATES: [(u32, &str); 5] = [
    (0x01, "invalid"),
    (0x02, "established"),
    (0x04, "related"),
    (0x08, "new"),
    (0x40, "untracked"),
];
const CT_STATUS: [(u32, &str); 7] = [
    (0x01, "expected"),
    (0x02, "seen-reply"),
    (0x04, "assured"),
    (0x08, "confirmed"),
    (0x10, "snat"),
    (0x20, "dnat"),
    (0x200, "dying"),
];
const PROTOCOLS: [(u32, &str); 14] = [
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipencap"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (112, "vrrp"),
    (132, "sctp"),
    (136, "udplite"),
];
const ETHER_TYPES: [(u32, &str); 5] =
    [(0x0800, "ip"), (0x0806, "arp"), (0x86dd, "ip6"), (0x8100, "8021q"), (0x88a8, "8021ad")];
const NFPROTOS: [(u32, &str); 2] = [(2, "ipv4"), (10, "ipv6")];
const ICMP_TYPES: [(u32, &str); 15] = [
    (0, "echo-reply"),
    (3, "destination-unreachable"),
    (4, "source-quench"),
    (5, "redirect"),
    (8, "echo-request"),
    (9, "router-advertisement"),
    (10, "router-solicitation"),
    (11, "time-exceeded"),
    (12, "parameter-problem"),
    (13, "timestamp-request"),
    (14, "timestamp-reply"),
    (15, "info-request"),
    (16, "info-reply"),
    (17, "address-mask-request"),
    (18, "address-mask-reply"),
];
const ICMPV6_TYPES: [(u32, &str); 18] = [
    (1, "destination-unreachable"),
    (2, "packet-too-big"),
    (3, "time-exceeded"),
    (4, "parameter-problem"),
    (128, "echo-request"),
    (129, "echo-reply"),
    (130, "mld-listener-query"),
    (131, "mld-listener-report"),
    (132, "mld-listener-done"),
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (137, "nd-redirect"),
    (138, "router-renumbering"),
    (141, "ind-neighbor-solicit"),
    (142, "ind-neighbor-advert"),
    (143, "mld2-listener-report"),
];
const ICMP_CODES: [(u32, &str); 8] = [
    (0, "net-unreachable"),
    (1, "host-unreachable"),
    (2, "prot-unreachable"),
    (3, "port-unreachable"),
    (4, "frag-needed"),
    (9, "net-prohibited"),
    (10, "host-prohibited"),
    (13, "admin-prohibited"),
];
const ICMPV6_CODES: [(u32, &str); 6] = [
    (0, "no-route"),
    (1, "admin-prohibited"),
    (3, "addr-unreachable"),
    (4, "port-unreachable"),
    (5, "policy-fail"),
    (6, "reject-route"),
];
const ICMPX_CODES: [(u32, &str); 4] =
    [(0, "no-route"), (1, "port-unreachable"), (2, "host-unreachable"), (3, "admin-prohibited")];
const PACKET_TYPES: [(u32, &str); 4] =
    [(0, "host"), (1, "broadcast"), (2, "multicast"), (3, "other")];
const ADDRESS_TYPES: [(u32, &str); 9] = [
    (0, "unspec"),
    (1, "unicast"),
    (2, "local"),
    (3, "broadcast"),
    (4, "anycast"),
    (5, "multicast"),
    (6, "blackhole"),
    (7, "unreachable"),
    (8, "prohibit"),
];
const DSCP: [(u32, &str); 21] = [
    (0x00, "cs0"),
    (0x08, "cs1"),
    (0x10, "cs2"),
    (0x18, "cs3"),
    (0x20, "cs4"),
    (0x28, "cs5"),
    (0x30, "cs6"),
    (0x38, "cs7"),
    (0x0a, "af11"),
    (0x0c, "af12"),
    (0x0e, "af13"),
    (0x12, "af21"),
    (0x14, "af22"),
    (0x16, "af23"),
    (0x1a, "af31"),
    (0x1c, "af32"),
    (0x1e, "af33"),
    (0x22, "af41"),
    (0x24, "af42"),
    (0x26, "af43"),
    (0x2e, "ef"),
];
const DAYS: [(u32, &str); 7] = [
    (0, "Sunday"),
    (1, "Monday"),
    (2, "Tuesday"),
    (3, "Wednesday"),
    (4, "Thursday"),
    (5, "Friday"),
    (6, "Saturday"),
];

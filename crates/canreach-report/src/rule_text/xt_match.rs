//! Matches of iptables, as `iptables -S` prints them.

use canreach_snapshot::xt::{
    ConntrackMatch, Match, MatchKind, MultiportWhich, SetReference, TimeMatch,
};

use super::xt::{masked, not, port_range, protocol};

/// `-m conntrack --ctstate NEW`.
pub(super) fn text(matched: &Match, ipv6: bool) -> String {
    let options = options(&matched.kind, ipv6);
    let name = &matched.name;
    if options.is_empty() { format!("-m {name}") } else { format!("-m {name} {options}") }
}

fn options(kind: &MatchKind, ipv6: bool) -> String {
    match kind {
        MatchKind::Tcp { .. }
        | MatchKind::Udp { .. }
        | MatchKind::Icmp { .. }
        | MatchKind::Multiport { .. } => transport(kind, ipv6),
        MatchKind::Addrtype { .. }
        | MatchKind::Iprange { .. }
        | MatchKind::Set(_)
        | MatchKind::Rpfilter { .. }
        | MatchKind::Realm { .. } => network(kind),
        MatchKind::Mac { .. }
        | MatchKind::Physdev { .. }
        | MatchKind::Pkttype { .. }
        | MatchKind::Policy { .. }
        | MatchKind::Devgroup { .. } => link(kind),
        MatchKind::Conntrack(asked) => conntrack(asked),
        MatchKind::State { mask } => format!("--state {}", states(*mask, &CT_STATES)),
        MatchKind::Connmark { mark, mask, inverted } | MatchKind::Mark { mark, mask, inverted } => {
            format!("{}--mark {}", not(*inverted), marked(*mark, *mask))
        }
        MatchKind::Socket { .. } | MatchKind::Owner { .. } | MatchKind::Cgroup { .. } => {
            socket(kind)
        }
        MatchKind::Limit { .. }
        | MatchKind::Hashlimit { .. }
        | MatchKind::Recent { .. }
        | MatchKind::Connlimit { .. }
        | MatchKind::Statistic { .. }
        | MatchKind::Quota { .. } => counting(kind),
        MatchKind::Time(time) => clock(time),
        MatchKind::Comment(text) => format!("--comment {}", word(text)),
        MatchKind::Ttl { .. }
        | MatchKind::Dscp { .. }
        | MatchKind::Tos { .. }
        | MatchKind::Length { .. }
        | MatchKind::Tcpmss { .. }
        | MatchKind::Helper { .. }
        | MatchKind::Nfacct { .. }
        | MatchKind::Cpu { .. }
        | MatchKind::Connlabel { .. } => details(kind, ipv6),
        MatchKind::String { .. }
        | MatchKind::U32 { .. }
        | MatchKind::Bpf { .. }
        | MatchKind::Ecn { .. }
        | MatchKind::Connbytes { .. }
        | MatchKind::Opaque(_) => "[...]".to_owned(),
    }
}

fn transport(kind: &MatchKind, ipv6: bool) -> String {
    let mut words = Vec::new();
    let mut ports = |option: &str, range: (u16, u16), inverted: bool| {
        if inverted || range != (0, u16::MAX) {
            words.push(format!("{}{option} {}", not(inverted), port_range(range)));
        }
    };
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
            ports("--sport", *source_ports, *source_ports_inverted);
            ports("--dport", *destination_ports, *destination_ports_inverted);
            if *option != 0 || *option_inverted {
                words.push(format!("{}--tcp-option {option}", not(*option_inverted)));
            }
            if *flag_mask != 0 || *flags_inverted {
                let (mask, value) = (tcp_flags(*flag_mask), tcp_flags(*flag_value));
                words.push(format!("{}--tcp-flags {mask} {value}", not(*flags_inverted)));
            }
        }
        MatchKind::Udp {
            source_ports,
            source_ports_inverted,
            destination_ports,
            destination_ports_inverted,
        } => {
            ports("--sport", *source_ports, *source_ports_inverted);
            ports("--dport", *destination_ports, *destination_ports_inverted);
        }
        MatchKind::Icmp { kind: 255, .. } if !ipv6 => return "--icmp-type any".to_owned(),
        MatchKind::Icmp { kind, codes, inverted } => {
            let option = if ipv6 { "--icmpv6-type" } else { "--icmp-type" };
            let code = match codes {
                (0, 255) => String::new(),
                (low, high) if low == high => format!("/{low}"),
                (low, high) => format!("/{low}-{high}"),
            };
            words.push(format!("{}{option} {kind}{code}", not(*inverted)));
        }
        MatchKind::Multiport { which, ports, inverted } => {
            let option = match which {
                MultiportWhich::Source => "--sports",
                MultiportWhich::Destination => "--dports",
                MultiportWhich::Either => "--ports",
            };
            let ports: Vec<String> = ports.iter().map(|range| port_range(*range)).collect();
            words.push(format!("{}{option} {}", not(*inverted), ports.join(",")));
        }
        _ => {}
    }
    words.join(" ")
}

/// `FIN,SYN,RST,ACK`.
pub(super) fn tcp_flags(bits: u8) -> String {
    let names =
        [(0x01, "FIN"), (0x02, "SYN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"), (0x20, "URG")];
    let words: Vec<&str> =
        names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    if words.is_empty() { "NONE".to_owned() } else { words.join(",") }
}

fn network(kind: &MatchKind) -> String {
    let mut words = Vec::new();
    match kind {
        MatchKind::Addrtype {
            source,
            source_inverted,
            destination,
            destination_inverted,
            limit_iface_in,
            limit_iface_out,
        } => {
            let sides = [
                ("--src-type", *source, *source_inverted),
                ("--dst-type", *destination, *destination_inverted),
            ];
            for (option, bits, inverted) in sides.iter().filter(|(_, bits, _)| *bits != 0) {
                words.push(format!("{}{option} {}", not(*inverted), address_types(*bits)));
            }
            let limits =
                [(limit_iface_in, "--limit-iface-in"), (limit_iface_out, "--limit-iface-out")];
            words.extend(limits.iter().filter(|(is, _)| **is).map(|(_, text)| (*text).to_owned()));
        }
        MatchKind::Iprange { source, source_inverted, destination, destination_inverted } => {
            let sides = [
                ("--src-range", source, source_inverted),
                ("--dst-range", destination, destination_inverted),
            ];
            for (option, range, inverted) in sides {
                if let Some((low, high)) = range {
                    words.push(format!("{}{option} {low}-{high}", not(*inverted)));
                }
            }
        }
        MatchKind::Set(reference) => {
            let not = not(reference.inverted);
            words.push(format!("{not}--match-set {}", set_reference(reference)));
        }
        MatchKind::Rpfilter { loose, valid_mark, accept_local, inverted } => {
            let flags = [
                (loose, "--loose"),
                (valid_mark, "--validmark"),
                (accept_local, "--accept-local"),
                (inverted, "--invert"),
            ];
            words.extend(flags.iter().filter(|(is, _)| **is).map(|(_, text)| (*text).to_owned()));
        }
        MatchKind::Realm { id, mask, inverted } => {
            words.push(format!("{}--realm {}", not(*inverted), marked(*id, *mask)));
        }
        _ => {}
    }
    words.join(" ")
}

fn link(kind: &MatchKind) -> String {
    let mut words = Vec::new();
    match kind {
        MatchKind::Mac { address, inverted } => {
            let bytes: Vec<String> = address.iter().map(|byte| format!("{byte:02x}")).collect();
            words.push(format!("{}--mac-source {}", not(*inverted), bytes.join(":")));
        }
        MatchKind::Physdev { physin, physout, ops, inverted } => {
            let bits = [
                (8, "--physdev-is-in".to_owned()),
                (1, format!("--physdev-in {physin}")),
                (16, "--physdev-is-out".to_owned()),
                (2, format!("--physdev-out {physout}")),
                (4, "--physdev-is-bridged".to_owned()),
            ];
            let asked = bits.into_iter().filter(|(bit, _)| ops & bit != 0);
            words.extend(asked.map(|(bit, text)| format!("{}{text}", not(inverted & bit != 0))));
        }
        MatchKind::Pkttype { kind, inverted } => {
            let name = match kind {
                0 => "unicast",
                1 => "broadcast",
                2 => "multicast",
                _ => "[other]",
            };
            words.push(format!("{}--pkt-type {name}", not(*inverted)));
        }
        MatchKind::Policy { inbound, none, strict, raw: _ } => {
            let (dir, pol) =
                (if *inbound { "in" } else { "out" }, if *none { "none" } else { "ipsec" });
            let strict = if *strict { " --strict [...]" } else { "" };
            words.push(format!("--dir {dir} --pol {pol}{strict}"));
        }
        MatchKind::Devgroup { source, destination } => {
            for (option, group) in [("--src-group", source), ("--dst-group", destination)] {
                if let Some((group, mask, inverted)) = group {
                    words.push(format!("{}{option} {}", not(*inverted), marked(*group, *mask)));
                }
            }
        }
        _ => {}
    }
    words.join(" ")
}

/// Names of `RTN_*` bits.
fn address_types(bits: u16) -> String {
    const NAMES: [&str; 12] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
        "THROW",
        "NAT",
        "XRESOLVE",
    ];
    let words = NAMES.iter().enumerate().filter(|(bit, _)| bits & 1 << bit != 0);
    words.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

/// `blocked src,dst`.
pub(super) fn set_reference(reference: &SetReference) -> String {
    let name = reference.name.clone().unwrap_or_else(|| format!("[set {}]", reference.index));
    let sides = reference.source.iter().map(|source| if *source { "src" } else { "dst" });
    format!("{name} {}", sides.collect::<Vec<_>>().join(","))
}

/// `0x1`, or `0x1/0xff`.
pub(super) fn marked(mark: u32, mask: u32) -> String {
    if mask == u32::MAX { format!("{mark:#x}") } else { format!("{mark:#x}/{mask:#x}") }
}

/// Bits of `-m conntrack`, in iptables' order.
const CT_STATES: [(u16, &str); 7] = [
    (ConntrackMatch::INVALID, "INVALID"),
    (ConntrackMatch::NEW, "NEW"),
    (ConntrackMatch::RELATED, "RELATED"),
    (ConntrackMatch::ESTABLISHED, "ESTABLISHED"),
    (ConntrackMatch::UNTRACKED, "UNTRACKED"),
    (ConntrackMatch::SNAT, "SNAT"),
    (ConntrackMatch::DNAT, "DNAT"),
];

fn states(bits: u16, names: &[(u16, &str)]) -> String {
    let words = names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name);
    words.collect::<Vec<_>>().join(",")
}

fn conntrack(asked: &ConntrackMatch) -> String {
    let mut words = Vec::new();
    if let Some((bits, inverted)) = asked.state {
        words.push(format!("{}--ctstate {}", not(inverted), states(bits, &CT_STATES)));
    }
    if let Some((number, inverted)) = asked.protocol {
        words.push(format!("{}--ctproto {}", not(inverted), protocol(u32::from(number))));
    }
    let addresses = [
        ("--ctorigsrc", asked.orig_source),
        ("--ctorigdst", asked.orig_destination),
        ("--ctreplsrc", asked.reply_source),
        ("--ctrepldst", asked.reply_destination),
    ];
    for (option, address) in addresses {
        if let Some((address, inverted)) = address {
            words.push(format!("{}{option} {}", not(inverted), masked(&address)));
        }
    }
    let ports = [
        ("--ctorigsrcport", asked.orig_source_port),
        ("--ctorigdstport", asked.orig_destination_port),
        ("--ctreplsrcport", asked.reply_source_port),
        ("--ctrepldstport", asked.reply_destination_port),
    ];
    for (option, ports) in ports {
        if let Some((range, inverted)) = ports {
            words.push(format!("{}{option} {}", not(inverted), port_range(range)));
        }
    }
    if let Some((bits, inverted)) = asked.status {
        let names = [(1, "EXPECTED"), (2, "SEEN_REPLY"), (4, "ASSURED"), (8, "CONFIRMED")];
        let names = if bits == 0 { "NONE".to_owned() } else { states(bits, &names) };
        words.push(format!("{}--ctstatus {names}", not(inverted)));
    }
    if let Some(((low, high), inverted)) = asked.expires {
        let range = if low == high { low.to_string() } else { format!("{low}:{high}") };
        words.push(format!("{}--ctexpire {range}", not(inverted)));
    }
    if let Some(original) = asked.direction {
        words.push(format!("--ctdir {}", if original { "ORIGINAL" } else { "REPLY" }));
    }
    words.join(" ")
}

fn socket(kind: &MatchKind) -> String {
    let mut words = Vec::new();
    match kind {
        MatchKind::Socket { flags } => {
            let names = [(1, "--transparent"), (2, "--nowildcard"), (4, "--restore-skmark")];
            let set = names.iter().filter(|(bit, _)| flags & bit != 0);
            words.extend(set.map(|(_, name)| (*name).to_owned()));
        }
        MatchKind::Owner { uid, gid, socket, supplementary } => {
            if let Some(exists) = socket {
                words.push(format!("{}--socket-exists", not(!exists)));
            }
            for (option, range) in [("--uid-owner", uid), ("--gid-owner", gid)] {
                if let Some(((low, high), inverted)) = range {
                    let range = if low == high { low.to_string() } else { format!("{low}-{high}") };
                    words.push(format!("{}{option} {range}", not(*inverted)));
                }
            }
            if *supplementary {
                words.push("--suppl-groups".to_owned());
            }
        }
        MatchKind::Cgroup { path, classid, inverted } => {
            if let Some(path) = path {
                words.push(format!("{}--path {path}", not(*inverted)));
            }
            if let Some(classid) = classid {
                words.push(format!("{}--cgroup {classid}", not(*inverted)));
            }
        }
        _ => {}
    }
    words.join(" ")
}

fn counting(kind: &MatchKind) -> String {
    match kind {
        MatchKind::Limit { average, burst } => {
            let burst = if *burst == 5 { String::new() } else { format!(" --limit-burst {burst}") };
            format!("--limit {}{burst}", rate(*average))
        }
        MatchKind::Hashlimit { name, raw: _ } => format!("[...] --hashlimit-name {}", word(name)),
        MatchKind::Recent { name, check, seconds, hits, inverted, by_destination, mask } => {
            let names = [(2, "--set"), (1, "--rcheck"), (4, "--update"), (8, "--remove")];
            let action = names.iter().find(|(bit, _)| check & bit != 0);
            let action = action.map_or("[...]", |(_, name)| *name);
            let mut text = format!("{}{action}", not(*inverted));
            if *seconds != 0 {
                text.push_str(&format!(" --seconds {seconds}"));
            }
            if *hits != 0 {
                text.push_str(&format!(" --hitcount {hits}"));
            }
            if check & 16 != 0 {
                text.push_str(" --rttl");
            }
            let side = if *by_destination { "--rdest" } else { "--rsource" };
            format!("{text} --name {} --mask {mask} {side}", word(name))
        }
        MatchKind::Connlimit { limit, flags, mask } => {
            let option = if flags & 1 != 0 { "--connlimit-upto" } else { "--connlimit-above" };
            let bytes = match mask {
                std::net::IpAddr::V4(mask) => mask.octets().to_vec(),
                std::net::IpAddr::V6(mask) => mask.octets().to_vec(),
            };
            let bits = super::nft::prefix_length(&bytes).unwrap_or_default();
            let side = if flags & 2 != 0 { "--connlimit-daddr" } else { "--connlimit-saddr" };
            format!("{option} {limit} --connlimit-mask {bits} {side}")
        }
        MatchKind::Statistic { random: true, probability, inverted, .. } => {
            let share = f64::from(*probability) / f64::from(1_u32 << 31);
            format!("--mode random {}--probability {share:.11}", not(*inverted))
        }
        MatchKind::Statistic { every, packet, inverted, .. } => {
            format!("--mode nth {}--every {} --packet {packet}", not(*inverted), every + 1)
        }
        MatchKind::Quota { quota, inverted } => format!("{}--quota {quota}", not(*inverted)),
        _ => String::new(),
    }
}

/// A rate as iptables writes it, from ten-thousandths of a second between packets.
pub(super) fn rate(average: u32) -> String {
    /// `XT_LIMIT_SCALE`.
    const SCALE: u64 = 10_000;
    let units =
        [("day", SCALE * 86_400), ("hour", SCALE * 3600), ("min", SCALE * 60), ("sec", SCALE)];
    let period = u64::from(average.max(1));
    let mut best = units[0];
    for unit in &units[1..] {
        if period > unit.1 || unit.1 / period < unit.1 % period {
            break;
        }
        best = *unit;
    }
    format!("{}/{}", best.1 / period, best.0)
}

fn clock(time: &TimeMatch) -> String {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let at = |seconds: u32| {
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    };
    let mut words = Vec::new();
    if time.daytime_start != 0 || time.daytime_stop != 86_399 {
        words.push(format!(
            "--timestart {} --timestop {}",
            at(time.daytime_start),
            at(time.daytime_stop)
        ));
    }
    if time.monthdays != 0xffff_fffe {
        let days = (1..32).filter(|day| time.monthdays & 1 << day != 0);
        let days: Vec<String> = days.map(|day: u32| day.to_string()).collect();
        words.push(format!("--monthdays {}", days.join(",")));
    }
    if time.weekdays != 0xfe {
        let days = DAYS.iter().enumerate().filter(|(day, _)| time.weekdays & 2 << day != 0);
        let days: Vec<&str> = days.map(|(_, name)| *name).collect();
        words.push(format!("--weekdays {}", days.join(",")));
    }
    if time.date_start != 0 {
        words.push(format!("--datestart {}", date(time.date_start)));
    }
    if time.date_stop != u32::MAX {
        words.push(format!("--datestop {}", date(time.date_stop)));
    }
    if time.flags & 1 != 0 {
        words.push("--kerneltz".to_owned());
    }
    if time.flags & 2 != 0 {
        words.push("--contiguous".to_owned());
    }
    words.join(" ")
}

/// Seconds since 1970 as a date, UTC.
fn date(seconds: u32) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Counted from 1600-03-01, so that leap days end a year, and eras of 400 years are alike.
    let days = days + 719_468 - 584_388;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 1600 + era * 400 + year + u32::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}")
}

fn details(kind: &MatchKind, ipv6: bool) -> String {
    match kind {
        MatchKind::Ttl { mode, value } => {
            let name = if ipv6 { "hl" } else { "ttl" };
            match mode {
                0 => format!("--{name}-eq {value}"),
                1 => format!("! --{name}-eq {value}"),
                2 => format!("--{name}-lt {value}"),
                _ => format!("--{name}-gt {value}"),
            }
        }
        MatchKind::Dscp { dscp, inverted } => format!("{}--dscp {dscp:#04x}", not(*inverted)),
        MatchKind::Tos { mask, value, inverted } => {
            format!("{}--tos {value:#04x}/{mask:#04x}", not(*inverted))
        }
        MatchKind::Length { range, inverted } => {
            format!("{}--length {}", not(*inverted), port_range(*range))
        }
        MatchKind::Tcpmss { range, inverted } => {
            format!("{}--mss {}", not(*inverted), port_range(*range))
        }
        MatchKind::Helper { name, inverted } => {
            format!("{}--helper {}", not(*inverted), word(name))
        }
        MatchKind::Nfacct { name } => format!("--nfacct-name {}", word(name)),
        MatchKind::Cpu { cpu, inverted } => format!("{}--cpu {cpu}", not(*inverted)),
        MatchKind::Connlabel { bit, options } => {
            format!(
                "{}--label {bit}{}",
                not(options & 1 != 0),
                if options & 2 != 0 { " --set" } else { "" }
            )
        }
        _ => String::new(),
    }
}

/// A text, in quotes where a shell would need them.
pub(super) fn word(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        super::spelling::quoted(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_rates() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (0x7fff_ffff, "2038-01-19T03:14:07"),
        ] {
            assert_eq!(date(seconds), expected);
        }
        for (average, expected) in [(2000, "5/sec"), (200_000, "3/min"), (10_000, "1/sec")] {
            assert_eq!(rate(average), expected);
        }
    }
}

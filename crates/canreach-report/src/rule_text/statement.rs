//! What a rule does: verdicts, logs, translations, limits.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::expr::{DynsetOp, Expr, NatRange, RejectType};

use super::held::{Held, Piece};
use super::key;
use super::nft::{Printer, verdict};
use super::spelling::quoted;
use super::value::{self, Kind};

/// Says what an expression does. Those that load and compare are the printer's own.
pub(super) fn say(printer: &mut Printer<'_>, expr: &Expr) {
    let text = match expr {
        Expr::Verdict(what) => verdict(what),
        Expr::MetaSet { sreg, key } => {
            let named = key::meta(*key);
            format!("{} set {}", named.text, printer.operand(*sreg, named.kind, named.host))
        }
        Expr::CtSet { sreg, key, direction } => {
            let named = key::ct(*key, *direction, printer.is_ipv6());
            format!("{} set {}", named.text, printer.operand(*sreg, named.kind, named.host))
        }
        Expr::PayloadSet { sreg, base, offset, len } => {
            let pieces = printer.payload(*base, *offset, *len);
            let Some(Piece { text, kind, .. }) = pieces.first() else { return };
            format!("{text} set {}", printer.operand(*sreg, *kind, false))
        }
        Expr::ExthdrSet { op, kind } => {
            format!("[set {}]", key::exthdr(*op, *kind, 0, 0, true).text)
        }
        Expr::Dynset { .. } => dynset(printer, expr),
        Expr::Log { prefix, group } => {
            let prefix = prefix.as_ref().map(|prefix| format!(" prefix {}", quoted(prefix)));
            let group = group.map(|group| format!(" group {group}")).unwrap_or_default();
            format!("log{}{group}", prefix.unwrap_or_default())
        }
        Expr::Reject { kind, code } => reject(printer, *kind, *code),
        Expr::Nat { source, family, range } => {
            let word = if *source { "snat" } else { "dnat" };
            nat(printer, word, *family, range)
        }
        Expr::Masq { range } => format!("masquerade{}", ports_only(printer, range)),
        Expr::Redir { range } => format!("redirect{}", ports_only(printer, range)),
        Expr::Tproxy { family, addr, port } => {
            let family = family_word(printer, *family);
            let ipv6 = printer.is_ipv6() || family == " ip6";
            let addr = addr.map(|addr| address(printer, addr, ipv6)).unwrap_or_default();
            let port = port.map(|port| format!(":{}", printer.operand(port, Kind::Port, false)));
            format!("tproxy{family} to {addr}{}", port.unwrap_or_default())
        }
        Expr::Queue { number, total, bypass } => {
            let to = if *total > 1 {
                format!("{number}-{}", u32::from(*number) + u32::from(*total) - 1)
            } else {
                number.to_string()
            };
            format!("queue{} to {to}", if *bypass { " flags bypass" } else { "" })
        }
        other => return printer.say(plain(other)),
    };
    printer.say(text);
}

/// `add @seen { ip saddr timeout 1m }`.
fn dynset(printer: &Printer<'_>, expr: &Expr) -> String {
    let Expr::Dynset { set, op, sreg_key, sreg_data, timeout_ms, invert: _, exprs } = expr else {
        return String::new();
    };
    let mut text = printer.key_text(*sreg_key, set);
    if let Some(timeout) = timeout_ms {
        text.push_str(&format!(" timeout {}", value::duration(*timeout)));
    }
    let mut inner = Printer::new(printer.netns, printer.table);
    inner.all(exprs);
    let inner = inner.finish();
    if !inner.is_empty() {
        text.push_str(&format!(" {inner}"));
    }
    if let Some(data) = sreg_data {
        text.push_str(&format!(" : {}", printer.operand(*data, Kind::Hex, false)));
    }
    let word = match op {
        DynsetOp::Add => "add",
        DynsetOp::Update => "update",
        DynsetOp::Delete => "delete",
    };
    format!("{word} @{set} {{ {text} }}")
}

/// What needs to know nothing of what came before.
fn plain(expr: &Expr) -> String {
    let over = |invert: bool| if invert { "over " } else { "" };
    match expr {
        Expr::Limit { rate, unit_s, burst, bytes, invert } => {
            let unit = match unit_s {
                1 => "second",
                60 => "minute",
                3600 => "hour",
                86400 => "day",
                604_800 => "week",
                _ => "[unit]",
            };
            let rate = if *bytes { sized(*rate) } else { rate.to_string() };
            let burst = match (*bytes, *burst) {
                (true, 0) => String::new(),
                (true, burst) => format!(" burst {}", sized(u64::from(burst))),
                // What nft takes where nothing is said.
                (false, 5) => String::new(),
                (false, burst) => format!(" burst {burst} packets"),
            };
            format!("limit rate {}{rate}/{unit}{burst}", over(*invert))
        }
        Expr::Quota { bytes, invert, .. } => format!("quota {}{}", over(*invert), sized(*bytes)),
        Expr::Connlimit { count, invert } => format!("ct count {}{count}", over(*invert)),
        Expr::Counter { .. } => "counter".to_owned(),
        Expr::Last => "last".to_owned(),
        Expr::Notrack => "notrack".to_owned(),
        Expr::Objref { kind, name } => format!("{} {}", object_words(*kind), quoted(name)),
        Expr::ObjrefMap { set, .. } => format!("[object of map @{set}]"),
        Expr::Synproxy => "synproxy".to_owned(),
        Expr::Dup => "[dup]".to_owned(),
        Expr::Fwd => "[fwd]".to_owned(),
        Expr::FlowOffload { flowtable } => format!("flow add @{flowtable}"),
        _ => String::new(),
    }
}

/// `NFT_OBJECT_*`.
const fn object_words(kind: u32) -> &'static str {
    match kind {
        1 => "counter name",
        2 => "quota name",
        3 => "ct helper set",
        4 => "limit name",
        7 => "ct timeout set",
        8 => "meta secmark set",
        9 => "ct expectation set",
        10 => "synproxy name",
        _ => "[object]",
    }
}

/// `10 mbytes`.
fn sized(bytes: u64) -> String {
    let units = [(1_u64 << 20, "mbytes"), (1 << 10, "kbytes")];
    let found = units.iter().find(|(size, _)| bytes != 0 && bytes.is_multiple_of(*size));
    match found {
        Some((size, unit)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} bytes"),
    }
}

fn reject(printer: &mut Printer<'_>, kind: RejectType, code: u8) -> String {
    printer.reject_says(kind);
    let ipv6 = printer.is_ipv6();
    let (word, codes, usual) = match kind {
        RejectType::TcpRst => return "reject with tcp reset".to_owned(),
        RejectType::IcmpxUnreach => ("icmpx", Kind::IcmpxCode, 1),
        RejectType::IcmpUnreach if ipv6 => ("icmpv6", Kind::Icmpv6Code, 4),
        RejectType::IcmpUnreach => ("icmp", Kind::IcmpCode, 3),
    };
    // In a table of one family, what is usual need not be said; in others it says the family.
    let implied = kind == RejectType::IcmpxUnreach
        || matches!(printer.table.family, NfFamily::Ip | NfFamily::Ip6);
    if code == usual && implied {
        return "reject".to_owned();
    }
    format!("reject with {word} {}", printer.value(codes, false, &[code]))
}

/// ` ip`, in tables of more than one family.
fn family_word(printer: &mut Printer<'_>, family: NfFamily) -> &'static str {
    if matches!(printer.table.family, NfFamily::Ip | NfFamily::Ip6) {
        return "";
    }
    match family {
        NfFamily::Ip => {
            printer.family_said();
            " ip"
        }
        NfFamily::Ip6 => {
            printer.family_said();
            " ip6"
        }
        NfFamily::Inet | NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => "",
    }
}

fn address(
    printer: &Printer<'_>,
    register: canreach_snapshot::nft::expr::Register,
    ipv6: bool,
) -> String {
    let kind = if ipv6 { Kind::Ipv6 } else { Kind::Ipv4 };
    let text = printer.operand(register, kind, false);
    let constant = matches!(printer.held(register), Held::Constant(_));
    if ipv6 && constant { format!("[{text}]") } else { text }
}

fn nat(printer: &mut Printer<'_>, word: &str, family: NfFamily, range: &NatRange) -> String {
    let prefix = if range.flags & RANGE_NETMAP != 0 { " prefix" } else { "" };
    let words = family_word(printer, family);
    let ipv6 = family == NfFamily::Ip6;
    let mut to = String::new();
    let mut part_of_a_map = false;
    if let Some(low) = range.addr_min {
        to.push_str(&address(printer, low, ipv6));
        let is_text = |register| matches!(printer.held(register), Held::Text(_) | Held::Continues);
        part_of_a_map = is_text(low);
        if let Some(high) = range.addr_max.filter(|high| *high != low && !is_text(*high)) {
            match (printer.held(low), printer.held(high)) {
                (Held::Constant(low), Held::Constant(high)) if !ipv6 => {
                    to = printer.addresses(low.as_slice(), high.as_slice());
                }
                _ => to.push_str(&format!("-{}", address(printer, high, ipv6))),
            }
        }
    }
    // Without ports, an IPv6 address needs no brackets.
    if range.proto_min.is_none() || part_of_a_map {
        to = to.replace(['[', ']'], "");
    }
    let ports = ports(printer, range).filter(|_| !part_of_a_map);
    let ports = ports.map(|ports| format!(":{ports}")).unwrap_or_default();
    format!("{word}{words}{prefix} to {to}{ports}{}", flag_words(range.flags))
}

fn ports(printer: &Printer<'_>, range: &NatRange) -> Option<String> {
    let low = range.proto_min?;
    let mut text = printer.operand(low, Kind::Port, false);
    if let Some(high) = range.proto_max.filter(|high| *high != low) {
        let high = printer.operand(high, Kind::Port, false);
        if high != text {
            text.push_str(&format!("-{high}"));
        }
    }
    Some(text)
}

fn ports_only(printer: &Printer<'_>, range: &NatRange) -> String {
    let ports = ports(printer, range).map(|ports| format!(" to :{ports}"));
    format!("{}{}", ports.unwrap_or_default(), flag_words(range.flags))
}

/// `NF_NAT_RANGE_NETMAP`.
const RANGE_NETMAP: u32 = 1 << 6;

/// `NF_NAT_RANGE_PROTO_RANDOM`, `_PROTO_RANDOM_FULLY`, `_PERSISTENT`.
fn flag_words(flags: u32) -> String {
    let words = [(4, "random"), (16, "fully-random"), (8, "persistent")];
    let words: Vec<&str> =
        words.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect();
    if words.is_empty() { String::new() } else { format!(" {}", words.join(",")) }
}

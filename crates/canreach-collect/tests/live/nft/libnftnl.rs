//! The bytecode as `nft --debug=netlink` prints it: libnftnl, an independent work, decodes the same
//! messages. What a snapshot does not keep (levels of log, sizes of a proxy's window) is left out.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::expr::{
    BitwiseOp, CmpOp, CtDirection, CtKey, DynsetOp, ExthdrOp, FibFlags, FibResult, MetaKey,
    NatRange, NfVerdict, PayloadBase, Register, RejectType, SocketKey,
};
use canreach_snapshot::nft::{Bytes, Expr};

/// An expression in its words; `None` for what has no line of its own form.
pub(super) fn print(expr: &Expr) -> String {
    match expr {
        Expr::Immediate { dreg, value } => format!("immediate {} {}", reg(*dreg), words(value)),
        Expr::Verdict(verdict) => format!("immediate reg 0 {}", print_verdict(verdict)),
        Expr::Cmp { sreg, op, value } => {
            format!("cmp {} {} {}", print_cmp(*op), reg(*sreg), words(value))
        }
        Expr::Range { sreg, op, from, to } => {
            format!("range {} {} {} {}", print_cmp(*op), reg(*sreg), words(from), words(to))
        }
        Expr::Bitwise { sreg, dreg, op, .. } => {
            let (dreg, sreg) = (reg(*dreg), reg(*sreg));
            match op {
                BitwiseOp::MaskXor { mask, xor } => {
                    format!("bitwise {dreg} = ( {sreg} & {} ) ^ {}", words(mask), words(xor))
                }
                BitwiseOp::Lshift(bits) => format!("bitwise {dreg} = ( {sreg} << {bits:#010x} )"),
                BitwiseOp::Rshift(bits) => format!("bitwise {dreg} = ( {sreg} >> {bits:#010x} )"),
                other => format!("bitwise {other:?}"),
            }
        }
        Expr::Byteorder { sreg, dreg, to_host, len, size } => {
            let op = if *to_host { "ntoh" } else { "hton" };
            format!("byteorder {} = {op}({}, {size}, {len})", reg(*dreg), reg(*sreg))
        }
        Expr::Payload { dreg, base, offset, len } => {
            format!("payload load {len}b @ {} header + {offset} => {}", at(*base), reg(*dreg))
        }
        Expr::PayloadSet { sreg, base, offset, len } => {
            format!("payload write {} => {len}b @ {} header + {offset}", reg(*sreg), at(*base))
        }
        Expr::Exthdr { dreg, op, kind, offset, len, present } => {
            let op = print_exthdr(*op);
            let present = if *present { " present" } else { "" };
            format!("exthdr load{op} {len}b @ {kind} + {offset}{present} => {}", reg(*dreg))
        }
        Expr::ExthdrSet { op, kind } => format!("exthdr set{} {kind}", print_exthdr(*op)),
        Expr::Meta { dreg, key } => format!("meta load {} => {}", meta(*key), reg(*dreg)),
        Expr::MetaSet { sreg, key } => format!("meta set {} with {}", meta(*key), reg(*sreg)),
        Expr::Ct { dreg, key, direction } => {
            format!("ct load {} => {}{}", ct(*key), reg(*dreg), print_direction(*direction))
        }
        Expr::CtSet { sreg, key, direction } => {
            format!("ct set {} with {}{}", ct(*key), reg(*sreg), print_direction(*direction))
        }
        Expr::Rt { dreg, key } => {
            let key = ["classid", "nexthop4", "nexthop6", "tcpmss", "ipsec"][*key as usize];
            format!("rt load {key} => {}", reg(*dreg))
        }
        Expr::Socket { dreg, key } => {
            let key = match key {
                SocketKey::Transparent => "transparent",
                SocketKey::Mark => "mark",
                SocketKey::Wildcard => "wildcard",
                SocketKey::Cgroupv2(_) => "cgroupv2",
            };
            format!("socket load {key} => {}", reg(*dreg))
        }
        Expr::Fib { dreg, result, flags } => print_fib(*dreg, *result, *flags),
        other => print_statement(other),
    }
}

fn print_statement(expr: &Expr) -> String {
    match expr {
        Expr::Lookup { set, sreg, dreg, verdict, invert } => {
            let dreg = match dreg {
                Some(dreg) => format!(" dreg {}", number(*dreg)),
                None if *verdict => " dreg 0".to_owned(),
                None => String::new(),
            };
            format!("lookup {} set {set}{dreg} {:#x}", reg(*sreg), u8::from(*invert))
        }
        Expr::Dynset { set, op, sreg_key, sreg_data, timeout_ms, invert: _, exprs } => {
            let op = match op {
                DynsetOp::Add => "add",
                DynsetOp::Update => "update",
                DynsetOp::Delete => "delete",
            };
            let data =
                sreg_data.map_or(String::new(), |data| format!(" sreg_data {}", number(data)));
            let key = number(*sreg_key);
            let exprs: String =
                exprs.iter().map(|expr| format!(" expr [ {} ]", print(expr))).collect();
            let timeout = timeout_ms.unwrap_or(0);
            format!("dynset {op} reg_key {key} set {set}{data} timeout {timeout}ms{exprs}")
        }
        Expr::Hash { dreg, sreg, len, modulus, seed, offset } => {
            let of = sreg.map_or("symhash()".to_owned(), |sreg| {
                format!("jhash({}, {len}, {:#x})", reg(sreg), seed.unwrap_or(0))
            });
            format!("hash {} = {of} % mod {modulus}{}", reg(*dreg), print_offset(*offset))
        }
        Expr::Numgen { dreg, modulus, random, offset } => {
            let kind = if *random { "random" } else { "inc" };
            format!("numgen {} = {kind} mod {modulus}{}", reg(*dreg), print_offset(*offset))
        }
        Expr::Osf { dreg } => format!("osf dreg {}", number(*dreg)),
        Expr::Xfrm { dreg, key } => {
            let key = ["", "daddr4", "daddr6", "saddr4", "saddr6", "reqid", "spi"][*key as usize];
            format!("xfrm load {key} => {}", reg(*dreg))
        }
        Expr::Tunnel { dreg, key } => format!("tunnel load {key} => {}", reg(*dreg)),
        Expr::Limit { rate, unit_s, burst, bytes, invert } => {
            let unit = match unit_s {
                1 => "second",
                60 => "minute",
                3600 => "hour",
                86_400 => "day",
                _ => "week",
            };
            let kind = if *bytes { "bytes" } else { "packets" };
            let flags = u8::from(*invert);
            format!("limit rate {rate}/{unit} burst {burst} type {kind} flags {flags:#x}")
        }
        Expr::Quota { bytes, consumed, invert } => {
            format!("quota bytes {bytes} consumed {consumed} flags {}", u8::from(*invert))
        }
        Expr::Connlimit { count, invert } => {
            format!("connlimit count {count} flags {:x}", u8::from(*invert))
        }
        Expr::Counter { packets, bytes } => format!("counter pkts {packets} bytes {bytes}"),
        other => print_action(other),
    }
}

fn print_action(expr: &Expr) -> String {
    match expr {
        Expr::Last => "last".to_owned(),
        Expr::Log { prefix, group } => {
            let prefix = prefix.as_ref().map_or(String::new(), |text| format!(" prefix {text}"));
            format!("log{prefix}{}", group.map_or(String::new(), |group| format!(" group {group}")))
        }
        Expr::Reject { kind, code } => {
            let kind = match kind {
                RejectType::IcmpUnreach => 0,
                RejectType::TcpRst => 1,
                RejectType::IcmpxUnreach => 2,
            };
            format!("reject type {kind} code {code}")
        }
        Expr::Nat { source, family, range } => {
            let kind = if *source { "snat" } else { "dnat" };
            format!("nat {kind} {}{}", print_family(*family), print_range(range))
        }
        Expr::Masq { range } => format!("masq{}", print_range(range)),
        Expr::Redir { range } => format!("redir{}", print_range(range)),
        Expr::Tproxy { family, addr, port } => {
            let family = match family {
                NfFamily::Inet => String::new(),
                family => format!(" {}", print_family(*family)),
            };
            let addr = addr.map_or(String::new(), |addr| format!(" addr {}", reg(addr)));
            let port = port.map_or(String::new(), |port| format!(" port {}", reg(port)));
            format!("tproxy{family}{addr}{port}")
        }
        Expr::Notrack => "notrack".to_owned(),
        Expr::Objref { kind, name } => format!("objref type {kind} name {name}"),
        Expr::ObjrefMap { set, sreg } => format!("objref sreg {} set {set}", number(*sreg)),
        Expr::Synproxy => "synproxy".to_owned(),
        Expr::Dup => "dup".to_owned(),
        Expr::Fwd => "fwd".to_owned(),
        Expr::Queue { .. } => "queue".to_owned(),
        Expr::FlowOffload { flowtable } => format!("flow_offload flowtable {flowtable}"),
        Expr::Match(it) => format!("match name {} rev {}", it.name, it.revision),
        Expr::Target(it) => format!("target name {} rev {}", it.name, it.revision),
        other => format!("{other:?}"),
    }
}

/// A line of its output, without what a snapshot does not keep.
pub(super) fn shorten(line: &str) -> String {
    let cut = |marks: &[&str]| {
        let ends = marks.iter().filter_map(|mark| line.find(mark));
        line[..ends.min().unwrap_or(line.len())].to_owned()
    };
    match line.split(' ').next().unwrap_or_default() {
        "log" => cut(&[" snaplen", " qthreshold", " level"]),
        name @ ("synproxy" | "dup" | "fwd" | "queue" | "last") => name.to_owned(),
        // The direction and number of a transform are not kept.
        "xfrm" => {
            let words: Vec<_> = line.split(' ').collect();
            format!("xfrm load {}", words[4..].join(" "))
        }
        "exthdr" if line.starts_with("exthdr write") || line.starts_with("exthdr reset") => {
            exthdr_set(line)
        }
        // The checksum is the kernel's to correct.
        "payload" => cut(&[" csum_type"]),
        // An offset of 0 and no op are printed by some versions.
        _ => line.replace(" offset 0", "").trim_end().to_owned(),
    }
}

/// `exthdr write tcpopt reg 1 => 2b @ 2 + 2`, `exthdr reset tcpopt 2`.
fn exthdr_set(line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let kind = words.iter().position(|word| *word == "@").map_or(words.len() - 1, |at| at + 1);
    format!("exthdr set {} {}", words[2], words[kind])
}

pub(super) fn words(bytes: &Bytes) -> String {
    let words = bytes.as_slice().chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        format!("0x{:08x}", u32::from_ne_bytes(word))
    });
    words.collect::<Vec<_>>().join(" ")
}

pub(super) fn print_verdict(verdict: &NfVerdict) -> String {
    match verdict {
        NfVerdict::Accept => "accept".to_owned(),
        NfVerdict::Drop => "drop".to_owned(),
        NfVerdict::Stolen => "stolen".to_owned(),
        NfVerdict::Continue => "continue".to_owned(),
        NfVerdict::Break => "break".to_owned(),
        NfVerdict::Return => "return".to_owned(),
        NfVerdict::Jump(chain) => format!("jump -> {chain}"),
        NfVerdict::Goto(chain) => format!("goto -> {chain}"),
        NfVerdict::Queue { .. } | NfVerdict::Other(_) => format!("{verdict:?}"),
    }
}

/// Registers as the kernel numbers them: by four slots where they start at such a one.
fn number(register: Register) -> u8 {
    if register.0.is_multiple_of(4) { register.0 / 4 + 1 } else { register.0 + 8 }
}

fn reg(register: Register) -> String {
    format!("reg {}", number(register))
}

fn print_cmp(op: CmpOp) -> &'static str {
    match op {
        CmpOp::Eq => "eq",
        CmpOp::Neq => "neq",
        CmpOp::Lt => "lt",
        CmpOp::Lte => "lte",
        CmpOp::Gt => "gt",
        CmpOp::Gte => "gte",
    }
}

fn at(base: PayloadBase) -> &'static str {
    match base {
        PayloadBase::Link => "link",
        PayloadBase::Network => "network",
        PayloadBase::Transport => "transport",
        PayloadBase::Inner => "inner",
        PayloadBase::Tunnel => "tunnel",
    }
}

fn print_exthdr(op: ExthdrOp) -> &'static str {
    match op {
        ExthdrOp::Ipv6 => " ipv6",
        ExthdrOp::Tcpopt => " tcpopt",
        ExthdrOp::Ipv4 => " ipv4",
        // It has no name for them.
        ExthdrOp::Sctp | ExthdrOp::Dccp => "",
    }
}

/// Its names are the kernel's, but for a few.
fn meta(key: MetaKey) -> String {
    match key {
        MetaKey::Prandom => "prandom".to_owned(),
        MetaKey::BriIifname => "bri_iifname".to_owned(),
        MetaKey::BriOifname => "bri_oifname".to_owned(),
        MetaKey::BriIifpvid => "bri_iifpvid".to_owned(),
        MetaKey::BriIifvproto => "bri_iifvproto".to_owned(),
        MetaKey::BriBroute => "broute".to_owned(),
        MetaKey::TimeNs => "time".to_owned(),
        MetaKey::TimeDay => "day".to_owned(),
        MetaKey::TimeHour => "hour".to_owned(),
        key => format!("{key:?}").to_lowercase(),
    }
}

fn ct(key: CtKey) -> String {
    match key {
        CtKey::ProtoSrc => "proto_src".to_owned(),
        CtKey::ProtoDst => "proto_dst".to_owned(),
        CtKey::Labels => "label".to_owned(),
        CtKey::Pkts => "packets".to_owned(),
        CtKey::Eventmask => "event".to_owned(),
        CtKey::SrcIp => "src_ip".to_owned(),
        CtKey::DstIp => "dst_ip".to_owned(),
        CtKey::SrcIp6 => "src_ip6".to_owned(),
        CtKey::DstIp6 => "dst_ip6".to_owned(),
        CtKey::Id => "unknown".to_owned(),
        key => format!("{key:?}").to_lowercase(),
    }
}

fn print_direction(direction: Option<CtDirection>) -> &'static str {
    match direction {
        None => "",
        Some(CtDirection::Original) => " , dir original",
        Some(CtDirection::Reply) => " , dir reply",
    }
}

fn print_fib(dreg: Register, result: FibResult, flags: FibFlags) -> String {
    let FibFlags { saddr, daddr, mark, iif, oif, present } = flags;
    let names = [(saddr, "saddr"), (daddr, "daddr"), (mark, "mark"), (iif, "iif"), (oif, "oif")];
    let flags: Vec<_> = names.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
    let result = match result {
        FibResult::Oif => "oif",
        FibResult::Oifname => "oifname",
        FibResult::Addrtype => "type",
    };
    let present = if present { " present" } else { "" };
    format!("fib {} {result}{present} => {}", flags.join(" . "), reg(dreg))
}

fn print_family(family: NfFamily) -> &'static str {
    match family {
        NfFamily::Ip => "ip",
        NfFamily::Ip6 => "ip6",
        NfFamily::Inet => "inet",
        NfFamily::Arp => "arp",
        NfFamily::Bridge => "bridge",
        NfFamily::Netdev => "netdev",
    }
}

fn print_range(range: &NatRange) -> String {
    let NatRange { addr_min, addr_max, proto_min, proto_max, flags } = range;
    let registers = [
        (addr_min, "addr_min"),
        (addr_max, "addr_max"),
        (proto_min, "proto_min"),
        (proto_max, "proto_max"),
    ];
    let registers = registers
        .into_iter()
        .filter_map(|(register, name)| register.map(|it| format!(" {name} {}", reg(it))));
    let flags = if *flags == 0 { String::new() } else { format!(" flags {flags:#x}") };
    format!("{}{flags}", registers.collect::<String>())
}

fn print_offset(offset: u32) -> String {
    if offset == 0 { String::new() } else { format!(" offset {offset}") }
}

//! Rulesets for tests, written as lines close to what nft prints.
//!
//! A line is `chain NAME [HOOK PRIORITY POLICY [TYPE] [on:LINK]]` or a rule: words with their argument, each of
//! which becomes the expressions that nft makes of it. Left out: most of nft.

use canreach_snapshot::nft::expr::{
    BitwiseOp, CmpOp, CtKey, MetaKey, NatRange, NfVerdict, PayloadBase, Register, RejectType,
};
use canreach_snapshot::nft::set::ElementExtra;
use canreach_snapshot::nft::{
    BaseChain, Bytes, Chain, Element, Expr, Handle, Rule, Ruleset, Set, SetFlags, Table,
    expr::Constant,
};
use canreach_snapshot::{ChainKind, ChainPolicy, NfFamily, NfHook, Prefix};

const REGISTER: Register = Register(4);

/// A table of the family inet with these chains and sets.
pub(crate) fn table(text: &str, sets: Vec<Set>) -> Table {
    let mut chains: Vec<Chain> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let handle = Handle(chains.len() as u64 + 1);
        match words.as_slice() {
            ["chain", name, rest @ ..] => chains.push(Chain {
                name: (*name).to_owned(),
                handle,
                base: base(rest),
                rules: Vec::new(),
            }),
            _ => {
                let chain = chains.last_mut().expect("a rule is in a chain");
                let handle = Handle(chain.rules.len() as u64 + 100);
                chain.rules.push(Rule { handle, exprs: rule(&words), comment: None });
            }
        }
    }
    Table {
        family: NfFamily::Inet,
        name: "t".to_owned(),
        handle: Handle(1),
        dormant: false,
        chains,
        sets,
        objects: Vec::new(),
        flowtables: Vec::new(),
    }
}

/// A ruleset of one table.
pub(crate) fn ruleset(text: &str, sets: Vec<Set>) -> Ruleset {
    Ruleset { generation: None, tables: vec![table(text, sets)] }
}

fn base(words: &[&str]) -> Option<BaseChain> {
    let [hook, priority, policy, kind @ ..] = words else { return None };
    Some(BaseChain {
        hook: match *hook {
            "prerouting" => NfHook::Prerouting,
            "input" => NfHook::Input,
            "forward" => NfHook::Forward,
            "output" => NfHook::Output,
            "ingress" => NfHook::Ingress,
            _ => NfHook::Postrouting,
        },
        priority: priority.parse().expect("a priority"),
        kind: match kind.first() {
            Some(&"nat") => ChainKind::Nat,
            Some(&"route") => ChainKind::Route,
            _ => ChainKind::Filter,
        },
        policy: if *policy == "drop" { ChainPolicy::Drop } else { ChainPolicy::Accept },
        devices: kind
            .iter()
            .filter_map(|word| word.strip_prefix("on:"))
            .map(str::to_owned)
            .collect(),
    })
}

fn rule(words: &[&str]) -> Vec<Expr> {
    let mut exprs = Vec::new();
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.next() {
        let (op, word) = match word.strip_prefix('!') {
            Some(word) => (CmpOp::Neq, word),
            None => (CmpOp::Eq, word),
        };
        let mut next = || words.next().expect("an argument");
        match word {
            "saddr" => address(&mut exprs, 12, next(), op),
            "daddr" => address(&mut exprs, 16, next(), op),
            "sport" => port(&mut exprs, 0, next(), op),
            "dport" => port(&mut exprs, 2, next(), op),
            "ttl" => {
                exprs.push(payload(PayloadBase::Network, 8, 1));
                compare(&mut exprs, next(), 1, op);
            }
            "flags" => {
                let (value, mask) = next().split_once('/').expect("flags and mask");
                exprs.push(payload(PayloadBase::Transport, 13, 1));
                exprs.push(mask_with(&[mask.parse().expect("a number")]));
                exprs.push(cmp(op, &[value.parse().expect("a number")]));
            }
            "iifname" => name(&mut exprs, MetaKey::Iifname, next(), op),
            "oifname" => name(&mut exprs, MetaKey::Oifname, next(), op),
            "mark" => {
                exprs.push(Expr::Meta { dreg: REGISTER, key: MetaKey::Mark });
                exprs.push(cmp(op, &number(next()).to_le_bytes()));
            }
            "setmark" => {
                let value = Bytes::from(number(next()).to_le_bytes());
                exprs.push(Expr::Immediate { dreg: REGISTER, value });
                exprs.push(Expr::MetaSet { sreg: REGISTER, key: MetaKey::Mark });
            }
            "ct" => {
                exprs.push(Expr::Ct { dreg: REGISTER, key: CtKey::State, direction: None });
                exprs.push(mask_with(&number(next()).to_le_bytes()));
                exprs.push(cmp(CmpOp::Neq, &[0; 4]));
            }
            "status" => {
                exprs.push(Expr::Ct { dreg: REGISTER, key: CtKey::Status, direction: None });
                exprs.push(mask_with(&number(next()).to_le_bytes()));
                exprs.push(cmp(CmpOp::Neq, &[0; 4]));
            }
            "zone" => {
                let value = Bytes::from(&number(next()).to_le_bytes()[..2]);
                exprs.push(Expr::Immediate { dreg: REGISTER, value });
                exprs.push(Expr::CtSet { sreg: REGISTER, key: CtKey::Zone, direction: None });
            }
            "notrack" => exprs.push(Expr::Notrack),
            "limit" => exprs.push(Expr::Limit {
                rate: 1,
                unit_s: 1,
                burst: 5,
                bytes: false,
                invert: false,
            }),
            "numgen" => {
                let modulus = number(next());
                exprs.push(Expr::Numgen { dreg: REGISTER, modulus, random: true, offset: 0 });
            }
            "is" => exprs.push(cmp(op, &number(next()).to_le_bytes())),
            "in" => exprs.push(lookup(next(), false, op == CmpOp::Neq)),
            "vmap" => exprs.push(lookup(next(), true, false)),
            "load" => match next() {
                "saddr" => exprs.push(payload(PayloadBase::Network, 12, 4)),
                "dport" => exprs.push(payload(PayloadBase::Transport, 2, 2)),
                "saddr.dport" => {
                    exprs.push(payload(PayloadBase::Network, 12, 4));
                    exprs.push(second(PayloadBase::Transport, 2));
                }
                _ => {
                    exprs.push(payload(PayloadBase::Network, 12, 4));
                    exprs.push(second(PayloadBase::Transport, 0));
                }
            },
            "add" => exprs.push(Expr::Dynset {
                set: next().to_owned(),
                op: canreach_snapshot::nft::expr::DynsetOp::Add,
                sreg_key: REGISTER,
                sreg_data: None,
                timeout_ms: None,
                invert: false,
                exprs: Vec::new(),
            }),
            "dnat" | "snat" => nat(&mut exprs, word == "snat", next()),
            "masquerade" => exprs.push(Expr::Masq { range: NatRange::default() }),
            "redirect" => {
                let value = Bytes::from(number(next()).to_be_bytes()[2..].to_vec());
                exprs.push(Expr::Immediate { dreg: REGISTER, value });
                exprs.push(Expr::Redir {
                    range: NatRange { proto_min: Some(REGISTER), ..NatRange::default() },
                });
            }
            "reject" => exprs.push(Expr::Reject { kind: RejectType::IcmpxUnreach, code: 1 }),
            "reset" => exprs.push(Expr::Reject { kind: RejectType::TcpRst, code: 0 }),
            "counter" => exprs.push(Expr::Counter { packets: 0, bytes: 0 }),
            "opaque" => exprs.push(Expr::Opaque("x".to_owned())),
            "jump" => exprs.push(Expr::Verdict(NfVerdict::Jump(next().to_owned()))),
            "goto" => exprs.push(Expr::Verdict(NfVerdict::Goto(next().to_owned()))),
            other => exprs.push(Expr::Verdict(verdict(other))),
        }
    }
    exprs
}

pub(crate) fn verdict(word: &str) -> NfVerdict {
    match word {
        "accept" => NfVerdict::Accept,
        "drop" => NfVerdict::Drop,
        "return" => NfVerdict::Return,
        "continue" => NfVerdict::Continue,
        "queue" => NfVerdict::Queue { number: 0, bypass: false },
        other => match other.split_once(':') {
            Some(("jump", chain)) => NfVerdict::Jump(chain.to_owned()),
            Some(("goto", chain)) => NfVerdict::Goto(chain.to_owned()),
            _ => panic!("no verdict: {other}"),
        },
    }
}

fn number(text: &str) -> u32 {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).expect(text),
        None => text.parse().expect(text),
    }
}

fn payload(base: PayloadBase, offset: u32, len: u32) -> Expr {
    Expr::Payload { dreg: REGISTER, base, offset, len }
}

fn second(base: PayloadBase, offset: u32) -> Expr {
    Expr::Payload { dreg: Register(REGISTER.0 + 1), base, offset, len: 2 }
}

fn cmp(op: CmpOp, value: &[u8]) -> Expr {
    Expr::Cmp { sreg: REGISTER, op, value: Bytes::from(value) }
}

fn mask_with(mask: &[u8]) -> Expr {
    Expr::Bitwise {
        sreg: REGISTER,
        dreg: REGISTER,
        len: mask.len() as u32,
        op: BitwiseOp::MaskXor { mask: Bytes::from(mask), xor: Bytes::from(vec![0; mask.len()]) },
    }
}

fn lookup(set: &str, verdict: bool, invert: bool) -> Expr {
    Expr::Lookup { set: set.to_owned(), sreg: REGISTER, dreg: None, verdict, invert }
}

fn compare(exprs: &mut Vec<Expr>, text: &str, bytes: usize, op: CmpOp) {
    let encode = |text: &str| number(text).to_be_bytes()[4 - bytes..].to_vec();
    exprs.push(match text.split_once('-') {
        Some((from, to)) => Expr::Range {
            sreg: REGISTER,
            op,
            from: Bytes::from(encode(from)),
            to: Bytes::from(encode(to)),
        },
        None => match text.strip_prefix('<') {
            Some(bound) => cmp(CmpOp::Lt, &encode(bound)),
            None => cmp(op, &encode(text)),
        },
    });
}

/// An address, a prefix, or an address under a mask.
fn address(exprs: &mut Vec<Expr>, offset: u32, text: &str, op: CmpOp) {
    exprs.push(payload(PayloadBase::Network, offset, 4));
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().expect(text).octets();
    if let Some((value, mask)) = text.split_once('&') {
        exprs.push(mask_with(&octets(mask)));
        exprs.push(cmp(op, &octets(value)));
        return;
    }
    let prefix: Prefix = text.parse().expect(text);
    let (low, _) = prefix.range();
    if prefix.length() < 32 {
        exprs.push(mask_with(&(!(u32::MAX >> prefix.length())).to_be_bytes()));
    }
    exprs.push(cmp(op, &(low as u32).to_be_bytes()));
}

fn port(exprs: &mut Vec<Expr>, offset: u32, text: &str, op: CmpOp) {
    exprs.push(payload(PayloadBase::Transport, offset, 2));
    compare(exprs, text, 2, op);
}

fn name(exprs: &mut Vec<Expr>, key: MetaKey, text: &str, op: CmpOp) {
    exprs.push(Expr::Meta { dreg: REGISTER, key });
    let mut bytes = text.as_bytes().to_vec();
    if bytes.last() == Some(&b'*') {
        bytes.pop();
    } else {
        bytes.resize(16, 0);
    }
    exprs.push(cmp(op, &bytes));
}

fn nat(exprs: &mut Vec<Expr>, source: bool, to: &str) {
    let (address, port) = to.split_once(':').unwrap_or((to, ""));
    let mut range = NatRange::default();
    let mut put = |register: u8, value: Vec<u8>| {
        let register = Register(register);
        exprs.push(Expr::Immediate { dreg: register, value: Bytes::from(value) });
        Some(register)
    };
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().expect(text).octets().to_vec();
    let (from, last) = address.split_once('-').unwrap_or((address, address));
    range.addr_min = put(4, octets(from));
    range.addr_max = put(5, octets(last));
    if !port.is_empty() {
        range.proto_min = put(8, number(port).to_be_bytes()[2..].to_vec());
    }
    exprs.push(Expr::Nat { source, family: NfFamily::Ip, range });
}

/// A set of addresses, or of prefixes where one has a length; a map to verdicts where they have one.
pub(crate) fn addresses(name: &str, elements: &[&str]) -> Set {
    let interval = elements.iter().any(|element| element.contains('/'));
    let mut set = empty(name, 4);
    if interval {
        set.flags.0 |= SetFlags::INTERVAL.0;
    }
    for element in elements {
        let (key, data) = element.split_once('=').unwrap_or((element, ""));
        let data = (!data.is_empty()).then(|| {
            set.data_type = Some(0xffff_ff00);
            Constant::Verdict(verdict(data))
        });
        if key == "*" {
            set.elements.push(Element { catch_all: true, data, ..Element::default() });
            continue;
        }
        let (low, high) = key.parse::<Prefix>().expect(key).range();
        let bytes = |value: u128| Bytes::from((value as u32).to_be_bytes());
        set.elements.push(Element { key: bytes(low), data, ..Element::default() });
        if interval && high < u128::from(u32::MAX) {
            let key = bytes(high + 1);
            set.elements.push(Element { key, interval_end: true, ..Element::default() });
        }
    }
    set
}

/// A set of addresses and ports: `10.0.0.0/8.80-90`.
pub(crate) fn pairs(name: &str, elements: &[&str]) -> Set {
    let mut set = empty(name, 8);
    set.flags.0 |= SetFlags::INTERVAL.0 | SetFlags::CONCAT.0;
    set.field_lens = vec![4, 2];
    for element in elements {
        let (prefix, ports) = element.split_once(':').expect("a port");
        let (low, high) = prefix.parse::<Prefix>().expect(prefix).range();
        let (from, to) = ports.split_once('-').unwrap_or((ports, ports));
        let key = |address: u128, port: &str| {
            let mut bytes = (address as u32).to_be_bytes().to_vec();
            bytes.extend(port.parse::<u16>().expect(port).to_be_bytes());
            bytes.extend([0, 0]);
            Bytes::from(bytes)
        };
        set.elements.push(Element {
            key: key(low, from),
            key_end: Some(key(high, to)),
            ..Element::default()
        });
    }
    set
}

/// A map from numbers in host order to verdicts.
pub(crate) fn numbers(name: &str, elements: &[(u32, &str)]) -> Set {
    let mut set = empty(name, 4);
    set.data_type = Some(0xffff_ff00);
    for (value, said) in elements {
        let key = Bytes::from(value.to_le_bytes());
        let data = Some(Constant::Verdict(verdict(said)));
        set.elements.push(Element { key, data, ..Element::default() });
    }
    set
}

/// Gives the last element an expression of its own.
pub(crate) fn with_expr(mut set: Set, expr: Expr) -> Set {
    if let Some(element) = set.elements.last_mut() {
        let exprs = vec![expr];
        element.extra = Some(Box::new(ElementExtra { exprs, ..ElementExtra::default() }));
    }
    set
}

fn empty(name: &str, key_len: u32) -> Set {
    Set {
        name: name.to_owned(),
        handle: Handle(1),
        flags: SetFlags(0),
        key_type: 0,
        key_len,
        data_type: None,
        data_len: 0,
        object_type: None,
        field_lens: Vec::new(),
        timeout_ms: None,
        size: None,
        exprs: Vec::new(),
        elements: Vec::new(),
    }
}

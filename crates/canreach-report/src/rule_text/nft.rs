//! A rule of nftables, from its expressions back to what its author wrote.

use canreach_snapshot::nft::expr::{
    BitwiseOp, CmpOp, Expr, MetaKey, NfVerdict, Operand, PayloadBase, Register, RejectType,
};
use canreach_snapshot::nft::{Bytes, Rule, Table};
use canreach_snapshot::{Netns, NfFamily};

use super::field::{ICMP_NUMBER, ICMPV6_NUMBER, Protocols, base_letters};
use super::held::{Held, Piece, Registers, Selector, mask_text};
use super::spelling::{cut, quoted};
use super::value::{self, Kind};
use super::{key, set, statement, xt_match, xt_target};

/// A rule as `nft -s list ruleset` prints it: counters without their numbers.
#[must_use]
pub fn nft_rule(netns: &Netns, table: &Table, rule: &Rule) -> String {
    let mut printer = Printer::new(netns, table);
    printer.all(&rule.exprs);
    let mut text = printer.finish();
    if let Some(comment) = &rule.comment {
        text.push_str(&format!(" comment {}", quoted(comment)));
    }
    cut(text.trim_start().to_owned())
}

/// Walks expressions, left to right.
pub(super) struct Printer<'a> {
    pub(super) netns: &'a Netns,
    pub(super) table: &'a Table,
    registers: Registers,
    protocols: Protocols,
    /// What was said so far; `None` where a later part says it too.
    parts: Vec<Option<String>>,
    /// Where the network protocol was asked for, which the name of a field says as well.
    network_asked: Option<usize>,
    /// The same for the transport protocol.
    transport_asked: Option<usize>,
    /// The same for the kind of link.
    link_asked: Option<usize>,
}

impl<'a> Printer<'a> {
    pub(super) fn new(netns: &'a Netns, table: &'a Table) -> Self {
        let ipv6 = match table.family {
            NfFamily::Ip => Some(false),
            NfFamily::Ip6 => Some(true),
            NfFamily::Inet | NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => None,
        };
        Self {
            netns,
            table,
            registers: Registers::default(),
            protocols: Protocols { ipv6, transport: None },
            parts: Vec::new(),
            network_asked: None,
            transport_asked: None,
            link_asked: None,
        }
    }

    pub(super) fn all(&mut self, exprs: &[Expr]) {
        let mut rest = exprs;
        while let Some((expr, after)) = rest.split_first() {
            rest = after;
            // Both ends of a range, one after the other.
            if let (
                Expr::Cmp { sreg, op: CmpOp::Gte, value: from },
                Some(Expr::Cmp { sreg: same, op: CmpOp::Lte, value: to }),
            ) = (expr, rest.first())
                && sreg == same
            {
                self.range(*sreg, false, from, to);
                rest = &rest[1..];
                continue;
            }
            self.expr(expr);
        }
    }

    pub(super) fn finish(self) -> String {
        let parts: Vec<String> = self.parts.into_iter().flatten().collect();
        parts.join(" ")
    }

    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.parts.push(Some(text.into()));
    }

    pub(super) fn held(&self, register: Register) -> &Held {
        self.registers.at(register)
    }

    pub(super) const fn is_ipv6(&self) -> bool {
        matches!(self.protocols.ipv6, Some(true))
    }

    pub(super) fn value(&self, kind: Kind, host: bool, bytes: &[u8]) -> String {
        value::value(self.netns, kind, host, bytes)
    }

    fn expr(&mut self, expr: &Expr) {
        match expr {
            Expr::Immediate { dreg, value } => {
                self.registers.put(*dreg, Held::Constant(value.clone()), value.len() as u32);
            }
            Expr::Cmp { sreg, op, value } => self.compare(*sreg, *op, value),
            Expr::Range { sreg, op, from, to } => {
                self.range(*sreg, *op == CmpOp::Neq, from, to);
            }
            Expr::Bitwise { sreg, dreg, len, op } => self.bitwise(*sreg, *dreg, *len, op),
            Expr::Byteorder { sreg, dreg, to_host, len, .. } => {
                let mut held = self.held(*sreg).clone();
                if let Held::Selector(selector) = &mut held {
                    selector.pieces.iter_mut().for_each(|piece| piece.host = *to_host);
                }
                self.registers.put(*dreg, held, *len);
            }
            Expr::Payload { dreg, base, offset, len } => {
                self.load_payload(*dreg, *base, *offset, *len);
            }
            Expr::Meta { .. }
            | Expr::Ct { .. }
            | Expr::Rt { .. }
            | Expr::Socket { .. }
            | Expr::Fib { .. }
            | Expr::Exthdr { .. } => self.load_named(expr),
            Expr::Lookup { set, sreg, dreg, verdict: _, invert } => {
                self.lookup(set, *sreg, *dreg, *invert);
            }
            Expr::Hash { dreg, sreg, len, modulus, seed, offset } => {
                let text = self.hash(*sreg, *len, *modulus, *seed, *offset);
                self.registers.put(*dreg, Held::Text(text), 4);
            }
            Expr::Numgen { dreg, modulus, random, offset } => {
                let kind = if *random { "random" } else { "inc" };
                let text = format!("numgen {kind} mod {modulus}{}", behind_offset(*offset));
                self.registers.put(*dreg, Held::Text(text), 4);
            }
            Expr::Osf { dreg } => self.text(*dreg, "osf name"),
            Expr::Tunnel { dreg, .. } => self.text(*dreg, "[tunnel]"),
            Expr::Xfrm { dreg, .. } => self.text(*dreg, "[ipsec]"),
            Expr::Match(matched) => {
                let text = xt_match::text(matched, self.is_ipv6());
                self.say(text);
            }
            Expr::Target(target) => {
                let text = xt_target::text(target, self.is_ipv6());
                self.say(text);
            }
            Expr::Opaque(name) => self.say(format!("[{name}]")),
            _ => statement::say(self, expr),
        }
    }

    /// What has a name of its own.
    fn load_named(&mut self, expr: &Expr) {
        match expr {
            Expr::Meta { dreg, key } => {
                let len = if matches!(
                    key,
                    MetaKey::Iifname | MetaKey::Oifname | MetaKey::BriIifname | MetaKey::BriOifname
                ) {
                    16
                } else {
                    4
                };
                self.load(*dreg, key::meta(*key), len);
            }
            Expr::Ct { dreg, key, direction } => {
                let named = key::ct(*key, *direction, self.is_ipv6());
                if matches!(named.kind, Kind::Ipv4 | Kind::Ipv6) {
                    forget(&mut self.parts, &mut self.network_asked);
                }
                let len = if named.kind == Kind::Ipv6 { 16 } else { 4 };
                self.load(*dreg, named, len);
            }
            Expr::Rt { dreg, key } => self.load(*dreg, key::rt(*key), 4),
            Expr::Socket { dreg, key } => self.load(*dreg, key::socket(*key), 4),
            Expr::Fib { dreg, result, flags } => self.load(*dreg, key::fib(*result, *flags), 4),
            Expr::Exthdr { dreg, op, kind, offset, len, present } => {
                self.load(*dreg, key::exthdr(*op, *kind, *offset, *len, *present), *len);
            }
            _ => {}
        }
    }

    fn load(&mut self, dreg: Register, named: key::Named, len: u32) {
        self.registers.put(dreg, Held::Selector(Selector::named(named, len)), len);
    }

    fn text(&mut self, dreg: Register, text: &str) {
        self.registers.put(dreg, Held::Text(text.to_owned()), 4);
    }

    fn load_payload(&mut self, dreg: Register, base: PayloadBase, offset: u32, len: u32) {
        let pieces = self.payload(base, offset, len);
        let selector =
            Selector { pieces, place: Some((base, offset)), mask: None, suffix: String::new() };
        self.registers.put(dreg, Held::Selector(selector), len);
    }

    /// What bytes of the packet are called. A name says which protocol it is of: what asked for that
    /// protocol need not be said.
    pub(super) fn payload(&mut self, base: PayloadBase, offset: u32, len: u32) -> Vec<Piece> {
        let raw = |offset: u32, len: u32| Piece {
            text: format!("@{},{},{}", base_letters(base), offset * 8, len * 8),
            kind: Kind::Hex,
            host: false,
            len,
            full: len,
        };
        let Some(header) = self.protocols.header(base) else { return vec![raw(offset, len)] };
        let (mut at, end) = (offset, offset.saturating_add(len));
        let mut pieces = Vec::new();
        while at < end {
            let field = header.at(at).filter(|field| {
                // Less than the whole field: the start of an address, which is a prefix.
                field.len <= end - at || field.kind.is_address()
            });
            let Some(field) = field else { return vec![raw(offset, len)] };
            let taken = field.len.min(end - at);
            pieces.push(Piece {
                text: format!("{} {}", header.name, field.name),
                kind: field.kind,
                host: false,
                len: taken,
                full: field.len,
            });
            at += taken;
        }
        match base {
            PayloadBase::Network => forget(&mut self.parts, &mut self.network_asked),
            PayloadBase::Transport if header.name != "th" => {
                forget(&mut self.parts, &mut self.transport_asked);
                if header.name.starts_with("icmp") {
                    forget(&mut self.parts, &mut self.network_asked);
                }
            }
            PayloadBase::Link => forget(&mut self.parts, &mut self.link_asked),
            PayloadBase::Transport | PayloadBase::Inner | PayloadBase::Tunnel => {}
        }
        pieces
    }

    fn bitwise(&mut self, sreg: Register, dreg: Register, len: u32, op: &BitwiseOp) {
        let mut held = self.held(sreg).clone();
        let operand = match op {
            BitwiseOp::And(Operand::Register(register))
            | BitwiseOp::Or(Operand::Register(register))
            | BitwiseOp::Xor(Operand::Register(register)) => self.register_text(*register),
            BitwiseOp::And(Operand::Constant(bytes))
            | BitwiseOp::Or(Operand::Constant(bytes))
            | BitwiseOp::Xor(Operand::Constant(bytes)) => value::hex(bytes.as_slice()),
            BitwiseOp::MaskXor { .. } | BitwiseOp::Lshift(_) | BitwiseOp::Rshift(_) => {
                String::new()
            }
        };
        if let Held::Selector(selector) = &mut held {
            match op {
                BitwiseOp::MaskXor { mask, xor } => {
                    selector.mask = Some((mask.as_slice().to_vec(), xor.as_slice().to_vec()));
                }
                BitwiseOp::Lshift(bits) => selector.suffix.push_str(&format!(" << {bits}")),
                BitwiseOp::Rshift(bits) => selector.suffix.push_str(&format!(" >> {bits}")),
                BitwiseOp::And(_) => selector.suffix.push_str(&format!(" & {operand}")),
                BitwiseOp::Or(_) => selector.suffix.push_str(&format!(" | {operand}")),
                BitwiseOp::Xor(_) => selector.suffix.push_str(&format!(" ^ {operand}")),
            }
            if self.protocols.ipv6 != Some(true) && bit_field(selector) {
                forget(&mut self.parts, &mut self.network_asked);
            }
        }
        self.registers.put(dreg, held, len);
    }

    /// Addresses from one to another, for IPv4.
    pub(super) fn addresses(&self, low: &[u8], high: &[u8]) -> String {
        let (text, kind) = (String::new(), Kind::Ipv4);
        let piece = Piece { text, kind, host: false, len: 4, full: 4 };
        set::range(self.netns, &piece, low, high)
    }

    /// What a register holds, in the middle of a sentence.
    fn register_text(&self, register: Register) -> String {
        match self.held(register) {
            Held::Selector(selector) => format!("{}{}", selector.text(), mask_text(selector)),
            Held::Constant(bytes) => value::hex(bytes.as_slice()),
            Held::Text(text) => text.clone(),
            Held::Nothing | Held::Continues => "[register]".to_owned(),
        }
    }

    /// The same as a value of some kind: what is written to a mark, an address to translate to.
    pub(super) fn operand(&self, register: Register, kind: Kind, host: bool) -> String {
        match self.held(register) {
            Held::Constant(bytes) => self.value(kind, host, bytes.as_slice()),
            Held::Selector(_) | Held::Text(_) | Held::Nothing | Held::Continues => {
                self.register_text(register)
            }
        }
    }

    fn compare(&mut self, sreg: Register, op: CmpOp, bytes: &Bytes) {
        let Held::Selector(selector) = self.held(sreg).clone() else {
            let text = self.register_text(sreg);
            let number = value::number(bytes.as_slice(), true);
            let number = number.map_or_else(|| value::hex(bytes.as_slice()), |n| n.to_string());
            self.say(format!("{text} {}{number}", operator(op, false)));
            return;
        };
        if op == CmpOp::Eq && selector.mask.is_none() && selector.pieces.len() > 1 {
            let mut rest = bytes.as_slice();
            for piece in &selector.pieces {
                let (here, after) = rest.split_at((piece.len as usize).min(rest.len()));
                self.say(self.comparison(piece, &selector, op, here));
                rest = after;
            }
            return;
        }
        let Some(piece) = selector.pieces.first() else { return };
        let text = self.comparison(piece, &selector, op, bytes.as_slice());
        self.say(text);
        if op == CmpOp::Eq && selector.mask.is_none() {
            self.learn(&selector.pieces[0], bytes.as_slice());
        }
    }

    /// What a comparison says about protocols.
    fn learn(&mut self, piece: &Piece, bytes: &[u8]) {
        let asked = self.parts.len() - 1;
        let Some(number) = value::number(bytes, piece.host) else { return };
        match (piece.kind, number) {
            (Kind::Nfproto, 2 | 10) | (Kind::EtherType, 0x0800 | 0x86dd)
                if !piece.text.starts_with("ct ") =>
            {
                self.protocols.ipv6 = Some(matches!(number, 10 | 0x86dd));
                self.network_asked = Some(asked);
            }
            (Kind::Decimal, _) if piece.text == "meta iiftype" => self.link_asked = Some(asked),
            (Kind::Protocol, _) if !piece.text.starts_with("ct ") => {
                self.protocols.transport = u32::try_from(number).ok();
                match u32::try_from(number) {
                    Ok(ICMP_NUMBER) => self.protocols.ipv6 = Some(false),
                    Ok(ICMPV6_NUMBER) => self.protocols.ipv6 = Some(true),
                    Ok(_) | Err(_) => {}
                }
                self.transport_asked = Some(asked);
            }
            _ => {}
        }
    }

    fn comparison(&self, piece: &Piece, selector: &Selector, op: CmpOp, bytes: &[u8]) -> String {
        let (name, kind) = (format!("{}{}", piece.text, selector.suffix), piece.kind);
        if kind == Kind::Boolean {
            let exists = bytes.iter().any(|byte| *byte != 0) == (op == CmpOp::Eq);
            return format!("{name} {}", if exists { "exists" } else { "missing" });
        }
        let Some((mask, xor)) = &selector.mask else {
            let value = if kind.is_address() && piece.len < piece.full {
                let mut whole = bytes.to_vec();
                whole.resize(piece.full as usize, 0);
                format!("{}/{}", self.value(kind, piece.host, &whole), piece.len * 8)
            } else {
                self.value(kind, piece.host, bytes)
            };
            return format!("{name} {}{value}", operator(op, kind.is_flags()));
        };
        let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        if let (Kind::Dscp | Kind::Ecn, [mask], [byte]) = (kind, mask.as_slice(), bytes) {
            let number = u128::from(byte >> mask.trailing_zeros().min(7));
            let value = value::of_number(self.netns, kind, number);
            return format!("{name} {}{value}", operator(op, false));
        }
        let value = self.value(kind, piece.host, bytes);
        let masked = self.value(kind, piece.host, mask);
        match (kind.is_flags() && zero(xor), op) {
            (true, CmpOp::Neq) if zero(bytes) => format!("{name} {masked}"),
            (true, CmpOp::Eq) if zero(bytes) => format!("{name} ! {masked}"),
            (true, CmpOp::Eq) => format!("{name} {value} / {masked}"),
            (true, CmpOp::Neq) => format!("{name} != {value} / {masked}"),
            _ => match prefix_length(mask).filter(|_| kind.is_address() && zero(xor)) {
                Some(bits) => format!("{name} {}{value}/{bits}", operator(op, false)),
                None => format!("{name}{} {}{value}", mask_text(selector), operator(op, true)),
            },
        }
    }

    fn range(&mut self, sreg: Register, invert: bool, from: &Bytes, to: &Bytes) {
        let not = if invert { "!= " } else { "" };
        let Held::Selector(selector) = self.held(sreg).clone() else {
            let text = self.register_text(sreg);
            let [from, to] = [from, to].map(|bytes| {
                let number = value::number(bytes.as_slice(), false);
                number.map_or_else(|| value::hex(bytes.as_slice()), |number| number.to_string())
            });
            self.say(format!("{text} {not}{from}-{to}"));
            return;
        };
        let Some(piece) = selector.pieces.first() else { return };
        let [from, to] =
            [from, to].map(|bytes| self.value(piece.kind, piece.host, bytes.as_slice()));
        let text = format!("{}{} {not}{from}-{to}", piece.text, mask_text(&selector));
        self.say(text);
    }

    fn lookup(&mut self, name: &str, sreg: Register, dreg: Option<Register>, invert: bool) {
        let set = self.table.set(name);
        let pieces = self.registers.key(sreg, set.map_or(4, |set| set.key_len));
        let selectors: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
        let selectors = selectors.join(" . ");
        let elements = set::text(self.netns, set, name, &pieces);
        let is_map = set.is_some_and(|set| set.data_type.is_some());
        let Some(dreg) = dreg else {
            let word = match (is_map, invert) {
                (true, _) => "vmap ",
                (false, true) => "!= ",
                (false, false) => "",
            };
            self.say(format!("{selectors} {word}{elements}"));
            return;
        };
        let text = Held::Text(format!("{selectors} map {elements}"));
        let len = set.map_or(4, |set| set.data_len);
        self.registers.put(dreg, text, len);
    }

    fn hash(
        &self,
        sreg: Option<Register>,
        len: u32,
        modulus: u32,
        seed: Option<u32>,
        offset: u32,
    ) -> String {
        let offset = behind_offset(offset);
        let Some(sreg) = sreg else { return format!("symhash mod {modulus}{offset}") };
        let pieces = self.registers.key(sreg, len);
        let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
        let seed = seed.map(|seed| format!(" seed {seed:#x}")).unwrap_or_default();
        format!("jhash {} mod {modulus}{seed}{offset}", texts.join(" . "))
    }

    /// The fields that a dynamic set is keyed by.
    pub(super) fn key_text(&self, register: Register, set: &str) -> String {
        let len = self.table.set(set).map_or(4, |set| set.key_len);
        let pieces = self.registers.key(register, len);
        let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
        texts.join(" . ")
    }

    /// An error that answers one protocol says which one.
    pub(super) fn reject_says(&mut self, kind: RejectType) {
        match kind {
            RejectType::TcpRst => forget(&mut self.parts, &mut self.transport_asked),
            RejectType::IcmpUnreach => forget(&mut self.parts, &mut self.network_asked),
            RejectType::IcmpxUnreach => {}
        }
    }

    /// A translation to an address of one family says which.
    pub(super) fn family_said(&mut self) {
        forget(&mut self.parts, &mut self.network_asked);
    }
}

fn forget(parts: &mut [Option<String>], asked: &mut Option<usize>) {
    if let Some(part) = asked.take().and_then(|index| parts.get_mut(index)) {
        *part = None;
    }
}

fn behind_offset(offset: u32) -> String {
    if offset == 0 { String::new() } else { format!(" offset {offset}") }
}

/// What stands between a selector and a value. For bits, also "equal" has to be said.
fn operator(op: CmpOp, bits: bool) -> &'static str {
    match op {
        CmpOp::Eq if bits => "== ",
        CmpOp::Eq => "",
        CmpOp::Neq => "!= ",
        CmpOp::Lt => "< ",
        CmpOp::Lte => "<= ",
        CmpOp::Gt => "> ",
        CmpOp::Gte => ">= ",
    }
}

/// How many leading bits a mask has, if it has no others.
pub(super) fn prefix_length(mask: &[u8]) -> Option<u32> {
    let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let mut leading = 0;
    for byte in mask {
        leading += byte.leading_ones();
        if *byte != 0xff {
            break;
        }
    }
    (leading == ones).then_some(ones)
}

/// DSCP and ECN of IPv4 share a byte. Whether it is one of them.
fn bit_field(selector: &mut Selector) -> bool {
    let (Some((PayloadBase::Network, 1)), Some((mask, _))) = (selector.place, &selector.mask)
    else {
        return false;
    };
    let (name, kind) = match mask.as_slice() {
        [0xfc] => ("ip dscp", Kind::Dscp),
        [0x03] => ("ip ecn", Kind::Ecn),
        _ => return false,
    };
    if let Some(piece) = selector.pieces.first_mut() {
        name.clone_into(&mut piece.text);
        piece.kind = kind;
    }
    true
}

/// What a verdict is called.
pub(super) fn verdict(verdict: &NfVerdict) -> String {
    match verdict {
        NfVerdict::Accept => "accept".to_owned(),
        NfVerdict::Drop => "drop".to_owned(),
        NfVerdict::Stolen => "stolen".to_owned(),
        NfVerdict::Queue { number, bypass } => {
            format!("queue{} to {number}", if *bypass { " flags bypass" } else { "" })
        }
        NfVerdict::Continue => "continue".to_owned(),
        NfVerdict::Break => "break".to_owned(),
        NfVerdict::Jump(chain) => format!("jump {chain}"),
        NfVerdict::Goto(chain) => format!("goto {chain}"),
        NfVerdict::Return => "return".to_owned(),
        NfVerdict::Other(number) => format!("[verdict {number}]"),
    }
}

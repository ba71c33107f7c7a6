//! The constants of a rule that mean something outside of it.

use super::meaning::{Meaning, Run, What};
use crate::nft::expr::{BitwiseOp, CmpOp, CtKey, FibResult, MetaKey, PayloadBase, Register};
use crate::nft::{Bytes, Expr, Rule, Table};
use crate::{Family, NfFamily};

/// Where bytes are: in which expression of a rule, in which of its constants, and from which byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) expr: usize,
    /// The second constant of a range.
    pub(super) second: bool,
    pub(super) at: usize,
}

/// What they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Site {
    /// The leading bits of an address, for equality.
    Prefix { place: Place, family: Family, bits: u8, len: usize },
    /// Both ends of a range of addresses.
    Range { low: Place, high: Place, family: Family },
    /// An address that others are smaller or larger than.
    Edge { place: Place, family: Family },
    /// The name of a link, or how it begins.
    Name { place: Place, len: usize },
    /// A hardware address.
    Mac { place: Place },
    /// An address that is of no use to anybody but the kernel.
    Erased { expr: usize },
}

/// The constant of an expression.
pub(super) fn constant(rule: &Rule, place: Place) -> Option<&Bytes> {
    match rule.exprs.get(place.expr)? {
        Expr::Immediate { value, .. } | Expr::Cmp { value, .. } => Some(value),
        Expr::Range { from, to, .. } => Some(if place.second { to } else { from }),
        _ => None,
    }
}

/// The constant of an expression, to be exchanged.
pub(super) fn constant_mut(rule: &mut Rule, place: Place) -> Option<&mut Bytes> {
    match rule.exprs.get_mut(place.expr)? {
        Expr::Immediate { value, .. } | Expr::Cmp { value, .. } => Some(value),
        Expr::Range { from, to, .. } => Some(if place.second { to } else { from }),
        _ => None,
    }
}

/// Every site of a rule.
pub(super) fn sites(table: &Table, rule: &Rule) -> Vec<Site> {
    let mut walk = Walk {
        table,
        rule,
        family: table.family,
        registers: Meaning::registers(),
        immediates: [None; 16],
        sites: Vec::new(),
    };
    for (position, expr) in rule.exprs.iter().enumerate() {
        if !walk.load(expr) {
            walk.use_up(position, expr);
        }
    }
    walk.sites
}

struct Walk<'a> {
    table: &'a Table,
    rule: &'a Rule,
    /// The table's, until the rule asks for one.
    family: NfFamily,
    registers: Meaning,
    /// The expression that last wrote a constant into a register, and its length.
    immediates: [Option<(usize, usize)>; 16],
    sites: Vec<Site>,
}

impl Walk<'_> {
    /// Loads a register; `false` for what does something else.
    fn load(&mut self, expr: &Expr) -> bool {
        const V4: Option<What> = Some(What::Address(Family::Ipv4));
        const V6: Option<What> = Some(What::Address(Family::Ipv6));
        let (dreg, what, len) = match expr {
            Expr::Payload { dreg, base: PayloadBase::Network, offset, len } => {
                self.registers.load_network(*dreg, self.family, *offset, *len);
                return true;
            }
            Expr::Payload { dreg, base: PayloadBase::Link, offset: 0 | 6, len: 6 } => {
                (dreg, Some(What::Mac), 6)
            }
            Expr::Payload { dreg, len, .. } => (dreg, None, (*len).min(64) as usize),
            Expr::Meta { dreg, key } => match key {
                MetaKey::Iifname
                | MetaKey::Oifname
                | MetaKey::BriIifname
                | MetaKey::BriOifname
                | MetaKey::Sdifname => (dreg, Some(What::Name), 16),
                _ => (dreg, None, 4),
            },
            Expr::Fib { dreg, result: FibResult::Oifname, .. } => (dreg, Some(What::Name), 16),
            Expr::Ct { dreg, key, .. } => match (key, self.family) {
                (CtKey::SrcIp | CtKey::DstIp, _) | (CtKey::Src | CtKey::Dst, NfFamily::Ip) => {
                    (dreg, V4, 4)
                }
                (CtKey::SrcIp6 | CtKey::DstIp6, _) | (CtKey::Src | CtKey::Dst, NfFamily::Ip6) => {
                    (dreg, V6, 16)
                }
                _ => (dreg, None, 4),
            },
            // `NFT_RT_NEXTHOP4`, `NFT_RT_NEXTHOP6`.
            Expr::Rt { dreg, key: 1 } => (dreg, V4, 4),
            Expr::Rt { dreg, key: 2 } => (dreg, V6, 16),
            // `NFT_XFRM_KEY_*`.
            Expr::Xfrm { dreg, key: 1 | 3 } => (dreg, V4, 4),
            Expr::Xfrm { dreg, key: 2 | 4 } => (dreg, V6, 16),
            Expr::Bitwise { sreg, dreg, op: BitwiseOp::MaskXor { mask, xor }, .. } => {
                self.registers.mask(*sreg, *dreg, mask.as_slice(), xor.as_slice());
                return true;
            }
            Expr::Lookup { set, dreg: Some(dreg), .. } => {
                if let Some(set) = self.table.set(set) {
                    self.registers.load_meaning(*dreg, &Meaning::of_data(set));
                }
                return true;
            }
            Expr::Rt { dreg, .. }
            | Expr::Xfrm { dreg, .. }
            | Expr::Fib { dreg, .. }
            | Expr::Bitwise { dreg, .. }
            | Expr::Byteorder { dreg, .. }
            | Expr::Exthdr { dreg, .. }
            | Expr::Socket { dreg, .. }
            | Expr::Hash { dreg, .. }
            | Expr::Numgen { dreg, .. }
            | Expr::Osf { dreg }
            | Expr::Tunnel { dreg, .. } => (dreg, None, 4),
            _ => return false,
        };
        self.registers.load(*dreg, what, len);
        true
    }

    /// What uses a constant.
    fn use_up(&mut self, position: usize, expr: &Expr) {
        match expr {
            Expr::Immediate { dreg, value } => {
                self.registers.load(*dreg, None, value.len());
                if let Some(slot) = self.immediates.get_mut(usize::from(dreg.0)) {
                    *slot = Some((position, value.len()));
                }
            }
            Expr::Cmp { sreg, op, value } => {
                if *op == CmpOp::Eq {
                    self.family = self.asked_family(position, value).unwrap_or(self.family);
                }
                for run in self.registers.runs_of(*sreg, value.len()) {
                    self.compare(position, *sreg, *op, run);
                }
            }
            Expr::Range { sreg, from, .. } => {
                for run in self.registers.runs_of(*sreg, from.len()) {
                    let place = |second| Place { expr: position, second, at: run.at };
                    match run.what {
                        What::Address(family) if run.is_whole() => {
                            let (low, high) = (place(false), place(true));
                            self.sites.push(Site::Range { low, high, family });
                        }
                        _ => {}
                    }
                }
            }
            Expr::Nat { family, range, .. } => {
                self.translate(*family, [range.addr_min, range.addr_max]);
            }
            Expr::Tproxy { family, addr, .. } => self.translate(*family, [*addr, *addr]),
            Expr::PayloadSet { sreg, base: PayloadBase::Network, offset, len } => {
                let mut written = Meaning::registers();
                written.load_network(*sreg, self.family, *offset, *len);
                let whole = written.runs_of(*sreg, *len as usize).first().copied();
                if let Some(Run { at: 0, what: What::Address(family), .. }) = whole {
                    self.address(family, *sreg);
                }
            }
            // Where copies go is not kept; what was loaded for it is of no other use.
            Expr::Dup | Expr::Fwd => {
                let loaded = self.immediates.iter_mut().filter_map(Option::take);
                self.sites.extend(loaded.map(|(expr, _)| Site::Erased { expr }));
            }
            _ => {}
        }
    }

    /// The family that is asked for, by its own number or by that of its frames. nft does so before each
    /// load from a header that packets of the table need not have.
    fn asked_family(&self, position: usize, value: &Bytes) -> Option<NfFamily> {
        let before = self.rule.exprs.get(position.checked_sub(1)?)?;
        match (before, value.as_slice()) {
            (Expr::Meta { key: MetaKey::Nfproto, .. }, [2]) => Some(NfFamily::Ip),
            (Expr::Meta { key: MetaKey::Nfproto, .. }, [10]) => Some(NfFamily::Ip6),
            (
                Expr::Meta { key: MetaKey::Protocol, .. }
                | Expr::Payload { base: PayloadBase::Link, offset: 12, len: 2, .. },
                value,
            ) => match value {
                [0x08, 0x00] => Some(NfFamily::Ip),
                [0x86, 0xdd] => Some(NfFamily::Ip6),
                [0x08, 0x06] => Some(NfFamily::Arp),
                _ => None,
            },
            _ => None,
        }
    }

    fn compare(&mut self, position: usize, sreg: Register, op: CmpOp, run: Run) {
        let place = Place { expr: position, second: false, at: run.at };
        match (run.what, op) {
            (What::Address(family), CmpOp::Eq | CmpOp::Neq) => {
                self.sites.push(Site::Prefix { place, family, bits: run.bits, len: run.len });
            }
            (What::Address(family), _) if run.is_whole() => {
                let of = |position: usize, wanted: CmpOp| match self.rule.exprs.get(position) {
                    Some(Expr::Cmp { sreg: other, op, .. }) => *other == sreg && *op == wanted,
                    _ => false,
                };
                let next = position + 1;
                let before = position.checked_sub(1);
                if op == CmpOp::Gte && of(next, CmpOp::Lte) {
                    let high = Place { expr: next, ..place };
                    self.sites.push(Site::Range { low: place, high, family });
                } else if op != CmpOp::Lte || !before.is_some_and(|at| of(at, CmpOp::Gte)) {
                    self.sites.push(Site::Edge { place, family });
                }
            }
            (What::Name, CmpOp::Eq | CmpOp::Neq) => {
                self.sites.push(Site::Name { place, len: run.len });
            }
            (What::Mac, CmpOp::Eq | CmpOp::Neq) if run.is_whole() => {
                self.sites.push(Site::Mac { place });
            }
            (What::Address(_) | What::Name | What::Mac, _) => {}
        }
    }

    /// Constants that an address is translated to.
    fn translate(&mut self, family: NfFamily, [low, high]: [Option<Register>; 2]) {
        let family = match family {
            NfFamily::Ip => Family::Ipv4,
            NfFamily::Ip6 => Family::Ipv6,
            NfFamily::Inet | NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => return,
        };
        let (Some(low), Some(high)) = (low, high.or(low)) else { return };
        if low == high {
            self.address(family, low);
        } else if let (Some(low), Some(high)) = (self.loaded(low), self.loaded(high)) {
            self.sites.push(Site::Range { low, high, family });
        }
    }

    fn address(&mut self, family: Family, register: Register) {
        let bits = family.bits();
        if let Some(place) = self.loaded(register) {
            self.sites.push(Site::Prefix { place, family, bits, len: usize::from(bits / 8) });
        }
    }

    /// The constant in a register. It counts once: a second use finds it exchanged.
    fn loaded(&mut self, register: Register) -> Option<Place> {
        let (expr, _) = self.immediates.get_mut(usize::from(register.0))?.take()?;
        Some(Place { expr, second: false, at: 0 })
    }
}

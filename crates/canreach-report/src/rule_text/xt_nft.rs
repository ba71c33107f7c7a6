//! A rule that iptables-nft wrote, as `iptables -S` prints it.
//!
//! iptables-nft writes the header, ports, marks and limits in nftables' own expressions, and everything
//! else as matches and targets of xtables. A rule with anything else in it was not written by it.

use std::net::IpAddr;

use canreach_snapshot::nft::expr::{
    BitwiseOp, CmpOp, Expr, MetaKey, PayloadBase, Register, RejectType,
};
use canreach_snapshot::nft::{Rule, Table};
use canreach_snapshot::xt::{MaskedAddress, MatchKind};
use canreach_snapshot::{Netns, NfFamily};

use super::spelling::cut;
use super::xt::{masked, not, port_range, protocol, verdict};
use super::{nft, value, xt_match, xt_target};

/// Whether a table looks like one that iptables-nft keeps: its names, and no others.
#[must_use]
pub fn is_iptables_table(table: &Table) -> bool {
    const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    const CHAINS: [&str; 5] = ["INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"];
    matches!(table.family, NfFamily::Ip | NfFamily::Ip6)
        && TABLES.contains(&table.name.as_str())
        && table
            .chains
            .iter()
            .all(|chain| chain.base.is_none() || CHAINS.contains(&chain.name.as_str()))
        && table.chains.iter().any(|chain| chain.base.is_some())
}

/// What was loaded last into a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loaded {
    Payload(PayloadBase, u32, u32),
    Meta(MetaKey),
}

#[derive(Debug, Default)]
struct Words {
    ipv6: bool,
    source: Option<String>,
    destination: Option<String>,
    iniface: Option<String>,
    outiface: Option<String>,
    protocol: Option<(String, u32)>,
    fragment: Option<String>,
    /// Matches in order. Ports come under the name of their protocol.
    matches: Vec<String>,
    target: Option<String>,
}

/// A rule of a table of iptables-nft; `None` if it holds what iptables does not write.
pub(super) fn iptables_rule(chain: &str, table: &Table, rule: &Rule) -> Option<String> {
    let mut words = Words { ipv6: table.family == NfFamily::Ip6, ..Words::default() };
    let mut loaded: [Option<Loaded>; 16] = [None; 16];
    let mut mask: Option<Vec<u8>> = None;
    let mut rest = rule.exprs.as_slice();
    while let Some((expr, after)) = rest.split_first() {
        rest = after;
        match expr {
            Expr::Payload { dreg, base, offset, len } => {
                mask = None;
                load(&mut loaded, *dreg, Loaded::Payload(*base, *offset, *len))?;
            }
            Expr::Meta { dreg, key } => {
                mask = None;
                load(&mut loaded, *dreg, Loaded::Meta(*key))?;
            }
            Expr::Bitwise { sreg, dreg, op: BitwiseOp::MaskXor { mask: bits, xor }, .. } => {
                if xor.as_slice().iter().any(|byte| *byte != 0) {
                    return None;
                }
                let held = *loaded.get(usize::from(sreg.0))?;
                load(&mut loaded, *dreg, held?)?;
                mask = Some(bits.as_slice().to_vec());
            }
            Expr::Cmp { sreg, op, value } => {
                let what = (*loaded.get(usize::from(sreg.0))?)?;
                if let (CmpOp::Gte, Some(Expr::Cmp { op: CmpOp::Lte, value: high, .. })) =
                    (op, rest.first())
                {
                    rest = &rest[1..];
                    words.ports(what, value.as_slice(), high.as_slice(), false)?;
                } else {
                    words.compare(what, mask.as_deref(), *op, value.as_slice())?;
                }
            }
            Expr::Range { sreg, op, from, to } => {
                let what = (*loaded.get(usize::from(sreg.0))?)?;
                words.ports(what, from.as_slice(), to.as_slice(), *op == CmpOp::Neq)?;
            }
            other => words.other(other)?,
        }
    }
    Some(cut(words.text(chain)))
}

fn load(loaded: &mut [Option<Loaded>; 16], register: Register, what: Loaded) -> Option<()> {
    *loaded.get_mut(usize::from(register.0))? = Some(what);
    Some(())
}

impl Words {
    fn text(self, chain: &str) -> String {
        let mut words = vec![format!("-A {chain}")];
        words.extend(self.source);
        words.extend(self.destination);
        words.extend(self.iniface);
        words.extend(self.outiface);
        words.extend(self.protocol.map(|(text, _)| text));
        words.extend(self.fragment);
        words.extend(self.matches);
        words.extend(self.target.filter(|target| !target.is_empty()));
        words.join(" ")
    }

    fn compare(
        &mut self,
        what: Loaded,
        mask: Option<&[u8]>,
        op: CmpOp,
        bytes: &[u8],
    ) -> Option<()> {
        let inverted = match op {
            CmpOp::Eq => false,
            CmpOp::Neq => true,
            CmpOp::Lt | CmpOp::Lte | CmpOp::Gt | CmpOp::Gte => return None,
        };
        let not = not(inverted);
        match what {
            Loaded::Meta(MetaKey::Iifname) => {
                self.iniface = Some(format!("{not}-i {}", link_name(bytes)));
            }
            Loaded::Meta(MetaKey::Oifname) => {
                self.outiface = Some(format!("{not}-o {}", link_name(bytes)));
            }
            Loaded::Meta(MetaKey::L4proto) => self.asked_protocol(not, bytes)?,
            Loaded::Meta(MetaKey::Mark) => {
                let number = |bytes: &[u8]| Some(value::number(bytes, true)? as u32);
                let mask = mask.map_or(Some(u32::MAX), number)?;
                let text = xt_match::marked(number(bytes)?, mask);
                self.matches.push(format!("-m mark {not}--mark {text}"));
            }
            // `-f`: any fragment but the first.
            Loaded::Payload(PayloadBase::Network, 6, 2)
                if !self.ipv6 && mask == Some(&[0x1f, 0xff]) =>
            {
                let first = if inverted { "" } else { "! " };
                self.fragment = Some(format!("{first}-f"));
            }
            Loaded::Payload(PayloadBase::Network, offset, len) => {
                self.network(offset, len, mask, not, bytes)?;
            }
            Loaded::Payload(PayloadBase::Transport, 13, 1) => {
                let (mask, value) = (*mask?.first()?, *bytes.first()?);
                let (mask, value) = (xt_match::tcp_flags(mask), xt_match::tcp_flags(value));
                self.transport(&format!("{not}--tcp-flags {mask} {value}"))?;
            }
            Loaded::Payload(PayloadBase::Transport, 0 | 2, 2) => {
                self.ports(what, bytes, bytes, inverted)?;
            }
            Loaded::Payload(PayloadBase::Transport, 0, 4) if !inverted && bytes.len() == 4 => {
                self.ports(
                    Loaded::Payload(PayloadBase::Transport, 0, 2),
                    &bytes[..2],
                    &bytes[..2],
                    false,
                )?;
                self.ports(
                    Loaded::Payload(PayloadBase::Transport, 2, 2),
                    &bytes[2..],
                    &bytes[2..],
                    false,
                )?;
            }
            Loaded::Meta(_) | Loaded::Payload(..) => return None,
        }
        Some(())
    }

    /// An address, or the protocol in the network header.
    fn network(
        &mut self,
        offset: u32,
        len: u32,
        mask: Option<&[u8]>,
        not: &str,
        bytes: &[u8],
    ) -> Option<()> {
        let (source, destination, full) = if self.ipv6 { (8, 24, 16) } else { (12, 16, 4) };
        let (option, slot) = match offset {
            _ if offset == source => ("-s", &mut self.source),
            _ if offset == destination => ("-d", &mut self.destination),
            9 if !self.ipv6 && len == 1 => return self.asked_protocol(not, bytes),
            6 if self.ipv6 && len == 1 => return self.asked_protocol(not, bytes),
            _ => return None,
        };
        let address = address(bytes, len, mask, full)?;
        *slot = Some(format!("{not}{option} {}", masked(&address)));
        Some(())
    }

    fn asked_protocol(&mut self, not: &str, bytes: &[u8]) -> Option<()> {
        let number = u32::from(*bytes.first()?);
        self.protocol = Some((format!("{not}-p {}", protocol(number)), number));
        Some(())
    }

    fn ports(&mut self, what: Loaded, low: &[u8], high: &[u8], inverted: bool) -> Option<()> {
        let Loaded::Payload(PayloadBase::Transport, offset @ (0 | 2), 2) = what else {
            return None;
        };
        let number = |bytes: &[u8]| Some(u16::from_be_bytes(*bytes.first_chunk()?));
        let range = port_range((number(low)?, number(high)?));
        let option = if offset == 0 { "--sport" } else { "--dport" };
        self.transport(&format!("{}{option} {range}", not(inverted)))
    }

    /// Options of the protocol's own match, which stand together.
    fn transport(&mut self, options: &str) -> Option<()> {
        let name = value::protocol(self.protocol.as_ref()?.1)?;
        let start = format!("-m {name} ");
        match self.matches.last_mut().filter(|last| last.starts_with(&start)) {
            Some(last) => last.push_str(&format!(" {options}")),
            None => self.matches.push(format!("{start}{options}")),
        }
        Some(())
    }

    fn other(&mut self, expr: &Expr) -> Option<()> {
        match expr {
            Expr::Counter { .. } => {}
            Expr::Match(matched) => {
                // The kernel's name of an address type match and the like is iptables' own.
                let text = match &matched.kind {
                    MatchKind::Comment(text) => {
                        format!("-m comment --comment {}", xt_match::word(text))
                    }
                    _ => xt_match::text(matched, self.ipv6),
                };
                self.matches.push(text);
            }
            Expr::Target(target) => self.target = Some(xt_target::text(target, self.ipv6)),
            Expr::Verdict(what) => self.target = Some(verdict(what)),
            Expr::Limit { rate, unit_s, burst, bytes: false, invert: false } => {
                let unit = match unit_s {
                    1 => "sec",
                    60 => "min",
                    3600 => "hour",
                    86400 => "day",
                    _ => return None,
                };
                let burst =
                    if *burst == 5 { String::new() } else { format!(" --limit-burst {burst}") };
                self.matches.push(format!("-m limit --limit {rate}/{unit}{burst}"));
            }
            Expr::Log { prefix, group } => {
                let prefix = prefix.as_ref().map(|prefix| xt_match::word(prefix));
                self.target = Some(match (group, prefix) {
                    (Some(group), Some(prefix)) => {
                        format!("-j NFLOG --nflog-prefix {prefix} --nflog-group {group}")
                    }
                    (Some(group), None) => format!("-j NFLOG --nflog-group {group}"),
                    (None, Some(prefix)) => format!("-j LOG --log-prefix {prefix}"),
                    (None, None) => "-j LOG".to_owned(),
                });
            }
            Expr::Reject { kind: RejectType::TcpRst, .. } => {
                self.target = Some("-j REJECT --reject-with tcp-reset".to_owned());
            }
            _ => return None,
        }
        Some(())
    }
}

/// `eth+` for any ending.
fn link_name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let name = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned();
    if end.is_none() && bytes.len() < 16 { format!("{name}+") } else { name }
}

/// An address under a mask, or its first bytes.
fn address(bytes: &[u8], len: u32, mask: Option<&[u8]>, full: usize) -> Option<MaskedAddress> {
    let filled = |bytes: &[u8]| {
        let mut whole = bytes.to_vec();
        whole.resize(full, 0);
        match full {
            4 => Some(IpAddr::from(*whole.first_chunk::<4>()?)),
            _ => Some(IpAddr::from(*whole.first_chunk::<16>()?)),
        }
    };
    if len as usize > full {
        return None;
    }
    let ones = vec![0xff; len as usize];
    Some(MaskedAddress { address: filled(bytes)?, mask: filled(mask.unwrap_or(&ones))? })
}

/// A rule of nftables in the words of whoever keeps its table.
#[must_use]
pub fn in_own_words(netns: &Netns, chain: &str, table: &Table, rule: &Rule) -> String {
    let own = is_iptables_table(table).then(|| iptables_rule(chain, table, rule)).flatten();
    own.unwrap_or_else(|| nft::nft_rule(netns, table, rule))
}

//! A table of iptables-legacy or ip6tables-legacy, as one block (`IPT_SO_GET_ENTRIES`).
//!
//! Rules lie one after the other. What starts at a hook and where its policy stands comes with it
//! (`IPT_SO_GET_INFO`). A chain of the user's starts behind a rule that holds its name as an error, and
//! ends in a rule that returns; the last rule of all is an error by the name of `ERROR`. That is how
//! libiptc lays tables out. The kernel itself only asks that jumps lead to rules: a table that is laid
//! out otherwise is not decoded.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canreach_snapshot::nft::expr::NfVerdict;
use canreach_snapshot::xt::{
    Chain, HeaderMatch, MaskedAddress, Match, MatchKind, Rule, Table, Target, TargetKind,
};
use canreach_snapshot::{ChainPolicy, Family, NfFamily, NfHook};

use super::structure::{Structure, link_pattern, text};
use super::{decode_match, decode_target, target};

/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct xt_entry_match`, `struct xt_entry_target`: size, name, revision, before what they hold.
const EXTENSION_HEADER: usize = 32;
/// The name of the last rule's error.
const LAST: &str = "ERROR";
/// The built-in chains, by the number of their hook (`NF_INET_*`).
const HOOKS: [(NfHook, &str); 5] = [
    (NfHook::Prerouting, "PREROUTING"),
    (NfHook::Input, "INPUT"),
    (NfHook::Forward, "FORWARD"),
    (NfHook::Output, "OUTPUT"),
    (NfHook::Postrouting, "POSTROUTING"),
];

/// What `IPT_SO_GET_INFO` says (`struct ipt_getinfo`, `struct ip6t_getinfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLayout {
    /// For each hook it has, its number, where its chain starts and where its policy is.
    hooks: Vec<(usize, usize, usize)>,
    size: usize,
}

impl TableLayout {
    /// How long the structure is: name, valid hooks, five starts, five policies, number of rules, size.
    pub const LENGTH: usize = NAME + 4 + 20 + 20 + 4 + 4;

    /// Reads the structure; `None` where it is too short.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.get(NAME..)?.as_chunks::<4>();
        let word = |at: usize| words.get(at).map(|word| u32::from_ne_bytes(*word) as usize);
        let valid = word(0)?;
        let hooks = (0..HOOKS.len()).filter(|hook| valid & 1 << hook != 0);
        let hooks = hooks.map(|hook| Some((hook, word(1 + hook)?, word(6 + hook)?)));
        Some(Self { hooks: hooks.collect::<Option<_>>()?, size: word(12)? })
    }

    /// Where each of its built-in chains starts, and where its policy is.
    pub(crate) fn chains(&self) -> impl Iterator<Item = (usize, usize)> {
        self.hooks.iter().map(|&(_, start, policy)| (start, policy))
    }

    /// How many bytes of rules there are.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }
}

/// Decodes the rules of a table; `None` for bytes that are no table as libiptc lays it out.
#[must_use]
pub fn decode_table(
    family: Family,
    name: &str,
    layout: &TableLayout,
    bytes: &[u8],
) -> Option<Table> {
    let entries = read_entries(family, bytes)?;
    let chains = lay_out(layout, &entries)?;
    let starts: BTreeMap<usize, &str> = chains
        .iter()
        .filter(|chain| chain.base.is_none())
        .map(|chain| Some((entries.get(chain.rules.start)?.at, chain.name)))
        .collect::<Option<_>>()?;
    let chains = chains.iter().map(|chain| {
        // Policies and the returns at the end of the user's chains are no rules.
        let rules = entries.get(chain.rules.start..chain.rules.end)?;
        Some(Chain {
            name: chain.name.to_owned(),
            base: chain.base,
            rules: rules.iter().map(|entry| rule(entry, &starts)).collect::<Option<_>>()?,
        })
    });
    Some(Table {
        family: nf_family(family),
        name: name.to_owned(),
        chains: chains.collect::<Option<_>>()?,
    })
}

const fn nf_family(family: Family) -> NfFamily {
    match family {
        Family::Ipv4 => NfFamily::Ip,
        Family::Ipv6 => NfFamily::Ip6,
    }
}

/// One rule as it lies in the table, what it does not resolved.
#[derive(Debug)]
struct Entry<'a> {
    at: usize,
    next: usize,
    header: HeaderMatch,
    matches: Vec<Match>,
    goto: bool,
    action: Action<'a>,
}

#[derive(Debug)]
enum Action<'a> {
    /// A standard target: a verdict, or where to go on.
    Standard(i32),
    /// The start of a chain, or the end of the table.
    Error(String),
    Other {
        name: String,
        revision: u8,
        family: NfFamily,
        bytes: &'a [u8],
    },
}

impl Entry<'_> {
    /// The verdict of a rule that every packet gets.
    fn unconditional(&self) -> Option<NfVerdict> {
        let Action::Standard(verdict) = self.action else { return None };
        let asks = &self.header;
        let any = |masked: MaskedAddress| masked.mask.is_unspecified();
        // Even inverted: what is true of every packet is true of none then.
        let inverted = asks.source_inverted
            || asks.destination_inverted
            || asks.iniface_inverted
            || asks.outiface_inverted
            || asks.protocol_inverted
            || asks.fragment_inverted;
        let unconditional = !inverted
            && any(asks.source)
            && any(asks.destination)
            && asks.iniface.is_empty()
            && asks.outiface.is_empty()
            && asks.protocol == 0
            && !asks.fragment
            && self.matches.is_empty();
        target::standard(verdict).filter(|_| unconditional)
    }
}

fn read_entries(family: Family, bytes: &[u8]) -> Option<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let entry = read_entry(family, at, bytes.get(at..)?)?;
        at = entry.next;
        entries.push(entry);
    }
    Some(entries)
}

/// `struct ipt_entry`, `struct ip6t_entry`, its matches and its target.
fn read_entry(family: Family, at: usize, bytes: &[u8]) -> Option<Entry<'_>> {
    let nf_family = nf_family(family);
    let mut fields = Structure::new(bytes, nf_family);
    let (header, goto, mut matches) = read_header(family, &mut fields)?;
    // `nfcache`.
    fields.u32()?;
    let target_at = usize::from(fields.u16()?);
    let length = usize::from(fields.u16()?);
    // `comefrom`, and two counters.
    fields.u32()?;
    fields.u64()?;
    fields.u64()?;
    let start = bytes.len() - fields.rest().len();
    let mut rest = bytes.get(start..target_at)?;
    while !rest.is_empty() {
        let extension = Extension::read(rest)?;
        matches.push(decode_match(&extension.name, extension.revision, nf_family, extension.bytes));
        rest = rest.get(extension.length..)?;
    }
    let Extension { name, revision, bytes, .. } = Extension::read(bytes.get(target_at..length)?)?;
    let action = match name.as_str() {
        "" => Action::Standard(i32::from_ne_bytes(*bytes.first_chunk()?)),
        LAST => Action::Error(text(bytes)),
        _ => Action::Other { name, revision, family: nf_family, bytes },
    };
    Some(Entry { at, next: at + length, header, matches, goto, action })
}

/// A match or target: `struct xt_entry_match`, `struct xt_entry_target`.
struct Extension<'a> {
    length: usize,
    name: String,
    revision: u8,
    bytes: &'a [u8],
}

impl<'a> Extension<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<EXTENSION_HEADER>()?;
        let [low, high, name @ .., revision] = header;
        let length = usize::from(u16::from_ne_bytes([*low, *high]));
        Some(Self {
            length,
            name: text(name),
            revision: *revision,
            bytes: bytes.get(EXTENSION_HEADER..length)?,
        })
    }
}

/// `struct ipt_ip`, `struct ip6t_ip6`: what it asks, whether a jump is not to come back, and what of
/// it has no form of its own.
fn read_header(
    family: Family,
    fields: &mut Structure<'_>,
) -> Option<(HeaderMatch, bool, Vec<Match>)> {
    let mut address = || -> Option<IpAddr> {
        Some(match family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::from(fields.array::<4>()?)),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(fields.array::<16>()?)),
        })
    };
    let (source, destination) = (address()?, address()?);
    let masked = |address: IpAddr, mask: IpAddr| match family {
        // Only the packet's address is masked (net/ipv4/netfilter/ip_tables.c, `ip_packet_match`).
        Family::Ipv4 => MaskedAddress { address, mask },
        Family::Ipv6 => MaskedAddress::new(address, mask),
    };
    let (source, destination) = (masked(source, address()?), masked(destination, address()?));
    let names: [[u8; 16]; 2] = [fields.array()?, fields.array()?];
    let masks: [[u8; 16]; 2] = [fields.array()?, fields.array()?];
    let protocol = fields.u16()?;
    let (protocol, flags, inverted) = match family {
        Family::Ipv4 => (protocol, fields.u8()?, fields.u8()?),
        Family::Ipv6 => {
            let (_tos, flags, inverted) = (fields.u8()?, fields.u8()?, fields.u8()?);
            // `IP6T_F_PROTO`: else the protocol is not looked at.
            (if flags & 1 == 0 { 0 } else { protocol }, flags, inverted)
        }
    };
    // The structure is one of its own, padded to words.
    fields.align(4);
    let goto = match family {
        Family::Ipv4 => flags & 2 != 0,
        Family::Ipv6 => flags & 4 != 0,
    };
    let mut matches = Vec::new();
    let mut links = ["in-interface", "out-interface"].into_iter().zip(names.iter().zip(masks));
    let mut link = |inverted: bool| -> Option<(String, bool)> {
        let (option, (name, mask)) = links.next()?;
        if let Some(pattern) = link_pattern(name, &mask) {
            return Some((pattern, inverted));
        }
        let kind = MatchKind::Opaque([*name, mask].concat().into());
        matches.push(Match { name: option.to_owned(), revision: 0, kind });
        Some((String::new(), false))
    };
    let (iniface, iniface_inverted) = link(inverted & 0x01 != 0)?;
    let (outiface, outiface_inverted) = link(inverted & 0x02 != 0)?;
    let header = HeaderMatch {
        source,
        source_inverted: inverted & 0x08 != 0,
        destination,
        destination_inverted: inverted & 0x10 != 0,
        iniface,
        iniface_inverted,
        outiface,
        outiface_inverted,
        protocol,
        protocol_inverted: inverted & 0x40 != 0,
        fragment: family == Family::Ipv4 && flags & 1 != 0,
        fragment_inverted: family == Family::Ipv4 && inverted & 0x20 != 0,
    };
    Some((header, goto, matches))
}

/// Which of the entries a chain consists of.
#[derive(Debug)]
struct ChainPlace<'a> {
    name: &'a str,
    base: Option<(NfHook, ChainPolicy)>,
    /// Without what ends it.
    rules: std::ops::Range<usize>,
}

/// Finds the chains: the built-in ones in the order of their hooks, then the user's. Every entry but
/// the last belongs to one.
fn lay_out<'a>(layout: &TableLayout, entries: &'a [Entry<'_>]) -> Option<Vec<ChainPlace<'a>>> {
    let position = |at: usize| entries.binary_search_by_key(&at, |entry| entry.at).ok();
    let mut chains = Vec::new();
    for &(hook, start, policy) in &layout.hooks {
        let (start, end) = (position(start)?, position(policy)?);
        let policy = match entries.get(end)?.unconditional()? {
            NfVerdict::Accept => ChainPolicy::Accept,
            NfVerdict::Drop => ChainPolicy::Drop,
            _ => return None,
        };
        let (hook, name) = *HOOKS.get(hook)?;
        chains.push(ChainPlace { name, base: Some((hook, policy)), rules: start..end });
    }
    // The built-in chains come first, each behind the one before.
    let mut next = 0;
    let mut placed: Vec<_> = chains.iter().map(|chain| chain.rules.clone()).collect();
    placed.sort_by_key(|rules| rules.start);
    for rules in placed {
        if rules.start != next || rules.end < rules.start {
            return None;
        }
        next = rules.end + 1;
    }
    let starts: Vec<(usize, &str)> = entries
        .iter()
        .enumerate()
        .skip(next)
        .filter_map(|(position, entry)| match &entry.action {
            Action::Error(name) => Some((position, name.as_str())),
            Action::Standard(_) | Action::Other { .. } => None,
        })
        .collect();
    let (&(last, last_name), _) = starts.split_last()?;
    if starts.first()?.0 != next || last + 1 != entries.len() || last_name != LAST {
        return None;
    }
    for pair in starts.windows(2) {
        let &[(start, name), (end, _)] = pair else { return None };
        let end = end.checked_sub(1).filter(|end| *end > start)?;
        if entries.get(end)?.unconditional()? != NfVerdict::Return {
            return None;
        }
        chains.push(ChainPlace { name, base: None, rules: start + 1..end });
    }
    // An error among the rules of a built-in chain would start another there.
    let errors = entries.iter().filter(|entry| matches!(entry.action, Action::Error(_))).count();
    (errors == starts.len()).then_some(chains)
}

fn rule(entry: &Entry<'_>, starts: &BTreeMap<usize, &str>) -> Option<Rule> {
    let target = match &entry.action {
        Action::Standard(verdict) => {
            let kind = match (target::standard(*verdict), usize::try_from(*verdict)) {
                (Some(verdict), _) => TargetKind::Standard(verdict),
                // A rule without a target goes to the next one.
                (None, Ok(to)) if to == entry.next => TargetKind::Continue,
                (None, Ok(to)) => {
                    let chain = (*starts.get(&to)?).to_owned();
                    let goto = entry.goto;
                    TargetKind::Standard(if goto { NfVerdict::Goto } else { NfVerdict::Jump }(
                        chain,
                    ))
                }
                (None, Err(_)) => return None,
            };
            Target { name: String::new(), revision: 0, kind }
        }
        Action::Other { name, revision, family, bytes } => {
            decode_target(name, *revision, *family, bytes)
        }
        Action::Error(_) => return None,
    };
    Some(Rule { header: entry.header.clone(), matches: entry.matches.clone(), target })
}

#[cfg(test)]
mod tests;

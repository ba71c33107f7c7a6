//! Visits the addresses and names of a ruleset, and exchanges them.

use std::net::IpAddr;

use super::super::Redaction;
use super::super::address_map::AddressMap;
use super::super::exchange;
use super::meaning::{Meaning, Run, What};
use super::site::{Place, Site, constant, constant_mut, sites};
use crate::address::address_value;
use crate::nft::expr::{Constant, NfVerdict};
use crate::nft::{Bytes, Element, Expr, Ruleset, Set, SetFlags, Table};
use crate::{Family, MacAddress, Prefix};

/// What a ruleset has an address for.
pub(in super::super) enum AddressUse {
    /// Exactly those that begin like this.
    Prefix(Prefix),
    /// Those between two, ends included.
    Range(IpAddr, IpAddr),
}

/// Which names of links a ruleset has.
pub(in super::super) enum NameUse {
    /// This one.
    Exact(String),
    /// Those that begin like this.
    Start(String),
}

/// Every address of a ruleset whose meaning is known.
pub(in super::super) fn addresses(ruleset: &Ruleset, visit: &mut dyn FnMut(AddressUse)) {
    for table in &ruleset.tables {
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            for site in sites(table, rule) {
                let value = |place: Place, family, len| {
                    let bytes = constant(rule, place)?.as_slice();
                    Some(leading_value(family, bytes.get(place.at..place.at + len)?))
                };
                visit_site(site, value, visit);
            }
        }
        for set in &table.sets {
            set_addresses(set, visit);
        }
    }
}

fn visit_site(
    site: Site,
    value: impl Fn(Place, Family, usize) -> Option<IpAddr>,
    visit: &mut dyn FnMut(AddressUse),
) {
    let whole = |place, family: Family| value(place, family, usize::from(family.bits() / 8));
    match site {
        Site::Prefix { place, family, bits, len } => {
            let prefix = value(place, family, len).and_then(|it| Prefix::new(it, bits));
            prefix.into_iter().for_each(|prefix| visit(AddressUse::Prefix(prefix)));
        }
        Site::Range { low, high, family } => {
            if let Some((low, high)) = whole(low, family).zip(whole(high, family)) {
                visit(AddressUse::Range(low, high));
            }
        }
        Site::Edge { place, family } => {
            if let Some(edge) = whole(place, family) {
                visit(AddressUse::Range(family.unspecified(), edge));
                visit(AddressUse::Range(edge, highest(family)));
            }
        }
        Site::Name { .. } | Site::Mac { .. } | Site::Erased { .. } => {}
    }
}

fn set_addresses(set: &Set, visit: &mut dyn FnMut(AddressUse)) {
    let (keys, data) = (Meaning::of_key(set).runs(), Meaning::of_data(set).runs());
    let of = |run: &Run, bytes: &Bytes| match run.what {
        What::Address(family) => {
            let bytes = bytes.as_slice().get(run.at..run.at + run.len)?;
            Some(leading_value(family, bytes))
        }
        What::Name | What::Mac => None,
    };
    let spans = interval_key(set, &keys);
    if let Some((run, family)) = spans {
        intervals(set, run, family, visit);
    }
    for element in &set.elements {
        for run in keys.iter().filter(|_| spans.is_none() && !element.catch_all) {
            match (of(run, &element.key), element.key_end.as_ref().and_then(|it| of(run, it))) {
                (Some(low), Some(high)) if low != high => visit(AddressUse::Range(low, high)),
                (Some(one), _) => visit(AddressUse::Prefix(Prefix::host(one))),
                (None, _) => {}
            }
        }
        if let Some(Constant::Value(value)) = &element.data {
            let found = data.iter().filter_map(|run| of(run, value));
            found.for_each(|one| visit(AddressUse::Prefix(Prefix::host(one))));
        }
    }
}

/// The address that is the whole key of a set whose elements are starts and ends.
fn interval_key<'a>(set: &Set, keys: &'a [Run]) -> Option<(&'a Run, Family)> {
    let pairs = set.flags.has(SetFlags::INTERVAL) && set.field_lens.is_empty();
    match keys {
        [run @ Run { at: 0, what: What::Address(family), .. }]
            if pairs && run.len as u64 == u64::from(set.key_len) =>
        {
            Some((run, *family))
        }
        _ => None,
    }
}

fn intervals(set: &Set, run: &Run, family: Family, visit: &mut dyn FnMut(AddressUse)) {
    let ends = set.elements.iter().filter(|element| !element.catch_all);
    let mut ends: Vec<(u128, bool)> = ends
        .filter_map(|element| {
            let bytes = element.key.as_slice().get(run.at..run.at + run.len)?;
            let value = address_value(leading_value(family, bytes));
            Some((value, !element.interval_end))
        })
        .collect();
    // Of two at the same place, the end belongs to what is before it.
    ends.sort_unstable();
    let mut open = None;
    for (value, starts) in ends {
        if let Some(low) = open.take()
            && value > 0
            && value > low
        {
            visit(AddressUse::Range(family.address(low), family.address(value - 1)));
        }
        open = starts.then_some(value);
    }
    if let Some(low) = open {
        visit(AddressUse::Range(family.address(low), highest(family)));
    }
}

/// Every name of a link in a ruleset.
pub(in super::super) fn names(ruleset: &Ruleset, visit: &mut dyn FnMut(NameUse)) {
    for table in &ruleset.tables {
        let bases = table.chains.iter().filter_map(|chain| chain.base.as_ref());
        let devices = bases.map(|base| &base.devices);
        let devices = devices.chain(table.flowtables.iter().map(|it| &it.devices));
        for device in devices.flatten() {
            visit(match device.strip_suffix('*') {
                Some(start) => NameUse::Start(start.to_owned()),
                None => NameUse::Exact(device.clone()),
            });
        }
        for rule in table.chains.iter().flat_map(|chain| &chain.rules) {
            for site in sites(table, rule) {
                if let Site::Name { place, len } = site
                    && let Some(bytes) = constant(rule, place)
                {
                    let name = bytes.as_slice().get(place.at..place.at + len);
                    visit(name_use(name.unwrap_or_default()));
                }
            }
        }
        table.sets.iter().for_each(|set| set_names(set, visit));
    }
}

/// Names end in a NUL; without one, it is how they begin.
fn name_use(bytes: &[u8]) -> NameUse {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = String::from_utf8_lossy(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes));
    match end {
        Some(_) => NameUse::Exact(text.into_owned()),
        None => NameUse::Start(text.into_owned()),
    }
}

fn set_names(set: &Set, visit: &mut dyn FnMut(NameUse)) {
    let keys = Meaning::of_key(set).runs();
    let names = keys.iter().filter(|run| run.what == What::Name);
    for (run, element) in names.flat_map(|run| set.elements.iter().map(move |it| (run, it))) {
        let of = |bytes: &Bytes| bytes.as_slice().get(run.at..run.at + run.len).map(<[u8]>::to_vec);
        let Some(name) = of(&element.key) else { continue };
        let alone = !set.flags.has(SetFlags::INTERVAL)
            || element.key_end.as_ref().is_some_and(|end| of(end).as_ref() == Some(&name));
        visit(match name_use(&name) {
            // Names in order are how names begin; the common start is what both ends have.
            NameUse::Exact(name) if !alone => NameUse::Start(kept_start(&name)),
            exact_or_start => exact_or_start,
        });
    }
}

/// The last letter of an end is one more than that of the names before it.
fn kept_start(name: &str) -> String {
    let mut letters = name.chars();
    letters.next_back();
    letters.as_str().to_owned()
}

const fn highest(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(std::net::Ipv4Addr::BROADCAST),
        Family::Ipv6 => IpAddr::V6(std::net::Ipv6Addr::new(
            0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
        )),
    }
}

/// The address that begins with some bytes and goes on with zeros.
fn leading_value(family: Family, bytes: &[u8]) -> IpAddr {
    let mut whole = [0; 16];
    let length = usize::from(family.bits() / 8);
    for (to, from) in whole.iter_mut().zip(bytes.iter().take(length)) {
        *to = *from;
    }
    family.address(u128::from_be_bytes(whole) >> (128 - u32::from(family.bits())))
}

/// Exchanges the leading bits of an address; those behind them stay.
fn exchange(map: &AddressMap, family: Family, bytes: &mut [u8], bits: u8) {
    let Some(prefix) = Prefix::new(leading_value(family, bytes), bits) else { return };
    let width = u32::from(family.bits());
    let value = address_value(prefix.address());
    let mapped = address_value(map.prefix(prefix).address());
    let mask = u128::MAX.checked_shl(width - u32::from(bits)).unwrap_or(0);
    let whole = ((mapped & mask) | (value & !mask)) << (128 - width);
    for (to, from) in bytes.iter_mut().zip(whole.to_be_bytes()) {
        *to = from;
    }
}

/// An end that is not part of the interval follows the last address that is.
fn exchange_end(map: &AddressMap, family: Family, bytes: &mut [u8]) {
    let value = address_value(leading_value(family, bytes));
    let Some(last) = value.checked_sub(1) else { return };
    let mapped = address_value(map.address(family.address(last)));
    let whole = mapped.wrapping_add(1) << (128 - u32::from(family.bits()));
    for (to, from) in bytes.iter_mut().zip(whole.to_be_bytes()) {
        *to = from;
    }
}

/// Exchanges what a ruleset says of addresses, links and people.
pub(in super::super) fn redact(redaction: &mut Redaction<'_>, ruleset: &mut Ruleset) {
    for table in &mut ruleset.tables {
        redact_rules(redaction, table);
        for set in &mut table.sets {
            redact_set(redaction, set);
            set.name = redaction.names.filter(&set.name);
            set.exprs.iter_mut().for_each(|expr| redact_texts(redaction, expr));
        }
        for object in &mut table.objects {
            object.name = redaction.names.filter(&object.name);
            redact_texts(redaction, &mut object.expr);
        }
        for flowtable in &mut table.flowtables {
            flowtable.name = redaction.names.filter(&flowtable.name);
            redact_devices(redaction, &mut flowtable.devices);
        }
        table.name = redaction.names.filter(&table.name);
    }
}

fn redact_rules(redaction: &mut Redaction<'_>, table: &mut Table) {
    let mut chains = std::mem::take(&mut table.chains);
    for chain in &mut chains {
        for rule in &mut chain.rules {
            for site in sites(table, rule) {
                redact_site(redaction, rule, site);
            }
            rule.exprs.iter_mut().for_each(|expr| redact_texts(redaction, expr));
            rule.comment = None;
        }
        chain.name = redaction.names.filter(&chain.name);
        if let Some(base) = &mut chain.base {
            redact_devices(redaction, &mut base.devices);
        }
    }
    table.chains = chains;
}

fn redact_devices(redaction: &mut Redaction<'_>, devices: &mut [String]) {
    // How names begin stays: see `NameMap::keep_start`.
    for device in devices.iter_mut().filter(|device| !device.ends_with('*')) {
        *device = redaction.names.link(device);
    }
}

fn redact_site(redaction: &mut Redaction<'_>, rule: &mut crate::nft::Rule, site: Site) {
    let map = redaction.addresses;
    let mut change = |place: Place, len: usize, act: &mut dyn FnMut(&mut [u8])| {
        if let Some(bytes) = constant_mut(rule, place) {
            change_bytes(bytes, place.at, len, act);
        }
    };
    let whole = |family: Family| usize::from(family.bits() / 8);
    match site {
        Site::Prefix { place, family, bits, len } => {
            change(place, len, &mut |bytes| exchange(map, family, bytes, bits));
        }
        Site::Range { low, high, family } => {
            for place in [low, high] {
                let len = whole(family);
                change(place, len, &mut |bytes| exchange(map, family, bytes, family.bits()));
            }
        }
        Site::Edge { place, family } => {
            let len = whole(family);
            change(place, len, &mut |bytes| exchange(map, family, bytes, family.bits()));
        }
        Site::Name { place, len } => {
            change(place, len, &mut |bytes| redact_name(redaction, bytes));
        }
        Site::Mac { place } => change(place, 6, &mut |bytes| redact_mac(redaction, bytes)),
        Site::Erased { expr } => {
            let place = Place { expr, second: false, at: 0 };
            let len = constant(rule, place).map_or(0, Bytes::len);
            if let Some(bytes) = constant_mut(rule, place) {
                *bytes = Bytes::from(vec![0; len]);
            }
        }
    }
}

fn change_bytes(bytes: &mut Bytes, at: usize, len: usize, act: &mut dyn FnMut(&mut [u8])) {
    let mut changed = bytes.as_slice().to_vec();
    if let Some(part) = changed.get_mut(at..at + len) {
        act(part);
        *bytes = Bytes::from(changed);
    }
}

fn redact_name(redaction: &mut Redaction<'_>, bytes: &mut [u8]) {
    // How names begin stays, and so do the names that begin so.
    if let NameUse::Exact(name) = name_use(bytes) {
        let renamed = redaction.names.link(&name);
        if renamed.len() < bytes.len() {
            bytes.fill(0);
            bytes.iter_mut().zip(renamed.bytes()).for_each(|(to, from)| *to = from);
        }
    }
}

fn redact_mac(redaction: &mut Redaction<'_>, bytes: &mut [u8]) {
    if let Ok(mac) = <[u8; 6]>::try_from(&*bytes) {
        bytes.copy_from_slice(&redaction.names.mac(MacAddress(mac)).0);
    }
}

fn redact_set(redaction: &mut Redaction<'_>, set: &mut Set) {
    let (keys, data) = (Meaning::of_key(set).runs(), Meaning::of_data(set).runs());
    let pairs = interval_key(set, &keys).map(|(_, family)| family);
    let ordered = set.flags.has(SetFlags::INTERVAL);
    for element in &mut set.elements {
        redact_element(redaction, element, pairs, ordered, &keys);
        match &mut element.data {
            Some(Constant::Value(value)) => {
                data.iter().for_each(|run| redact_run(redaction, value, *run, false));
            }
            Some(Constant::Verdict(verdict)) => redact_verdict(redaction, verdict),
            None => {}
        }
        if let Some(extra) = &mut element.extra {
            extra.comment = None;
            extra.object = extra.object.as_ref().map(|name| redaction.names.filter(name));
            extra.exprs.iter_mut().for_each(|expr| redact_texts(redaction, expr));
        }
    }
    if pairs.is_some() {
        // As the kernel lists them: from the highest down, a start before an end at the same place.
        set.elements.sort_by(|one, other| {
            let place = |it: &Element| (it.catch_all, it.interval_end);
            other.key.cmp(&one.key).then_with(|| place(one).cmp(&place(other)))
        });
    }
}

fn redact_element(
    redaction: &mut Redaction<'_>,
    element: &mut Element,
    pairs: Option<Family>,
    ordered: bool,
    keys: &[Run],
) {
    if element.catch_all {
        return;
    }
    match pairs {
        Some(family) if element.interval_end => {
            let (map, len) = (redaction.addresses, usize::from(family.bits() / 8));
            let act = &mut |bytes: &mut [u8]| exchange_end(map, family, bytes);
            change_bytes(&mut element.key, 0, len, act);
        }
        _ => {
            for run in keys {
                let part = |bytes: &Bytes| {
                    bytes.as_slice().get(run.at..run.at + run.len).map(<[u8]>::to_vec)
                };
                let same = element.key_end.as_ref().map(part) == Some(part(&element.key));
                redact_run(redaction, &mut element.key, *run, ordered && !same);
                if let Some(end) = &mut element.key_end {
                    redact_run(redaction, end, *run, ordered && !same);
                }
            }
        }
    }
}

/// Names that are ends of a range stay: see `set_names`.
fn redact_run(redaction: &mut Redaction<'_>, bytes: &mut Bytes, run: Run, ordered: bool) {
    let map = redaction.addresses;
    change_bytes(bytes, run.at, run.len, &mut |part| match run.what {
        What::Address(family) => exchange(map, family, part, run.bits),
        What::Name if ordered => {}
        What::Name => redact_name(redaction, part),
        What::Mac if ordered => {}
        What::Mac => redact_mac(redaction, part),
    });
}

fn redact_verdict(redaction: &mut Redaction<'_>, verdict: &mut NfVerdict) {
    if let NfVerdict::Jump(chain) | NfVerdict::Goto(chain) = verdict {
        *chain = redaction.names.filter(chain);
    }
}

/// Names of what an expression refers to, and what its author wrote.
fn redact_texts(redaction: &mut Redaction<'_>, expr: &mut Expr) {
    match expr {
        Expr::Verdict(verdict) => redact_verdict(redaction, verdict),
        Expr::Lookup { set, .. } | Expr::ObjrefMap { set, .. } => {
            *set = redaction.names.filter(set);
        }
        Expr::Dynset { set, exprs, .. } => {
            *set = redaction.names.filter(set);
            exprs.iter_mut().for_each(|expr| redact_texts(redaction, expr));
        }
        Expr::Objref { name, .. } => *name = redaction.names.filter(name),
        Expr::FlowOffload { flowtable } => *flowtable = redaction.names.filter(flowtable),
        Expr::Log { prefix, .. } => *prefix = None,
        Expr::Match(row) => exchange::one_match(row, redaction),
        Expr::Target(row) => exchange::target(row, redaction),
        Expr::Immediate { .. }
        | Expr::Cmp { .. }
        | Expr::Range { .. }
        | Expr::Bitwise { .. }
        | Expr::Byteorder { .. }
        | Expr::Payload { .. }
        | Expr::PayloadSet { .. }
        | Expr::Exthdr { .. }
        | Expr::ExthdrSet { .. }
        | Expr::Meta { .. }
        | Expr::MetaSet { .. }
        | Expr::Ct { .. }
        | Expr::CtSet { .. }
        | Expr::Rt { .. }
        | Expr::Socket { .. }
        | Expr::Fib { .. }
        | Expr::Hash { .. }
        | Expr::Numgen { .. }
        | Expr::Osf { .. }
        | Expr::Tunnel { .. }
        | Expr::Xfrm { .. }
        | Expr::Limit { .. }
        | Expr::Quota { .. }
        | Expr::Connlimit { .. }
        | Expr::Counter { .. }
        | Expr::Last
        | Expr::Reject { .. }
        | Expr::Nat { .. }
        | Expr::Masq { .. }
        | Expr::Redir { .. }
        | Expr::Tproxy { .. }
        | Expr::Notrack
        | Expr::Synproxy
        | Expr::Dup
        | Expr::Fwd
        | Expr::Queue { .. }
        | Expr::Opaque(_) => {}
    }
}

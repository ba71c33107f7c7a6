//! Source validation: may this source come in by this link.
//!
//! *Kernel:* `fib_validate_source`, `__fib_validate_source` (net/ipv4/fib_frontend.c). IPv6 has none.
//! *Decides:* own source, reverse-path filter, broadcast source.
//! *Reads:* `rp_filter`, `accept_local`, own addresses, the route back to the source.
//! *Not modelled:* IPsec, whose packets skip the filter; TX redirects; marks set on the way in.

use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{Family, Ifindex, Link, LinkSysctl};

use crate::host::Host;
use crate::host::flow::{Flow, Found, Term, WayKind};
use crate::host::resolve::Setting;
use crate::packet::packet_set::PacketSet;
use crate::path::route_input::{Origin, flow};
use crate::path::sets::Sets;
use crate::path::stage::{Asked, Finding, Partition};
use crate::{DoubtEffect, DropReason, Stage, Subject, UnknownReason};

/// What a source is checked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked {
    /// The address the packet is for.
    pub(crate) destination: u128,
    /// The link it is sent on by.
    pub(crate) forwarded_by: Option<Ifindex>,
}

/// Checks the sources of packets that input routing accepts.
pub(crate) fn validate_source(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    origin: Origin,
    checked: Checked,
) -> Partition {
    let link = asked.routed_link;
    let filter = host.link_sysctl(LinkSysctl::RpFilter, link);
    let accept_local = host.link_sysctl(LinkSysctl::AcceptLocal, link);
    let knobs = SourceKnobs { filter, accept_local };
    let fib = host.fib(Family::Ipv4);
    let mut parts = Partition::new();
    if let Some(gap) = filter.gap {
        parts.push((PacketSet::ALL, unread(host, gap)));
    }
    // Back out by the same link: redirects want the full check (`IN_DEV_TX_REDIRECTS`, on by default).
    let turns_back = checked.forwarded_by == Some(link.ifindex);
    if filter.is_set() || fib.has_realms || turns_back {
        parts.extend(full_check(host, sets, asked, (origin, checked), knobs));
        return parts;
    }
    if let Some(gap) = accept_local.gap {
        parts.push((PacketSet::ALL, unread(host, gap)));
    }
    if accept_local.is_set() {
        return parts;
    }
    let full = full_check(host, sets, asked, (origin, checked), knobs);
    if fib.has_foreign_local || asked.split {
        parts.extend(full);
        return parts;
    }
    // The short check looks at own addresses only. Whether the kernel makes the full one also
    // depends on routes that may be gone by now: where the two differ, nothing here tells.
    let own = origin.is_in(sets, &host.own_addresses(Family::Ipv4));
    let mut stopped = PacketSet::NONE;
    for (set, finding) in &full {
        if finding.stop.is_some() {
            stopped = sets.or(stopped, *set);
        }
    }
    let both = sets.and(own, stopped);
    let only_full = sets.difference(stopped, own);
    let only_short = sets.difference(own, stopped);
    let doubt = |effect| Finding::doubt(Stage::Route, UnknownReason::FibHistory, effect, None);
    parts.push((both, own_source(asked, accept_local)));
    parts.push((only_full, doubt(DoubtEffect::MayStop)));
    parts.push((only_short, doubt(DoubtEffect::MayStop)));
    parts
}

fn unread(host: &Host<'_>, gap: usize) -> Finding {
    let (reason, subject) = (host.gap_reason(gap), Some(Subject::Gap(gap)));
    Finding::doubt(Stage::Route, reason, DoubtEffect::MayStop, subject)
}

fn own_source(asked: &Asked<'_>, accept_local: Setting) -> Finding {
    let subject = Some(Subject::LinkSysctl {
        sysctl: LinkSysctl::AcceptLocal,
        link: Some(asked.routed_link.ifindex),
        value: accept_local.value,
    });
    Finding::stop(Stage::Route, DropReason::OwnSource, subject, Some(asked.silence()))
}

/// `__fib_validate_source`: the route back to the source.
fn full_check(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    (origin, checked): (Origin, Checked),
    knobs: SourceKnobs,
) -> Partition {
    let forth = flow(host, asked, origin);
    let valid_mark = host.link_sysctl(LinkSysctl::SrcValidMark, asked.routed_link);
    let back = Flow {
        destination: forth.source,
        source: Term::Is(checked.destination),
        // What is sent on is checked as if it came in by its way out.
        iif: checked.forwarded_by.unwrap_or(LOOPBACK_IFINDEX),
        // Only `src_valid_mark` lets the mark decide the way back.
        mark: if valid_mark.is_set() { forth.mark } else { 0 },
        source_port: forth.destination_port,
        destination_port: forth.source_port,
        ..forth
    };
    let accept_local = knobs.accept_local;
    let mut parts = Partition::new();
    let universe = sets.universe();
    for (set, found) in host.look_up(sets, &back, universe) {
        let mut finding = judge_source(host, asked, knobs, found);
        if let (Some(gap), true) = (accept_local.gap, is_local(host, found)) {
            finding.doubts = unread(host, gap).doubts;
        }
        parts.push((set, finding));
    }
    parts
}

/// The sysctls of source validation.
#[derive(Debug, Clone, Copy)]
struct SourceKnobs {
    filter: Setting,
    accept_local: Setting,
}

/// What a route back to the source says of a packet.
fn judge_source(
    host: &Host<'_>,
    asked: &Asked<'_>,
    SourceKnobs { filter, accept_local }: SourceKnobs,
    found: Found,
) -> Finding {
    let stage = Stage::Route;
    let link = asked.routed_link;
    let stop = |reason, subject| Finding::stop(stage, reason, subject, Some(asked.silence()));
    let filtered = || {
        let (sysctl, value) = (LinkSysctl::RpFilter, filter.value);
        let subject = Subject::LinkSysctl { sysctl, link: Some(link.ifindex), value };
        stop(DropReason::RpFilter, Some(subject))
    };
    let pass = || Finding::pass(stage, None);
    let way = match found {
        Found::Refused { .. } if filter.is_set() => return filtered(),
        Found::Refused { .. } => return pass(),
        Found::Route { way, .. } => host.fib(Family::Ipv4).way(way),
    };
    let is_local = way.kind == WayKind::Local;
    if !is_local && way.kind != WayKind::Unicast {
        return stop(DropReason::Martian, None);
    }
    if is_local && !accept_local.is_set() {
        return own_source(asked, accept_local);
    }
    let is_link = |other: &Ifindex| {
        let vrf = host.link(*other).and_then(|other| host.vrf_of(other));
        *other == link.ifindex || vrf.is_some_and(|(master, _)| master == link.ifindex)
    };
    let comes_here = way.links.iter().any(is_link) || (is_local && link.is_loopback());
    // Loose mode lets any route do, unless the link has no address to be asked by.
    let strict = filter.value == 1 || !has_address(host, link);
    if !comes_here && filter.is_set() && strict { filtered() } else { pass() }
}

fn is_local(host: &Host<'_>, found: Found) -> bool {
    matches!(found, Found::Route { way, .. }
        if host.fib(Family::Ipv4).way(way).kind == WayKind::Local)
}

fn has_address(host: &Host<'_>, link: &Link) -> bool {
    let mut positions = host.addresses_of(link.ifindex).iter();
    positions.any(|index| host.netns().addresses[*index].prefix.family() == Family::Ipv4)
}

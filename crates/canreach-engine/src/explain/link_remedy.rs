//! Fixes of links, their addresses and their sysctls.
//!
//! Kernel counterpart: what `ip link` and `sysctl` write. A sysctl is set where it counts: the larger
//! of the values for `all` and for the link, either of them, or the link's alone. Left out: making a
//! change survive a restart, which each distribution does in its own way.

use canreach_snapshot::{Address, AddressFlags, GlobalSysctl, Link, LinkSysctl, Netns, Proto};

use super::command_line::shell_word;
use super::fix::{Fix, FixId};
use super::remedy::Case;
use crate::{Arrival, Blocker, DropReason, Subject};

/// The link a blocker is about, or the one the packet comes in by.
fn link<'a>(case: &Case<'a>, blocker: &Blocker) -> Option<&'a Link> {
    let named = match blocker.subject {
        Some(Subject::Link(ifindex)) => Some(ifindex),
        Some(Subject::LinkSysctl { link, .. }) => link,
        Some(
            Subject::Address(_)
            | Subject::Route(_)
            | Subject::PolicyRule(_)
            | Subject::Socket(_)
            | Subject::Chain(_)
            | Subject::LegacyTable(_)
            | Subject::Netfilter(_)
            | Subject::In(..)
            | Subject::Bpf(_)
            | Subject::Gap(_),
        )
        | None => None,
    };
    let ifindex = named.or(match case.question.via {
        Arrival::Link(ifindex) => Some(ifindex),
        Arrival::Local { .. } => None,
    })?;
    case.netns.link(ifindex)
}

/// Switch the link on, or give it carrier.
pub(super) fn link_down(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let loopback = || case.netns.links.iter().find(|link| link.is_loopback());
    let Some(link) = link(case, blocker).or_else(loopback) else { return Vec::new() };
    if !link.is_up() {
        return vec![link_up(blocker.reason, link)];
    }
    vec![Fix::new(blocker.reason, FixId::LinkCarrier)]
}

fn link_up(reason: DropReason, link: &Link) -> Fix {
    let name = shell_word(&link.name);
    Fix::as_root(
        reason,
        FixId::LinkUp,
        format!("sudo ip link set dev {name} up"),
        format!("sudo ip link set dev {name} down"),
    )
}

/// A local client has no route because `lo` is down.
pub(super) fn loopback_up(case: &Case<'_>, reason: DropReason) -> Vec<Fix> {
    let is_local = matches!(case.question.via, Arrival::Local { .. });
    let down = case.netns.links.iter().find(|link| link.is_loopback() && !link.is_up());
    let concerned =
        is_local && (case.question.to.is_loopback() || case.question.to.is_unspecified());
    down.filter(|_| concerned).map(|link| link_up(reason, link)).into_iter().collect()
}

/// One value of a sysctl, as read and as wanted.
struct Setting {
    key: String,
    old: i64,
    new: i64,
}

/// The key of a link's sysctl. With slashes where the name of the link holds a dot.
fn key(sysctl: LinkSysctl, link: &str) -> String {
    let family = if sysctl.is_ipv6() { "ipv6" } else { "ipv4" };
    let name = sysctl.name();
    if link.contains('.') {
        format!("net/{family}/conf/{link}/{name}")
    } else {
        format!("net.{family}.conf.{link}.{name}")
    }
}

/// A fix that writes sysctls; `None` if nothing would change.
fn sysctl_fix(reason: DropReason, id: FixId, settings: &[Setting]) -> Option<Fix> {
    let changed: Vec<&Setting> = settings.iter().filter(|s| s.old != s.new).collect();
    let command = |value: fn(&Setting) -> i64| {
        let words = changed.iter().map(|s| format!("{}={}", shell_word(&s.key), value(s)));
        format!("sudo sysctl -w {}", words.collect::<Vec<_>>().join(" "))
    };
    (!changed.is_empty()).then(|| Fix::as_root(reason, id, command(|s| s.new), command(|s| s.old)))
}

/// The values for `all` and for a link.
fn both_values(case: &Case<'_>, sysctl: LinkSysctl, link: &str) -> Option<(i64, i64)> {
    let all = case.netns.sysctls.all.get(&sysctl).copied()?;
    Some((all, case.netns.sysctls.of_link(sysctl, link)?))
}

fn set_values(netns: &mut Netns, sysctl: LinkSysctl, link: &str, all: i64, own: i64) {
    netns.sysctls.all.insert(sysctl, all);
    netns.sysctls.links.entry(link.to_owned()).or_default().insert(sysctl, own);
}

/// Loose mode, or off where loose does not help.
pub(super) fn rp_filter(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    const LOOSE: i64 = 2;
    let sysctl = LinkSysctl::RpFilter;
    let Some(link) = link(case, blocker) else { return Vec::new() };
    let Some((all, own)) = both_values(case, sysctl, &link.name) else { return Vec::new() };
    let attempts = [(FixId::RpFilterLoose, all, LOOSE), (FixId::RpFilterOff, 0, 0)];
    let works = attempts.into_iter().find(|(_, new_all, new_own)| {
        // The larger counts: with `all` at 2 the mode is loose already.
        new_all.max(new_own) != &all.max(own)
            && case.cures(blocker.reason, |netns| {
                set_values(netns, sysctl, &link.name, *new_all, *new_own);
            })
    });
    let Some((id, new_all, new_own)) = works else { return Vec::new() };
    let settings = [
        Setting { key: key(sysctl, "all"), old: all, new: new_all },
        Setting { key: key(sysctl, &link.name), old: own, new: new_own },
    ];
    sysctl_fix(blocker.reason, id, &settings).into_iter().collect()
}

/// Answer ARP as the kernel does by default.
pub(super) fn neighbor_silent(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let Some(Subject::LinkSysctl { sysctl, .. }) = blocker.subject else { return Vec::new() };
    if !matches!(sysctl, LinkSysctl::ArpIgnore | LinkSysctl::ArpFilter) {
        return Vec::new();
    }
    let Some(link) = link(case, blocker) else { return Vec::new() };
    let Some((all, own)) = both_values(case, sysctl, &link.name) else { return Vec::new() };
    let cured = case.cures(blocker.reason, |netns| set_values(netns, sysctl, &link.name, 0, 0));
    if !cured {
        return Vec::new();
    }
    let settings = [
        Setting { key: key(sysctl, "all"), old: all, new: 0 },
        Setting { key: key(sysctl, &link.name), old: own, new: 0 },
    ];
    sysctl_fix(blocker.reason, FixId::AnswerNeighbors, &settings).into_iter().collect()
}

/// Wait for the check to end, or resolve a duplicate.
pub(super) fn tentative(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let dialled = |address: &&Address| address.address() == case.question.to;
    let failed = case
        .netns
        .addresses
        .iter()
        .filter(dialled)
        .any(|address| address.flags.has(AddressFlags::DAD_FAILED));
    let id = if failed { FixId::ChangeAddress } else { FixId::WaitForAddress };
    vec![Fix::new(blocker.reason, id)]
}

/// Switch IPv6 on for the link. The link's own value alone counts.
pub(super) fn ipv6_disabled(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let sysctl = LinkSysctl::V6DisableIpv6;
    let Some(link) = link(case, blocker) else { return Vec::new() };
    let old = case.netns.sysctls.of_link(sysctl, &link.name).unwrap_or(1);
    let settings = [Setting { key: key(sysctl, &link.name), old, new: 0 }];
    sysctl_fix(blocker.reason, FixId::EnableIpv6, &settings).into_iter().collect()
}

/// Let unbound servers take packets of VRFs.
pub(super) fn vrf_accept(case: &Case<'_>, blocker: &Blocker) -> Vec<Fix> {
    let sysctl = match case.question.proto {
        Proto::Tcp => GlobalSysctl::TcpL3mdevAccept,
        Proto::Udp => GlobalSysctl::UdpL3mdevAccept,
    };
    let cured = case.cures(blocker.reason, |netns| {
        netns.sysctls.global.insert(sysctl, 1);
    });
    let old = case.netns.sysctls.global.get(&sysctl).copied().unwrap_or(0);
    let settings = [Setting { key: sysctl.name().to_owned(), old, new: 1 }];
    sysctl_fix(blocker.reason, FixId::VrfAccept, &settings).filter(|_| cured).into_iter().collect()
}

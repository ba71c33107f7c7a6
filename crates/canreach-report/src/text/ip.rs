//! `ip` as text: the address to hand out, and why not the others.

use canreach_engine::address_choice::{AddressAudience, ChoiceReason};
use canreach_engine::link_role::LinkRole;
use canreach_snapshot::Virtualization;
use unicode_width::UnicodeWidthStr;

use crate::phrase;
use crate::report::ip::{AddressEntry, IpReport, LinkEntry, Lower};
use crate::text::line::{DIM, Line, Look, PLAIN, STRONG, print, printable, shorten, wrap};
use crate::text::list::link_words;

/// Addresses longer than this do not push the columns apart.
const ADDRESS_WIDTH_MAX: usize = 26;

/// The addresses for a terminal.
#[must_use]
pub fn ip(report: &IpReport, look: Look) -> String {
    let mut lines = Vec::new();
    let others = if report.has_best { &report.addresses[1..] } else { &report.addresses[..] };
    match report.best() {
        Some(best) => {
            let words = link_words(&best.link, best.ssid.as_deref());
            lines.push(
                Line::new()
                    .add(STRONG, &best.address.to_string())
                    .add(PLAIN, &format!("    {words}: {}", phrase::address(best))),
            );
        }
        None => lines.push(Line::plain("This computer has no address that others could use.")),
    }
    // Those that work for the same people first, so that "not for them" is true of the rest.
    let (usable, not_for_them): (Vec<_>, Vec<_>) =
        others.iter().partition(|entry| works_too(entry.why));
    let widths = Widths::of(others);
    for (heading, entries) in [("Works too:", usable), ("Not for them:", not_for_them)] {
        if entries.is_empty() {
            continue;
        }
        lines.push(Line::new());
        lines.push(Line::plain(heading));
        lines.extend(entries.iter().map(|entry| entry_line(entry, &widths, look)));
    }
    lines.extend(ending(report, look));
    print(&lines, look)
}

/// For a pipe: the address alone, or nothing.
#[must_use]
pub fn piped(report: &IpReport) -> String {
    report.best().map(|best| format!("{}\n", best.address)).unwrap_or_default()
}

/// Every interface.
#[must_use]
pub fn links(report: &IpReport, look: Look) -> String {
    let mut lines = Vec::new();
    let best = report.best();
    for link in &report.links {
        let title = Line::new()
            .add(STRONG, &printable(&link.name))
            .add(PLAIN, &format!("  {}", what_it_is(link)));
        let title = if link.state == "up" {
            title
        } else {
            title.add(PLAIN, if link.state == "down" { ", down" } else { ", not connected" })
        };
        lines.push(title);
        for address in &link.addresses {
            let is_best = best.is_some_and(|best| {
                best.link == link.name && *address == format!("{}/{}", best.address, best.prefix)
            });
            let line = Line::plain("    ").add(PLAIN, address);
            lines.push(if is_best { line.add(STRONG, "   <- hand out this one") } else { line });
        }
        lines.push(Line::plain("    ").add(DIM, &shorten(&who_is_there(link), look.columns() - 4)));
    }
    print(&lines, look)
}

const fn works_too(why: ChoiceReason) -> bool {
    matches!(why, ChoiceReason::SameNetwork | ChoiceReason::AlsoIpv6 | ChoiceReason::OtherNetwork)
}

struct Widths {
    address: usize,
    link: usize,
}

impl Widths {
    fn of(entries: &[AddressEntry]) -> Self {
        let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        Self {
            address: widest(&mut entries.iter().map(|entry| entry.address.to_string().width()))
                .min(ADDRESS_WIDTH_MAX),
            link: widest(&mut entries.iter().map(|entry| printable(&entry.link).width())),
        }
    }
}

fn entry_line(entry: &AddressEntry, widths: &Widths, look: Look) -> Line {
    let line = Line::plain("  ")
        .add(PLAIN, &entry.address.to_string())
        .pad_to(2 + widths.address + 2)
        .add(PLAIN, &printable(&entry.link));
    let column = (2 + widths.address + 2 + widths.link + 3).max(line.width() + 3);
    let room = look.columns().saturating_sub(column);
    line.pad_to(column).add(DIM, &shorten(&phrase::address(entry), room))
}

fn ending(report: &IpReport, look: Look) -> Vec<Line> {
    let mut sentences = Vec::new();
    if let Some(vpn) = &report.full_tunnel {
        sentences.push(format!(
            "{} carries this computer's own traffic; people nearby still dial the address above.",
            printable(vpn)
        ));
    }
    match report.inside {
        Some(Virtualization::VirtualMachine) => sentences.push(
            "This is a virtual machine: behind its host's NAT the address works on the host only."
                .to_owned(),
        ),
        Some(inside) => sentences.extend(phrase::inside(inside).map(str::to_owned)),
        None => {}
    }
    if report.best().is_some_and(|best| best.audience == AddressAudience::Lan) {
        sentences.push(
            "Internet: not from here, your router is in between (canreach explain nat)".to_owned(),
        );
    }
    if !report.has_best {
        sentences.push(
            "Connect to a network, then ask again. Every interface: canreach ip --all".to_owned(),
        );
    }
    sentences
        .iter()
        .flat_map(|sentence| wrap(sentence, look.columns()))
        .map(|text| Line::plain(&text))
        .collect()
}

fn what_it_is(link: &LinkEntry) -> String {
    let kind = match (link.kernel_kind.as_str(), link.physical) {
        ("loopback", _) => "loopback: this computer talking to itself".to_owned(),
        ("wifi", _) => match &link.ssid {
            Some(ssid) => format!("Wi-Fi \"{}\"", printable(ssid)),
            None => "Wi-Fi".to_owned(),
        },
        ("ethernet", Some(true)) => "Ethernet, a network card".to_owned(),
        ("ethernet", _) => "Ethernet".to_owned(),
        ("bridge", _) => "bridge: a switch inside this computer".to_owned(),
        ("veth", _) => "veth: one end of a virtual cable".to_owned(),
        ("tun", _) => "tunnel, with a program behind it".to_owned(),
        ("wireguard", _) => "WireGuard tunnel".to_owned(),
        ("vlan", _) => "VLAN".to_owned(),
        (kind, _) => printable(kind),
    };
    let other_end = match &link.lower {
        Some(Lower::OtherNamespace) if link.kernel_kind == "veth" => {
            ", the other end is in another namespace".to_owned()
        }
        Some(Lower::Here(name)) if link.kernel_kind == "veth" => {
            format!(", the other end is {}", printable(name))
        }
        Some(Lower::Here(name)) if *name != link.name => format!(", on {}", printable(name)),
        Some(Lower::OtherNamespace) => ", on an interface of another namespace".to_owned(),
        Some(Lower::Here(_)) | None => String::new(),
    };
    let master = link.master.as_ref().map(|master| format!(", part of {}", printable(master)));
    format!("{kind}{other_end}{}", master.unwrap_or_default())
}

fn who_is_there(link: &LinkEntry) -> String {
    match link.role {
        LinkRole::Lan | LinkRole::VirtualLan if link.addresses.is_empty() => {
            "a network; no address on it".to_owned()
        }
        LinkRole::Lan | LinkRole::VirtualLan => "people on that network".to_owned(),
        LinkRole::Vpn => "devices in the VPN".to_owned(),
        LinkRole::Containers => "containers or virtual machines on this computer".to_owned(),
        LinkRole::Loopback => "only this computer".to_owned(),
        LinkRole::Member(_) => {
            let master = link.master.as_deref().unwrap_or("its master");
            format!("its packets are {}'s", printable(master))
        }
        LinkRole::Nobody => "nobody".to_owned(),
    }
}

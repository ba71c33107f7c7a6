//! Targets of iptables, as `iptables -S` prints them.

use std::net::IpAddr;

use canreach_snapshot::xt::{ConnmarkMode, NatRange, Target, TargetKind};

use super::xt::verdict;
use super::xt_match::{set_reference, word};

/// `-j REJECT --reject-with icmp-port-unreachable`.
pub(super) fn text(target: &Target, ipv6: bool) -> String {
    if let TargetKind::Standard(what) = &target.kind {
        return verdict(what);
    }
    let options = options(&target.kind, ipv6);
    let name = &target.name;
    if options.is_empty() { format!("-j {name}") } else { format!("-j {name} {options}") }
}

fn options(kind: &TargetKind, ipv6: bool) -> String {
    match kind {
        TargetKind::Reject { with } => format!("--reject-with {}", reject_words(*with, ipv6)),
        TargetKind::Mark { mark, mask } => format!("--set-xmark {mark:#x}/{mask:#x}"),
        TargetKind::Connmark { mode, ctmark, ctmask, nfmask, shift: _ } => match mode {
            ConnmarkMode::Set => format!("--set-xmark {ctmark:#x}/{ctmask:#x}"),
            ConnmarkMode::Save => {
                format!("--save-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}")
            }
            ConnmarkMode::Restore => {
                format!("--restore-mark --nfmask {nfmask:#x} --ctmask {ctmask:#x}")
            }
        },
        TargetKind::Dnat(_)
        | TargetKind::Snat(_)
        | TargetKind::Masquerade(_)
        | TargetKind::Redirect(_)
        | TargetKind::Netmap(_) => translation(kind),
        TargetKind::Ct { notrack, zone, zone_flags, helper } => {
            tracking(*notrack, *zone, *zone_flags, helper.as_deref())
        }
        TargetKind::Tproxy { address, port, mark_mask, mark_value } => {
            let port = port.unwrap_or_default();
            let address = address.unwrap_or(if ipv6 {
                IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
            } else {
                IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
            });
            format!(
                "--on-port {port} --on-ip {address} --tproxy-mark {mark_value:#x}/{mark_mask:#x}"
            )
        }
        TargetKind::Nfqueue { number, total, bypass } => {
            let queue = if *total > 1 {
                let last = u32::from(*number) + u32::from(*total) - 1;
                format!("--queue-balance {number}:{last}")
            } else {
                format!("--queue-num {number}")
            };
            format!("{queue}{}", if *bypass { " --queue-bypass" } else { "" })
        }
        TargetKind::Set { add, delete, map, flags: _ } => {
            let parts = [("--add-set", add), ("--del-set", delete), ("--map-set", map)];
            let parts = parts.iter().filter_map(|(option, reference)| {
                Some(format!("{option} {}", set_reference(reference.as_ref()?)))
            });
            parts.collect::<Vec<_>>().join(" ")
        }
        TargetKind::Ttl { mode, value } => {
            let name = if ipv6 { "hl" } else { "ttl" };
            let action = match mode {
                0 => "set",
                1 => "inc",
                _ => "dec",
            };
            format!("--{name}-{action} {value}")
        }
        TargetKind::Tos { mask, value } => format!("--set-tos {value:#04x}/{mask:#04x}"),
        TargetKind::Opaque(_) => "[...]".to_owned(),
        TargetKind::Standard(_)
        | TargetKind::Continue
        | TargetKind::Error
        | TargetKind::NoVerdict
        | TargetKind::Synproxy => String::new(),
    }
}

fn tracking(notrack: bool, zone: u16, zone_flags: u16, helper: Option<&str>) -> String {
    let option = match zone_flags & 12 {
        4 => "--zone-orig",
        8 => "--zone-reply",
        _ => "--zone",
    };
    let zone = if zone_flags & 16 != 0 {
        Some(format!("{option} mark"))
    } else {
        (zone != 0).then(|| format!("{option} {zone}"))
    };
    let words = [
        notrack.then(|| "--notrack".to_owned()),
        helper.map(|helper| format!("--helper {}", word(helper))),
        zone,
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn translation(kind: &TargetKind) -> String {
    match kind {
        TargetKind::Dnat(range) => format!("--to-destination {}", nat(range)),
        TargetKind::Snat(range) => format!("--to-source {}", nat(range)),
        TargetKind::Masquerade(range) | TargetKind::Redirect(range) => {
            let ports = range.ports.map(|ports| format!("--to-ports {}", port_words(ports)));
            let flags = flags(range.flags);
            format!("{}{flags}", ports.unwrap_or_default()).trim_start().to_owned()
        }
        TargetKind::Netmap(range) => {
            let network = range.addresses.map(|(low, high)| netmap(low, high));
            network.map(|network| format!("--to {network}")).unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// `enum ipt_reject_with`, `enum ip6t_reject_with`.
pub(super) fn reject_words(with: u32, ipv6: bool) -> &'static str {
    let words: &[&str] = if ipv6 {
        &[
            "icmp6-no-route",
            "icmp6-adm-prohibited",
            "icmp6-not-neighbour",
            "icmp6-addr-unreachable",
            "icmp6-port-unreachable",
            "[echo-reply]",
            "tcp-reset",
            "icmp6-policy-fail",
            "icmp6-reject-route",
        ]
    } else {
        &[
            "icmp-net-unreachable",
            "icmp-host-unreachable",
            "icmp-proto-unreachable",
            "icmp-port-unreachable",
            "[echo-reply]",
            "icmp-net-prohibited",
            "icmp-host-prohibited",
            "tcp-reset",
            "icmp-admin-prohibited",
        ]
    };
    words.get(with as usize).copied().unwrap_or("[...]")
}

fn port_words((low, high): (u16, u16)) -> String {
    if low == high { low.to_string() } else { format!("{low}-{high}") }
}

fn flags(flags: u32) -> String {
    let words = [(4, " --random"), (16, " --random-fully"), (8, " --persistent")];
    words.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word).collect()
}

fn nat(range: &NatRange) -> String {
    let addresses = range.addresses.map(|(low, high)| {
        let text = if low == high { low.to_string() } else { format!("{low}-{high}") };
        if low.is_ipv6() && range.ports.is_some() { format!("[{text}]") } else { text }
    });
    let ports = range.ports.map(|ports| format!(":{}", port_words(ports)));
    let base = range.base_port.map(|base| format!("/{base}"));
    format!(
        "{}{}{}{}",
        addresses.unwrap_or_default(),
        ports.unwrap_or_default(),
        base.unwrap_or_default(),
        flags(range.flags)
    )
}

/// The network that both ends of a range span.
fn netmap(low: IpAddr, high: IpAddr) -> String {
    let bits = match (low, high) {
        (IpAddr::V4(low), IpAddr::V4(high)) => (low.to_bits() ^ high.to_bits()).leading_zeros(),
        (IpAddr::V6(low), IpAddr::V6(high)) => (low.to_bits() ^ high.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    format!("{low}/{bits}")
}

//! A rule of iptables-legacy as `iptables -S` prints it.

use std::net::IpAddr;

use canreach_snapshot::nft::expr::NfVerdict;
use canreach_snapshot::xt::{HeaderMatch, MaskedAddress, Rule, TargetKind};

use super::spelling::cut;
use super::{xt_match, xt_target};

/// A rule as `iptables -S` prints it: `-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT`.
#[must_use]
pub fn xt_rule(chain: &str, rule: &Rule) -> String {
    let ipv6 = rule.header.source.address.is_ipv6();
    let mut words = vec![format!("-A {chain}")];
    words.extend(header(&rule.header));
    words.extend(rule.matches.iter().map(|matched| xt_match::text(matched, ipv6)));
    let target = match &rule.target.kind {
        TargetKind::Continue => String::new(),
        _ => xt_target::text(&rule.target, ipv6),
    };
    words.push(target);
    words.retain(|word| !word.is_empty());
    cut(words.join(" "))
}

/// What is asked of addresses, links and protocol.
pub(super) fn header(header: &HeaderMatch) -> Vec<String> {
    let mut words = Vec::new();
    let addresses = [
        ("-s", header.source, header.source_inverted),
        ("-d", header.destination, header.destination_inverted),
    ];
    for (option, address, inverted) in addresses {
        if inverted || !is_everything(&address) {
            words.push(format!("{}{option} {}", not(inverted), masked(&address)));
        }
    }
    let links = [
        ("-i", &header.iniface, header.iniface_inverted),
        ("-o", &header.outiface, header.outiface_inverted),
    ];
    for (option, name, inverted) in links {
        if !name.is_empty() {
            words.push(format!("{}{option} {name}", not(inverted)));
        }
    }
    if header.protocol != 0 || header.protocol_inverted {
        let name = protocol(u32::from(header.protocol));
        words.push(format!("{}-p {name}", not(header.protocol_inverted)));
    }
    if header.fragment {
        words.push(format!("{}-f", not(header.fragment_inverted)));
    }
    words
}

/// `! `, where it is so.
pub(super) const fn not(inverted: bool) -> &'static str {
    if inverted { "! " } else { "" }
}

/// The name of a protocol, or its number.
pub(super) fn protocol(number: u32) -> String {
    super::value::protocol(number).map_or_else(|| number.to_string(), str::to_owned)
}

fn is_everything(address: &MaskedAddress) -> bool {
    address.mask.is_unspecified()
}

/// `10.0.0.0/8`, or with a mask that is no prefix.
pub(super) fn masked(address: &MaskedAddress) -> String {
    let MaskedAddress { address, mask } = address;
    let bytes = match mask {
        IpAddr::V4(mask) => mask.octets().to_vec(),
        IpAddr::V6(mask) => mask.octets().to_vec(),
    };
    match super::nft::prefix_length(&bytes) {
        Some(bits) => format!("{address}/{bits}"),
        None => format!("{address}/{mask}"),
    }
}

/// `1024:65535`, or one port.
pub(super) fn port_range(range: (u16, u16)) -> String {
    let (low, high) = range;
    if low == high { low.to_string() } else { format!("{low}:{high}") }
}

/// A verdict as a target.
pub(super) fn verdict(verdict: &NfVerdict) -> String {
    match verdict {
        NfVerdict::Accept => "-j ACCEPT".to_owned(),
        NfVerdict::Drop => "-j DROP".to_owned(),
        NfVerdict::Return => "-j RETURN".to_owned(),
        NfVerdict::Queue { .. } => "-j QUEUE".to_owned(),
        NfVerdict::Jump(chain) => format!("-j {chain}"),
        NfVerdict::Goto(chain) => format!("-g {chain}"),
        NfVerdict::Continue | NfVerdict::Break => String::new(),
        NfVerdict::Stolen => "-j [stolen]".to_owned(),
        NfVerdict::Other(number) => format!("-j [verdict {number}]"),
    }
}

//! The bytes of the few frames that the lab writes and reads itself: TCP, UDP, ICMP errors, ARP and
//! neighbour discovery, over Ethernet, without options.

use std::net::IpAddr;

use canreach_engine::TheySee;
use canreach_snapshot::{Family, Proto};

use crate::route_step::address_bytes;

/// TCP flags.
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const ICMPV6: u8 = 58;

/// A hardware address.
pub type Mac = [u8; 6];

/// Sender and receiver of a segment or datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Who sends.
    pub source: (IpAddr, u16),
    /// Who receives.
    pub destination: (IpAddr, u16),
}

/// What a frame from the host means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An answer to what these ends sent (as they sent it).
    Answer {
        /// Whom it answers.
        to: Ends,
        /// What a client would see.
        they_see: TheySee,
        /// Sequence number of a SYN-ACK, which wants to be acknowledged.
        acknowledge: Option<u32>,
    },
    /// Who has this address?
    WhoHas {
        /// The address.
        target: IpAddr,
        /// Who asks.
        asker: (Mac, IpAddr),
    },
}

fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An Ethernet frame around an IP packet around a payload; the checksum of the payload is put at the
/// given place in it.
fn packet(
    (from, to): (Mac, Mac),
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    mut payload: Vec<u8>,
    checksum_at: usize,
) -> Vec<u8> {
    let length = (payload.len() as u16).to_be_bytes();
    let (source, destination) = (address_bytes(source), address_bytes(destination));
    let pseudo = [&source[..], &destination[..], &[0, protocol], &length].concat();
    let sum = checksum(&[&pseudo, &payload]).to_be_bytes();
    payload[checksum_at..checksum_at + 2].copy_from_slice(&sum);
    let (kind, header) = if source.len() == 4 {
        let total = (20 + payload.len() as u16).to_be_bytes();
        let mut header = [0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, protocol, 0, 0].to_vec();
        header.extend([source, destination].concat());
        let sum = checksum(&[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        ([0x08, 0x00], header)
    } else {
        // Neighbour discovery demands a hop limit of 255; nothing else minds.
        let start = [0x60, 0, 0, 0, length[0], length[1], protocol, 255];
        ([0x86, 0xdd], [&start[..], &source, &destination].concat())
    };
    [&to[..], &from, &kind, &header, &payload].concat()
}

fn segment(macs: (Mac, Mac), ends: Ends, sequence: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(ends.source.1.to_be_bytes());
    payload.extend(ends.destination.1.to_be_bytes());
    payload.extend(sequence.to_be_bytes());
    payload.extend(acknowledged.to_be_bytes());
    payload.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet(macs, (ends.source.0, ends.destination.0), Proto::Tcp.number(), payload, 16)
}

/// The first packet of a flow.
#[must_use]
pub fn first(macs: (Mac, Mac), proto: Proto, ends: Ends, text: &[u8]) -> Vec<u8> {
    match proto {
        Proto::Tcp => segment(macs, ends, 1000, 0, SYN),
        Proto::Udp => {
            let length = 8 + text.len() as u16;
            let mut payload = Vec::new();
            payload.extend(ends.source.1.to_be_bytes());
            payload.extend(ends.destination.1.to_be_bytes());
            payload.extend(length.to_be_bytes());
            payload.extend([0, 0]);
            payload.extend(text);
            packet(macs, (ends.source.0, ends.destination.0), Proto::Udp.number(), payload, 6)
        }
    }
}

/// What completes a connection that [`first`] began.
#[must_use]
pub fn acknowledgement(macs: (Mac, Mac), ends: Ends, sequence: u32) -> Vec<u8> {
    segment(macs, ends, 1001, sequence.wrapping_add(1), ACK)
}

/// The answer to [`Heard::WhoHas`]: that address is mine.
#[must_use]
pub fn it_is_me(mac: Mac, target: IpAddr, asker: (Mac, IpAddr)) -> Vec<u8> {
    match target {
        IpAddr::V4(_) => [
            &asker.0[..],
            &mac,
            &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2],
            &mac,
            &address_bytes(target),
            &asker.0,
            &address_bytes(asker.1),
        ]
        .concat(),
        IpAddr::V6(_) => {
            // Solicited, and to be believed; then the option with the hardware address.
            let mut payload = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
            payload.extend(address_bytes(target));
            payload.extend([2, 1]);
            payload.extend(mac);
            packet((mac, asker.0), (target, asker.1), ICMPV6, payload, 2)
        }
    }
}

/// Reads a frame; `None` for one that means nothing here.
#[must_use]
pub fn hear(frame: &[u8]) -> Option<Heard> {
    let from: Mac = *frame.get(6..12)?.first_chunk()?;
    let body = frame.get(14..)?;
    match frame.get(12..14)? {
        [0x08, 0x06] => {
            let target = address(body.get(24..28)?)?;
            let asker = (from, address(body.get(14..18)?)?);
            (body.get(7) == Some(&1)).then_some(Heard::WhoHas { target, asker })
        }
        [0x08, 0x00] | [0x86, 0xdd] => {
            let (protocol, source, destination, payload) = ip(body)?;
            match (protocol, Family::of(source)) {
                (1, Family::Ipv4) => error(payload, 3),
                (ICMPV6, Family::Ipv6) if payload.first() == Some(&135) => {
                    let target = address(payload.get(8..24)?)?;
                    Some(Heard::WhoHas { target, asker: (from, source) })
                }
                (ICMPV6, Family::Ipv6) => error(payload, 1),
                (6 | 17, _) => answer(protocol, source, destination, payload),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Protocol, source, destination and payload of an IP packet without options.
fn ip(bytes: &[u8]) -> Option<(u8, IpAddr, IpAddr, &[u8])> {
    if bytes.first()? >> 4 == 4 {
        let addresses = (address(bytes.get(12..16)?)?, address(bytes.get(16..20)?)?);
        Some((*bytes.get(9)?, addresses.0, addresses.1, bytes.get(20..)?))
    } else {
        let addresses = (address(bytes.get(8..24)?)?, address(bytes.get(24..40)?)?);
        Some((*bytes.get(6)?, addresses.0, addresses.1, bytes.get(40..)?))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        _ => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
    }
}

fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    let port = |at| Some(u16::from_be_bytes(*payload.get(at..at + 2)?.first_chunk()?));
    Some((port(0)?, port(2)?))
}

/// A segment or datagram from the host: what it says to whoever sent the first packet.
fn answer(protocol: u8, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Option<Heard> {
    let (source_port, destination_port) = ports(payload)?;
    let to = Ends { source: (destination, destination_port), destination: (source, source_port) };
    let (they_see, acknowledge) = if protocol == Proto::Udp.number() {
        (TheySee::Delivered, None)
    } else {
        let flags = *payload.get(13)?;
        let sequence = u32::from_be_bytes(*payload.get(4..8)?.first_chunk()?);
        if flags & RST != 0 {
            (TheySee::Refused, None)
        } else if flags & (SYN | ACK) == SYN | ACK {
            (TheySee::Connected, Some(sequence))
        } else {
            return None;
        }
    };
    Some(Heard::Answer { to, they_see, acknowledge })
}

/// An ICMP error of type destination unreachable: what a client makes of it
/// (net/ipv4/icmp.c, icmp_err_convert; net/ipv6/icmp.c, icmpv6_err_convert).
fn error(payload: &[u8], unreachable: u8) -> Option<Heard> {
    let (kind, code) = (*payload.first()?, *payload.get(1)?);
    let (protocol, source, destination, inner) = ip(payload.get(8..)?)?;
    let (source_port, destination_port) = ports(inner)?;
    let udp = protocol == Proto::Udp.number();
    let (they_see, told_to_udp) = match (Family::of(source), code) {
        _ if kind != unreachable => return None,
        (Family::Ipv4, 3) | (Family::Ipv6, 4) => (TheySee::Refused, true),
        (Family::Ipv4, 0) | (Family::Ipv6, 0) => (TheySee::NetworkUnreachable, false),
        (Family::Ipv4, 13) => (TheySee::HostUnreachable, true),
        (Family::Ipv4, 1) | (Family::Ipv6, 2 | 3) => (TheySee::HostUnreachable, false),
        (Family::Ipv6, 1) => (TheySee::PermissionDenied, true),
        _ => return None,
    };
    let to = Ends { source: (source, source_port), destination: (destination, destination_port) };
    (!udp || told_to_udp).then_some(Heard::Answer { to, they_see, acknowledge: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    fn ends(source: &str, destination: &str) -> Ends {
        let end = |text: &str| (text.parse().expect("an address"), 1234);
        Ends { source: end(source), destination: end(destination) }
    }

    #[test]
    fn checksums_add_up_to_nothing() {
        let frame = first(MACS, Proto::Tcp, ends("10.1.0.2", "10.1.0.1"), &[]);
        assert_eq!(checksum(&[&frame[14..34]]), 0, "of the IPv4 header");
        for (proto, source, destination) in
            [(Proto::Tcp, "10.1.0.2", "10.1.0.1"), (Proto::Udp, "fd01::2", "fd01::1")]
        {
            let ends = ends(source, destination);
            let frame = first(MACS, proto, ends, b"odd");
            let (_, source, destination, payload) = ip(&frame[14..]).expect("an IP packet");
            let length = (payload.len() as u16).to_be_bytes();
            let addresses = [address_bytes(source), address_bytes(destination)].concat();
            let pseudo = [&addresses[..], &[0, proto.number()], &length].concat();
            assert_eq!(checksum(&[&pseudo, payload]), 0, "{proto:?}");
        }
    }

    #[test]
    fn what_the_host_says_is_heard() {
        let check = |frame: Vec<u8>, expected: Option<Heard>| assert_eq!(hear(&frame), expected);
        let (asked, answered) = (ends("10.1.0.2", "10.1.0.1"), ends("10.1.0.1", "10.1.0.2"));
        let said = |they_see, acknowledge| Some(Heard::Answer { to: asked, they_see, acknowledge });
        check(segment(MACS, answered, 7, 1001, SYN | ACK), said(TheySee::Connected, Some(7)));
        check(segment(MACS, answered, 0, 1001, RST | ACK), said(TheySee::Refused, None));
        check(segment(MACS, answered, 8, 1001, ACK), None);
        check(first(MACS, Proto::Udp, answered, b"x"), said(TheySee::Delivered, None));
    }

    #[test]
    fn errors_mean_what_a_client_makes_of_them() {
        let check = |proto, kind, code, expected: Option<TheySee>| {
            let asked = ends("fd01::2", "fd01::1");
            let inner = first(MACS, proto, asked, b"x");
            let payload = [&[kind, code, 0, 0, 0, 0, 0, 0], &inner[14..]].concat();
            let addresses = (asked.destination.0, asked.source.0);
            let frame = packet(MACS, addresses, ICMPV6, payload, 2);
            let seen = match hear(&frame) {
                Some(Heard::Answer { to, they_see, .. }) if to == asked => Some(they_see),
                _ => None,
            };
            assert_eq!(seen, expected, "{proto:?} type {kind} code {code}");
        };
        check(Proto::Udp, 1, 4, Some(TheySee::Refused));
        check(Proto::Tcp, 1, 0, Some(TheySee::NetworkUnreachable));
        check(Proto::Udp, 1, 0, None);
        check(Proto::Udp, 1, 1, Some(TheySee::PermissionDenied));
        check(Proto::Tcp, 3, 0, None);
    }

    #[test]
    fn cut_frames_mean_nothing_and_do_no_harm() {
        let frame = first(MACS, Proto::Tcp, ends("10.1.0.1", "10.1.0.2"), &[]);
        for length in 0..frame.len() {
            assert_eq!(hear(&frame[..length]), None, "cut after {length}");
        }
    }
}

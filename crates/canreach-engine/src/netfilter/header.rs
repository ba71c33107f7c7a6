//! The bytes of a packet's headers: which are known, which are the client's own, which only the sender
//! decides.
//!
//! *Kernel:* `nft_payload_eval`, and the headers of include/uapi/linux/{ip,ipv6,tcp,udp,icmp}.h. Left out:
//! IP options, extension headers and fragments, which the packets asked about do not have.

use canreach_snapshot::Family;
use canreach_snapshot::nft::expr::PayloadBase;

use crate::netfilter::register::Byte;
use crate::netfilter::unknown::{Cause, Sameness, Unknowns};
use crate::netfilter::view::{Part, Turn, View};
use crate::packet::field::Field;
use crate::{NfSubject, UnknownReason};

/// `IPPROTO_TCP`.
pub(crate) const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub(crate) const UDP: u8 = 17;
/// `IPPROTO_ICMP`.
pub(crate) const ICMP: u8 = 1;
/// `IPPROTO_ICMPV6`.
pub(crate) const ICMPV6: u8 = 58;

/// What is at one place of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// This.
    Byte(Byte),
    /// A number of some bytes that only the sender decides: where it starts, how many bytes it has, and
    /// the lowest and highest value.
    Number { start: u32, bytes: u32, low: u128, high: u128 },
    /// What follows the headers that are known to be there: it may be missing.
    Beyond,
}

impl View {
    /// The bytes of an address or port.
    pub(crate) fn part_bytes(&self, part: Part, field: Field) -> Vec<Byte> {
        let bytes = match field {
            Field::SourcePort => 2,
            _ => (self.family.bits() / 8) as i8,
        };
        (0..bytes)
            .map(|index| {
                let shift = 8 * (bytes - 1 - index);
                match part {
                    Part::Is(value) => Byte::Is((value >> shift) as u8),
                    Part::Client => Byte::Of { field, shift, mask: 0xff, flip: 0 },
                    Part::Chosen(number) => {
                        let field = Field::Unknown(number);
                        Byte::Of { field, shift, mask: 0xff, flip: 0 }
                    }
                }
            })
            .collect()
    }

    fn part_byte(&self, part: Part, field: Field, index: u32) -> Place {
        let bytes = self.part_bytes(part, field);
        bytes.get(index as usize).map_or(Place::Beyond, |byte| Place::Byte(*byte))
    }

    /// What is at an offset of the network header, or of what follows it.
    pub(crate) fn network_place(&self, offset: u32) -> Place {
        match self.family {
            Family::Ipv4 => self.ipv4_place(offset),
            Family::Ipv6 => self.ipv6_place(offset),
        }
    }

    fn ipv4_place(&self, offset: u32) -> Place {
        let is = |value| Place::Byte(Byte::Is(value));
        match offset {
            0 => is(0x45),
            1 => is(self.tos),
            2 | 3 => {
                Place::Number { start: 2, bytes: 2, low: 20 + self.least_length(), high: 0xffff }
            }
            4 | 5 => Place::Number { start: 4, bytes: 2, low: 0, high: 0xffff },
            // Of the fragment flags only "do not fragment" may be set: 0x40, as a number of one bit.
            6 => Place::Number { start: 6, bytes: 1, low: 0, high: 1 },
            7 => is(0),
            8 => Place::Number { start: 8, bytes: 1, low: 0, high: 0xff },
            9 => is(self.protocol),
            10 | 11 => Place::Number { start: 10, bytes: 2, low: 0, high: 0xffff },
            12..=15 => self.part_byte(self.source, Field::Source, offset - 12),
            16..=19 => self.part_byte(self.destination, Field::Source, offset - 16),
            _ => self.transport_place(offset - 20),
        }
    }

    fn ipv6_place(&self, offset: u32) -> Place {
        let is = |value| Place::Byte(Byte::Is(value));
        match offset {
            0 => is(0x60 | (self.tos >> 4)),
            // The flow label has 20 bits.
            1..=3 => Place::Number { start: 1, bytes: 3, low: 0, high: 0xf_ffff },
            4 | 5 => Place::Number { start: 4, bytes: 2, low: self.least_length(), high: 0xffff },
            6 => is(self.protocol),
            // Neighbour discovery does not cross routers (RFC 4861, 7.1.1).
            7 if matches!(self.turn, Turn::Solicitation | Turn::Advertisement) => is(0xff),
            7 => Place::Number { start: 7, bytes: 1, low: 0, high: 0xff },
            8..=23 => self.part_byte(self.source, Field::Source, offset - 8),
            24..=39 => self.part_byte(self.destination, Field::Source, offset - 24),
            _ => self.transport_place(offset - 40),
        }
    }

    /// What is at an offset of the transport header.
    pub(crate) fn transport_place(&self, offset: u32) -> Place {
        let is = |value| Place::Byte(Byte::Is(value));
        let two = |start| Place::Number { start, bytes: 2, low: 0, high: 0xffff };
        let four = |start| Place::Number { start, bytes: 4, low: 0, high: 0xffff_ffff };
        match (self.protocol, offset) {
            (TCP | UDP, 0 | 1) => self.part_byte(self.source_port, Field::SourcePort, offset),
            (TCP | UDP, 2 | 3) => {
                self.part_byte(self.destination_port, Field::SourcePort, offset - 2)
            }
            (TCP, 4..=7) => four(4),
            (TCP, 8..=11) => four(8),
            (TCP, 12) => {
                // The upper half is the length of the header in words; a SYN has at least the MSS.
                let low = u128::from(self.has_mss()) + 5;
                Place::Number { start: 12, bytes: 1, low, high: 15 }
            }
            (TCP, 13) => is(self.tcp_flags),
            (TCP, 14..=19) => two(offset & !1),
            (UDP, 4 | 5) => Place::Number { start: 4, bytes: 2, low: 8, high: 0xffff },
            (UDP, 6 | 7) => two(6),
            // Type and code of ICMP.
            (ICMP | ICMPV6, 0 | 1) => {
                let part = if offset == 0 { self.source_port } else { self.destination_port };
                match part {
                    Part::Is(value) => is(value as u8),
                    Part::Client | Part::Chosen(_) => Place::Beyond,
                }
            }
            (ICMP | ICMPV6, 2 | 3) => two(2),
            (ICMP | ICMPV6, 4..=7) => four(4),
            _ => Place::Beyond,
        }
    }

    /// Changes a byte of a header; `false` where what comes of it cannot be said.
    pub(crate) fn write_byte(&mut self, base: PayloadBase, at: u32, new: Byte) -> bool {
        if let (PayloadBase::Network, 1, Family::Ipv6) = (base, at, self.family)
            && let Byte::Of { mask: 0x0f, flip, .. } = new
        {
            self.tos = (self.tos & 0xf0) | (flip >> 4);
            return true;
        }
        let Some(value) = new.known() else { return false };
        let starts = match self.family {
            Family::Ipv4 => (12, 16, 20),
            Family::Ipv6 => (8, 24, 40),
        };
        match (base, at, self.family) {
            (PayloadBase::Network, 1, Family::Ipv4) => self.tos = value,
            (PayloadBase::Network, 0, Family::Ipv6) if value >> 4 == 6 => {
                self.tos = (self.tos & 0x0f) | (value << 4);
            }
            (PayloadBase::Network, 8, Family::Ipv4) | (PayloadBase::Network, 7, Family::Ipv6) => {
                self.rewrite(base, at, value);
            }
            (PayloadBase::Network, at, _) if (starts.0..starts.1).contains(&at) => {
                return set_byte(&mut self.source, starts.1 - 1 - at, value);
            }
            (PayloadBase::Network, at, _) if (starts.1..starts.2).contains(&at) => {
                return set_byte(&mut self.destination, starts.2 - 1 - at, value);
            }
            (PayloadBase::Transport, 0 | 1, _) => {
                return set_byte(&mut self.source_port, 1 - at, value);
            }
            (PayloadBase::Transport, 2 | 3, _) => {
                return set_byte(&mut self.destination_port, 3 - at, value);
            }
            (PayloadBase::Transport, 13, _) if self.protocol == TCP => self.tcp_flags = value,
            (PayloadBase::Transport, 14.., _) if self.protocol == TCP => {
                self.rewrite(base, at, value);
            }
            (PayloadBase::Transport, 6.., _) if self.protocol == UDP => {
                self.rewrite(base, at, value);
            }
            (_, _, _) => return false,
        }
        true
    }

    /// A SYN names the size of its segments.
    pub(crate) fn has_mss(&self) -> bool {
        self.protocol == TCP && matches!(self.turn, Turn::First | Turn::Answer)
    }

    /// The fewest bytes behind the network header.
    pub(crate) fn least_length(&self) -> u128 {
        match self.protocol {
            TCP => 20 + 4 * u128::from(self.has_mss()),
            _ => 8,
        }
    }
}

/// Changes a byte of an address or port that is known.
const fn set_byte(part: &mut Part, below: u32, value: u8) -> bool {
    let Part::Is(known) = part else { return false };
    let shift = 8 * below;
    *part = Part::Is((*known & !(0xff << shift)) | ((value as u128) << shift));
    true
}

/// Loads bytes of the packet. `Err` where they may be missing: the variable says whether they are
/// there, and their values are unknown.
pub(crate) fn load(
    view: &View,
    unknowns: &mut Unknowns,
    subject: NfSubject,
    base: PayloadBase,
    (offset, length): (u32, u32),
) -> Loaded {
    let cause = Cause { reason: UnknownReason::PacketDetails, subject: Some(subject) };
    let mut bytes = Vec::with_capacity(length as usize);
    let mut beyond = None;
    for at in offset..offset.saturating_add(length) {
        if let Some((_, _, value)) =
            view.rewritten.iter().rev().find(|(b, place, _)| (*b, *place) == (base, at))
        {
            bytes.push(Byte::Is(*value));
            continue;
        }
        let place = match base {
            PayloadBase::Network => view.network_place(at),
            PayloadBase::Transport => view.transport_place(at),
            PayloadBase::Link => link_place(view, at),
            PayloadBase::Inner | PayloadBase::Tunnel => Place::Beyond,
        };
        bytes.push(match place {
            Place::Byte(byte) => byte,
            Place::Number { start, bytes, low, high } => {
                number_byte(view, unknowns, cause, base, (start, bytes, at - start), (low, high))
            }
            Place::Beyond => {
                beyond = Some(at);
                let key = Sameness::Header(view.turn, base, at);
                let value = unknowns.same(key, cause, 0, 0xff);
                let field = Field::Unknown(value.number);
                Byte::Of { field, shift: 0, mask: 0xff, flip: 0 }
            }
        });
    }
    let present = beyond.map(|_| {
        // Longer loads are rarer: whether 4 bytes are there and whether 8 are is taken as unrelated.
        let what = format!("{base:?} {}", offset + length);
        unknowns.same(Sameness::Packet(view.turn, what), cause, 0, 1)
    });
    Loaded { bytes, present }
}

/// What a load gives.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) bytes: Vec<Byte>,
    /// Where it is not certain that they are there: whether they are.
    pub(crate) present: Option<crate::netfilter::unknown::Variable>,
}

fn number_byte(
    view: &View,
    unknowns: &mut Unknowns,
    cause: Cause,
    base: PayloadBase,
    (start, bytes, index): (u32, u32, u32),
    (low, high): (u128, u128),
) -> Byte {
    let number = unknowns.same(Sameness::Header(view.turn, base, start), cause, low, high).number;
    let field = Field::Unknown(number);
    let shift = 8 * bytes.saturating_sub(1).saturating_sub(index).min(15) as i8;
    let whole = Byte::Of { field, shift, mask: 0xff, flip: 0 };
    match (base, start, view.family, view.protocol) {
        // One bit, which stands at 0x40.
        (PayloadBase::Network, 6, Family::Ipv4, _) => {
            Byte::Of { field, shift: -6, mask: 0xff, flip: 0 }
        }
        // The lower half of the traffic class stands before the flow label.
        (PayloadBase::Network, 1, Family::Ipv6, _) if index == 0 => {
            Byte::Of { field, shift, mask: 0x0f, flip: view.tos << 4 }
        }
        // Four bits, which stand at 0xf0.
        (PayloadBase::Transport, 12, _, TCP) => Byte::Of { field, shift: -4, mask: 0xff, flip: 0 },
        _ => whole,
    }
}

/// `skb_mac_header`: there is one where a packet came in by a link that has such headers.
fn link_place(view: &View, offset: u32) -> Place {
    let ethertype: u16 = match view.family {
        Family::Ipv4 => 0x0800,
        Family::Ipv6 => 0x86dd,
    };
    match offset {
        12 => Place::Byte(Byte::Is((ethertype >> 8) as u8)),
        13 => Place::Byte(Byte::Is(ethertype as u8)),
        14.. => view.network_place(offset - 14),
        6..=11 => Place::Number { start: 6, bytes: 6, low: 0, high: 0xffff_ffff_ffff },
        0..=5 => Place::Number { start: 0, bytes: 6, low: 0, high: 0xffff_ffff_ffff },
    }
}

//! What the bytes of a register or of a set's key are.

use crate::nft::Set;
use crate::nft::expr::Register;
use crate::{Family, NfFamily};

/// What a byte is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// An address.
    Address(Family),
    /// The name of a link.
    Name,
    /// A hardware address.
    Mac,
}

/// One byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Byte {
    what: What,
    /// Which one of it, from 0.
    index: u8,
    /// Bits that were not masked away.
    mask: u8,
}

/// Neighbouring bytes of one thing, from its first on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Position of its first byte.
    pub(super) at: usize,
    /// How many bytes of it are there.
    pub(super) len: usize,
    pub(super) what: What,
    /// How many leading bits count.
    pub(super) bits: u8,
}

impl Run {
    /// Every bit of it is there.
    pub(super) const fn is_whole(self) -> bool {
        match self.what {
            What::Address(family) => self.bits == family.bits(),
            What::Name => self.len == NAME_LENGTH,
            What::Mac => self.len == 6,
        }
    }
}

/// `IFNAMSIZ`.
const NAME_LENGTH: usize = 16;

/// A row of bytes, each with what it is, where that is known.
#[derive(Debug, Clone)]
pub(super) struct Meaning(Vec<Option<Byte>>);

impl Meaning {
    /// Registers that hold nothing yet.
    pub(super) fn registers() -> Self {
        Self(vec![None; 64])
    }

    /// The key of a set.
    pub(super) fn of_key(set: &Set) -> Self {
        Self::of_type(set.key_type, set.key_len, &set.field_lens)
    }

    /// The values of a map.
    pub(super) fn of_data(set: &Set) -> Self {
        // 0xffffff00 is `NFT_DATA_VERDICT`.
        match set.data_type {
            Some(kind) if kind < 0xffff_ff00 => Self::of_type(kind, set.data_len, &[]),
            _ => Self(Vec::new()),
        }
    }

    /// nft numbers types with six bits for each field of a concatenation, the last one lowest (nftables,
    /// include/datatype.h).
    fn of_type(kind: u32, len: u32, field_lens: &[u32]) -> Self {
        let fields: Vec<u32> = (0..5).map(|at| kind >> (6 * at) & 0x3f).collect();
        let count = fields.iter().rposition(|field| *field != 0).map_or(0, |at| at + 1);
        let mut meaning = Self(Vec::new());
        for (at, field) in fields.into_iter().take(count).rev().enumerate() {
            let (what, usual) = match field {
                7 => (Some(What::Address(Family::Ipv4)), 4),
                8 => (Some(What::Address(Family::Ipv6)), 16),
                9 => (Some(What::Mac), 6),
                41 => (Some(What::Name), 16),
                _ => (None, 4),
            };
            let place = meaning.0.len();
            let len = match field_lens.get(at) {
                Some(len) => *len,
                None if count == 1 => len,
                None => usual,
            };
            // What is longer than a key can be is no length.
            let len = usize::try_from(len).unwrap_or(0).min(64);
            meaning.0.resize(place + len.next_multiple_of(4), None);
            if what.is_some() && len == usual as usize {
                meaning.set(place, len, |index| what.map(|what| (what, index)));
            }
        }
        meaning
    }

    fn set(&mut self, place: usize, len: usize, what: impl Fn(usize) -> Option<(What, usize)>) {
        for at in 0..len {
            let byte = what(at).and_then(|(what, index)| {
                Some(Byte { what, index: u8::try_from(index).ok()?, mask: 0xff })
            });
            if let Some(slot) = self.0.get_mut(place + at) {
                *slot = byte;
            }
        }
    }

    /// Loads something into a register.
    pub(super) fn load(&mut self, register: Register, what: Option<What>, len: usize) {
        let place = usize::from(register.0) * 4;
        self.set(place, len, |index| what.map(|what| (what, index)));
    }

    /// Loads a part of the network header into a register.
    pub(super) fn load_network(
        &mut self,
        register: Register,
        family: NfFamily,
        offset: u32,
        len: u32,
    ) {
        let fields = network_fields(family, offset, len);
        let place = usize::from(register.0) * 4;
        self.set(place, len.min(64) as usize, |at| {
            let at = offset.checked_add(u32::try_from(at).ok()?)?;
            let (family, start) = fields
                .iter()
                .find(|(family, start)| (*start..*start + address_len(*family)).contains(&at))?;
            Some((What::Address(*family), (at - start) as usize))
        });
    }

    /// Loads what a map has into a register.
    pub(super) fn load_meaning(&mut self, register: Register, loaded: &Self) {
        let place = usize::from(register.0) * 4;
        for (at, byte) in loaded.0.iter().enumerate() {
            if let Some(slot) = self.0.get_mut(place + at) {
                *slot = *byte;
            }
        }
    }

    /// Masks a register on its way to another.
    pub(super) fn mask(&mut self, from: Register, to: Register, mask: &[u8], xor: &[u8]) {
        let (from, to) = (usize::from(from.0) * 4, usize::from(to.0) * 4);
        let masked: Vec<_> = mask
            .iter()
            .enumerate()
            .map(|(at, mask)| {
                let byte = self.0.get(from + at).copied().flatten()?;
                let unchanged = xor.get(at).is_none_or(|xor| *xor == 0);
                unchanged.then_some(Byte { mask: byte.mask & mask, ..byte })
            })
            .collect();
        for (at, byte) in masked.into_iter().enumerate() {
            if let Some(slot) = self.0.get_mut(to + at) {
                *slot = byte;
            }
        }
    }

    /// What is in a register, as far as it is whole from its first byte on.
    pub(super) fn runs_of(&self, register: Register, len: usize) -> Vec<Run> {
        let place = usize::from(register.0) * 4;
        runs(self.0.get(place..).unwrap_or_default(), len)
    }

    /// What is in it.
    pub(super) fn runs(&self) -> Vec<Run> {
        runs(&self.0, self.0.len())
    }
}

fn runs(bytes: &[Option<Byte>], len: usize) -> Vec<Run> {
    let bytes = bytes.get(..len).unwrap_or(bytes);
    let mut runs = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let follows = |(index, byte): (usize, &Option<Byte>)| match (byte, bytes[at]) {
            (Some(byte), Some(first)) => {
                byte.what == first.what && usize::from(byte.index) == index
            }
            _ => false,
        };
        let len = bytes[at..].iter().enumerate().take_while(|it| follows(*it)).count();
        let masks = bytes[at..at + len].iter().flatten().map(|byte| byte.mask);
        if let Some(first) = bytes[at].filter(|_| len > 0)
            && let Some(bits) = leading(masks)
        {
            runs.push(Run { at, len, what: first.what, bits });
        }
        at += len.max(1);
    }
    runs
}

/// The number of leading ones, if nothing but zeros follows.
fn leading(masks: impl Iterator<Item = u8> + Clone) -> Option<u8> {
    let ones: u32 = masks.clone().map(u8::count_ones).sum();
    let mut left = ones;
    let mut contiguous = true;
    for mask in masks {
        let here = left.min(8);
        contiguous &= mask.leading_ones() == here && mask.count_ones() == here;
        left -= here;
    }
    u8::try_from(ones).ok().filter(|_| contiguous)
}

const fn address_len(family: Family) -> u32 {
    match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 16,
    }
}

/// The addresses of the header that is meant. Where neither table nor rule says which, the place does:
/// nobody asks for an IPv6 address from its fifth byte on, and whole ones are longer than what IPv4
/// has there.
fn network_fields(family: NfFamily, offset: u32, len: u32) -> &'static [(Family, u32)] {
    const V4: &[(Family, u32)] = &[(Family::Ipv4, 12), (Family::Ipv4, 16)];
    const V6: &[(Family, u32)] = &[(Family::Ipv6, 8), (Family::Ipv6, 24)];
    const ARP: &[(Family, u32)] = &[(Family::Ipv4, 14), (Family::Ipv4, 24)];
    match family {
        NfFamily::Ip => V4,
        NfFamily::Ip6 => V6,
        NfFamily::Arp => ARP,
        NfFamily::Inet | NfFamily::Bridge | NfFamily::Netdev => match (offset, len) {
            (12, ..=8) | (16, ..=4) => V4,
            (8 | 24, 16) | (8, 32) => V6,
            _ => &[],
        },
    }
}

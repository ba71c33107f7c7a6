//! Checked views of netlink attributes (`struct nlattr`, include/uapi/linux/netlink.h).
//!
//! Pure functions over bytes. Whatever the bytes, nothing here panics, reads outside the slice or
//! runs for longer than the slice is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canreach_snapshot::Family;

/// Length and type of an attribute, before its payload.
const HEADER: usize = 4;
/// Attributes start at multiples of this (`NLA_ALIGNTO`).
const ALIGNMENT: usize = 4;
/// The bits of the type that are not flags (`NLA_TYPE_MASK`).
const KIND_MASK: u16 = 0x3fff;

/// Bytes that do not hold what they say they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} {number} holds {length} bytes where {wanted} are needed")]
pub struct Malformed {
    /// A message or an attribute.
    pub what: &'static str,
    /// Its type.
    pub number: u16,
    /// How many bytes are there.
    pub length: usize,
    /// How many there should be.
    pub wanted: usize,
}

/// A run of attributes.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its type, without the flags for nesting and byte order.
    pub kind: u16,
    /// What it holds.
    pub payload: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes that these bytes hold.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        // The kernel pads to the alignment; fewer bytes than a header at the end are padding.
        let (header, _) = self.rest.split_first_chunk::<HEADER>()?;
        let [low, high, kind_low, kind_high] = *header;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let kind = u16::from_ne_bytes([kind_low, kind_high]) & KIND_MASK;
        let Some(payload) = self.rest.get(HEADER..length) else {
            let malformed = Malformed {
                what: "attribute",
                number: kind,
                length: self.rest.len(),
                wanted: length.max(HEADER),
            };
            self.rest = &[];
            return Some(Err(malformed));
        };
        self.rest = self.rest.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(Ok(Attribute { kind, payload }))
    }
}

impl<'a> Attribute<'a> {
    /// The attributes nested in it.
    #[must_use]
    pub const fn nested(self) -> Attributes<'a> {
        Attributes::new(self.payload)
    }

    /// Its first bytes. Longer payloads are fine: newer kernels append to structures.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn bytes<const N: usize>(self) -> Result<[u8; N], Malformed> {
        self.payload.first_chunk().copied().ok_or(Malformed {
            what: "attribute",
            number: self.kind,
            length: self.payload.len(),
            wanted: N,
        })
    }

    /// A byte.
    ///
    /// # Errors
    /// When it is empty.
    pub fn u8(self) -> Result<u8, Malformed> {
        self.bytes().map(u8::from_ne_bytes)
    }

    /// Two bytes in the machine's order.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn u16(self) -> Result<u16, Malformed> {
        self.bytes().map(u16::from_ne_bytes)
    }

    /// Four bytes in the machine's order.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn u32(self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_ne_bytes)
    }

    /// Four bytes in the machine's order, signed.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn i32(self) -> Result<i32, Malformed> {
        self.bytes().map(i32::from_ne_bytes)
    }

    /// Eight bytes in the machine's order.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn u64(self) -> Result<u64, Malformed> {
        self.bytes().map(u64::from_ne_bytes)
    }

    /// Four bytes in the network's order.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn be32(self) -> Result<u32, Malformed> {
        self.bytes().map(u32::from_be_bytes)
    }

    /// Eight bytes in the network's order.
    ///
    /// # Errors
    /// When it is shorter.
    pub fn be64(self) -> Result<u64, Malformed> {
        self.bytes().map(u64::from_be_bytes)
    }

    /// Text up to the first NUL. Names of links may hold any bytes: those that are no UTF-8 are
    /// replaced.
    #[must_use]
    pub fn text(self) -> String {
        let text = self.payload.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    /// An address of a family.
    ///
    /// # Errors
    /// When it is too short for one.
    pub fn address(self, family: Family) -> Result<IpAddr, Malformed> {
        Ok(match family {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::from(self.bytes::<4>()?)),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(self.bytes::<16>()?)),
        })
    }
}

/// Splits the fixed structure that a message starts with from the attributes after it.
///
/// # Errors
/// When the message is shorter than the structure.
pub fn split_header<const N: usize>(
    kind: u16,
    payload: &[u8],
) -> Result<(&[u8; N], Attributes<'_>), Malformed> {
    payload
        .split_first_chunk::<N>()
        .map(|(header, rest)| (header, Attributes::new(rest)))
        .ok_or(Malformed { what: "message", number: kind, length: payload.len(), wanted: N })
}

/// The family that an `AF_*` number of a message means; `None` for those the model does not have
/// (multicast routing, bridging, MPLS).
pub(crate) const fn family_of(number: u8) -> Option<Family> {
    const AF_INET: u8 = libc::AF_INET as u8;
    const AF_INET6: u8 = libc::AF_INET6 as u8;
    match number {
        AF_INET => Some(Family::Ipv4),
        AF_INET6 => Some(Family::Ipv6),
        _ => None,
    }
}

/// The `AF_*` number of a family.
pub(crate) const fn number_of(family: Family) -> u8 {
    match family {
        Family::Ipv4 => libc::AF_INET as u8,
        Family::Ipv6 => libc::AF_INET6 as u8,
    }
}

/// Appends an attribute to a request.
pub(crate) fn push(request: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = u16::try_from(HEADER + payload.len())
        .expect("requests hold names, numbers and addresses, far below 64 KiB");
    request.extend_from_slice(&length.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(payload);
    request.resize(request.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        push(&mut bytes, 3, b"eth0\0");
        push(&mut bytes, 4, &1500_u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn attributes_come_back_as_they_were_written() {
        let bytes = sample();
        let read: Vec<_> = Attributes::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(read[0].text(), "eth0");
        assert_eq!(read[1].u32(), Ok(1500));
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn flags_of_the_type_are_not_part_of_its_number() {
        let mut bytes = Vec::new();
        push(&mut bytes, 0x8000 | 0x4000 | 18, &[]);
        assert_eq!(Attributes::new(&bytes).next().unwrap().unwrap().kind, 18);
    }

    #[test]
    fn a_break_is_told_once_wherever_it_is() {
        let bytes = sample();
        for cut in 0..bytes.len() {
            let read: Vec<_> = Attributes::new(&bytes[..cut]).collect();
            let errors = read.iter().filter(|item| item.is_err()).count();
            assert!(errors <= 1, "cut at {cut}");
            assert!(read.iter().rev().skip(1).all(Result::is_ok), "cut at {cut}");
        }
        // A length below the header's own would never advance.
        for length in 0..4_u8 {
            let bytes = [length, 0, 1, 0, 9, 9, 9, 9];
            let read: Vec<_> = Attributes::new(&bytes).collect();
            assert_eq!(read.len(), 1);
            assert!(read[0].is_err());
        }
    }

    #[test]
    fn numbers_that_are_too_short_say_so() {
        let attribute = Attribute { kind: 7, payload: &[1, 2] };
        let expected = Malformed { what: "attribute", number: 7, length: 2, wanted: 4 };
        assert_eq!(attribute.u32(), Err(expected));
        assert_eq!(expected.to_string(), "attribute 7 holds 2 bytes where 4 are needed");
        assert!(attribute.address(Family::Ipv6).is_err());
        assert_eq!(attribute.u16(), Ok(u16::from_ne_bytes([1, 2])));
    }
}

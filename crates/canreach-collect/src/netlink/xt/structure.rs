//! A C structure read field by field, each where the compiler puts it.
//!
//! Fields are aligned as the kernel of this machine aligns them, so the order of the reads is the
//! declaration, and a structure of another length than its fields make is not read at all: that is
//! another revision than its number says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use canreach_snapshot::{Family, NfFamily};

/// `XT_ALIGN` (include/uapi/linux/netfilter/x_tables.h): structures are padded to this.
const ALIGNMENT: usize = align_of::<u64>();

/// What is left of a structure.
#[derive(Debug)]
pub(super) struct Structure<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The largest alignment of a field so far: the structure's own.
    alignment: usize,
    family: Option<Family>,
}

impl<'a> Structure<'a> {
    /// The structure of a rule in a table of this family, which says what addresses in it are.
    pub(super) const fn new(bytes: &'a [u8], family: NfFamily) -> Self {
        let family = match family {
            NfFamily::Ip => Some(Family::Ipv4),
            NfFamily::Ip6 => Some(Family::Ipv6),
            NfFamily::Inet | NfFamily::Arp | NfFamily::Bridge | NfFamily::Netdev => None,
        };
        Self { bytes, at: 0, alignment: 1, family }
    }

    /// The family of the addresses in it; `None` where the table has packets of both.
    pub(super) const fn family(&self) -> Option<Family> {
        self.family
    }

    /// The bytes from here on.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// A structure inside this one, that is read when more of this one is known.
    pub(super) const fn again(&self, bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, alignment: 1, family: self.family }
    }

    /// Passes over the padding before a field of this alignment.
    pub(super) fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
        self.alignment = self.alignment.max(alignment);
    }

    fn number<const N: usize>(&mut self, alignment: usize) -> Option<[u8; N]> {
        self.align(alignment);
        self.array()
    }

    /// `char[N]`, `__u8[N]`.
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let field = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*field)
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.bytes.len()).then_some(())
    }

    /// `__u8`.
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_ne_bytes)
    }

    /// `__u8` that is true or false.
    pub(super) fn flag(&mut self) -> Option<bool> {
        self.u8().map(|flag| flag != 0)
    }

    /// `__u16`.
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.number(2).map(u16::from_ne_bytes)
    }

    /// `__be16`.
    pub(super) fn be16(&mut self) -> Option<u16> {
        self.number(2).map(u16::from_be_bytes)
    }

    /// `__u32`, `int`.
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.number(4).map(u32::from_ne_bytes)
    }

    /// `__u64`.
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.number(align_of::<u64>()).map(u64::from_ne_bytes)
    }

    /// `__aligned_u64`.
    pub(super) fn aligned_u64(&mut self) -> Option<u64> {
        self.number(8).map(u64::from_ne_bytes)
    }

    /// A pointer, or `unsigned long`, of the kernel's own; it means nothing here.
    pub(super) fn pointer(&mut self) -> Option<()> {
        self.align(align_of::<usize>());
        self.skip(size_of::<usize>())
    }

    /// The same with `__attribute__((aligned(8)))`.
    pub(super) fn aligned_pointer(&mut self) -> Option<()> {
        self.align(8);
        self.skip(size_of::<usize>())
    }

    /// Text in `char[N]`, up to the first NUL.
    pub(super) fn text<const N: usize>(&mut self) -> Option<String> {
        self.array::<N>().map(|bytes| text(&bytes))
    }

    /// `union nf_inet_addr`.
    pub(super) fn address(&mut self) -> Option<IpAddr> {
        let bytes: [u8; 16] = self.number(4)?;
        let [a, b, c, d, ..] = bytes;
        Some(match self.family? {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::from(bytes)),
        })
    }

    /// `__be32` that is an IPv4 address.
    pub(super) fn ipv4_address(&mut self) -> Option<IpAddr> {
        self.number(4).map(|bytes: [u8; 4]| IpAddr::V4(Ipv4Addr::from(bytes)))
    }

    /// After the last field: the structure is as long as its fields make it, with or without the
    /// padding to [`ALIGNMENT`].
    pub(super) fn end(self) -> Option<()> {
        let size = self.at.next_multiple_of(self.alignment);
        let length = self.bytes.len();
        (length == size || length == size.next_multiple_of(ALIGNMENT)).then_some(())
    }
}

/// Text up to the first NUL. What is no UTF-8 is replaced.
pub(super) fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// The name of a link under its mask, as iptables writes it: `eth0`, `eth+`, or nothing for any.
///
/// A byte counts where the mask has one. iptables makes masks that cover a name with its NUL, or its
/// beginning; `None` for others, which have no such name.
pub(super) fn link_pattern(name: &[u8; 16], mask: &[u8; 16]) -> Option<String> {
    let covered = mask.iter().take_while(|byte| **byte == 0xff).count();
    let (counted, _) = name.split_at_checked(covered)?;
    if mask.iter().skip(covered).any(|byte| *byte != 0) {
        return None;
    }
    let Some(end) = counted.iter().position(|byte| *byte == 0) else {
        let wildcard = if counted.is_empty() { "" } else { "+" };
        return Some(format!("{}{wildcard}", String::from_utf8_lossy(counted)));
    };
    let (name, padding) = counted.split_at_checked(end)?;
    // A link whose own name ends in the wildcard cannot be told from a pattern.
    if name.is_empty() || name.ends_with(b"+") || padding.iter().any(|byte| *byte != 0) {
        return None;
    }
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_a_compiler_puts_them() {
        let bytes: Vec<u8> = (0..24).collect();
        let mut structure = Structure::new(&bytes, NfFamily::Ip);
        assert_eq!(structure.u8(), Some(0));
        assert_eq!(structure.be16(), Some(0x0203));
        assert_eq!(structure.u8(), Some(4));
        assert_eq!(
            structure.aligned_u64(),
            Some(u64::from_ne_bytes([8, 9, 10, 11, 12, 13, 14, 15]))
        );
        assert_eq!(structure.u8(), Some(16));
        assert_eq!(structure.end(), Some(()), "padded to eight");
    }

    #[test]
    fn another_length_is_another_structure() {
        for (length, good) in [(2, true), (8, true), (3, false), (0, false), (16, false)] {
            let bytes = vec![0; length];
            let mut structure = Structure::new(&bytes, NfFamily::Ip);
            let read = structure.u16();
            assert_eq!(read.and_then(|_| structure.end()).is_some(), good, "{length}");
        }
    }

    #[test]
    fn addresses_are_those_of_the_table() {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[192, 0, 2, 1]);
        for (family, expected) in [
            (NfFamily::Ip, Some("192.0.2.1".parse().unwrap())),
            (NfFamily::Ip6, Some("c000:201::".parse().unwrap())),
            (NfFamily::Inet, None),
        ] {
            assert_eq!(Structure::new(&bytes, family).address(), expected, "{family:?}");
        }
    }

    #[test]
    fn masks_make_patterns() {
        let check = |name: &[u8], covered: usize, expected: Option<&str>| {
            let mut bytes = [0; 16];
            bytes[..name.len()].copy_from_slice(name);
            let mut mask = [0; 16];
            mask[..covered].fill(0xff);
            assert_eq!(link_pattern(&bytes, &mask).as_deref(), expected, "{name:?} {covered}");
        };
        check(b"eth0", 5, Some("eth0"));
        check(b"eth0", 16, Some("eth0"));
        check(b"eth0", 4, Some("eth0+"));
        check(b"eth+", 3, Some("eth+"));
        check(b"+", 0, Some(""));
        check(b"", 0, Some(""));
        check(b"eth+", 5, None);
        check(b"a\0b", 3, None);
        check(b"", 1, None);
        check(b"0123456789abcdef", 16, Some("0123456789abcdef+"));
        assert_eq!(link_pattern(&[0; 16], &[1; 16]), None);
    }
}

//! Addresses of links (`ip address`), and the prefix type that every other module uses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Ifindex;

/// IPv4 or IPv6. One code path takes both; this says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// AF_INET.
    Ipv4,
    /// AF_INET6.
    Ipv6,
}

impl Family {
    /// Both, in the order answers are given.
    pub const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address. An IPv4-mapped IPv6 address is an IPv6 address here.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// Number of address bits: 32 or 128.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }

    /// 0.0.0.0 or `::`.
    #[must_use]
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::Ipv4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            Self::Ipv6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        }
    }

    /// An address of this family from its value as a number. IPv4 takes the low 32 bits.
    #[must_use]
    pub const fn address(self, value: u128) -> IpAddr {
        match self {
            Self::Ipv4 => IpAddr::V4(std::net::Ipv4Addr::from_bits(value as u32)),
            Self::Ipv6 => IpAddr::V6(std::net::Ipv6Addr::from_bits(value)),
        }
    }
}

/// The value of an address as a number, so that both families share their arithmetic.
#[must_use]
pub const fn address_value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// An address and a prefix length. Host bits may be set: `192.168.1.20/24` is an address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The part before the slash is no IPv4 or IPv6 address.
    #[error("`{0}` is not an IPv4 or IPv6 address")]
    Address(String),
    /// The part after the slash is no number that the family has.
    #[error("`{length}` is not a prefix length from 0 to {bits}")]
    Length {
        /// What stood after the slash.
        length: String,
        /// The most the family has.
        bits: u8,
    },
}

impl Prefix {
    /// An address with a prefix length; `None` if the length exceeds the family's bits.
    #[must_use]
    pub const fn new(address: IpAddr, length: u8) -> Option<Self> {
        if length > Family::of(address).bits() { None } else { Some(Self { address, length }) }
    }

    /// The prefix that holds this address alone.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        Self { address, length: Family::of(address).bits() }
    }

    /// Every address of a family.
    #[must_use]
    pub const fn all(family: Family) -> Self {
        Self { address: family.unspecified(), length: 0 }
    }

    /// The address as given, host bits included.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.address
    }

    /// Number of fixed leading bits.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub const fn family(self) -> Family {
        Family::of(self.address)
    }

    /// The lowest and the highest address, as numbers.
    #[must_use]
    pub const fn range(self) -> (u128, u128) {
        let bits = self.family().bits();
        let host_bits = bits - self.length;
        let host_mask = if host_bits == 0 { 0 } else { u128::MAX >> (128 - host_bits as u32) };
        let value = address_value(self.address);
        (value & !host_mask, value | host_mask)
    }

    /// The same prefix with its host bits cleared.
    #[must_use]
    pub const fn network(self) -> Self {
        Self { address: self.family().address(self.range().0), length: self.length }
    }

    /// Whether an address lies inside. Never for the other family.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let (low, high) = self.range();
        Family::of(address) == self.family() && (low..=high).contains(&address_value(address))
    }

    /// Whether every address of `other` lies inside.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.length <= other.length && self.contains(other.address)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Reads `192.168.1.0/24`, or an address alone, which stands for itself.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, length) =
            text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address = address.parse().map_err(|_| PrefixError::Address(address.to_owned()))?;
        let Some(length) = length else { return Ok(Self::host(address)) };
        let digits_only = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        length
            .parse()
            .ok()
            .filter(|_| digits_only)
            .and_then(|bits| Self::new(address, bits))
            .ok_or_else(|| PrefixError::Length {
                length: length.to_owned(),
                bits: Family::of(address).bits(),
            })
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

/// How far an address or route reaches (`rtm_scope`, `ifa_scope`): smaller is wider.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Scope(pub u8);

impl Scope {
    /// Everywhere (`global`).
    pub const UNIVERSE: Self = Self(0);
    /// Inside this site (IPv6, deprecated).
    pub const SITE: Self = Self(200);
    /// On this link only.
    pub const LINK: Self = Self(253);
    /// On this machine only.
    pub const HOST: Self = Self(254);
    /// Nowhere: the destination does not exist.
    pub const NOWHERE: Self = Self(255);
}

/// `IFA_F_*` of include/uapi/linux/if_addr.h.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressFlags(pub u32);

impl AddressFlags {
    /// `IFA_F_TEMPORARY` for IPv6 (a privacy address), `IFA_F_SECONDARY` for IPv4: the same bit.
    pub const TEMPORARY_OR_SECONDARY: Self = Self(0x01);
    /// `IFA_F_DADFAILED`: another machine holds this address.
    pub const DAD_FAILED: Self = Self(0x08);
    /// `IFA_F_DEPRECATED`: answered, but not chosen for new connections.
    pub const DEPRECATED: Self = Self(0x20);
    /// `IFA_F_TENTATIVE`: still being checked for duplicates; not answered yet.
    pub const TENTATIVE: Self = Self(0x40);
    /// `IFA_F_PERMANENT`: has no lifetime.
    pub const PERMANENT: Self = Self(0x80);
    /// `IFA_F_NOPREFIXROUTE`: no route for its subnet was made.
    pub const NO_PREFIX_ROUTE: Self = Self(0x200);
    /// `IFA_F_MANAGETEMPADDR`: the kernel makes privacy addresses from it.
    pub const MANAGES_TEMPORARY: Self = Self(0x100);
    /// `IFA_F_OPTIMISTIC`: usable while still being checked.
    pub const OPTIMISTIC: Self = Self(0x04);

    /// Whether every bit of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One address of one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The link it is configured on.
    pub ifindex: Ifindex,
    /// The address with its prefix length (`IFA_LOCAL`, or `IFA_ADDRESS` where that is missing).
    pub prefix: Prefix,
    /// The other end of a point-to-point link (`IFA_ADDRESS` where it differs).
    pub peer: Option<IpAddr>,
    /// IPv4 only: the address of everyone on the subnet.
    pub broadcast: Option<IpAddr>,
    /// How far it reaches.
    pub scope: Scope,
    /// `IFA_F_*`.
    pub flags: AddressFlags,
    /// IPv4 only: the interface alias it was set under.
    pub label: Option<String>,
    /// Seconds until it is deprecated; `None` for never.
    pub preferred_lifetime_s: Option<u32>,
    /// Seconds until it is removed; `None` for never.
    pub valid_lifetime_s: Option<u32>,
}

impl Address {
    /// The address itself.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.prefix.address()
    }

    /// IPv6 only: a privacy address that changes by itself.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self.prefix.family(), Family::Ipv6)
            && self.flags.has(AddressFlags::TEMPORARY_OR_SECONDARY)
    }

    /// IPv4 only: not the first address of its subnet on this link.
    #[must_use]
    pub const fn is_secondary(&self) -> bool {
        matches!(self.prefix.family(), Family::Ipv4)
            && self.flags.has(AddressFlags::TEMPORARY_OR_SECONDARY)
    }

    /// Still being checked for duplicates, or found to be one: packets to it are not answered.
    #[must_use]
    pub const fn is_tentative(&self) -> bool {
        (self.flags.has(AddressFlags::TENTATIVE) && !self.flags.has(AddressFlags::OPTIMISTIC))
            || self.flags.has(AddressFlags::DAD_FAILED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_reads_and_prints_itself() {
        for text in ["192.168.1.20/24", "0.0.0.0/0", "2001:db8::/32", "::/0", "10.0.0.1/32"] {
            let prefix: Prefix = text.parse().expect(text);
            assert_eq!(prefix.to_string(), text);
        }
        assert_eq!("10.0.0.1".parse(), Ok(Prefix::host("10.0.0.1".parse().unwrap())));
    }

    #[test]
    fn a_prefix_that_is_none_says_which_part_is_wrong() {
        for (text, message) in [
            ("lan", "`lan` is not an IPv4 or IPv6 address"),
            ("10.0.0.0/33", "`33` is not a prefix length from 0 to 32"),
            ("::/129", "`129` is not a prefix length from 0 to 128"),
            ("10.0.0.0/+8", "`+8` is not a prefix length from 0 to 32"),
            ("10.0.0.0/", "`` is not a prefix length from 0 to 32"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn ranges_reach_both_ends_of_both_families() {
        let check = |text: &str, low: u128, high: u128| {
            assert_eq!(text.parse::<Prefix>().unwrap().range(), (low, high), "{text}");
        };
        check("0.0.0.0/0", 0, u128::from(u32::MAX));
        check("::/0", 0, u128::MAX);
        check("192.168.1.20/24", 0xc0a8_0100, 0xc0a8_01ff);
        check("::1/128", 1, 1);
        check("255.255.255.255/32", 0xffff_ffff, 0xffff_ffff);
    }

    #[test]
    fn a_mapped_address_is_not_inside_an_ipv4_prefix() {
        let prefix: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(!prefix.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(prefix.covers("10.0.0.0/8".parse().unwrap()));
        assert!(!prefix.covers("::/0".parse().unwrap()));
    }
}

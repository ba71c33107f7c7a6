//! The few addresses that random hosts are made of.

use std::net::IpAddr;

use canreach_snapshot::Prefix;

/// Addresses of links, with their prefixes.
pub(crate) const LINK_ADDRESSES: [&str; 17] = [
    "10.0.0.1/24",
    "10.0.0.2/24",
    "10.0.0.1/25",
    "10.0.0.129/25",
    "10.0.0.1/32",
    "10.0.0.255/32",
    "10.0.1.1/24",
    "10.0.1.5/16",
    "10.0.2.0/31",
    "192.168.0.9/30",
    "2001:db8::1/64",
    "2001:db8::2/64",
    "2001:db8::1/128",
    "2001:db8:1::1/64",
    "fe80::1/64",
    "fe80::2/64",
    "fd00::1/48",
];

/// Destinations, sources and rule selectors.
pub(crate) const PREFIXES: [&str; 29] = [
    "0.0.0.0/0",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/16",
    "10.0.0.0/24",
    "10.0.0.0/25",
    "10.0.0.128/25",
    "10.0.0.1/32",
    "10.0.0.2/32",
    "10.0.0.255/32",
    "10.0.1.0/24",
    "10.0.1.7/32",
    "127.0.0.0/8",
    "127.5.0.0/16",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "203.0.113.0/24",
    "::/0",
    "::/0",
    "2001:db8::/32",
    "2001:db8::/64",
    "2001:db8::1/128",
    "2001:db8::2/128",
    "2001:db8:1::/64",
    "2001:db8:1::7/128",
    "fe80::/10",
    "fe80::1/128",
    "fd00::/8",
    "ff00::/8",
];

/// Addresses dialled, peers and preferred sources.
pub(crate) const ADDRESSES: [&str; 30] = [
    "10.0.0.1",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.129",
    "10.0.0.255",
    "10.0.0.0",
    "10.0.1.1",
    "10.0.1.5",
    "10.0.1.7",
    "10.0.2.0",
    "127.0.0.1",
    "127.5.0.1",
    "127.255.255.255",
    "0.0.0.0",
    "0.1.2.3",
    "203.0.113.7",
    "224.0.0.1",
    "255.255.255.255",
    "2001:db8::1",
    "2001:db8::1",
    "2001:db8::2",
    "2001:db8::",
    "2001:db8:1::1",
    "2001:db8:1::7",
    "fe80::1",
    "fd00::1",
    "::1",
    "::",
    "ff02::1",
];

/// Where servers are bound.
pub(crate) const BIND_ADDRESSES: [&str; 15] = [
    "0.0.0.0",
    "0.0.0.0",
    "::",
    "::",
    "127.0.0.1",
    "::1",
    "10.0.0.1",
    "10.0.0.1",
    "10.0.1.7",
    "2001:db8::1",
    "2001:db8:1::7",
    "fe80::1",
    "::ffff:10.0.0.1",
    "::ffff:0.0.0.0",
    "fd00::1",
];

/// Routers.
pub(crate) const GATEWAYS: [&str; 4] = ["10.0.0.254", "10.0.1.254", "2001:db8::fe", "fe80::fe"];

/// An address of the pool.
pub(crate) fn address_of(text: &str) -> IpAddr {
    text.parse().expect("an address of the pool")
}

/// A prefix of the pool.
pub(crate) fn prefix_of(text: &str) -> Prefix {
    text.parse().expect("a prefix of the pool")
}

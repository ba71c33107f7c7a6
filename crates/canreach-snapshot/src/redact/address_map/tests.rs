use super::*;
use crate::{Address, AddressFlags, Ifindex, Machine, Scope};

fn address(prefix: &str) -> Address {
    Address {
        ifindex: Ifindex(1),
        prefix: prefix.parse().expect("the test's own prefix"),
        peer: None,
        broadcast: None,
        scope: Scope::UNIVERSE,
        flags: AddressFlags::default(),
        label: None,
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    }
}

fn map_of(addresses: &[&str]) -> AddressMap {
    let addresses = addresses.iter().map(|prefix| address(prefix)).collect();
    AddressMap::new(&Snapshot {
        machine: Machine::default(),
        namespaces: vec![Netns { addresses, ..Netns::default() }],
        processes: Vec::new(),
        cgroups: Vec::new(),
        gaps: Vec::new(),
    })
}

const SEEN: [&str; 14] = [
    "93.184.216.34/24",
    "8.8.8.8/32",
    "8.8.4.4/32",
    "1.2.3.4/22",
    "193.5.200.17/20",
    "223.255.255.254/28",
    "192.0.3.9/24",
    "192.168.1.20/24",
    "2a02:8071:5ad0:1c00:21b:21ff:fe3c:9d40/64",
    "2a02:8071:5ad0:1c00::1/64",
    "2a02:8071:5ad1::/48",
    "2001:db8::1/64",
    "2002:c000:204::1/48",
    "fe80::21b:21ff:fe3c:9d40/64",
];

/// Numbers that are spread over everything, the same in each run (a linear congruence).
fn spread(count: usize) -> impl Iterator<Item = u128> {
    let step = |state: &u128| {
        Some(
            state.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645).wrapping_add(0x9e37_79b9),
        )
    };
    std::iter::successors(Some(0x1234_5678_9abc_def1), step).take(count)
}

/// Addresses of a family: those seen, their neighbours at every distance, the edges of the
/// special blocks, and others.
fn probes(family: Family) -> Vec<u128> {
    let bits = u32::from(family.bits());
    let seen: Vec<u128> = SEEN
        .iter()
        .map(|prefix| prefix.parse::<Prefix>().expect("the test's own prefix"))
        .filter(|prefix| prefix.family() == family)
        .map(|prefix| address_value(prefix.address()))
        .collect();
    let mut probes: Vec<u128> = spread(200).map(|value| value >> (128 - bits)).collect();
    for value in &seen {
        probes.extend((0..bits).map(|bit| value ^ 1 << bit));
    }
    probes.extend(seen);
    for block in Tree::new(family).blocks() {
        let edge = Prefix::new(family.address(block.address), block.length).expect("a block");
        let (low, high) = edge.range();
        probes.extend([
            low,
            high,
            low.wrapping_sub(1) & edge_mask(bits),
            high.wrapping_add(1) & edge_mask(bits),
        ]);
    }
    probes
}

fn edge_mask(bits: u32) -> u128 {
    u128::MAX >> (128 - bits)
}

#[test]
fn addresses_share_as_many_leading_bits_as_before() {
    let map = map_of(&SEEN);
    for family in Family::BOTH {
        let probes: Vec<(u128, u128)> = probes(family)
            .into_iter()
            .map(|value| (value, address_value(map.address(family.address(value)))))
            .collect();
        for (one, mapped_one) in &probes {
            for (other, mapped_other) in &probes {
                assert_eq!(
                    (one ^ other).leading_zeros(),
                    (mapped_one ^ mapped_other).leading_zeros(),
                    "{} and {}",
                    family.address(*one),
                    family.address(*other),
                );
            }
        }
    }
}

#[test]
fn special_blocks_stay_in_their_places() {
    let map = map_of(&SEEN);
    for family in Family::BOTH {
        for value in probes(family) {
            let address = family.address(value);
            let mapped = address_value(map.address(address));
            for block in Tree::new(family).blocks() {
                let place =
                    Prefix::new(family.address(block.address), block.length).expect("a block");
                let inside = place.contains(address);
                assert_eq!(inside, place.contains(family.address(mapped)), "{address} of {place}");
                if inside
                    && block.inside == Inside::Nothing
                    && embedded(Prefix::host(address)).is_none()
                {
                    assert_eq!(mapped, value, "{address}");
                }
            }
        }
    }
}

fn check(map: &AddressMap, before: &str, after: &str) {
    let address: IpAddr = before.parse().expect("the test's own address");
    assert_eq!(map.address(address).to_string(), after, "{before}");
}

#[test]
fn what_is_seen_is_exchanged() {
    let map = map_of(&SEEN);
    check(&map, "93.184.216.34", "64.0.0.34");
    check(&map, "8.8.8.8", "8.0.0.8");
    check(&map, "8.8.4.4", "8.0.8.4");
    check(&map, "2a02:8071:5ad0:1c00:21b:21ff:fe3c:9d40", "2800::200:0:0:0");
    check(&map, "2a02:8071:5ad0:1c00::1", "2800::1");
    check(&map, "fe80::21b:21ff:fe3c:9d40", "fe80::200:0:0:0");
    for same in ["192.168.1.20", "0.0.0.0", "127.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"]
    {
        check(&map, same, same);
    }
}

#[test]
fn embedded_addresses_follow_the_plain_ones() {
    let map = map_of(&["93.184.216.34/32"]);
    let plain = map.address("93.184.216.34".parse().expect("an address"));
    check(&map, "::ffff:93.184.216.34", &format!("::ffff:{plain}"));
    let nat64 = map.address("64:ff9b::93.184.216.34".parse().expect("an address"));
    assert_eq!(address_value(nat64) & 0xffff_ffff, address_value(plain));
    check(&map, "::ffff:192.168.1.1", "::ffff:192.168.1.1");
}

#[test]
fn edges_of_own_networks_stay_edges() {
    let map = map_of(&["193.5.207.17/20", "193.5.200.1/32"]);
    let network: Prefix = "193.5.192.0/20".parse().expect("a prefix");
    let mapped = map.prefix(network);
    assert_eq!(mapped, mapped.network());
    let (low, high) = mapped.range();
    for (before, after) in [("193.5.192.1", low + 1), ("193.5.207.255", high)] {
        let address = map.address(before.parse().expect("an address"));
        assert_eq!(address_value(address), after, "{before}");
    }
}

#[test]
fn the_result_does_not_tell_the_bits_that_were_removed() {
    // Two machines with the same shape, in different networks of a provider, look alike.
    let one = map_of(&["93.184.216.34/24", "93.184.217.1/24"]);
    let other = map_of(&["89.12.6.34/24", "89.12.7.1/24"]);
    for (left, right) in [("93.184.216.34", "89.12.6.34"), ("93.184.217.1", "89.12.7.1")] {
        let left = one.address(left.parse().expect("an address"));
        let right = other.address(right.parse().expect("an address"));
        assert_eq!(left.to_string().rsplit_once('.'), right.to_string().rsplit_once('.'));
    }
}

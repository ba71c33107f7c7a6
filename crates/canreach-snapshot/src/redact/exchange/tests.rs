//! Rules and sets before and after, asked about the same packets.

use super::*;
use crate::redact::AddressMap;
use crate::{Firewall, Machine, Netns, NfFamily, Port, Snapshot};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("the test's own address")
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("the test's own prefix")
}

fn under(address: &str, mask: &str) -> MaskedAddress {
    MaskedAddress { address: ip(address), mask: ip(mask) }
}

fn rule(matches: &[MatchKind], kind: TargetKind) -> Rule {
    let any = under("0.0.0.0", "0.0.0.0");
    let one = |kind: &MatchKind| Match { name: "m".to_owned(), revision: 0, kind: kind.clone() };
    Rule {
        header: HeaderMatch {
            source: under("93.184.0.0", "255.255.0.0"),
            source_inverted: false,
            destination: any,
            destination_inverted: false,
            iniface: "acme-lan+".to_owned(),
            iniface_inverted: false,
            outiface: String::new(),
            outiface_inverted: false,
            protocol: 6,
            protocol_inverted: false,
            fragment: false,
            fragment_inverted: false,
        },
        matches: matches.iter().map(one).collect(),
        target: Target { name: "T".to_owned(), revision: 0, kind },
    }
}

fn snapshot(rules: Vec<Rule>, sets: Vec<Ipset>) -> Snapshot {
    let chain = crate::xt::Chain { name: "acme-in".to_owned(), base: None, rules };
    let table = Table { family: NfFamily::Ip, name: "filter".to_owned(), chains: vec![chain] };
    let firewall = Firewall { xt_tables: vec![table], ipsets: Some(sets), ..Firewall::default() };
    Snapshot {
        machine: Machine::default(),
        namespaces: vec![Netns { firewall, ..Netns::default() }],
        processes: Vec::new(),
        cgroups: Vec::new(),
        gaps: Vec::new(),
    }
}

fn set(type_name: &str, entries: Vec<IpsetEntry>) -> Ipset {
    Ipset {
        index: 3,
        name: "acme-friends".to_owned(),
        type_name: type_name.to_owned(),
        revision: 0,
        family: Some(Family::Ipv4),
        timeout_s: None,
        netmask: None,
        bitmask: None,
        markmask: None,
        range: None,
        entries,
        opaque: false,
    }
}

fn redacted(snapshot: &Snapshot) -> (Firewall, AddressMap) {
    let map = AddressMap::new(snapshot);
    let mut redacted = snapshot.redact_with(&map);
    (redacted.namespaces.remove(0).firewall, map)
}

#[test]
fn nothing_that_tells_who_or_where_is_left_in_rules_and_sets() {
    let reference = |name: &str| SetReference {
        index: 3,
        name: Some(name.to_owned()),
        source: vec![true],
        inverted: false,
        flags: 0,
    };
    let secret: Bytes = b"secret".as_slice().into();
    let matches = [
        MatchKind::Comment("acme".to_owned()),
        MatchKind::Set(reference("acme-friends")),
        MatchKind::Recent {
            name: "acme".to_owned(),
            check: 1,
            seconds: 1,
            hits: 1,
            inverted: false,
            by_destination: false,
            mask: ip("255.255.255.255"),
        },
        MatchKind::String { raw: secret.clone() },
        MatchKind::U32 { raw: secret.clone() },
        MatchKind::Opaque(secret.clone()),
        MatchKind::Helper { name: "acme".to_owned(), inverted: false },
        MatchKind::Physdev {
            physin: "acme-lan0".to_owned(),
            physout: "acme+".to_owned(),
            ops: 3,
            inverted: 0,
        },
        MatchKind::Mac { address: [0, 0x1b, 0x21, 1, 2, 3], inverted: false },
        MatchKind::Cgroup {
            path: Some("/system.slice/acme.service".to_owned()),
            classid: None,
            inverted: false,
        },
    ];
    let rules = vec![
        rule(&matches, TargetKind::Standard(NfVerdict::Jump("acme-in".to_owned()))),
        rule(&[], TargetKind::Opaque(secret)),
    ];
    let entry = IpsetEntry {
        network: Some(prefix("93.184.216.0/24")),
        iface: Some(("acme-lan1".to_owned(), false)),
        mac: Some([0, 0x1b, 0x21, 1, 2, 3]),
        set: Some("acme-friends".to_owned()),
        ..IpsetEntry::default()
    };
    let before = snapshot(rules, vec![set("hash:net,iface", vec![entry])]);
    let (after, _) = redacted(&before);
    let text = |firewall: &Firewall| {
        serde_json::to_string(firewall).expect("it can be written").to_lowercase()
    };
    let secrets = ["acme", "93.184", "736563726574", "[0,27,33"];
    for secret in secrets {
        assert!(text(&before.namespaces[0].firewall).contains(secret), "{secret} is there");
        assert!(!text(&after).contains(secret), "{secret} is left in {}", text(&after));
    }
    let chain = &after.xt_tables[0].chains[0];
    assert_eq!(
        chain.rules[0].target.kind,
        TargetKind::Standard(NfVerdict::Jump(chain.name.clone()))
    );
    let sets = after.ipsets.expect("they stay");
    assert_eq!(chain.rules[0].matches[1].kind, MatchKind::Set(reference(&sets[0].name)));
    assert_eq!(sets[0].entries[0].set.as_ref(), Some(&sets[0].name));
    let start = chain.rules[0].header.iniface.strip_suffix('+').expect("a pattern");
    let (iface, _) = sets[0].entries[0].iface.as_ref().expect("it has one");
    assert!(iface.starts_with(start), "{iface} {start}");
}

#[test]
fn addresses_are_in_ranges_and_networks_as_before() {
    let ranges = [
        ("93.184.216.34", "93.184.219.7"),
        ("8.8.8.8", "8.8.8.8"),
        ("9.0.0.0", "200.1.2.3"),
        ("192.168.1.1", "192.168.9.9"),
        ("93.184.216.0", "93.184.216.255"),
    ];
    let ranges = ranges.map(|(low, high)| (ip(low), ip(high)));
    let rules: Vec<Rule> = ranges
        .iter()
        .map(|range| {
            let kind = MatchKind::Iprange {
                source: Some(*range),
                source_inverted: false,
                destination: None,
                destination_inverted: false,
            };
            rule(&[kind], TargetKind::Continue)
        })
        .collect();
    let bits = |text: &str| match ip(text) {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(_) => 0,
    };
    let mut bitmap = set("bitmap:ip", Vec::new());
    bitmap.range = Some((bits("93.184.217.0"), bits("93.184.218.255")));
    let (after, map) = redacted(&snapshot(rules, vec![bitmap.clone()]));
    let probes = (0..3000_u32).map(|step| {
        let near = [bits("93.184.216.0"), bits("8.8.8.0"), bits("192.168.0.0"), 0];
        let spread = [7, 1, 13, 0x000f_fff1][step as usize % 4];
        IpAddr::V4(Ipv4Addr::from_bits(near[step as usize % 4].wrapping_add(step * spread)))
    });
    let within = |address: IpAddr, (low, high): (IpAddr, IpAddr)| low <= address && address <= high;
    for address in probes.chain(ranges.iter().flat_map(|&(low, high)| [low, high])) {
        let mapped = map.address(address);
        for (rule, range) in after.xt_tables[0].chains[0].rules.iter().zip(ranges) {
            let MatchKind::Iprange { source: Some(exchanged), .. } = rule.matches[0].kind else {
                panic!("{rule:?}")
            };
            assert_eq!(within(address, range), within(mapped, exchanged), "{address} {range:?}");
            let MaskedAddress { address: network, mask: IpAddr::V4(_) } = rule.header.source else {
                panic!("{rule:?}")
            };
            let network = Prefix::new(network, 16).expect("a prefix");
            assert_eq!(prefix("93.184.0.0/16").contains(address), network.contains(mapped));
        }
        let bounds = |range: Option<(u32, u32)>| {
            let (first, last) = range.expect("it has one");
            (IpAddr::V4(Ipv4Addr::from_bits(first)), IpAddr::V4(Ipv4Addr::from_bits(last)))
        };
        let exchanged = bounds(after.ipsets.as_ref().expect("they stay")[0].range);
        assert_eq!(within(address, bounds(bitmap.range)), within(mapped, exchanged), "{address}");
    }
}

#[test]
fn what_cannot_be_exchanged_is_undecided() {
    let mut odd = rule(&[], TargetKind::Continue);
    odd.header.source = under("93.0.216.0", "255.0.255.0");
    odd.header.source_inverted = true;
    let mut never = rule(&[], TargetKind::Continue);
    never.header.destination = under("93.184.216.34", "255.255.0.0");
    let connection = ConntrackMatch {
        orig_source: Some((under("93.0.216.0", "255.0.255.0"), false)),
        ..ConntrackMatch::default()
    };
    let connection = rule(&[MatchKind::Conntrack(Box::new(connection))], TargetKind::Continue);
    let entry = IpsetEntry { network: Some(prefix("93.0.216.0/32")), ..IpsetEntry::default() };
    let mut masked = set("hash:ip", vec![entry.clone()]);
    masked.bitmask = Some(ip("255.0.255.0"));
    let mut ports = set(
        "bitmap:port",
        vec![IpsetEntry { ports: Some((Port(80), Port(80))), ..IpsetEntry::default() }],
    );
    ports.family = None;
    ports.range = Some((0, 1023));
    let before = snapshot(vec![odd, never, connection], vec![masked, ports.clone()]);
    let (after, _) = redacted(&before);
    let rules = &after.xt_tables[0].chains[0].rules;
    let any = under("0.0.0.0", "0.0.0.0");
    assert_eq!((rules[0].header.source, rules[0].header.source_inverted), (any, false));
    let opaque = MatchKind::Opaque(Bytes::default());
    assert_eq!(rules[0].matches[0].kind, opaque);
    assert_eq!(rules[1].header.destination, under("0.0.255.255", "255.255.0.0"), "still never");
    assert_eq!(rules[2].matches[0].kind, opaque);
    let sets = after.ipsets.expect("they stay");
    assert!(sets[0].opaque && sets[0].entries.is_empty());
    assert_eq!((sets[1].range, &sets[1].entries), (ports.range, &ports.entries));
}

//! Sets of ipset, as they are read back.

use std::fmt::Write;

use canreach_snapshot::xt::{MatchKind, TargetKind};
use canreach_snapshot::{Ipset, IpsetEntry};

use crate::namespace::Namespace;

/// How `ipset create` is called behind the name, what is added, and how the set is read: settings, then
/// each entry.
const SETS: &[(&str, &[&str], &str, &[&str])] = &[
    (
        "hash:ip",
        &["192.0.2.1", "198.51.100.0/31"],
        "ipv4",
        &["192.0.2.1/32", "198.51.100.0/32", "198.51.100.1/32"],
    ),
    ("hash:ip family inet6 netmask 64", &["2001:db8::1"], "ipv6 netmask 64", &["2001:db8::/128"]),
    (
        "hash:ip netmask 24 timeout 0",
        &["192.0.2.77 timeout 1000"],
        "ipv4 netmask 24",
        &["192.0.2.0/32 expires"],
    ),
    ("hash:ip bitmask 255.0.255.0", &["10.1.2.3"], "ipv4 bitmask 255.0.255.0", &["10.0.2.0/32"]),
    (
        "hash:ip timeout 500 comment",
        &["192.0.2.1 comment \"who knows\"", "192.0.2.2 timeout 0"],
        "ipv4 timeout 500",
        &["192.0.2.1/32 expires", "192.0.2.2/32"],
    ),
    (
        "hash:net",
        &["10.0.0.0/8", "10.1.0.0/16 nomatch", "192.0.2.1"],
        "ipv4",
        &["10.0.0.0/8", "10.1.0.0/16 nomatch", "192.0.2.1/32"],
    ),
    (
        "hash:net family inet6 counters skbinfo",
        &["2001:db8::/32 skbmark 0x1"],
        "ipv6",
        &["2001:db8::/32"],
    ),
    (
        "hash:net,iface",
        &["10.0.0.0/8,eth0", "0.0.0.0/0,physdev:eth1 nomatch", "10.0.0.0/8,veth wildcard"],
        "ipv4",
        &["0.0.0.0/0 port eth1 nomatch", "10.0.0.0/8 eth0", "10.0.0.0/8 veth+"],
    ),
    (
        "hash:ip,port",
        &["192.0.2.1,tcp:80-81", "192.0.2.1,icmp:ping", "192.0.2.1,gre:0"],
        "ipv4",
        &["192.0.2.1/32 1:2048", "192.0.2.1/32 47:0", "192.0.2.1/32 6:80", "192.0.2.1/32 6:81"],
    ),
    (
        "hash:ip,port,ip",
        &["192.0.2.1,udp:53,198.51.100.1"],
        "ipv4",
        &["192.0.2.1/32 second 198.51.100.1/32 17:53"],
    ),
    (
        "hash:ip,port,net family inet6",
        &["2001:db8::1,tcp:22,fd00::/8"],
        "ipv6",
        &["2001:db8::1/128 second fd00::/8 6:22"],
    ),
    (
        "hash:net,port",
        &["10.0.0.0/8,tcp:1000-1001", "10.9.0.0/16,1000 nomatch"],
        "ipv4",
        &["10.0.0.0/8 6:1000", "10.0.0.0/8 6:1001", "10.9.0.0/16 6:1000 nomatch"],
    ),
    ("hash:net,net", &["10.0.0.0/8,192.0.2.0/24"], "ipv4", &["10.0.0.0/8 second 192.0.2.0/24"]),
    (
        "hash:net,port,net",
        &["10.0.0.0/8,tcp:80,192.0.2.0/24"],
        "ipv4",
        &["10.0.0.0/8 second 192.0.2.0/24 6:80"],
    ),
    (
        "hash:ip,mark markmask 0xff",
        &["192.0.2.1,0x105"],
        "ipv4 markmask 0xff",
        &["192.0.2.1/32 mark 0x5"],
    ),
    ("hash:ip,mac", &["192.0.2.1,02:00:00:00:00:01"], "ipv4", &["192.0.2.1/32 020000000001"]),
    ("hash:mac", &["02:00:00:00:00:01"], "none", &["020000000001"]),
    (
        "bitmap:ip range 192.0.2.0/24",
        &["192.0.2.7", "192.0.2.8-192.0.2.9"],
        "ipv4 range c0000200-c00002ff",
        &["192.0.2.7/32", "192.0.2.8/32", "192.0.2.9/32"],
    ),
    (
        "bitmap:ip range 10.0.0.0/8 netmask 16",
        &["10.3.7.1"],
        "ipv4 netmask 16 range a000000-affffff",
        &["10.3.0.0/32"],
    ),
    (
        "bitmap:ip,mac range 192.0.2.0/24",
        &["192.0.2.1,02:00:00:00:00:01", "192.0.2.2"],
        "ipv4 range c0000200-c00002ff",
        &["192.0.2.1/32 020000000001", "192.0.2.2/32"],
    ),
    (
        "bitmap:port range 0-65535 timeout 9",
        &["80-81 timeout 0"],
        "none timeout 9 range 0-ffff",
        &["any:80", "any:81"],
    ),
    ("list:set", &["cr-0", "cr-5"], "none", &["set cr-0", "set cr-5"]),
];

fn settings(set: &Ipset) -> String {
    let mut text = set.family.map_or_else(
        || "none".to_owned(),
        |family| serde_json::to_value(family).expect("a word").as_str().expect("a word").to_owned(),
    );
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            write!(text, " {name} {value}").expect("to memory");
        }
    };
    add("timeout", set.timeout_s.map(|time| time.to_string()));
    add("netmask", set.netmask.map(|length| length.to_string()));
    add("bitmask", set.bitmask.map(|mask| mask.to_string()));
    add("markmask", set.markmask.map(|mask| format!("{mask:#x}")));
    add("range", set.range.map(|(first, last)| format!("{first:x}-{last:x}")));
    text
}

fn entry(row: &IpsetEntry) -> String {
    let mut parts = Vec::new();
    parts.extend(row.network.map(|network| network.to_string()));
    parts.extend(row.network_to.map(|to| format!("to {to}")));
    parts.extend(row.second.map(|second| format!("second {second}")));
    if let Some((first, last)) = row.ports {
        assert_eq!(first, last, "the kernel has each port by itself");
        let protocol = row.protocol.map_or_else(|| "any".to_owned(), |number| number.to_string());
        parts.push(format!("{protocol}:{}", first.0));
    }
    parts.extend(row.mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).concat()));
    if let Some((name, of_bridge)) = &row.iface {
        let wildcard = if row.iface_wildcard { "+" } else { "" };
        let port = if *of_bridge { "port " } else { "" };
        parts.push(format!("{port}{name}{wildcard}"));
    }
    parts.extend(row.mark.map(|mark| format!("mark {mark:#x}")));
    parts.extend(row.set.as_ref().map(|set| format!("set {set}")));
    parts.extend(row.expires_s.map(|_| "expires".to_owned()));
    parts.extend(row.nomatch.then(|| "nomatch".to_owned()));
    parts.join(" ")
}

#[test]
fn sets_of_every_type_are_read_with_what_is_in_them() {
    let Some(namespace) = Namespace::new() else { return };
    let mut made = Vec::new();
    for (number, (create, entries, settings, expected)) in SETS.iter().enumerate() {
        let name = format!("cr-{number}");
        let mut script = format!("create {name} {create}\n");
        for entry in *entries {
            writeln!(script, "add {name} {entry}").expect("to memory");
        }
        if namespace.output(&["ipset", "restore"], &script).is_some() {
            made.push((name, create, settings, expected));
        }
    }
    let sets = namespace.read().firewall.ipsets.expect("they can be read");
    for (name, create, expected_settings, expected) in made {
        let set = sets.iter().find(|set| set.name == name).unwrap_or_else(|| panic!("{create}"));
        assert!(!set.opaque, "{create}");
        assert!(create.starts_with(&set.type_name), "{create}: {}", set.type_name);
        assert_eq!(settings(set), **expected_settings, "{create}");
        let mut read: Vec<_> = set.entries.iter().map(entry).collect();
        if set.type_name != "list:set" {
            read.sort();
        }
        assert_eq!(read, **expected, "{create}");
        for entry in &set.entries {
            assert!(entry.expires_s.is_none_or(|left| left <= 1000), "{entry:?}");
        }
    }
}

#[test]
fn rules_know_sets_by_name() {
    let Some(namespace) = Namespace::new() else { return };
    let sets = "create one hash:ip\ncreate two hash:ip\ncreate three hash:net\n";
    if namespace.output(&["ipset", "restore"], sets).is_none() {
        return;
    }
    let rule = "-A INPUT -m set --match-set two src -j SET --add-set three src";
    let rules = format!("*filter\n{rule}\nCOMMIT\n");
    if namespace.output(&["iptables-legacy-restore"], &rules).is_none() {
        return;
    }
    let firewall = namespace.read().firewall;
    let filter = firewall.xt_tables.iter().find(|table| table.name == "filter").expect("loaded");
    let rule = &filter.chains[0].rules[0];
    let MatchKind::Set(matched) = &rule.matches[0].kind else { panic!("{rule:?}") };
    assert_eq!(matched.name.as_deref(), Some("two"));
    let TargetKind::Set { add: Some(added), delete: None, .. } = &rule.target.kind else {
        panic!("{rule:?}")
    };
    assert_eq!(added.name.as_deref(), Some("three"));
    let sets = firewall.ipsets.expect("they can be read");
    let index = |name: &str| sets.iter().find(|set| set.name == name).map(|set| set.index);
    assert_eq!((index("two"), index("three")), (Some(matched.index), Some(added.index)));
}

#[test]
fn a_large_set_is_read_whole() {
    let Some(namespace) = Namespace::new() else { return };
    let mut script = "create cr hash:net maxelem 200000\n".to_owned();
    for number in 0..100_000_u32 {
        let address = std::net::Ipv4Addr::from_bits(10 << 24 | number << 4);
        writeln!(script, "add cr {address}/28").expect("to memory");
    }
    if namespace.output(&["ipset", "restore"], &script).is_none() {
        return;
    }
    let sets = namespace.read().firewall.ipsets.expect("they can be read");
    let mut entries: Vec<_> = sets[0].entries.iter().filter_map(|entry| entry.network).collect();
    entries.sort();
    entries.dedup();
    assert_eq!(entries.len(), 100_000);
}

//! Every structure that is decoded, by its length; and some with something in them.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::expr::NfVerdict;
use canreach_snapshot::xt::{
    ConnmarkMode, ConntrackMatch, MaskedAddress, MatchKind, MultiportWhich, NatRange, SetReference,
    TargetKind,
};

use super::{decode_match, decode_target};

/// Name, revision, length (`sizeof` on a 64-bit machine).
const MATCHES: &[(&str, u8, usize)] = &[
    ("tcp", 0, 12),
    ("udp", 0, 10),
    ("udplite", 0, 10),
    ("icmp", 0, 4),
    ("icmp6", 0, 4),
    ("multiport", 0, 32),
    ("multiport", 1, 48),
    ("iprange", 1, 68),
    ("comment", 0, 256),
    ("ttl", 0, 2),
    ("hl", 0, 2),
    ("dscp", 0, 2),
    ("tos", 1, 3),
    ("ecn", 0, 4),
    ("length", 0, 6),
    ("tcpmss", 0, 6),
    ("string", 0, 160),
    ("string", 1, 160),
    ("u32", 0, 1984),
    ("bpf", 0, 528),
    ("bpf", 1, 528),
    ("addrtype", 0, 12),
    ("addrtype", 1, 8),
    ("mark", 1, 12),
    ("mac", 0, 12),
    ("physdev", 0, 66),
    ("pkttype", 0, 8),
    ("policy", 0, 308),
    ("rpfilter", 0, 1),
    ("realm", 0, 12),
    ("cpu", 0, 8),
    ("devgroup", 0, 20),
    ("conntrack", 1, 152),
    ("conntrack", 2, 156),
    ("conntrack", 3, 164),
    ("state", 0, 4),
    ("connmark", 1, 12),
    ("helper", 0, 36),
    ("connbytes", 0, 24),
    ("connlabel", 0, 4),
    ("limit", 0, 40),
    ("hashlimit", 1, 56),
    ("hashlimit", 2, 304),
    ("hashlimit", 3, 312),
    ("recent", 0, 212),
    ("recent", 1, 228),
    ("connlimit", 1, 32),
    ("statistic", 0, 24),
    ("time", 0, 24),
    ("nfacct", 0, 40),
    ("nfacct", 1, 40),
    ("quota", 0, 24),
    ("socket", 0, 0),
    ("socket", 1, 1),
    ("socket", 2, 1),
    ("socket", 3, 1),
    ("owner", 1, 20),
    ("cgroup", 0, 8),
    ("set", 0, 32),
    ("set", 1, 4),
    ("set", 2, 4),
    ("set", 3, 48),
    ("set", 4, 48),
];

const TARGETS: &[(&str, u8, usize)] = &[
    ("ERROR", 0, 30),
    ("REJECT", 0, 4),
    ("MARK", 2, 8),
    ("CONNMARK", 1, 16),
    ("CONNMARK", 2, 16),
    ("NOTRACK", 0, 0),
    ("CT", 0, 40),
    ("CT", 1, 72),
    ("CT", 2, 72),
    ("TPROXY", 0, 16),
    ("TPROXY", 1, 28),
    ("NFQUEUE", 0, 2),
    ("NFQUEUE", 1, 4),
    ("NFQUEUE", 2, 6),
    ("NFQUEUE", 3, 6),
    ("SET", 0, 64),
    ("SET", 1, 8),
    ("SET", 2, 16),
    ("SET", 3, 20),
    ("TTL", 0, 2),
    ("HL", 0, 2),
    ("DSCP", 0, 1),
    ("TOS", 1, 2),
    ("SYNPROXY", 0, 4),
    ("DNAT", 1, 40),
    ("DNAT", 2, 44),
    ("SNAT", 1, 40),
    ("SNAT", 2, 44),
];

/// Whether a structure of a length is read, for every length near that of the structure.
fn check_lengths(name: &str, revision: u8, size: usize, opaque: impl Fn(&[u8]) -> bool) {
    let padded = size.next_multiple_of(8);
    for length in 0..padded + 16 {
        let expected = length != size && length != padded;
        assert_eq!(opaque(&vec![0; length]), expected, "{name} {revision} of {length} bytes");
    }
}

#[test]
#[cfg(target_pointer_width = "64")]
fn structures_are_as_long_as_they_are() {
    for &(name, revision, size) in MATCHES {
        // Without a name of a link, whose mask then covers none of it, all zeros are valid.
        check_lengths(name, revision, size, |bytes| {
            let kind = decode_match(name, revision, NfFamily::Ip6, bytes).kind;
            matches!(kind, MatchKind::Opaque(_))
        });
    }
    for &(name, revision, size) in TARGETS {
        check_lengths(name, revision, size, |bytes| {
            let kind = decode_target(name, revision, NfFamily::Ip6, bytes).kind;
            matches!(kind, TargetKind::Opaque(_))
        });
    }
}

#[test]
fn what_is_not_known_keeps_its_bytes() {
    let bytes = [1, 2, 3, 4];
    for (name, revision, family) in [
        ("frob", 0, NfFamily::Ip),
        ("tcp", 1, NfFamily::Ip),
        ("mark", 0, NfFamily::Ip),
        ("pkttype", 0, NfFamily::Bridge),
    ] {
        let read = decode_match(name, revision, family, &bytes);
        assert_eq!(read.kind, MatchKind::Opaque(bytes.into()), "{name}");
        assert_eq!((read.name.as_str(), read.revision), (name, revision));
    }
    for (name, revision, family) in
        [("HMARK", 0, NfFamily::Ip), ("REJECT", 0, NfFamily::Bridge), ("LOG", 1, NfFamily::Ip)]
    {
        let read = decode_target(name, revision, family, &bytes);
        assert_eq!(read.kind, TargetKind::Opaque(bytes.into()), "{name}");
    }
}

/// Bytes of a structure: fields one after the other.
fn bytes(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = fields.concat();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn is_match(name: &str, revision: u8, fields: &[&[u8]], expected: &MatchKind) {
    let read = decode_match(name, revision, NfFamily::Ip, &bytes(fields));
    assert_eq!(&read.kind, expected, "{name} {revision}");
}

fn is_target(name: &str, revision: u8, fields: &[&[u8]], expected: &TargetKind) {
    let read = decode_target(name, revision, NfFamily::Ip, &bytes(fields));
    assert_eq!(&read.kind, expected, "{name} {revision}");
}

fn half(number: u16) -> [u8; 2] {
    number.to_ne_bytes()
}

fn word(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

#[test]
fn ports_of_a_multiport_pair_up_where_flagged() {
    let mut ports = [0; 30];
    for (at, port) in [22_u16, 1000, 2000, 443].into_iter().enumerate() {
        ports[at * 2..at * 2 + 2].copy_from_slice(&half(port));
    }
    let mut starts = [0; 15];
    starts[1] = 1;
    let multiport = |ranges: &[(u16, u16)], inverted| MatchKind::Multiport {
        which: MultiportWhich::Destination,
        ports: ranges.to_vec(),
        inverted,
    };
    let expected = multiport(&[(22, 22), (1000, 2000), (443, 443)], true);
    is_match("multiport", 1, &[&[1, 4], &ports, &starts, &[1]], &expected);
    let expected = multiport(&[(22, 22), (1000, 1000)], false);
    is_match("multiport", 0, &[&[1, 2], &ports], &expected);
    // A range whose end is not counted, more ports than there is room for, an unknown side.
    starts[3] = 1;
    for start in [[1, 4], [1, 16], [3, 1]] {
        let bytes = bytes(&[&start, &ports, &starts, &[0]]);
        let read = decode_match("multiport", 1, NfFamily::Ip, &bytes);
        assert_eq!(read.kind, MatchKind::Opaque(bytes.into()), "{start:?}");
    }
}

#[test]
fn a_connection_is_asked_about_what_the_flags_say() {
    let mut addresses = [0; 128];
    addresses[..4].copy_from_slice(&[10, 1, 2, 3]);
    addresses[16..20].copy_from_slice(&[255, 255, 0, 0]);
    let asked = half(1 | 1 << 2 | 1 << 8 | 1 << 12);
    let inverted = half(1 << 2 | 1 << 12);
    let expected = |state, port| {
        MatchKind::Conntrack(Box::new(ConntrackMatch {
            state: Some((state, false)),
            orig_source: Some((
                MaskedAddress {
                    address: "10.1.0.0".parse().unwrap(),
                    mask: "255.255.0.0".parse().unwrap(),
                },
                true,
            )),
            orig_source_port: Some((port, false)),
            direction: Some(false),
            ..ConntrackMatch::default()
        }))
    };
    let start: &[&[u8]] = &[&addresses, &[0; 8], &half(6)];
    let fields = |more: &[&[u8]]| bytes(&[start, more].concat());
    let kind =
        |revision, bytes: Vec<u8>| decode_match("conntrack", revision, NfFamily::Ip, &bytes).kind;

    let network = [0x01, 0xbb, 0, 0, 0, 0, 0, 0];
    let read = kind(1, fields(&[&network, &asked, &inverted, &[9, 0]]));
    assert_eq!(read, expected(9, (443, 443)));
    let read = kind(2, fields(&[&network, &asked, &inverted, &half(0x108), &half(0)]));
    let wanted = ConntrackMatch::UNTRACKED | ConntrackMatch::NEW;
    assert_eq!(read, expected(wanted, (443, 443)));
    let low = [half(80), half(0), half(0), half(0)].concat();
    let high = [half(90), half(0), half(0), half(0)].concat();
    let read = kind(3, fields(&[&low, &asked, &inverted, &half(0xc0), &half(0), &high]));
    let wanted = ConntrackMatch::SNAT | ConntrackMatch::DNAT;
    assert_eq!(read, expected(wanted, (80, 90)));
}

#[test]
fn states_have_one_numbering() {
    let mask = ConntrackMatch::UNTRACKED | ConntrackMatch::INVALID;
    is_match("state", 0, &[&word(1 << 6 | 1)], &MatchKind::State { mask });
}

#[test]
fn sets_are_read_by_every_revision() {
    let set = |flags, inverted| {
        MatchKind::Set(SetReference {
            index: 7,
            name: None,
            source: vec![true, false],
            inverted,
            flags,
        })
    };
    is_match("set", 0, &[&half(7), &[0; 2], &[0; 24], &[2, 3, 0, 0]], &set(0, true));
    is_match("set", 1, &[&half(7), &[2, 2]], &set(0, false));
    is_match("set", 2, &[&half(7), &[2, 0x83]], &set(SetReference::RETURN_NOMATCH, true));
    let none: &[u8] = &[0; 16];
    is_match("set", 3, &[&half(7), &[2, 2], &[0; 4], none, none, &word(8)], &set(8, false));
    is_match("set", 4, &[&half(7), &[2, 2], &[0; 4], none, none, &word(8)], &set(8, false));
    let counters = set(8 | SetReference::MATCH_COUNTERS, false);
    let asked = [1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    is_match("set", 3, &[&half(7), &[2, 2], &[0; 4], &asked, none, &word(8)], &counters);
    let asked = [9, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
    is_match("set", 4, &[&half(7), &[2, 2], &[0; 4], none, &asked, &word(8)], &counters);

    let target = |map: Option<u16>, flags| {
        let reference =
            |index, source| SetReference { index, name: None, source, inverted: false, flags: 0 };
        TargetKind::Set {
            add: Some(reference(7, vec![true])),
            delete: None,
            map: map.map(|index| reference(index, vec![])),
            flags,
        }
    };
    let (add, none) = ([&half(7)[..], &[1, 2]].concat(), [0xff, 0xff, 0, 0]);
    is_target("SET", 1, &[&add, &none], &target(None, 0));
    is_target("SET", 2, &[&add, &none, &word(1), &word(60)], &target(None, 1));
    let map = [&half(9)[..], &[0, 0]].concat();
    is_target("SET", 3, &[&add, &none, &map, &word(256), &word(0)], &target(Some(9), 256));
}

#[test]
fn ranges_hold_what_their_flags_name() {
    let range = |addresses: bool, base_port, flags| NatRange {
        addresses: addresses.then(|| ("192.0.2.1".parse().unwrap(), "192.0.2.9".parse().unwrap())),
        ports: Some((80, 90)),
        base_port,
        flags,
    };
    let (low, high) = ([192, 0, 2, 1], [192, 0, 2, 9]);
    let ports = [0, 80, 0, 90];
    let old: &[&[u8]] = &[&word(1), &word(0b1111), &low, &high, &ports];
    is_target("DNAT", 0, old, &TargetKind::Dnat(range(true, None, 12)));
    is_target("SNAT", 0, old, &TargetKind::Snat(range(true, None, 12)));
    is_target("NETMAP", 0, old, &TargetKind::Netmap(range(true, None, 12)));
    let old: &[&[u8]] = &[&word(1), &word(0b110), &low, &high, &ports];
    is_target("MASQUERADE", 0, old, &TargetKind::Masquerade(range(false, None, 4)));
    is_target("REDIRECT", 0, old, &TargetKind::Redirect(range(false, None, 4)));
    let new: &[&[u8]] =
        &[&word(0x33), &low, &[0; 12], &high, &[0; 12], &ports, &[0x1f, 0x90, 0, 0]];
    is_target("DNAT", 2, new, &TargetKind::Dnat(range(true, Some(8080), 16)));
    let two: &[&[u8]] = &[&word(2), &word(0), &low, &high, &ports];
    assert!(matches!(
        decode_target("SNAT", 0, NfFamily::Ip, &bytes(two)).kind,
        TargetKind::Opaque(_)
    ));
}

#[test]
fn targets_do_what_they_say() {
    for (verdict, expected) in [
        (-1_i32, Some(NfVerdict::Drop)),
        (-2, Some(NfVerdict::Accept)),
        (-4, Some(NfVerdict::Queue { number: 0, bypass: false })),
        (-5, Some(NfVerdict::Return)),
        (152, None),
    ] {
        let read = decode_target("", 0, NfFamily::Ip, &bytes(&[&verdict.to_ne_bytes()])).kind;
        match expected {
            Some(verdict) => assert_eq!(read, TargetKind::Standard(verdict)),
            None => assert!(matches!(read, TargetKind::Opaque(_)), "{verdict}"),
        }
    }
    let mark = |shift| TargetKind::Connmark {
        mode: ConnmarkMode::Restore,
        ctmark: 1,
        ctmask: 2,
        nfmask: 3,
        shift,
    };
    let words: &[u8] = &[word(1), word(2), word(3)].concat();
    is_target("CONNMARK", 1, &[words, &[2]], &mark(0));
    is_target("CONNMARK", 2, &[words, &[1, 8, 2]], &mark(-8));
    is_target("CONNMARK", 2, &[words, &[0, 31, 2]], &mark(31));
    let wide = bytes(&[words, &[0, 32, 2]]);
    let read = decode_target("CONNMARK", 2, NfFamily::Ip, &wide).kind;
    assert_eq!(read, TargetKind::Opaque(wide.into()));
    is_target("DSCP", 0, &[&[46]], &TargetKind::Tos { mask: 0xfc, value: 0xb8 });
    is_target("TOS", 1, &[&[0x10, 0x3f]], &TargetKind::Tos { mask: 0x3f, value: 0x10 });
    let queue = |total, bypass| TargetKind::Nfqueue { number: 5, total, bypass };
    is_target("NFQUEUE", 0, &[&half(5)], &queue(1, false));
    is_target("NFQUEUE", 1, &[&half(5), &half(4)], &queue(4, false));
    is_target("NFQUEUE", 2, &[&half(5), &half(4), &half(1)], &queue(4, true));
    is_target("NFQUEUE", 3, &[&half(5), &half(4), &half(2)], &queue(4, false));
    let ct = |helper: &str| TargetKind::Ct {
        notrack: false,
        zone: 3,
        zone_flags: 4,
        helper: Some(helper.to_owned()).filter(|helper| !helper.is_empty()),
    };
    let mut helper = [0; 16];
    helper[..3].copy_from_slice(b"ftp");
    let start: &[&[u8]] = &[&half(4), &half(3), &[0; 8]];
    is_target("CT", 2, &[start, &[&helper, &[0; 36], &[0; 8]]].concat(), &ct("ftp"));
    is_target("CT", 0, &[start, &[&[0; 16], &[0; 4], &[0; 8]]].concat(), &ct(""));
    let tproxy = TargetKind::Tproxy {
        address: Some("127.0.0.1".parse().unwrap()),
        port: Some(8080),
        mark_mask: 0xff,
        mark_value: 1,
    };
    let marks: &[u8] = &[word(0xff), word(1)].concat();
    is_target("TPROXY", 0, &[marks, &[127, 0, 0, 1], &[0x1f, 0x90]], &tproxy);
    is_target("TPROXY", 1, &[marks, &[127, 0, 0, 1], &[0; 12], &[0x1f, 0x90]], &tproxy);
}

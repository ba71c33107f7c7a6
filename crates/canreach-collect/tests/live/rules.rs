//! Policy rules.

use canreach_snapshot::{Family, PolicyAction, PolicyRule, TableId};

use crate::namespace::{Namespace, gaps};

#[test]
fn a_fresh_namespace_has_the_kernels_own_rules() {
    let Some(namespace) = Namespace::new() else { return };
    let rules = namespace.read().policy_rules;
    let rules: Vec<_> =
        rules.iter().map(|rule| (rule.family, rule.priority, rule.action)).collect();
    let look = |table| PolicyAction::Lookup(table);
    assert_eq!(
        rules,
        [
            (Family::Ipv4, 0, look(TableId::LOCAL)),
            (Family::Ipv4, 32766, look(TableId::MAIN)),
            (Family::Ipv4, 32767, look(TableId::DEFAULT)),
            (Family::Ipv6, 0, look(TableId::LOCAL)),
            (Family::Ipv6, 32766, look(TableId::MAIN)),
        ]
    );
}

#[test]
fn every_selector_is_read() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(
        "rule add priority 10 not from 10.0.0.0/8 to 192.0.2.0/24 iif lo oif eth9 tos 0x10 lookup 77
rule add priority 11 fwmark 0x5/0xf uidrange 0-0 lookup 1000
rule add priority 12 ipproto tcp sport 1000-2000 dport 443 lookup 77
rule add priority 13 lookup main suppress_prefixlength 0
rule add priority 14 lookup main suppress_ifgroup 7
rule add priority 15 goto 32766
rule add priority 16 blackhole
rule add priority 17 unreachable
rule add priority 18 prohibit
rule add priority 19 l3mdev
rule add priority 20 fwmark 0x3 lookup 77
",
    );
    namespace.ip6("rule add priority 21 from 2001:db8::/32 lookup 88");
    let netns = namespace.read();
    assert!(gaps(&netns).is_empty(), "{:?}", netns.gaps);
    let rule = |priority: u32| {
        let mut rules = netns.policy_rules.iter().filter(|rule| rule.priority == priority);
        rules.next().unwrap_or_else(|| panic!("rule {priority} is there"))
    };
    let first = rule(10);
    assert!(first.invert);
    assert_eq!(first.source, "10.0.0.0/8".parse().ok());
    assert_eq!(first.destination, "192.0.2.0/24".parse().ok());
    assert_eq!((first.iif.as_deref(), first.oif.as_deref()), (Some("lo"), Some("eth9")));
    assert_eq!((first.tos, first.action), (0x10, PolicyAction::Lookup(TableId(77))));
    let marked = rule(11);
    assert_eq!((marked.mark, marked.mark_mask), (0x5, 0xf));
    assert_eq!(marked.uid_range, Some((0, 0)));
    assert_eq!(marked.action, PolicyAction::Lookup(TableId(1000)));
    let ports = rule(12);
    assert_eq!(ports.ip_protocol, Some(6));
    assert_eq!(ports.source_ports, Some((1000, 2000)));
    assert_eq!(ports.destination_ports, Some((443, 443)));
    assert_eq!(rule(13).suppress_prefix_length, Some(0));
    assert_eq!(rule(14).suppress_ifgroup, Some(7));
    assert_eq!(rule(13).suppress_ifgroup, None);
    let actions: Vec<_> = (15..=18).map(|priority| rule(priority).action).collect();
    let expected = [
        PolicyAction::Goto(32766),
        PolicyAction::Blackhole,
        PolicyAction::Unreachable,
        PolicyAction::Prohibit,
    ];
    assert_eq!(actions, expected);
    assert!(rule(19).l3mdev && !rule(18).l3mdev);
    assert_eq!((rule(20).mark, rule(20).mark_mask), (3, u32::MAX));
    assert_eq!(
        (rule(21).family, rule(21).action),
        (Family::Ipv6, PolicyAction::Lookup(TableId(88)))
    );
    let strange: Vec<&PolicyRule> =
        netns.policy_rules.iter().filter(|rule| !rule.unrecognized.is_empty()).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

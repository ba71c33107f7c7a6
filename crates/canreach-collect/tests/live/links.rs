//! Links, their addresses and their sysctls.

use canreach_collect::collect;
use canreach_snapshot::{
    AddressFlags, Ifindex, LinkKind, LinkSysctl, OperState, Prefix, Scope, Sysctls,
};

use crate::namespace::{Namespace, everything, gaps, skip};

const PAIR: &str = "link set lo up
link add left type veth peer name right
link set left up
link set right up
";

#[test]
fn links_say_what_they_are_and_what_they_belong_to() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(PAIR);
    namespace.ip("link add name br type bridge
link set right master br
link set left group 7 mtu 1400
link add link left name mac type macvlan mode bridge
");
    let netns = namespace.read_settled();
    let link = |name: &str| netns.link_named(name).unwrap_or_else(|| panic!("{name} is there"));
    assert_eq!(link("lo").kind, LinkKind::Loopback);
    assert_eq!(link("lo").physical, Some(false));
    assert_eq!((&link("left").kind, link("left").mtu), (&LinkKind::Veth, 1400));
    assert_eq!(link("left").group, 7);
    assert_eq!(link("left").lower, Some(link("right").ifindex));
    assert_eq!((link("left").lower_nsid, link("left").physical), (None, Some(false)));
    assert_eq!(link("right").master, Some(link("br").ifindex));
    assert_eq!(link("br").kind, LinkKind::Bridge);
    assert_eq!(link("mac").kind, LinkKind::Macvlan);
    assert_eq!(link("mac").lower, Some(link("left").ifindex));
    assert!(link("left").has_carrier() && link("left").is_up());
    assert_eq!(link("left").operstate, OperState::Up);
    assert!(link("left").mac.is_some());
    assert!(netns.links.is_sorted_by_key(|link| link.ifindex));
    assert!(gaps(&netns).is_empty(), "{:?}", netns.gaps);
}

#[test]
fn the_other_end_of_a_pair_may_be_in_another_namespace() {
    let (Some(here), Some(there)) = (Namespace::new(), Namespace::new()) else { return };
    here.ip(&format!("link add left type veth peer name right netns {}", there.pid().0));
    let netns = here.read();
    let left = netns.link_named("left").expect("it was made");
    assert!(left.lower_nsid.is_some_and(|nsid| nsid >= 0), "{left:?}");
    assert_eq!(left.lower, there.read().link_named("right").map(|right| right.ifindex));
}

#[test]
fn addresses_keep_the_kernels_order_and_flags() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(PAIR);
    namespace.ip("address add 192.0.2.9/24 dev left
address add 192.0.2.1/24 dev left label left:one
address add 198.51.100.1 peer 198.51.100.2/32 dev left scope link
address add 2001:db8::1/64 dev left nodad
address add 2001:db8::2/64 dev left nodad preferred_lft 0 valid_lft 3600
");
    let netns = namespace.read();
    let left = netns.link_named("left").expect("it was made").ifindex;
    let find = |text: &str| {
        let prefix: Prefix = text.parse().expect("it is a prefix");
        let mut addresses = netns.addresses.iter().filter(|row| row.ifindex == left);
        let row = addresses.find(|row| row.address() == prefix.address());
        assert_eq!(row.map(|row| row.prefix), Some(prefix));
        row.expect("it was added")
    };
    let order: Vec<_> = netns.addresses.iter().map(|row| row.address().to_string()).collect();
    let place = |text: &str| order.iter().position(|row| row == text);
    assert!(place("192.0.2.9") < place("192.0.2.1"), "{order:?}");
    assert!(!find("192.0.2.9/24").is_secondary());
    assert!(find("192.0.2.1/24").is_secondary());
    assert_eq!(find("192.0.2.1/24").label.as_deref(), Some("left:one"));
    let peer = find("198.51.100.1/32");
    assert_eq!(peer.peer, "198.51.100.2".parse().ok());
    assert_eq!(peer.scope, Scope::LINK);
    assert_eq!(find("2001:db8::1/64").preferred_lifetime_s, None);
    assert!(find("2001:db8::2/64").flags.has(AddressFlags::DEPRECATED));
    assert_eq!(find("2001:db8::2/64").preferred_lifetime_s, Some(0));
    assert!(find("2001:db8::2/64").valid_lifetime_s.is_some_and(|life| life <= 3600));
    assert_eq!(find("2001:db8::1/64").peer, None);
}

/// Sets one sysctl after the other and looks whether that one, and no other, is read differently.
/// This is what holds `LinkSysctl::devconf_index` against the kernel.
#[test]
fn each_sysctl_of_a_link_is_read_from_its_own_place() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(PAIR);
    let read = || namespace.read().sysctls;
    let mut before = read();
    for sysctl in LinkSysctl::ALL {
        let family = if sysctl.is_ipv6() { "ipv6" } else { "ipv4" };
        let path = |link: &str| format!("{family}/conf/{link}/{}", sysctl.name());
        let old = before.of_link(sysctl, "left");
        let new = 1 - old.unwrap_or(0);
        if !namespace.set(&path("left"), &new.to_string()) {
            assert_eq!(old, None, "{sysctl:?} is read although the kernel lacks it");
            skip(&format!("this kernel has no {}", path("left")));
            continue;
        }
        let after = read();
        let mut expected = before.clone();
        expected.links.get_mut("left").expect("it is there").insert(sysctl, new);
        assert_eq!(only_of_links(&after), only_of_links(&expected), "{sysctl:?}");
        before = after;
    }
}

fn only_of_links(sysctls: &Sysctls) -> Sysctls {
    Sysctls { links: sysctls.links.clone(), ..Sysctls::default() }
}

#[test]
fn values_of_all_and_of_the_namespace_are_its_own() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(PAIR);
    for (path, value) in [
        ("ipv4/conf/all/rp_filter", "2"),
        ("ipv4/conf/all/arp_ignore", "8"),
        ("ipv4/tcp_fwmark_accept", "1"),
        ("ipv4/icmp_echo_ignore_all", "1"),
    ] {
        assert!(namespace.set(path, value), "{path}");
    }
    let sysctls = namespace.read().sysctls;
    assert_eq!(sysctls.all.get(&LinkSysctl::RpFilter), Some(&2));
    assert_eq!(sysctls.all.get(&LinkSysctl::ArpIgnore), Some(&8));
    assert_eq!(sysctls.of_link(LinkSysctl::ArpIgnore, "left"), Some(0));
    let set: Vec<_> = sysctls.global.iter().filter(|(_, value)| **value == 1).collect();
    let names: Vec<_> = set.iter().map(|(sysctl, _)| sysctl.name()).collect();
    assert!(names.contains(&"net.ipv4.tcp_fwmark_accept"), "{names:?}");
    assert!(names.contains(&"net.ipv4.icmp_echo_ignore_all"), "{names:?}");
}

/// Some values of `all` come by rtnetlink and some from /proc: each must be that of its file.
#[test]
fn each_sysctl_of_all_is_read_from_its_own_place() {
    let Some(namespace) = Namespace::new() else { return };
    for sysctl in LinkSysctl::ALL.into_iter().filter(|sysctl| sysctl.asks_all()) {
        let family = if sysctl.is_ipv6() { "ipv6" } else { "ipv4" };
        let path = format!("{family}/conf/all/{}", sysctl.name());
        let before = namespace.read().sysctls.all;
        let new = 1 - before.get(&sysctl).copied().unwrap_or(0);
        if !namespace.set(&path, &new.to_string()) {
            assert_eq!(
                before.get(&sysctl),
                None,
                "{sysctl:?} is read although the kernel lacks it"
            );
            skip(&format!("this kernel has no {path}"));
            continue;
        }
        let mut expected = before;
        expected.insert(sysctl, new);
        assert_eq!(namespace.read().sysctls.all, expected, "{sysctl:?}");
    }
}

#[test]
fn reading_another_namespace_leaves_the_caller_where_it_is() {
    let Some(namespace) = Namespace::new() else { return };
    let before = collect(&everything()).expect("it can be read").namespaces.remove(0);
    let other = namespace.read();
    let after = collect(&everything()).expect("it can be read").namespaces.remove(0);
    assert_eq!((before.id, before.own), (after.id, true));
    assert_ne!(other.id, before.id);
    assert!(!other.own);
    assert_eq!(other.links.iter().map(|link| link.ifindex).collect::<Vec<_>>(), [Ifindex(1)]);
    namespace.inside(|| {
        let inside = collect(&everything()).expect("it can be read").namespaces.remove(0);
        assert_eq!((inside.id, inside.own), (other.id, true));
    });
}

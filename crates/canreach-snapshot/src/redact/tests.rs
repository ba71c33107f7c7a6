use super::*;
use crate::{
    AddressFlags, AttachPoint, BpfAttachment, Cgroup, CgroupId, ChainKind, ChainPolicy, Container,
    Cookie, Family, GapReason, HookedChain, Ifindex, LinkFlags, LinkKind, LinkSysctl, MacAddress,
    Machine, Neighbor, NfFamily, NfHook, NudState, OperState, Pid, PolicyAction, PolicyRule, Port,
    Proto, RouteProtocol, RouteType, Scope, Socket, SocketState, Sysctls, TableId, Unit, Wireless,
};

/// Every text and public address in the snapshot below that must not be in its redaction.
const SECRETS: [&str; 14] = [
    "acme",
    "alice",
    "payroll",
    "93.184.216",
    "8.8.4",
    "2a02:8071",
    "21ff:fe3c",
    "00:1b:21",
    "cafe",
    "hidden-ssid",
    "4f9c27d5",
    "/home",
    "--password",
    "blue",
];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("the test's own address")
}

fn prefix(text: &str) -> Prefix {
    text.parse().expect("the test's own prefix")
}

fn address(text: &str, label: Option<&str>) -> Address {
    Address {
        ifindex: Ifindex(2),
        prefix: prefix(text),
        peer: None,
        broadcast: None,
        scope: Scope::UNIVERSE,
        flags: AddressFlags::default(),
        label: label.map(str::to_owned),
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    }
}

fn link() -> Link {
    Link {
        ifindex: Ifindex(2),
        name: "acme-lan".into(),
        kind: LinkKind::Wifi,
        flags: LinkFlags::UP,
        operstate: OperState::Up,
        mtu: 1500,
        group: 0,
        mac: Some(MacAddress([0x00, 0x1b, 0x21, 0x3c, 0x9d, 0x40])),
        master: None,
        lower: None,
        lower_nsid: None,
        vrf_table: None,
        physical: Some(true),
        wireless: Some(Wireless { ssid: Some("hidden-ssid".into()) }),
    }
}

fn route() -> Route {
    Route {
        table: TableId::MAIN,
        kind: RouteType::Unicast,
        destination: prefix("8.8.4.0/24"),
        source: None,
        tos: 0,
        scope: Scope::UNIVERSE,
        protocol: RouteProtocol::BOOT,
        metric: 0,
        preferred_source: Some(ip("93.184.216.34")),
        preference: None,
        flags: 0,
        nexthops: vec![NextHop {
            ifindex: Some(Ifindex(2)),
            gateway: Some(ip("93.184.216.1")),
            weight: 1,
            flags: crate::NextHopFlags::default(),
            encapsulated: false,
        }],
        nexthop_id: None,
        realm: None,
    }
}

fn rule() -> PolicyRule {
    PolicyRule {
        source: Some(prefix("93.184.216.0/24")),
        iif: Some("acme-lan".into()),
        oif: Some("acme-gone".into()),
        ..PolicyRule::new(Family::Ipv4, 5, PolicyAction::Lookup(TableId::MAIN))
    }
}

fn neighbor(address: &str) -> Neighbor {
    Neighbor {
        ifindex: Ifindex(2),
        address: ip(address),
        mac: Some(MacAddress([0x00, 0x1b, 0x21, 0, 0, 1])),
        state: NudState::Reachable,
        router: false,
        proxy: false,
    }
}

fn socket() -> Socket {
    Socket {
        proto: Proto::Tcp,
        mptcp: false,
        family: Family::Ipv6,
        state: SocketState::Listen,
        address: ip("::ffff:93.184.216.34"),
        port: Port(8443),
        peer: None,
        device: None,
        v6only: Some(false),
        mark: None,
        transparent: None,
        freebind: None,
        uid: 1000,
        inode: 77,
        cookie: Cookie(5),
        cgroup: Some(CgroupId(9)),
        backlog: None,
    }
}

fn firewall() -> Firewall {
    let chain = HookedChain {
        family: NfFamily::Netdev,
        table: "acme-table".into(),
        name: "ingress".into(),
        handle: 1,
        hook: NfHook::Ingress,
        priority: 0,
        kind: ChainKind::Filter,
        policy: ChainPolicy::Accept,
        devices: vec!["acme-lan".into()],
        rules: 3,
    };
    Firewall { chains: vec![chain], ..Firewall::default() }
}

fn gap(subject: GapSubject) -> Gap {
    Gap { subject, reason: GapReason::Failed, detail: "open /home/alice: EIO".into() }
}

const PATH: &str = "/system.slice/acme.service/docker/4f9c27d5";

fn process() -> Process {
    Process {
        pid: Pid(40),
        parent: None,
        comm: "payroll".into(),
        cmdline: vec!["/home/alice/payroll".into(), "--password=cafe".into()],
        cwd: Some("/home/alice".into()),
        uid: 1000,
        user: Some("alice".into()),
        cgroup_path: Some(PATH.into()),
        started_at_ms: Some(1),
    }
}

fn snapshot() -> Snapshot {
    let mut sysctls = Sysctls::default();
    sysctls.links.insert("acme-lan".into(), [(LinkSysctl::RpFilter, 1)].into());
    let netns = Netns {
        name: Some("blue".into()),
        links: vec![link()],
        addresses: vec![
            address("93.184.216.34/24", Some("acme-lan:alice")),
            address("2a02:8071:5ad0:1c00:21b:21ff:fe3c:9d40/64", None),
            address("fe80::21b:21ff:fe3c:9d40/64", None),
            address("192.168.7.1/24", None),
        ],
        routes: vec![route()],
        policy_rules: vec![rule()],
        neighbors: vec![neighbor("93.184.216.1"), neighbor("ff02::1:ff3c:9d40")],
        sysctls,
        sockets: vec![socket()],
        firewall: firewall(),
        bpf: vec![BpfAttachment {
            point: AttachPoint::Xdp(Ifindex(2)),
            program_id: Some(3),
            name: Some("acme_xdp".into()),
        }],
        gaps: vec![
            gap(GapSubject::Sysctl("net.ipv4.conf.acme-lan.rp_filter".into())),
            gap(GapSubject::Netns("blue".into())),
        ],
        ..Netns::default()
    };
    Snapshot {
        machine: Machine {
            kernel_release: "6.12.9-acme-prod".into(),
            hostname: Some("alice-laptop".into()),
            ..Machine::default()
        },
        namespaces: vec![netns],
        processes: vec![process()],
        cgroups: vec![Cgroup {
            id: CgroupId(9),
            path: PATH.into(),
            unit: Some(Unit {
                name: "acme.service".into(),
                user: false,
                starts: Some("acme.service".into()),
            }),
            container: Some(Container { runtime: "docker".into(), id: "4f9c27d5".into() }),
        }],
        gaps: vec![gap(GapSubject::Owners)],
    }
}

#[test]
fn nothing_that_tells_who_or_where_is_left() {
    let text = |snapshot: &Snapshot| {
        String::from_utf8(snapshot.to_bytes()).expect("JSON is text").to_lowercase()
    };
    let (before, after) = (text(&snapshot()), text(&snapshot().redact()));
    for secret in SECRETS {
        assert!(before.contains(secret), "{secret} is there to be removed");
        assert!(!after.contains(secret), "{secret} is left in {after}");
    }
}

#[test]
fn what_belonged_together_still_does() {
    let redacted = snapshot().redact();
    assert_eq!(redacted.validate(), Ok(()));
    assert_eq!(redacted.machine.kernel_version(), Some((6, 12)));
    let netns = redacted.subject().expect("it has one");
    let link = &netns.links[0].name;
    assert_eq!(netns.sysctls.of_link(LinkSysctl::RpFilter, link), Some(1));
    assert_eq!(netns.policy_rules[0].iif.as_ref(), Some(link));
    assert_ne!(netns.policy_rules[0].oif.as_ref(), Some(link));
    assert_eq!(netns.firewall.chains[0].devices.first(), Some(link));
    assert_eq!(netns.addresses[0].label.as_ref(), Some(link));
    assert_eq!(
        netns.gaps[0].subject,
        GapSubject::Sysctl(format!("net.ipv4.conf.{link}.rp_filter"))
    );
    assert_eq!(netns.gaps[1].subject, GapSubject::Netns(netns.name.clone().expect("it had one")));

    let own = netns.addresses[0].address();
    assert_eq!(netns.routes[0].preferred_source, Some(own));
    assert!(netns.addresses[0].prefix.contains(netns.neighbors[0].address));
    assert_eq!(netns.routes[0].nexthops[0].gateway, Some(netns.neighbors[0].address));
    assert!(netns.policy_rules[0].source.is_some_and(|source| source.contains(own)));
    assert_eq!(netns.sockets[0].address.to_string(), format!("::ffff:{own}"));
    assert_eq!(netns.addresses[3].address(), ip("192.168.7.1"), "private addresses stay");

    let group = &redacted.cgroups[0];
    let unit = group.unit.as_ref().expect("it has one");
    assert!(group.path.contains(&format!("/{}/", unit.name)), "{group:?}");
    assert_eq!(redacted.processes[0].cgroup_path.as_ref(), Some(&group.path));
}

/// Addresses come out in one form, whatever they were: exchanging them again has nothing to do.
#[test]
fn exchanging_addresses_twice_changes_nothing_more() {
    let once = snapshot().redact();
    let map = AddressMap::new(&once);
    for address in &once.namespaces[0].addresses {
        assert_eq!(map.prefix(address.prefix), address.prefix);
    }
    assert_eq!(once.redact().namespaces[0].routes, once.namespaces[0].routes);
}

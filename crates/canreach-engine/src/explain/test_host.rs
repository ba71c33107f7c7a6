//! A small machine for the tests of fixes: `eth0` with 192.168.1.20/24, `eth1` without an
//! address, and one listener.

use std::net::IpAddr;

use canreach_snapshot::{
    Address, AddressFlags, Cgroup, CgroupId, Cookie, Family, FibLayout, GlobalSysctl, Ifindex,
    Link, LinkFlags, LinkKind, LinkSysctl, Machine, Netns, OperState, Owner, OwnerReason, Pid,
    Port, Prefix, Process, Proto, ResolvedBy, Route, RouteProtocol, RouteType, Scope, Snapshot,
    Socket, SocketState, Sysctls, TableId, Unit,
};

use super::route_remedy::route_via;
use crate::{AddressSet, Arrival, Question};

/// The listener's inode.
const INODE: u64 = 7;

fn link(ifindex: u32, name: &str, kind: LinkKind) -> Link {
    let loopback = if kind == LinkKind::Loopback { LinkFlags::LOOPBACK.0 } else { 0 };
    Link {
        ifindex: Ifindex(ifindex),
        name: name.to_owned(),
        kind,
        flags: LinkFlags(LinkFlags::UP.0 | LinkFlags::LOWER_UP.0 | loopback),
        operstate: OperState::Up,
        mtu: 1500,
        group: 0,
        mac: None,
        master: None,
        lower: None,
        lower_nsid: None,
        vrf_table: None,
        physical: Some(true),
        wireless: None,
    }
}

fn address(ifindex: u32, prefix: &str, scope: Scope) -> Address {
    Address {
        ifindex: Ifindex(ifindex),
        prefix: prefix.parse().expect(prefix),
        peer: None,
        broadcast: None,
        scope,
        flags: AddressFlags::PERMANENT,
        label: None,
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    }
}

/// A route with one way out.
pub(super) fn route(
    kind: RouteType,
    destination: &str,
    table: TableId,
    gateway: Option<&str>,
    ifindex: u32,
) -> Route {
    let destination = destination.parse().expect(destination);
    let gateway = gateway.map(|gateway| gateway.parse().expect(gateway));
    let mut route = route_via(destination, table, gateway, Ifindex(ifindex));
    route.kind = kind;
    route.protocol = RouteProtocol::KERNEL;
    if gateway.is_none() {
        route.scope = if kind == RouteType::Local { Scope::HOST } else { Scope::LINK };
    }
    route
}

/// A TCP listener.
pub(super) fn listener(address: &str, port: u16) -> Socket {
    let address: IpAddr = address.parse().expect(address);
    Socket {
        proto: Proto::Tcp,
        mptcp: false,
        family: Family::of(address),
        state: SocketState::Listen,
        address,
        port: Port(port),
        peer: None,
        device: None,
        v6only: None,
        mark: None,
        transparent: None,
        freebind: None,
        uid: 0,
        inode: INODE,
        cookie: Cookie(INODE),
        cgroup: Some(CgroupId(1)),
        backlog: None,
    }
}

/// A process; one word in double quotes is a title.
pub(super) fn process(pid: u32, parent: Option<u32>, text: &str) -> Process {
    let title = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let words: Vec<&str> = title.map_or_else(|| text.split(' ').collect(), |title| vec![title]);
    Process {
        pid: Pid(pid),
        parent: parent.map(Pid),
        comm: String::new(),
        cmdline: words.into_iter().map(str::to_owned).collect(),
        cwd: None,
        uid: 0,
        user: None,
        cgroup_path: None,
        started_at_ms: None,
    }
}

/// The machine with one listener, held by the first of a chain of processes.
pub(super) fn snapshot(socket: Socket, chain: &[&str], unit: Option<Unit>) -> Snapshot {
    let count = u32::try_from(chain.len()).expect("few");
    let processes = (0..count).zip(chain).map(|(at, text)| {
        let parent = (at + 1 < count).then_some(11 + at);
        process(10 + at, parent, text)
    });
    let reason = chain.is_empty().then_some(OwnerReason::NoProcess);
    let mut sysctls = Sysctls::default();
    for sysctl in LinkSysctl::ALL {
        sysctls.all.insert(sysctl, 0);
        for link in ["lo", "eth0", "eth1"] {
            sysctls.links.entry(link.to_owned()).or_default().insert(sysctl, 0);
        }
    }
    sysctls.global.extend(GlobalSysctl::ALL.map(|sysctl| (sysctl, 0)));
    let netns = Netns {
        links: vec![
            link(1, "lo", LinkKind::Loopback),
            link(2, "eth0", LinkKind::Ethernet),
            link(3, "eth1", LinkKind::Ethernet),
        ],
        addresses: vec![
            address(1, "127.0.0.1/8", Scope::HOST),
            address(2, "192.168.1.20/24", Scope::UNIVERSE),
        ],
        routes: vec![
            route(RouteType::Local, "127.0.0.0/8", TableId::LOCAL, None, 1),
            route(RouteType::Local, "192.168.1.20/32", TableId::LOCAL, None, 2),
            route(RouteType::Unicast, "192.168.1.0/24", TableId::MAIN, None, 2),
        ],
        fib_layout: FibLayout::Merged,
        sysctls,
        owners: vec![Owner {
            inode: INODE,
            holders: chain.first().map(|_| Pid(10)).into_iter().collect(),
            resolved_by: ResolvedBy::Fd,
            reason,
        }],
        sockets: vec![socket],
        ..Netns::default()
    };
    Snapshot {
        machine: Machine::default(),
        namespaces: vec![netns],
        processes: processes.collect(),
        cgroups: vec![Cgroup { id: CgroupId(1), path: "/x".to_owned(), unit, container: None }],
        gaps: Vec::new(),
    }
}

/// The LAN asks for 192.168.1.20, or for an IPv6 address.
pub(super) fn question(to: &str, port: u16) -> Question {
    let to: IpAddr = to.parse().expect(to);
    let lan: Prefix = "192.168.1.0/24".parse().expect("a prefix");
    let from = match Family::of(to) {
        Family::Ipv4 => AddressSet::from_prefixes(Family::Ipv4, [lan]),
        Family::Ipv6 => AddressSet::all(Family::Ipv6),
    };
    Question { proto: Proto::Tcp, port: Port(port), from, to, via: Arrival::Link(Ifindex(2)) }
}

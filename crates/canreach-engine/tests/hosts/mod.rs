//! Random hosts and questions.
//!
//! A host is made of small parts, each chosen from a short list of addresses, ports and links, so
//! that parts meet: routes overlap, sockets compete, rules match. What the kernel derives by itself
//! (local and connected routes) is derived here too; the rest is added as a user might.

pub(crate) mod kernel;
pub(crate) mod pool;
pub(crate) mod text;

use canreach_engine::{AddressSet, Arrival, Question};
use canreach_snapshot::{
    Address, AddressFlags, AttachPoint, Backlog, BpfAttachment, CgroupId, ChainKind, ChainPolicy,
    Cookie, Family, FibLayout, Gap, GapReason, GapSubject, GlobalSysctl, HookedChain, Ifindex,
    LegacyTable, Link, LinkFlags, LinkKind, LinkSysctl, Mark, Neighbor, Netns, NextHop,
    NextHopFlags, NfFamily, NfHook, NudState, OperState, PolicyAction, PolicyRule, Port, Proto,
    Route, RouteProtocol, RouteType, Scope, Socket, SocketState, TableId,
};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

use pool::{address_of, prefix_of};

/// Links of a host: `lo`, a VRF (index 6), a bridge (7), and three to five others.
const OTHER_LINKS: u32 = 4;

/// A host, and questions about it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) netns: Netns,
    pub(crate) questions: Vec<Question>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "\n{}", text::describe(&self.netns))?;
        self.questions
            .iter()
            .try_for_each(|question| writeln!(formatter, "? {}", text::question(question)))
    }
}

/// A host with a few questions.
pub(crate) fn case() -> impl Strategy<Value = Case> {
    (netns(), vec(plan(), 1..5)).prop_map(|(netns, plans)| {
        let questions = plans.into_iter().map(|plan| plan.ask(&netns)).collect();
        Case { netns, questions }
    })
}

fn mostly<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    others: Vec<T>,
) -> impl Strategy<Value = T> {
    prop_oneof![6 => Just(usual), 1 => select(others)]
}

fn any_link() -> impl Strategy<Value = Ifindex> {
    (1..=3 + OTHER_LINKS).prop_map(Ifindex)
}

fn netns() -> impl Strategy<Value = Netns> {
    let state = (links(), vec(address(), 0..7), vec(route(), 0..7), vec(rule(), 0..4), sysctls());
    let users = (vec(socket(), 0..6), filters(), bpf(), gaps(), vec(neighbor(), 0..2));
    let layouts = vec![Some(FibLayout::Split), Some(FibLayout::Split), Some(FibLayout::Unknown)];
    let layout = mostly(None, layouts);
    let lan = (prop::bool::weighted(0.7), prop::bool::weighted(0.7), select(vec![2, 2, 2, 3, 4]));
    (state, users, layout, lan).prop_map(|(state, users, layout, (has_lan, has_router, uplink))| {
        let (links, mut addresses, routes, rules, sysctls) = state;
        if has_lan {
            addresses.splice(..0, lan_addresses());
        }
        let (sockets, (chains, legacy_tables, cannot_redirect), bpf, gaps, neighbors) = users;
        let has_vrf = links.iter().any(|link| link.kind == LinkKind::Vrf);
        let touched = !rules.is_empty() || has_vrf;
        addresses.retain(|own| links.iter().any(|link| link.ifindex == own.ifindex));
        let mut netns = Netns {
            links,
            addresses: kernel::own_addresses(addresses),
            sysctls,
            sockets,
            neighbors,
            bpf,
            gaps,
            policy_rules: kernel::with_default_rules(rules),
            // Without a rule the tables may be either; with one, as each VRF has, they are split.
            fib_layout: layout.filter(|_| !has_vrf).unwrap_or(if touched {
                FibLayout::Split
            } else {
                FibLayout::Merged
            }),
            ..Netns::default()
        };
        netns.firewall.chains = chains;
        netns.firewall.legacy_tables = legacy_tables;
        netns.firewall.cannot_redirect = cannot_redirect;
        let mut all = kernel::derived_routes(&netns);
        if has_router {
            all.extend(kernel::default_routes(Ifindex(uplink)));
        }
        all.extend(routes);
        netns.routes = all;
        kernel::remove_impossible(&mut netns);
        netns
    })
}

/// What most machines have: an address of each kind on the first link.
fn lan_addresses() -> Vec<Address> {
    let of_link = |text| Address {
        ifindex: Ifindex(2),
        prefix: prefix_of(text),
        peer: None,
        broadcast: None,
        scope: Scope::UNIVERSE,
        flags: AddressFlags::PERMANENT,
        label: None,
        preferred_lifetime_s: None,
        valid_lifetime_s: None,
    };
    ["10.0.0.1/24", "2001:db8::1/64", "fe80::1/64"].map(of_link).to_vec()
}

fn links() -> impl Strategy<Value = Vec<Link>> {
    let kinds = vec![
        LinkKind::Wifi,
        LinkKind::Tun,
        LinkKind::Wireguard,
        LinkKind::Dummy,
        LinkKind::Veth,
        LinkKind::Macvlan,
    ];
    let state = || prop_oneof![20 => Just(0b11), 1 => Just(0b01), 1 => Just(0b00)];
    let one = (mostly(LinkKind::Ethernet, kinds), state(), weighted(0.2, 0..2u32), 0..3u32);
    let vrf = weighted(0.25, Just(()));
    let bridge = weighted(0.3, state());
    let lo = prop_oneof![20 => Just(0b11), 1 => Just(0b00)];
    (vec(one, OTHER_LINKS as usize), vrf, bridge, lo).prop_map(|(others, vrf, bridge, lo)| {
        let masters = [vrf.map(|()| Ifindex(6)), bridge.map(|_| Ifindex(7))];
        let mut links = vec![link(1, "lo", LinkKind::Loopback, lo)];
        let names = ["eth0", "eth1", "eth2", "eth3"];
        for (number, (kind, state, master, group)) in others.into_iter().enumerate() {
            let mut made = link(2 + number as u32, names[number], kind, state);
            made.master = master.and_then(|which| masters[which as usize]);
            made.group = group;
            links.push(made);
        }
        links.extend(vrf.map(|()| Link {
            vrf_table: Some(TableId(10)),
            ..link(6, "vrf0", LinkKind::Vrf, 0b11)
        }));
        links.extend(bridge.map(|state| link(7, "br0", LinkKind::Bridge, state)));
        links
    })
}

fn link(index: u32, name: &str, kind: LinkKind, state: u32) -> Link {
    let of_kind = match kind {
        LinkKind::Loopback => LinkFlags::LOOPBACK.0,
        LinkKind::Tun | LinkKind::Wireguard => LinkFlags::POINT_TO_POINT.0 | LinkFlags::NO_ARP.0,
        LinkKind::Vrf | LinkKind::Dummy => LinkFlags::NO_ARP.0,
        _ => LinkFlags::BROADCAST.0 | LinkFlags::MULTICAST.0,
    };
    let up = if state & 1 == 0 { 0 } else { LinkFlags::UP.0 };
    let carrier = if state & 2 == 0 { 0 } else { LinkFlags::LOWER_UP.0 };
    Link {
        ifindex: Ifindex(index),
        name: name.to_owned(),
        kind,
        flags: LinkFlags(up | carrier | of_kind),
        operstate: OperState::Unknown,
        mtu: 1500,
        group: 0,
        mac: None,
        master: None,
        lower: None,
        lower_nsid: None,
        vrf_table: None,
        physical: None,
        wireless: None,
    }
}

fn address() -> impl Strategy<Value = Address> {
    let flags = vec![
        AddressFlags::TENTATIVE,
        AddressFlags::DEPRECATED,
        AddressFlags::TEMPORARY_OR_SECONDARY,
        AddressFlags(AddressFlags::TENTATIVE.0 | AddressFlags::OPTIMISTIC.0),
        AddressFlags(AddressFlags::TENTATIVE.0 | AddressFlags::DAD_FAILED.0),
    ];
    let scope = mostly(Scope::UNIVERSE, vec![Scope::LINK, Scope::HOST]);
    let flags = mostly(AddressFlags::PERMANENT, flags);
    let peer = weighted(0.05, select(pool::ADDRESSES.to_vec()));
    (any_link(), select(pool::LINK_ADDRESSES.to_vec()), flags, scope, peer).prop_map(
        |(ifindex, text, flags, scope, peer)| {
            let prefix = prefix_of(text);
            let family = prefix.family();
            let peer = peer.map(address_of).filter(|peer| Family::of(*peer) == family);
            Address {
                ifindex,
                prefix,
                peer: peer.filter(|_| family == Family::Ipv4),
                broadcast: None,
                scope: if prefix.address().is_loopback() { Scope::HOST } else { scope },
                flags,
                label: None,
                preferred_lifetime_s: None,
                valid_lifetime_s: None,
            }
        },
    )
}

fn nexthop() -> impl Strategy<Value = NextHop> {
    let flags = mostly(
        NextHopFlags::default(),
        vec![NextHopFlags::DEAD, NextHopFlags::LINK_DOWN, NextHopFlags::ON_LINK],
    );
    let gateway = weighted(0.4, select(pool::GATEWAYS.to_vec()));
    (any_link(), gateway, flags).prop_map(|(ifindex, gateway, flags)| NextHop {
        ifindex: Some(ifindex),
        gateway: gateway.map(address_of),
        weight: 1,
        flags,
        encapsulated: false,
    })
}

fn table() -> impl Strategy<Value = TableId> {
    let others = vec![TableId::LOCAL, TableId::DEFAULT, TableId(10), TableId(100), TableId(101)];
    prop_oneof![3 => Just(TableId::MAIN), 4 => select(others)]
}

fn route() -> impl Strategy<Value = Route> {
    let kinds = vec![
        RouteType::Local,
        RouteType::Local,
        RouteType::Broadcast,
        RouteType::Anycast,
        RouteType::Blackhole,
        RouteType::Unreachable,
        RouteType::Prohibit,
        RouteType::Throw,
        RouteType::Multicast,
    ];
    let what = (
        table(),
        prop_oneof![3 => Just(RouteType::Unicast), 4 => select(kinds)],
        select(pool::PREFIXES.to_vec()),
        weighted(0.25, select(pool::PREFIXES.to_vec())),
        mostly(0, vec![8]),
    );
    let how = (
        mostly(RouteProtocol::BOOT, vec![RouteProtocol::KERNEL]),
        select(vec![0, 0, 100, 200]),
        weighted(0.15, select(pool::ADDRESSES.to_vec())),
        weighted(0.2, select(vec![0, 1, 3])),
        vec(nexthop(), 1..4),
        mostly(None, vec![Some(1)]),
        weighted(0.04, Just(7)),
    );
    (what, how).prop_map(|((table, kind, to, from, tos), how)| {
        let (protocol, metric, preferred, preference, mut nexthops, nexthop_id, realm) = how;
        let destination = prefix_of(to).network();
        let family = destination.family();
        let of_family = |address| Family::of(address) == family;
        let leads = !matches!(
            kind,
            RouteType::Blackhole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw
        );
        let has_gateway = kind == RouteType::Unicast;
        nexthops.truncate(if has_gateway { 3 } else { usize::from(leads) });
        for nexthop in &mut nexthops {
            nexthop.gateway = nexthop.gateway.filter(|gateway| has_gateway && of_family(*gateway));
        }
        let gatewayed = nexthops.iter().any(|nexthop| nexthop.gateway.is_some());
        // IPv6 knows no broadcast, and routes of groups are for groups.
        let kind = match (family, kind) {
            (Family::Ipv6, RouteType::Broadcast | RouteType::Multicast) => RouteType::Unicast,
            (Family::Ipv4 | Family::Ipv6, kind) => kind,
        };
        let source = from.map(|from| prefix_of(from).network());
        let preference = preference.filter(|_| family == Family::Ipv6);
        Route {
            table,
            kind,
            destination,
            source: source.filter(|from| family == Family::Ipv6 && from.family() == family),
            tos: if family == Family::Ipv4 { tos } else { 0 },
            scope: match kind {
                RouteType::Local => Scope::HOST,
                _ if gatewayed || family == Family::Ipv6 => Scope::UNIVERSE,
                _ => Scope::LINK,
            },
            protocol,
            metric,
            preferred_source: preferred.map(address_of).filter(|address| of_family(*address)),
            preference,
            flags: 0,
            nexthop_id: nexthop_id.filter(|_| has_gateway),
            nexthops,
            realm: realm.filter(|_| family == Family::Ipv4),
        }
    })
}

fn rule() -> impl Strategy<Value = PolicyRule> {
    let names = ["lo", "eth0", "eth1", "vrf0", "absent"].map(str::to_owned).to_vec();
    let actions = vec![
        PolicyAction::Lookup(TableId::MAIN),
        PolicyAction::Lookup(TableId::LOCAL),
        PolicyAction::Goto(32766),
        PolicyAction::Goto(200),
        PolicyAction::Goto(5),
        PolicyAction::Nop,
        PolicyAction::Blackhole,
        PolicyAction::Unreachable,
        PolicyAction::Prohibit,
    ];
    let tables = vec![TableId(10), TableId(100), TableId(101), TableId(77)];
    let action = prop_oneof![
        12 => select(tables).prop_map(PolicyAction::Lookup),
        9 => select(actions),
        1 => Just(PolicyAction::Other(99)),
    ];
    let ports = || select(vec![(80, 80), (81, 90), (1, 1023), (40000, 50000)]);
    let selectors = (
        weighted(0.25, select(pool::PREFIXES.to_vec())),
        weighted(0.25, select(pool::PREFIXES.to_vec())),
        weighted(0.2, select(names.clone())),
        weighted(0.1, select(names)),
        weighted(0.15, select(vec![(7, 0xff), (0, 0xff), (1, 1)])),
        weighted(0.15, select(vec![(0, 0), (1000, 2000), (0, 1000), (5, 10)])),
        weighted(0.15, select(vec![6, 17, 1, 0])),
        weighted(0.1, ports()),
        weighted(0.1, ports()),
    );
    let rest = (
        select(Family::BOTH.to_vec()),
        select(vec![0, 1, 10, 100, 200, 1000, 32766, 40000]),
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.1),
        weighted(0.2, select(vec![0, 8, 24, 32, 128])),
        weighted(0.1, 0..3u32),
        (mostly(0, vec![8]), weighted(0.05, select(vec![0, 5])), weighted(0.05, 0..2u64)),
        prop_oneof![25 => Just(Vec::new()), 1 => Just(vec![99])],
    );
    (selectors, action, rest).prop_map(|(selectors, action, rest)| {
        let (from, to, iif, oif, mark, uid_range, ip_protocol, source_ports, destination_ports) =
            selectors;
        let (family, priority, invert, l3mdev, length, group, odd, unrecognized) = rest;
        let of_family =
            |text: &str| Some(prefix_of(text).network()).filter(|of| of.family() == family);
        let (mark, mark_mask) = mark.unwrap_or((0, 0));
        PolicyRule {
            family,
            priority,
            invert,
            source: from.and_then(of_family),
            destination: to.and_then(of_family),
            tos: odd.0,
            dscp: odd.1,
            iif,
            oif,
            mark,
            mark_mask,
            tunnel_id: odd.2,
            l3mdev,
            uid_range,
            ip_protocol,
            source_ports,
            destination_ports,
            action,
            suppress_prefix_length: length,
            suppress_ifgroup: group,
            realm: None,
            unrecognized,
        }
    })
}

fn sysctls() -> impl Strategy<Value = canreach_snapshot::Sysctls> {
    let scopes = ["all", "lo", "eth0", "eth1", "eth2", "vrf0", "br0"].map(str::to_owned).to_vec();
    let one = (select(scopes), select(LinkSysctl::ALL.to_vec()), select(vec![0, 1, 2, 3, 8]));
    let global = (select(GlobalSysctl::ALL.to_vec()), 0..2i64);
    (vec(one, 0..8), vec(global, 0..3)).prop_map(|(links, global)| {
        let mut sysctls = canreach_snapshot::Sysctls::default();
        for (scope, sysctl, value) in links {
            if scope == "all" {
                sysctls.all.insert(sysctl, value);
            } else {
                sysctls.links.entry(scope).or_default().insert(sysctl, value);
            }
        }
        sysctls.global.extend(global);
        sysctls
    })
}

fn socket() -> impl Strategy<Value = Socket> {
    let what = (
        select(vec![Proto::Tcp, Proto::Udp]),
        select(pool::BIND_ADDRESSES.to_vec()),
        mostly(80, vec![81]),
        weighted(0.3, any_link()),
        any::<bool>(),
        any::<bool>(),
    );
    let how = (
        weighted(0.25, (select(pool::ADDRESSES.to_vec()), select(vec![0, 1, 40000]))),
        weighted(0.8, select(vec![0, 7, 1])),
        weighted(0.8, prop::bool::weighted(0.2)),
        select(vec![0, 1000]),
        weighted(0.7, select(vec![1, 2])),
        weighted(0.3, (0..3u32, 0..3u32)),
    );
    (what, how).prop_map(|((proto, text, port, device, wide, v6only), how)| {
        let (peer, mark, transparent, uid, cgroup, backlog) = how;
        let address = address_of(text);
        // `0.0.0.0` may also be what an AF_INET6 socket was bound to, written as a mapped address.
        let family = Family::of(address);
        let is_v6 = family == Family::Ipv6;
        let mapped = matches!(address.to_canonical(), std::net::IpAddr::V4(_));
        let wildcard = address.is_unspecified();
        let peer = peer.map(|(peer, port)| (address_of(peer), Port(port))).filter(|(peer, _)| {
            let same = Family::of(*peer) == Family::of(address.to_canonical());
            proto == Proto::Udp && same && !wildcard && !peer.is_unspecified()
        });
        Socket {
            proto,
            mptcp: false,
            family,
            state: match (proto, peer) {
                (Proto::Tcp, _) => SocketState::Listen,
                (Proto::Udp, None) => SocketState::Unconnected,
                (Proto::Udp, Some(_)) => SocketState::Connected,
            },
            address,
            port: Port(port),
            peer,
            device,
            v6only: (is_v6 && (wide || !wildcard)).then_some(if wildcard {
                v6only
            } else {
                !mapped
            }),
            mark: mark.map(Mark),
            transparent,
            freebind: None,
            uid,
            inode: 1,
            cookie: Cookie(1),
            cgroup: cgroup.map(CgroupId),
            backlog: backlog
                .filter(|_| proto == Proto::Tcp)
                .map(|(used, limit)| Backlog { used, limit }),
        }
    })
}

fn neighbor() -> impl Strategy<Value = Neighbor> {
    (any_link(), select(pool::ADDRESSES.to_vec()), any::<bool>()).prop_map(
        |(ifindex, address, proxy)| Neighbor {
            ifindex,
            address: address_of(address),
            mac: None,
            state: NudState::Stale,
            router: false,
            proxy,
        },
    )
}

/// Mostly none: what cannot be judged hides everything behind it.
fn filters() -> impl Strategy<Value = (Vec<HookedChain>, Vec<LegacyTable>, bool)> {
    let families = [
        NfFamily::Inet,
        NfFamily::Ip,
        NfFamily::Ip6,
        NfFamily::Arp,
        NfFamily::Bridge,
        NfFamily::Netdev,
    ];
    let hooks = [
        NfHook::Ingress,
        NfHook::Egress,
        NfHook::Prerouting,
        NfHook::Input,
        NfHook::Forward,
        NfHook::Output,
        NfHook::Postrouting,
    ];
    let chain = (select(families.to_vec()), select(hooks.to_vec()), any_link(), 0..3u32).prop_map(
        |(family, hook, device, rules)| {
            let by_link = matches!(hook, NfHook::Ingress | NfHook::Egress);
            let names = ["lo", "eth0", "eth1", "eth2", "eth3", "vrf0", "br0"];
            let name = names[device.0 as usize - 1].to_owned();
            HookedChain {
                family: match family {
                    NfFamily::Ip | NfFamily::Ip6 | NfFamily::Bridge | NfFamily::Arp if by_link => {
                        NfFamily::Netdev
                    }
                    NfFamily::Netdev if !by_link => NfFamily::Inet,
                    family => family,
                },
                table: "t".to_owned(),
                name: "c".to_owned(),
                handle: 1,
                hook,
                priority: 0,
                kind: ChainKind::Filter,
                policy: if rules == 2 { ChainPolicy::Drop } else { ChainPolicy::Accept },
                devices: if by_link { vec![name] } else { Vec::new() },
                rules: rules % 2,
            }
        },
    );
    let names = ["raw", "mangle", "nat", "filter", "security"].map(str::to_owned).to_vec();
    let table = (
        select(vec![NfFamily::Ip, NfFamily::Ip6]),
        select(names),
        select(vec![None, Some(true), Some(false)]),
    )
        .prop_map(|(family, name, idle)| LegacyTable { family, name, idle });
    let chains = prop_oneof![7 => Just(Vec::new()), 1 => vec(chain, 1..3)];
    let tables = prop_oneof![14 => Just(Vec::new()), 1 => vec(table, 1..3)];
    (chains, tables, any::<bool>())
}

fn bpf() -> impl Strategy<Value = Vec<BpfAttachment>> {
    let point = prop_oneof![
        any_link().prop_map(AttachPoint::Xdp),
        any_link().prop_map(AttachPoint::TcIngress),
        any_link().prop_map(AttachPoint::TcEgress),
        (1..3u64).prop_map(|id| AttachPoint::CgroupIngress(CgroupId(id))),
        (1..3u64).prop_map(|id| AttachPoint::CgroupEgress(CgroupId(id))),
        Just(AttachPoint::CgroupConnect(CgroupId(1))),
        Just(AttachPoint::SkLookup),
        select(vec![NfHook::Prerouting, NfHook::Input, NfHook::Output, NfHook::Forward])
            .prop_map(AttachPoint::Netfilter),
    ];
    let one = point.prop_map(|point| BpfAttachment { point, program_id: Some(1), name: None });
    prop_oneof![14 => Just(Vec::new()), 1 => vec(one, 1..3)]
}

fn gaps() -> impl Strategy<Value = Vec<Gap>> {
    let mut subjects = vec![
        GapSubject::Links,
        GapSubject::Nexthops,
        GapSubject::Neighbors,
        GapSubject::SocketMarks,
        GapSubject::SocketMarks,
        GapSubject::Owners,
        GapSubject::FibLayout,
        GapSubject::NftRuleset,
        GapSubject::Xdp,
        GapSubject::Tc,
        GapSubject::CgroupBpf,
        GapSubject::SkLookup,
        GapSubject::NetfilterBpf,
    ];
    for family in Family::BOTH {
        subjects.extend([
            GapSubject::Addresses(family),
            GapSubject::Routes(family),
            GapSubject::PolicyRules(family),
            GapSubject::LegacyTables(family),
        ]);
        for proto in [Proto::Tcp, Proto::Udp] {
            subjects.push(GapSubject::Sockets(proto, family));
            subjects.push(GapSubject::SocketDetails(proto, family));
        }
    }
    let sysctls = [
        "net.ipv4.conf.eth0.rp_filter",
        "net.ipv4.conf.all.accept_local",
        "net.ipv4.conf.eth0.forwarding",
        "net.ipv4.conf.eth0.arp_ignore",
        "net.ipv4.conf.all.arp_filter",
        "net.ipv4.conf.all.route_localnet",
        "net.ipv6.conf.eth0.disable_ipv6",
        "net.ipv6.conf.all.forwarding",
        "net.ipv4.tcp_l3mdev_accept",
        "net.ipv4.conf.eth1.ignore_routes_with_linkdown",
    ];
    subjects.extend(sysctls.map(|name| GapSubject::Sysctl(name.to_owned())));
    let reasons = vec![GapReason::NeedsRoot, GapReason::ChangedWhileReading, GapReason::Failed];
    let one = (select(subjects), select(reasons)).prop_map(|(subject, reason)| Gap {
        subject,
        reason,
        detail: String::new(),
    });
    prop_oneof![9 => Just(Vec::new()), 1 => vec(one, 1..3)]
}

/// A question whose destination may be "an address of this host", which only then is known.
#[derive(Debug, Clone)]
struct Plan {
    proto: Proto,
    port: u16,
    to: Result<usize, &'static str>,
    from: Vec<&'static str>,
    via: Arrival,
}

impl Plan {
    fn ask(self, netns: &Netns) -> Question {
        let own = |index: usize| netns.addresses[index % netns.addresses.len()].address();
        let to = self.to.map_or_else(address_of, own);
        let family = Family::of(to);
        let some = AddressSet::from_prefixes(family, self.from.into_iter().map(prefix_of));
        let from = if some.is_empty() { AddressSet::all(family) } else { some };
        Question { proto: self.proto, port: Port(self.port), from, to, via: self.via }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    // Nothing comes in by a VRF itself.
    let links = select(vec![2, 2, 2, 2, 2, 3, 3, 4, 5, 7, 9]);
    let via = prop_oneof![
        7 => links.prop_map(|index| Arrival::Link(Ifindex(index))),
        2 => select(vec![0, 1000]).prop_map(|uid| Arrival::Local { uid }),
    ];
    let from = prop_oneof![
        2 => Just(Vec::new()),
        1 => vec(select(pool::PREFIXES.to_vec()), 1..3),
    ];
    let to = prop_oneof![
        3 => (2..9usize).prop_map(Ok),
        2 => select(pool::ADDRESSES.to_vec()).prop_map(Err),
    ];
    let proto = select(vec![Proto::Tcp, Proto::Udp]);
    (proto, mostly(80, vec![81, 79]), to, from, via).prop_map(|(proto, port, to, from, via)| Plan {
        proto,
        port,
        to,
        from,
        via,
    })
}

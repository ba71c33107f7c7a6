//! What the pages of `explain` say about this machine: short texts, by the names the pages use.
//!
//! Kernel counterpart: none; everything is read off a snapshot. Left out: conclusions. A page
//! explains an idea, and only quotes what is there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use canreach_engine::address_choice::choose;
use canreach_engine::link_role::{LinkRole, is_public, link_roles};
use canreach_snapshot::{
    Address, AttachPoint, Combinator, Family, FibLayout, Ifindex, Link, LinkKind, LinkSysctl,
    Netns, Prefix, Proto, RouteType, Scope, Snapshot, Socket, SocketState, TableId, Virtualization,
};

/// Texts by name. A name without a value makes a page use its general example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    values: BTreeMap<&'static str, String>,
}

/// Every name a page may use in braces.
pub const NAMES: &[&str] = &[
    "backlog",
    "bond_link",
    "bpf_program",
    "bridge_link",
    "container_address",
    "container_link",
    "default_link",
    "device_listener",
    "down_link",
    "dual_stack_listener",
    "fib_layout",
    "firewall",
    "forwarding",
    "gateway",
    "ipv4_wildcard_listener",
    "kernel",
    "lan_address",
    "lan_host",
    "lan_kind",
    "lan_link",
    "lan_network",
    "lan_private",
    "link_local",
    "links",
    "listener",
    "listener_port",
    "loopback_listener",
    "loopback_port",
    "macvlan_link",
    "multicast_listener",
    "netns",
    "network_ipv6",
    "policy_rules",
    "private_address",
    "public_address",
    "reader",
    "rp_filter",
    "socket_unit",
    "specific_listener",
    "temporary_ipv6",
    "udp_listener",
    "v6only_listener",
    "veth_link",
    "virtualization",
    "vlan_link",
    "vpn_address",
    "vpn_link",
    "vrf_link",
    "wildcard_listener",
    "wildcard_port",
];

impl Facts {
    /// What a snapshot tells about the namespace it is about.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut facts = Self::default();
        facts.set("kernel", present(&snapshot.machine.kernel_release));
        facts.set("virtualization", snapshot.machine.virtualization.map(virtualization));
        let reader =
            if snapshot.machine.privileged { "with root's rights" } else { "without root" };
        facts.set("reader", Some(reader.to_owned()));
        if let Some(netns) = snapshot.subject() {
            let choice = choose(netns, &snapshot.machine);
            let best = choice.best().and_then(|judged| netns.addresses.get(judged.index));
            if let Some(address) = best {
                facts.read_lan(netns, address);
            }
            facts.read_links(netns);
            facts.read_addresses(netns);
            facts.read_routing(netns, best.map(|address| address.ifindex));
            facts.read_sockets(snapshot, netns);
            facts.read_filters(netns);
        }
        facts
    }

    /// The text of a name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Sets one text, or leaves it without a value. Unknown names are ignored.
    pub fn set(&mut self, name: &str, value: Option<String>) {
        let known = NAMES.iter().find(|known| **known == name);
        if let (Some(known), Some(value)) = (known, value) {
            self.values.insert(known, printable(&value));
        }
    }

    fn read_lan(&mut self, netns: &Netns, handed_out: &Address) {
        let Some(link) = netns.link(handed_out.ifindex) else { return };
        let address = handed_out.address();
        self.set("lan_address", Some(address.to_string()));
        self.set("lan_host", Some(host(address)));
        self.set("lan_private", (!is_public(address)).then(|| address.to_string()));
        self.set("lan_link", Some(link.name.clone()));
        let kind = match link.kind {
            LinkKind::Wifi => "Wi-Fi",
            LinkKind::Ethernet => "Ethernet",
            LinkKind::Bridge => "a bridge",
            LinkKind::Veth => "one end of a virtual cable",
            _ => "a network interface",
        };
        self.set("lan_kind", Some(kind.to_owned()));
        self.set("lan_network", Some(handed_out.prefix.network().to_string()));
    }

    fn read_links(&mut self, netns: &Netns) {
        let names: Vec<&str> = netns.links.iter().map(|link| link.name.as_str()).collect();
        const MOST: usize = 6;
        let mut text = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
        if names.len() > MOST {
            text.push_str(&format!(" and {} more", names.len() - MOST));
        }
        self.set("links", present(&text));
        let first = |wanted: &dyn Fn(&Link) -> bool| {
            netns.links.iter().find(|link| wanted(link)).map(|link| link.name.clone())
        };
        self.set("down_link", first(&|link| !link.is_up() || !link.has_carrier()));
        self.set("bridge_link", first(&|link| link.kind == LinkKind::Bridge));
        self.set("veth_link", first(&|link| link.kind == LinkKind::Veth));
        self.set("vrf_link", first(&|link| link.kind == LinkKind::Vrf));
        self.set("vlan_link", first(&|link| link.kind == LinkKind::Vlan));
        self.set("bond_link", first(&|link| matches!(link.kind, LinkKind::Bond | LinkKind::Team)));
        self.set(
            "macvlan_link",
            first(&|link| matches!(link.kind, LinkKind::Macvlan | LinkKind::Ipvlan)),
        );
    }

    fn read_addresses(&mut self, netns: &Netns) {
        // The two names of a pair stay together: an address, and the link it is on.
        let roles = link_roles(netns);
        let on = |wanted: LinkRole| {
            netns.addresses.iter().find_map(|entry| {
                let position = netns.links.iter().position(|link| link.ifindex == entry.ifindex)?;
                let usable = roles.get(position) == Some(&wanted) && entry.scope == Scope::UNIVERSE;
                usable.then(|| (entry.address().to_string(), netns.links[position].name.clone()))
            })
        };
        let (address, link) = on(LinkRole::Vpn).unzip();
        self.set("vpn_address", address);
        self.set("vpn_link", link);
        let (address, link) = on(LinkRole::Containers).unzip();
        self.set("container_address", address);
        self.set("container_link", link);
        let global = || {
            netns.addresses.iter().filter(|entry| {
                entry.scope == Scope::UNIVERSE
                    && !netns.link(entry.ifindex).is_some_and(Link::is_loopback)
            })
        };
        let ipv6 = |entry: &&Address| entry.prefix.family() == Family::Ipv6;
        let text = |entry: &Address| entry.address().to_string();
        self.set(
            "network_ipv6",
            global().filter(ipv6).find(|entry| !entry.is_temporary()).map(text),
        );
        self.set("temporary_ipv6", global().filter(ipv6).find(|e| e.is_temporary()).map(text));
        self.set("private_address", global().find(|e| !is_public(e.address())).map(text));
        self.set("public_address", global().find(|e| is_public(e.address())).map(text));
        let link_local = netns
            .addresses
            .iter()
            .filter(ipv6)
            .find(|entry| entry.scope == Scope::LINK)
            .and_then(|entry| Some((entry.address(), netns.link(entry.ifindex)?)));
        self.set(
            "link_local",
            link_local.map(|(address, link)| format!("{address}%{}", link.name)),
        );
    }

    fn read_routing(&mut self, netns: &Netns, lan: Option<Ifindex>) {
        let default = netns.routes.iter().find(|route| {
            route.destination == Prefix::all(Family::Ipv4)
                && route.table == TableId::MAIN
                && route.kind == RouteType::Unicast
        });
        if let Some(hop) = default.and_then(|route| route.nexthops.first()) {
            self.set("gateway", hop.gateway.map(|gateway| gateway.to_string()));
            let link = hop.ifindex.and_then(|ifindex| netns.link(ifindex));
            self.set("default_link", link.map(|link| link.name.clone()));
        }
        if let Some(link) = lan.and_then(|ifindex| netns.link(ifindex)) {
            let rp_filter = effective(netns, LinkSysctl::RpFilter, &link.name);
            self.set("rp_filter", rp_filter.map(rp_filter_words));
            let forwarding = effective(netns, LinkSysctl::Forwarding, &link.name);
            let words = |value| if value == 0 { "off" } else { "on" }.to_owned();
            self.set("forwarding", forwarding.map(words));
        }
        let layout = match netns.fib_layout {
            FibLayout::Merged => Some("searched as one"),
            FibLayout::Split => Some("searched one after the other"),
            FibLayout::Unknown => None,
        };
        self.set("fib_layout", layout.map(str::to_owned));
        let own = |rule: &&canreach_snapshot::PolicyRule| {
            !matches!(rule.priority, 0 | 32766 | 32767) && !rule.l3mdev
        };
        let count = netns.policy_rules.iter().filter(own).count();
        let noun = if count == 1 { "rule" } else { "rules" };
        self.set("policy_rules", (count > 0).then(|| format!("{count} policy {noun}")));
        let name = netns
            .name
            .clone()
            .or_else(|| (netns.id.0 != 0).then(|| format!("net:[{}]", netns.id.0)));
        self.set("netns", name);
    }

    fn read_sockets(&mut self, snapshot: &Snapshot, netns: &Netns) {
        let clause = |socket: &Socket| listens(snapshot, netns, socket);
        // A server with a name makes the better example.
        let is_known =
            |s: &&Socket| netns.owner(s.inode).is_some_and(|owner| !owner.holders.is_empty());
        let tcp = |wanted: &dyn Fn(&Socket) -> bool| {
            let found = || {
                let sockets = netns.sockets.iter();
                sockets.filter(|s| s.state == SocketState::Listen && wanted(s))
            };
            found().find(is_known).or_else(|| found().next())
        };
        let specific = |s: &Socket| !s.is_wildcard() && !s.address.is_loopback();
        let wildcard = |s: &Socket, family| s.is_wildcard() && s.family == family;
        let listener = tcp(&|_| true);
        self.set("listener", listener.map(clause));
        self.set("listener_port", listener.map(|s| s.port.to_string()));
        let loopback = tcp(&|s| s.address.is_loopback());
        self.set("loopback_listener", loopback.map(clause));
        self.set("loopback_port", loopback.map(|s| s.port.to_string()));
        let any = tcp(&|s| s.is_wildcard() && s.v6only != Some(true) && s.device.is_none());
        self.set("wildcard_listener", any.map(clause));
        self.set("wildcard_port", any.map(|s| s.port.to_string()));
        self.set("ipv4_wildcard_listener", tcp(&|s| wildcard(s, Family::Ipv4)).map(clause));
        let dual = |s: &Socket| wildcard(s, Family::Ipv6) && s.v6only == Some(false);
        self.set("dual_stack_listener", tcp(&dual).map(clause));
        let v6only = |s: &Socket| wildcard(s, Family::Ipv6) && s.v6only == Some(true);
        self.set("v6only_listener", tcp(&v6only).map(clause));
        self.set("specific_listener", tcp(&specific).map(clause));
        self.set(
            "device_listener",
            tcp(&|s| s.device.is_some()).map(|s| {
                let link = s.device.and_then(|ifindex| netns.link(ifindex));
                format!(
                    "{} on {}",
                    clause(s),
                    link.map_or("a lost link", |link| link.name.as_str())
                )
            }),
        );
        let udp = |s: &&Socket| s.proto == Proto::Udp && s.state == SocketState::Unconnected;
        self.set("udp_listener", netns.sockets.iter().find(udp).map(clause));
        let multicast = |s: &&Socket| udp(s) && matches!(s.port.0, 1900 | 5353 | 5355);
        self.set("multicast_listener", netns.sockets.iter().find(multicast).map(clause));
        let queue = listener.and_then(|s| Some((s, s.backlog?)));
        self.set(
            "backlog",
            queue.map(|(s, queue)| {
                let program = program(snapshot, netns, s);
                format!(
                    "{program} on port {} has {} of {} waiting",
                    s.port, queue.used, queue.limit
                )
            }),
        );
        let mut units = snapshot.cgroups.iter().filter_map(|cgroup| cgroup.unit.as_ref());
        self.set(
            "socket_unit",
            units.find(|u| u.name.ends_with(".socket")).map(|u| u.name.clone()),
        );
    }

    fn read_filters(&mut self, netns: &Netns) {
        let hint = netns.firewall.hints.iter().find(|hint| {
            hint.enabled == Some(true) && crate::report::firewall::is_firewall(&hint.program)
        });
        let busy = netns.firewall.chains.iter().filter(|chain| !chain.is_idle()).count();
        let legacy = netns.firewall.legacy_tables.iter().filter(|t| t.idle != Some(true)).count();
        let noun = |count, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let text = match (hint, busy, legacy) {
            (Some(hint), _, _) => Some(format!("{} is on ({})", hint.program, hint.source)),
            (None, 0, 0) => None,
            (None, 0, legacy) => Some(format!("{} of iptables with rules", noun(legacy, "table"))),
            (None, busy, _) => Some(format!("{} of nftables with rules", noun(busy, "chain"))),
        };
        self.set("firewall", text);
        let program = netns.bpf.first().map(|attachment| {
            let link = |ifindex| netns.link(ifindex).map_or("?", |link: &Link| link.name.as_str());
            match attachment.point {
                AttachPoint::Xdp(ifindex) => format!("an XDP program on {}", link(ifindex)),
                AttachPoint::TcIngress(ifindex) | AttachPoint::TcEgress(ifindex) => {
                    format!("a tc program on {}", link(ifindex))
                }
                AttachPoint::CgroupIngress(_)
                | AttachPoint::CgroupEgress(_)
                | AttachPoint::CgroupConnect(_) => "a program on a control group".to_owned(),
                AttachPoint::SkLookup => "a program that chooses sockets (sk_lookup)".to_owned(),
                AttachPoint::Netfilter(_) => "a program at a netfilter hook".to_owned(),
            }
        });
        self.set("bpf_program", program);
    }
}

/// `node listens on 127.0.0.1:3000`.
fn listens(snapshot: &Snapshot, netns: &Netns, socket: &Socket) -> String {
    let address = format!("{}:{}", host(socket.address), socket.port);
    let suffix = if socket.proto == Proto::Udp { " (UDP)" } else { "" };
    format!("{} listens on {address}{suffix}", program(snapshot, netns, socket))
}

/// The name of the program behind a socket, as far as the snapshot tells.
fn program(snapshot: &Snapshot, netns: &Netns, socket: &Socket) -> String {
    let holder = netns.owner(socket.inode).and_then(|owner| owner.holders.first());
    let process = holder.and_then(|pid| snapshot.process(*pid));
    let unit = || Some(snapshot.cgroup(socket.cgroup?)?.unit.as_ref()?.name.clone());
    process
        .map(|process| process.comm.clone())
        .or_else(unit)
        .unwrap_or_else(|| "a program".to_owned())
}

/// The value of a sysctl that counts on a link.
fn effective(netns: &Netns, sysctl: LinkSysctl, link: &str) -> Option<i64> {
    let own = netns.sysctls.of_link(sysctl, link)?;
    let all = netns.sysctls.all.get(&sysctl).copied();
    Some(match sysctl.combinator() {
        Combinator::Link => own,
        Combinator::Max => own.max(all?),
        Combinator::Or => i64::from(own != 0 || all? != 0),
        Combinator::And => i64::from(own != 0 && all? != 0),
    })
}

fn rp_filter_words(value: i64) -> String {
    match value {
        0 => "off (0)",
        1 => "strict (1)",
        _ => "loose (2)",
    }
    .to_owned()
}

fn virtualization(kind: Virtualization) -> String {
    match kind {
        Virtualization::Wsl1 => "Windows Subsystem for Linux, version 1",
        Virtualization::Wsl2 => "Windows Subsystem for Linux, version 2",
        Virtualization::Container => "a container",
        Virtualization::VirtualMachine => "a virtual machine",
    }
    .to_owned()
}

/// An address as it stands in a URL.
fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn present(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Names come from processes and files: control characters become question marks, and blanks
/// cannot break a line where a name ends.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use canreach_snapshot::{
        AddressFlags, Backlog, CgroupId, Cookie, LinkFlags, Machine, OperState, Owner, Pid, Port,
        Process, ResolvedBy,
    };

    use super::*;

    fn link(ifindex: u32, name: &str, kind: LinkKind, flags: u32) -> Link {
        Link {
            ifindex: Ifindex(ifindex),
            name: name.to_owned(),
            physical: Some(matches!(kind, LinkKind::Ethernet | LinkKind::Wifi)),
            kind,
            flags: LinkFlags(flags),
            operstate: OperState::Up,
            mtu: 1500,
            group: 0,
            mac: None,
            master: None,
            lower: None,
            lower_nsid: None,
            vrf_table: None,
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

    fn listener(address: &str, port: u16, v6only: Option<bool>, inode: u64) -> Socket {
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
            v6only,
            mark: None,
            transparent: None,
            freebind: None,
            uid: 0,
            inode,
            cookie: Cookie(inode),
            cgroup: Some(CgroupId(1)),
            backlog: Some(Backlog { used: 0, limit: 128 }),
        }
    }

    fn snapshot() -> Snapshot {
        const UP: u32 = LinkFlags::UP.0 | LinkFlags::LOWER_UP.0;
        let mut netns = Netns {
            links: vec![
                link(1, "lo", LinkKind::Loopback, UP | LinkFlags::LOOPBACK.0),
                link(2, "eth0", LinkKind::Ethernet, UP),
                link(3, "docker0", LinkKind::Bridge, LinkFlags::UP.0),
                link(4, "wg0", LinkKind::Wireguard, UP | LinkFlags::POINT_TO_POINT.0),
            ],
            addresses: vec![
                address(1, "127.0.0.1/8", Scope::HOST),
                address(2, "192.168.1.20/24", Scope::UNIVERSE),
                address(2, "fe80::20/64", Scope::LINK),
                address(3, "172.17.0.1/16", Scope::UNIVERSE),
                address(4, "10.8.0.5/24", Scope::UNIVERSE),
            ],
            sockets: vec![listener("127.0.0.1", 3000, None, 7), listener("::", 22, Some(false), 8)],
            owners: vec![Owner {
                inode: 7,
                holders: vec![Pid(40)],
                resolved_by: ResolvedBy::Fd,
                reason: None,
            }],
            ..Netns::default()
        };
        netns.sysctls.all.insert(LinkSysctl::RpFilter, 2);
        netns.sysctls.links.insert("eth0".to_owned(), [(LinkSysctl::RpFilter, 1)].into());
        Snapshot {
            machine: Machine::default(),
            namespaces: vec![netns],
            processes: vec![Process {
                pid: Pid(40),
                parent: None,
                comm: "no\x1bde".to_owned(),
                cmdline: Vec::new(),
                cwd: None,
                uid: 1000,
                user: None,
                cgroup_path: None,
                started_at_ms: None,
            }],
            cgroups: Vec::new(),
            gaps: Vec::new(),
        }
    }

    #[test]
    fn facts_are_read_off_the_snapshot() {
        let facts = Facts::of(&snapshot());
        let check =
            |name: &str, value: Option<&str>| assert_eq!(facts.value(name), value, "{name}");
        check("lan_address", Some("192.168.1.20"));
        check("lan_network", Some("192.168.1.0/24"));
        check("lan_link", Some("eth0"));
        check("container_link", Some("docker0"));
        check("container_address", Some("172.17.0.1"));
        check("vpn_link", Some("wg0"));
        check("vpn_address", Some("10.8.0.5"));
        check("down_link", Some("docker0"));
        check("link_local", Some("fe80::20%eth0"));
        check("links", Some("lo, eth0, docker0, wg0"));
        // The larger of `all` and the link's own value counts.
        check("rp_filter", Some("loose (2)"));
        check("loopback_listener", Some("no?de listens on 127.0.0.1:3000"));
        check("dual_stack_listener", Some("a program listens on [::]:22"));
        check("ipv4_wildcard_listener", None);
        check("v6only_listener", None);
        check("backlog", Some("no?de on port 3000 has 0 of 128 waiting"));
        check("firewall", None);
        check("policy_rules", None);
        check("virtualization", None);
    }

    #[test]
    fn pages_take_the_machine_where_it_has_what_they_speak_of() {
        let facts = Facts::of(&snapshot());
        let page = |word| crate::topic::find(word).expect(word).render(&facts);
        assert!(page("loopback").contains("On this computer: no?de listens on 127.0.0.1:3000"));
        assert!(page("v6only").contains("For example: nginx"));
        assert!(page("v6only").ends_with("See also: dual-stack, ::, ipv6, refused\n"));
    }

    #[test]
    fn a_name_no_page_uses_is_not_kept() {
        let mut facts = Facts::default();
        facts.set("nonsense", Some("x".to_owned()));
        assert_eq!(facts, Facts::default());
    }
}

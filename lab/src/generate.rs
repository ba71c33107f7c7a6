//! Random hosts from a seed.
//!
//! Addresses come from a few small ranges, so that they meet: routes that cover addresses of other
//! links, sources that are on another link, servers that share a port. What the kernel refuses (a
//! second server on a taken address, a router that is not reachable) is simply left out when the
//! host is built.

use std::net::{IpAddr, SocketAddr};

use canreach_snapshot::{Family, PolicyAction, Prefix, Proto, RouteType, Scope, TableId};

use crate::generate_rules::add_rules;
use crate::random::Random;
use crate::route_step::{Hop, RouteStep};
use crate::rule_step::RuleStep;
use crate::server::ServerStep;
use crate::step::{AddressStep, LinkChange, LinkShape, Step};
use crate::wiring::Wiring;

/// Ports that servers use and clients dial.
pub(crate) const PORTS: [u16; 4] = [53, 80, 81, 8080];
/// Tables besides the usual ones.
const TABLES: [u32; 2] = [100, 101];

/// A host in the making.
struct Generator {
    random: Random,
    steps: Vec<Step>,
    /// Links with addresses of their own: those that questions are asked through.
    links: Vec<String>,
}

/// A random host.
#[must_use]
pub fn host(seed: u64) -> Vec<Step> {
    let mut generator =
        Generator { random: Random::new(seed), steps: Vec::new(), links: Vec::new() };
    generator.add_links();
    generator.add_addresses();
    generator.add_sysctls();
    generator.add_routes();
    generator.add_rules();
    generator.add_servers();
    generator.add_accidents();
    generator.remove_dead_ends();
    generator.steps
}

/// A random host with packet filters: those of [`host`], and rules.
#[must_use]
pub fn host_with_rules(seed: u64) -> Vec<Step> {
    let mut steps = host(seed);
    add_rules(seed, &mut steps);
    steps
}

/// The addresses that a line makes this machine's.
fn local_prefix(step: &Step) -> Option<Prefix> {
    match step {
        Step::Address(address) => Some(Prefix::host(address.prefix.address())),
        Step::Route(route) if route.kind == RouteType::Local => Some(route.destination),
        _ => None,
    }
}

/// The base of the addresses of a link: `10.0.0.0` and `fd00::` for the first, and so on.
pub(crate) fn base(family: Family, number: usize) -> u128 {
    match family {
        Family::Ipv4 => 0x0a00_0000 + ((number as u128) << 16),
        Family::Ipv6 => (0xfd00 + number as u128) << 112,
    }
}

/// A prefix of that length at that number.
pub(crate) fn prefix(family: Family, value: u128, length: u8) -> Prefix {
    Prefix::new(family.address(value), length).unwrap_or_else(|| Prefix::all(family))
}

impl Generator {
    fn add_links(&mut self) {
        let count = 1 + self.random.below(3);
        for number in 0..count {
            let name = format!("a{number}");
            if self.random.percent(15) {
                let bridge = format!("br{number}");
                self.steps.push(Step::Link { name: bridge.clone(), shape: LinkShape::Bridge });
                for port in 0..=self.random.below(2) {
                    let name = format!("p{number}{port}");
                    self.add_veth(&name);
                    let change = LinkChange::Master(bridge.clone());
                    self.steps.push(Step::Set { name, change });
                }
                self.links.push(bridge);
            } else {
                self.add_veth(&name);
                self.links.push(name);
            }
        }
        if self.random.percent(4) {
            // A VPN: whatever goes there does not come back.
            self.steps.push(Step::Link { name: "tun0".to_owned(), shape: LinkShape::Tun });
            for family in Family::BOTH {
                let address = prefix(family, base(family, 6) + 1, family.bits());
                self.steps.push(Step::Address(AddressStep::plain(address, "tun0")));
                let hop = Hop { gateway: None, link: Some("tun0".to_owned()) };
                let to = self.some_prefix(family);
                self.add_route(RouteType::Unicast, to, vec![hop]);
            }
        }
    }

    fn add_veth(&mut self, name: &str) {
        let shape = LinkShape::Veth { peer: format!("peer-{name}") };
        self.steps.push(Step::Link { name: name.to_owned(), shape });
    }

    fn add_addresses(&mut self) {
        for (number, link) in self.links.clone().iter().enumerate() {
            for family in Family::BOTH {
                let count = self.random.one_of([0, 1, 1, 1, 2]);
                for turn in 0..count {
                    let prefix = self.address(family, number, turn);
                    self.add_address(prefix, link);
                }
            }
        }
        for family in Family::BOTH {
            if self.random.percent(20) {
                let value = base(family, 7) + 1 + self.random.below(2) as u128;
                self.add_address(prefix(family, value, family.bits()), "lo");
            }
        }
    }

    /// An address of a link: in its own range, sometimes in another link's.
    fn address(&mut self, family: Family, number: usize, turn: usize) -> Prefix {
        let of = if self.random.percent(10) { self.random.below(3) } else { number };
        // Subnets of one link are apart, so that none lies inside another.
        let subnet = base(family, of) + ((turn as u128) << 8);
        let lengths = match family {
            Family::Ipv4 => [24, 24, 24, 25, 28, 30, 31, 32],
            Family::Ipv6 => [64, 64, 64, 120, 124, 126, 127, 128],
        };
        let length = self.random.one_of(lengths);
        prefix(family, subnet + 1 + self.random.below(2) as u128, length)
    }

    fn add_address(&mut self, prefix: Prefix, link: &str) {
        let mut address = AddressStep::plain(prefix, link);
        if prefix.family() == Family::Ipv4 && self.random.percent(6) {
            address.scope = Some(self.random.one_of([Scope::HOST, Scope::LINK]));
        }
        address.no_prefix_route = self.random.percent(4);
        self.steps.push(Step::Address(address));
    }

    fn add_sysctls(&mut self) {
        let mut sets: Vec<String> = self.links.clone();
        sets.push("all".to_owned());
        for set in &sets {
            for (name, chance, values) in [
                ("rp_filter", 30, &["1", "2", "1", "2"][..]),
                ("accept_local", 5, &["1"]),
                ("src_valid_mark", 5, &["1"]),
                ("route_localnet", 5, &["1"]),
                ("arp_ignore", 12, &["1", "2", "3", "8"]),
                ("arp_filter", 8, &["1"]),
                ("proxy_arp", 5, &["1"]),
                ("forwarding", 12, &["1"]),
                ("ignore_routes_with_linkdown", 5, &["1"]),
            ] {
                self.maybe_sysctl(chance, &format!("net.ipv4.conf.{set}.{name}"), values);
            }
            for (name, chance) in
                [("forwarding", 10), ("ignore_routes_with_linkdown", 5), ("proxy_ndp", 3)]
            {
                self.maybe_sysctl(chance, &format!("net.ipv6.conf.{set}.{name}"), &["1"]);
            }
            if set != "all" {
                self.maybe_sysctl(3, &format!("net.ipv6.conf.{set}.disable_ipv6"), &["1"]);
            }
        }
        self.maybe_sysctl(5, "net.ipv6.bindv6only", &["1"]);
        self.maybe_sysctl(5, "net.ipv4.ip_nonlocal_bind", &["1"]);
        self.maybe_sysctl(5, "net.ipv4.tcp_fwmark_accept", &["1"]);
        self.maybe_sysctl(5, "net.ipv4.fwmark_reflect", &["1"]);
    }

    fn maybe_sysctl(&mut self, chance: usize, name: &str, values: &[&str]) {
        if self.random.percent(chance)
            && let Some(value) = self.random.choose(values)
        {
            let value = (*value).to_owned();
            self.steps.push(Step::Sysctl { name: name.to_owned(), value });
        }
    }

    /// A router on a link: in a subnet of that link, if it has one.
    fn router(&mut self, family: Family) -> (String, IpAddr) {
        let number = self.random.below(self.links.len());
        let turn = if self.random.percent(15) { 1 } else { 0 };
        let value = base(family, number) + (turn << 8);
        // An own address as router means "on the link" to the kernel: not of interest here.
        let free = (value + 2..).find(|value| !self.is_own(family.address(*value)));
        let more = self.random.below(2) as u128;
        let router = free.filter(|value| !self.is_own(family.address(value + more)));
        let router = router.map_or(value + 9, |value| value + more);
        (self.links[number].clone(), family.address(router))
    }

    fn hop(&mut self, family: Family) -> Hop {
        let (link, router) = self.router(family);
        Hop { gateway: Some(router), link: Some(link) }
    }

    fn add_routes(&mut self) {
        for family in Family::BOTH {
            if self.random.percent(60) {
                let hop = self.hop(family);
                self.add_route(RouteType::Unicast, Prefix::all(family), vec![hop]);
            }
            for _ in 0..self.random.one_of([0, 0, 1, 1, 2, 3]) {
                self.add_odd_route(family);
            }
        }
    }

    fn add_odd_route(&mut self, family: Family) {
        let destination = self.some_prefix(family);
        let link = self.random.choose(&self.links).cloned();
        let on = |link: Option<String>| vec![Hop { gateway: None, link }];
        let (kind, hops) = match self.random.below(10) {
            0 | 1 => (RouteType::Local, on(Some("lo".to_owned()))),
            2 => (RouteType::Local, on(link)),
            3 => (RouteType::Blackhole, Vec::new()),
            4 => (RouteType::Unreachable, Vec::new()),
            5 => (RouteType::Prohibit, Vec::new()),
            6 if family == Family::Ipv4 => (RouteType::Throw, Vec::new()),
            7 => (RouteType::Unicast, vec![self.hop(family), self.hop(family)]),
            _ => (RouteType::Unicast, vec![self.hop(family)]),
        };
        self.add_route(kind, destination, hops);
    }

    fn add_route(&mut self, kind: RouteType, destination: Prefix, hops: Vec<Hop>) {
        let mut route = RouteStep::plain(kind, destination, hops);
        if self.random.percent(25) {
            route.table = Some(TableId(self.random.one_of(TABLES)));
        }
        if self.random.percent(15) {
            route.metric = Some(self.random.one_of([5, 10]));
        }
        let family = destination.family();
        if self.random.percent(8) {
            let own: Vec<IpAddr> = self.own_addresses();
            let own: Vec<IpAddr> =
                own.into_iter().filter(|address| Family::of(*address) == family).collect();
            route.preferred_source = self.random.choose(&own).copied();
        }
        if family == Family::Ipv6 && self.random.percent(6) {
            route.source = Some(self.some_prefix(family));
        }
        self.steps.push(Step::Route(route));
    }

    /// A prefix that covers something of interest.
    fn some_prefix(&mut self, family: Family) -> Prefix {
        let number = self.random.one_of([0, 0, 1, 1, 2, 7, 8, 9]);
        let value = base(family, number) + self.random.below(4) as u128;
        let length = match family {
            Family::Ipv4 => self.random.one_of([8, 15, 16, 24, 26, 30, 31, 32]),
            Family::Ipv6 => self.random.one_of([16, 48, 64, 112, 126, 127, 128]),
        };
        prefix(family, value, length).network()
    }

    fn add_rules(&mut self) {
        for family in Family::BOTH {
            if !self.random.percent(35) {
                continue;
            }
            for turn in 0..=self.random.below(3) {
                let mut rule = self.rule(family, 10 + u32::try_from(turn).unwrap_or(0));
                self.steps.push(Step::Rule(rule.clone()));
                if self.random.percent(15) {
                    rule.add = false;
                    self.steps.push(Step::Rule(rule));
                }
            }
        }
    }

    fn rule(&mut self, family: Family, priority: u32) -> RuleStep {
        let action = match self.random.below(10) {
            0 => PolicyAction::Unreachable,
            1 => PolicyAction::Blackhole,
            2 => PolicyAction::Prohibit,
            3 => PolicyAction::Lookup(TableId::MAIN),
            4 => PolicyAction::Goto(32766),
            _ => PolicyAction::Lookup(TableId(self.random.one_of(TABLES))),
        };
        let mut rule = RuleStep::plain(family, priority, action);
        for _ in 0..=self.random.below(2) {
            let link = self.random.choose(&self.links).cloned();
            match self.random.below(10) {
                9 => rule.mark = Some(self.random.one_of([(7, u32::MAX), (0, u32::MAX), (1, 1)])),
                0 | 1 => rule.source = Some(self.some_prefix(family)),
                2 | 3 => rule.destination = Some(self.some_prefix(family)),
                4 => rule.iif = link.or_else(|| Some("lo".to_owned())),
                5 => rule.iif = Some("lo".to_owned()),
                6 => rule.oif = link,
                7 => rule.uid_range = Some(self.random.one_of([(0, 0), (1000, 2000)])),
                _ => {
                    rule.ip_protocol = Some(self.random.one_of([6, 17]));
                    let port = self.random.one_of(PORTS);
                    if self.random.percent(50) {
                        rule.destination_ports = Some((port, port));
                    } else {
                        rule.source_ports = Some((port, port));
                    }
                }
            }
        }
        rule.invert = self.random.percent(10);
        if matches!(action, PolicyAction::Lookup(_)) && self.random.percent(20) {
            rule.suppress_prefix_length = Some(0);
        }
        rule
    }

    fn own_addresses(&self) -> Vec<IpAddr> {
        let of_step = |step: &Step| match step {
            Step::Address(address) => Some(address.prefix.address()),
            _ => None,
        };
        self.steps.iter().filter_map(of_step).collect()
    }

    /// Leaves out routes by routers that are no routers: own addresses mean "on the link" to the
    /// kernel, and broadcast addresses of another link are sent to everybody.
    fn remove_dead_ends(&mut self) {
        let wiring = Wiring::of(&self.steps);
        let local: Vec<Prefix> = self.steps.iter().filter_map(local_prefix).collect();
        let is_router = |gateway: &IpAddr| {
            !wiring.is_shared(*gateway) && local.iter().all(|prefix| !prefix.contains(*gateway))
        };
        self.steps.retain(|step| match step {
            Step::Route(route) => {
                route.hops.iter().filter_map(|hop| hop.gateway).all(|gateway| is_router(&gateway))
            }
            _ => true,
        });
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own_addresses().contains(&address)
    }

    fn add_servers(&mut self) {
        for _ in 0..4 + self.random.below(8) {
            let server = self.server();
            self.steps.push(Step::Server(server.clone()));
            // A group of several: the kernel picks one by a hash nobody knows.
            if server.reuse_port && self.random.percent(50) {
                self.steps.push(Step::Server(server));
            }
        }
    }

    fn server(&mut self) -> ServerStep {
        let proto = self.random.one_of([Proto::Tcp, Proto::Tcp, Proto::Udp]);
        let own = self.own_addresses();
        let own = self.random.choose(&own).copied().unwrap_or_else(|| IpAddr::from([127, 0, 0, 1]));
        let address = match self.random.below(12) {
            0..=2 => Family::Ipv4.unspecified(),
            3..=5 => Family::Ipv6.unspecified(),
            6 => IpAddr::from([127, 0, 0, 1]),
            7 => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            8 => match own {
                IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
                IpAddr::V6(_) => own,
            },
            _ => own,
        };
        let mut server =
            ServerStep::plain(proto, SocketAddr::new(address, self.random.one_of(PORTS)));
        if self.random.percent(20) {
            server.device = if self.random.percent(15) {
                Some("lo".to_owned())
            } else {
                self.random.choose(&self.links).cloned()
            };
        }
        if address.is_ipv6() && self.random.percent(40) {
            server.v6only = Some(self.random.percent(50));
        }
        server.reuse_port = self.random.percent(35);
        server.reuse_address = proto == Proto::Udp && self.random.percent(30);
        if self.random.percent(8) {
            server.uid = Some(1000);
        }
        if self.random.percent(8) {
            server.mark = Some(self.random.one_of([7, 1]));
        }
        server.transparent = self.random.percent(5);
        server.freebind = self.random.percent(5);
        if server.freebind {
            let number = self.random.one_of([0, 7, 8]);
            let family = Family::of(address);
            let value = base(family, number) + self.random.below(4) as u128;
            server.bind.set_ip(family.address(value));
        }
        if proto == Proto::Tcp && server.device.is_none() && self.random.percent(4) {
            server.backlog = Some(0);
            server.full = true;
            // What fills the queue must not go to another member of a group.
            server.reuse_port = false;
        }
        if proto == Proto::Udp && self.random.percent(12) {
            let number = self.random.below(2);
            let peer = base(Family::of(address), number) + 2 + self.random.below(2) as u128;
            server.connect = Some(SocketAddr::new(Family::of(address).address(peer), 7000));
        }
        server
    }

    /// Links that go down, cables that are pulled, addresses that go again.
    fn add_accidents(&mut self) {
        for link in self.links.clone() {
            if self.random.percent(6) {
                self.steps.push(Step::Set { name: link.clone(), change: LinkChange::Down });
            } else if self.random.percent(5) && link.starts_with('a') {
                self.steps.push(Step::Set { name: link, change: LinkChange::Carrier(false) });
            }
        }
        if self.random.percent(3) {
            self.steps.push(Step::Set { name: "lo".to_owned(), change: LinkChange::Down });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question;

    #[test]
    fn a_seed_makes_the_same_host_and_questions_each_time() {
        for seed in 0..50 {
            assert_eq!(host_with_rules(seed), host_with_rules(seed));
            let steps = host(seed);
            assert_eq!(question::probes(seed, &steps, 50), question::probes(seed, &steps, 50));
        }
        assert_ne!(host(1), host(2));
    }

    #[test]
    fn every_line_reads_as_it_prints() {
        for seed in 0..200 {
            let steps = host_with_rules(seed);
            for probe in question::probes(seed, &steps, 50) {
                let line = probe.to_string();
                assert_eq!(line.parse::<crate::probe::Probe>().expect(&line), probe, "{line}");
            }
            for step in steps {
                let line = step.to_string();
                assert_eq!(line.parse::<Step>().expect(&line), step, "{line}");
            }
        }
    }
}

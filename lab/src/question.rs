//! Random questions about a host, which is given as it was really built.
//!
//! Most are what a client could ask; some are frames that no kernel would send. What cannot be asked at
//! all (to an address that the asking peer itself has) is left out.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use canreach_snapshot::address::address_value;
use canreach_snapshot::{Family, Proto};

use crate::generate::{PORTS, base, prefix};
use crate::peer::PeerPlan;
use crate::probe::{Client, Probe};
use crate::random::Random;
use crate::step::Step;
use crate::wiring::Wiring;

/// So many random questions, less those that cannot be asked.
#[must_use]
pub fn probes(seed: u64, steps: &[Step], count: usize) -> Vec<Probe> {
    let wiring = Wiring::of(steps);
    let mut questioner = Questioner { random: Random::new(!seed), wiring: &wiring, steps };
    let links: Vec<&str> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Link { name, .. } if wiring.receiver(name) == name => Some(name.as_str()),
            _ => None,
        })
        .filter(|name| !wiring.ports(name).is_empty())
        .collect();
    let mut probes = Vec::new();
    for _ in 0..count {
        probes.extend(questioner.probe(&links));
    }
    remove_impossible(&wiring, &mut probes);
    probes
}

struct Questioner<'a> {
    random: Random,
    wiring: &'a Wiring,
    steps: &'a [Step],
}

impl Questioner<'_> {
    fn probe(&mut self, links: &[&str]) -> Option<Probe> {
        let family = self.random.one_of([Family::Ipv4, Family::Ipv4, Family::Ipv6]);
        let proto = self.random.one_of([Proto::Tcp, Proto::Tcp, Proto::Udp]);
        let own = self.random.percent(20);
        let to = self.destination(family, own)?;
        let port = self.port(proto);
        let client = if own {
            let source = if self.random.percent(15) { self.own(family) } else { None };
            Client::Own { source, uid: self.random.one_of([0, 0, 0, 1000]) }
        } else {
            let via = (*self.random.choose(links)?).to_owned();
            let raw = self.random.percent(8);
            let source = if raw { self.odd_source(family)? } else { self.source(family, &via)? };
            let port = if raw { None } else { self.port_of(&via, source, to) };
            Client::Peer { source, via, port: port.map(str::to_owned), raw }
        };
        let source_port = (proto == Proto::Udp && !own && self.random.percent(10)).then_some(7000);
        Some(Probe { proto, client, source_port, to: SocketAddr::new(to, port) })
    }

    /// The port of a bridge behind which a source is: each address is behind one of them, and the
    /// router behind the first.
    fn port_of(&self, via: &str, source: IpAddr, to: IpAddr) -> Option<&str> {
        let ports = self.wiring.ports(via);
        let prefix = self.wiring.on_link_prefix(via, source)?;
        // Into another subnet of the link it goes through the router.
        let asker = self.wiring.resolver(via, source, to);
        if asker.is_some_and(|asker| asker != source) {
            return None;
        }
        let taken = self.wiring.router_address(prefix) == Some(source)
            || self.wiring.routers(via).contains(&source);
        // What the host sends to a router ends there: the routers here do not forward.
        let routed = self.steps.iter().any(|step| match step {
            Step::Route(route) => {
                let closer = route.table.is_some() || route.destination.length() >= prefix.length();
                closer && route.destination.contains(source)
            }
            _ => false,
        });
        let direct = self.steps.iter().any(|step| match step {
            Step::Address(address) => {
                address.link == via && !address.no_prefix_route && address.prefix.contains(source)
            }
            _ => false,
        });
        let odd = address_value(source) % 2 == 1 && !taken && !routed && direct;
        if odd { ports.get(1).copied() } else { None }
    }

    /// A port that a server has, as a rule.
    fn port(&mut self, proto: Proto) -> u16 {
        let of_server = |step: &Step| match step {
            Step::Server(server) if server.proto == proto => Some(server.bind.port()),
            _ => None,
        };
        let taken: Vec<u16> = self.steps.iter().filter_map(of_server).collect();
        let any = self.random.one_of(PORTS);
        if self.random.percent(85) {
            self.random.choose(&taken).copied().unwrap_or(any)
        } else {
            any
        }
    }

    fn own(&mut self, family: Family) -> Option<IpAddr> {
        let own: Vec<IpAddr> = self.wiring.own_addresses(family).collect();
        self.random.choose(&own).copied()
    }

    fn destination(&mut self, family: Family, own: bool) -> Option<IpAddr> {
        let nearby = |random: &mut Random| {
            let number = random.below(3);
            family.address(base(family, number) + random.below(6) as u128)
        };
        let own_address = self.own(family);
        Some(match self.random.below(40) {
            20 if !own && family == Family::Ipv4 => IpAddr::from([224, 0, 0, 251]),
            21 if !own && family == Family::Ipv4 => IpAddr::from([255; 4]),
            22 if !own && family == Family::Ipv4 => IpAddr::from([127, 0, 0, 1]),
            23 | 0 => nearby(&mut self.random),
            1 => family.address(base(family, 7) + self.random.below(4) as u128),
            2 => family.address(base(family, 8) + self.random.below(4) as u128),
            3 if own => family.unspecified(),
            3 if family == Family::Ipv4 => {
                let subnet = prefix(family, address_value(own_address?), 24);
                family.address(subnet.range().1)
            }
            4 | 5 if own => match family {
                Family::Ipv4 => self.random.one_of([[127, 0, 0, 1], [127, 9, 8, 7]]).into(),
                Family::Ipv6 => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            },
            _ => own_address.unwrap_or_else(|| nearby(&mut self.random)),
        })
    }

    /// A source that no kernel would send from.
    fn odd_source(&mut self, family: Family) -> Option<IpAddr> {
        let own = self.own(family);
        Some(match (family, self.random.below(4)) {
            (_, 0 | 1) => own?,
            (Family::Ipv4, 2) => self.random.one_of([[127, 0, 0, 1], [127, 0, 0, 5]]).into(),
            (Family::Ipv4, _) => self
                .random
                .one_of([[0, 0, 0, 0], [0, 1, 2, 3], [224, 0, 0, 1], [240, 0, 0, 1]])
                .into(),
            (Family::Ipv6, _) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        })
    }

    fn source(&mut self, family: Family, via: &str) -> Option<IpAddr> {
        let on_link = self.wiring.on_link(via, family);
        let neighbor = self.random.choose(&on_link).copied();
        Some(match (self.random.below(10), neighbor) {
            (0..=5, Some(prefix)) => {
                let (low, high) = prefix.range();
                let value = low + 2 + self.random.below(4) as u128;
                family.address(value.min(high))
            }
            (6, _) => family.address(base(family, self.random.below(3)) + 4),
            (7, _) => family.address(base(family, 8) + self.random.below(4) as u128),
            _ => family.address(base(family, 9) + self.random.below(4) as u128),
        })
    }
}

/// Leaves out what no client could ask: to an address that the peer itself has, from an address that
/// the host has or that is no host's.
fn remove_impossible(wiring: &Wiring, probes: &mut Vec<Probe>) {
    let own: BTreeSet<IpAddr> =
        Family::BOTH.into_iter().flat_map(|family| wiring.own_addresses(family)).collect();
    probes.retain(|probe| match &probe.client {
        Client::Own { .. } => true,
        // What a client's own kernel refuses, no frame can show.
        Client::Peer { raw: true, .. } => {
            let to = probe.to.ip();
            !(to.is_multicast() || probe.proto == Proto::Tcp && wiring.is_shared(to))
        }
        Client::Peer { source, via, .. } => {
            let prefix = wiring.on_link_prefix(via, *source);
            let ends = prefix.filter(|prefix| prefix.length() < 31).map(|prefix| prefix.range());
            let value = address_value(*source);
            // A router does not pass on what is for everybody in a subnet.
            let for_all = wiring.is_shared(probe.to.ip());
            let together = prefix.is_some_and(|prefix| prefix.contains(probe.to.ip()));
            let martian = probe.to.ip().is_loopback() || probe.to.ip() == IpAddr::from([255; 4]);
            let multicast = probe.to.ip().is_multicast() && prefix.is_some();
            !martian
                && (together || multicast || !for_all)
                && !own.contains(source)
                && !wiring.is_shared(*source)
                && ends.is_none_or(|(low, high)| value != low && value != high)
        }
    });
    let asked = probes.clone();
    probes.retain(|probe| match &probe.client {
        Client::Own { .. } | Client::Peer { raw: true, .. } => true,
        Client::Peer { via, .. } => wiring
            .ports(via)
            .iter()
            .all(|port| !PeerPlan::of(wiring, port, &asked).has(probe.to.ip())),
    });
    // Two clients with the same address and port would be one.
    let mut seen = BTreeSet::new();
    probes.retain(|probe| {
        probe.source_port.is_none_or(|_| seen.insert(format!("{:?}", probe.client)))
    });
}

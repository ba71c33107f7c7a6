//! The neighbours of a host under test: one namespace each, on the other end of a veth pair.
//!
//! A peer stands for everybody on its link: for a source on the link it has that address there, as a
//! neighbour would; for any other source it has the address on its own `lo`, and plays the router
//! that forwards for it. It resolves what is dialled only where it is on the link, as a neighbour
//! does; everything else it sends to the hardware address of the link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use canreach_snapshot::{Family, Prefix, RouteType};

use crate::builder::{change_link, settle_link};
use crate::netlink::{CREATE, EXCLUSIVE, NetlinkError, Request, RouteSocket};
use crate::netns::NetnsGuard;
use crate::probe::{Client, Probe};
use crate::route_step::{Hop, RouteStep, address_bytes, family_number};
use crate::settle::{PEER_SETTLE, wait_for_local_routes};
use crate::step::LinkShape;
use crate::sysctl;

use crate::topology::Unsupported;
use crate::wiring::Wiring;

const RTM_NEWADDR: u16 = 20;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// `lo` of every namespace.
pub const LOOPBACK_INDEX: u32 = 1;
/// The peer's end of its veth pair. Indices below may belong to fallback tunnels of the kernel.
pub const WIRE_INDEX: u32 = 20;
/// Its name.
pub const WIRE: &str = "wire";

/// A neighbour.
#[derive(Debug)]
pub struct Peer {
    /// Its namespace.
    pub netns: NetnsGuard,
    /// The link of the host that its wire leads to.
    pub port: String,
}

/// What a peer has to have before it can ask certain questions.
#[derive(Debug, Default)]
pub struct PeerPlan {
    wire: Vec<Prefix>,
    /// Prefixes on the wire. Most have an address there, which brings the route along; of nested ones
    /// some may not.
    on_link: BTreeSet<Prefix>,
    loopback: BTreeSet<IpAddr>,
    /// What is dialled through a link other than the one its port belongs to (a macvlan).
    detours: BTreeSet<(IpAddr, String)>,
}

impl PeerPlan {
    /// Works out what the peer on a port needs for these probes.
    #[must_use]
    pub fn of(wiring: &Wiring, port: &str, probes: &[Probe]) -> Self {
        let mut plan = Self::default();
        let base = wiring.receiver(port);
        let vias = probes.iter().filter_map(|probe| match &probe.client {
            Client::Peer { via, .. } if wiring.ports(via).contains(&port) => Some(via.as_str()),
            Client::Peer { .. } | Client::Own { .. } => None,
        });
        let links: BTreeSet<_> = std::iter::once(base).chain(vias).collect();
        // Behind a bridge of several ports, one peer is the router; an address is nobody else's.
        let is_router = wiring.ports(base).first() == Some(&port);
        for link in links {
            for prefix in Family::BOTH.iter().flat_map(|family| wiring.on_link(link, *family)) {
                plan.on_link.insert(prefix);
                // First, so that it is the primary address, which a router asks with.
                if let Some(router) = wiring.router_address(prefix).filter(|_| is_router)
                    && prefix.length() < prefix.family().bits()
                {
                    plan.add_neighbor(wiring, link, router);
                }
            }
            for router in wiring.routers(link).into_iter().filter(|_| is_router) {
                plan.add_neighbor(wiring, link, router);
            }
        }
        for probe in probes {
            let Client::Peer { source, via, port: asked, raw: false } = &probe.client else {
                continue;
            };
            let first = || wiring.ports(via).first().copied();
            if asked.as_deref().or_else(first) != Some(port) {
                continue;
            }
            plan.add_source(wiring, via, *source);
            if via != base {
                plan.detours.insert((probe.to.ip(), via.clone()));
            }
        }
        plan
    }

    fn add_wire(&mut self, address: IpAddr, length: u8) {
        if self.wire.iter().all(|prefix| prefix.address() != address) {
            self.wire.extend(Prefix::new(address, length));
        }
    }

    fn add_neighbor(&mut self, wiring: &Wiring, link: &str, address: IpAddr) {
        let prefix = wiring.on_link_prefix(link, address);
        self.add_wire(address, prefix.map_or_else(|| Family::of(address).bits(), Prefix::length));
    }

    fn add_source(&mut self, wiring: &Wiring, link: &str, source: IpAddr) {
        if wiring.on_link_prefix(link, source).is_some() {
            self.add_neighbor(wiring, link, source);
        } else if self.wire.iter().all(|prefix| prefix.address() != source) {
            self.loopback.insert(source);
        }
    }

    /// Waits until what is sent to an IPv6 address of the peer gets there.
    fn wait_for_routes(&self) -> Result<()> {
        let on_wire = self.wire.iter().map(|prefix| prefix.address());
        if !wait_for_local_routes(on_wire.chain(self.loopback.iter().copied()), PEER_SETTLE)? {
            bail!("the peer's IPv6 addresses do not come to rest");
        }
        Ok(())
    }

    /// Whether the peer itself has an address, so that it cannot dial the host there.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.loopback.contains(&address)
            || self.wire.iter().any(|prefix| prefix.address() == address)
    }
}

/// The sysctls of a peer, before it has its wire.
///
/// # Errors
/// If one cannot be written.
pub fn prepare_netns() -> Result<()> {
    sysctl::write_defaults()?;
    sysctl::write_all(&[
        // A request for something on the link names the source where that is on the link too, and
        // otherwise an address of the link: the first for a neighbour, the second for a router.
        ("net.ipv4.conf.all.arp_announce", "1"),
        // What is on its lo lives behind this router; nobody on the link answers for it.
        ("net.ipv4.conf.all.arp_ignore", "1"),
        ("net.ipv4.conf.all.accept_local", "1"),
    ])?;
    // Errors that its own kernel makes reach its clients through lo.
    RouteSocket::open()?.carry_out(&[change_link(LOOPBACK_INDEX, true, "peer: set lo up")])
}

/// Timers of a peer's link: the kernel gives up on a silent neighbour after 10 ms instead of 3 s.
///
/// # Errors
/// If one cannot be written.
pub fn prepare_wire() -> Result<()> {
    for family in ["ipv4", "ipv6"] {
        let of_wire = |name: &str| format!("net.{family}.neigh.{WIRE}.{name}");
        sysctl::write(&of_wire("mcast_solicit"), "1")?;
        sysctl::write(&of_wire("retrans_time_ms"), "10")?;
    }
    RouteSocket::open()?.carry_out(&[settle_link(WIRE_INDEX)])
}

impl Peer {
    /// Gives a peer what it needs. `mac` finds the hardware address of a link of the host.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn carry_out(
        &self,
        plan: &PeerPlan,
        wiring: &Wiring,
        mac: &(dyn Fn(&str) -> Result<[u8; 6]> + Sync),
    ) -> Result<()> {
        let base = wiring.receiver(&self.port);
        self.netns.enter(|| {
            let mut requests = Vec::new();
            for prefix in &plan.wire {
                requests.push(add_address(*prefix, WIRE_INDEX));
            }
            for prefix in &plan.on_link {
                let hop = Hop { gateway: None, link: Some(WIRE.to_owned()) };
                let mut route = RouteStep::plain(RouteType::Unicast, *prefix, vec![hop]);
                // Another metric than the route of an address: both may be there.
                route.metric = Some(7);
                requests.push(route.request(&|_| Ok(WIRE_INDEX))?);
            }
            for address in &plan.loopback {
                requests.push(add_address(Prefix::host(*address), LOOPBACK_INDEX));
            }
            let routes = Family::BOTH.map(|family| (Prefix::all(family), base, 254));
            let mut ways = BTreeMap::from([(base, 254)]);
            let mut detours = Vec::new();
            for (destination, via) in &plan.detours {
                let next = 254 - u8::try_from(ways.len()).context("too many links on one port")?;
                let number = *ways.entry(via).or_insert(next);
                if let Some(LinkShape::Vlan { .. }) = wiring.shape(via) {
                    // Peers speak untagged; a question that needs tags is one the lab cannot ask.
                    bail!(Unsupported(format!("tagging peer for {via}")));
                }
                if wiring.on_link_prefix(via, *destination).is_some() {
                    continue;
                }
                detours.push((Prefix::host(*destination), via.as_str(), number));
            }
            for (prefix, via, number) in routes.into_iter().chain(detours) {
                let gateway = far_end(prefix.family(), number);
                // A link that is down answers nobody, so its hardware address is not known either.
                if !wiring.is_down(via) {
                    requests.push(add_neighbor(gateway, mac(via)?));
                }
                let hop = Hop { gateway: Some(gateway), link: Some(WIRE.to_owned()) };
                let mut route = RouteStep::plain(RouteType::Unicast, prefix, vec![hop]);
                route.on_link = true;
                requests.push(route.request(&|_| Ok(WIRE_INDEX))?);
            }
            RouteSocket::open()?.carry_out(&requests)?;
            plan.wait_for_routes()
        })
    }

    /// Forgets what the peer has learnt of these addresses.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn forget(&self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        self.netns.enter(|| {
            let socket = RouteSocket::open()?;
            for address in addresses {
                match socket.carry_out(&[forget_neighbor(*address)]) {
                    Err(error) if !was_not_there(&error) => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        })
    }
}

fn was_not_there(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<NetlinkError>();
    refused.is_some_and(|refused| refused.error.kind() == std::io::ErrorKind::NotFound)
}

/// The address that stands for "the host, by its hardware address".
fn far_end(family: Family, number: u8) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::from([169, 254, 255, number]),
        Family::Ipv6 => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0xffff, u16::from(number)]),
    }
}

/// A request that adds an address without checking for duplicates.
#[must_use]
pub fn add_address(prefix: Prefix, link: u32) -> Request {
    let header = [family_number(prefix.family()), prefix.length(), 0, 0];
    let header = [&header[..], &link.to_ne_bytes()].concat();
    let address = address_bytes(prefix.address());
    let about = format!("peer: address {prefix}");
    Request::new(RTM_NEWADDR, CREATE | EXCLUSIVE, &header, &about)
        .attribute(IFA_LOCAL, &address)
        .attribute(IFA_ADDRESS, &address)
        .number(IFA_FLAGS, IFA_F_NODAD)
}

fn neighbor_header(address: IpAddr, state: u16) -> Vec<u8> {
    let family = [family_number(Family::of(address)), 0, 0, 0];
    [&family[..], &WIRE_INDEX.to_ne_bytes(), &state.to_ne_bytes(), &[0, 0]].concat()
}

fn add_neighbor(address: IpAddr, mac: [u8; 6]) -> Request {
    let header = neighbor_header(address, NUD_PERMANENT);
    Request::new(RTM_NEWNEIGH, CREATE, &header, &format!("peer: neighbor {address}"))
        .attribute(NDA_DST, &address_bytes(address))
        .attribute(NDA_LLADDR, &mac)
}

fn forget_neighbor(address: IpAddr) -> Request {
    let header = neighbor_header(address, 0);
    Request::new(RTM_DELNEIGH, 0, &header, &format!("peer: forget {address}"))
        .attribute(NDA_DST, &address_bytes(address))
}

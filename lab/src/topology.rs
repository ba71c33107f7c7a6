//! Builds the host under test and its peers, and draws them.
//!
//! ```text
//!   host                 peers
//!   lo   127.0.0.1/8
//!   a0   10.1.0.1/24 ─── B  wire 10.1.0.2/24, lo 198.51.100.7
//!   br0  10.2.0.1/24
//!   ├ p0 ─────────────── C
//!   └ p1 ─────────────── D
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::builder::Builder;
use crate::netns::NetnsGuard;
use crate::peer::{self, LOOPBACK_INDEX, Peer, PeerPlan};
use crate::probe::Probe;
use crate::server::Server;
use crate::step::{LinkShape, Step};
use crate::wiring::Wiring;

/// The first index the lab gives to a link of the host; those below may be the kernel's.
const FIRST_INDEX: u32 = 20;

/// A host under test with everything around it. Gone when dropped.
#[derive(Debug)]
pub struct Topology {
    /// The host.
    pub host: NetnsGuard,
    /// What its lines say about its links.
    pub wiring: Wiring,
    /// The lines that were carried out.
    pub done: Vec<Step>,
    /// Its servers, in the order of their lines.
    pub servers: Vec<Server>,
    /// Its neighbours.
    pub peers: Vec<Peer>,
    links: BTreeMap<String, u32>,
}

/// A line that the kernel did not take.
#[derive(Debug)]
pub struct Refusal {
    /// Which line.
    pub position: usize,
    /// What the kernel said.
    pub error: anyhow::Error,
}

/// A host cannot be built because this kernel or the lab lacks something. Counted as skipped.
#[derive(Debug)]
pub struct Unsupported(pub String);

impl std::fmt::Display for Unsupported {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the lab has no {} here", self.0)
    }
}

impl std::error::Error for Unsupported {}

impl Topology {
    /// Builds a host.
    ///
    /// # Errors
    /// With the line that failed. [`Unsupported`] where the kernel lacks a kind of link.
    pub fn build(steps: &[Step]) -> Result<Self> {
        let (topology, mut refused) = Self::build_what_is_possible(steps)?;
        match refused.pop() {
            None => Ok(topology),
            Some(refusal) => Err(refusal.error),
        }
    }

    /// Builds a host without the lines that the kernel refuses, and says which those are, the first
    /// one last.
    ///
    /// # Errors
    /// If the lab itself fails.
    pub fn build_what_is_possible(steps: &[Step]) -> Result<(Self, Vec<Refusal>)> {
        let mut peers = Vec::new();
        for step in steps {
            if let Step::Link { name, shape: LinkShape::Veth { peer } } = step {
                let netns = NetnsGuard::create(peer)?;
                netns.enter(peer::prepare_netns)?;
                peers.push(Peer { netns, port: name.clone() });
            }
        }
        let host = NetnsGuard::create("the host under test")?;
        let mut links = BTreeMap::from([("lo".to_owned(), LOOPBACK_INDEX)]);
        for step in steps {
            if let Step::Link { name, .. } = step {
                let index = FIRST_INDEX + u32::try_from(links.len()).context("too many links")?;
                links.insert(name.clone(), index);
            }
        }
        let (servers, refused, links) = host.enter(|| {
            let builder = Builder { links: RefCell::new(links), peers: &peers };
            let (servers, refused) = builder.carry_out(steps)?;
            Ok((servers, refused, builder.links.into_inner()))
        })?;
        for peer in &peers {
            peer.netns.enter(peer::prepare_wire)?;
        }
        let mut done = steps.to_vec();
        for refusal in &refused {
            done.remove(refusal.position);
        }
        let wiring = Wiring::of(&done);
        Ok((Self { host, wiring, done, servers, peers, links }, refused))
    }

    /// Gives the peers what they need for these probes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn prepare_peers(&self, probes: &[Probe]) -> Result<()> {
        for peer in self.peers.iter().filter(|peer| !self.wiring.is_unplugged(&peer.port)) {
            let plan = PeerPlan::of(&self.wiring, &peer.port, probes);
            peer.carry_out(&plan, &self.wiring, &|link| self.mac(link))
                .with_context(|| format!("prepare the peer on {}", peer.port))?;
        }
        Ok(())
    }

    /// The index of a link of the host.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn index(&self, link: &str) -> Result<u32> {
        self.links.get(link).copied().with_context(|| format!("the host has no link {link}"))
    }

    /// The hardware address of a link of the host.
    ///
    /// # Errors
    /// If there is no link of that name.
    pub fn mac(&self, link: &str) -> Result<[u8; 6]> {
        Ok(mac_of(self.index(self.wiring.hardware(link))?))
    }

    /// The peer behind a port of the host.
    #[must_use]
    pub fn peer_on(&self, port: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.port == port)
    }
}

/// The hardware address of a link of the host, made from its index.
#[must_use]
pub const fn mac_of(index: u32) -> [u8; 6] {
    let [_, _, high, low] = index.to_be_bytes();
    [2, 0, 0, 1, high, low]
}

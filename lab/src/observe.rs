//! The kernel's own account, without a packet: which socket its lookup finds for one.
//!
//! The exact query of sock_diag runs the very lookup that an arriving packet would. It knows nothing
//! of routing, so it is asked only where the packet gets as far as the lookup.

use std::net::IpAddr;

use anyhow::{Context, Result};
use canreach_collect::sock_diag::SocketQuery;
use canreach_snapshot::{Ifindex, Port};

use crate::probe::{Client, Probe};
use crate::step::Step;
use crate::topology::Topology;

/// What the lookup finds for a probe: the inode of a socket, or nothing. `None` where it cannot be
/// asked: a client of the host's own arrives by a link that only its route knows, rules may send
/// packets to another socket, and a VRF needs more than the query has room for.
pub type Lookup = Option<Option<u64>>;

/// Asks for all probes.
///
/// # Errors
/// If the kernel refuses.
pub fn look_up(topology: &Topology, probes: &[Probe]) -> Result<Vec<Lookup>> {
    let translates = |step: &Step| matches!(step, Step::Filter(rules) if rules.translates());
    if topology.done.iter().any(translates) {
        return Ok(vec![None; probes.len()]);
    }
    topology.host.enter(|| {
        let mut query = SocketQuery::open().context("open a query for sockets")?;
        probes.iter().map(|probe| look_up_one(topology, &mut query, probe)).collect()
    })
}

fn look_up_one(topology: &Topology, query: &mut SocketQuery, probe: &Probe) -> Result<Lookup> {
    let Client::Peer { source, via, .. } = &probe.client else { return Ok(None) };
    if topology.wiring.is_shared(probe.to.ip()) || is_mapped(*source) || is_mapped(probe.to.ip()) {
        return Ok(None);
    }
    let link = Ifindex(topology.index(via)?);
    // A packet has two links there, the VRF and its own; the query has one (net/ipv4/inet_diag.c,
    // inet_diag_find_one_icsk).
    if topology.wiring.is_in_vrf(via) {
        return Ok(None);
    }
    // A port that no client of the lab has: only sockets connected to another peer tell ports apart.
    let source = (*source, Port(probe.source_port.unwrap_or(1)));
    let destination = (probe.to.ip(), Port(probe.to.port()));
    let found = query
        .lookup(probe.proto, source, destination, link)
        .with_context(|| format!("look up the socket for `{probe}`"))?;
    Ok(Some(found.map(|socket| socket.inode)))
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

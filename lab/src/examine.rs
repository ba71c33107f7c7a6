//! Builds one host, reads it, and asks all its probes of the kernel.

use anyhow::{Context, Result};
use canreach_collect::{NetnsChoice, Scope, SocketScope, collect};
use canreach_snapshot::{Netns, Snapshot};

use crate::client::{self, PATIENT, QUICK, SourcePorts};
use crate::probe::{Observation, Probe};
use crate::step::Step;
use crate::topology::Topology;

/// A host that was built, with what became of each probe.
#[derive(Debug)]
pub struct Examined {
    /// The host.
    pub topology: Topology,
    /// The host as the program reads it, before anything was asked.
    pub netns: Netns,
    /// What became of each probe, in order.
    pub observations: Vec<Observation>,
    ports: SourcePorts,
}

impl Examined {
    /// Asks one probe again, alone, with more patience and with neighbours forgotten: a surprise
    /// counts only if it happens twice.
    ///
    /// # Errors
    /// If the client cannot be started.
    pub fn ask_again(&mut self, probe: &Probe) -> Result<Observation> {
        client::forget_neighbors(&self.topology, &[probe])?;
        let again = client::run(&self.topology, &[probe], &mut self.ports, PATIENT)?;
        again.into_iter().next().context("one probe has one observation")
    }
}

/// Builds a host and asks.
///
/// # Errors
/// If the host cannot be built or read, or a client cannot be started.
pub fn examine(steps: &[Step], probes: &[Probe]) -> Result<Examined> {
    let topology = Topology::build(steps)?;
    topology.prepare_peers(probes)?;
    let snapshot = read_host(&topology)?;
    let netns = snapshot.namespaces.into_iter().next().context("collect read no namespace")?;
    let mut ports = SourcePorts::default();
    let asked: Vec<&Probe> = probes.iter().collect();
    let observations = client::run(&topology, &asked, &mut ports, QUICK)?;
    Ok(Examined { topology, netns, observations, ports })
}

/// Reads the host under test, from inside, the way the program itself does.
fn read_host(topology: &Topology) -> Result<Snapshot> {
    let scope = Scope {
        netns: NetnsChoice::Own,
        all_namespaces: false,
        sockets: SocketScope::All,
        owners: false,
        filters: true,
    };
    topology.host.enter(|| collect(&scope).context("collect"))
}

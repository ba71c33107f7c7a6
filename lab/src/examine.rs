//! Builds one host, reads it, and asks all its probes of the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use canreach_collect::{NetnsChoice, Scope, SocketScope, collect};
use canreach_engine::TheySee;
use canreach_snapshot::{Family, Gap, GapReason, GapSubject, Netns, Prefix, Snapshot, TableId};

use crate::client::{self, QUICK, SourcePorts};
use crate::observe::{self, Lookup};
use crate::probe::{Observation, Probe};
use crate::settle::{self, SETTLE};
use crate::step::Step;
use crate::topology::Topology;
use crate::trace::with_tracer;

/// How long to wait for what happens on the way: nobody waits for an answer.
const BRIEF: Duration = Duration::from_millis(20);

/// A host that was built, with what became of each probe.
#[derive(Debug)]
pub struct Examined {
    /// The host.
    pub topology: Topology,
    /// The host as the program reads it, before anything was asked.
    pub netns: Netns,
    /// Which socket the kernel's lookup finds for each probe, before anything was asked.
    pub lookups: Vec<Lookup>,
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
    pub fn ask_again(&mut self, probe: &Probe, patience: Duration) -> Result<Observation> {
        let mut last = None;
        // A datagram is not sent again by itself, and of ICMP errors the host may owe it there is
        // one a second (net/ipv4/route.c, ip_error): two chances.
        for _ in 0..2 {
            client::forget_neighbors(&self.topology, &[probe])?;
            let again = client::run(&self.topology, &[probe], &mut self.ports, patience)?;
            last = again.into_iter().next();
            if last.as_ref().is_none_or(|again| again.they_see != TheySee::Silence) {
                break;
            }
        }
        last.context("one probe has one observation")
    }

    /// Asks one probe again, and returns why the kernel says it dropped something on the way. The
    /// inner error says why it cannot be asked that here, or that it does not know these reasons.
    ///
    /// # Errors
    /// If the client cannot be started.
    pub fn drop_reasons(
        &mut self,
        probe: &Probe,
        wanted: &[&str],
    ) -> Result<Result<BTreeSet<String>, String>> {
        let (topology, ports) = (&self.topology, &mut self.ports);
        let asked = with_tracer(|tracer| {
            if !tracer.knows(wanted) {
                return Ok(Err(format!("this kernel has no reason {}", wanted.join(", "))));
            }
            let act = || client::run(topology, &[probe], ports, BRIEF);
            tracer.watch(act).map(|(_, reasons)| Ok(reasons))
        })?;
        Ok(asked.and_then(|reasons| reasons))
    }
}

/// Builds a host and asks the kernel alone: the host is not read.
///
/// # Errors
/// If the host cannot be built, or a client cannot be started.
pub fn observe(steps: &[Step], probes: &[Probe]) -> Result<Examined> {
    let topology = Topology::build(steps)?;
    topology.prepare_peers(probes)?;
    let own: Vec<IpAddr> = topology.wiring.own_addresses(Family::Ipv6).collect();
    topology.host.enter(|| settle::wait_for_local_routes(own, SETTLE).map(drop))?;
    let mut ports = SourcePorts::default();
    let asked: Vec<&Probe> = probes.iter().collect();
    let observations = client::run(&topology, &asked, &mut ports, QUICK)?;
    let netns = Netns::default();
    Ok(Examined { topology, netns, lookups: Vec::new(), observations, ports })
}

/// Builds a host and asks.
///
/// # Errors
/// If the host cannot be built or read, or a client cannot be started.
pub fn examine(steps: &[Step], probes: &[Probe]) -> Result<Examined> {
    ask(Topology::build(steps)?, probes)
}

/// Asks a host that was built.
///
/// # Errors
/// If it cannot be read, or a client cannot be started.
pub fn ask(topology: Topology, probes: &[Probe]) -> Result<Examined> {
    topology.prepare_peers(probes)?;
    let netns = read_settled_host(&topology)?;
    let lookups = observe::look_up(&topology, probes)?;
    let mut ports = SourcePorts::default();
    let asked: Vec<&Probe> = probes.iter().collect();
    let observations = client::run(&topology, &asked, &mut ports, QUICK)?;
    Ok(Examined { topology, netns, lookups, observations, ports })
}

/// Reads the host when it has come to rest: the kernel puts the local route of an IPv6 address in
/// place a moment after the address (net/ipv6/addrconf.c, addrconf_dad_start).
pub(crate) fn read_settled_host(topology: &Topology) -> Result<Netns> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let snapshot = read_host(topology)?;
        let mut netns =
            snapshot.namespaces.into_iter().next().context("collect read no namespace")?;
        netns.gaps.retain(|gap| !is_known_empty(gap));
        if is_settled(&netns) || Instant::now() >= deadline {
            return Ok(netns);
        }
        std::thread::yield_now();
    }
}

/// bpf(2) answers the first user namespace only, so without root nobody can see that no program is
/// attached. Here it is known: the lab made this namespace, and attached none.
fn is_known_empty(gap: &Gap) -> bool {
    let about_programs =
        [GapSubject::Tc, GapSubject::CgroupBpf, GapSubject::SkLookup, GapSubject::NetfilterBpf];
    gap.reason == GapReason::NeedsRoot && about_programs.contains(&gap.subject)
}

/// Every IPv6 address that is in use has its local route. One that is being checked for duplicates
/// has none, and stays as it is for longer than a case takes.
fn is_settled(netns: &Netns) -> bool {
    let has_route = |address: IpAddr| {
        netns.routes.iter().any(|route| {
            route.table == TableId::LOCAL && route.destination == Prefix::host(address)
        })
    };
    netns.addresses.iter().all(|address| {
        let link = netns.link(address.ifindex);
        Family::of(address.address()) == Family::Ipv4
            || address.is_tentative()
            || link.is_none_or(|link| !link.is_up())
            || has_route(address.address())
    })
}

/// Reads the host under test, from inside, the way the program itself does.
fn read_host(topology: &Topology) -> Result<Snapshot> {
    let scope = Scope {
        netns: NetnsChoice::Own,
        all_namespaces: false,
        beyond: false,
        sockets: SocketScope::All,
        owners: false,
        filters: true,
    };
    topology.host.enter(|| collect(&scope).context("collect"))
}

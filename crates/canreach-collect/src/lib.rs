//! Reads a running machine into a [`Snapshot`], without changing it.
//!
//! Reading order: [`collect`], `namespace` (what is read of one network namespace, and in which
//! order), then the sources: `netlink`, `proc`, `bpf`, `firewall`. What cannot be read becomes a
//! gap of the snapshot, with the operation and the errno.

mod bpf;
mod capability;
mod cgroup;
mod connection;
mod consistency;
mod directory;
mod error;
mod firewall;
mod kernel_module;
mod machine;
mod namespace;
pub mod netlink;
mod netns;
mod owner;
mod proc;
mod scope;
mod socket;
mod sys;
mod wireless;

pub use connection::connections;
pub use error::CollectError;
pub use netlink::sock_diag;
pub use scope::{NetnsChoice, Scope, SocketScope};

use std::io;

use canreach_snapshot::{Gap, LinkKind, Netns, Snapshot};

/// Reads the machine.
///
/// # Errors
/// Only where nothing at all can be read; everything else becomes a gap of the snapshot.
pub fn collect(scope: &Scope) -> Result<Snapshot, CollectError> {
    let subject = match netns::locate(&scope.netns) {
        None => {
            let mut reading = namespace::read(scope)?;
            if scope.filters {
                // Files of this system speak of the namespace it runs in, not of others.
                reading.netns.firewall.hints = firewall::hint::read();
                reading.netns.firewall.ufw_rules = firewall::ufw::read();
            }
            reading
        }
        Some((path, name)) => {
            let (file, _) = netns::open(&path, &name)?;
            let mut reading = netns::inside(&file, &name, || namespace::read(scope))?;
            reading.netns.name = Some(name);
            reading
        }
    };
    let privileged = subject.privileged;
    let mut gaps = Vec::new();
    let mut namespaces = vec![subject.netns];
    if scope.all_namespaces {
        read_others(scope, &mut namespaces, &mut gaps);
    } else if scope.beyond && privileged && leads_beyond(&namespaces[0]) {
        // Which of them a packet gets to is not known yet, nor which ports it has there.
        let others = Scope { sockets: SocketScope::All, ..scope.clone() };
        // What cannot be entered is a doubt of the answers that hang on it.
        read_others(&others, &mut namespaces, &mut Vec::new());
    }
    // Without /proc no namespace has an identity; the one asked for by no name is still it.
    let asked_for = scope.netns == NetnsChoice::Own;
    let own = if asked_for { None } else { netns::own_id().ok() };
    for (position, netns) in namespaces.iter_mut().enumerate() {
        netns.own = (asked_for && position == 0) || own == Some(netns.id);
    }
    let machine = machine::read(privileged);
    let (processes, cgroups) = (Vec::new(), Vec::new());
    let mut snapshot = Snapshot { machine, namespaces, processes, cgroups, gaps };
    if scope.owners {
        owner::resolve(&mut snapshot);
    }
    Ok(snapshot)
}

/// Whether a link of a namespace leads to another one.
fn leads_beyond(netns: &Netns) -> bool {
    netns.links.iter().any(|link| link.kind == LinkKind::Veth && link.lower_nsid.is_some())
}

/// Reads every other namespace that can be found, and names those that are there already.
fn read_others(scope: &Scope, namespaces: &mut Vec<Netns>, gaps: &mut Vec<Gap>) {
    for found in netns::find(gaps) {
        if let Some(known) = namespaces.iter_mut().find(|netns| netns.id == found.id) {
            if found.pid.is_none() {
                known.name.get_or_insert(found.name);
            }
            continue;
        }
        let reading = netns::open(&found.path, &found.name).and_then(|(file, id)| {
            // Numbers of processes and of namespaces are used again: this is another one now.
            if id != found.id {
                return Err(CollectError::Netns {
                    name: found.name.clone(),
                    cause: io::Error::from_raw_os_error(libc::ESRCH),
                });
            }
            netns::inside(&file, &found.name, || namespace::read(scope))
        });
        match reading {
            Ok(mut reading) => {
                reading.netns.name = Some(found.name);
                namespaces.push(reading.netns);
            }
            Err(error) => gaps.push(error.gap(found.name)),
        }
    }
}

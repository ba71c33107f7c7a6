//! Holders that no descriptor shows: inferred from the control group, and labelled as inferred.
//!
//! Only processes that refused to be looked at come into question. One whose descriptors were
//! all seen does not hold the socket, whatever its control group.

use std::collections::BTreeSet;

use super::docker_proxy;
use super::search::{Search, Sought};
use crate::proc::process::{Look, ProcDirectory};

/// The processes that hold a socket by inference: the only one of its group that can, or all of
/// them if they go by one name.
pub(crate) fn from_members(
    search: &Search,
    proc: &mut ProcDirectory,
    members: &[u32],
    foreign: usize,
) -> Vec<u32> {
    // A process of another PID namespace may be the one, and has no number here.
    if foreign > 0 {
        return Vec::new();
    }
    let refused = |pid: &u32| search.look_at(*pid) == Some(Look::Denied);
    let possible: Vec<u32> = members.iter().copied().filter(refused).collect();
    let names: BTreeSet<Option<String>> = possible.iter().map(|pid| proc.comm(*pid)).collect();
    // A name that cannot be read is hidden: it could be any.
    if names.len() == 1 && !names.contains(&None) { possible } else { Vec::new() }
}

/// The `docker-proxy` processes whose arguments name a socket's address and port.
pub(crate) fn from_docker_proxies(
    proxies: &[(u32, docker_proxy::Mapping)],
    sought: &Sought,
) -> Vec<u32> {
    let serves = |mapping: &docker_proxy::Mapping| {
        mapping.proto == sought.proto
            && mapping.port == sought.port
            && mapping.address.is_none_or(|address| address == sought.address)
    };
    proxies.iter().filter(|(_, mapping)| serves(mapping)).map(|(pid, _)| *pid).collect()
}

/// Every `docker-proxy` that refused to be looked at. Arguments are readable for everyone.
pub(crate) fn docker_proxies(
    search: &Search,
    proc: &mut ProcDirectory,
) -> Vec<(u32, docker_proxy::Mapping)> {
    let mut proxies = Vec::new();
    for pid in search.refusing() {
        if proc.comm(pid).as_deref() == Some(docker_proxy::COMM)
            && let Some(mapping) = docker_proxy::Mapping::from_arguments(&proc.cmdline(pid))
        {
            proxies.push((pid, mapping));
        }
    }
    proxies
}

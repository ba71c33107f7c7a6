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

#[cfg(test)]
mod tests {
    use super::*;
    use canreach_snapshot::{Port, Proto};

    fn sought(proto: Proto, address: &str, port: u16) -> Sought {
        Sought {
            inode: 7,
            proto,
            address: address.parse().expect("the test's own address"),
            port: Port(port),
            uid: 0,
            cgroup: None,
            required: true,
            holders: Vec::new(),
        }
    }

    #[test]
    fn a_proxy_is_matched_by_all_it_names() {
        let mapping = |line: &str| {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            docker_proxy::Mapping::from_arguments(&arguments).expect("the test's own line")
        };
        let proxies = [
            (40, mapping("docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080")),
            (41, mapping("docker-proxy -proto tcp -host-ip :: -host-port 8080")),
            (42, mapping("docker-proxy -proto udp -host-ip 0.0.0.0 -host-port 8080")),
            (43, mapping("docker-proxy -proto tcp -host-port 9090")),
        ];
        let check = |sought: &Sought, expect: &[u32]| {
            assert_eq!(from_docker_proxies(&proxies, sought), expect, "{sought:?}");
        };
        check(&sought(Proto::Tcp, "0.0.0.0", 8080), &[40]);
        check(&sought(Proto::Tcp, "::", 8080), &[41]);
        check(&sought(Proto::Udp, "0.0.0.0", 8080), &[42]);
        check(&sought(Proto::Tcp, "127.0.0.1", 9090), &[43]);
        check(&sought(Proto::Tcp, "127.0.0.1", 8080), &[]);
        check(&sought(Proto::Tcp, "0.0.0.0", 8081), &[]);
    }
}

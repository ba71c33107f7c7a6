//! Reads one network namespace: the one of the calling thread.
//!
//! Order: what changes least comes first, and sockets are read after the addresses they are bound
//! to, so that a server that starts meanwhile is missed rather than half seen.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use canreach_snapshot::{
    Address, Family, Gap, GapReason, GapSubject, Neighbor, Netns, NetnsId, Port, Proto, Socket,
};

use crate::capability;
use crate::netlink::link::LinkRow;
use crate::netlink::socket::{NetlinkFamily, NetlinkSocket};
use crate::netlink::{address, link, neighbor, nexthop, policy_rule, route, sock_diag};
use crate::proc::sysctl;
use crate::{CollectError, Scope, SocketScope};

/// Nothing is asked of a namespace but this path says which one a thread is in.
const OWN: &str = "/proc/thread-self/ns/net";

/// What was read of one namespace.
pub(crate) struct Reading {
    pub(crate) netns: Netns,
    /// The reader had CAP_NET_ADMIN over this namespace.
    pub(crate) privileged: bool,
}

/// Reads the calling thread's namespace.
pub(crate) fn read(scope: &Scope) -> Result<Reading, CollectError> {
    let mut rtnetlink = NetlinkSocket::open(NetlinkFamily::Route)
        .map_err(|source| CollectError::Netlink { source })?;
    let mut netns = Netns { id: own_id().unwrap_or_default(), ..Netns::default() };
    let privileged = capability::net_admin(&mut rtnetlink);
    read_links(&mut netns, &mut rtnetlink);
    sysctl::read(&mut netns.sysctls, &mut netns.gaps);
    read_addresses(&mut netns, &mut rtnetlink);
    read_routes(&mut netns, &mut rtnetlink);
    read_policy_rules(&mut netns, &mut rtnetlink);
    read_neighbors(&mut netns, &mut rtnetlink);
    read_sockets(&mut netns, scope.sockets, privileged);
    Ok(Reading { netns, privileged })
}

/// The identity of the calling thread's namespace.
pub(crate) fn own_id() -> io::Result<NetnsId> {
    std::fs::metadata(OWN).map(|metadata| NetnsId(metadata.ino()))
}

fn read_links(netns: &mut Netns, rtnetlink: &mut NetlinkSocket) {
    let (rows, error) = rtnetlink.dump("dump links", link::GET, &link::request(), link::decode);
    netns.gaps.extend(error.map(|error| error.gap(GapSubject::Links)));
    netns.links.reserve(rows.len());
    for LinkRow { link, sysctls, xdp, .. } in rows {
        netns.sysctls.links.insert(link.name.clone(), sysctls);
        netns.bpf.extend(xdp);
        netns.links.push(link);
    }
    // Policy rules and snapshots name links by number; the kernel dumps them by hash bucket.
    netns.links.sort_by_key(|link| link.ifindex);
}

fn read_addresses(netns: &mut Netns, rtnetlink: &mut NetlinkSocket) {
    let (rows, error) =
        rtnetlink.dump("dump addresses", address::GET, &address::REQUEST, address::decode);
    netns.gaps.extend(
        error
            .iter()
            .flat_map(|error| Family::BOTH.map(|family| error.gap(GapSubject::Addresses(family)))),
    );
    netns.addresses = rows;
    // Stable: within a link the kernel's order stays, which says which address is the primary one.
    netns.addresses.sort_by_key(|row: &Address| (Family::of(row.address()), row.ifindex));
}

fn read_routes(netns: &mut Netns, rtnetlink: &mut NetlinkSocket) {
    let (objects, error) =
        rtnetlink.dump("dump nexthop objects", nexthop::GET, &nexthop::REQUEST, nexthop::decode);
    // Kernels before 5.3 have no nexthop objects, and their routes need none.
    let error = error.filter(|error| error.reason() != GapReason::Unsupported);
    netns.gaps.extend(error.map(|error| error.gap(GapSubject::Nexthops)));
    let (mut routes, error) =
        rtnetlink.dump("dump routes", route::GET, &route::REQUEST, route::decode);
    netns.gaps.extend(
        error
            .iter()
            .flat_map(|error| Family::BOTH.map(|family| error.gap(GapSubject::Routes(family)))),
    );
    route::resolve_objects(&mut routes, &objects);
    netns.nexthops = objects;
    netns.routes = routes;
}

fn read_policy_rules(netns: &mut Netns, rtnetlink: &mut NetlinkSocket) {
    let (rows, error) = rtnetlink.dump(
        "dump policy rules",
        policy_rule::GET,
        &policy_rule::REQUEST,
        policy_rule::decode,
    );
    netns.gaps.extend(
        error.iter().flat_map(|error| {
            Family::BOTH.map(|family| error.gap(GapSubject::PolicyRules(family)))
        }),
    );
    netns.policy_rules = rows;
    // The dump goes by family in the order their modules were loaded; within one it is exact.
    netns.policy_rules.sort_by_key(|rule| rule.family);
}

fn read_neighbors(netns: &mut Netns, rtnetlink: &mut NetlinkSocket) {
    for request in [neighbor::REQUEST, neighbor::REQUEST_PROXIES] {
        let (rows, error) =
            rtnetlink.dump("dump neighbours", neighbor::GET, &request, neighbor::decode);
        netns.gaps.extend(error.map(|error| error.gap(GapSubject::Neighbors)));
        netns.neighbors.extend(rows);
    }
    netns.neighbors.sort_by_key(|row: &Neighbor| (row.ifindex, row.address, row.proxy));
}

/// The protocols and families to list, and the port.
fn wanted(scope: SocketScope) -> (&'static [Proto], Port) {
    match scope {
        SocketScope::All => (&[Proto::Tcp, Proto::Udp], Port(0)),
        SocketScope::Port(Proto::Tcp, port) => (&[Proto::Tcp], port),
        SocketScope::Port(Proto::Udp, port) => (&[Proto::Udp], port),
        SocketScope::None => (&[], Port(0)),
    }
}

fn read_sockets(netns: &mut Netns, scope: SocketScope, privileged: bool) {
    let (protos, port) = wanted(scope);
    if protos.is_empty() {
        netns.gaps.extend(Proto::BOTH.iter().flat_map(|&proto| {
            Family::BOTH.map(|family| Gap {
                subject: GapSubject::Sockets(proto, family),
                reason: GapReason::NotRead,
                detail: "sockets were not asked for".to_owned(),
            })
        }));
        return;
    }
    let mut sock_diag = match NetlinkSocket::open(NetlinkFamily::SockDiag) {
        Ok(socket) => socket,
        Err(error) => {
            let error = crate::error::ReadError::os("open a sock_diag socket", error);
            for &proto in protos {
                netns.gaps.extend(
                    Family::BOTH.map(|family| error.gap(GapSubject::Sockets(proto, family))),
                );
            }
            return;
        }
    };
    for &proto in protos {
        for family in Family::BOTH {
            let request = sock_diag::list_request(proto, family, port);
            let (rows, error) =
                sock_diag.dump("dump sockets", sock_diag::BY_FAMILY, &request, |message| {
                    let row = sock_diag::decode(proto, message)?;
                    Ok(row.filter(|socket: &Socket| socket.family == family))
                });
            netns.gaps.extend(error.map(|error| error.gap(GapSubject::Sockets(proto, family))));
            netns.sockets.extend(rows);
        }
    }
    if !privileged {
        if protos.contains(&Proto::Tcp) {
            mark_mptcp(&mut netns.sockets, &mut sock_diag, port);
        }
        netns.gaps.push(Gap {
            subject: GapSubject::SocketMarks,
            reason: GapReason::NeedsRoot,
            detail: "the kernel shows SO_MARK of sockets to CAP_NET_ADMIN only".to_owned(),
        });
    }
}

/// Marks the listeners of Multipath TCP. With CAP_NET_ADMIN each row says so itself; without, a
/// second list names them. Nothing hangs on it but the word, so an error is no gap.
fn mark_mptcp(sockets: &mut [Socket], sock_diag: &mut NetlinkSocket, port: Port) {
    if !Path::new("/proc/sys/net/mptcp").exists() {
        return;
    }
    for family in Family::BOTH {
        let request = sock_diag::list_mptcp_request(family, port);
        let (listeners, _) = sock_diag.dump(
            "dump sockets of Multipath TCP",
            sock_diag::BY_FAMILY,
            &request,
            |message| sock_diag::decode(Proto::Tcp, message),
        );
        for listener in listeners {
            let same = |socket: &&mut Socket| {
                socket.proto == Proto::Tcp && socket.inode == listener.inode && socket.inode != 0
            };
            if let Some(socket) = sockets.iter_mut().find(same) {
                socket.mptcp = true;
            }
        }
    }
}

//! Reads one network namespace: the one of the calling thread.
//!
//! Order: what changes least comes first, and sockets are read after the addresses they are bound
//! to, so that a server that starts meanwhile is missed rather than half seen.

use canreach_snapshot::{
    Address, Family, Gap, GapReason, GapSubject, Neighbor, Netns, Port, Proto, Route, Socket,
};

use crate::capability;
use crate::error::{ReadError, os_reason};
use crate::netlink::link::LinkRow;
use crate::netlink::socket::{NetlinkFamily, NetlinkSocket};
use crate::netlink::{address, link, neighbor, nexthop, policy_rule, route, sock_diag};
use crate::proc::{fib_layout, sysctl};
use crate::{CollectError, Scope, SocketScope, bpf, firewall, netns};

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
    let mut netns = Netns { id: netns::own_id().unwrap_or_default(), ..Netns::default() };
    let privileged = capability::net_admin(&mut rtnetlink);
    read_links(&mut netns, &mut rtnetlink);
    sysctl::read(&mut netns.sysctls, &mut netns.gaps);
    read_addresses(&mut netns, &mut rtnetlink);
    read_routes(&mut netns, &mut rtnetlink);
    read_policy_rules(&mut netns, &mut rtnetlink);
    read_neighbors(&mut netns, &mut rtnetlink);
    read_sockets(&mut netns, scope.sockets, privileged);
    read_filters(&mut netns, &mut rtnetlink, scope.filters);
    Ok(Reading { netns, privileged })
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
    let mut error;
    (netns.routes, error) = dump_routes(rtnetlink);
    if let Err(gap) = read_fib_layout(netns) {
        // Perhaps a route came or went between the two: once more, with both.
        (netns.routes, error) = dump_routes(rtnetlink);
        if gap.reason != GapReason::ChangedWhileReading || read_fib_layout(netns).is_err() {
            netns.gaps.push(gap);
        }
    }
    netns.gaps.extend(
        error
            .iter()
            .flat_map(|error| Family::BOTH.map(|family| error.gap(GapSubject::Routes(family)))),
    );
    route::resolve_objects(&mut netns.routes, &objects);
    netns.nexthops = objects;
}

fn dump_routes(rtnetlink: &mut NetlinkSocket) -> (Vec<Route>, Option<ReadError>) {
    rtnetlink.dump("dump routes", route::GET, &route::REQUEST, route::decode)
}

/// Sets `fib_layout` by the routes that were read, or says why it cannot.
fn read_fib_layout(netns: &mut Netns) -> Result<(), Gap> {
    let gap = |reason, detail| Gap { subject: GapSubject::FibLayout, reason, detail };
    let statistics = std::fs::read_to_string(fib_layout::PATH)
        .map_err(|error| gap(os_reason(&error), format!("read {}: {error}", fib_layout::PATH)))?;
    netns.fib_layout = fib_layout::judge(&statistics, &netns.routes).ok_or_else(|| {
        let detail = format!("{} counts other routes than the dump holds", fib_layout::PATH);
        gap(GapReason::ChangedWhileReading, detail)
    })?;
    Ok(())
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
            let error = ReadError::os("open a sock_diag socket", error);
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
    if netns.sockets.iter().any(|socket| socket.proto == Proto::Tcp) {
        mark_mptcp(&mut netns.sockets, &mut sock_diag, port);
    }
    if !privileged {
        netns.gaps.push(Gap {
            subject: GapSubject::SocketMarks,
            reason: GapReason::NeedsRoot,
            detail: "the kernel shows SO_MARK of sockets to CAP_NET_ADMIN only".to_owned(),
        });
    }
}

/// Marks the listeners of Multipath TCP. Their rows say so themselves only beside a long list of
/// counters and to CAP_NET_ADMIN, so a second list names them, where the namespace has any at all.
/// Nothing hangs on it but the word: an error is no gap.
fn mark_mptcp(sockets: &mut [Socket], sock_diag: &mut NetlinkSocket, port: Port) {
    let protocols = std::fs::read_to_string("/proc/thread-self/net/protocols");
    if !protocols.is_ok_and(|protocols| has_mptcp_sockets(&protocols)) {
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

/// Reads /proc/net/protocols: name, size of a socket, number of sockets.
fn has_mptcp_sockets(protocols: &str) -> bool {
    protocols.lines().filter(|line| line.starts_with("MPTCP")).any(|line| {
        let count = line.split_ascii_whitespace().nth(2);
        count.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count > 0)
    })
}

/// What says that filters were not looked for.
const FILTERS: [GapSubject; 8] = [
    GapSubject::NftRuleset,
    GapSubject::LegacyTables(Family::Ipv4),
    GapSubject::LegacyTables(Family::Ipv6),
    GapSubject::Xdp,
    GapSubject::Tc,
    GapSubject::CgroupBpf,
    GapSubject::SkLookup,
    GapSubject::NetfilterBpf,
];

fn read_filters(netns: &mut Netns, rtnetlink: &mut NetlinkSocket, wanted: bool) {
    if wanted {
        bpf::read(netns, rtnetlink);
        netns.firewall = firewall::presence::read(&mut netns.gaps);
        return;
    }
    netns.bpf.clear();
    netns.gaps.extend(FILTERS.map(|subject| Gap {
        subject,
        reason: GapReason::NotRead,
        detail: "packet filters were not asked for".to_owned(),
    }));
}

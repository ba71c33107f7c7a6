//! Reads one network namespace: the one of the calling thread.
//!
//! Order: what changes least comes first, and sockets are read after the addresses they are bound
//! to, so that a server that starts meanwhile is missed rather than half seen.

use canreach_snapshot::{Address, Family, Gap, GapReason, GapSubject, Neighbor, Netns, Route};

use crate::capability;
use crate::consistency::ChangeWatch;
use crate::error::{ReadError, os_reason};
use crate::netlink::link::LinkRow;
use crate::netlink::message::Message;
use crate::netlink::socket::{NetlinkFamily, NetlinkSocket};
use crate::netlink::{address, link, neighbor, netconf, nexthop, policy_rule, route};
use crate::proc::{fib_layout, sysctl};
use crate::{CollectError, Scope, SocketScope, bpf, directory, firewall, netns, socket, wireless};

/// What was read of one namespace.
pub(crate) struct Reading {
    pub(crate) netns: Netns,
    /// The reader had CAP_NET_ADMIN over this namespace.
    pub(crate) privileged: bool,
}

/// Reads the calling thread's namespace.
pub(crate) fn read(scope: &Scope) -> Result<Reading, CollectError> {
    let mut netns = Netns { id: netns::own_id().unwrap_or_default(), ..Netns::default() };
    let mut rtnetlink = NetlinkSocket::open(NetlinkFamily::Route);
    let privileged = match &mut rtnetlink {
        Ok(rtnetlink) => {
            read_routing(&mut netns, rtnetlink);
            read_netconf(&mut netns, rtnetlink);
            capability::net_admin(rtnetlink)
        }
        Err(error) => {
            let error = ReadError::no_socket("open a netlink socket", error);
            netns.gaps.extend(ROUTING.map(|subject| error.gap(subject)));
            false
        }
    };
    sysctl::read(&mut netns);
    match &mut rtnetlink {
        Ok(rtnetlink) => read_filters(&mut netns, Some(rtnetlink), scope.filters),
        Err(_) => read_filters(&mut netns, None, scope.filters),
    }
    // A rule may send what is for one port to the server of another.
    let sockets = match scope.sockets {
        SocketScope::Port(..) if netns.firewall.may_translate() => SocketScope::All,
        asked_for => asked_for,
    };
    socket::read(&mut netns, sockets, privileged);
    match rtnetlink {
        // Neither side of any question can be seen.
        Err(cause) if netns.sockets.is_empty() => Err(CollectError::Netlink { cause }),
        _ => Ok(Reading { netns, privileged }),
    }
}

/// A machine that is being set up right now is given this many chances to be done with it.
const ATTEMPTS: u32 = 3;

/// What rtnetlink alone knows.
const ROUTING: [GapSubject; 10] = [
    GapSubject::Links,
    GapSubject::Addresses(Family::Ipv4),
    GapSubject::Addresses(Family::Ipv6),
    GapSubject::Routes(Family::Ipv4),
    GapSubject::Routes(Family::Ipv6),
    GapSubject::PolicyRules(Family::Ipv4),
    GapSubject::PolicyRules(Family::Ipv6),
    GapSubject::Neighbors,
    GapSubject::FibLayout,
    GapSubject::Xdp,
];

/// Reads links, addresses, routes and rules: again, where they changed together meanwhile.
fn read_routing(netns: &mut Netns, rtnetlink: &mut NetlinkSocket) {
    let watch = ChangeWatch::start();
    for attempt in 1..=ATTEMPTS {
        let mut reading = Netns { id: netns.id, ..Netns::default() };
        read_links(&mut reading, rtnetlink);
        read_addresses(&mut reading, rtnetlink);
        read_routes(&mut reading, rtnetlink);
        read_policy_rules(&mut reading, rtnetlink);
        read_neighbors(&mut reading, rtnetlink);
        *netns = reading;
        let torn = watch.as_ref().map(ChangeWatch::torn).unwrap_or_default();
        if torn.is_empty() {
            return;
        }
        if attempt == ATTEMPTS {
            netns.gaps.extend(torn.into_iter().map(|subject| Gap {
                subject,
                reason: GapReason::ChangedWhileReading,
                detail: format!("it changed with others during each of {ATTEMPTS} attempts"),
            }));
        }
    }
}

fn read_links(netns: &mut Netns, rtnetlink: &mut NetlinkSocket) {
    let (rows, error) = rtnetlink.dump("dump links", link::GET, &link::request(), link::decode);
    netns.gaps.extend(error.map(|error| error.gap(GapSubject::Links)));
    netns.links.reserve(rows.len());
    for LinkRow { link, sysctls, xdp } in rows {
        netns.sysctls.links.insert(link.name.clone(), sysctls);
        netns.bpf.extend(xdp);
        netns.links.push(link);
    }
    // Policy rules and snapshots name links by number; the kernel dumps them by hash bucket.
    netns.links.sort_by_key(|link| link.ifindex);
    wireless::read(&mut netns.links);
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
    let statistics = directory::read_text_piece(fib_layout::PATH)
        .map_err(|error| gap(os_reason(&error), format!("read {}: {error}", fib_layout::PATH)))?;
    netns.fib_layout = fib_layout::judge(&statistics, &netns.routes).ok_or_else(|| {
        let detail = format!("{} counts other routes than the dump holds", fib_layout::PATH);
        gap(GapReason::ChangedWhileReading, detail)
    })?;
    Ok(())
}

/// Sysctls of `all`, as far as rtnetlink has them. What is missing is read from /proc.
fn read_netconf(netns: &mut Netns, rtnetlink: &mut NetlinkSocket) {
    for family in Family::BOTH {
        let request = netconf::request(family);
        let decode = |message: &Message<'_>| netconf::decode(family, message);
        if let Ok(Some(values)) = rtnetlink.ask("ask for sysctls", netconf::GET, &request, decode) {
            netns.sysctls.all.extend(values);
        }
    }
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

/// What says that filters were not looked for.
const FILTERS: [GapSubject; 9] = [
    GapSubject::NftRuleset,
    GapSubject::LegacyTables(Family::Ipv4),
    GapSubject::LegacyTables(Family::Ipv6),
    GapSubject::Ipsets,
    GapSubject::Xdp,
    GapSubject::Tc,
    GapSubject::CgroupBpf,
    GapSubject::SkLookup,
    GapSubject::NetfilterBpf,
];

fn read_filters(netns: &mut Netns, rtnetlink: Option<&mut NetlinkSocket>, wanted: bool) {
    if wanted {
        bpf::read(netns, rtnetlink);
        netns.firewall = firewall::presence::read(&mut netns.gaps);
        netns.firewall.hook_list = firewall::presence::read_hooks(&netns.links);
        return;
    }
    netns.bpf.clear();
    netns.gaps.extend(FILTERS.map(|subject| Gap {
        subject,
        reason: GapReason::NotRead,
        detail: "packet filters were not asked for".to_owned(),
    }));
}

//! Routes of every table (RTM_NEWROUTE).

use std::net::IpAddr;

use canreach_snapshot::{
    Family, Ifindex, NextHop, NextHopFlags, NexthopObject, Prefix, Route, RouteProtocol, RouteType,
    Scope, TableId,
};

use super::attr::{Attribute, Attributes, Malformed, family_of, split_header};
use super::message::Message;

/// `RTM_GETROUTE`; its answers are `RTM_NEWROUTE`.
pub(crate) const GET: u16 = 26;

/// `struct rtmsg`, zeroed: every table of every family.
pub(crate) const REQUEST: [u8; 12] = [0; 12];

/// `RTM_F_CLONED`: an entry of a route cache, not of a table.
const CACHED_FLAG: u32 = 0x200;

const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const OUT_LINK: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const PREFERRED_SOURCE: u16 = 7;
const MULTIPATH: u16 = 9;
const FLOW: u16 = 11;
const TABLE: u16 = 15;
const VIA: u16 = 18;
const PREFERENCE: u16 = 20;
const ENCAP_TYPE: u16 = 21;
const NEXTHOP_ID: u16 = 30;

/// Decodes one route; `None` for cached entries and for families the model does not have.
pub(crate) fn decode(message: &Message<'_>) -> Result<Option<Route>, Malformed> {
    let (header, attributes) = split_header::<12>(message.kind, message.payload)?;
    let [family, destination_length, source_length, tos, table, protocol, scope, kind, flags @ ..] =
        *header;
    let flags = u32::from_ne_bytes(flags);
    let Some(family) = family_of(family).filter(|_| flags & CACHED_FLAG == 0) else {
        return Ok(None);
    };
    let length = |length: u8, address: IpAddr| {
        Prefix::new(address, length).map(Prefix::network).ok_or_else(|| Malformed {
            what: "prefix length of route in message",
            number: message.kind,
            length: usize::from(length),
            wanted: usize::from(family.bits()),
        })
    };
    let mut route = Route {
        table: TableId(u32::from(table)),
        kind: route_type(kind),
        destination: Prefix::all(family),
        source: None,
        tos,
        scope: Scope(scope),
        protocol: RouteProtocol(protocol),
        metric: 0,
        preferred_source: None,
        preference: None,
        flags,
        nexthops: Vec::new(),
        nexthop_id: None,
        realm: None,
    };
    let mut single = Way::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            DESTINATION => {
                route.destination = length(destination_length, attribute.address(family)?)?;
            }
            SOURCE => route.source = Some(length(source_length, attribute.address(family)?)?),
            PRIORITY => route.metric = attribute.u32()?,
            PREFERRED_SOURCE => route.preferred_source = Some(attribute.address(family)?),
            MULTIPATH => multipath(&mut route, attribute.payload, family)?,
            TABLE => route.table = TableId(attribute.u32()?),
            PREFERENCE => route.preference = Some(attribute.u8()?),
            NEXTHOP_ID => route.nexthop_id = Some(attribute.u32()?),
            _ => single.read(attribute, family)?,
        }
    }
    route.realm = route.realm.or(single.realm);
    if !leads_somewhere(route.kind) {
        // IPv6 notes `dev lo` at routes that refuse; they lead nowhere all the same.
        route.nexthops.clear();
    } else if route.nexthops.is_empty() && !single.is_empty() {
        route.nexthops.push(single.into_nexthop(1, flags as u8));
    }
    Ok(Some(route))
}

/// Fills in the ways of routes that only name a nexthop object, as the kernel prints them with
/// `net.ipv4.nexthop_compat_mode` off. `objects` are in ascending order, as the kernel dumps them.
pub(crate) fn resolve_objects(routes: &mut [Route], objects: &[NexthopObject]) {
    let find = |id: u32| {
        objects.binary_search_by_key(&id, |object| object.id).ok().and_then(|at| objects.get(at))
    };
    let way = |object: &NexthopObject, weight: u16| NextHop {
        ifindex: object.ifindex,
        gateway: object.gateway,
        weight,
        flags: object.flags,
        encapsulated: object.encapsulated,
    };
    for route in routes.iter_mut().filter(|route| route.nexthops.is_empty()) {
        let Some(object) = route.nexthop_id.and_then(find) else { continue };
        if object.blackhole {
            route.kind = RouteType::Blackhole;
        } else if object.group.is_empty() {
            route.nexthops.push(way(object, 1));
        } else {
            let members = object.group.iter();
            route.nexthops.extend(members.filter_map(|&(id, weight)| Some(way(find(id)?, weight))));
        }
    }
}

/// The parts of one way out, as they are met.
#[derive(Default)]
struct Way {
    ifindex: Option<Ifindex>,
    gateway: Option<IpAddr>,
    encapsulated: bool,
    realm: Option<u32>,
}

impl Way {
    fn read(&mut self, attribute: Attribute<'_>, family: Family) -> Result<(), Malformed> {
        match attribute.kind {
            OUT_LINK => self.ifindex = Some(Ifindex(attribute.u32()?)),
            GATEWAY => self.gateway = Some(attribute.address(family)?),
            VIA => self.gateway = via(attribute)?,
            ENCAP_TYPE => self.encapsulated = attribute.u16()? != 0,
            FLOW => self.realm = Some(attribute.u32()?).filter(|&realm| realm != 0),
            _ => {}
        }
        Ok(())
    }

    const fn is_empty(&self) -> bool {
        self.ifindex.is_none() && self.gateway.is_none() && !self.encapsulated
    }

    const fn into_nexthop(self, weight: u16, flags: u8) -> NextHop {
        NextHop {
            ifindex: self.ifindex,
            gateway: self.gateway,
            weight,
            flags: NextHopFlags(flags),
            encapsulated: self.encapsulated,
        }
    }
}

/// `struct rtvia`: a gateway of another family than the route's.
fn via(attribute: Attribute<'_>) -> Result<Option<IpAddr>, Malformed> {
    let family = attribute.bytes::<2>().map(u16::from_ne_bytes)?;
    let Some(family) = u8::try_from(family).ok().and_then(family_of) else { return Ok(None) };
    let address =
        Attribute { payload: attribute.payload.get(2..).unwrap_or_default(), ..attribute };
    address.address(family).map(Some)
}

/// An array of `struct rtnexthop`, each followed by attributes of its own.
fn multipath(route: &mut Route, mut rest: &[u8], family: Family) -> Result<(), Malformed> {
    const HEADER: usize = 8;
    while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
        let [l0, l1, flags, hops, index @ ..] = *header;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let attributes = rest.get(HEADER..length).ok_or_else(|| Malformed {
            what: "nexthop in attribute",
            number: MULTIPATH,
            length: rest.len(),
            wanted: length.max(HEADER),
        })?;
        let mut way = Way { ifindex: Some(Ifindex(u32::from_ne_bytes(index))), ..Way::default() };
        for attribute in Attributes::new(attributes) {
            way.read(attribute?, family)?;
        }
        route.realm = route.realm.or(way.realm);
        route.nexthops.push(way.into_nexthop(u16::from(hops) + 1, flags));
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

/// `RTN_*` of include/uapi/linux/rtnetlink.h.
const fn route_type(number: u8) -> RouteType {
    match number {
        1 => RouteType::Unicast,
        2 => RouteType::Local,
        3 => RouteType::Broadcast,
        4 => RouteType::Anycast,
        5 => RouteType::Multicast,
        6 => RouteType::Blackhole,
        7 => RouteType::Unreachable,
        8 => RouteType::Prohibit,
        9 => RouteType::Throw,
        10 => RouteType::Nat,
        other => RouteType::Other(other),
    }
}

const fn leads_somewhere(kind: RouteType) -> bool {
    !matches!(
        kind,
        RouteType::Blackhole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw
    )
}

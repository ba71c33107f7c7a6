//! Our decoders against those of netlink-packet-route, an independent work, on the same namespace.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily as Family, RouteNetlinkMessage as Message};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with};

use crate::namespace::Namespace;

const BUSY: &str = "link set lo up
link add left type veth peer name right
link add name br type bridge
link set right master br
link set left up mtu 1400 group 3
link set right up
address add 192.0.2.1/24 dev left
address add 198.51.100.1 peer 198.51.100.2/32 dev left
address add 2001:db8::1/64 dev left nodad
route add 10.1.0.0/16 via 192.0.2.2 metric 50 table 1000
route add 10.2.0.0/16 nexthop via 192.0.2.2 weight 3 nexthop via 192.0.2.3
route add blackhole 10.3.0.0/16
route add 2001:db8:5::/48 via 2001:db8::2
rule add priority 10 not from 10.0.0.0/8 iif lo lookup 77
rule add priority 11 fwmark 0x5/0xf lookup 1000
";

/// Dumps with the other crate.
fn dump(request: Message) -> Vec<Message> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
        .expect("netlink is there");
    let payload = NetlinkPayload::from(request);
    let mut packet = NetlinkMessage::new(NetlinkHeader::default(), payload);
    packet.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    rustix::net::send(&socket, &bytes, SendFlags::empty()).expect("the kernel takes it");
    let mut rows = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (_, length) = rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())
            .expect("the kernel answers");
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message: NetlinkMessage<Message> =
                NetlinkMessage::deserialize(rest).expect("it understands this kernel");
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(row) => rows.push(row),
                NetlinkPayload::Done(_) => return rows,
                other => panic!("{other:?}"),
            }
        }
    }
}

fn ip(address: &RouteAddress) -> IpAddr {
    match address {
        RouteAddress::Inet(v4) => (*v4).into(),
        RouteAddress::Inet6(v6) => (*v6).into(),
        other => panic!("{other:?}"),
    }
}

type Row = Vec<String>;

fn links() -> BTreeSet<Row> {
    let row = |message: LinkMessage| {
        let mut row =
            vec![message.header.index.to_string(), message.header.flags.bits().to_string()];
        let mut rest = BTreeSet::new();
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => drop(rest.insert(format!("name {name}"))),
                LinkAttribute::Mtu(mtu) => drop(rest.insert(format!("mtu {mtu}"))),
                LinkAttribute::Group(group) => drop(rest.insert(format!("group {group}"))),
                LinkAttribute::Controller(at) => drop(rest.insert(format!("master {at}"))),
                LinkAttribute::Address(mac) => drop(rest.insert(format!("mac {mac:?}"))),
                _ => {}
            }
        }
        row.extend(rest);
        row
    };
    let rows = dump(Message::GetLink(LinkMessage::default())).into_iter();
    rows.map(|message| match message {
        Message::NewLink(message) => row(message),
        other => panic!("{other:?}"),
    })
    .collect()
}

fn addresses() -> BTreeSet<Row> {
    let row = |message: AddressMessage| {
        let (mut own, mut other) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(address) => own = Some(address),
                AddressAttribute::Address(address) => other = Some(address),
                _ => {}
            }
        }
        let own = own.or(other).expect("each has one");
        let peer = other.filter(|peer| *peer != own);
        vec![
            message.header.index.to_string(),
            format!("{own}/{}", message.header.prefix_len),
            format!("{peer:?}"),
        ]
    };
    let rows = dump(Message::GetAddress(AddressMessage::default())).into_iter();
    rows.map(|message| match message {
        Message::NewAddress(message) => row(message),
        other => panic!("{other:?}"),
    })
    .collect()
}

fn routes() -> BTreeSet<Row> {
    let row = |message: RouteMessage| {
        let mut to = None;
        let (mut table, mut metric) = (u32::from(message.header.table), 0);
        let mut gateways = Vec::new();
        let gateway = |attributes: &[RouteAttribute]| {
            attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Gateway(address) => Some(ip(address)),
                _ => None,
            })
        };
        gateways.extend(gateway(&message.attributes));
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => to = Some(ip(address)),
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Priority(number) => metric = *number,
                RouteAttribute::MultiPath(ways) => {
                    gateways.extend(ways.iter().filter_map(|way| gateway(&way.attributes)));
                }
                _ => {}
            }
        }
        let to = to.map_or_else(|| "any".to_owned(), |to| to.to_string());
        let length = message.header.destination_prefix_length;
        vec![format!("{to}/{length} table {table} metric {metric} {gateways:?}")]
    };
    let rows = dump(Message::GetRoute(RouteMessage::default())).into_iter();
    rows.map(|message| match message {
        Message::NewRoute(message) => row(message),
        other => panic!("{other:?}"),
    })
    .collect()
}

fn rules() -> Vec<Row> {
    let row = |message: RuleMessage| {
        let (mut priority, mut mark) = (0, 0);
        let (mut source, mut iif) = (None, None);
        let mut table = u32::from(message.header.table);
        for attribute in message.attributes {
            match attribute {
                RuleAttribute::Priority(number) => priority = number,
                RuleAttribute::FwMark(number) => mark = number,
                RuleAttribute::Source(address) => source = Some(address),
                RuleAttribute::Iifname(name) => iif = Some(name),
                RuleAttribute::Table(number) => table = number,
                _ => {}
            }
        }
        vec![format!("{priority} {source:?} {iif:?} mark {mark} lookup {table}")]
    };
    let rows = dump(Message::GetRule(RuleMessage::default())).into_iter();
    // Multicast routing has rules of its own, which are none of the model's.
    let unicast = |family| matches!(family, Family::Inet | Family::Inet6);
    rows.filter_map(|message| match message {
        Message::NewRule(message) => unicast(message.header.family).then(|| row(message)),
        other => panic!("{other:?}"),
    })
    .collect()
}

#[test]
fn two_decoders_read_the_same() {
    let Some(namespace) = Namespace::new() else { return };
    namespace.ip(BUSY);
    let netns = namespace.read_settled();
    let (links, addresses, routes, rules) =
        namespace.inside(|| (links(), addresses(), routes(), rules()));

    let ours = netns.links.iter().map(|link| {
        let mut rest = BTreeSet::from([
            format!("name {}", link.name),
            format!("mtu {}", link.mtu),
            format!("group {}", link.group),
        ]);
        rest.extend(link.master.map(|master| format!("master {}", master.0)));
        rest.extend(link.mac.map(|mac| format!("mac {:?}", mac.0)));
        let mut row = vec![link.ifindex.0.to_string(), link.flags.0.to_string()];
        row.extend(rest);
        row
    });
    assert_eq!(ours.collect::<BTreeSet<_>>(), links);

    let ours = netns.addresses.iter().map(|row| {
        vec![row.ifindex.0.to_string(), row.prefix.to_string(), format!("{:?}", row.peer)]
    });
    assert_eq!(ours.collect::<BTreeSet<_>>(), addresses);

    let ours = netns.routes.iter().map(|route| {
        let gateways: Vec<_> = route.nexthops.iter().filter_map(|way| way.gateway).collect();
        let to = match route.destination.length() {
            0 => "any/0".to_owned(),
            _ => route.destination.to_string(),
        };
        vec![format!("{to} table {} metric {} {gateways:?}", route.table.0, route.metric)]
    });
    assert_eq!(ours.collect::<BTreeSet<_>>(), routes);

    let ours = netns.policy_rules.iter().map(|rule| {
        let table = match rule.action {
            canreach_snapshot::PolicyAction::Lookup(table) => table.0,
            other => panic!("{other:?}"),
        };
        let source = rule.source.map(|prefix| prefix.address());
        vec![format!(
            "{} {source:?} {:?} mark {} lookup {table}",
            rule.priority, rule.iif, rule.mark
        )]
    });
    assert_eq!(ours.collect::<Vec<_>>(), rules);
}

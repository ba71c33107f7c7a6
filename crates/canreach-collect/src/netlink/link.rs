//! Links (RTM_NEWLINK), their sysctls, and XDP programs on them: one dump holds all three.

use std::collections::BTreeMap;

use canreach_snapshot::{
    AttachPoint, BpfAttachment, Ifindex, Link, LinkFlags, LinkKind, LinkSysctl, MacAddress,
    OperState, TableId,
};

use super::attr::{Attribute, Malformed, push, split_header};
use super::message::Message;

/// `RTM_GETLINK`; its answers are `RTM_NEWLINK`.
pub(crate) const GET: u16 = 18;

/// `RTEXT_FILTER_SKIP_STATS`: counters are half of each message and of no use here.
const SKIP_COUNTERS: u32 = 1 << 3;

const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const LOWER: u16 = 5;
const MASTER: u16 = 10;
const OPERSTATE: u16 = 16;
const LINK_INFO: u16 = 18;
const AF_SPECIFIC: u16 = 26;
const GROUP: u16 = 27;
const EXTRA_MASK: u16 = 29;
const LOWER_NETNS: u16 = 37;
const XDP: u16 = 43;
const PARENT_DEVICE: u16 = 56;

/// Inside `IFLA_LINKINFO`.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
/// Inside `IFLA_INFO_DATA` of a VRF.
const VRF_TABLE: u16 = 1;
/// Inside `IFLA_AF_SPEC`: the family; inside that: the array.
const INET: u16 = 2;
const INET6: u16 = 10;
const INET_CONF: u16 = 1;
const INET6_CONF: u16 = 2;
/// Inside `IFLA_XDP`.
const XDP_ATTACHED: u16 = 2;
const XDP_PROGRAM: [u16; 4] = [4, 5, 6, 7];

/// Hardware types (include/uapi/linux/if_arp.h) that say what a link without a kind is.
pub(crate) const ARPHRD_ETHER: u16 = 1;
const ARPHRD_PPP: u16 = 512;
const ARPHRD_LOOPBACK: u16 = 772;
const ARPHRD_IEEE80211: u16 = 801;

/// A link with what its message holds besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkRow {
    pub(crate) link: Link,
    pub(crate) sysctls: BTreeMap<LinkSysctl, i64>,
    pub(crate) xdp: Vec<BpfAttachment>,
}

/// `struct ifinfomsg`, zeroed, without counters.
pub(crate) fn request() -> Vec<u8> {
    let mut request = vec![0; 16];
    push(&mut request, EXTRA_MASK, &SKIP_COUNTERS.to_ne_bytes());
    request
}

/// Decodes one link.
pub(crate) fn decode(message: &Message<'_>) -> Result<Option<LinkRow>, Malformed> {
    let (header, attributes) = split_header::<16>(message.kind, message.payload)?;
    let [_, _, t0, t1, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
    let ifindex = Ifindex(u32::from_ne_bytes([i0, i1, i2, i3]));
    let mut link = blank(ifindex, LinkFlags(u32::from_ne_bytes([f0, f1, f2, f3])));
    let mut kind = None;
    let mut sysctls = BTreeMap::new();
    let mut xdp = Vec::new();
    let mut has_parent = false;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            ADDRESS => link.mac = attribute.payload.try_into().ok().map(MacAddress),
            NAME => link.name = attribute.text(),
            MTU => link.mtu = attribute.u32()?,
            // Links above nothing print themselves or 0 here.
            LOWER => link.lower = Some(Ifindex(attribute.u32()?)),
            MASTER => link.master = Some(Ifindex(attribute.u32()?)),
            OPERSTATE => link.operstate = operstate(attribute.u8()?),
            LINK_INFO => (kind, link.vrf_table) = info(attribute)?,
            AF_SPECIFIC => devconf(&mut sysctls, attribute)?,
            GROUP => link.group = attribute.u32()?,
            LOWER_NETNS => link.lower_nsid = Some(attribute.i32()?),
            XDP => programs(&mut xdp, ifindex, attribute)?,
            PARENT_DEVICE => has_parent = true,
            _ => {}
        }
    }
    // Without a namespace of its own, 0 and the link's own index both mean nothing below.
    let below_nothing = [Ifindex(0), ifindex];
    if link.lower_nsid.is_none() {
        link.lower = link.lower.filter(|lower| !below_nothing.contains(lower));
    }
    let by_driver = kind.is_none();
    // The name of the parent is a kernel's own answer since 5.14; a link with a kind is made by
    // software even where its driver notes a parent.
    link.physical = Some(by_driver && has_parent);
    link.kind = kind.unwrap_or_else(|| kind_by_hardware(u16::from_ne_bytes([t0, t1])));
    Ok(Some(LinkRow { link, sysctls, xdp }))
}

const fn blank(ifindex: Ifindex, flags: LinkFlags) -> Link {
    Link {
        ifindex,
        name: String::new(),
        kind: LinkKind::Ethernet,
        flags,
        operstate: OperState::Unknown,
        mtu: 0,
        group: 0,
        mac: None,
        master: None,
        lower: None,
        lower_nsid: None,
        vrf_table: None,
        physical: None,
        wireless: None,
    }
}

/// `IFLA_LINKINFO`: the kind, and the table of a VRF.
fn info(attribute: Attribute<'_>) -> Result<(Option<LinkKind>, Option<TableId>), Malformed> {
    let mut kind = None;
    let mut table = None;
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            INFO_KIND => kind = Some(kind_by_name(attribute.text())),
            // The kernel writes the kind before the data (net/core/rtnetlink.c).
            INFO_DATA if kind == Some(LinkKind::Vrf) => {
                for attribute in attribute.nested() {
                    let attribute = attribute?;
                    if attribute.kind == VRF_TABLE {
                        table = Some(TableId(attribute.u32()?));
                    }
                }
            }
            _ => {}
        }
    }
    Ok((kind, table))
}

fn kind_by_name(name: String) -> LinkKind {
    match name.as_str() {
        "bridge" => LinkKind::Bridge,
        "veth" => LinkKind::Veth,
        "tun" => LinkKind::Tun,
        "wireguard" => LinkKind::Wireguard,
        "vlan" => LinkKind::Vlan,
        "macvlan" | "macvtap" => LinkKind::Macvlan,
        "ipvlan" | "ipvtap" => LinkKind::Ipvlan,
        "bond" => LinkKind::Bond,
        "team" => LinkKind::Team,
        "vrf" => LinkKind::Vrf,
        "dummy" => LinkKind::Dummy,
        "ppp" => LinkKind::Ppp,
        _ => LinkKind::Other(name),
    }
}

fn kind_by_hardware(number: u16) -> LinkKind {
    match number {
        ARPHRD_ETHER => LinkKind::Ethernet,
        ARPHRD_PPP => LinkKind::Ppp,
        ARPHRD_LOOPBACK => LinkKind::Loopback,
        ARPHRD_IEEE80211..=803 => LinkKind::Wifi,
        other => LinkKind::Other(format!("hardware type {other}")),
    }
}

/// `IF_OPER_*` of include/uapi/linux/if.h.
const fn operstate(number: u8) -> OperState {
    match number {
        1 => OperState::NotPresent,
        2 => OperState::Down,
        3 => OperState::LowerLayerDown,
        4 => OperState::Testing,
        5 => OperState::Dormant,
        6 => OperState::Up,
        _ => OperState::Unknown,
    }
}

/// `IFLA_AF_SPEC`: the link's sysctls of both families, as arrays.
fn devconf(
    sysctls: &mut BTreeMap<LinkSysctl, i64>,
    attribute: Attribute<'_>,
) -> Result<(), Malformed> {
    for family in attribute.nested() {
        let family = family?;
        let (array, is_ipv6) = match family.kind {
            INET => (INET_CONF, false),
            INET6 => (INET6_CONF, true),
            _ => continue,
        };
        for attribute in family.nested() {
            let attribute = attribute?;
            if attribute.kind == array {
                read_array(sysctls, attribute.payload, is_ipv6);
            }
        }
    }
    Ok(())
}

fn read_array(sysctls: &mut BTreeMap<LinkSysctl, i64>, payload: &[u8], is_ipv6: bool) {
    let (values, _) = payload.as_chunks::<4>();
    for sysctl in LinkSysctl::ALL.into_iter().filter(|sysctl| sysctl.is_ipv6() == is_ipv6) {
        // IPv4's numbers count from 1. A kernel that is older than a sysctl has a shorter array.
        let index = sysctl.devconf_index() - usize::from(!is_ipv6);
        if let Some(value) = values.get(index) {
            sysctls.insert(sysctl, i64::from(i32::from_ne_bytes(*value)));
        }
    }
}

/// `IFLA_XDP`: a link may have one program in the driver, one in software and one in hardware.
fn programs(
    xdp: &mut Vec<BpfAttachment>,
    ifindex: Ifindex,
    attribute: Attribute<'_>,
) -> Result<(), Malformed> {
    let mut attached = false;
    let mut ids = Vec::new();
    for attribute in attribute.nested() {
        let attribute = attribute?;
        if attribute.kind == XDP_ATTACHED {
            attached = attribute.u8()? != 0;
        } else if XDP_PROGRAM.contains(&attribute.kind) {
            ids.push(attribute.u32()?);
        }
    }
    if attached {
        // The first number repeats one of the others when there is only one.
        ids.sort_unstable();
        ids.dedup();
        let point = AttachPoint::Xdp(ifindex);
        xdp.extend(ids.iter().map(|&id| BpfAttachment { point, program_id: Some(id), name: None }));
        if ids.is_empty() {
            xdp.push(BpfAttachment { point, program_id: None, name: None });
        }
    }
    Ok(())
}

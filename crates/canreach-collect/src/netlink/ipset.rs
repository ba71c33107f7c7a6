//! Sets of ipset (nfnetlink): every set with everything in it.
//!
//! A dump gives the sets one after the other, lists of sets last. The first message of a set has its
//! type and its settings, and the entries come in as many more messages as they need. Kernels before
//! 4.20 do not say which number a set has, by which rules know it; their sets are not read.

use std::net::IpAddr;

use canreach_snapshot::{Family, Ipset, IpsetEntry, Port, Prefix};

use super::attr::{Attribute, Attributes, Malformed, family_of, push, split_header};
use super::message::{Message, Messages};
use super::socket::NetlinkSocket;
use crate::error::ReadError;

/// `NFNL_SUBSYS_IPSET`, in the high byte of the message type.
const SUBSYSTEM: u16 = 6 << 8;
const PROTOCOL: u16 = SUBSYSTEM | 1;
/// `IPSET_CMD_LIST`, of the question and of the answers.
const LIST: u16 = SUBSYSTEM | 7;

/// `IPSET_PROTOCOL`: what is spoken here, and the first version that numbers sets.
const VERSION: u8 = 7;

/// `IPSET_ATTR_*` at the level of commands.
mod command {
    pub(super) const PROTOCOL: u16 = 1;
    pub(super) const SET_NAME: u16 = 2;
    pub(super) const TYPE_NAME: u16 = 3;
    pub(super) const REVISION: u16 = 4;
    pub(super) const FAMILY: u16 = 5;
    pub(super) const SETTINGS: u16 = 7;
    pub(super) const ENTRIES: u16 = 8;
    pub(super) const INDEX: u16 = 11;
}

/// `IPSET_ATTR_*` of settings and entries alike.
mod value {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const ADDRESS_TO: u16 = 2;
    pub(super) const LENGTH: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const PORT_TO: u16 = 5;
    pub(super) const TIMEOUT: u16 = 6;
    pub(super) const PROTOCOL: u16 = 7;
    pub(super) const FLAGS: u16 = 8;
    pub(super) const MARK: u16 = 10;
    pub(super) const MARK_MASK: u16 = 11;
    pub(super) const BITMASK: u16 = 12;
}

/// `IPSET_ATTR_*` of settings: how the set is stored, and how much is in it.
mod setting {
    pub(super) const INITIAL_VALUE: u16 = 17;
    pub(super) const HASH_SIZE: u16 = 18;
    pub(super) const MOST_ELEMENTS: u16 = 19;
    pub(super) const NETMASK: u16 = 20;
    pub(super) const BUCKET_SIZE: u16 = 21;
    pub(super) const RESIZE: u16 = 22;
    pub(super) const SIZE: u16 = 23;
    pub(super) const ELEMENTS: u16 = 24;
    pub(super) const REFERENCES: u16 = 25;
    pub(super) const MEMORY_SIZE: u16 = 26;
}

/// `IPSET_ATTR_*` of entries.
mod entry {
    pub(super) const MAC: u16 = 17;
    pub(super) const NAME: u16 = 18;
    pub(super) const SECOND: u16 = 20;
    pub(super) const SECOND_LENGTH: u16 = 21;
    pub(super) const LINK: u16 = 23;
    pub(super) const BYTES: u16 = 24;
    pub(super) const PACKETS: u16 = 25;
    pub(super) const COMMENT: u16 = 26;
    pub(super) const MAP_MARK: u16 = 27;
    pub(super) const MAP_PRIORITY: u16 = 28;
    pub(super) const MAP_QUEUE: u16 = 29;
    pub(super) const PADDING: u16 = 30;
}

/// `IPSET_FLAG_PHYSDEV`.
const BRIDGE_PORT: u32 = 1 << 1;
/// `IPSET_FLAG_NOMATCH`.
const NOMATCH: u32 = 1 << 2;
/// `IPSET_FLAG_IFACE_WILDCARD`.
const WILDCARD: u32 = 1 << 7;

/// The types that are understood.
const TYPES: [&str; 16] = [
    "bitmap:ip",
    "bitmap:ip,mac",
    "bitmap:port",
    "hash:ip",
    "hash:ip,mac",
    "hash:ip,mark",
    "hash:ip,port",
    "hash:ip,port,ip",
    "hash:ip,port,net",
    "hash:mac",
    "hash:net",
    "hash:net,iface",
    "hash:net,net",
    "hash:net,port",
    "hash:net,port,net",
    "list:set",
];

/// Entries that room is made for before they come; the kernel says how many there are.
const LARGEST_RESERVE: u32 = 1 << 22;

/// Reads all sets. `None` where the kernel has no ipset.
pub(crate) fn read(nfnetlink: &mut NetlinkSocket) -> Result<Option<Vec<Ipset>>, ReadError> {
    const OPERATION: &str = "dump ipsets";
    let version = nfnetlink.ask("ask for ipset", PROTOCOL, &request(), |message| {
        let (_, attributes) = split_header::<4>(message.kind, message.payload)?;
        for attribute in attributes {
            let attribute = attribute?;
            if attribute.kind == command::PROTOCOL {
                return attribute.u8().map(Some);
            }
        }
        Ok(None)
    });
    match version {
        Ok(Some(VERSION..)) => {}
        Ok(_) => {
            let too_old = std::io::Error::from_raw_os_error(libc::EOPNOTSUPP);
            return Err(ReadError::os(OPERATION, too_old));
        }
        // No such part of netfilter (net/netfilter/nfnetlink.c, `nfnetlink_rcv_msg`).
        Err(ReadError::Os { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let (parts, error) = nfnetlink.dump(OPERATION, LIST, &request(), decode);
    error.map_or_else(|| Ok(Some(join(parts))), Err)
}

/// `struct nfgenmsg`, zeroed, and the version that is spoken.
fn request() -> Vec<u8> {
    let mut request = vec![0; 4];
    push(&mut request, command::PROTOCOL, &[VERSION]);
    request
}

/// What one message holds: the start of a set, or more of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetPart {
    set: Ipset,
    /// It has the settings.
    first: bool,
    /// How many entries there are in all.
    elements: u32,
}

/// Puts the sets together.
fn join(parts: impl IntoIterator<Item = SetPart>) -> Vec<Ipset> {
    let mut sets: Vec<Ipset> = Vec::new();
    for SetPart { mut set, first, elements } in parts {
        if first {
            let more = elements.min(LARGEST_RESERVE) as usize;
            set.entries.reserve_exact(more.saturating_sub(set.entries.len()));
            sets.push(set);
        } else if let Some(known) = sets.last_mut() {
            known.opaque |= set.opaque;
            known.entries.append(&mut set.entries);
        }
    }
    sets
}

/// The sets of a datagram, for captured or made-up bytes: reading a machine puts all messages of a dump
/// together. Messages that do not hold what they say they hold are passed over.
#[must_use]
pub fn sets(datagram: &[u8]) -> Vec<Ipset> {
    let of_sets = |message: &Message<'_>| message.kind == LIST;
    let messages = Messages::new(datagram).map_while(Result::ok).filter(of_sets);
    join(messages.filter_map(|message| decode(&message).ok().flatten()))
}

/// Decodes one message.
fn decode(message: &Message<'_>) -> Result<Option<SetPart>, Malformed> {
    let (_, attributes) = split_header::<4>(message.kind, message.payload)?;
    let set = Ipset {
        index: 0,
        name: String::new(),
        type_name: String::new(),
        revision: 0,
        family: None,
        timeout_s: None,
        netmask: None,
        bitmask: None,
        markmask: None,
        range: None,
        entries: Vec::new(),
        opaque: false,
    };
    let mut part = SetPart { set, first: false, elements: 0 };
    let mut numbered = false;
    for attribute in attributes {
        let attribute = attribute?;
        let set = &mut part.set;
        match attribute.kind {
            command::SET_NAME => set.name = attribute.text(),
            command::TYPE_NAME => {
                part.first = true;
                set.type_name = attribute.text();
                set.opaque |= !TYPES.contains(&set.type_name.as_str());
            }
            command::REVISION => set.revision = attribute.u8()?,
            command::FAMILY => set.family = family_of(attribute.u8()?),
            command::INDEX => {
                numbered = true;
                set.index = be16(attribute)?;
            }
            command::SETTINGS => read_settings(&mut part, attribute.nested())?,
            command::ENTRIES => {
                for row in attribute.nested() {
                    let (entry, known) = read_entry(row?.nested())?;
                    set.opaque |= !known;
                    set.entries.push(entry);
                }
            }
            _ => {}
        }
    }
    // Without its number no rule leads to it.
    part.set.opaque |= part.first && !numbered;
    Ok(Some(part))
}

fn be16(attribute: Attribute<'_>) -> Result<u16, Malformed> {
    attribute.bytes().map(u16::from_be_bytes)
}

/// `IPSET_ATTR_IPADDR_IPV4`, `IPSET_ATTR_IPADDR_IPV6`, in an attribute of its own. `None` for what is
/// neither.
fn read_address(attribute: Attribute<'_>) -> Result<Option<IpAddr>, Malformed> {
    let Some(address) = attribute.nested().next().transpose()? else { return Ok(None) };
    Ok(match address.kind {
        1 => Some(address.address(Family::Ipv4)?),
        2 => Some(address.address(Family::Ipv6)?),
        _ => None,
    })
}

/// The first and the last of a bitmap, as one number each.
fn read_bound(attribute: Attribute<'_>) -> Result<Option<u32>, Malformed> {
    Ok(match read_address(attribute)? {
        Some(IpAddr::V4(address)) => Some(address.to_bits()),
        Some(IpAddr::V6(_)) | None => None,
    })
}

fn read_settings(part: &mut SetPart, attributes: Attributes<'_>) -> Result<(), Malformed> {
    let set = &mut part.set;
    let (mut first, mut last) = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            value::ADDRESS => first = read_bound(attribute)?,
            value::ADDRESS_TO => last = read_bound(attribute)?,
            value::PORT => first = Some(u32::from(be16(attribute)?)),
            value::PORT_TO => last = Some(u32::from(be16(attribute)?)),
            // Without one of its own an entry stays.
            value::TIMEOUT => set.timeout_s = Some(attribute.be32()?).filter(|time| *time != 0),
            // In the machine's order, unlike all else (ip_set_hash_gen.h, `mtype_head`).
            value::MARK_MASK => set.markmask = Some(attribute.u32()?),
            value::BITMASK => {
                set.bitmask = read_address(attribute)?;
                set.opaque |= set.bitmask.is_none();
            }
            setting::NETMASK => set.netmask = Some(attribute.u8()?),
            setting::ELEMENTS => part.elements = attribute.be32()?,
            // Whether there are counters, comments and so on.
            value::FLAGS
            | setting::INITIAL_VALUE
            | setting::HASH_SIZE
            | setting::MOST_ELEMENTS
            | setting::BUCKET_SIZE
            | setting::RESIZE
            | setting::SIZE
            | setting::REFERENCES
            | setting::MEMORY_SIZE => {}
            _ => set.opaque = true,
        }
    }
    set.range = first.zip(last);
    set.opaque |= set.type_name.starts_with("bitmap:") && set.range.is_none();
    Ok(())
}

/// An entry, and whether all of it is understood.
fn read_entry(attributes: Attributes<'_>) -> Result<(IpsetEntry, bool), Malformed> {
    let mut row = IpsetEntry::default();
    let (mut address, mut length) = (None, None);
    let (mut second, mut second_length) = (None, None);
    let (mut port, mut flags) = (None, 0);
    let mut known = true;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            value::ADDRESS => {
                address = read_address(attribute)?;
                known &= address.is_some();
            }
            entry::SECOND => {
                second = read_address(attribute)?;
                known &= second.is_some();
            }
            value::LENGTH => length = Some(attribute.u8()?),
            entry::SECOND_LENGTH => second_length = Some(attribute.u8()?),
            value::PORT => port = Some(Port(be16(attribute)?)),
            value::PROTOCOL => row.protocol = Some(attribute.u8()?),
            value::MARK => row.mark = Some(attribute.be32()?),
            entry::MAC => row.mac = Some(attribute.bytes()?),
            entry::LINK => row.iface = Some((attribute.text(), false)),
            entry::NAME => row.set = Some(attribute.text()),
            value::TIMEOUT => row.expires_s = Some(attribute.be32()?).filter(|time| *time != 0),
            value::FLAGS => flags = attribute.be32()?,
            // Counts, what people wrote, and what a rule of the SET target gives to packets.
            entry::BYTES
            | entry::PACKETS
            | entry::COMMENT
            | entry::MAP_MARK
            | entry::MAP_PRIORITY
            | entry::MAP_QUEUE
            | entry::PADDING => {}
            _ => known = false,
        }
    }
    row.network = network(address, length);
    row.second = network(second, second_length);
    known &= row.network.is_some() == address.is_some();
    known &= row.second.is_some() == second.is_some();
    row.ports = port.map(|port| (port, port));
    row.nomatch = flags & NOMATCH != 0;
    row.iface_wildcard = flags & WILDCARD != 0;
    if let Some((_, port_of_bridge)) = &mut row.iface {
        *port_of_bridge = flags & BRIDGE_PORT != 0;
    }
    known &= flags & !(NOMATCH | BRIDGE_PORT | WILDCARD) == 0;
    Ok((row, known))
}

/// An address, or a network where there is a length.
fn network(address: Option<IpAddr>, length: Option<u8>) -> Option<Prefix> {
    let address = address?;
    Prefix::new(address, length.unwrap_or_else(|| Family::of(address).bits()))
}

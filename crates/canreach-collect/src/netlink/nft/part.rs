//! One message of the ruleset, decoded by what it is about.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::{Chain, Element, Flowtable, Object, Rule, Set, Table};

use super::super::attr::{Attribute, Malformed, split_header};
use super::super::message::Message;
use super::field::Fields;
use super::{chain, comment, element, expr, object, set};

/// `NFNL_SUBSYS_NFTABLES`, in the high byte of the message type. Numbers go by object: new, get, delete.
const SUBSYSTEM: u16 = 10 << 8;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
pub(super) const NEW_SET: u16 = SUBSYSTEM | 9;
pub(super) const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
pub(super) const NEW_OBJECT: u16 = SUBSYSTEM | 18;
pub(super) const NEW_FLOWTABLE: u16 = SUBSYSTEM | 22;
pub(super) const GET_GENERATION: u16 = SUBSYSTEM | 16;

/// What one message holds. The names beside the object are those of what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A table, still empty.
    Table(Table),
    /// A chain of a table, still empty.
    Chain(NfFamily, String, Chain),
    /// A rule of a table and a chain. The kernel sends a chain's rules in order.
    Rule(NfFamily, String, String, Rule),
    /// A set of a table, still empty.
    Set(NfFamily, String, Set),
    /// Elements of a table and a set.
    Elements(NfFamily, String, String, Vec<Element>),
    /// An object of a table.
    Object(NfFamily, String, Object),
    /// A flowtable of a table.
    Flowtable(NfFamily, String, Flowtable),
}

/// `NFPROTO_*` of include/uapi/linux/netfilter.h. nftables has no tables of others.
pub(crate) const fn family(number: u8) -> Option<NfFamily> {
    Some(match number {
        1 => NfFamily::Inet,
        2 => NfFamily::Ip,
        3 => NfFamily::Arp,
        5 => NfFamily::Netdev,
        7 => NfFamily::Bridge,
        10 => NfFamily::Ip6,
        _ => return None,
    })
}

/// The other way around.
pub(crate) const fn family_number(family: NfFamily) -> u8 {
    match family {
        NfFamily::Inet => 1,
        NfFamily::Ip => 2,
        NfFamily::Arp => 3,
        NfFamily::Netdev => 5,
        NfFamily::Bridge => 7,
        NfFamily::Ip6 => 10,
    }
}

/// Decodes a message; `None` for those about something else.
pub(crate) fn decode(message: &Message<'_>) -> Result<Option<Part>, Malformed> {
    /// `NFTA_*_TABLE` of everything but tables.
    const TABLE: u16 = 1;
    let (header, attributes) = split_header::<4>(message.kind, message.payload)?;
    let [number, ..] = *header;
    let Some(family) = family(number) else { return Ok(None) };
    let fields = Fields::read(attributes)?;
    let table = || fields.text(TABLE).unwrap_or_default();
    Ok(Some(match message.kind {
        NEW_TABLE => Part::Table(decode_table(&fields, family)?),
        NEW_CHAIN => Part::Chain(family, table(), chain::decode(&fields, family)?),
        NEW_RULE => {
            let (chain, rule) = decode_rule(&fields, family)?;
            Part::Rule(family, table(), chain, rule)
        }
        NEW_SET => Part::Set(family, table(), set::decode(&fields, family)?),
        NEW_ELEMENT => {
            let mut elements = Vec::new();
            let set = element::decode(&fields, family, &mut elements)?;
            Part::Elements(family, table(), set, elements)
        }
        NEW_OBJECT => Part::Object(family, table(), object::decode(&fields, family)?),
        NEW_FLOWTABLE => Part::Flowtable(family, table(), object::decode_flowtable(&fields)?),
        _ => return Ok(None),
    }))
}

fn decode_table(fields: &Fields<'_>, family: NfFamily) -> Result<Table, Malformed> {
    const NAME: u16 = 1;
    const FLAGS: u16 = 2;
    const HANDLE: u16 = 4;
    /// `NFT_TABLE_F_DORMANT`.
    const DORMANT: u32 = 1;
    Ok(Table {
        family,
        name: fields.text(NAME).unwrap_or_default(),
        handle: fields.handle(HANDLE)?,
        dormant: fields.be32(FLAGS)?.unwrap_or(0) & DORMANT != 0,
        chains: Vec::new(),
        sets: Vec::new(),
        objects: Vec::new(),
        flowtables: Vec::new(),
    })
}

/// A rule, with the chain it is in.
fn decode_rule(fields: &Fields<'_>, family: NfFamily) -> Result<(String, Rule), Malformed> {
    const CHAIN: u16 = 2;
    const HANDLE: u16 = 3;
    const EXPRESSIONS: u16 = 4;
    const USERDATA: u16 = 7;
    let attributes = fields.nested(EXPRESSIONS);
    let exprs: Result<Vec<_>, _> =
        attributes.map(|attribute| expr::decode(attribute?.nested(), family)).collect();
    let rule = Rule {
        handle: fields.handle(HANDLE)?,
        exprs: exprs?,
        comment: fields.of(USERDATA).and_then(|attribute| comment::read(attribute.payload)),
    };
    Ok((fields.text(CHAIN).unwrap_or_default(), rule))
}

/// The links of a chain or flowtable (`NFTA_DEVICE_NAME`; since 6.16 `NFTA_DEVICE_PREFIX`).
pub(super) fn devices(attribute: Attribute<'_>) -> Result<Vec<String>, Malformed> {
    const PREFIX: u16 = 2;
    let name = |attribute: Attribute<'_>| match attribute.kind {
        PREFIX => format!("{}*", attribute.text()),
        _ => attribute.text(),
    };
    attribute.nested().map(|attribute| attribute.map(name)).collect()
}

//! Elements of sets. There may be a million: what most have is read without an allocation.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::set::ElementExtra;
use canreach_snapshot::nft::{Bytes, Element};

use super::super::attr::{Attribute, Malformed};
use super::field::Fields;
use super::{comment, constant, expr};

/// Inside `NFTA_SET_ELEM_LIST_*`.
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;

const KEY: u16 = 1;
const DATA: u16 = 2;
const FLAGS: u16 = 3;
const TIMEOUT: u16 = 4;
const EXPIRATION: u16 = 5;
const USERDATA: u16 = 6;
const EXPR: u16 = 7;
const PAD: u16 = 8;
const OBJREF: u16 = 9;
const KEY_END: u16 = 10;
const EXPRESSIONS: u16 = 11;

/// `NFT_SET_ELEM_INTERVAL_END`.
const INTERVAL_END: u32 = 1;
/// `NFT_SET_ELEM_CATCHALL`.
const CATCH_ALL: u32 = 2;

/// Decodes the elements of one message, and says to which set they belong.
pub(super) fn decode(
    fields: &Fields<'_>,
    family: NfFamily,
    elements: &mut Vec<Element>,
) -> Result<String, Malformed> {
    for attribute in fields.nested(LIST_ELEMENTS) {
        elements.push(decode_one(attribute?, family)?);
    }
    Ok(fields.text(LIST_SET).unwrap_or_default())
}

fn decode_one(attribute: Attribute<'_>, family: NfFamily) -> Result<Element, Malformed> {
    let mut element = Element::default();
    let mut extra = None;
    for attribute in attribute.nested() {
        let attribute = attribute?;
        match attribute.kind {
            KEY => element.key = key(attribute)?.unwrap_or_default(),
            KEY_END => element.key_end = key(attribute)?,
            DATA => element.data = constant::constant(attribute)?,
            FLAGS => {
                let flags = attribute.be32()?;
                element.interval_end = flags & INTERVAL_END != 0;
                element.catch_all = flags & CATCH_ALL != 0;
            }
            PAD => {}
            _ => decode_extra(extra.get_or_insert_default(), attribute, family)?,
        }
    }
    element.extra = extra.filter(|extra| *extra != ElementExtra::default()).map(Box::new);
    Ok(element)
}

fn key(attribute: Attribute<'_>) -> Result<Option<Bytes>, Malformed> {
    Ok(constant::value(attribute)?.map(Bytes::from))
}

fn decode_extra(
    extra: &mut ElementExtra,
    attribute: Attribute<'_>,
    family: NfFamily,
) -> Result<(), Malformed> {
    match attribute.kind {
        TIMEOUT => extra.timeout_ms = Some(attribute.be64()?),
        EXPIRATION => extra.expires_ms = Some(attribute.be64()?),
        USERDATA => extra.comment = comment::read(attribute.payload),
        OBJREF => extra.object = Some(attribute.text()),
        EXPR => extra.exprs = vec![expr::single(attribute, family)?],
        EXPRESSIONS => extra.exprs = expr::list(attribute.nested(), family)?,
        // What a later kernel says of an element may change what it means.
        number => extra.exprs.push(canreach_snapshot::nft::Expr::Opaque(format!(
            "attribute {number} of an element"
        ))),
    }
    Ok(())
}

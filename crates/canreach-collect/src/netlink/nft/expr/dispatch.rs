//! From a name to its decoder.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::Expr;

use super::super::super::attr::{Attribute, Attributes, Malformed};
use super::super::field::Fields;
use super::{action, compat, condition, load, statement, value};

const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
/// `NFTA_LIST_ELEM`.
const LIST_ELEM: u16 = 1;

/// Makes an expression of its attributes; `None` for a form that is not known.
type Decode = fn(&Fields<'_>) -> Result<Option<Expr>, Malformed>;

/// One expression: what `NFTA_LIST_ELEM` of a rule holds.
///
/// # Errors
/// When the bytes do not hold what they say they hold.
pub fn decode(attributes: Attributes<'_>, family: NfFamily) -> Result<Expr, Malformed> {
    let fields = Fields::read(attributes)?;
    let name = fields.text(EXPR_NAME).unwrap_or_default();
    match name.as_str() {
        // What it adds to elements is of one of the other kinds: see `single` and `list`.
        "dynset" => {
            let fields = Fields::read(fields.nested(EXPR_DATA))?;
            let read = statement::dynset(&fields, family)?;
            Ok(read.unwrap_or(Expr::Opaque(name)))
        }
        _ => decode_as(name, fields.nested(EXPR_DATA), family),
    }
}

/// The expressions of a list (`NFTA_*_EXPRESSIONS`), as elements of sets carry them.
pub(in super::super) fn list(
    attributes: Attributes<'_>,
    family: NfFamily,
) -> Result<Vec<Expr>, Malformed> {
    let elements = attributes.filter(|it| it.is_err() || it.is_ok_and(|it| it.kind == LIST_ELEM));
    elements.map(|element| single(element?, family)).collect()
}

/// One expression that elements of sets carry. It holds no others.
pub(in super::super) fn single(
    attribute: Attribute<'_>,
    family: NfFamily,
) -> Result<Expr, Malformed> {
    let fields = Fields::read(attribute.nested())?;
    let name = fields.text(EXPR_NAME).unwrap_or_default();
    decode_as(name, fields.nested(EXPR_DATA), family)
}

/// The expression with a name; objects have their attributes without one.
pub(in super::super) fn decode_as(
    name: String,
    attributes: Attributes<'_>,
    family: NfFamily,
) -> Result<Expr, Malformed> {
    let fields = Fields::read(attributes)?;
    let read = match name.as_str() {
        "match" => compat::xt_match(&fields, family)?,
        "target" => compat::xt_target(&fields, family)?,
        _ => match decoder(&name) {
            Some((known, decode)) if !fields.beyond(known) => decode(&fields)?,
            _ => None,
        },
    };
    Ok(read.unwrap_or(Expr::Opaque(name)))
}

/// A decoder, with the highest number of an attribute that it knows.
fn decoder(name: &str) -> Option<(u16, Decode)> {
    Some(match name {
        "immediate" => (2, value::immediate),
        "bitwise" => (8, value::bitwise),
        "byteorder" => (5, value::byteorder),
        "hash" => (9, value::hash),
        "numgen" => (6, value::numgen),
        "cmp" => (3, condition::cmp),
        "range" => (4, condition::range),
        "lookup" => (5, condition::lookup),
        "limit" => (6, condition::limit),
        "quota" => (4, condition::quota),
        "connlimit" => (2, condition::connlimit),
        "payload" => (8, load::payload),
        "exthdr" => (7, load::exthdr),
        "meta" => (3, load::meta),
        "ct" => (4, load::ct),
        "rt" => (2, load::rt),
        "socket" => (3, load::socket),
        "fib" => (3, load::fib),
        "osf" => (3, load::osf),
        "tunnel" => (3, load::tunnel),
        "xfrm" => (4, load::xfrm),
        "counter" => (3, statement::counter),
        "last" => (3, statement::last),
        "log" => (6, statement::log),
        "objref" => (5, statement::objref),
        "notrack" => (0, statement::notrack),
        "reject" => (2, action::reject),
        "nat" => (7, action::nat),
        "masq" => (3, action::masq),
        "redir" => (3, action::redir),
        "tproxy" => (3, action::tproxy),
        "queue" => (4, action::queue),
        "synproxy" => (3, action::synproxy),
        "dup" => (2, action::dup),
        "fwd" => (3, action::fwd),
        "flow_offload" => (1, action::flow_offload),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

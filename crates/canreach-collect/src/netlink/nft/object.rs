//! Stateful objects and flowtables.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::{Expr, Flowtable, Object};

use super::super::attr::Malformed;
use super::expr;
use super::field::Fields;
use super::part::devices;

/// Decodes a stateful object.
pub(super) fn decode(fields: &Fields<'_>, family: NfFamily) -> Result<Object, Malformed> {
    const NAME: u16 = 2;
    const TYPE: u16 = 3;
    const DATA: u16 = 4;
    const HANDLE: u16 = 6;
    let kind = fields.be32(TYPE)?.unwrap_or(0);
    let expr = match kind_name(kind) {
        Kind::Expression(name) => expr::decode_as(name.to_owned(), fields.nested(DATA), family)?,
        Kind::Other(name) => Expr::Opaque(name.to_owned()),
        Kind::Unknown => Expr::Opaque(format!("object {kind}")),
    };
    Ok(Object {
        name: fields.text(NAME).unwrap_or_default(),
        handle: fields.handle(HANDLE)?,
        kind,
        expr,
    })
}

enum Kind {
    /// It has the attributes of the expression with this name.
    Expression(&'static str),
    /// It has no expression of its own.
    Other(&'static str),
    /// A number this version does not know.
    Unknown,
}

/// `NFT_OBJECT_*`.
const fn kind_name(kind: u32) -> Kind {
    match kind {
        1 => Kind::Expression("counter"),
        2 => Kind::Expression("quota"),
        3 => Kind::Other("ct helper"),
        4 => Kind::Expression("limit"),
        5 => Kind::Expression("connlimit"),
        6 => Kind::Other("tunnel"),
        7 => Kind::Other("ct timeout"),
        8 => Kind::Other("secmark"),
        9 => Kind::Other("ct expectation"),
        10 => Kind::Expression("synproxy"),
        _ => Kind::Unknown,
    }
}

/// Decodes a flowtable.
pub(super) fn decode_flowtable(fields: &Fields<'_>) -> Result<Flowtable, Malformed> {
    const NAME: u16 = 2;
    const HOOK: u16 = 3;
    const HANDLE: u16 = 5;
    const HOOK_PRIORITY: u16 = 2;
    const HOOK_DEVICES: u16 = 3;
    let hook = Fields::read(fields.nested(HOOK))?;
    Ok(Flowtable {
        name: fields.text(NAME).unwrap_or_default(),
        handle: fields.handle(HANDLE)?,
        priority: hook.be32(HOOK_PRIORITY)?.unwrap_or(0).cast_signed(),
        devices: hook.of(HOOK_DEVICES).map_or(Ok(Vec::new()), devices)?,
    })
}

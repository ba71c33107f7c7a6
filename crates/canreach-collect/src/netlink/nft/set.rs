//! Sets and maps, without what is in them.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::{Set, SetFlags};

use super::super::attr::Malformed;
use super::expr;
use super::field::Fields;

const NAME: u16 = 2;
const FLAGS: u16 = 3;
const KEY_TYPE: u16 = 4;
const KEY_LEN: u16 = 5;
const DATA_TYPE: u16 = 6;
const DATA_LEN: u16 = 7;
const DESC: u16 = 9;
const TIMEOUT: u16 = 11;
const OBJ_TYPE: u16 = 15;
const HANDLE: u16 = 16;
const EXPR: u16 = 17;
const EXPRESSIONS: u16 = 18;
/// Inside `NFTA_SET_DESC`.
const DESC_SIZE: u16 = 1;
const DESC_CONCAT: u16 = 2;
/// Inside each of `NFTA_SET_DESC_CONCAT`.
const FIELD_LEN: u16 = 1;

/// Decodes a set.
pub(super) fn decode(fields: &Fields<'_>, family: NfFamily) -> Result<Set, Malformed> {
    let description = Fields::read(fields.nested(DESC))?;
    let mut field_lens = Vec::new();
    for field in description.nested(DESC_CONCAT) {
        let field = Fields::read(field?.nested())?;
        field_lens.extend(field.be32(FIELD_LEN)?);
    }
    let exprs = match fields.of(EXPR) {
        Some(one) => vec![expr::single(one, family)?],
        None => expr::list(fields.nested(EXPRESSIONS), family)?,
    };
    Ok(Set {
        name: fields.text(NAME).unwrap_or_default(),
        handle: fields.handle(HANDLE)?,
        flags: SetFlags(fields.be32(FLAGS)?.unwrap_or(0)),
        key_type: fields.be32(KEY_TYPE)?.unwrap_or(0),
        key_len: fields.be32(KEY_LEN)?.unwrap_or(0),
        data_type: fields.be32(DATA_TYPE)?,
        data_len: fields.be32(DATA_LEN)?.unwrap_or(0),
        object_type: fields.be32(OBJ_TYPE)?,
        field_lens,
        timeout_ms: fields.be64(TIMEOUT)?,
        size: description.be32(DESC_SIZE)?,
        exprs,
        elements: Vec::new(),
    })
}

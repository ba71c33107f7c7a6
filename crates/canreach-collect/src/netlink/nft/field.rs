//! The attributes of one object, by number.

use canreach_snapshot::nft::expr::Register;
use canreach_snapshot::nft::{Bytes, Handle};

use super::super::attr::{Attribute, Attributes, Malformed};
use super::constant;

/// Numbers below this are kept: `NFTA_SET_COUNT`, the highest of those that are read, is 20.
const KEPT: usize = 24;

/// The attributes of one object. A number that occurs twice counts as its last.
pub(crate) struct Fields<'a> {
    by_number: [Option<Attribute<'a>>; KEPT],
    highest: u16,
}

impl<'a> Fields<'a> {
    /// Reads them all.
    pub(crate) fn read(attributes: Attributes<'a>) -> Result<Self, Malformed> {
        let mut fields = Self { by_number: [None; KEPT], highest: 0 };
        for attribute in attributes {
            let attribute = attribute?;
            fields.highest = fields.highest.max(attribute.kind);
            if let Some(place) = fields.by_number.get_mut(usize::from(attribute.kind)) {
                *place = Some(attribute);
            }
        }
        Ok(fields)
    }

    /// Whether an attribute has a number above those known.
    pub(crate) const fn beyond(&self, known: u16) -> bool {
        self.highest > known
    }

    pub(crate) fn of(&self, number: u16) -> Option<Attribute<'a>> {
        self.by_number.get(usize::from(number)).copied().flatten()
    }

    pub(crate) fn has(&self, number: u16) -> bool {
        self.of(number).is_some()
    }

    pub(crate) fn byte(&self, number: u16) -> Result<Option<u8>, Malformed> {
        self.of(number).map(Attribute::u8).transpose()
    }

    pub(crate) fn be16(&self, number: u16) -> Result<Option<u16>, Malformed> {
        self.of(number).map(|it| it.bytes().map(u16::from_be_bytes)).transpose()
    }

    pub(crate) fn be32(&self, number: u16) -> Result<Option<u32>, Malformed> {
        self.of(number).map(Attribute::be32).transpose()
    }

    pub(crate) fn be64(&self, number: u16) -> Result<Option<u64>, Malformed> {
        self.of(number).map(Attribute::be64).transpose()
    }

    /// 0 where it is missing.
    pub(crate) fn handle(&self, number: u16) -> Result<Handle, Malformed> {
        Ok(Handle(self.be64(number)?.unwrap_or(0)))
    }

    pub(crate) fn text(&self, number: u16) -> Option<String> {
        self.of(number).map(Attribute::text)
    }

    /// The attributes nested in one; none where it is missing.
    pub(crate) fn nested(&self, number: u16) -> Attributes<'a> {
        self.of(number).map_or(const { Attributes::new(&[]) }, Attribute::nested)
    }

    /// A data register; `None` where it is missing, or the verdict's.
    pub(crate) fn register(&self, number: u16) -> Result<Option<Register>, Malformed> {
        Ok(self.be32(number)?.and_then(constant::register))
    }

    /// A value (`NFTA_DATA_VALUE`); `None` where it is missing, or a verdict.
    pub(crate) fn value(&self, number: u16) -> Result<Option<Bytes>, Malformed> {
        let Some(attribute) = self.of(number) else { return Ok(None) };
        Ok(constant::value(attribute)?.map(Bytes::from))
    }

    /// A number inside a value, in the machine's order: how bits to shift by are sent.
    pub(crate) fn value_u32(&self, number: u16) -> Result<Option<u32>, Malformed> {
        let Some(attribute) = self.of(number) else { return Ok(None) };
        let bytes = constant::value(attribute)?.and_then(|bytes| bytes.first_chunk().copied());
        Ok(bytes.map(u32::from_ne_bytes))
    }
}

//! Sets, maps and verdict maps, with what is in them.

use serde::{Deserialize, Serialize};

use super::expr::Constant;
use super::{Bytes, Expr, Handle};

/// A set or a map.
///
/// A set with `INTERVAL` and no concatenation holds its intervals as pairs of elements: a start, and
/// an end (`interval_end`) that is the first value behind the interval; the last interval may lack an
/// end, and then reaches the highest value. A concatenated set with intervals has both ends in one
/// element (`key_end`, inclusive, field by field).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Its name; of an anonymous set, the kernel's (`__set0`).
    pub name: String,
    /// Its handle.
    pub handle: Handle,
    /// `NFTA_SET_FLAGS`.
    pub flags: SetFlags,
    /// `NFTA_SET_KEY_TYPE`: nft's number for the type of the key, 6 bits for each field of a
    /// concatenation. The kernel does not look at it.
    pub key_type: u32,
    /// The length of a key, in bytes.
    pub key_len: u32,
    /// `NFTA_SET_DATA_TYPE` of a map: nft's number, or `NFT_DATA_VERDICT` (0xffffff00).
    pub data_type: Option<u32>,
    /// The length of a map's values, in bytes.
    pub data_len: u32,
    /// `NFTA_SET_OBJ_TYPE` of a map to objects.
    pub object_type: Option<u32>,
    /// The lengths of a concatenated key's fields, in bytes, each padded to a multiple of 4 in the key.
    /// Empty where the kernel was told of one field only.
    pub field_lens: Vec<u32>,
    /// How long elements live if they do not say so themselves, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The most elements it takes.
    pub size: Option<u32>,
    /// What every element that packets add carries.
    pub exprs: Vec<Expr>,
    /// What is in it, in dump order.
    pub elements: Vec<Element>,
}

/// `enum nft_set_flags`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SetFlags(pub u32);

impl SetFlags {
    /// `NFT_SET_ANONYMOUS`: written inside a rule.
    pub const ANONYMOUS: Self = Self(0x1);
    /// `NFT_SET_CONSTANT`: cannot change while it is bound to a rule.
    pub const CONSTANT: Self = Self(0x2);
    /// `NFT_SET_INTERVAL`.
    pub const INTERVAL: Self = Self(0x4);
    /// `NFT_SET_MAP`.
    pub const MAP: Self = Self(0x8);
    /// `NFT_SET_TIMEOUT`: elements may expire.
    pub const TIMEOUT: Self = Self(0x10);
    /// `NFT_SET_EVAL`: packets may add and remove elements.
    pub const EVAL: Self = Self(0x20);
    /// `NFT_SET_OBJECT`: a map to objects.
    pub const OBJECT: Self = Self(0x40);
    /// `NFT_SET_CONCAT`.
    pub const CONCAT: Self = Self(0x80);
    /// `NFT_SET_EXPR`: elements carry expressions.
    pub const EXPR: Self = Self(0x100);

    /// Whether all flags of the other are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// An element.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    /// Its key; empty for the catch-all element.
    pub key: Bytes,
    /// The inclusive other end of a concatenated interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_end: Option<Bytes>,
    /// `NFT_SET_ELEM_INTERVAL_END`: an interval ends before this key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interval_end: bool,
    /// `NFT_SET_ELEM_CATCHALL`: stands for every key that no other element has.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub catch_all: bool,
    /// What a map has for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Constant>,
    /// What few elements have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Box<ElementExtra>>,
}

/// What few elements have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementExtra {
    /// The object a map has for it, by name.
    pub object: Option<String>,
    /// How long it lives, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How much of that was left, in milliseconds.
    pub expires_ms: Option<u64>,
    /// Run whenever the element is found; one that breaks makes it not found.
    pub exprs: Vec<Expr>,
    /// The comment its author gave it.
    pub comment: Option<String>,
}

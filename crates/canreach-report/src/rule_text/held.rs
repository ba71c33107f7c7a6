//! What the registers hold while a rule is walked.

use canreach_snapshot::nft::Bytes;
use canreach_snapshot::nft::expr::{PayloadBase, Register};

use super::key::Named;
use super::value::Kind;

/// Registers are counted in slots of four bytes.
pub(super) const SLOTS: usize = 16;

/// What a register holds.
#[derive(Debug, Clone, Default)]
pub(super) enum Held {
    /// Nothing that the rule put there.
    #[default]
    Nothing,
    /// Something of the packet.
    Selector(Selector),
    /// A constant.
    Constant(Bytes),
    /// Something else, as text: what a map gives, a hash.
    Text(String),
    /// Belongs to what a slot before it holds.
    Continues,
}

/// Something of the packet, perhaps under a mask.
#[derive(Debug, Clone)]
pub(super) struct Selector {
    /// The fields that were loaded at once, in order; usually one.
    pub(super) pieces: Vec<Piece>,
    /// Where in the packet it came from.
    pub(super) place: Option<(PayloadBase, u32)>,
    /// `(value & mask) ^ xor`.
    pub(super) mask: Option<(Vec<u8>, Vec<u8>)>,
    /// What was done to it besides, as text.
    pub(super) suffix: String,
}

/// One field, or the first bytes of one.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) kind: Kind,
    /// Its bytes are in the machine's order.
    pub(super) host: bool,
    /// How many bytes were loaded.
    pub(super) len: u32,
    /// How many the field has.
    pub(super) full: u32,
}

impl Selector {
    /// Something with a name of its own.
    pub(super) fn named(named: Named, len: u32) -> Self {
        let Named { text, kind, host } = named;
        Self {
            pieces: vec![Piece { text, kind, host, len, full: len }],
            place: None,
            mask: None,
            suffix: String::new(),
        }
    }

    /// The fields, as one text.
    pub(super) fn text(&self) -> String {
        let texts: Vec<&str> = self.pieces.iter().map(|piece| piece.text.as_str()).collect();
        format!("{}{}", texts.join(" . "), self.suffix)
    }
}

/// All registers.
#[derive(Debug, Default)]
pub(super) struct Registers {
    slots: [Held; SLOTS],
}

impl Registers {
    /// What a register holds. Numbers that no register has hold nothing.
    pub(super) fn at(&self, register: Register) -> &Held {
        static NOTHING: Held = Held::Nothing;
        self.slots.get(usize::from(register.0)).unwrap_or(&NOTHING)
    }

    /// Puts something into a register, and into as many slots behind it as it is long.
    pub(super) fn put(&mut self, register: Register, held: Held, len: u32) {
        let first = usize::from(register.0);
        let count = len.div_ceil(4).max(1) as usize;
        for (at, slot) in self.slots.iter_mut().enumerate().skip(first).take(count) {
            *slot = if at == first { held.clone() } else { Held::Continues };
        }
    }

    /// The fields of a key of some length that starts at a register.
    pub(super) fn key(&self, register: Register, len: u32) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut slot = usize::from(register.0);
        let mut covered = 0;
        while covered < len && slot < SLOTS {
            let taken = match &self.slots[slot] {
                Held::Selector(selector) => {
                    let long = selector.pieces.iter().map(|piece| piece.len).sum();
                    let text = mask_text(selector);
                    for piece in &selector.pieces {
                        let named = format!("{}{text}", piece.text);
                        pieces.push(Piece { text: named, ..piece.clone() });
                    }
                    long
                }
                Held::Text(text) => {
                    let (text, kind) = (text.clone(), Kind::Decimal);
                    pieces.push(Piece { text, kind, host: true, len: 4, full: 4 });
                    4
                }
                Held::Constant(bytes) => {
                    let (text, len) = (super::value::hex(bytes.as_slice()), bytes.len() as u32);
                    pieces.push(Piece { text, kind: Kind::Hex, host: false, len, full: len });
                    len
                }
                Held::Nothing | Held::Continues => 4,
            };
            let slots = taken.div_ceil(4).max(1);
            covered += slots * 4;
            slot += slots as usize;
        }
        pieces
    }
}

/// ` & 0xff`, where a mask is on it.
pub(super) fn mask_text(selector: &Selector) -> String {
    let mut text = selector.suffix.clone();
    if let Some((mask, xor)) = &selector.mask {
        let piece = selector.pieces.first();
        let host = piece.is_some_and(|piece| piece.host);
        let kind = piece.map_or(Kind::Hex, |piece| piece.kind);
        let number = |bytes: &[u8]| match (kind, super::value::number(bytes, host)) {
            (Kind::Mark, Some(number)) => format!("{number:#010x}"),
            (_, Some(number)) => format!("{number:#x}"),
            (_, None) => super::value::hex(bytes),
        };
        let inverse: Vec<u8> = mask.iter().map(|byte| !byte).collect();
        let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        if zero(xor) {
            text.push_str(&format!(" & {}", number(mask)));
        } else if *xor == inverse {
            text.push_str(&format!(" | {}", number(xor)));
        } else if zero(&inverse) {
            text.push_str(&format!(" ^ {}", number(xor)));
        } else {
            text.push_str(&format!(" & {} ^ {}", number(mask), number(xor)));
        }
    }
    text
}

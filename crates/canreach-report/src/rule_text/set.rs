//! Sets and maps: those written inside a rule element by element, others by name.

use canreach_snapshot::Netns;
use canreach_snapshot::nft::expr::Constant;
use canreach_snapshot::nft::{Element, Set, SetFlags};

use super::held::Piece;
use super::nft;
use super::spelling::{ELEMENTS_SHOWN_MAX, quoted};
use super::value::{self, Kind};

/// `{ 22, 80 }`, or `@name`.
pub(super) fn text(netns: &Netns, set: Option<&Set>, name: &str, pieces: &[Piece]) -> String {
    let Some(set) = set.filter(|set| set.flags.has(SetFlags::ANONYMOUS)) else {
        return format!("@{name}");
    };
    let mut shown = elements(netns, set, pieces);
    if shown.len() > ELEMENTS_SHOWN_MAX {
        let more = shown.len() - ELEMENTS_SHOWN_MAX;
        shown.truncate(ELEMENTS_SHOWN_MAX);
        shown.push(format!("and {more} more"));
    }
    format!("{{ {} }}", shown.join(", "))
}

/// The elements, in the order of their keys.
fn elements(netns: &Netns, set: &Set, pieces: &[Piece]) -> Vec<String> {
    let mut sorted: Vec<&Element> = set.elements.iter().collect();
    // Of an end and a start at the same place, the end is first.
    sorted.sort_by_cached_key(|element| {
        (element.catch_all, sort_key(element, pieces), !element.interval_end)
    });
    let paired = set.flags.has(SetFlags::INTERVAL) && pieces.len() < 2;
    let mut shown = Vec::new();
    for (index, element) in sorted.iter().enumerate() {
        if element.interval_end {
            continue;
        }
        let key = if element.catch_all {
            "*".to_owned()
        } else if paired {
            let end = sorted[index + 1..].iter().find(|other| !other.catch_all);
            let end = end.map(|element| (element.key.as_slice(), element.interval_end));
            interval(netns, pieces.first(), element.key.as_slice(), end)
        } else {
            fields(netns, element, pieces)
        };
        shown.push(match data(netns, set, element) {
            Some(data) => format!("{key} : {data}"),
            None => key,
        });
    }
    shown
}

/// The key, field by field, as numbers.
fn sort_key(element: &Element, pieces: &[Piece]) -> Vec<(u128, Vec<u8>)> {
    let bytes = element.key.as_slice();
    split(bytes, pieces)
        .map(|(piece, part)| {
            let number = value::number(part, piece.host).unwrap_or_default();
            (number, part.to_vec())
        })
        .collect()
}

/// A key's fields: each starts at a multiple of four bytes.
fn split<'a>(bytes: &'a [u8], pieces: &'a [Piece]) -> impl Iterator<Item = (&'a Piece, &'a [u8])> {
    let mut at = 0;
    pieces.iter().map(move |piece| {
        let len = if pieces.len() == 1 { bytes.len() } else { piece.len as usize };
        let start = at.min(bytes.len());
        let end = (at + len).min(bytes.len());
        at += len.div_ceil(4) * 4;
        (piece, &bytes[start..end])
    })
}

fn fields(netns: &Netns, element: &Element, pieces: &[Piece]) -> String {
    let low = split(element.key.as_slice(), pieces);
    let high = element.key_end.as_ref().unwrap_or(&element.key);
    let both = low.zip(split(high.as_slice(), pieces));
    let parts: Vec<String> =
        both.map(|((piece, low), (_, high))| range(netns, piece, low, high)).collect();
    parts.join(" . ")
}

/// From a start to what stands before the end.
fn interval(
    netns: &Netns,
    piece: Option<&Piece>,
    start: &[u8],
    end: Option<(&[u8], bool)>,
) -> String {
    let Some(piece) = piece else { return value::hex(start) };
    let last = match end {
        // The next element is a start: this one is a single value.
        Some((_, false)) => start.to_vec(),
        Some((end, true)) => before(end),
        None => vec![0xff; start.len()],
    };
    range(netns, piece, start, &last)
}

/// The number before, as bytes of the packet.
fn before(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for byte in bytes.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    bytes
}

/// Both ends, a prefix where they make one up, or the one value that they are.
pub(super) fn range(netns: &Netns, piece: &Piece, low: &[u8], high: &[u8]) -> String {
    let of = |bytes: &[u8]| value::value(netns, piece.kind, piece.host, bytes);
    if low == high {
        return of(low);
    }
    if piece.kind == Kind::Name {
        let same = low.iter().zip(high).take_while(|(low, high)| low == high).count();
        return value::value(netns, piece.kind, false, &low[..same]);
    }
    if piece.kind.is_address() {
        let differing: Vec<u8> = low.iter().zip(high).map(|(low, high)| !(low ^ high)).collect();
        let aligned = low.iter().zip(&differing).all(|(low, mask)| low & !mask == 0);
        if let Some(bits) = nft::prefix_length(&differing).filter(|_| aligned) {
            return format!("{}/{bits}", of(low));
        }
    }
    format!("{}-{}", of(low), of(high))
}

fn data(netns: &Netns, set: &Set, element: &Element) -> Option<String> {
    if let Some(object) = element.extra.as_ref().and_then(|extra| extra.object.as_ref()) {
        return Some(quoted(object));
    }
    match element.data.as_ref()? {
        Constant::Verdict(verdict) => Some(nft::verdict(verdict)),
        Constant::Value(bytes) => {
            let kinds = kinds(set.data_type.unwrap_or_default());
            let pieces: Vec<Piece> = kinds
                .into_iter()
                .map(|(kind, len)| Piece {
                    text: String::new(),
                    kind,
                    host: !matches!(
                        kind,
                        Kind::Ipv4 | Kind::Ipv6 | Kind::Port | Kind::Mac | Kind::Protocol
                    ),
                    len,
                    full: len,
                })
                .collect();
            let parts = split(bytes.as_slice(), &pieces)
                .map(|(piece, part)| value::value(netns, piece.kind, piece.host, part));
            Some(parts.collect::<Vec<_>>().join(" . "))
        }
    }
}

/// The types of a concatenation, each in six bits, the first highest.
fn kinds(data_type: u32) -> Vec<(Kind, u32)> {
    let numbers = (0..5).rev().map(|at| data_type >> (6 * at) & 0x3f);
    let kinds: Vec<(Kind, u32)> = numbers
        .skip_while(|number| *number == 0)
        .map(|number| {
            let kind = Kind::of_number(number);
            let len = match kind {
                Kind::Ipv6 => 16,
                Kind::Port => 2,
                Kind::Mac => 6,
                _ => 4,
            };
            (kind, len)
        })
        .collect();
    if kinds.is_empty() { vec![(Kind::Hex, 4)] } else { kinds }
}

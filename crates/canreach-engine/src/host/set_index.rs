//! Sets and maps of nftables, sorted once, so that looking up one key takes few steps.
//!
//! Kernel counterparts: `nft_hash_lookup`, `nft_rbtree_lookup`, `nft_pipapo_lookup`. Elements that expired
//! are not dumped. Left out: keys longer than 16 bytes in sets of plain intervals.

use canreach_snapshot::nft::{Element, Set, SetFlags};

/// A closed range for each field of a concatenation.
pub(crate) type Ranges = Box<[(u128, u128)]>;

/// A set, sorted. Elements are named by their positions in it.
#[derive(Debug)]
pub(crate) struct SetIndex {
    pub(crate) shape: Shape,
    /// The element that stands for all keys that no other has.
    pub(crate) catch_all: Option<u32>,
    /// For each element, the first one that gives the same; empty where all give the same.
    outcomes: Vec<u32>,
}

/// How a set is searched.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Keys as big-endian numbers, ascending.
    Points(Vec<(u128, u32)>),
    /// Keys too long for that, ascending by their bytes.
    LongPoints(Vec<(Box<[u8]>, u32)>),
    /// Disjoint closed intervals of keys, ascending.
    Intervals(Vec<(u128, u128, u32)>),
    /// Ranges for each field, in the order in which they are tried, and the length of each field.
    Boxes { fields: Vec<u32>, boxes: Vec<(Ranges, u32)> },
    /// This version cannot search it.
    Opaque,
}

/// A big-endian number of at most 16 bytes.
pub(crate) fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
}

impl SetIndex {
    /// Sorts a set.
    pub(crate) fn new(set: &Set) -> Self {
        let catch_all = set.elements.iter().position(|element| element.catch_all);
        let shape = if set.flags.has(SetFlags::INTERVAL) && set.field_lens.len() > 1 {
            boxes(set)
        } else if set.flags.has(SetFlags::INTERVAL) {
            intervals(set)
        } else {
            points(set)
        };
        Self { shape, catch_all: catch_all.map(|index| index as u32), outcomes: outcomes(set) }
    }

    /// The first element that gives the same as this one.
    pub(crate) fn outcome(&self, element: u32) -> u32 {
        self.outcomes.get(element as usize).copied().unwrap_or(0)
    }

    /// The element for a key; `None` if there is none, apart from one for all keys.
    pub(crate) fn find(&self, key: &[u8]) -> Option<u32> {
        match &self.shape {
            Shape::Points(points) => {
                let value = number(key);
                let at = points.binary_search_by_key(&value, |(point, _)| *point).ok()?;
                Some(points[at].1)
            }
            Shape::LongPoints(points) => {
                let at = points.binary_search_by(|(point, _)| (**point).cmp(key)).ok()?;
                Some(points[at].1)
            }
            Shape::Intervals(intervals) => {
                let value = number(key);
                let after = intervals.partition_point(|(low, ..)| *low <= value);
                let (_, high, element) = intervals.get(after.checked_sub(1)?)?;
                (value <= *high).then_some(*element)
            }
            Shape::Boxes { fields, boxes } => {
                let values = split(fields, key);
                let inside = |ranges: &Ranges| {
                    ranges
                        .iter()
                        .zip(&values)
                        .all(|((low, high), value)| (low..=high).contains(&value))
                };
                boxes.iter().find(|(ranges, _)| inside(ranges)).map(|(_, element)| *element)
            }
            Shape::Opaque => None,
        }
    }
}

/// The fields of a concatenated key, each padded to four bytes.
fn split(fields: &[u32], key: &[u8]) -> Vec<u128> {
    let mut start = 0;
    let mut values = Vec::with_capacity(fields.len());
    for length in fields {
        let length = *length as usize;
        let end = (start + length).min(key.len());
        values.push(number(key.get(start.min(end)..end).unwrap_or(&[])));
        start += length.next_multiple_of(4);
    }
    values
}

fn members(set: &Set) -> impl Iterator<Item = (u32, &Element)> {
    let all = set.elements.iter().enumerate();
    all.filter(|(_, element)| !element.catch_all).map(|(index, element)| (index as u32, element))
}

fn points(set: &Set) -> Shape {
    if set.key_len <= 16 {
        let mut points: Vec<_> =
            members(set).map(|(index, e)| (number(e.key.as_slice()), index)).collect();
        points.sort_unstable();
        points.dedup_by_key(|(point, _)| *point);
        return Shape::Points(points);
    }
    let mut points: Vec<_> =
        members(set).map(|(index, e)| (Box::from(e.key.as_slice()), index)).collect();
    points.sort_unstable();
    points.dedup_by(|a, b| a.0 == b.0);
    Shape::LongPoints(points)
}

fn intervals(set: &Set) -> Shape {
    if set.key_len > 16 {
        return Shape::Opaque;
    }
    let bits = 8 * set.key_len;
    let last = if bits >= 128 { u128::MAX } else { (1 << bits) - 1 };
    // Ends sort before the starts of intervals that follow at once.
    let mut ends: Vec<(u128, bool, u32)> =
        members(set).map(|(index, e)| (number(e.key.as_slice()), !e.interval_end, index)).collect();
    ends.sort_unstable();
    let mut intervals: Vec<(u128, u128, u32)> = Vec::with_capacity(ends.len() / 2);
    let mut open: Option<(u128, u32)> = None;
    for (value, starts, index) in ends {
        // A start closes the interval before it, as an end does.
        if let Some((low, element)) = open.take()
            && value > low
        {
            intervals.push((low, value - 1, element));
        }
        if starts {
            let both = set.elements.get(index as usize).and_then(|e| e.key_end.as_ref());
            match both {
                Some(end) => intervals.push((value, number(end.as_slice()), index)),
                None => open = Some((value, index)),
            }
        }
    }
    if let Some((low, element)) = open {
        intervals.push((low, last, element));
    }
    Shape::Intervals(intervals)
}

fn boxes(set: &Set) -> Shape {
    let fields = set.field_lens.clone();
    if fields.iter().any(|length| *length > 16) {
        return Shape::Opaque;
    }
    let boxes = members(set).map(|(index, element)| {
        let low = split(&fields, element.key.as_slice());
        let end = element.key_end.as_ref().unwrap_or(&element.key);
        let high = split(&fields, end.as_slice());
        (low.into_iter().zip(high).collect(), index)
    });
    let boxes = boxes.collect();
    Shape::Boxes { fields, boxes }
}

/// What an element gives: its data, its object, what it runs.
fn outcomes(set: &Set) -> Vec<u32> {
    let plain = set.data_type.is_none()
        && set.object_type.is_none()
        && set.elements.iter().all(|e| e.extra.as_ref().is_none_or(|x| x.exprs.is_empty()));
    if plain {
        return Vec::new();
    }
    let mut known: std::collections::HashMap<String, u32> = std::collections::HashMap::new();
    let of = |index: usize, element: &Element, known: &mut std::collections::HashMap<_, _>| {
        let extra = element.extra.as_ref();
        let object = extra.and_then(|extra| extra.object.as_ref());
        let exprs = extra.map(|extra| &extra.exprs).filter(|exprs| !exprs.is_empty());
        let what = format!("{:?} {object:?} {exprs:?}", element.data);
        *known.entry(what).or_insert(index as u32)
    };
    let elements = set.elements.iter().enumerate();
    elements.map(|(index, element)| of(index, element, &mut known)).collect()
}

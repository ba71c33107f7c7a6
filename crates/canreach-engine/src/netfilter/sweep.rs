//! Partitions of all packets by what the first matching element of a list gives, built in one sweep over
//! the sources.

use std::collections::BTreeSet;

use crate::packet::diagram::{Diagram, FixedMap};
use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;

/// The most steps of a sweep over elements that overlap.
const MAX_STEPS: usize = 1 << 22;

/// An element: sources and source ports, as closed ranges, and what it gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) source: Option<(u128, u128)>,
    pub(crate) port: Option<(u128, u128)>,
    pub(crate) outcome: u32,
}

impl Piece {
    /// It holds for these sources only.
    pub(crate) fn narrow_source(&mut self, range: (u128, u128), holds: &mut bool) {
        narrow(&mut self.source, range, holds);
    }

    /// It holds for these source ports only.
    pub(crate) fn narrow_port(&mut self, range: (u128, u128), holds: &mut bool) {
        narrow(&mut self.port, range, holds);
    }
}

fn narrow(known: &mut Option<(u128, u128)>, range: (u128, u128), holds: &mut bool) {
    let (low, high) = known.unwrap_or((0, u128::MAX));
    let (low, high) = (low.max(range.0), high.min(range.1));
    *holds &= low <= high;
    *known = Some((low, high));
}

/// Packets by the outcome of the first element that holds for them; what none holds for is left out.
/// `None` where a limit is reached.
pub(crate) fn partition(
    sets: &mut Diagram,
    pieces: &[Piece],
    most_outcomes: usize,
) -> Option<Vec<(PacketSet, u32)>> {
    let mut outcomes: Vec<u32> = pieces.iter().map(|piece| piece.outcome).collect();
    outcomes.sort_unstable();
    outcomes.dedup();
    if outcomes.len() > most_outcomes {
        return None;
    }
    let last = Field::Source.last(sets.family());
    let cells = cells(pieces, last)?;
    let mut result = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        let mut edges: Vec<(u128, PacketSet)> = Vec::new();
        let mut known: FixedMap<Vec<(u128, u128)>, PacketSet> = FixedMap::default();
        let mut next = 0_u128;
        let mut ended = false;
        for cell in &cells {
            let ports: Vec<(u128, u128)> = cell
                .ports
                .iter()
                .filter(|(_, _, of)| *of == outcome)
                .map(|(low, high, _)| (*low, *high))
                .collect();
            if ports.is_empty() {
                continue;
            }
            if cell.low > next {
                edges.push((cell.low - 1, PacketSet::NONE));
            }
            let child = *known
                .entry(ports)
                .or_insert_with_key(|ports| sets.ranges(Field::SourcePort, ports));
            edges.push((cell.high, child));
            ended = cell.high >= last;
            next = cell.high.saturating_add(1);
        }
        if !ended {
            edges.push((last, PacketSet::NONE));
        }
        let set = sets.node(Field::Source, &edges);
        if !set.is_empty() {
            result.push((set, outcome));
        }
    }
    Some(result)
}

/// Sources that the same elements hold for, with the ports of each outcome.
struct Cell {
    low: u128,
    high: u128,
    ports: Vec<(u128, u128, u32)>,
}

fn cells(pieces: &[Piece], last: u128) -> Option<Vec<Cell>> {
    const ALL_PORTS: (u128, u128) = (0, 0xffff);
    // Where elements start and end: position, whether it ends before it, its place in the list.
    let mut events: Vec<(u128, bool, usize)> = Vec::with_capacity(2 * pieces.len());
    for (index, piece) in pieces.iter().enumerate() {
        let (low, high) = piece.source.unwrap_or((0, last));
        events.push((low, true, index));
        if high < last {
            events.push((high + 1, false, index));
        }
    }
    events.sort_unstable();
    let mut cells: Vec<Cell> = Vec::new();
    let mut active: BTreeSet<usize> = BTreeSet::new();
    let (mut at, mut steps) = (0, 0_usize);
    while at < events.len() {
        let position = events[at].0;
        while let Some((here, starts, index)) = events.get(at)
            && *here == position
        {
            if *starts {
                active.insert(*index);
            } else {
                active.remove(index);
            }
            at += 1;
        }
        if active.is_empty() {
            continue;
        }
        let high = events.get(at).map_or(last, |(next, ..)| next - 1);
        steps += active.len();
        if steps > MAX_STEPS {
            return None;
        }
        let mut ports: Vec<(u128, u128, u32)> = Vec::new();
        for index in &active {
            let piece = &pieces[*index];
            add_ports(&mut ports, piece.port.unwrap_or(ALL_PORTS), piece.outcome);
            if piece.port.is_none() {
                break;
            }
        }
        cells.push(Cell { low: position, high, ports });
    }
    Some(cells)
}

/// Adds a range to disjoint ascending ones; what is there already stays. Neighbours of one outcome are
/// joined.
fn add_ports(ports: &mut Vec<(u128, u128, u32)>, (low, high): (u128, u128), outcome: u32) {
    let mut added = Vec::new();
    let mut next = low;
    for (start, end, _) in ports.iter() {
        if *end < next {
            continue;
        }
        if *start > high {
            break;
        }
        if *start > next {
            added.push((next, *start - 1, outcome));
        }
        next = *end + 1;
    }
    if next <= high {
        added.push((next, high, outcome));
    }
    ports.append(&mut added);
    ports.sort_unstable();
    let mut joined: Vec<(u128, u128, u32)> = Vec::with_capacity(ports.len());
    for (low, high, outcome) in ports.drain(..) {
        match joined.last_mut() {
            Some((_, end, of)) if *of == outcome && *end + 1 == low => *end = high,
            _ => joined.push((low, high, outcome)),
        }
    }
    *ports = joined;
}

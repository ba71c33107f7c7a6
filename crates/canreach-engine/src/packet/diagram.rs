//! A hash-consed decision diagram over whole fields: sets of packets, with equal sets having equal
//! handles.
//!
//! A node tests one field and has one edge per interval of values. Nodes and edges live in two
//! vectors and are never freed: a diagram is dropped with the answer it was built for. The same code
//! works on plain values and on the classes of [`crate::packet::atoms`]: an interval is an interval.
//! Left out: reordering, garbage collection.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use canreach_snapshot::Family;

use crate::packet::field::Field;
use crate::packet::packet_set::PacketSet;

/// The most nodes of one diagram. Four million edges of 32 bytes are what a question may cost.
pub const MAX_NODES: usize = 1 << 20;
/// The most edges of one diagram.
pub const MAX_EDGES: usize = 1 << 23;

/// A hasher that gives the same numbers in every process, so that nothing here is random.
#[derive(Debug, Default, Clone, Copy)]
pub struct FixedHasher(u64);

impl Hasher for FixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        // An odd multiplier from the golden ratio, 2^64 / 1.618, spreads neighbours apart.
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        // The high bits are the well mixed ones; hash tables look at the low ones.
        self.0 ^ (self.0 >> 32)
    }
}

/// A hash map whose hashes are the same in every process.
pub type FixedMap<K, V> = HashMap<K, V, BuildHasherDefault<FixedHasher>>;

/// The first and last value of an interval, and what is left to test inside it.
pub type Interval = (u128, u128, PacketSet);

/// One edge: up to and including this value, from where the edge before it ended.
type Edge = (u128, PacketSet);

#[derive(Debug, Clone, Copy)]
struct Node {
    field: Field,
    first: u32,
    count: u32,
    /// The node before it with the same hash, plus one; 0 for none.
    previous: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    And,
    Or,
    Difference,
    Exists(Field),
    Forall(Field),
}

/// The arena that sets of packets live in.
#[derive(Debug)]
pub struct Diagram {
    family: Family,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    unique: FixedMap<u64, u32>,
    memo: FixedMap<(Operation, PacketSet, PacketSet), PacketSet>,
    breached: bool,
    universe: PacketSet,
}

impl Diagram {
    /// An empty arena for packets of one family.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            family,
            nodes: Vec::new(),
            edges: Vec::new(),
            unique: FixedMap::default(),
            memo: FixedMap::default(),
            breached: false,
            universe: PacketSet::ALL,
        }
    }

    /// The packets that are asked about. Others may be left out of any answer.
    #[must_use]
    pub const fn universe(&self) -> PacketSet {
        self.universe
    }

    /// Asks about these packets only.
    pub const fn restrict(&mut self, universe: PacketSet) {
        self.universe = universe;
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Whether a named limit was reached. From then on sets are too small: no answer may rest on
    /// them.
    #[must_use]
    pub const fn is_breached(&self) -> bool {
        self.breached
    }

    /// How many nodes it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it holds no node: every set so far is nothing or everything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The packets whose field lies in one of these closed ranges, which are ascending, disjoint and
    /// not adjacent.
    pub fn ranges(&mut self, field: Field, ranges: &[(u128, u128)]) -> PacketSet {
        let last = field.last(self.family);
        let mut edges = Vec::with_capacity(2 * ranges.len() + 1);
        for (low, high) in ranges {
            if *low > 0 {
                edges.push((low - 1, PacketSet::NONE));
            }
            edges.push((*high, PacketSet::ALL));
        }
        if edges.last().is_none_or(|(upper, _)| *upper < last) {
            edges.push((last, PacketSet::NONE));
        }
        self.node(field, &edges)
    }

    /// Packets in both.
    pub fn and(&mut self, a: PacketSet, b: PacketSet) -> PacketSet {
        self.apply(Operation::And, a.min(b), a.max(b))
    }

    /// Packets in either.
    pub fn or(&mut self, a: PacketSet, b: PacketSet) -> PacketSet {
        self.apply(Operation::Or, a.min(b), a.max(b))
    }

    /// Packets in the first that are not in the second.
    pub fn difference(&mut self, a: PacketSet, b: PacketSet) -> PacketSet {
        self.apply(Operation::Difference, a, b)
    }

    /// Packets not in it.
    pub fn not(&mut self, a: PacketSet) -> PacketSet {
        self.difference(PacketSet::ALL, a)
    }

    /// Packets that are in it for some value of the field.
    pub fn exists(&mut self, field: Field, a: PacketSet) -> PacketSet {
        self.quantify(Operation::Exists(field), field, a)
    }

    /// Packets that are in it for every value of the field.
    pub fn forall(&mut self, field: Field, a: PacketSet) -> PacketSet {
        self.quantify(Operation::Forall(field), field, a)
    }

    /// Packets that would be in it if the field had this value.
    pub fn cofactor(&mut self, field: Field, value: u128, a: PacketSet) -> PacketSet {
        let Some(node) = self.inner(a) else { return a };
        if node.field > field {
            return a;
        }
        let edges = self.edges_of(node).to_vec();
        if node.field == field {
            let index = edges.partition_point(|(upper, _)| *upper < value);
            return edges.get(index).map_or(PacketSet::NONE, |(_, child)| *child);
        }
        let edges: Vec<_> = edges
            .into_iter()
            .map(|(upper, child)| (upper, self.cofactor(field, value, child)))
            .collect();
        self.node(node.field, &edges)
    }

    /// The fields it depends on, ascending.
    #[must_use]
    pub fn support(&self, a: PacketSet) -> Vec<Field> {
        let mut fields = Vec::new();
        let mut seen = vec![false; self.nodes.len()];
        let mut open = vec![a];
        while let Some(set) = open.pop() {
            let Some(node) = self.inner(set) else { continue };
            if std::mem::replace(&mut seen[set.index()], true) {
                continue;
            }
            fields.push(node.field);
            open.extend(self.edges_of(node).iter().map(|(_, child)| *child));
        }
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// One packet of the set: the lowest value of each field it depends on. `None` if it is empty.
    #[must_use]
    pub fn pick(&self, a: PacketSet) -> Option<Vec<(Field, u128)>> {
        let mut values = Vec::new();
        let mut set = a;
        while let Some(node) = self.inner(set) {
            let mut low = 0;
            let mut next = None;
            for (upper, child) in self.edges_of(node) {
                if *child != PacketSet::NONE {
                    next = Some((low, *child));
                    break;
                }
                low = upper.saturating_add(1);
            }
            let (value, child) = next?;
            values.push((node.field, value));
            set = child;
        }
        (set == PacketSet::ALL).then_some(values)
    }

    /// The field it tests first, and the intervals of it with what is left to test; `None` for
    /// nothing and for everything.
    #[must_use]
    pub fn intervals(&self, a: PacketSet) -> Option<(Field, Vec<Interval>)> {
        let node = self.inner(a)?;
        let mut low = 0;
        let mut intervals = Vec::with_capacity(node.count as usize);
        for (upper, child) in self.edges_of(node) {
            intervals.push((low, *upper, *child));
            low = upper.saturating_add(1);
        }
        Some((node.field, intervals))
    }

    fn inner(&self, set: PacketSet) -> Option<Node> {
        set.is_inner().then(|| self.nodes[set.index()])
    }

    fn edges_of(&self, node: Node) -> &[Edge] {
        &self.edges[node.first as usize..(node.first + node.count) as usize]
    }

    /// The one node with these edges: made only if it is not there yet.
    pub(crate) fn node(&mut self, field: Field, edges: &[Edge]) -> PacketSet {
        let start = self.edges.len();
        for (upper, child) in edges {
            match self.edges[start..].last_mut() {
                Some(last) if last.1 == *child => last.0 = *upper,
                Some(_) | None => self.edges.push((*upper, *child)),
            }
        }
        if self.edges.len() - start == 1 {
            let child = self.edges[start].1;
            self.edges.truncate(start);
            return child;
        }
        let mut hasher = FixedHasher::default();
        field.hash(&mut hasher);
        self.edges[start..].hash(&mut hasher);
        let hash = hasher.finish();
        let newest = self.unique.get(&hash).copied().unwrap_or(0);
        let mut candidate = newest;
        while candidate != 0 {
            let node = self.nodes[candidate as usize - 1];
            if node.field == field && *self.edges_of(node) == self.edges[start..] {
                self.edges.truncate(start);
                return PacketSet::from_index(candidate as usize - 1);
            }
            candidate = node.previous;
        }
        if self.nodes.len() >= MAX_NODES || self.edges.len() > MAX_EDGES {
            self.breached = true;
            self.edges.truncate(start);
            return PacketSet::NONE;
        }
        let count = (self.edges.len() - start) as u32;
        self.nodes.push(Node { field, first: start as u32, count, previous: newest });
        self.unique.insert(hash, self.nodes.len() as u32);
        PacketSet::from_index(self.nodes.len() - 1)
    }

    fn apply(&mut self, operation: Operation, a: PacketSet, b: PacketSet) -> PacketSet {
        if let Some(known) = terminal(operation, a, b) {
            return known;
        }
        if let Some(known) = self.memo.get(&(operation, a, b)) {
            return *known;
        }
        let (left, right) = (self.inner(a), self.inner(b));
        let field = match (left, right) {
            (Some(left), Some(right)) => left.field.min(right.field),
            (Some(only), None) | (None, Some(only)) => only.field,
            // Two terminals are always decided above.
            (None, None) => return PacketSet::NONE,
        };
        let left = self.row(left, field, a);
        let right = self.row(right, field, b);
        let mut edges = Vec::with_capacity(left.count.min(right.count));
        let (mut i, mut j) = (0, 0);
        while i < left.count && j < right.count {
            let ((left_upper, x), (right_upper, y)) = (self.edge(left, i), self.edge(right, j));
            // Where one side decides alone, the other need not be walked: most of what rules ask for is
            // small, and most of what they ask it of is large.
            if let Some(child) = left_decides(operation, x) {
                edges.push((left_upper, child));
                i += 1;
                j = self.seek(right, j, left_upper);
            } else if let Some(child) = right_decides(operation, y) {
                edges.push((right_upper, child));
                j += 1;
                i = self.seek(left, i, right_upper);
            } else {
                let child = match operation {
                    // Operands that commute are kept sorted, so that one entry of the memo serves both.
                    Operation::And | Operation::Or => self.apply(operation, x.min(y), x.max(y)),
                    Operation::Difference | Operation::Exists(_) | Operation::Forall(_) => {
                        self.apply(operation, x, y)
                    }
                };
                edges.push((left_upper.min(right_upper), child));
                i += usize::from(left_upper <= right_upper);
                j += usize::from(right_upper <= left_upper);
            }
        }
        let result = self.node(field, &edges);
        self.memo.insert((operation, a, b), result);
        result
    }

    /// The edges of an operand; one edge for all values, if it does not test the field.
    fn row(&self, node: Option<Node>, field: Field, set: PacketSet) -> Row {
        match node {
            Some(node) if node.field == field => {
                Row { first: Some(node.first as usize), count: node.count as usize, only: (0, set) }
            }
            Some(_) | None => Row { first: None, count: 1, only: (field.last(self.family), set) },
        }
    }

    fn edge(&self, row: Row, index: usize) -> Edge {
        row.first.map_or(row.only, |first| self.edges[first + index])
    }

    /// The edge that holds the value after this one, from an edge on that is not behind it.
    fn seek(&self, row: Row, from: usize, value: u128) -> usize {
        let Some(first) = row.first else { return usize::from(row.only.0 <= value) };
        let edges = &self.edges[first..first + row.count];
        // In steps that double, then by halves: cheap if it is near, and if it is far.
        let mut step = 1;
        let mut low = from;
        while low + step < edges.len() && edges[low + step].0 <= value {
            low += step;
            step *= 2;
        }
        let high = (low + step).min(edges.len());
        low + edges[low..high].partition_point(|(upper, _)| *upper <= value)
    }

    /// Packets in any of them. Sets are united by pairs, so that no large set is copied often.
    pub fn union(&mut self, mut sets: Vec<PacketSet>) -> PacketSet {
        while sets.len() > 1 {
            sets = sets
                .chunks(2)
                .map(|pair| match pair {
                    [a, b] => self.or(*a, *b),
                    _ => pair[0],
                })
                .collect();
        }
        sets.first().copied().unwrap_or(PacketSet::NONE)
    }

    /// How many intervals of the field it tests first it tells apart.
    pub(crate) fn width(&self, a: PacketSet) -> usize {
        self.inner(a).map_or(1, |node| node.count as usize)
    }

    fn quantify(&mut self, operation: Operation, field: Field, a: PacketSet) -> PacketSet {
        let Some(node) = self.inner(a) else { return a };
        if node.field > field {
            return a;
        }
        if let Some(known) = self.memo.get(&(operation, a, a)) {
            return *known;
        }
        let edges = self.edges_of(node).to_vec();
        let result = if node.field == field {
            let first = edges[0].1;
            edges[1..].iter().fold(first, |result, (_, child)| match operation {
                Operation::Exists(_) => self.or(result, *child),
                Operation::And | Operation::Or | Operation::Difference | Operation::Forall(_) => {
                    self.and(result, *child)
                }
            })
        } else {
            let edges: Vec<_> = edges
                .into_iter()
                .map(|(upper, child)| (upper, self.quantify(operation, field, child)))
                .collect();
            self.node(node.field, &edges)
        };
        self.memo.insert((operation, a, a), result);
        result
    }
}

/// The edges of an operand, by their place.
#[derive(Debug, Clone, Copy)]
struct Row {
    /// Where they start; `None` for `only`.
    first: Option<usize>,
    count: usize,
    only: Edge,
}

/// What an operation gives whatever the right operand is.
fn left_decides(operation: Operation, x: PacketSet) -> Option<PacketSet> {
    match operation {
        Operation::And | Operation::Difference => (x == PacketSet::NONE).then_some(x),
        Operation::Or => (x == PacketSet::ALL).then_some(x),
        Operation::Exists(_) | Operation::Forall(_) => None,
    }
}

/// What an operation gives whatever the left operand is.
fn right_decides(operation: Operation, y: PacketSet) -> Option<PacketSet> {
    match operation {
        Operation::And => (y == PacketSet::NONE).then_some(y),
        Operation::Or => (y == PacketSet::ALL).then_some(y),
        Operation::Difference => (y == PacketSet::ALL).then_some(PacketSet::NONE),
        Operation::Exists(_) | Operation::Forall(_) => None,
    }
}

/// What an operation gives without looking inside, where that is known.
fn terminal(operation: Operation, a: PacketSet, b: PacketSet) -> Option<PacketSet> {
    let (none, all) = (PacketSet::NONE, PacketSet::ALL);
    match operation {
        Operation::And => match (a, b) {
            _ if a == none || b == none => Some(none),
            _ if a == all || a == b => Some(b),
            _ if b == all => Some(a),
            _ => None,
        },
        Operation::Or => match (a, b) {
            _ if a == all || b == all => Some(all),
            _ if a == none || a == b => Some(b),
            _ if b == none => Some(a),
            _ => None,
        },
        Operation::Difference => match (a, b) {
            _ if a == none || b == all || a == b => Some(none),
            _ if b == none => Some(a),
            _ => None,
        },
        Operation::Exists(_) | Operation::Forall(_) => None,
    }
}

#[cfg(test)]
mod tests;

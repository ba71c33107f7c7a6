//! One routing table: the longest prefix that has a usable route.
//!
//! Kernel counterparts: `fib_table_lookup` (net/ipv4/fib_trie.c), `fib6_table_lookup` and
//! `fib6_node_lookup` (net/ipv6). Prefixes are kept sorted, each with the one around it, so that a
//! lookup is a binary search, and a lookup of every address at once is one pass. Left out: route
//! exceptions (learned path MTUs and redirects), expiry.

use std::collections::BTreeMap;

use canreach_snapshot::{Family, Ifindex, Route, RouteType};

use crate::host::flow::Refusal;

/// What a table says about one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hit {
    /// This route, with this way and this prefix length.
    Route { route: usize, way: u32, length: u8 },
    /// Refused by this route.
    Refused { route: usize, refusal: Refusal },
    /// `throw`: not found in this table, whatever shorter prefixes say.
    Throw,
}

/// What decides between routes of one prefix, beside the routes themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selector {
    /// IPv4: the link asked for. IPv6: the link that scores.
    pub(crate) device: Option<Ifindex>,
    /// IPv6: routes of other links do not count.
    pub(crate) strict: bool,
}

/// What the table needs to know of a route; made once for each.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) route: usize,
    pub(crate) way: u32,
    pub(crate) metric: u32,
    /// How it refuses; `None` if it does not. `Throw` is kept apart.
    pub(crate) verdict: CandidateVerdict,
    /// Links of usable nexthops.
    pub(crate) exits: Vec<Ifindex>,
    /// It uses a nexthop object.
    pub(crate) by_object: bool,
    /// IPv6 router preference as the kernel scores it: 1 low, 2 medium, 3 high.
    pub(crate) preference: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CandidateVerdict {
    Way,
    Refuse(Refusal),
    Throw,
}

#[derive(Debug)]
struct Node {
    low: u128,
    high: u128,
    length: u8,
    parent: Option<u32>,
    /// Routes for every source.
    plain: Vec<Candidate>,
    /// Routes for some sources, longest source prefix first.
    sourced: Vec<Sourced>,
}

#[derive(Debug)]
struct Sourced {
    low: u128,
    high: u128,
    length: u8,
    candidates: Vec<Candidate>,
}

/// One routing table.
#[derive(Debug)]
pub(crate) struct Table {
    family: Family,
    nodes: Vec<Node>,
}

impl Table {
    /// Builds a table from its routes, in the order that ties are broken by.
    pub(crate) fn new<'r>(
        family: Family,
        routes: impl IntoIterator<Item = (&'r Route, Candidate)>,
    ) -> Self {
        let mut keyed: Vec<_> = routes
            .into_iter()
            .map(|(route, candidate)| {
                let (low, high) = route.destination.range();
                // Without a length the kernel has a plain route, not a subtree of everything.
                let source = route.source.filter(|source| source.length() > 0);
                ((low, route.destination.length()), high, source, candidate)
            })
            .collect();
        keyed.sort_by_key(|(key, ..)| *key);
        let mut nodes: Vec<Node> = Vec::new();
        let mut open: Vec<u32> = Vec::new();
        for ((low, length), high, source, candidate) in keyed {
            let same = nodes.last().is_some_and(|node| node.low == low && node.length == length);
            if !same {
                while open.last().is_some_and(|index| nodes[*index as usize].high < low) {
                    open.pop();
                }
                let parent = open.last().copied();
                open.push(nodes.len() as u32);
                nodes.push(Node {
                    low,
                    high,
                    length,
                    parent,
                    plain: Vec::new(),
                    sourced: Vec::new(),
                });
            }
            let Some(node) = nodes.last_mut() else { continue };
            match source {
                None => node.plain.push(candidate),
                Some(prefix) => {
                    let (low, high) = prefix.range();
                    let length = prefix.length();
                    let known = node
                        .sourced
                        .iter_mut()
                        .find(|group| group.low == low && group.length == length);
                    match known {
                        Some(group) => group.candidates.push(candidate),
                        None => node.sourced.push(Sourced {
                            low,
                            high,
                            length,
                            candidates: vec![candidate],
                        }),
                    }
                }
            }
        }
        for node in &mut nodes {
            // Metric ascending; the order of the dump breaks ties, and the sort keeps it.
            node.plain.sort_by_key(|candidate| candidate.metric);
            node.sourced.sort_by_key(|group| std::cmp::Reverse(group.length));
            for group in &mut node.sourced {
                group.candidates.sort_by_key(|candidate| candidate.metric);
            }
        }
        Self { family, nodes }
    }

    /// Looks up one destination from one source.
    pub(crate) fn look_up(&self, address: u128, source: u128, select: Selector) -> Option<Hit> {
        self.walk_chain(&self.chain(address), source, select)
    }

    /// Source prefixes that can make a difference for one destination.
    pub(crate) fn source_ranges(&self, address: u128) -> Vec<(u128, u128)> {
        let sourced = self.chain(address).into_iter().flat_map(|node| &self.nodes[node].sourced);
        sourced.map(|group| (group.low, group.high)).collect()
    }

    /// Looks up every destination between two from one source, and collects the destinations of each
    /// answer. `key` says which answers count as one; `None` stands for "not found".
    pub(crate) fn partition<K: Ord>(
        &self,
        source: u128,
        select: Selector,
        (first, last): (u128, u128),
        key: impl Fn(Option<Hit>) -> K,
    ) -> BTreeMap<K, Vec<(u128, u128)>> {
        let mut result: BTreeMap<K, Vec<(u128, u128)>> = BTreeMap::new();
        let mut add = |low: u128, high: u128, hit: Option<Hit>| {
            result.entry(key(hit)).or_default().push((low, high.min(last)));
        };
        // Prefixes nest, so a stack of open ones says which is innermost; `next` is the first
        // address that is not accounted for, `None` once the last one is.
        let mut open: Vec<Open> = Vec::new();
        for index in self.chain(first).into_iter().rev() {
            let hit = self.hit_of(index, source, select, &open);
            open.push(hit);
        }
        let mut next = Some(first);
        let start = self.nodes.partition_point(|node| node.low <= first);
        let end = self.nodes.partition_point(|node| node.low <= last);
        for index in start..end {
            let node = &self.nodes[index];
            while let Some(top) = open.pop_if(|top| self.nodes[top.index].high < node.low) {
                let high = self.nodes[top.index].high;
                if let Some(start) = next.filter(|start| *start <= high) {
                    add(start, high, top.down);
                    next = high.checked_add(1);
                }
            }
            if let Some(start) = next.filter(|start| *start < node.low) {
                add(start, node.low - 1, open.last().and_then(|top| top.down));
                next = Some(node.low);
            }
            let hit = self.hit_of(index, source, select, &open);
            open.push(hit);
        }
        while let Some(top) = open.pop() {
            let high = self.nodes[top.index].high;
            if let Some(start) = next.filter(|start| *start <= high.min(last)) {
                add(start, high, top.down);
                next = high.checked_add(1);
            }
        }
        if let Some(start) = next.filter(|start| *start <= last) {
            add(start, last, None);
        }
        result
    }

    /// What a prefix says about addresses that no longer prefix holds; `around` are the prefixes it
    /// lies in.
    fn hit_of(&self, index: usize, source: u128, select: Selector, around: &[Open]) -> Open {
        let node = &self.nodes[index];
        let outer = around.last();
        let back = match self.select_at(index, source, select) {
            Selected::Hit(hit) => Some(hit),
            Selected::Nothing => outer.and_then(|outer| outer.back),
            Selected::LeavesLeaf => {
                let mut outer = around.iter().rev();
                outer.find(|outer| self.nodes[outer.index].low != node.low).and_then(|o| o.back)
            }
        };
        let down = if self.enters(node, source) { back } else { outer.and_then(|o| o.down) };
        Open { index, down, back }
    }

    /// Whether the way down the tree stops at a prefix (`fib6_node_lookup`).
    fn enters(&self, node: &Node, source: u128) -> bool {
        node.sourced.is_empty()
            || node.length == 0
            || node.sourced.iter().any(|group| (group.low..=group.high).contains(&source))
    }

    /// The prefixes around an address, innermost first.
    fn chain(&self, address: u128) -> Vec<usize> {
        // The last prefix that starts at or before the address is the innermost, or lies beside it
        // inside the innermost: prefixes of one start are sorted by length.
        let after = self.nodes.partition_point(|node| node.low <= address);
        let mut chain = Vec::new();
        let mut next = after.checked_sub(1);
        while let Some(index) = next {
            if self.nodes[index].high >= address {
                chain.push(index);
            }
            next = self.nodes[index].parent.map(|parent| parent as usize);
        }
        chain
    }

    /// `fib6_node_lookup`, then `fib6_backtrack`. Their oddity: where a prefix has routes for some
    /// sources only, and none for this one, its routes for every source are passed over on the way
    /// down (unless it is the default route), and are looked at on the way back.
    fn walk_chain(&self, chain: &[usize], source: u128, select: Selector) -> Option<Hit> {
        let start = chain.iter().position(|index| self.enters(&self.nodes[*index], source))?;
        let mut left_leaf = None;
        for index in &chain[start..] {
            if left_leaf == Some(self.nodes[*index].low) {
                continue;
            }
            match self.select_at(*index, source, select) {
                Selected::Hit(hit) => return Some(hit),
                Selected::Nothing => {}
                Selected::LeavesLeaf => left_leaf = Some(self.nodes[*index].low),
            }
        }
        None
    }

    fn select_at(&self, index: usize, source: u128, select: Selector) -> Selected {
        let node = &self.nodes[index];
        let of_source =
            node.sourced.iter().filter(|group| (group.low..=group.high).contains(&source));
        let groups = of_source.map(|group| &group.candidates).chain([&node.plain]);
        for candidates in groups {
            let chosen = match self.family {
                Family::Ipv4 => select_ipv4(candidates, select),
                Family::Ipv6 => Ok(select_ipv6(candidates, select)),
            };
            let Ok(chosen) = chosen else { return Selected::LeavesLeaf };
            if let Some(candidate) = chosen {
                return Selected::Hit(match candidate.verdict {
                    CandidateVerdict::Throw => Hit::Throw,
                    CandidateVerdict::Refuse(refusal) => {
                        Hit::Refused { route: candidate.route, refusal }
                    }
                    CandidateVerdict::Way => Hit::Route {
                        route: candidate.route,
                        way: candidate.way,
                        length: node.length,
                    },
                });
            }
        }
        Selected::Nothing
    }
}

/// A prefix that is open while all destinations are walked.
#[derive(Debug, Clone, Copy)]
struct Open {
    index: usize,
    /// What it says to a lookup on its way down.
    down: Option<Hit>,
    /// What it says to one that comes back from a longer prefix.
    back: Option<Hit>,
}

/// What the routes of one prefix come to.
enum Selected {
    Hit(Hit),
    Nothing,
    /// IPv4: a route by a nexthop object without a usable nexthop was met. The kernel then leaves the
    /// whole leaf of its trie, which holds all prefixes of one network address.
    LeavesLeaf,
}

/// An IPv4 route by a nexthop object that has no usable nexthop.
struct DeadObject;

/// `fib_table_lookup`: the first with a usable nexthop.
fn select_ipv4(
    candidates: &[Candidate],
    select: Selector,
) -> Result<Option<&Candidate>, DeadObject> {
    for candidate in candidates {
        let usable = candidate.verdict != CandidateVerdict::Way
            || candidate
                .exits
                .iter()
                .any(|link| select.device.is_none_or(|device| device == *link));
        if usable {
            return Ok(Some(candidate));
        }
        if candidate.by_object {
            return Err(DeadObject);
        }
    }
    Ok(None)
}

/// `find_rr_leaf`: the best score of the smallest metric, else the best of all others.
fn select_ipv6(candidates: &[Candidate], select: Selector) -> Option<&Candidate> {
    let first_metric = candidates.first()?.metric;
    let split = candidates.partition_point(|candidate| candidate.metric == first_metric);
    let best = |candidates: &'_ [Candidate]| -> Option<usize> {
        let mut best: Option<(u8, usize)> = None;
        for (index, candidate) in candidates.iter().enumerate() {
            let Some(score) = score_ipv6(candidate, select) else { continue };
            // Strictly better: among equals the first one stays.
            if best.is_none_or(|(known, _)| score > known) {
                best = Some((score, index));
            }
        }
        best.map(|(_, index)| index)
    };
    let (first, rest) = candidates.split_at(split);
    best(first).map(|index| &first[index]).or_else(|| best(rest).map(|index| &rest[index]))
}

/// `rt6_score_route`, the best over the nexthops.
fn score_ipv6(candidate: &Candidate, select: Selector) -> Option<u8> {
    let preference = candidate.preference << 2;
    match candidate.verdict {
        // Routes that refuse stand on `lo`.
        CandidateVerdict::Refuse(_) | CandidateVerdict::Throw => {
            let on_loopback = select.device == Some(canreach_snapshot::link::LOOPBACK_IFINDEX);
            let device = if select.device.is_none() || on_loopback { 2 } else { 0 };
            (device > 0 || !select.strict).then_some(device | preference)
        }
        CandidateVerdict::Way => candidate
            .exits
            .iter()
            .filter_map(|link| {
                let matches = select.device.is_none_or(|device| device == *link);
                let device = if matches { 2 } else { 0 };
                (matches || !select.strict).then_some(device | preference)
            })
            .max(),
    }
}

/// How a type of route refuses, if it does.
pub(crate) const fn verdict_of(kind: RouteType) -> CandidateVerdict {
    match kind {
        RouteType::Unicast
        | RouteType::Local
        | RouteType::Broadcast
        | RouteType::Anycast
        | RouteType::Multicast => CandidateVerdict::Way,
        // `fib_props` gives NAT routes the error of blackholes; other numbers cannot be added.
        RouteType::Blackhole | RouteType::Nat | RouteType::Other(_) => {
            CandidateVerdict::Refuse(Refusal::Blackhole)
        }
        RouteType::Unreachable => CandidateVerdict::Refuse(Refusal::RouteUnreachable),
        RouteType::Prohibit => CandidateVerdict::Refuse(Refusal::Prohibit),
        RouteType::Throw => CandidateVerdict::Throw,
    }
}

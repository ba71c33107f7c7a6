//! The algebra against plain enumeration of a small space: an IPv4 source of 16 values, a port of 8,
//! and two unknowns. Sets are built from random expressions; a table of 512 bits is what they mean.

use proptest::prelude::*;

use super::*;

const SOURCES: u128 = 16;
const PORTS: u128 = 8;
const PACKETS: usize = (SOURCES * PORTS * 4) as usize;

/// What a set means: one bit per packet.
type Truth = Vec<bool>;

#[derive(Debug, Clone)]
enum Expression {
    Sources(u128, u128),
    Ports(u128, u128),
    Unknown(u16),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Difference(Box<Self>, Box<Self>),
    Not(Box<Self>),
}

/// The packet with this number: source, port, unknowns.
fn packet(number: usize) -> (u128, u128, [bool; 2]) {
    let number = number as u128;
    let unknowns = number / (SOURCES * PORTS);
    (number % SOURCES, number / SOURCES % PORTS, [unknowns & 1 == 1, unknowns & 2 == 2])
}

fn truth(test: impl Fn(u128, u128, [bool; 2]) -> bool) -> Truth {
    (0..PACKETS)
        .map(|number| {
            let (source, port, unknowns) = packet(number);
            test(source, port, unknowns)
        })
        .collect()
}

fn combine(a: &Truth, b: &Truth, operation: impl Fn(bool, bool) -> bool) -> Truth {
    a.iter().zip(b).map(|(a, b)| operation(*a, *b)).collect()
}

/// Builds a set and its meaning side by side.
fn build(sets: &mut Diagram, expression: &Expression) -> (PacketSet, Truth) {
    match expression {
        Expression::Sources(a, b) => {
            let (low, high) = (*a.min(b), *a.max(b));
            let set = sets.ranges(Field::Source, &[(low, high)]);
            (set, truth(|source, _, _| (low..=high).contains(&source)))
        }
        Expression::Ports(a, b) => {
            let (low, high) = (*a.min(b), *a.max(b));
            let set = sets.ranges(Field::SourcePort, &[(low, high)]);
            (set, truth(|_, port, _| (low..=high).contains(&port)))
        }
        Expression::Unknown(number) => {
            (sets.unknown(*number), truth(|_, _, unknowns| unknowns[usize::from(*number)]))
        }
        Expression::And(a, b) => {
            let ((a, x), (b, y)) = (build(sets, a), build(sets, b));
            (sets.and(a, b), combine(&x, &y, |a, b| a && b))
        }
        Expression::Or(a, b) => {
            let ((a, x), (b, y)) = (build(sets, a), build(sets, b));
            (sets.or(a, b), combine(&x, &y, |a, b| a || b))
        }
        Expression::Difference(a, b) => {
            let ((a, x), (b, y)) = (build(sets, a), build(sets, b));
            (sets.difference(a, b), combine(&x, &y, |a, b| a && !b))
        }
        Expression::Not(a) => {
            let (a, x) = build(sets, a);
            (sets.not(a), x.iter().map(|bit| !bit).collect())
        }
    }
}

fn expressions() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        (0..SOURCES, 0..SOURCES).prop_map(|(a, b)| Expression::Sources(a, b)),
        (0..PORTS, 0..PORTS).prop_map(|(a, b)| Expression::Ports(a, b)),
        (0_u16..2).prop_map(Expression::Unknown),
    ];
    leaf.prop_recursive(5, 32, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        prop_oneof![
            pair.clone().prop_map(|(a, b)| Expression::And(Box::new(a), Box::new(b))),
            pair.clone().prop_map(|(a, b)| Expression::Or(Box::new(a), Box::new(b))),
            pair.prop_map(|(a, b)| Expression::Difference(Box::new(a), Box::new(b))),
            inner.prop_map(|a| Expression::Not(Box::new(a))),
        ]
    })
}

/// What a set says of every packet of the small space.
fn meaning(sets: &mut Diagram, set: PacketSet) -> Truth {
    (0..PACKETS)
        .map(|number| {
            let (source, port, unknowns) = packet(number);
            let mut left = sets.cofactor(Field::Source, source, set);
            left = sets.cofactor(Field::SourcePort, port, left);
            for (number, value) in unknowns.into_iter().enumerate() {
                left = sets.cofactor(Field::Unknown(number as u16), u128::from(value), left);
            }
            assert!(left == PacketSet::ALL || left == PacketSet::NONE, "every field is fixed");
            left == PacketSet::ALL
        })
        .collect()
}

/// The table with one bit of the packet's number ignored, both its values taken together.
fn quantified(table: &Truth, unknown: usize, join: impl Fn(bool, bool) -> bool) -> Truth {
    let stride = (SOURCES * PORTS) as usize * (1 << unknown);
    (0..PACKETS).map(|number| join(table[number & !stride], table[number | stride])).collect()
}

proptest! {
    #[test]
    fn operations_mean_what_enumeration_says(a in expressions(), b in expressions()) {
        let mut sets = Diagram::new(Family::Ipv4);
        let ((first, x), (second, y)) = (build(&mut sets, &a), build(&mut sets, &b));
        prop_assert_eq!(meaning(&mut sets, first), x.clone());
        // Sources and ports beyond the small space are told apart from it by ranges only, so sets
        // are compared inside it.
        let low_sources = sets.ranges(Field::Source, &[(0, SOURCES - 1)]);
        let low_ports = sets.ranges(Field::SourcePort, &[(0, PORTS - 1)]);
        let space = sets.and(low_sources, low_ports);
        let (first, second) = (sets.and(first, space), sets.and(second, space));
        prop_assert_eq!(first == second, x == y, "equal sets have equal handles");
        prop_assert_eq!(first.is_empty(), !x.contains(&true));
        match sets.pick(first) {
            None => prop_assert!(first.is_empty()),
            Some(values) => {
                let mut left = first;
                for (field, value) in values {
                    left = sets.cofactor(field, value, left);
                }
                prop_assert_eq!(left, PacketSet::ALL);
            }
        }
    }

    #[test]
    fn must_and_may_quantify_over_unknowns(expression in expressions()) {
        let mut sets = Diagram::new(Family::Ipv4);
        let (set, table) = build(&mut sets, &expression);
        let once = quantified(&table, 0, |a, b| a || b);
        let may = quantified(&once, 1, |a, b| a || b);
        let once = quantified(&table, 0, |a, b| a && b);
        let must = quantified(&once, 1, |a, b| a && b);
        let (for_sure, perhaps) = (sets.must(set), sets.may(set));
        prop_assert_eq!(meaning(&mut sets, for_sure), must);
        prop_assert_eq!(meaning(&mut sets, perhaps), may);
        let depends = |set, sets: &Diagram| {
            sets.support(set).iter().any(|field| matches!(field, Field::Unknown(_)))
        };
        prop_assert!(!depends(for_sure, &sets) && !depends(perhaps, &sets));
    }

    #[test]
    fn what_is_read_off_is_what_was_put_in(expression in expressions()) {
        let mut sets = Diagram::new(Family::Ipv4);
        let (set, _) = build(&mut sets, &expression);
        let set = sets.must(set);
        let mut again = PacketSet::NONE;
        for (sources, ports) in sets.read(set) {
            let sources = sets.from_sources(&sources);
            let ports = match ports {
                None => PacketSet::ALL,
                Some(ranges) => {
                    let ranges: Vec<_> = ranges
                        .into_iter()
                        .map(|(low, high)| (u128::from(low), u128::from(high)))
                        .collect();
                    sets.ranges(Field::SourcePort, &ranges)
                }
            };
            let part = sets.and(sources, ports);
            prop_assert!(sets.and(part, again).is_empty(), "parts are disjoint");
            again = sets.or(again, part);
        }
        prop_assert_eq!(again, set);
    }
}

#[test]
fn the_ends_of_the_largest_field_are_values_like_others() {
    let mut sets = Diagram::new(Family::Ipv6);
    let last = sets.ranges(Field::Source, &[(u128::MAX, u128::MAX)]);
    let first = sets.ranges(Field::Source, &[(0, 0)]);
    let middle = sets.ranges(Field::Source, &[(1, u128::MAX - 1)]);
    let ends = sets.or(first, last);
    assert_eq!(sets.not(ends), middle);
    assert_eq!(sets.or(ends, middle), PacketSet::ALL);
    assert_eq!(sets.ranges(Field::Source, &[(0, u128::MAX)]), PacketSet::ALL);
    assert_eq!(sets.ranges(Field::Source, &[]), PacketSet::NONE);
}

#[test]
fn the_limit_is_noticed_instead_of_passed() {
    let mut sets = Diagram::new(Family::Ipv4);
    // Each range of ports is one node of three edges: the edges run out first.
    let mut count: u128 = 0;
    while !sets.is_breached() {
        let value = 2 * count;
        let set = sets.ranges(Field::Source, &[(value, value)]);
        assert_eq!(set.is_empty(), sets.is_breached());
        count += 1;
        assert!(count as usize <= MAX_NODES + 1);
    }
    assert!(sets.len() <= MAX_NODES);
}

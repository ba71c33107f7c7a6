//! Whether IPv4's tables local and main are one trie (`canreach_snapshot::FibLayout`).
//!
//! No dump says so. `/proc/net/fib_trie` prints every prefix of every table, megabytes on a router;
//! `/proc/net/fib_triestat` beside it only counts them (net/ipv4/fib_trie.c,
//! `fib_triestat_seq_show`). The count is enough: one trie holds as many prefixes as both tables
//! have routes, and prints the same numbers under both names.

use canreach_snapshot::{Family, FibLayout, Route, TableId};

/// The file. It shows the namespace of the reading thread.
pub(crate) const PATH: &str = "/proc/thread-self/net/fib_triestat";

/// Judges the layout by the file and the routes that were dumped. `None` where the two contradict
/// each other, because routes changed between the two reads.
pub(crate) fn judge(statistics: &str, routes: &[Route]) -> Option<FibLayout> {
    let count = |table: TableId| {
        let of_table = |route: &&Route| route.table == table && route.family() == Family::Ipv4;
        routes.iter().filter(of_table).count()
    };
    let (main, local) = (count(TableId::MAIN), count(TableId::LOCAL));
    let held = |heading| prefixes(statistics, heading).unwrap_or(0);
    let (main_trie, local_trie) = (held("Main:"), held("Local:"));
    let merged = main_trie == main + local && local_trie == main_trie;
    let split = main_trie == main && local_trie == local;
    match (merged, split) {
        (true, false) => Some(FibLayout::Merged),
        (false, true) => Some(FibLayout::Split),
        // Without any IPv4 route both look alike, and nothing depends on it.
        (true, true) => Some(FibLayout::Unknown),
        (false, false) => None,
    }
}

/// The number of prefixes under a heading.
fn prefixes(statistics: &str, heading: &str) -> Option<usize> {
    let mut lines = statistics.lines().skip_while(|line| *line != heading).skip(1);
    let line = lines
        .by_ref()
        .take_while(|line| line.starts_with('\t') || !line.ends_with(':'))
        .find_map(|line| line.trim_start().strip_prefix("Prefixes:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use canreach_snapshot::{Prefix, RouteProtocol, RouteType, Scope};

    use super::*;

    fn route(table: TableId) -> Route {
        Route {
            table,
            kind: RouteType::Unicast,
            destination: Prefix::all(Family::Ipv4),
            source: None,
            tos: 0,
            scope: Scope::UNIVERSE,
            protocol: RouteProtocol::BOOT,
            metric: 0,
            preferred_source: None,
            preference: None,
            flags: 0,
            nexthops: Vec::new(),
            nexthop_id: None,
            realm: None,
        }
    }

    fn statistics(main: usize, local: usize) -> String {
        let table = |name: &str, prefixes: usize| {
            format!(
                "{name}\n\tAver depth:     2.42\n\tLeaves:         7\n\tPrefixes:       {prefixes}\n\
                 Null ptrs: 11\nTotal size: 2  kB\n"
            )
        };
        format!(
            "Basic info\n{}{}{}",
            table("Id 7:", 9),
            table("Main:", main),
            table("Local:", local)
        )
    }

    #[test]
    fn counts_tell_one_trie_from_two() {
        let check = |main_trie, local_trie, main, local, expected| {
            let mut routes = vec![route(TableId::MAIN); main];
            routes.extend(vec![route(TableId::LOCAL); local]);
            routes.push(route(TableId::DEFAULT));
            assert_eq!(
                judge(&statistics(main_trie, local_trie), &routes),
                expected,
                "{main_trie} {local_trie} for {main} and {local}"
            );
        };
        check(7, 7, 2, 5, Some(FibLayout::Merged));
        check(2, 5, 2, 5, Some(FibLayout::Split));
        check(5, 5, 0, 5, Some(FibLayout::Merged));
        check(0, 5, 0, 5, Some(FibLayout::Split));
        check(3, 3, 3, 3, Some(FibLayout::Split));
        check(0, 0, 0, 0, Some(FibLayout::Unknown));
        check(8, 8, 2, 5, None);
        check(3, 5, 2, 5, None);
    }

    #[test]
    fn text_that_is_something_else_counts_nothing() {
        for text in ["", "Main:", "Main:\n\tPrefixes: many\n", "Main:\nLocal:\n\tPrefixes: 3\n"] {
            assert_eq!(prefixes(text, "Main:"), None, "{text:?}");
        }
    }
}

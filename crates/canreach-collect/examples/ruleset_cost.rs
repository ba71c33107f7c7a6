//! What reading the packet filters of this network namespace costs: time, and memory at the highest.
//!
//! `ip netns exec NAME target/release/examples/ruleset_cost`, for a namespace with large sets.

use std::time::Instant;

use canreach_collect::{NetnsChoice, Scope, SocketScope, collect};

#[allow(clippy::print_stdout, reason = "it is a program")]
fn main() {
    let scope = Scope {
        netns: NetnsChoice::Own,
        all_namespaces: false,
        beyond: false,
        sockets: SocketScope::All,
        owners: false,
        filters: true,
    };
    let started = Instant::now();
    let snapshot = collect(&scope).expect("it can be read");
    let elapsed = started.elapsed();
    let netns = snapshot.subject().expect("there is one");
    let tables = netns.firewall.nft.iter().flat_map(|ruleset| &ruleset.tables);
    let (mut rules, mut elements) = (0, 0);
    for table in tables {
        rules += table.chains.iter().map(|chain| chain.rules.len()).sum::<usize>();
        elements += table.sets.iter().map(|set| set.elements.len()).sum::<usize>();
    }
    println!("{rules} rules, {elements} elements in {} ms", elapsed.as_millis());
    println!("gaps: {:?}", netns.gaps);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
}

//! nftables rulesets, as they are read.

mod bytecode;
mod libnftnl;
mod restored;
mod sets;

use canreach_snapshot::nft::{Ruleset, Table};

use crate::namespace::{Namespace, gaps, skip};

/// Loads a ruleset, without the lines that this kernel or this `nft` does not take; each is printed.
/// `None` where there is no `nft`.
fn load(namespace: &Namespace, rules: &str) -> Option<()> {
    let mut lines: Vec<&str> = rules.lines().collect();
    loop {
        let output = namespace.run(&["nft", "-f", "-"], &lines.join("\n"));
        if output.status.success() {
            return Some(());
        }
        let reason = String::from_utf8_lossy(&output.stderr);
        let mut words = reason.split(':');
        let number = words.nth(1).and_then(|number| number.parse::<usize>().ok());
        let Some(line) = number.and_then(|number| number.checked_sub(1)) else {
            skip(&format!("nft: {}", reason.trim()));
            return None;
        };
        assert!(line < lines.len(), "{reason}");
        let removed = lines.remove(line);
        skip(&format!("{}: {}", removed.trim(), reason.lines().next().unwrap_or_default()));
    }
}

/// Reads the ruleset of a namespace.
fn read(namespace: &Namespace) -> Ruleset {
    let netns = namespace.read();
    assert!(gaps(&netns).is_empty(), "{:?}", netns.gaps);
    netns.firewall.nft.expect("it was read")
}

fn table<'a>(ruleset: &'a Ruleset, name: &str) -> &'a Table {
    ruleset.tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("{name}"))
}

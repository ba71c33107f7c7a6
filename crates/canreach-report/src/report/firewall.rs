//! What is known of the firewall, in a few words.

use canreach_engine::explain::rule_owner::programs;
use canreach_snapshot::{Firewall, GapReason, GapSubject, Netns};

/// What is known of packet filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallState {
    /// What was read.
    pub loaded: Loaded,
    /// A program's own settings: its name, where that was read, and whether it says it is on.
    pub hint: Option<Hint>,
    /// The programs that keep rules, by the names that these have.
    pub programs: Vec<&'static str>,
}

/// Whether anything that could stop a packet is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// Nothing is.
    Nothing,
    /// Rules are, and they were read.
    Rules,
    /// Rules are, and what they say is not known: the snapshot has no more than that.
    Unjudged,
    /// The kernel shows it to root only.
    NeedsRoot,
    /// It could not be read, for another reason.
    Unread,
}

/// What a firewall program's settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The program.
    pub program: String,
    /// Where it was read.
    pub source: String,
    /// It says it is on.
    pub enabled: bool,
}

impl FirewallState {
    /// What is known of a namespace's firewall.
    #[must_use]
    pub fn of(netns: &Netns) -> Self {
        let hints = netns.firewall.hints.iter().filter_map(|hint| {
            let (program, source) = (hint.program.clone(), hint.source.clone());
            hint.enabled.map(|enabled| Hint { program, source, enabled })
        });
        // One that is on says more than one that is off.
        let hint = hints.max_by_key(|hint| hint.enabled);
        let unread = netns.gaps.iter().filter(|gap| is_about_firewall(&gap.subject));
        let reasons: Vec<&GapReason> = unread.map(|gap| &gap.reason).collect();
        let loaded = if has_rules(&netns.firewall) && is_read(&netns.firewall) {
            Loaded::Rules
        } else if has_rules(&netns.firewall) {
            Loaded::Unjudged
        } else if reasons.contains(&&GapReason::NeedsRoot) {
            Loaded::NeedsRoot
        } else if reasons.is_empty() {
            Loaded::Nothing
        } else {
            Loaded::Unread
        };
        Self { loaded, hint, programs: programs(&netns.firewall) }
    }

    /// The name of the program that is known to be on: its rules are loaded, or its settings say so.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        /// These are there to stop packets; others open ports for what they run.
        const FIREWALLS: [&str; 2] = ["ufw", "firewalld"];
        if let Some(program) = self.programs.iter().find(|name| FIREWALLS.contains(name)) {
            return Some(program);
        }
        self.hint.as_ref().filter(|hint| hint.enabled).map(|hint| hint.program.as_str())
    }
}

/// Whether rules are loaded that could stop a packet.
#[must_use]
pub fn has_rules(firewall: &Firewall) -> bool {
    firewall.chains.iter().any(|chain| !chain.is_idle())
        || firewall.legacy_tables.iter().any(|table| table.idle != Some(true))
}

/// Whether the rules themselves are in the snapshot.
const fn is_read(firewall: &Firewall) -> bool {
    (firewall.nft.is_some() || firewall.chains.is_empty())
        && (!firewall.xt_tables.is_empty() || firewall.legacy_tables.is_empty())
}

const fn is_about_firewall(subject: &GapSubject) -> bool {
    matches!(subject, GapSubject::NftRuleset | GapSubject::LegacyTables(_))
}

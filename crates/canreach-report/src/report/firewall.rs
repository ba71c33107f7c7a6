//! What is known of the firewall, in a few words.

use canreach_engine::explain::rule_owner::programs;
use canreach_snapshot::{Firewall, GapReason, GapSubject, Netns};

/// What is known of packet filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallState {
    /// What was read.
    pub loaded: Loaded,
    /// What files say that everybody may read, about the program that most likely decides.
    pub hint: Option<Hint>,
    /// Docker Engine runs: ports that it publishes pass by other firewalls.
    pub docker_runs: bool,
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

/// What a file says about a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The program.
    pub program: String,
    /// Where it was read.
    pub source: String,
    /// It says that it is on, or off; `None` where it starts at boot, and may have done so.
    pub enabled: Option<bool>,
}

impl FirewallState {
    /// What is known of a namespace's firewall.
    #[must_use]
    pub fn of(netns: &Netns) -> Self {
        let hints = || {
            netns.firewall.hints.iter().map(|hint| Hint {
                program: hint.program.clone(),
                source: hint.source.clone(),
                enabled: hint.enabled,
            })
        };
        let docker_runs = hints().any(|hint| hint.program == "Docker");
        // One that is on says more than one that may be, and that more than one that is off.
        let hint = hints().filter(|hint| is_firewall(&hint.program)).max_by_key(|hint| match hint
            .enabled
        {
            Some(true) => 2,
            None => 1,
            Some(false) => 0,
        });
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
        Self { loaded, hint, docker_runs, programs: programs(&netns.firewall) }
    }

    /// The name of the program that is known to be on: its rules are loaded, or its settings say so.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        if let Some(program) = self.programs.iter().find(|name| is_firewall(name)) {
            return Some(program);
        }
        self.hint
            .as_ref()
            .filter(|hint| hint.enabled == Some(true))
            .map(|hint| hint.program.as_str())
    }
}

/// Whether a program is there to stop packets; others open ports for what they run.
#[must_use]
pub fn is_firewall(program: &str) -> bool {
    ["ufw", "firewalld", "nftables"].contains(&program)
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

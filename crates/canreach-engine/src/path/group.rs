//! From fates to an answer: groups of sources, and the verdict.
//!
//! *Kernel:* none.
//! *Decides:* which sources count, the order of groups, the verdict.
//! *Reads:* the question, own addresses, broadcast routes.
//! *Not modelled:* nothing.

use std::collections::BTreeMap;

use canreach_snapshot::Family;

use crate::host::Host;
use crate::netfilter::hook::Neutral;
use crate::path::receive::Walk;
use crate::{
    AddressSet, Answer, Arrival, Blocker, Group, NetnsIndex, NfSubject, Outcome, Question, Subject,
    Verdict,
};

/// Answers a question about a host, with everything that would stop a packet.
#[must_use]
pub fn answer(host: &Host<'_>, question: &Question) -> Answer {
    let mut answer = answer_with(&mut Walk::about(host, question), host, question);
    for group in answer.groups.iter_mut().take(GROUPS_MAX) {
        if stopping_rule(host, group).is_some() {
            find_blockers(host, question, group);
        }
    }
    answer
}

/// The most groups whose further blockers are looked for. What comes after is small, and its first
/// blocker is known.
const GROUPS_MAX: usize = 16;
/// The most rules that are set aside one after the other.
const ROUNDS_MAX: usize = 32;

/// The first rule, or policy of a chain, that stops a group.
fn stopping_rule(host: &Host<'_>, group: &Group) -> Option<(usize, NetnsIndex, NfSubject)> {
    group.blockers.iter().enumerate().find_map(|(place, blocker)| {
        let subject = blocker.subject.as_ref()?;
        let (netns, subject) = if let Subject::In(netns, inner) = subject {
            (*netns, &**inner)
        } else {
            (host.others().here(), subject)
        };
        if let Subject::Netfilter(rule) = subject { Some((place, netns, *rule)) } else { None }
    })
}

/// Sets aside one rule after the other until none is left that stops the group. What a walk finds
/// behind a rule that stops is only what would be there if the rule were the last: so the rest of the
/// path is taken from the walk without it.
fn find_blockers(host: &Host<'_>, question: &Question, group: &mut Group) {
    let asked = match question.via {
        Arrival::Link(_) => Question { from: group.sources.clone(), ..question.clone() },
        Arrival::Local { .. } => question.clone(),
    };
    let mut aside: BTreeMap<NetnsIndex, Neutral> = BTreeMap::new();
    let mut blockers: Vec<Blocker> = Vec::new();
    let mut add = |found: &[Blocker]| {
        for blocker in found {
            if !blockers.contains(blocker) {
                blockers.push(blocker.clone());
            }
        }
    };
    let mut stopped = vec![group.clone()];
    for _ in 0..ROUNDS_MAX {
        let mut rules = Vec::new();
        for group in &stopped {
            match stopping_rule(host, group) {
                Some((place, netns, rule)) => {
                    add(&group.blockers[..=place]);
                    rules.push((netns, rule));
                }
                None => add(&group.blockers),
            }
        }
        if rules.is_empty() {
            break;
        }
        for (netns, rule) in rules {
            aside.entry(netns).or_default().0.insert(rule);
        }
        let mut walk = Walk::about(host, &asked);
        walk.set_aside(&aside);
        stopped = answer_with(&mut walk, host, &asked).groups;
    }
    blockers.sort_by_key(|blocker| blocker.stage);
    group.blockers = blockers;
}

/// Answers a question with a walk that may have answered others before.
pub fn answer_with(walk: &mut Walk<'_, '_>, host: &Host<'_>, question: &Question) -> Answer {
    let local = matches!(question.via, Arrival::Local { .. });
    let family = question.family();
    let unsendable =
        if local { AddressSet::empty(family) } else { host.unsendable(family).clone() };
    let mut groups = Vec::new();
    for (set, result) in walk.results(question) {
        for (sources, ports) in walk.sets().read(set) {
            // The kernel chooses a local client's source, so what was asked for stands for it.
            let sources =
                if local { question.from.clone() } else { sources.intersection(&question.from) };
            if sources.is_empty() && !local {
                continue;
            }
            groups.push(Group {
                sources,
                ports,
                fate: result.fate.clone(),
                steps: result.steps.clone(),
                blockers: result.blockers.clone(),
                doubts: result.doubts.clone(),
                sockets: match result.netns {
                    None => result.sockets.clone(),
                    Some(_) => Vec::new(),
                },
                sockets_in: result.netns.map(|netns| (netns, result.sockets.clone())),
            });
        }
    }
    debug_assert!(local || is_partition(&groups, &question.from), "groups partition the sources");
    let counts = |group: &Group| group.sources.difference(&unsendable);
    let some_count = local || groups.iter().any(|group| !counts(group).is_empty());
    let weight =
        |group: &Group| size(&if some_count { counts(group) } else { group.sources.clone() });
    // The sort is stable, and the order before it follows the addresses.
    groups.sort_by_cached_key(|group| {
        let first = group.sources.ranges().first().copied();
        (std::cmp::Reverse(weight(group)), group.ports.is_some(), first, group.ports.clone())
    });
    let verdict =
        verdict(groups.iter().filter(|group| local || !some_count || !counts(group).is_empty()));
    let unsendable = unsendable.intersection(&question.from);
    Answer { question: question.clone(), verdict, unsendable, groups }
}

/// How many addresses a set holds, as far as a number goes.
pub(crate) fn size(set: &AddressSet) -> u128 {
    set.ranges()
        .iter()
        .fold(0_u128, |sum, (low, high)| sum.saturating_add((high - low).saturating_add(1)))
}

fn verdict<'g>(groups: impl Iterator<Item = &'g Group>) -> Verdict {
    let (mut yes, mut no, mut unknown) = (false, false, false);
    for group in groups {
        match group.fate.outcome {
            Outcome::Delivered(_) | Outcome::DeliveredIn(..) => yes = true,
            Outcome::Stopped(_) => no = true,
            Outcome::Unknown(_) => unknown = true,
        }
    }
    match (yes, no, unknown) {
        (true, true, _) => Verdict::Partly,
        (true, false, false) => Verdict::Yes,
        (false, true, false) => Verdict::No,
        (_, _, true) | (false, false, false) => Verdict::Unknown,
    }
}

/// Whether the groups make up the sources asked about, each source with each port once.
fn is_partition(groups: &[Group], from: &AddressSet) -> bool {
    let whole = AddressSet::empty(from.family());
    let union = groups.iter().fold(whole, |sum, group| sum.union(&group.sources));
    let disjoint = groups.iter().enumerate().all(|(index, one)| {
        groups[index + 1..].iter().all(|other| {
            let meet = !one.sources.intersection(&other.sources).is_empty();
            !meet || ports_disjoint(one.ports.as_deref(), other.ports.as_deref())
        })
    });
    union == *from && disjoint
}

fn ports_disjoint(one: Option<&[(u16, u16)]>, other: Option<&[(u16, u16)]>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    one.iter().all(|(low, high)| other.iter().all(|(from, to)| high < from || to < low))
}

/// Addresses of a family that no neighbour can send from, beside this machine's own.
pub(crate) const fn never_sources(family: Family) -> &'static [(u128, u128)] {
    match family {
        Family::Ipv4 => &[
            (0x0000_0000, 0x00ff_ffff),
            (0x7f00_0000, 0x7fff_ffff),
            (0xe000_0000, 0xefff_ffff),
            (0xffff_ffff, 0xffff_ffff),
        ],
        Family::Ipv6 => &[(0, 1), (0xff << 120, u128::MAX)],
    }
}

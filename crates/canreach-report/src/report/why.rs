//! `why`: can they connect, and why not.

use std::net::IpAddr;

use canreach_engine::ask::{Ask, From};
use canreach_engine::explain::fix::FixId;
use canreach_engine::explain::rule_owner::RuleOwner;
use canreach_engine::link_role::{LinkRole, link_networks, link_roles};
use canreach_engine::{
    AddressSet, Answer, Arrival, Blocker, Doubt, DoubtEffect, DropReason, Group, NetnsIndex,
    Outcome, Question, SocketIndex, Stage, Step, StepResult, Subject, TheySee, UnknownReason,
    Verdict,
};
use canreach_snapshot::link::LOOPBACK_IFINDEX;
use canreach_snapshot::{
    Family, GapSubject, LinkKind, Netns, Prefix, Proto, Snapshot, SocketState, Virtualization,
};

use crate::report::firewall::FirewallState;
use crate::report::fix;
use crate::report::program::{Program, Programs};
use crate::report::subject::{NamedSubject, link_name};
use crate::report::unknown::{self, UnknownThing};
use crate::report::url::Urls;

/// The answer to one question, with the answers for the other links and families.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyReport {
    /// What was asked.
    pub asked: Asked,
    /// The verdict.
    pub verdict: Verdict,
    /// Which way an unknown verdict leans.
    pub leaning: Option<Leaning>,
    /// What they see; `None` where it differs over the sources or is not known.
    pub they_see: Option<TheySee>,
    /// The first step that stops them.
    pub stop: Option<NamedBlocker>,
    /// Every step that would.
    pub blockers: Vec<NamedBlocker>,
    /// The steps of the group of sources that the verdict is about.
    pub steps: Vec<NamedStep>,
    /// The groups of sources; together they are what was asked about.
    pub groups: Vec<SourceGroup>,
    /// The lookup found a socket, whatever else is in doubt.
    pub found: bool,
    /// The socket that gets it, or would get it if it were not for the stop.
    pub listener: Option<Listener>,
    /// Where there is no listener: a program that was started lately and listens elsewhere.
    pub recent: Option<Listener>,
    /// Where there is no listener: the program that uses the port for a connection of its own.
    pub connection: Option<Program>,
    /// What would help.
    pub fixes: Vec<Fix>,
    /// What to hand out, where the server is known to be one that browsers open.
    pub url: Option<String>,
    /// The same question for other links and the other family.
    pub also: Vec<AlsoAnswer>,
    /// The address that they should dial instead, where what they dial is not this computer's.
    pub instead: Option<IpAddr>,
    /// Where a rule sends their packets on to.
    pub sent_on: Option<SentOn>,
    /// What is known of the firewall.
    pub firewall: FirewallState,
    /// What this system runs inside.
    pub inside: Option<Virtualization>,
    /// What touched the answer and is not known.
    pub unknown: Vec<UnknownThing>,
    /// What cannot be checked from here.
    pub not_checked: Vec<&'static str>,
}

/// What was asked, with the names of things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// TCP or UDP.
    pub proto: Proto,
    /// The port.
    pub port: u16,
    /// Who.
    pub who: Who,
    /// Their addresses.
    pub from: AddressSet,
    /// The address dialled; `None` where there is none to dial.
    pub to: Option<IpAddr>,
    /// The link; `None` where there is none.
    pub via: Option<String>,
    /// What the link is for.
    pub role: LinkRole,
    /// The link is Wi-Fi.
    pub wireless: bool,
    /// The connected networks of that link, in the family asked about.
    pub networks: Vec<Prefix>,
    /// The address dialled is one of the link's own.
    pub own_address: bool,
}

/// From whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The networks of the LAN links.
    Lan,
    /// This computer.
    Itself,
    /// Every address.
    Any,
    /// One address.
    Address(IpAddr),
    /// A prefix.
    Prefix(Prefix),
}

/// Another address that a rule writes into packets: a published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentOn {
    /// The address.
    pub address: IpAddr,
    /// The port, where it is another one.
    pub port: Option<u16>,
    /// The container or namespace that has the address, where it is known.
    pub container: Option<String>,
    /// The program that publishes ports by such rules, past the host's own firewall.
    pub publisher: Option<&'static str>,
}

/// Which way an unknown verdict leans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leaning {
    /// Every step that could be judged lets them through.
    Yes,
    /// Something stops them, unless what could not be judged sends them elsewhere.
    No,
}

impl Leaning {
    /// The word of the JSON.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
        }
    }
}

/// Something that stops them, with the name of what decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedBlocker {
    /// Where.
    pub stage: Stage,
    /// Why; `None` for "no address on a LAN", which is no drop.
    pub code: StopCode,
    /// What decides.
    pub subject: Option<NamedSubject>,
}

/// Why they are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StopCode {
    /// On the path.
    Drop(DropReason),
    /// There is no address to dial.
    NoLanAddress,
}

impl StopCode {
    /// The code people see.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Drop(reason) => reason.slug(),
            Self::NoLanAddress => "no-lan-address",
        }
    }
}

/// One step, with the name of what decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedStep {
    /// Where.
    pub stage: Stage,
    /// What it did.
    pub result: StepResult,
    /// What decides.
    pub subject: Option<NamedSubject>,
}

/// Sources that share one fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceGroup {
    /// The sources.
    pub sources: AddressSet,
    /// The same, filled up with addresses that nobody can send from, so that it is short to say.
    pub shown: AddressSet,
    /// The source ports this holds for; `None` for every port.
    pub ports: Option<Vec<(u16, u16)>>,
    /// They count for the verdict.
    pub counts: bool,
    /// What becomes of them.
    pub outcome: Outcome,
    /// What they see.
    pub they_see: Option<TheySee>,
    /// What decides.
    pub subject: Option<NamedSubject>,
    /// Where they are stopped.
    pub stage: Option<Stage>,
}

/// A socket and its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address it is bound to.
    pub address: IpAddr,
    /// The port it is bound to.
    pub port: u16,
    /// TCP or UDP.
    pub proto: Proto,
    /// The link it is bound to.
    pub device: Option<String>,
    /// Takes no IPv4.
    pub v6only: Option<bool>,
    /// Who holds it.
    pub program: Program,
}

/// Something to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// A stable name.
    pub id: String,
    /// What it does, as a sentence for people.
    pub text: String,
    /// What to type, line by line, or what to write into a file.
    pub command: String,
    /// How to take it back, line by line.
    pub undo: Option<String>,
    /// Needs root.
    pub needs_root: bool,
    /// Does the same as the one before it; otherwise both are needed.
    pub alternative: bool,
    /// The command says by itself what it does.
    pub speaks_for_itself: bool,
    /// What else to know: the application's own checks, missing passwords.
    pub notes: Vec<String>,
}

/// The answer for another link or the other family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlsoAnswer {
    /// What was asked.
    pub asked: Asked,
    /// The verdict.
    pub verdict: Verdict,
    /// Which way an unknown verdict leans.
    pub leaning: Option<Leaning>,
    /// What they see.
    pub they_see: Option<TheySee>,
    /// The first step that stops them.
    pub stop: Option<NamedBlocker>,
    /// The groups of sources.
    pub groups: Vec<SourceGroup>,
}

/// A program that started less than this long ago is likely the one a person wonders about.
const RECENT_MS: u64 = 60 * 60 * 1000;

impl WhyReport {
    /// Reports answers. The first is the one the verdict is about. `command` is what was typed.
    ///
    /// # Panics
    /// Never: an empty list of answers reports as "no address to dial".
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        netns: &Netns,
        ask: &Ask,
        answers: &[Answer],
        command: &str,
    ) -> Self {
        let Some((answer, others)) = answers.split_first() else {
            return Self::without_address(snapshot, netns, ask, command);
        };
        let asked = Asked::of(netns, ask, &answer.question);
        let group = deciding_group(answer);
        let listener = group.and_then(|group| Listener::of_group(snapshot, netns, group));
        let blockers: Vec<NamedBlocker> = group
            .map(|group| {
                group.blockers.iter().map(|b| NamedBlocker::of(snapshot, netns, b)).collect()
            })
            .unwrap_or_default();
        // A doubt that the outcome did not hang on did not touch the answer.
        let undecided = answers
            .iter()
            .flat_map(counted)
            .filter(|group| unknown_reason(&group.fate.outcome).is_some());
        let mut things: Vec<UnknownThing> = undecided
            .flat_map(|group| &group.doubts)
            .map(|doubt| unknown::of_doubt(netns, doubt, command))
            .collect();
        unknown::tidy(&mut things);
        let also =
            others.iter().map(|answer| AlsoAnswer::of(snapshot, netns, ask, answer)).collect();
        let recent = if listener.is_none() { recent_listener(snapshot, netns, ask) } else { None };
        let instead = instead(snapshot, netns, answer);
        // What the report already says needs no fix that says it again.
        let told: Vec<FixId> = recent
            .as_ref()
            .map(|_| FixId::OtherPort)
            .into_iter()
            .chain(instead.map(|_| FixId::DialOtherAddress))
            .collect();
        Self {
            verdict: answer.verdict,
            leaning: leaning(answer),
            they_see: common_they_see(answer),
            stop: stop_of(snapshot, netns, answer),
            steps: group
                .map(|group| {
                    group.steps.iter().map(|s| NamedStep::of(snapshot, netns, s)).collect()
                })
                .unwrap_or_default(),
            groups: source_groups(snapshot, netns, answer),
            fixes: fix::fixes(snapshot, netns, answer, &told),
            recent,
            connection: if listener.is_none() { connection(snapshot, netns, ask) } else { None },
            url: group
                .and_then(listener_index)
                .and_then(|SocketIndex(index)| netns.sockets.get(index))
                .and_then(|socket| Urls::new(snapshot, netns).of(socket, answer.question.to)),
            instead,
            sent_on: group.and_then(|group| SentOn::of(snapshot, netns, group)),
            firewall: FirewallState::of(netns),
            inside: snapshot.machine.virtualization,
            not_checked: not_checked(&asked),
            unknown: things,
            found: group.is_some_and(|group| !group.sockets.is_empty()),
            listener,
            blockers,
            also,
            asked,
        }
    }

    /// Nobody can connect, because there is no address to dial; or, where links or addresses could
    /// not be read, nobody can say.
    fn without_address(snapshot: &Snapshot, netns: &Netns, ask: &Ask, command: &str) -> Self {
        let unread = netns
            .gaps
            .iter()
            .filter(|gap| matches!(gap.subject, GapSubject::Links | GapSubject::Addresses(_)));
        let mut things: Vec<_> = unread.map(|gap| unknown::of_gap(gap, command)).collect();
        unknown::tidy(&mut things);
        let family = ask.to.as_ref().map_or(Family::Ipv4, |to| Family::of(to.address));
        let blocker = things.is_empty().then_some(NamedBlocker {
            stage: Stage::Link,
            code: StopCode::NoLanAddress,
            subject: None,
        });
        let sockets = netns.sockets.iter().position(|socket| {
            socket.proto == ask.proto
                && socket.port == ask.port
                && socket.state != SocketState::Connected
        });
        let listener = sockets.and_then(|index| Listener::of(snapshot, netns, SocketIndex(index)));
        Self {
            asked: Asked {
                proto: ask.proto,
                port: ask.port.0,
                who: Who::of(ask, None),
                from: AddressSet::empty(family),
                to: None,
                via: None,
                role: LinkRole::Nobody,
                wireless: false,
                networks: Vec::new(),
                own_address: false,
            },
            verdict: if blocker.is_some() { Verdict::No } else { Verdict::Unknown },
            leaning: None,
            they_see: None,
            stop: blocker.clone(),
            blockers: blocker.into_iter().collect(),
            steps: Vec::new(),
            groups: Vec::new(),
            recent: if listener.is_none() { recent_listener(snapshot, netns, ask) } else { None },
            connection: if listener.is_none() { connection(snapshot, netns, ask) } else { None },
            found: false,
            listener,
            fixes: Vec::new(),
            url: None,
            also: Vec::new(),
            instead: None,
            sent_on: None,
            firewall: FirewallState::of(netns),
            inside: snapshot.machine.virtualization,
            unknown: things,
            not_checked: Vec::new(),
        }
    }

    /// The first stop is a reason about sockets: what somebody who starts the server can change.
    #[must_use]
    pub fn stop_reason(&self) -> Option<DropReason> {
        match self.stop.as_ref()?.code {
            StopCode::Drop(reason) => Some(reason),
            StopCode::NoLanAddress => None,
        }
    }
}

impl SentOn {
    fn of(snapshot: &Snapshot, netns: &Netns, group: &Group) -> Option<Self> {
        let named = |step: &Step| {
            if step.result != StepResult::Ok {
                return None;
            }
            match NamedSubject::of(netns, step.subject.as_ref()?)? {
                NamedSubject::Rule(rule) => Some((rule.destination?, rule.owner)),
                _ => None,
            }
        };
        let ((address, port), owner) = group.steps.iter().find_map(named)?;
        let holder = snapshot
            .namespaces
            .iter()
            .filter(|other| other.id != netns.id)
            .find(|other| other.addresses.iter().any(|held| held.address() == address));
        let publisher = match owner {
            Some(owner @ (RuleOwner::Docker | RuleOwner::Podman)) => Some(owner.program()),
            _ => None,
        };
        let container = holder.and_then(|netns| netns.name.clone());
        Some(Self { address, port, container, publisher })
    }
}

impl Who {
    fn of(ask: &Ask, question: Option<&Question>) -> Self {
        if let Some(Question { via: Arrival::Local { .. }, .. }) = question {
            return Self::Itself;
        }
        match &ask.from {
            None | Some(From::Lan) => Self::Lan,
            Some(From::Itself) => Self::Itself,
            Some(From::Any) => Self::Any,
            Some(From::Address(from)) => Self::Address(from.address),
            Some(From::Prefix(prefix)) if prefix.length() == prefix.family().bits() => {
                Self::Address(prefix.address())
            }
            Some(From::Prefix(prefix)) => Self::Prefix(*prefix),
        }
    }
}

impl Asked {
    fn of(netns: &Netns, ask: &Ask, question: &Question) -> Self {
        let index = match question.via {
            Arrival::Link(index) => index,
            Arrival::Local { .. } => LOOPBACK_IFINDEX,
        };
        let link = netns.link(index);
        Self {
            proto: question.proto,
            port: question.port.0,
            who: Who::of(ask, Some(question)),
            from: question.from.clone(),
            to: Some(question.to),
            via: Some(link_name(netns, index)),
            role: link_role(netns, index),
            wireless: link.is_some_and(|link| link.kind == LinkKind::Wifi),
            networks: link_networks(netns, index, question.family()),
            own_address: netns
                .addresses
                .iter()
                .any(|own| own.address() == question.to && own.ifindex == index),
        }
    }
}

fn link_role(netns: &Netns, index: canreach_snapshot::Ifindex) -> LinkRole {
    let with_roles = netns.links.iter().zip(link_roles(netns));
    let mut found = with_roles.filter(|(link, _)| link.ifindex == index);
    found.next().map_or(LinkRole::Nobody, |(_, role)| role)
}

impl NamedBlocker {
    fn of(snapshot: &Snapshot, netns: &Netns, blocker: &Blocker) -> Self {
        Self {
            stage: blocker.stage,
            code: StopCode::Drop(blocker.reason),
            subject: blocker.subject.as_ref().and_then(|s| NamedSubject::among(snapshot, netns, s)),
        }
    }
}

impl NamedStep {
    fn of(snapshot: &Snapshot, netns: &Netns, step: &Step) -> Self {
        Self {
            stage: step.stage,
            result: step.result,
            subject: step.subject.as_ref().and_then(|s| NamedSubject::among(snapshot, netns, s)),
        }
    }
}

impl Listener {
    /// Who gets it, also in another namespace.
    fn of_group(snapshot: &Snapshot, netns: &Netns, group: &Group) -> Option<Self> {
        if let Some((NetnsIndex(index), sockets)) = &group.sockets_in {
            let other = snapshot.namespaces.get(*index)?;
            return Self::of(snapshot, other, *sockets.first()?);
        }
        Self::of(snapshot, netns, listener_index(group)?)
    }

    fn of(snapshot: &Snapshot, netns: &Netns, SocketIndex(index): SocketIndex) -> Option<Self> {
        let socket = netns.sockets.get(index)?;
        Some(Self {
            address: socket.address,
            port: socket.port.0,
            proto: socket.proto,
            device: socket.device.map(|device| link_name(netns, device)),
            v6only: socket.v6only,
            program: Programs::new(snapshot, netns).of(socket),
        })
    }
}

impl AlsoAnswer {
    fn of(snapshot: &Snapshot, netns: &Netns, ask: &Ask, answer: &Answer) -> Self {
        Self {
            asked: Asked::of(netns, ask, &answer.question),
            verdict: answer.verdict,
            leaning: leaning(answer),
            they_see: common_they_see(answer),
            stop: stop_of(snapshot, netns, answer),
            groups: source_groups(snapshot, netns, answer),
        }
    }
}

/// Whether a group counts for the verdict.
fn counts(answer: &Answer, group: &Group) -> bool {
    let sendable = |group: &Group| !group.sources.difference(&answer.unsendable).is_empty();
    sendable(group) || group.sources.is_empty() || !answer.groups.iter().any(sendable)
}

fn counted(answer: &Answer) -> impl Iterator<Item = &Group> {
    answer.groups.iter().filter(|group| counts(answer, group))
}

/// The group whose steps are shown: the largest with the fate that the verdict speaks of.
fn deciding_group(answer: &Answer) -> Option<&Group> {
    let wanted = |group: &&Group| match (answer.verdict, &group.fate.outcome) {
        (Verdict::Yes, Outcome::Delivered(_) | Outcome::DeliveredIn(..))
        | (Verdict::No | Verdict::Partly, Outcome::Stopped(_))
        | (Verdict::Unknown, Outcome::Unknown(_)) => true,
        (
            _,
            Outcome::Delivered(_)
            | Outcome::DeliveredIn(..)
            | Outcome::Stopped(_)
            | Outcome::Unknown(_),
        ) => false,
    };
    counted(answer).find(wanted).or_else(|| answer.groups.first())
}

fn stop_of(snapshot: &Snapshot, netns: &Netns, answer: &Answer) -> Option<NamedBlocker> {
    let group = deciding_group(answer)?;
    match group.fate.outcome {
        Outcome::Stopped(_) | Outcome::Unknown(_) => {
            group.blockers.first().map(|blocker| NamedBlocker::of(snapshot, netns, blocker))
        }
        Outcome::Delivered(_) | Outcome::DeliveredIn(..) => None,
    }
}

/// The address to dial, where the one that was dialled leads past this computer.
fn instead(snapshot: &Snapshot, netns: &Netns, answer: &Answer) -> Option<IpAddr> {
    let own = netns.addresses.iter().any(|own| own.address() == answer.question.to);
    let wire = matches!(answer.question.via, Arrival::Link(_));
    let sent_on = answer.groups.iter().any(|group| group.sockets_in.is_some());
    if !wire || sent_on || (own && !answer.question.to.is_loopback()) {
        return None;
    }
    let choice = canreach_engine::address_choice::choose(netns, &snapshot.machine);
    choice.best_of(netns, answer.question.family(), None).map(canreach_snapshot::Address::address)
}

/// What all who count see, where it is the same.
fn common_they_see(answer: &Answer) -> Option<TheySee> {
    let mut seen = counted(answer).map(|group| group.fate.they_see);
    let first = seen.next().flatten()?;
    seen.all(|other| other == Some(first)).then_some(first)
}

fn leaning(answer: &Answer) -> Option<Leaning> {
    if answer.verdict != Verdict::Unknown {
        return None;
    }
    let leans = |group: &Group| match &group.fate.outcome {
        Outcome::Delivered(_) | Outcome::DeliveredIn(..) => Some(Leaning::Yes),
        Outcome::Stopped(_) => Some(Leaning::No),
        Outcome::Unknown(_) if !group.blockers.is_empty() => Some(Leaning::No),
        Outcome::Unknown(_) => {
            let found = !group.sockets.is_empty();
            // Links, routes or sockets that could not be read leave nothing to lean on.
            let hidden = group.doubts.iter().any(hides);
            (found && !hidden).then_some(Leaning::Yes)
        }
    };
    let mut leanings = counted(answer).map(leans);
    let first = leanings.next().flatten()?;
    leanings.all(|other| other == Some(first)).then_some(first)
}

/// A doubt about what the whole path stands on, not about what may interfere with it.
fn hides(doubt: &Doubt) -> bool {
    match doubt.stage {
        Stage::Link | Stage::Route | Stage::Reply => {
            doubt.effect == DoubtEffect::MayRedirect || doubt.reason == UnknownReason::Unread
        }
        Stage::Socket => doubt.reason == UnknownReason::Unread,
        Stage::Ingress
        | Stage::Prerouting
        | Stage::Input
        | Stage::Forward
        | Stage::Gate
        | Stage::Output => false,
    }
}

fn source_groups(snapshot: &Snapshot, netns: &Netns, answer: &Answer) -> Vec<SourceGroup> {
    answer
        .groups
        .iter()
        .map(|group| SourceGroup {
            sources: group.sources.clone(),
            shown: group.sources.filled_up(&answer.unsendable),
            ports: group.ports.clone(),
            counts: counts(answer, group),
            outcome: group.fate.outcome.clone(),
            they_see: group.fate.they_see,
            subject: deciding_subject(group)
                .and_then(|subject| NamedSubject::among(snapshot, netns, subject)),
            stage: group.blockers.first().map(|blocker| blocker.stage),
        })
        .collect()
}

fn deciding_subject(group: &Group) -> Option<&Subject> {
    match group.fate.outcome {
        Outcome::Delivered(_) | Outcome::DeliveredIn(..) => None,
        Outcome::Stopped(_) => group.blockers.first()?.subject.as_ref(),
        Outcome::Unknown(reason) => {
            let of_reason = |doubt: &&Doubt| doubt.reason == reason;
            group.doubts.iter().find(of_reason).or_else(|| group.doubts.first())?.subject.as_ref()
        }
    }
}

/// The socket that gets it, or that would, or that is the nearest miss.
fn listener_index(group: &Group) -> Option<SocketIndex> {
    if let Outcome::Delivered(sockets) = &group.fate.outcome {
        return sockets.first().copied();
    }
    if let Some(index) = group.sockets.first() {
        return Some(*index);
    }
    let socket = |subject: &Option<Subject>| match subject {
        Some(Subject::Socket(index)) => Some(*index),
        _ => None,
    };
    let of_steps = group.steps.iter().filter(|step| step.stage == Stage::Socket);
    of_steps
        .map(|step| socket(&step.subject))
        .chain(group.blockers.iter().map(|blocker| socket(&blocker.subject)))
        .find_map(|index| index)
}

/// The newest program that listens on some other port, if it is new.
fn recent_listener(snapshot: &Snapshot, netns: &Netns, ask: &Ask) -> Option<Listener> {
    let mut newest: Option<(u64, Listener)> = None;
    for (index, socket) in netns.sockets.iter().enumerate() {
        if socket.proto != ask.proto
            || socket.port == ask.port
            || socket.state == SocketState::Connected
        {
            continue;
        }
        let owner = netns.owner(socket.inode);
        let process = owner.and_then(|owner| snapshot.process(*owner.holders.first()?));
        let started = process.and_then(|process| process.started_at_ms);
        let Some(age) = started.and_then(|at| snapshot.machine.collected_at_ms.checked_sub(at))
        else {
            continue;
        };
        if age <= RECENT_MS && newest.as_ref().is_none_or(|(youngest, _)| age < *youngest) {
            newest = Listener::of(snapshot, netns, SocketIndex(index)).map(|found| (age, found));
        }
    }
    newest.map(|(_, listener)| listener)
}

/// The program that uses the port to talk to one peer, and takes nothing from others.
#[must_use]
pub fn connection(snapshot: &Snapshot, netns: &Netns, ask: &Ask) -> Option<Program> {
    let socket = netns.sockets.iter().find(|socket| {
        socket.proto == ask.proto
            && socket.port == ask.port
            && socket.state == SocketState::Connected
    })?;
    Some(Programs::new(snapshot, netns).of(socket))
}

fn not_checked(asked: &Asked) -> Vec<&'static str> {
    let mut list = Vec::new();
    let inside = |address: IpAddr| asked.networks.iter().any(|network| network.contains(address));
    match &asked.who {
        Who::Itself => return list,
        Who::Lan => {}
        Who::Address(address) if inside(*address) => {}
        Who::Address(_) | Who::Any | Who::Prefix(_) => {
            list.push("router");
            if asked.to.is_some_and(canreach_engine::link_role::is_public) {
                list.push("cloud-firewall");
            }
        }
    }
    if asked.wireless {
        list.insert(0, "ap-isolation");
    }
    list.push("their-firewall");
    list
}

/// The reason of an outcome that cannot be told.
#[must_use]
pub const fn unknown_reason(outcome: &Outcome) -> Option<UnknownReason> {
    match outcome {
        Outcome::Unknown(reason) => Some(*reason),
        Outcome::Delivered(_) | Outcome::DeliveredIn(..) | Outcome::Stopped(_) => None,
    }
}

//! Rules in words: whose a rule is, and what it does to a packet.

use canreach_engine::explain::rule_owner::RuleOwner;
use canreach_engine::{DropReason, Stage, UnknownReason};
use canreach_snapshot::NfHook;

use crate::phrase;
use crate::report::subject::{NamedRule, NamedSubject, RuleGeneration};
use crate::report::why::Asked;

/// The code of a published port that the host's own firewall does not see.
pub const DOCKER_BYPASS: &str = "docker-bypass";

/// What a rule is called by who keeps it: `ufw rule 3`, `firewalld zone public`.
#[must_use]
pub fn owner(owner: &RuleOwner) -> String {
    match owner {
        RuleOwner::UfwRule(Some(number)) => format!("ufw rule {number}"),
        RuleOwner::UfwRule(None) => "a ufw rule".to_owned(),
        RuleOwner::UfwPolicy(hook) => format!("ufw default policy ({})", direction(*hook)),
        RuleOwner::Firewalld(Some(zone)) => format!("firewalld zone {zone}"),
        RuleOwner::KubeProxy(Some(service)) => format!("kube-proxy service {service}"),
        RuleOwner::Fail2ban(Some(jail)) => format!("fail2ban jail {jail}"),
        RuleOwner::UfwFrame
        | RuleOwner::Firewalld(None)
        | RuleOwner::Docker
        | RuleOwner::Podman
        | RuleOwner::Libvirt
        | RuleOwner::KubeProxy(None)
        | RuleOwner::Fail2ban(None)
        | RuleOwner::Tailscale
        | RuleOwner::Systemd
        | RuleOwner::WgQuick => owner.program().to_owned(),
    }
}

/// ufw's word for a hook.
const fn direction(hook: NfHook) -> &'static str {
    match hook {
        NfHook::Ingress | NfHook::Prerouting | NfHook::Input => "incoming",
        NfHook::Forward => "routed",
        NfHook::Egress | NfHook::Output | NfHook::Postrouting => "outgoing",
    }
}

/// What stops a packet, by the name of who keeps the rule where it is a rule.
#[must_use]
pub fn stop(
    reason: DropReason,
    subject: Option<&NamedSubject>,
    stage: Stage,
    asked: &Asked,
) -> String {
    let verb = match reason {
        DropReason::FwDrop => "drops",
        DropReason::FwReject => "rejects",
        _ => return phrase::stop(reason, asked),
    };
    let what = if matches!(stage, Stage::Output | Stage::Reply) { "the answer" } else { "it" };
    match rule_of(subject).and_then(|rule| rule.owner.as_ref()) {
        Some(RuleOwner::UfwPolicy(NfHook::Input)) => {
            let default = if reason == DropReason::FwDrop { "deny" } else { "reject" };
            format!("ufw {verb} it: no rule allows {}, the default is {default}", asked.port)
        }
        Some(found @ RuleOwner::UfwPolicy(_)) => format!("{} {verb} {what}", owner(found)),
        Some(RuleOwner::Docker) => format!("a rule of Docker {verb} {what}"),
        Some(found) => format!("{} {verb} {what}", owner(found)),
        None => format!("the firewall {verb} {what}"),
    }
}

/// Why others are stopped, behind "but", in a list; `program` is whose rule does.
#[must_use]
pub fn stop_in_list(reason: DropReason, program: Option<&str>) -> String {
    match (reason, program) {
        (DropReason::FwDrop, Some(program)) => format!("{program} drops it"),
        (DropReason::FwReject, Some(program)) => format!("{program} rejects it"),
        _ => phrase::stop_in_list(reason).to_owned(),
    }
}

/// What lets a packet pass, by the name of who keeps the rule.
#[must_use]
pub fn lets_in(rule: &NamedRule, asked: &Asked) -> String {
    if let Some((address, port)) = rule.destination {
        let to = std::net::SocketAddr::new(address, port.unwrap_or(asked.port));
        let whose = rule.owner.as_ref().map_or_else(|| "a rule".to_owned(), owner);
        return format!("{whose} sends it on to {to}");
    }
    match &rule.owner {
        Some(RuleOwner::UfwPolicy(_)) => "ufw lets it in (the default is allow)".to_owned(),
        Some(found) => format!("{} lets it in", owner(found)),
        None => format!(
            "the firewall lets {} port {} in",
            asked.proto.name().to_ascii_uppercase(),
            asked.port
        ),
    }
}

/// The rule publishes a container's port: its packets are forwarded, and what the host's firewall says
/// of packets for itself does not concern them.
#[must_use]
pub const fn is_published(rule: &NamedRule) -> bool {
    rule.destination.is_some() && matches!(rule.owner, Some(RuleOwner::Docker | RuleOwner::Podman))
}

/// What a rule says that cannot be judged.
#[must_use]
pub fn unknown(stage: Stage, reason: UnknownReason, subject: Option<&NamedSubject>) -> String {
    let Some(rule) = rule_of(subject) else { return phrase::unknown(stage, reason) };
    let whose = rule.owner.as_ref().map_or_else(|| "a rule".to_owned(), owner);
    match reason {
        UnknownReason::RateLimit => format!("depends on how much came before: {whose} limits it"),
        UnknownReason::EarlierPackets => {
            format!("depends on what came before: {whose} remembers senders")
        }
        UnknownReason::RandomChoice => format!("depends on chance: {whose} chooses at random"),
        UnknownReason::TimeOfDay => format!("depends on the time: {whose} looks at the clock"),
        UnknownReason::PacketDetails => {
            format!("depends on how they build packets: {whose} looks at that")
        }
        UnknownReason::UserSpace => format!("depends on a program that {whose} asks"),
        UnknownReason::HookOrder => "depends on which of two chains is first".to_owned(),
        UnknownReason::NotModelled => format!("{whose} asks for something that is not judged"),
        UnknownReason::NeedsRoot
        | UnknownReason::OpaqueProgram
        | UnknownReason::ChangedWhileReading
        | UnknownReason::Unread
        | UnknownReason::FibLayout
        | UnknownReason::FibHistory
        | UnknownReason::ReplyElsewhere
        | UnknownReason::ReplyAddress
        | UnknownReason::Multipath
        | UnknownReason::MulticastMembership
        | UnknownReason::OtherNamespace
        | UnknownReason::LimitReached => phrase::unknown(stage, reason),
    }
}

/// The command that shows a rule among its neighbours.
#[must_use]
pub fn show_command(rule: &NamedRule) -> String {
    let NamedRule { family, table, chain, .. } = rule;
    let six = if *family == "ip6" { "6" } else { "" };
    match rule.generation {
        RuleGeneration::Nft if rule.text.starts_with("-A ") => {
            format!("sudo ip{six}tables -t {table} -S {chain}")
        }
        RuleGeneration::Nft => format!("sudo nft -a list chain {family} {table} {chain}"),
        RuleGeneration::Xt => format!("sudo ip{six}tables-legacy -t {table} -S {chain}"),
    }
}

/// The rule a subject is, if it is one.
#[must_use]
pub const fn rule_of(subject: Option<&NamedSubject>) -> Option<&NamedRule> {
    match subject {
        Some(NamedSubject::Rule(rule)) => Some(rule),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_called_what_their_program_calls_them() {
        for (given, expected) in [
            (RuleOwner::UfwRule(Some(3)), "ufw rule 3"),
            (RuleOwner::UfwPolicy(NfHook::Forward), "ufw default policy (routed)"),
            (RuleOwner::Firewalld(Some("public".to_owned())), "firewalld zone public"),
            (
                RuleOwner::KubeProxy(Some("default/web".to_owned())),
                "kube-proxy service default/web",
            ),
            (RuleOwner::Fail2ban(Some("sshd".to_owned())), "fail2ban jail sshd"),
            (RuleOwner::Docker, "Docker"),
        ] {
            assert_eq!(owner(&given), expected);
        }
    }
}

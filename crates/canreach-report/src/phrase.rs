//! The wording: one phrase for each reason, stage and sight. Nowhere else says things in words.
//!
//! The words are those of people, not of kernels: "this computer", "your network", "can connect".

use canreach_engine::address_choice::{AddressAudience, ChoiceReason};
use canreach_engine::audience::Reach;
use canreach_engine::expectation::Origin;
use canreach_engine::link_role::LinkRole;
use canreach_engine::{DropReason, Stage, TheySee, UnknownReason};
use canreach_snapshot::{OwnerReason, Proto, Virtualization};

use crate::report::firewall::{FirewallState, Hint, Loaded};
use crate::report::ip::AddressEntry;
use crate::report::why::{Asked, Who};

/// What they see, as people tell it.
#[must_use]
pub const fn they_see(seen: TheySee) -> &'static str {
    match seen {
        TheySee::Connected => "it connects.",
        TheySee::Refused => "\"connection refused\", at once.",
        TheySee::Timeout => "nothing; it hangs, then times out.",
        TheySee::HostUnreachable => "\"No route to host\".",
        TheySee::NetworkUnreachable => "\"Network is unreachable\".",
        TheySee::PermissionDenied => "\"Permission denied\".",
        TheySee::ProtocolUnavailable => "\"Protocol not available\".",
        TheySee::InvalidArgument => "\"Invalid argument\".",
        TheySee::AddressNotAvailable => "\"Cannot assign requested address\".",
        TheySee::OperationNotPermitted => "\"Operation not permitted\".",
        TheySee::Delivered => "it arrives, and answers get back.",
        TheySee::Silence => "nothing comes back.",
    }
}

/// A port as it is spoken of.
#[must_use]
pub fn port(proto: Proto, port: u16) -> String {
    match proto {
        Proto::Tcp => format!("port {port}"),
        Proto::Udp => format!("UDP port {port}"),
    }
}

/// A port as it is typed.
#[must_use]
pub fn port_argument(proto: Proto, port: u16) -> String {
    match proto {
        Proto::Tcp => port.to_string(),
        Proto::Udp => format!("{port}/udp"),
    }
}

/// Those who were asked about, inside a sentence.
#[must_use]
pub fn who(asked: &Asked) -> String {
    match &asked.who {
        Who::Lan => circle(asked).to_owned(),
        Who::Itself => "this computer".to_owned(),
        Who::Any => "anyone".to_owned(),
        Who::Address(address) => address.to_string(),
        Who::Prefix(prefix) => prefix.to_string(),
    }
}

/// The people behind a link.
const fn circle(asked: &Asked) -> &'static str {
    match asked.role {
        LinkRole::Containers => "containers on this computer",
        LinkRole::Vpn => "your VPN",
        LinkRole::Lan
        | LinkRole::VirtualLan
        | LinkRole::Loopback
        | LinkRole::Member(_)
        | LinkRole::Nobody => "your network",
    }
}

/// All of the people behind a link.
#[must_use]
pub const fn everyone(asked: &Asked) -> &'static str {
    match asked.role {
        LinkRole::Containers => "containers on this computer",
        LinkRole::Vpn => "anyone in your VPN",
        LinkRole::Lan
        | LinkRole::VirtualLan
        | LinkRole::Loopback
        | LinkRole::Member(_)
        | LinkRole::Nobody => "anyone on your network",
    }
}

/// A text at the start of a sentence. An address stays as it is.
#[must_use]
pub fn capitalized(text: &str) -> String {
    if text.starts_with(|first: char| first.is_ascii_hexdigit()) && text.contains(':') {
        return text.to_owned();
    }
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(characters).collect()
}

/// What a step that stops says. `asked` gives it names.
#[must_use]
pub fn stop(reason: DropReason, asked: &Asked) -> String {
    let to = asked.to.map(|to| to.to_string()).unwrap_or_default();
    let via = asked.via.clone().unwrap_or_default();
    match reason {
        DropReason::LinkDown if asked.who == Who::Itself => {
            format!("the loopback interface {via} is down")
        }
        DropReason::LinkDown => format!("{via} is down, or nothing is connected to it"),
        DropReason::NeighborSilent => {
            format!("asked on {via} who has {to}, this computer stays silent")
        }
        DropReason::Tentative => {
            format!("{to} is still being checked for duplicates on {via}")
        }
        DropReason::Ipv6Disabled => format!("IPv6 is switched off on {via}"),
        DropReason::Martian => "the kernel takes no such pair of addresses from a wire".to_owned(),
        DropReason::OwnSource => "the source is an address of this computer".to_owned(),
        DropReason::RpFilter => {
            format!("the reverse-path filter takes no such source on {via}")
        }
        DropReason::NotLocal => format!("{to} is not an address of this computer"),
        DropReason::NoRoute => {
            format!("{to} is not an address of this computer; no route there")
        }
        DropReason::RouteUnreachable => format!("a route says that {to} is unreachable"),
        DropReason::RouteProhibit => format!("a route prohibits {to}"),
        DropReason::RouteBlackhole => format!("a blackhole route drops what is for {to}"),
        DropReason::Forwarded => format!("{to} is another machine's: it is sent on"),
        DropReason::BroadcastDestination => {
            format!("{to} is everybody's address: TCP needs one machine's")
        }
        DropReason::AnycastDestination => {
            format!("{to} is a shared (anycast) address: TCP needs one's own")
        }
        DropReason::MulticastDestination => format!("{to} is a group that nobody here is in"),
        DropReason::NotListening => {
            format!("nothing is listening on {}", port(asked.proto, asked.port))
        }
        DropReason::BindLoopback | DropReason::BindAddress => {
            "no program accepts it there".to_owned()
        }
        DropReason::BindDevice => format!("no program accepts it on {via}"),
        DropReason::V6Only => "no program accepts it over IPv4".to_owned(),
        DropReason::ConnectedElsewhere => "the program talks to one peer only".to_owned(),
        DropReason::VrfUnbound => "it comes in through a VRF the program is not in".to_owned(),
        DropReason::BacklogFull => "the program's queue of new connections is full".to_owned(),
        DropReason::NoReplyRoute => "the answer has no way back".to_owned(),
        DropReason::ReplySourceNotLocal => format!("no answer may be sent from {to}"),
        DropReason::VpnReply => "the answer leaves through the VPN".to_owned(),
        DropReason::FwDrop => "the firewall drops it".to_owned(),
        DropReason::FwReject => "the firewall rejects it".to_owned(),
        DropReason::NatFailed => "its address cannot be translated".to_owned(),
    }
}

/// Why others are stopped, behind "but", in a list.
#[must_use]
pub const fn stop_in_list(reason: DropReason) -> &'static str {
    match reason {
        DropReason::LinkDown => "the interface is down",
        DropReason::NeighborSilent => "neighbours get no answer (ARP, ND)",
        DropReason::Tentative => "the address is still being checked",
        DropReason::Ipv6Disabled => "IPv6 is switched off",
        DropReason::Martian => "no such addresses on a wire",
        DropReason::OwnSource => "the source is this computer",
        DropReason::RpFilter => "the reverse-path filter stops it",
        DropReason::NotLocal => "the address is not here",
        DropReason::NoRoute => "no route leads there",
        DropReason::RouteUnreachable | DropReason::RouteProhibit | DropReason::RouteBlackhole => {
            "a route stops it"
        }
        DropReason::Forwarded => "it is sent on",
        DropReason::BroadcastDestination
        | DropReason::AnycastDestination
        | DropReason::MulticastDestination => "the address is not one machine's",
        DropReason::NotListening => "nothing listens",
        DropReason::BindLoopback => "bound to loopback",
        DropReason::BindAddress => "bound to another address",
        DropReason::BindDevice => "bound to another interface",
        DropReason::V6Only => "IPv6 only",
        DropReason::ConnectedElsewhere => "one peer only",
        DropReason::VrfUnbound => "not in the VRF",
        DropReason::BacklogFull => "its queue is full",
        DropReason::NoReplyRoute => "answers have no way back",
        DropReason::ReplySourceNotLocal => "answers may not use that address",
        DropReason::VpnReply => "answers leave through the VPN",
        DropReason::FwDrop | DropReason::FwReject => "the firewall stops it",
        DropReason::NatFailed => "address translation fails",
    }
}

/// What a step that cannot be judged says.
#[must_use]
pub fn unknown(stage: Stage, reason: UnknownReason) -> String {
    let thing = match stage {
        Stage::Link | Stage::Ingress => "what happens on the interface",
        Stage::Prerouting | Stage::Input | Stage::Forward | Stage::Output => "firewall rules",
        Stage::Route => "routing",
        Stage::Socket => "which program gets it",
        Stage::Gate => "what may still refuse it",
        Stage::Reply => "the way back",
    };
    match reason {
        UnknownReason::NeedsRoot => format!("{thing}: the kernel shows them only to root"),
        UnknownReason::NotModelled => format!("{thing} are loaded, not judged yet"),
        UnknownReason::OpaqueProgram => "a BPF program decides; it is not judged".to_owned(),
        UnknownReason::ChangedWhileReading => format!("{thing}: changed while being read"),
        UnknownReason::Unread => format!("{thing}: could not be read"),
        UnknownReason::FibLayout => "depends on how the kernel keeps its routes".to_owned(),
        UnknownReason::FibHistory => "depends on routes that were there before".to_owned(),
        UnknownReason::ReplyElsewhere => "the answer leaves by another interface".to_owned(),
        UnknownReason::ReplyAddress => "the answer comes from another address".to_owned(),
        UnknownReason::Multipath => "depends on which of several routes is picked".to_owned(),
        UnknownReason::MulticastMembership => "depends on who joined the group".to_owned(),
        UnknownReason::LimitReached => "too large to judge".to_owned(),
        UnknownReason::RateLimit => "a rule lets only so many through".to_owned(),
        UnknownReason::EarlierPackets => "a rule depends on what came before".to_owned(),
        UnknownReason::RandomChoice => "a rule chooses at random".to_owned(),
        UnknownReason::TimeOfDay => "a rule depends on the time".to_owned(),
        UnknownReason::PacketDetails => {
            "a rule depends on how the sender builds packets".to_owned()
        }
        UnknownReason::UserSpace => "a rule leaves it to a program".to_owned(),
        UnknownReason::OtherNamespace => {
            "it goes on to another network namespace, which was not read".to_owned()
        }
        UnknownReason::HookOrder => "depends on which of two chains is first".to_owned(),
    }
}

/// What a stage that passes says, in the JSON.
#[must_use]
pub const fn passed(stage: Stage) -> &'static str {
    match stage {
        Stage::Link => "the interface is up, and neighbours find the address on it",
        Stage::Ingress => "nothing stops it on the interface",
        Stage::Prerouting => "nothing stops it before routing",
        Stage::Route => "it is for this computer",
        Stage::Input => "nothing stops it on its way in",
        Stage::Forward => "it is sent on",
        Stage::Socket => "a socket takes it",
        Stage::Gate => "nothing refuses it",
        Stage::Reply => "the answer goes back the way it came",
        Stage::Output => "nothing stops the answer",
    }
}

/// Why the program behind a socket is not known, or not certain.
#[must_use]
pub const fn owner(reason: OwnerReason) -> &'static str {
    match reason {
        OwnerReason::NeedsRoot => "its program is shown to root only",
        OwnerReason::NeedsPtrace => "its program needs CAP_SYS_PTRACE to be seen",
        OwnerReason::OtherPidNamespace => "its program runs outside this container",
        OwnerReason::Kernel => "belongs to the kernel",
        OwnerReason::Hidepid => "/proc hides other users' programs",
        OwnerReason::SocketActivated => "systemd waits on it, and starts the program when needed",
        OwnerReason::NoProcess => "no program shows it",
        OwnerReason::NotLookedAt => "its program was not looked up",
    }
}

/// The same behind an address, in a list. What root would see is said once, below the list.
#[must_use]
pub const fn owner_in_list(reason: OwnerReason) -> Option<&'static str> {
    match reason {
        OwnerReason::NeedsRoot | OwnerReason::Kernel => None,
        OwnerReason::NeedsPtrace => Some("needs CAP_SYS_PTRACE to name"),
        OwnerReason::OtherPidNamespace => Some("runs outside this container"),
        OwnerReason::Hidepid => Some("hidden by /proc's hidepid"),
        OwnerReason::SocketActivated => Some("systemd starts it when needed"),
        OwnerReason::NoProcess => Some("no program shows it"),
        OwnerReason::NotLookedAt => Some("not looked up"),
    }
}

/// The code of a reason why a program is not known.
#[must_use]
pub const fn owner_slug(reason: OwnerReason) -> &'static str {
    match reason {
        OwnerReason::NeedsRoot => "needs-root",
        OwnerReason::NeedsPtrace => "needs-ptrace",
        OwnerReason::OtherPidNamespace => "other-pid-namespace",
        OwnerReason::Kernel => "kernel",
        OwnerReason::Hidepid => "hidepid",
        OwnerReason::SocketActivated => "socket-activated",
        OwnerReason::NoProcess => "no-process",
        OwnerReason::NotLookedAt => "not-looked-at",
    }
}

/// What cannot be checked from here.
#[must_use]
pub fn not_checked(slug: &str) -> String {
    match slug {
        "ap-isolation" => "Wi-Fi guest isolation on your router".to_owned(),
        "their-firewall" => "their own firewall".to_owned(),
        "router" => "the routers in between".to_owned(),
        "cloud-firewall" => "your provider's firewall".to_owned(),
        other => other.to_owned(),
    }
}

/// The heading over a group of the list.
#[must_use]
pub const fn heading(group: ListGroup) -> &'static str {
    match group {
        ListGroup::Internet => {
            "Anyone on the internet can connect, if routers let them come this far"
        }
        ListGroup::Network => "Anyone on your network can connect",
        ListGroup::Vpn => "Anyone in your VPN can connect",
        ListGroup::NetworkUnlessFirewall => "Open to your network, unless the firewall stops it",
        ListGroup::NetworkPerhaps => "Open to your network, as far as it can be told",
        ListGroup::Containers => "Only containers on this computer can connect",
        ListGroup::ContainersPerhaps => {
            "Open to containers on this computer, unless the firewall stops them"
        }
        ListGroup::Firewalled => "Blocked by the firewall",
        ListGroup::Blocked => "Something on the way stops everyone else",
        ListGroup::ItselfPerhaps => "Only this computer, unless firewall rules lead others there",
        ListGroup::Itself => "Only this computer",
    }
}

/// The groups of the list, widest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListGroup {
    /// A public address, and sources outside every connected network.
    Internet,
    /// The connected networks, at least.
    Network,
    /// VPN links only.
    Vpn,
    /// Would be `Network` without the firewall.
    NetworkUnlessFirewall,
    /// Would be `Network` without other doubts.
    NetworkPerhaps,
    /// Containers on this computer.
    Containers,
    /// Would be `Containers` without doubts.
    ContainersPerhaps,
    /// Stopped by a rule.
    Firewalled,
    /// Stopped on the way.
    Blocked,
    /// Would be `Itself` without doubts.
    ItselfPerhaps,
    /// This computer only.
    Itself,
}

/// What is known of the firewall, for the top of the list.
#[must_use]
pub fn firewall(state: &FirewallState) -> String {
    let on = state.program();
    match (state.loaded, on) {
        (Loaded::Nothing, _) => "firewall: no rules loaded".to_owned(),
        (Loaded::Rules, Some(program)) => format!("firewall: {program}, on"),
        (Loaded::Rules, None) if state.programs.is_empty() => "firewall: rules loaded".to_owned(),
        (Loaded::Rules, None) => format!("firewall: rules of {}", state.programs.join(", ")),
        (Loaded::Unjudged, Some(program)) => format!("firewall: {program}, on, not judged"),
        (Loaded::Unjudged, None) => "firewall: rules loaded, not judged".to_owned(),
        (Loaded::NeedsRoot, Some(program)) => format!("firewall: {program}, on"),
        (Loaded::NeedsRoot, None) => "firewall: shown to root only".to_owned(),
        (Loaded::Unread, Some(program)) => format!("firewall: {program}, on, not readable"),
        (Loaded::Unread, None) => "firewall: not readable".to_owned(),
    }
}

/// What a file says about a firewall, shortly.
#[must_use]
pub fn hint(hint: &Hint) -> String {
    let file = hint.source.rsplit('/').next().unwrap_or(&hint.source);
    evidence(&Hint { source: file.to_owned(), ..hint.clone() })
}

/// The same with the whole path.
#[must_use]
pub fn evidence(hint: &Hint) -> String {
    let Hint { program, source, enabled } = hint;
    let is_settings = source.ends_with(".conf");
    match enabled {
        Some(true) if !is_settings => format!("{program} is running"),
        Some(enabled) => {
            format!("{source} says {program} is {}", if *enabled { "on" } else { "off" })
        }
        None => format!("{program} loads rules at boot ({source})"),
    }
}

/// What a reach means, in a word or two.
#[must_use]
pub const fn reach(reach: Reach) -> &'static str {
    match reach {
        Reach::Blocked => "blocked",
        Reach::Itself => "this computer",
        Reach::Containers => "containers",
        Reach::Network => "your network",
        Reach::Internet => "the internet",
        Reach::Unknown => "unknown",
    }
}

/// A circle of sources, in a word or two.
#[must_use]
pub const fn circle_word(circle: Circle) -> &'static str {
    match circle {
        Circle::Itself => "this computer",
        Circle::Containers => "containers",
        Circle::Vpn => "your VPN",
        Circle::Router => "beyond your router",
        Circle::Network => "your network",
        Circle::Internet => "the internet",
    }
}

/// A circle of sources that people have a word for, narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Circle {
    /// This computer.
    Itself,
    /// Containers and virtual machines on it.
    Containers,
    /// Behind a VPN or tunnel.
    Vpn,
    /// Outside every connected network, at an address that a router would have to translate.
    Router,
    /// The connected networks, at least.
    Network,
    /// Outside every connected network, at a public address.
    Internet,
}

/// Who a policy lets in.
#[must_use]
pub fn origin(origin: Origin) -> String {
    match origin {
        Origin::Itself => "this computer".to_owned(),
        Origin::Lan => "your network".to_owned(),
        Origin::Containers => "containers".to_owned(),
        Origin::Vpn => "your VPN".to_owned(),
        Origin::Any => "anyone".to_owned(),
        Origin::Prefix(_) => origin.to_string(),
    }
}

/// Whom an address is for, or why it is not for people on the same network.
#[must_use]
pub fn address(entry: &AddressEntry) -> String {
    let tailnet = entry.link.starts_with("tailscale");
    let machines = entry.link.starts_with("virbr") || entry.link.starts_with("vnet");
    match entry.why {
        ChoiceReason::PhysicalDefaultRoute
        | ChoiceReason::PhysicalSubnet
        | ChoiceReason::VirtualDefaultRoute
        | ChoiceReason::VirtualSubnet => match entry.audience {
            AddressAudience::Internet => "public: for people on the internet".to_owned(),
            AddressAudience::Itself
            | AddressAudience::Containers
            | AddressAudience::Vpn
            | AddressAudience::Lan => "for people on the same network".to_owned(),
        },
        ChoiceReason::OtherNetwork => "only people on that other network".to_owned(),
        ChoiceReason::SameNetwork => "the same network, a second address".to_owned(),
        ChoiceReason::AlsoIpv6 => "the same network, over IPv6".to_owned(),
        ChoiceReason::Loopback => "only this computer itself".to_owned(),
        ChoiceReason::Containers if machines => "only virtual machines on this computer".to_owned(),
        ChoiceReason::Containers => "only containers on this computer".to_owned(),
        ChoiceReason::Vpn if tailnet => "only devices in your tailnet".to_owned(),
        ChoiceReason::Vpn => "only devices in your VPN".to_owned(),
        ChoiceReason::NobodyThere => "nobody is behind this interface".to_owned(),
        ChoiceReason::LinkDown => "its interface is switched off".to_owned(),
        ChoiceReason::NoCarrier => "its interface is not connected".to_owned(),
        ChoiceReason::Temporary => "changes daily (temporary IPv6 address)".to_owned(),
        ChoiceReason::Deprecated => "about to be replaced (deprecated)".to_owned(),
        ChoiceReason::Tentative => "still being checked for duplicates".to_owned(),
        ChoiceReason::Duplicate => "another machine has it (duplicate)".to_owned(),
        ChoiceReason::LinkLocal => {
            "this link only; who dials it must name their interface".to_owned()
        }
        ChoiceReason::Autoconfigured => "no router gave an address; this link only".to_owned(),
    }
}

/// What the system runs inside, and what that means for its addresses.
#[must_use]
pub const fn inside(inside: Virtualization) -> Option<&'static str> {
    match inside {
        Virtualization::Wsl1 => {
            Some("This is WSL 1: it has the addresses of Windows, and its firewall.")
        }
        Virtualization::Wsl2 => Some(
            "This is WSL 2: others reach it only through Windows, by the address of Windows \
             (canreach explain nat).",
        ),
        Virtualization::Container => {
            Some("This is a container: others reach it only by ports that its host publishes.")
        }
        // Bridged or behind NAT: that cannot be seen from inside, and it is said for `ip` only.
        Virtualization::VirtualMachine => None,
    }
}

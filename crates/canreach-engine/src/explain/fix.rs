//! Fixes as data: commands, how to undo them, and what they need.
//!
//! Kernel counterpart: none. Left out: wording, which is the report's.

use std::net::IpAddr;

use super::launcher::Launcher;
use crate::{DropReason, SocketIndex};

/// One thing that would change the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// The reason it removes.
    pub reason: DropReason,
    /// What kind of change it is.
    pub id: FixId,
    /// What to do, in order. Empty where there is nothing to type.
    pub steps: Vec<FixStep>,
    /// How to take it back, if it changes the machine.
    pub undo: Option<Undo>,
    /// A step needs root.
    pub needs_root: bool,
    /// The server that was recognised.
    pub server: Option<ServerName>,
    /// What started it.
    pub launcher: Option<Launcher>,
    /// The address to dial instead.
    pub dial: Option<IpAddr>,
    /// The listener it is about.
    pub listener: Option<SocketIndex>,
    /// What else stands between a client and the application.
    pub notes: Vec<FixNote>,
}

/// The name of a recognised server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    /// What people call it.
    pub name: String,
    /// Its switch was not checked against its source or manual.
    pub probably: bool,
}

/// One step of a fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FixStep {
    /// Type this.
    Run(String),
    /// Type this, with the words in capitals filled in.
    Form(String),
    /// Put these lines somewhere.
    Write(Place, Vec<String>),
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The editor that the step before opened.
    Editor,
    /// A configuration file.
    File(String),
    /// The program's own code.
    Code,
    /// The command that starts it.
    Command,
    /// The environment it is started with.
    Environment,
}

/// How a change is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// What to type.
    pub commands: Vec<String>,
    /// In the editor that opens, take the lines out again.
    pub take_lines_out: bool,
}

/// Something to know before or after a fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixNote {
    /// What it is about.
    pub kind: NoteKind,
    /// The text of the data file.
    pub text: String,
}

/// What a note is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKind {
    /// The application refuses the address in the request.
    Host,
    /// The application refuses the page that sent the request.
    Origin,
    /// Pages point elsewhere.
    Page,
    /// Rules on the client's address, or a missing password.
    Peer,
    /// Anything else.
    Other,
}

/// What kind of change a fix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FixId {
    /// Start the server with its own option.
    HostFlag,
    /// Start it with an environment variable.
    HostVariable,
    /// Change its configuration.
    HostSetting,
    /// Change the program.
    HostCode,
    /// Change the address in its command. Likely, not certain.
    HostArgument,
    /// Start it on all addresses, by whatever setting it has.
    ListenOnAll,
    /// Change the systemd service.
    UnitDropIn,
    /// Change the systemd socket.
    SocketUnit,
    /// Publish the container's port on all addresses.
    PublishPort,
    /// Dial the address it is bound to.
    DialBoundAddress,
    /// Dial another address of this machine.
    DialOtherAddress,
    /// Listen on IPv4 as well.
    ListenIpv4,
    /// Do not tie the server to a link.
    UnbindDevice,
    /// Take packets of VRFs too.
    VrfAccept,
    /// Another port was meant.
    OtherPort,
    /// Make the program accept again.
    UnblockProgram,
    /// Switch a link on.
    LinkUp,
    /// Give a link carrier.
    LinkCarrier,
    /// Answer neighbours.
    AnswerNeighbors,
    /// Wait until an address is usable.
    WaitForAddress,
    /// Give one of two machines another address.
    ChangeAddress,
    /// Switch IPv6 on.
    EnableIpv6,
    /// Loosen the reverse-path filter.
    RpFilterLoose,
    /// Switch the reverse-path filter off.
    RpFilterOff,
    /// Delete a route.
    DeleteRoute,
    /// Delete a policy rule.
    DeletePolicyRule,
    /// Add a route for answers.
    AddRoute,
    /// Make an address local in table local.
    AddLocalRoute,
    /// Send answers from an address by its own link.
    AddReplyRule,
    /// Let in by ufw.
    UfwAllow,
    /// Let in by firewalld.
    FirewalldAllow,
    /// Let in by a rule of nftables.
    NftAllow,
    /// Let in by a rule of iptables.
    IptablesAllow,
    /// Take an address out of a jail of fail2ban.
    Unban,
}

impl FixId {
    /// The word of the JSON.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::HostFlag => "host-flag",
            Self::HostVariable => "host-variable",
            Self::HostSetting => "host-setting",
            Self::HostCode => "host-code",
            Self::HostArgument => "host-argument",
            Self::ListenOnAll => "listen-on-all",
            Self::UnitDropIn => "unit-drop-in",
            Self::SocketUnit => "socket-unit",
            Self::PublishPort => "publish-port",
            Self::DialBoundAddress => "dial-bound-address",
            Self::DialOtherAddress => "dial-other-address",
            Self::ListenIpv4 => "listen-ipv4",
            Self::UnbindDevice => "unbind-device",
            Self::VrfAccept => "vrf-accept",
            Self::OtherPort => "other-port",
            Self::UnblockProgram => "unblock-program",
            Self::LinkUp => "link-up",
            Self::LinkCarrier => "link-carrier",
            Self::AnswerNeighbors => "answer-neighbors",
            Self::WaitForAddress => "wait-for-address",
            Self::ChangeAddress => "change-address",
            Self::EnableIpv6 => "enable-ipv6",
            Self::RpFilterLoose => "rp-filter-loose",
            Self::RpFilterOff => "rp-filter-off",
            Self::DeleteRoute => "delete-route",
            Self::DeletePolicyRule => "delete-policy-rule",
            Self::AddRoute => "add-route",
            Self::AddLocalRoute => "add-local-route",
            Self::AddReplyRule => "add-reply-rule",
            Self::UfwAllow => "ufw-allow",
            Self::FirewalldAllow => "firewalld-allow",
            Self::NftAllow => "nft-allow",
            Self::IptablesAllow => "iptables-allow",
            Self::Unban => "unban",
        }
    }
}

impl Fix {
    /// A fix without steps.
    #[must_use]
    pub const fn new(reason: DropReason, id: FixId) -> Self {
        Self {
            reason,
            id,
            steps: Vec::new(),
            undo: None,
            needs_root: false,
            server: None,
            launcher: None,
            dial: None,
            listener: None,
            notes: Vec::new(),
        }
    }

    /// The same with one more command.
    #[must_use]
    pub fn run(mut self, command: String) -> Self {
        self.steps.push(FixStep::Run(command));
        self
    }

    /// The same with lines to put somewhere.
    #[must_use]
    pub fn write(mut self, place: Place, lines: Vec<String>) -> Self {
        self.steps.push(FixStep::Write(place, lines));
        self
    }

    /// A change of the machine that needs root, and how to take it back.
    #[must_use]
    pub fn as_root(reason: DropReason, id: FixId, command: String, undo: String) -> Self {
        let mut fix = Self::new(reason, id).run(command);
        fix.undo = Some(Undo { commands: vec![undo], take_lines_out: false });
        fix.needs_root = true;
        fix
    }

    /// What can be typed as it is, line by line; `None` if there is nothing.
    #[must_use]
    pub fn command(&self) -> Option<String> {
        let lines: Vec<&str> = self
            .steps
            .iter()
            .filter_map(|step| match step {
                FixStep::Run(command) => Some(command.as_str()),
                FixStep::Form(_) | FixStep::Write(..) => None,
            })
            .collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

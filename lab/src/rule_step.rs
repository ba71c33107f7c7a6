//! A policy rule of a host under test, as `ip rule` writes it.
//!
//! ```text
//! rule pref 10 from 10.1.0.1 iif a0 lookup 100
//! rule -6 pref 10 not to fd01::/64 lookup 100 suppress_prefixlength 0
//! rule pref 10 unreachable
//! rule del pref 0 lookup 255
//! ```

use std::fmt;

use anyhow::{Context, Result, bail};
use canreach_snapshot::{Family, PolicyAction, Prefix, TableId};

use crate::netlink::{CREATE, EXCLUSIVE, Request};
use crate::route_step::{address_bytes, family_number};
use crate::words::Words;

const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_GOTO: u16 = 4;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_OIFNAME: u16 = 17;
const FRA_L3MDEV: u16 = 19;
const FRA_UID_RANGE: u16 = 20;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
const FIB_RULE_INVERT: u32 = 2;

/// A rule that is added or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleStep {
    /// Added; removed otherwise.
    pub add: bool,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its priority.
    pub priority: u32,
    /// Turned around.
    pub invert: bool,
    /// Source prefix.
    pub source: Option<Prefix>,
    /// Destination prefix.
    pub destination: Option<Prefix>,
    /// Incoming link.
    pub iif: Option<String>,
    /// Outgoing link.
    pub oif: Option<String>,
    /// Mark and mask.
    pub mark: Option<(u32, u32)>,
    /// User ids.
    pub uid_range: Option<(u32, u32)>,
    /// Transport protocol.
    pub ip_protocol: Option<u8>,
    /// Source ports.
    pub source_ports: Option<(u16, u16)>,
    /// Destination ports.
    pub destination_ports: Option<(u16, u16)>,
    /// Packets of any VRF.
    pub l3mdev: bool,
    /// What it does.
    pub action: PolicyAction,
    /// Ignore short prefixes.
    pub suppress_prefix_length: Option<u32>,
}

impl RuleStep {
    /// A rule that matches everything.
    #[must_use]
    pub const fn plain(family: Family, priority: u32, action: PolicyAction) -> Self {
        Self {
            add: true,
            family,
            priority,
            invert: false,
            source: None,
            destination: None,
            iif: None,
            oif: None,
            mark: None,
            uid_range: None,
            ip_protocol: None,
            source_ports: None,
            destination_ports: None,
            l3mdev: false,
            action,
            suppress_prefix_length: None,
        }
    }

    /// Reads what follows the word `rule`.
    ///
    /// # Errors
    /// If it is no rule.
    pub fn read(words: &mut Words<'_>) -> Result<Self> {
        let add = !words.take("del");
        let family = if words.take("-6") { Family::Ipv6 } else { Family::Ipv4 };
        let mut step = Self { add, ..Self::plain(family, 0, PolicyAction::Nop) };
        let mut action = None;
        while let Some(word) = words.next_word() {
            match word {
                "pref" => step.priority = words.value("a priority")?,
                "not" => step.invert = true,
                "from" => step.source = Some(words.value("a prefix")?),
                "to" => step.destination = Some(words.value("a prefix")?),
                "iif" => step.iif = Some(words.word("a link")?.to_owned()),
                "oif" => step.oif = Some(words.word("a link")?.to_owned()),
                "fwmark" => step.mark = Some(read_mark(words)?),
                "uidrange" => step.uid_range = Some(words.range("two user ids")?),
                "ipproto" => step.ip_protocol = Some(read_protocol(words)?),
                "sport" => step.source_ports = Some(words.range("ports")?),
                "dport" => step.destination_ports = Some(words.range("ports")?),
                "l3mdev" => step.l3mdev = true,
                "suppress_prefixlength" => {
                    step.suppress_prefix_length = Some(words.value("a length")?);
                }
                "lookup" => action = Some(PolicyAction::Lookup(TableId(words.value("a table")?))),
                "goto" => action = Some(PolicyAction::Goto(words.value("a priority")?)),
                "nop" => action = Some(PolicyAction::Nop),
                "blackhole" => action = Some(PolicyAction::Blackhole),
                "unreachable" => action = Some(PolicyAction::Unreachable),
                "prohibit" => action = Some(PolicyAction::Prohibit),
                other => bail!("`{}`: a rule has no `{other}`", words.line()),
            }
        }
        if let Some(prefix) = step.source.or(step.destination) {
            step.family = prefix.family();
        }
        let l3mdev = step.l3mdev.then_some(PolicyAction::Lookup(TableId(0)));
        step.action =
            action.or(l3mdev).with_context(|| format!("`{}`: no action", words.line()))?;
        Ok(step)
    }

    /// The request that does it.
    #[must_use]
    pub fn request(&self) -> Request {
        let (action, table, goto) = match self.action {
            PolicyAction::Lookup(table) => (1, Some(table.0), None),
            PolicyAction::Goto(priority) => (2, None, Some(priority)),
            PolicyAction::Nop => (3, None, None),
            PolicyAction::Blackhole => (6, None, None),
            PolicyAction::Unreachable => (7, None, None),
            PolicyAction::Prohibit => (8, None, None),
            PolicyAction::Other(number) => (number, None, None),
        };
        let length = |prefix: Option<Prefix>| prefix.map_or(0, Prefix::length);
        let header = [
            family_number(self.family),
            length(self.destination),
            length(self.source),
            0,
            0,
            0,
            0,
            action,
        ];
        let flags = if self.invert { FIB_RULE_INVERT } else { 0 };
        let header = [&header[..], &flags.to_ne_bytes()].concat();
        let (message, extra) =
            if self.add { (RTM_NEWRULE, CREATE | EXCLUSIVE) } else { (RTM_DELRULE, 0) };
        let mut request = Request::new(message, extra, &header, &self.to_string())
            .number(FRA_PRIORITY, self.priority)
            .maybe(FRA_TABLE, table)
            .maybe(FRA_GOTO, goto)
            .maybe(FRA_FWMARK, self.mark.map(|(mark, _)| mark))
            .maybe(FRA_FWMASK, self.mark.map(|(_, mask)| mask))
            .maybe(FRA_SUPPRESS_PREFIXLEN, self.suppress_prefix_length);
        for (kind, prefix) in [(FRA_DST, self.destination), (FRA_SRC, self.source)] {
            if let Some(prefix) = prefix {
                request = request.attribute(kind, &address_bytes(prefix.network().address()));
            }
        }
        for (kind, name) in [(FRA_IIFNAME, &self.iif), (FRA_OIFNAME, &self.oif)] {
            if let Some(name) = name {
                request = request.text(kind, name);
            }
        }
        for (kind, ports) in
            [(FRA_SPORT_RANGE, self.source_ports), (FRA_DPORT_RANGE, self.destination_ports)]
        {
            if let Some((low, high)) = ports {
                request =
                    request.attribute(kind, &[low.to_ne_bytes(), high.to_ne_bytes()].concat());
            }
        }
        if let Some((low, high)) = self.uid_range {
            request =
                request.attribute(FRA_UID_RANGE, &[low.to_ne_bytes(), high.to_ne_bytes()].concat());
        }
        if let Some(protocol) = self.ip_protocol {
            request = request.attribute(FRA_IP_PROTO, &[protocol]);
        }
        if self.l3mdev {
            request = request.attribute(FRA_L3MDEV, &[1]);
        }
        request
    }
}

fn read_mark(words: &mut Words<'_>) -> Result<(u32, u32)> {
    let word = words.word("a mark")?;
    let (mark, mask) = word.split_once('/').unwrap_or((word, "4294967295"));
    match (mark.parse(), mask.parse()) {
        (Ok(mark), Ok(mask)) => Ok((mark, mask)),
        _ => bail!("`{}`: `{word}` is not a mark with its mask", words.line()),
    }
}

fn read_protocol(words: &mut Words<'_>) -> Result<u8> {
    match words.word("a protocol")? {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        other => bail!("`{}`: `{other}` is neither tcp nor udp", words.line()),
    }
}

impl fmt::Display for RuleStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.add { "rule" } else { "rule del" })?;
        if self.family == Family::Ipv6 {
            formatter.write_str(" -6")?;
        }
        write!(formatter, " pref {}", self.priority)?;
        if self.invert {
            formatter.write_str(" not")?;
        }
        let text = |what: &str, value: Option<String>| {
            value.map_or_else(String::new, |value| format!(" {what} {value}"))
        };
        let range = |(low, high): (u16, u16)| format!("{low}-{high}");
        let parts = [
            text("from", self.source.map(|prefix| prefix.to_string())),
            text("to", self.destination.map(|prefix| prefix.to_string())),
            text("iif", self.iif.clone()),
            text("oif", self.oif.clone()),
            text("fwmark", self.mark.map(|(mark, mask)| format!("{mark}/{mask}"))),
            text("uidrange", self.uid_range.map(|(low, high)| format!("{low}-{high}"))),
            text("ipproto", self.ip_protocol.map(|number| protocol_name(number).to_owned())),
            text("sport", self.source_ports.map(range)),
            text("dport", self.destination_ports.map(range)),
        ];
        formatter.write_str(&parts.concat())?;
        if self.l3mdev {
            formatter.write_str(" l3mdev")?;
        }
        match self.action {
            PolicyAction::Lookup(TableId(0)) if self.l3mdev => {}
            PolicyAction::Lookup(table) => write!(formatter, " lookup {}", table.0)?,
            PolicyAction::Goto(priority) => write!(formatter, " goto {priority}")?,
            PolicyAction::Nop => formatter.write_str(" nop")?,
            PolicyAction::Blackhole => formatter.write_str(" blackhole")?,
            PolicyAction::Unreachable => formatter.write_str(" unreachable")?,
            PolicyAction::Prohibit => formatter.write_str(" prohibit")?,
            PolicyAction::Other(number) => write!(formatter, " action-{number}")?,
        }
        let suppress = self.suppress_prefix_length.map(|length| length.to_string());
        formatter.write_str(&text("suppress_prefixlength", suppress))
    }
}

const fn protocol_name(number: u8) -> &'static str {
    if number == 6 { "tcp" } else { "udp" }
}

//! Policy rules (RTM_NEWRULE).

use canreach_snapshot::{Family, PolicyAction, PolicyRule, Prefix, TableId};

use super::attr::{Attribute, Malformed, family_of, split_header};
use super::message::Message;

/// `RTM_GETRULE`; its answers are `RTM_NEWRULE`.
pub(crate) const GET: u16 = 34;

/// `struct fib_rule_hdr`, zeroed: every rule of every family, in the order they are asked.
pub(crate) const REQUEST: [u8; 12] = [0; 12];

/// `FIB_RULE_INVERT`.
const INVERT_FLAG: u32 = 0x2;

const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const IN_LINK: u16 = 3;
const GOTO: u16 = 4;
const PRIORITY: u16 = 6;
const MARK: u16 = 10;
const FLOW: u16 = 11;
const TUNNEL_ID: u16 = 12;
const SUPPRESS_IFGROUP: u16 = 13;
const SUPPRESS_PREFIX_LENGTH: u16 = 14;
const TABLE: u16 = 15;
const MARK_MASK: u16 = 16;
const OUT_LINK: u16 = 17;
const PADDING: u16 = 18;
const L3MDEV: u16 = 19;
const UID_RANGE: u16 = 20;
/// Who made the rule: no selector.
const ORIGINATOR: u16 = 21;
const IP_PROTOCOL: u16 = 22;
const SOURCE_PORTS: u16 = 23;
const DESTINATION_PORTS: u16 = 24;
const DSCP: u16 = 25;
const SOURCE_PORT_MASK: u16 = 28;
const DESTINATION_PORT_MASK: u16 = 29;
const DSCP_MASK: u16 = 30;

/// A suppressor that is off (`-1` in the kernel).
const NO_SUPPRESSOR: u32 = u32::MAX;

/// Decodes one rule; `None` for families the model does not have (multicast routing).
pub(crate) fn decode(message: &Message<'_>) -> Result<Option<PolicyRule>, Malformed> {
    let (header, attributes) = split_header::<12>(message.kind, message.payload)?;
    let [family, destination_length, source_length, tos, table, _, _, action, flags @ ..] = *header;
    let Some(family) = family_of(family) else { return Ok(None) };
    let mut rule = blank(family, tos, u32::from_ne_bytes(flags));
    let mut table = u32::from(table);
    let mut goto = 0;
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            DESTINATION => rule.destination = prefix(attribute, family, destination_length)?,
            SOURCE => rule.source = prefix(attribute, family, source_length)?,
            GOTO => goto = attribute.u32()?,
            TABLE => table = attribute.u32()?,
            _ => selector(&mut rule, attribute)?,
        }
    }
    rule.action = match action {
        1 => PolicyAction::Lookup(TableId(table)),
        2 => PolicyAction::Goto(goto),
        3 => PolicyAction::Nop,
        6 => PolicyAction::Blackhole,
        7 => PolicyAction::Unreachable,
        8 => PolicyAction::Prohibit,
        other => PolicyAction::Other(other),
    };
    Ok(Some(rule))
}

fn blank(family: Family, tos: u8, flags: u32) -> PolicyRule {
    PolicyRule {
        invert: flags & INVERT_FLAG != 0,
        tos,
        ..PolicyRule::new(family, 0, PolicyAction::Nop)
    }
}

fn selector(rule: &mut PolicyRule, attribute: Attribute<'_>) -> Result<(), Malformed> {
    match attribute.kind {
        IN_LINK => rule.iif = Some(attribute.text()),
        OUT_LINK => rule.oif = Some(attribute.text()),
        PRIORITY => rule.priority = attribute.u32()?,
        MARK => rule.mark = attribute.u32()?,
        MARK_MASK => rule.mark_mask = attribute.u32()?,
        FLOW => rule.realm = Some(attribute.u32()?).filter(|&realm| realm != 0),
        TUNNEL_ID => rule.tunnel_id = Some(attribute.be64()?).filter(|&id| id != 0),
        SUPPRESS_IFGROUP => rule.suppress_ifgroup = suppressor(attribute)?,
        SUPPRESS_PREFIX_LENGTH => rule.suppress_prefix_length = suppressor(attribute)?,
        L3MDEV => rule.l3mdev = attribute.u8()? != 0,
        UID_RANGE => {
            let [a, b, c, d, e, f, g, h] = attribute.bytes::<8>()?;
            let range = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
            // The kernel prints the range that holds everyone only when it was set.
            rule.uid_range = Some(range);
        }
        IP_PROTOCOL => rule.ip_protocol = Some(attribute.u8()?).filter(|&number| number != 0),
        SOURCE_PORTS => rule.source_ports = Some(ports(attribute)?),
        DESTINATION_PORTS => rule.destination_ports = Some(ports(attribute)?),
        DSCP => rule.dscp = Some(attribute.u8()?),
        PADDING | ORIGINATOR => {}
        // Since 6.15 a rule with a port or a DSCP value carries its mask as well; one that lets all
        // bits count changes nothing.
        SOURCE_PORT_MASK | DESTINATION_PORT_MASK if attribute.u16()? == u16::MAX => {}
        DSCP_MASK if attribute.u8()? == 0x3f => {}
        unknown => rule.unrecognized.push(unknown),
    }
    Ok(())
}

fn prefix(
    attribute: Attribute<'_>,
    family: Family,
    length: u8,
) -> Result<Option<Prefix>, Malformed> {
    let address = attribute.address(family)?;
    let malformed = Malformed {
        what: "prefix length of attribute",
        number: attribute.kind,
        length: usize::from(length),
        wanted: usize::from(family.bits()),
    };
    Prefix::new(address, length).ok_or(malformed).map(|prefix| Some(prefix.network()))
}

fn suppressor(attribute: Attribute<'_>) -> Result<Option<u32>, Malformed> {
    attribute.u32().map(|value| Some(value).filter(|&value| value != NO_SUPPRESSOR))
}

/// `struct fib_rule_port_range`.
fn ports(attribute: Attribute<'_>) -> Result<(u16, u16), Malformed> {
    let [a, b, c, d] = attribute.bytes::<4>()?;
    Ok((u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])))
}

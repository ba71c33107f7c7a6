//! What decides a packet, or sends it elsewhere.

use canreach_snapshot::NfFamily;
use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{NatRange, RejectType};

use super::super::super::attr::Malformed;
use super::super::field::Fields;
use super::super::part::family;

/// net/netfilter/nft_reject.c.
pub(super) fn reject(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const TYPE: u16 = 1;
    const ICMP_CODE: u16 = 2;
    let kind = match fields.be32(TYPE)? {
        Some(0) => RejectType::IcmpUnreach,
        Some(1) => RejectType::TcpRst,
        Some(2) => RejectType::IcmpxUnreach,
        _ => return Ok(None),
    };
    Ok(Some(Expr::Reject { kind, code: fields.byte(ICMP_CODE)?.unwrap_or(0) }))
}

/// net/netfilter/nft_nat.c.
pub(super) fn nat(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const TYPE: u16 = 1;
    const FAMILY: u16 = 2;
    const ADDR_MIN: u16 = 3;
    const ADDR_MAX: u16 = 4;
    const PROTO_MIN: u16 = 5;
    const PROTO_MAX: u16 = 6;
    const FLAGS: u16 = 7;
    let source = match fields.be32(TYPE)? {
        Some(0) => true,
        Some(1) => false,
        _ => return Ok(None),
    };
    let range = NatRange {
        addr_min: fields.register(ADDR_MIN)?,
        addr_max: fields.register(ADDR_MAX)?,
        ..ports(fields, PROTO_MIN, PROTO_MAX, FLAGS)?
    };
    Ok(family_of(fields.be32(FAMILY)?).map(|family| Expr::Nat { source, family, range }))
}

/// net/netfilter/nft_masq.c.
pub(super) fn masq(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const FLAGS: u16 = 1;
    const PROTO_MIN: u16 = 2;
    const PROTO_MAX: u16 = 3;
    Ok(Some(Expr::Masq { range: ports(fields, PROTO_MIN, PROTO_MAX, FLAGS)? }))
}

/// net/netfilter/nft_redir.c.
pub(super) fn redir(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const PROTO_MIN: u16 = 1;
    const PROTO_MAX: u16 = 2;
    const FLAGS: u16 = 3;
    Ok(Some(Expr::Redir { range: ports(fields, PROTO_MIN, PROTO_MAX, FLAGS)? }))
}

fn ports(fields: &Fields<'_>, min: u16, max: u16, flags: u16) -> Result<NatRange, Malformed> {
    Ok(NatRange {
        addr_min: None,
        addr_max: None,
        proto_min: fields.register(min)?,
        proto_max: fields.register(max)?,
        flags: fields.be32(flags)?.unwrap_or(0),
    })
}

/// A family as four bytes.
fn family_of(number: Option<u32>) -> Option<NfFamily> {
    number.and_then(|number| u8::try_from(number).ok()).and_then(family)
}

/// net/netfilter/nft_tproxy.c.
pub(super) fn tproxy(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const FAMILY: u16 = 1;
    const REG_ADDR: u16 = 2;
    const REG_PORT: u16 = 3;
    /// `NFPROTO_UNSPEC`: both.
    const BOTH: u32 = 0;
    let family = match fields.be32(FAMILY)? {
        Some(BOTH) => Some(NfFamily::Inet),
        number => family_of(number),
    };
    let (addr, port) = (fields.register(REG_ADDR)?, fields.register(REG_PORT)?);
    Ok(family.map(|family| Expr::Tproxy { family, addr, port }))
}

/// net/netfilter/nft_queue.c.
pub(super) fn queue(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const NUM: u16 = 1;
    const TOTAL: u16 = 2;
    const FLAGS: u16 = 3;
    /// `NFT_QUEUE_FLAG_BYPASS`; the other one, which says how to choose among several, is of no
    /// interest here.
    const BYPASS: u16 = 1;
    Ok(Some(Expr::Queue {
        number: fields.be16(NUM)?.unwrap_or(0),
        total: fields.be16(TOTAL)?.unwrap_or(0),
        bypass: fields.be16(FLAGS)?.unwrap_or(0) & BYPASS != 0,
    }))
}

/// net/netfilter/nft_synproxy.c.
#[allow(clippy::unnecessary_wraps, reason = "one of the decoders")]
pub(super) const fn synproxy(_: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    Ok(Some(Expr::Synproxy))
}

/// net/ipv4/netfilter/nft_dup_ipv4.c, net/ipv6/netfilter/nft_dup_ipv6.c, net/netfilter/nft_dup_netdev.c.
#[allow(clippy::unnecessary_wraps, reason = "one of the decoders")]
pub(super) const fn dup(_: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    Ok(Some(Expr::Dup))
}

/// net/netfilter/nft_fwd_netdev.c.
#[allow(clippy::unnecessary_wraps, reason = "one of the decoders")]
pub(super) const fn fwd(_: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    Ok(Some(Expr::Fwd))
}

/// net/netfilter/nft_flow_offload.c.
#[allow(clippy::unnecessary_wraps, reason = "one of the decoders")]
pub(super) fn flow_offload(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const TABLE_NAME: u16 = 1;
    Ok(fields.text(TABLE_NAME).map(|flowtable| Expr::FlowOffload { flowtable }))
}

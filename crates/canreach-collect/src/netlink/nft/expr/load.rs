//! What reads something of the packet into a register, and writes it back.

use canreach_snapshot::nft::Expr;
use canreach_snapshot::nft::expr::{
    CtDirection, CtKey, ExthdrOp, FibFlags, FibResult, MetaKey, PayloadBase, SocketKey,
};

use super::super::super::attr::Malformed;
use super::super::field::Fields;

/// net/netfilter/nft_payload.c.
pub(super) fn payload(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    const BASE: u16 = 2;
    const OFFSET: u16 = 3;
    const LEN: u16 = 4;
    const SREG: u16 = 5;
    let base = match fields.be32(BASE)? {
        Some(0) => PayloadBase::Link,
        Some(1) => PayloadBase::Network,
        Some(2) => PayloadBase::Transport,
        Some(3) => PayloadBase::Inner,
        Some(4) => PayloadBase::Tunnel,
        _ => return Ok(None),
    };
    let (Some(offset), Some(len)) = (fields.be32(OFFSET)?, fields.be32(LEN)?) else {
        return Ok(None);
    };
    Ok(match (fields.register(DREG)?, fields.register(SREG)?) {
        (Some(dreg), None) => Some(Expr::Payload { dreg, base, offset, len }),
        (None, Some(sreg)) => Some(Expr::PayloadSet { sreg, base, offset, len }),
        _ => None,
    })
}

/// net/netfilter/nft_exthdr.c.
pub(super) fn exthdr(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    const TYPE: u16 = 2;
    const OFFSET: u16 = 3;
    const LEN: u16 = 4;
    const FLAGS: u16 = 5;
    const OP: u16 = 6;
    let op = match fields.be32(OP)? {
        None | Some(0) => ExthdrOp::Ipv6,
        Some(1) => ExthdrOp::Tcpopt,
        Some(2) => ExthdrOp::Ipv4,
        Some(3) => ExthdrOp::Sctp,
        Some(4) => ExthdrOp::Dccp,
        Some(_) => return Ok(None),
    };
    let present = match fields.be32(FLAGS)? {
        None | Some(0) => false,
        Some(1) => true,
        Some(_) => return Ok(None),
    };
    let Some(kind) = fields.byte(TYPE)? else { return Ok(None) };
    if !fields.has(DREG) {
        return Ok(Some(Expr::ExthdrSet { op, kind }));
    }
    let place = fields.be32(OFFSET)?.zip(fields.be32(LEN)?);
    let all = fields.register(DREG)?.zip(place);
    Ok(all.map(|(dreg, (offset, len))| Expr::Exthdr { dreg, op, kind, offset, len, present }))
}

/// net/netfilter/nft_meta.c.
pub(super) fn meta(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    const KEY: u16 = 2;
    const SREG: u16 = 3;
    let Some(key) = fields.be32(KEY)?.map(meta_key) else { return Ok(None) };
    Ok(match (fields.register(DREG)?, fields.register(SREG)?) {
        (Some(dreg), None) => Some(Expr::Meta { dreg, key }),
        (None, Some(sreg)) => Some(Expr::MetaSet { sreg, key }),
        _ => None,
    })
}

/// `enum nft_meta_keys`, in its order.
const META_KEYS: [MetaKey; 37] = [
    MetaKey::Len,
    MetaKey::Protocol,
    MetaKey::Priority,
    MetaKey::Mark,
    MetaKey::Iif,
    MetaKey::Oif,
    MetaKey::Iifname,
    MetaKey::Oifname,
    MetaKey::Iiftype,
    MetaKey::Oiftype,
    MetaKey::Skuid,
    MetaKey::Skgid,
    MetaKey::Nftrace,
    MetaKey::Rtclassid,
    MetaKey::Secmark,
    MetaKey::Nfproto,
    MetaKey::L4proto,
    MetaKey::BriIifname,
    MetaKey::BriOifname,
    MetaKey::Pkttype,
    MetaKey::Cpu,
    MetaKey::Iifgroup,
    MetaKey::Oifgroup,
    MetaKey::Cgroup,
    MetaKey::Prandom,
    MetaKey::Secpath,
    MetaKey::Iifkind,
    MetaKey::Oifkind,
    MetaKey::BriIifpvid,
    MetaKey::BriIifvproto,
    MetaKey::TimeNs,
    MetaKey::TimeDay,
    MetaKey::TimeHour,
    MetaKey::Sdif,
    MetaKey::Sdifname,
    MetaKey::BriBroute,
    MetaKey::BriIifhwaddr,
];

fn meta_key(number: u32) -> MetaKey {
    META_KEYS.get(number as usize).copied().unwrap_or(MetaKey::Other(number))
}

/// net/netfilter/nft_ct.c.
pub(super) fn ct(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    const KEY: u16 = 2;
    const DIRECTION: u16 = 3;
    const SREG: u16 = 4;
    let Some(key) = fields.be32(KEY)?.map(ct_key) else { return Ok(None) };
    let direction = match fields.byte(DIRECTION)? {
        None => None,
        Some(0) => Some(CtDirection::Original),
        Some(1) => Some(CtDirection::Reply),
        Some(_) => return Ok(None),
    };
    Ok(match (fields.register(DREG)?, fields.register(SREG)?) {
        (Some(dreg), None) => Some(Expr::Ct { dreg, key, direction }),
        (None, Some(sreg)) => Some(Expr::CtSet { sreg, key, direction }),
        _ => None,
    })
}

/// `enum nft_ct_keys`, in its order.
const CT_KEYS: [CtKey; 24] = [
    CtKey::State,
    CtKey::Direction,
    CtKey::Status,
    CtKey::Mark,
    CtKey::Secmark,
    CtKey::Expiration,
    CtKey::Helper,
    CtKey::L3protocol,
    CtKey::Src,
    CtKey::Dst,
    CtKey::Protocol,
    CtKey::ProtoSrc,
    CtKey::ProtoDst,
    CtKey::Labels,
    CtKey::Pkts,
    CtKey::Bytes,
    CtKey::Avgpkt,
    CtKey::Zone,
    CtKey::Eventmask,
    CtKey::SrcIp,
    CtKey::DstIp,
    CtKey::SrcIp6,
    CtKey::DstIp6,
    CtKey::Id,
];

fn ct_key(number: u32) -> CtKey {
    CT_KEYS.get(number as usize).copied().unwrap_or(CtKey::Other(number))
}

/// net/netfilter/nft_rt.c.
pub(super) fn rt(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    const KEY: u16 = 2;
    Ok(fields.register(DREG)?.zip(fields.be32(KEY)?).map(|(dreg, key)| Expr::Rt { dreg, key }))
}

/// net/netfilter/nft_socket.c.
pub(super) fn socket(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const KEY: u16 = 1;
    const DREG: u16 = 2;
    const LEVEL: u16 = 3;
    let key = match fields.be32(KEY)? {
        Some(0) => SocketKey::Transparent,
        Some(1) => SocketKey::Mark,
        Some(2) => SocketKey::Wildcard,
        Some(3) => SocketKey::Cgroupv2(fields.be32(LEVEL)?.unwrap_or(0)),
        _ => return Ok(None),
    };
    Ok(fields.register(DREG)?.map(|dreg| Expr::Socket { dreg, key }))
}

/// net/netfilter/nft_fib.c.
pub(super) fn fib(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    const RESULT: u16 = 2;
    const FLAGS: u16 = 3;
    /// `NFTA_FIB_F_SADDR` to `NFTA_FIB_F_PRESENT`.
    const KNOWN: u32 = 0x3f;
    let result = match fields.be32(RESULT)? {
        Some(1) => FibResult::Oif,
        Some(2) => FibResult::Oifname,
        Some(3) => FibResult::Addrtype,
        _ => return Ok(None),
    };
    let bits = fields.be32(FLAGS)?.unwrap_or(0);
    if bits & !KNOWN != 0 {
        return Ok(None);
    }
    let flags = FibFlags {
        saddr: bits & 1 != 0,
        daddr: bits & 2 != 0,
        mark: bits & 4 != 0,
        iif: bits & 8 != 0,
        oif: bits & 16 != 0,
        present: bits & 32 != 0,
    };
    Ok(fields.register(DREG)?.map(|dreg| Expr::Fib { dreg, result, flags }))
}

/// net/netfilter/nft_osf.c.
pub(super) fn osf(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    Ok(fields.register(DREG)?.map(|dreg| Expr::Osf { dreg }))
}

/// net/netfilter/nft_tunnel.c.
pub(super) fn tunnel(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const KEY: u16 = 1;
    const DREG: u16 = 2;
    Ok(fields.register(DREG)?.zip(fields.be32(KEY)?).map(|(dreg, key)| Expr::Tunnel { dreg, key }))
}

/// net/netfilter/nft_xfrm.c.
pub(super) fn xfrm(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    const DREG: u16 = 1;
    const KEY: u16 = 2;
    Ok(fields.register(DREG)?.zip(fields.be32(KEY)?).map(|(dreg, key)| Expr::Xfrm { dreg, key }))
}

//! Expressions: what a rule runs. One variant for each module of the kernel (net/netfilter/nft_*.c).
//!
//! Registers are numbered by their first four-byte slot, 0 to 15: `NFT_REG_1` and `NFT_REG32_00` are 0,
//! `NFT_REG_2` and `NFT_REG32_04` are 4. The verdict register does not occur: verdicts are
//! [`Constant::Verdict`]. An expression, a key or a form that this version does not know is
//! [`Expr::Opaque`], with its name: nothing is left out.

use serde::{Deserialize, Serialize};

use super::Bytes;
use crate::xt;

/// A register: the number of its first four-byte slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Register(pub u8);

/// A constant: a value, or what to do with the packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Constant {
    /// `NFTA_DATA_VALUE`.
    Value(Bytes),
    /// `NFTA_DATA_VERDICT`.
    Verdict(NfVerdict),
}

/// What a rule or a map says shall become of a packet (`enum nft_verdicts`, `NF_*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NfVerdict {
    /// `NF_ACCEPT`: leave this base chain; the next one sees it.
    Accept,
    /// `NF_DROP`.
    Drop,
    /// `NF_STOLEN`: gone.
    Stolen,
    /// `NF_QUEUE`, to the queue of this number.
    Queue {
        /// The queue.
        number: u16,
        /// Let pass where no program listens.
        bypass: bool,
    },
    /// `NFT_CONTINUE`: the next expression.
    Continue,
    /// `NFT_BREAK`: the next rule.
    Break,
    /// `NFT_JUMP`: to this chain of the same table, and back.
    Jump(String),
    /// `NFT_GOTO`: to this chain of the same table, and not back.
    Goto(String),
    /// `NFT_RETURN`.
    Return,
    /// A number this version does not know.
    Other(i32),
}

/// `enum nft_cmp_ops`, `enum nft_range_ops` (only the first two).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CmpOp {
    /// Equal; within a range.
    Eq,
    /// Not equal; outside a range.
    Neq,
    /// Less, byte by byte.
    Lt,
    /// Less or equal.
    Lte,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
}

/// `enum nft_payload_bases`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadBase {
    /// The link-layer header.
    Link,
    /// The network header.
    Network,
    /// The transport header.
    Transport,
    /// What the transport carries.
    Inner,
    /// Inside a tunnel.
    Tunnel,
}

/// `enum nft_bitwise_ops`, with what each needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BitwiseOp {
    /// (value & mask) ^ xor.
    MaskXor {
        /// The mask.
        mask: Bytes,
        /// Flipped afterwards.
        xor: Bytes,
    },
    /// Shift left by bits, over the whole length as one big-endian number of 32-bit words.
    Lshift(u32),
    /// Shift right by bits.
    Rshift(u32),
    /// And with another register, or a constant.
    And(Operand),
    /// Or with another register, or a constant.
    Or(Operand),
    /// Exclusive or with another register, or a constant.
    Xor(Operand),
}

/// The second operand of a bitwise operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operand {
    /// `NFTA_BITWISE_SREG2`.
    Register(Register),
    /// `NFTA_BITWISE_DATA`.
    Constant(Bytes),
}

/// `enum nft_exthdr_op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExthdrOp {
    /// IPv6 extension headers.
    Ipv6,
    /// TCP options.
    Tcpopt,
    /// IPv4 options.
    Ipv4,
    /// SCTP chunks.
    Sctp,
    /// DCCP options.
    Dccp,
}

/// `enum nft_meta_keys`; the kernel's number where this version knows no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the kernel's names, in the kernel's order")]
pub enum MetaKey {
    Len,
    Protocol,
    Priority,
    Mark,
    Iif,
    Oif,
    Iifname,
    Oifname,
    Iiftype,
    Oiftype,
    Skuid,
    Skgid,
    Nftrace,
    Rtclassid,
    Secmark,
    Nfproto,
    L4proto,
    BriIifname,
    BriOifname,
    Pkttype,
    Cpu,
    Iifgroup,
    Oifgroup,
    Cgroup,
    Prandom,
    Secpath,
    Iifkind,
    Oifkind,
    BriIifpvid,
    BriIifvproto,
    TimeNs,
    TimeDay,
    TimeHour,
    Sdif,
    Sdifname,
    BriBroute,
    BriIifhwaddr,
    Other(u32),
}

/// `enum nft_ct_keys`; the kernel's number where this version knows no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the kernel's names, in the kernel's order")]
pub enum CtKey {
    State,
    Direction,
    Status,
    Mark,
    Secmark,
    Expiration,
    Helper,
    L3protocol,
    Src,
    Dst,
    Protocol,
    ProtoSrc,
    ProtoDst,
    Labels,
    Pkts,
    Bytes,
    Avgpkt,
    Zone,
    Eventmask,
    SrcIp,
    DstIp,
    SrcIp6,
    DstIp6,
    Id,
    Other(u32),
}

/// `IP_CT_DIR_ORIGINAL`, `IP_CT_DIR_REPLY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CtDirection {
    /// From the client.
    Original,
    /// To the client.
    Reply,
}

/// `enum nft_fib_result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FibResult {
    /// The index of the link.
    Oif,
    /// The name of the link.
    Oifname,
    /// The type of the address (`RTN_*`).
    Addrtype,
}

/// `enum nft_fib_flags`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "the kernel's flags, each independent")]
pub struct FibFlags {
    /// Look up the source.
    pub saddr: bool,
    /// Look up the destination.
    pub daddr: bool,
    /// With the packet's mark.
    pub mark: bool,
    /// Through the link it came in by only.
    pub iif: bool,
    /// Through the link it leaves by only.
    pub oif: bool,
    /// Only whether there is one: 1 or 0.
    pub present: bool,
}

/// `enum nft_socket_keys`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketKey {
    /// Whether it may answer from any address.
    Transparent,
    /// SO_MARK.
    Mark,
    /// Whether it is bound to the wildcard address.
    Wildcard,
    /// The id of its control group's ancestor at a level.
    Cgroupv2(u32),
}

/// `enum nft_dynset_ops`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DynsetOp {
    /// Add, if it is not there.
    Add,
    /// Add, or give it its time anew.
    Update,
    /// Remove.
    Delete,
}

/// `enum nft_reject_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectType {
    /// `NFT_REJECT_ICMP_UNREACH`: with the code of the packet's own ICMP.
    IcmpUnreach,
    /// `NFT_REJECT_TCP_RST`.
    TcpRst,
    /// `NFT_REJECT_ICMPX_UNREACH`: with nft's own code for both families (`enum
    /// nft_reject_inet_code`: 0 no route, 1 port, 2 host, 3 admin prohibited).
    IcmpxUnreach,
}

/// Registers of an address and port range to translate to, and how (`NF_NAT_RANGE_*`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRange {
    /// Lowest address.
    pub addr_min: Option<Register>,
    /// Highest address.
    pub addr_max: Option<Register>,
    /// Lowest port.
    pub proto_min: Option<Register>,
    /// Highest port.
    pub proto_max: Option<Register>,
    /// `NF_NAT_RANGE_*`.
    pub flags: u32,
}

/// An expression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields are the kernel's attributes, by the kernel's names")]
pub enum Expr {
    /// `nft_immediate.c` with a value: a constant into a register.
    Immediate { dreg: Register, value: Bytes },
    /// `nft_immediate.c` with a verdict.
    Verdict(NfVerdict),
    /// `nft_cmp.c`.
    Cmp { sreg: Register, op: CmpOp, value: Bytes },
    /// `nft_range.c`: `Eq` within, `Neq` outside; both ends inclusive.
    Range { sreg: Register, op: CmpOp, from: Bytes, to: Bytes },
    /// `nft_bitwise.c`. `len` in bytes.
    Bitwise { sreg: Register, dreg: Register, len: u32, op: BitwiseOp },
    /// `nft_byteorder.c`: `size` is that of one number (2, 4 or 8 bytes).
    Byteorder { sreg: Register, dreg: Register, to_host: bool, len: u32, size: u32 },
    /// `nft_payload.c`, loading.
    Payload { dreg: Register, base: PayloadBase, offset: u32, len: u32 },
    /// `nft_payload.c`, writing.
    PayloadSet { sreg: Register, base: PayloadBase, offset: u32, len: u32 },
    /// `nft_exthdr.c`, loading. `present`: 1 or 0, whether it is there at all.
    Exthdr { dreg: Register, op: ExthdrOp, kind: u8, offset: u32, len: u32, present: bool },
    /// `nft_exthdr.c`, writing or removing an option.
    ExthdrSet { op: ExthdrOp, kind: u8 },
    /// `nft_meta.c`, loading.
    Meta { dreg: Register, key: MetaKey },
    /// `nft_meta.c`, writing.
    MetaSet { sreg: Register, key: MetaKey },
    /// `nft_ct.c`, loading.
    Ct { dreg: Register, key: CtKey, direction: Option<CtDirection> },
    /// `nft_ct.c`, writing.
    CtSet { sreg: Register, key: CtKey, direction: Option<CtDirection> },
    /// `nft_rt.c`: `NFT_RT_*`.
    Rt { dreg: Register, key: u32 },
    /// `nft_socket.c`.
    Socket { dreg: Register, key: SocketKey },
    /// `nft_fib.c`.
    Fib { dreg: Register, result: FibResult, flags: FibFlags },
    /// `nft_lookup.c`. Without `dreg`, in a map to verdicts, what is found is the verdict.
    Lookup { set: String, sreg: Register, dreg: Option<Register>, verdict: bool, invert: bool },
    /// `nft_dynset.c`.
    Dynset {
        set: String,
        op: DynsetOp,
        sreg_key: Register,
        sreg_data: Option<Register>,
        timeout_ms: Option<u64>,
        invert: bool,
        exprs: Vec<Self>,
    },
    /// `nft_hash.c`: jhash over a register, or symhash over the packet (`sreg` is `None`).
    Hash {
        dreg: Register,
        sreg: Option<Register>,
        len: u32,
        modulus: u32,
        seed: Option<u32>,
        offset: u32,
    },
    /// `nft_numgen.c`: counting up, or at random.
    Numgen { dreg: Register, modulus: u32, random: bool, offset: u32 },
    /// `nft_osf.c`: a guess of the sender's operating system.
    Osf { dreg: Register },
    /// `nft_tunnel.c`.
    Tunnel { dreg: Register, key: u32 },
    /// `nft_xfrm.c`.
    Xfrm { dreg: Register, key: u32 },
    /// `nft_limit.c`.
    Limit { rate: u64, unit_s: u64, burst: u32, bytes: bool, invert: bool },
    /// `nft_quota.c`.
    Quota { bytes: u64, consumed: u64, invert: bool },
    /// `nft_connlimit.c`.
    Connlimit { count: u32, invert: bool },
    /// `nft_counter.c`.
    Counter { packets: u64, bytes: u64 },
    /// `nft_last.c`.
    Last,
    /// `nft_log.c`, with its prefix.
    Log { prefix: Option<String>, group: Option<u16> },
    /// `nft_reject*.c`.
    Reject { kind: RejectType, code: u8 },
    /// `nft_nat.c`: `snat` or `dnat`, for the packets of one family.
    Nat { source: bool, family: crate::NfFamily, range: NatRange },
    /// `nft_masq.c`.
    Masq { range: NatRange },
    /// `nft_redir.c`.
    Redir { range: NatRange },
    /// `nft_tproxy.c`; `family` is `Inet` for both.
    Tproxy { family: crate::NfFamily, addr: Option<Register>, port: Option<Register> },
    /// `nft_ct.c`, `notrack`.
    Notrack,
    /// `nft_objref.c`: the object of this name and kind (`NFT_OBJECT_*`).
    Objref { kind: u32, name: String },
    /// `nft_objref.c`: the object that a map has for a register.
    ObjrefMap { set: String, sreg: Register },
    /// `nft_synproxy.c`.
    Synproxy,
    /// `nft_dup_*.c`: a copy is sent somewhere.
    Dup,
    /// `nft_fwd_netdev.c`: the packet leaves by another link.
    Fwd,
    /// `nft_queue.c`. A register may hold the queue.
    Queue { number: u16, total: u16, bypass: bool },
    /// `nft_flow_offload.c`.
    FlowOffload { flowtable: String },
    /// `nft_compat.c`: a match of xtables.
    Match(xt::Match),
    /// `nft_compat.c`: a target of xtables.
    Target(xt::Target),
    /// Anything else, with the kernel's name for it.
    Opaque(String),
}

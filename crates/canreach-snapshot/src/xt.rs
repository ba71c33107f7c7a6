//! xtables: the matches and targets of iptables, and the tables of iptables-legacy.
//!
//! iptables-nft puts the same matches and targets inside nftables rules. What this version does not
//! decode is `Opaque`, with the bytes as they came; the name says what it is.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::NfFamily;
use crate::nft::{Bytes, expr::NfVerdict};

/// A table of iptables-legacy or ip6tables-legacy, with its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// `Ip` or `Ip6`.
    pub family: NfFamily,
    /// `raw`, `mangle`, `nat`, `filter`, `security`.
    pub name: String,
    /// Its chains: the built-in ones in hook order first, then the user's, as they lie in the table.
    pub chains: Vec<Chain>,
}

/// A chain of a legacy table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Its name: `INPUT`, `DOCKER`.
    pub name: String,
    /// The hook and policy of a built-in chain.
    pub base: Option<(crate::NfHook, crate::ChainPolicy)>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule of a legacy table (`struct ipt_entry`, `struct ip6t_entry`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What it asks of the IP header.
    pub header: HeaderMatch,
    /// What else it asks, in order.
    pub matches: Vec<Match>,
    /// What it does.
    pub target: Target,
}

/// What a rule asks of addresses, links and protocol (`struct ipt_ip`, `struct ip6t_ip6`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "the kernel's inversion flags, each independent")]
pub struct HeaderMatch {
    /// The source under its mask, which need not be a prefix.
    pub source: MaskedAddress,
    /// `! -s`.
    pub source_inverted: bool,
    /// The destination under its mask.
    pub destination: MaskedAddress,
    /// `! -d`.
    pub destination_inverted: bool,
    /// The link it comes in by; empty for any, also for none. A trailing `+` stands for any ending.
    pub iniface: String,
    /// `! -i`.
    pub iniface_inverted: bool,
    /// The link it leaves by.
    pub outiface: String,
    /// `! -o`.
    pub outiface_inverted: bool,
    /// The protocol; 0 for any.
    pub protocol: u16,
    /// `! -p`.
    pub protocol_inverted: bool,
    /// IPv4 `-f`: later fragments only.
    pub fragment: bool,
    /// `! -f`.
    pub fragment_inverted: bool,
}

/// An address and the bits of it that count: a packet's address equals it when masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskedAddress {
    /// The address. Bits outside the mask are 0; where an IPv4 header match has others, nothing
    /// matches, as in the kernel.
    pub address: IpAddr,
    /// The mask.
    pub mask: IpAddr,
}

impl MaskedAddress {
    /// The address without the bits that do not count.
    #[must_use]
    pub fn new(address: IpAddr, mask: IpAddr) -> Self {
        let address = match (address, mask) {
            (IpAddr::V4(address), IpAddr::V4(mask)) => IpAddr::V4(address & mask),
            (IpAddr::V6(address), IpAddr::V6(mask)) => IpAddr::V6(address & mask),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => address,
        };
        Self { address, mask }
    }
}

/// A closed range of ports.
pub type PortRange = (u16, u16);

/// A match, by name and revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// `conntrack`.
    pub name: String,
    /// The revision of its structure.
    pub revision: u8,
    /// What it asks.
    pub kind: MatchKind,
}

/// Which fields of `struct xt_conntrack_mtinfo*` are asked about; `None` for those that are not. The
/// flag beside a value inverts it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConntrackMatch {
    /// `XT_CONNTRACK_STATE_*`, any of which will do: [`Self::INVALID`] and so on.
    pub state: Option<(u16, bool)>,
    /// The protocol of the original direction.
    pub protocol: Option<(u16, bool)>,
    /// Source of the original direction.
    pub orig_source: Option<(MaskedAddress, bool)>,
    /// Destination of the original direction.
    pub orig_destination: Option<(MaskedAddress, bool)>,
    /// Source of the reply direction.
    pub reply_source: Option<(MaskedAddress, bool)>,
    /// Destination of the reply direction.
    pub reply_destination: Option<(MaskedAddress, bool)>,
    /// Source port of the original direction.
    pub orig_source_port: Option<(PortRange, bool)>,
    /// Destination port of the original direction.
    pub orig_destination_port: Option<(PortRange, bool)>,
    /// Source port of the reply direction.
    pub reply_source_port: Option<(PortRange, bool)>,
    /// Destination port of the reply direction.
    pub reply_destination_port: Option<(PortRange, bool)>,
    /// `IPS_*` bits, any of which will do.
    pub status: Option<(u16, bool)>,
    /// Seconds until the entry expires.
    pub expires: Option<((u32, u32), bool)>,
    /// The direction asked for: `true` for original.
    pub direction: Option<bool>,
}

impl ConntrackMatch {
    /// `XT_CONNTRACK_STATE_INVALID`: no connection, and not because it is not tracked.
    pub const INVALID: u16 = 1 << 0;
    /// `XT_CONNTRACK_STATE_BIT(IP_CT_ESTABLISHED)`.
    pub const ESTABLISHED: u16 = 1 << 1;
    /// `XT_CONNTRACK_STATE_BIT(IP_CT_RELATED)`.
    pub const RELATED: u16 = 1 << 2;
    /// `XT_CONNTRACK_STATE_BIT(IP_CT_NEW)`.
    pub const NEW: u16 = 1 << 3;
    /// `XT_CONNTRACK_STATE_SNAT`: the connection's source is translated.
    pub const SNAT: u16 = 1 << 6;
    /// `XT_CONNTRACK_STATE_DNAT`: the connection's destination is translated.
    pub const DNAT: u16 = 1 << 7;
    /// `XT_CONNTRACK_STATE_UNTRACKED`: not tracked (`ctinfo` is `IP_CT_UNTRACKED`).
    pub const UNTRACKED: u16 = 1 << 8;
}

/// What a match asks. Names and meanings are those of the kernel's structures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields are the kernel's, by the kernel's names")]
#[allow(clippy::struct_excessive_bools, reason = "the kernel's inversion flags, each independent")]
pub enum MatchKind {
    /// `struct xt_tcp`. `option` is a TCP option that must be there; 0 for none.
    Tcp {
        source_ports: PortRange,
        source_ports_inverted: bool,
        destination_ports: PortRange,
        destination_ports_inverted: bool,
        flag_mask: u8,
        flag_value: u8,
        flags_inverted: bool,
        option: u8,
        option_inverted: bool,
    },
    /// `struct xt_udp` (udp and udplite).
    Udp {
        source_ports: PortRange,
        source_ports_inverted: bool,
        destination_ports: PortRange,
        destination_ports_inverted: bool,
    },
    /// `struct ipt_icmp`, `struct ip6t_icmp`. Type 255 is any (IPv4).
    Icmp { kind: u8, codes: (u8, u8), inverted: bool },
    /// `struct xt_multiport*`.
    Multiport { which: MultiportWhich, ports: Vec<PortRange>, inverted: bool },
    /// `struct xt_addrtype_info*`: bits of `RTN_*`; 0 asks nothing.
    Addrtype {
        source: u16,
        source_inverted: bool,
        destination: u16,
        destination_inverted: bool,
        limit_iface_in: bool,
        limit_iface_out: bool,
    },
    /// `struct xt_conntrack_mtinfo*`.
    Conntrack(Box<ConntrackMatch>),
    /// `struct xt_state_info`: bits as [`ConntrackMatch::state`], also for those not tracked, which
    /// the kernel numbers otherwise here.
    State { mask: u16 },
    /// `struct xt_comment_info`.
    Comment(String),
    /// `struct xt_iprange_mtinfo`.
    Iprange {
        source: Option<(IpAddr, IpAddr)>,
        source_inverted: bool,
        destination: Option<(IpAddr, IpAddr)>,
        destination_inverted: bool,
    },
    /// `struct xt_set_info_match_*`.
    Set(SetReference),
    /// `struct xt_mark_mtinfo1`.
    Mark { mark: u32, mask: u32, inverted: bool },
    /// `struct xt_connmark_mtinfo1`.
    Connmark { mark: u32, mask: u32, inverted: bool },
    /// `struct xt_mac_info`.
    Mac { address: [u8; 6], inverted: bool },
    /// `struct xt_physdev_info`: names as [`HeaderMatch::iniface`], and `XT_PHYSDEV_OP_*`.
    Physdev { physin: String, physout: String, ops: u8, inverted: u8 },
    /// `struct xt_pkttype_info`: `PACKET_*`.
    Pkttype { kind: u32, inverted: bool },
    /// `struct xt_policy_info`: IPsec. `none` asks for none at all.
    Policy { inbound: bool, none: bool, strict: bool, raw: Bytes },
    /// `struct xt_rpfilter_info`.
    Rpfilter { loose: bool, valid_mark: bool, accept_local: bool, inverted: bool },
    /// `struct xt_socket_mtinfo*`: `XT_SOCKET_*` flags (1 transparent, 2 nowildcard, 4 restore mark).
    Socket { flags: u8 },
    /// `struct xt_owner_match_info`: user and group ranges; whether a socket must be there.
    Owner {
        uid: Option<((u32, u32), bool)>,
        gid: Option<((u32, u32), bool)>,
        socket: Option<bool>,
        supplementary: bool,
    },
    /// `struct xt_rateinfo`: packets per time.
    Limit { average: u32, burst: u32 },
    /// `struct xt_hashlimit_mtinfo*`.
    Hashlimit { name: String, raw: Bytes },
    /// `struct xt_recent_mtinfo*`: the list, `XT_RECENT_*` bits (1 check, 2 set, 4 update, 8 remove, 16 ttl).
    Recent {
        name: String,
        check: u8,
        seconds: u32,
        hits: u32,
        inverted: bool,
        by_destination: bool,
        mask: IpAddr,
    },
    /// `struct xt_connlimit_info`.
    Connlimit { limit: u32, flags: u32, mask: IpAddr },
    /// `struct xt_statistic_info`: at random (`probability` of 2^31), or each n-th.
    Statistic { random: bool, probability: u32, every: u32, packet: u32, inverted: bool },
    /// `struct xt_time_info`.
    Time(Box<TimeMatch>),
    /// `struct xt_string_info`.
    String { raw: Bytes },
    /// `struct xt_u32`.
    U32 { raw: Bytes },
    /// `struct xt_bpf_info*`.
    Bpf { raw: Bytes },
    /// `struct xt_cgroup_info*`.
    Cgroup { path: Option<String>, classid: Option<u32>, inverted: bool },
    /// `struct ipt_ttl_info`, `struct ip6t_hl_info`: 0 equal, 1 not equal, 2 less, 3 greater.
    Ttl { mode: u8, value: u8 },
    /// `struct xt_dscp_info`.
    Dscp { dscp: u8, inverted: bool },
    /// `struct xt_tos_match_info`.
    Tos { mask: u8, value: u8, inverted: bool },
    /// `struct xt_ecn_info`.
    Ecn { raw: Bytes },
    /// `struct xt_length_info`.
    Length { range: (u16, u16), inverted: bool },
    /// `struct xt_tcpmss_match_info`.
    Tcpmss { range: (u16, u16), inverted: bool },
    /// `struct xt_helper_info`; an empty name asks for any helper.
    Helper { name: String, inverted: bool },
    /// `struct xt_nfacct_match_info*`: counts, and matches always.
    Nfacct { name: String },
    /// `struct xt_realm_info`.
    Realm { id: u32, mask: u32, inverted: bool },
    /// `struct xt_cpu_info`.
    Cpu { cpu: u32, inverted: bool },
    /// `struct xt_devgroup_info`: group under mask of the link in or out.
    Devgroup { source: Option<(u32, u32, bool)>, destination: Option<(u32, u32, bool)> },
    /// `struct xt_connbytes_info`.
    Connbytes { raw: Bytes },
    /// `struct xt_connlabel_mtinfo`.
    Connlabel { bit: u16, options: u16 },
    /// `struct xt_quota_info`.
    Quota { quota: u64, inverted: bool },
    /// Not decoded.
    Opaque(Bytes),
}

/// `XT_MULTIPORT_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MultiportWhich {
    /// The source port.
    Source,
    /// The destination port.
    Destination,
    /// Either.
    Either,
}

/// A set of ipset, and which fields of the packet are looked up in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetReference {
    /// `ip_set_id_t`: the set's number in this namespace.
    pub index: u16,
    /// Its name, where it could be read.
    pub name: Option<String>,
    /// For each dimension in order: `true` for the source side of the packet.
    pub source: Vec<bool>,
    /// `! --match-set`.
    pub inverted: bool,
    /// `IPSET_FLAG_*` of the lookup: [`Self::RETURN_NOMATCH`], [`Self::MATCH_COUNTERS`], and what
    /// changes counters only.
    pub flags: u32,
}

impl SetReference {
    /// `IPSET_FLAG_MATCH_COUNTERS`: the counters of the entry are asked about too.
    pub const MATCH_COUNTERS: u32 = 1 << 5;
    /// `IPSET_FLAG_RETURN_NOMATCH`: exceptions in the set are what is asked for.
    pub const RETURN_NOMATCH: u32 = 1 << 7;
}

/// `struct xt_time_info`: local time, or UTC, as the flags say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are the kernel's, by the kernel's names")]
pub struct TimeMatch {
    pub date_start: u32,
    pub date_stop: u32,
    pub daytime_start: u32,
    pub daytime_stop: u32,
    pub monthdays: u32,
    pub weekdays: u8,
    pub flags: u8,
}

/// A target, by name and revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `REJECT`; empty for a standard target.
    pub name: String,
    /// The revision of its structure.
    pub revision: u8,
    /// What it does.
    pub kind: TargetKind,
}

/// What a target does. Names and meanings are those of the kernel's structures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields are the kernel's, by the kernel's names")]
pub enum TargetKind {
    /// `struct xt_standard_target`: ACCEPT, DROP, RETURN, QUEUE, or a chain of the same table.
    Standard(NfVerdict),
    /// No target: the next rule.
    Continue,
    /// A chain of its own accord fails (`struct xt_error_target`): never reached.
    Error,
    /// `struct ipt_reject_info`, `struct ip6t_reject_info`: the kernel's number.
    Reject { with: u32 },
    /// LOG, NFLOG, AUDIT, TRACE, TEE, CHECKSUM, TCPMSS, TCPOPTSTRIP, CLASSIFY, IDLETIMER, LED, RATEEST,
    /// SECMARK, CONNSECMARK, ECN: does something that decides nothing here, and goes on.
    NoVerdict,
    /// `struct xt_mark_tginfo2`: mark = (mark & ~mask) ^ mark.
    Mark { mark: u32, mask: u32 },
    /// `struct xt_connmark_tginfo*`. `shift` to the left where positive.
    Connmark { mode: ConnmarkMode, ctmark: u32, ctmask: u32, nfmask: u32, shift: i8 },
    /// DNAT.
    Dnat(NatRange),
    /// SNAT.
    Snat(NatRange),
    /// MASQUERADE.
    Masquerade(NatRange),
    /// REDIRECT.
    Redirect(NatRange),
    /// NETMAP: the network part of the destination (prerouting, output) or source. Bits in which
    /// lowest and highest address differ stay the packet's.
    Netmap(NatRange),
    /// `struct xt_ct_target_info*`, NOTRACK. `zone_flags`: 4 original direction only, 8 reply only,
    /// 16 the packet's mark instead of `zone`.
    Ct { notrack: bool, zone: u16, zone_flags: u16, helper: Option<String> },
    /// `struct xt_tproxy_target_info*`; no address stands for one of the link's, no port for the
    /// packet's.
    Tproxy { address: Option<IpAddr>, port: Option<u16>, mark_mask: u32, mark_value: u32 },
    /// `struct xt_NFQ_info*`.
    Nfqueue { number: u16, total: u16, bypass: bool },
    /// `struct xt_set_info_target_*`: adds, removes, or maps to marks.
    Set {
        add: Option<SetReference>,
        delete: Option<SetReference>,
        map: Option<SetReference>,
        flags: u32,
    },
    /// `struct ipt_TTL_info`, `struct ip6t_HL_info`: 0 set, 1 increase, 2 decrease.
    Ttl { mode: u8, value: u8 },
    /// DSCP and TOS.
    Tos { mask: u8, value: u8 },
    /// SYNPROXY.
    Synproxy,
    /// Not decoded.
    Opaque(Bytes),
}

/// `XT_CONNMARK_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConnmarkMode {
    /// Sets the connection's mark.
    Set,
    /// Copies the packet's mark to the connection.
    Save,
    /// Copies the connection's mark to the packet.
    Restore,
}

/// `struct nf_nat_range2`, `struct nf_nat_ipv4_multi_range_compat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRange {
    /// Lowest and highest address.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// Lowest and highest port.
    pub ports: Option<(u16, u16)>,
    /// The port that `ports` starts from (`--to-destination` with a port shift).
    pub base_port: Option<u16>,
    /// `NF_NAT_RANGE_*`: 4 random, 8 persistent, 16 fully random.
    pub flags: u32,
}

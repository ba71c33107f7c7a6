//! What a sender sees when rules stop its packet.
//!
//! *Kernel:* `nf_send_reset`, `nf_send_unreach` (net/ipv4/netfilter/nf_reject_ipv4.c and its IPv6
//! twin), `icmp_err_convert`, `icmpv6_err_convert`.
//! *Decides:* the error that connect(2) reports, or silence.
//! *Reads:* the kind of reject, the way back, rules at output.
//! *Not modelled:* rate limits of ICMP.

use canreach_snapshot::{Family, Proto};

use crate::TheySee;
use crate::host::Host;
use crate::netfilter::hook::{NfStop, RejectAnswer};
use crate::packet::packet_set::PacketSet;
use crate::path::appearance::Message;
use crate::path::hook::Seen;
use crate::path::reply::{AnswerKey, seen_refusals};
use crate::path::sets::Sets;
use crate::path::stage::{Asked, silence};

/// What a program makes of the error, before anything can happen to it on its way.
pub(crate) const fn error_of(answer: RejectAnswer, proto: Proto) -> TheySee {
    let (seen, fatal) = match answer {
        RejectAnswer::TcpReset => {
            return match proto {
                Proto::Tcp => TheySee::Refused,
                // There is nothing to reset, and nothing is sent.
                Proto::Udp => TheySee::Silence,
            };
        }
        RejectAnswer::Icmp(code) => match code {
            1 => (TheySee::HostUnreachable, false),
            2 => (TheySee::ProtocolUnavailable, true),
            3 => (TheySee::Refused, true),
            9 => (TheySee::NetworkUnreachable, true),
            10 | 13 => (TheySee::HostUnreachable, true),
            _ => (TheySee::NetworkUnreachable, false),
        },
        RejectAnswer::Icmpv6(code) => match code {
            1 | 5 | 6 => (TheySee::PermissionDenied, true),
            2 | 3 => (TheySee::HostUnreachable, false),
            4 => (TheySee::Refused, true),
            _ => (TheySee::NetworkUnreachable, false),
        },
    };
    match proto {
        Proto::Tcp => seen,
        // Without IP_RECVERR, sockets hear of errors that are called fatal.
        Proto::Udp if fatal => seen,
        Proto::Udp => TheySee::Silence,
    }
}

/// What senders behind a link see.
pub(crate) fn seen_from_wire(
    host: &Host<'_>,
    sets: &mut Sets,
    asked: &Asked<'_>,
    stop: &NfStop,
) -> Seen {
    let silence = silence(asked.proto);
    let Some(answer) = stop.answer else { return vec![(PacketSet::ALL, Some(silence))] };
    let seen = error_of(answer, asked.proto);
    if seen == silence {
        return vec![(PacketSet::ALL, Some(silence))];
    }
    let (key, message) = match answer {
        RejectAnswer::TcpReset => (AnswerKey::refusal(asked), Message::Reset { rejected: true }),
        RejectAnswer::Icmp(code) | RejectAnswer::Icmpv6(code) => {
            let key = AnswerKey { source: Some(asked.to), ..AnswerKey::icmp_error(asked.family) };
            (key, Message::Unreachable { code })
        }
    };
    // The answer may have any source (FLOWI_FLAG_ANYSRC in `ip_route_me_harder`).
    let key = AnswerKey { transparent: true, ..key };
    seen_refusals(host, sets, asked, &key, (seen, message))
}

/// The number of ICMP of a family.
pub(crate) const fn icmp_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 58,
    }
}

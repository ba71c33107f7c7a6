//! Sockets that packets can arrive at: by sock_diag, or where that cannot be asked by /proc/net.

use std::collections::BTreeSet;
use std::io;

use canreach_snapshot::{Family, Gap, GapReason, GapSubject, Netns, Port, Proto, Socket};

use crate::SocketScope;
use crate::directory;
use crate::error::ReadError;
use crate::netlink::sock_diag;
use crate::netlink::socket::{NetlinkFamily, NetlinkSocket};
use crate::proc::socket_table;

/// The protocols and families to list, and the port.
fn wanted(scope: SocketScope) -> (&'static [Proto], Port) {
    match scope {
        SocketScope::All => (&[Proto::Tcp, Proto::Udp], Port(0)),
        SocketScope::Port(Proto::Tcp, port) => (&[Proto::Tcp], port),
        SocketScope::Port(Proto::Udp, port) => (&[Proto::Udp], port),
        SocketScope::None => (&[], Port(0)),
    }
}

/// Reads the sockets of the calling thread's namespace into `netns`.
pub(crate) fn read(netns: &mut Netns, scope: SocketScope, privileged: bool) {
    let (protos, port) = wanted(scope);
    if protos.is_empty() {
        netns.gaps.extend(Proto::BOTH.iter().flat_map(|&proto| {
            Family::BOTH.map(|family| Gap {
                subject: GapSubject::Sockets(proto, family),
                reason: GapReason::NotRead,
                detail: "sockets were not asked for".to_owned(),
            })
        }));
        return;
    }
    let mut sock_diag = NetlinkSocket::open(NetlinkFamily::SockDiag)
        .map_err(|error| ReadError::no_socket("open a sock_diag socket", &error));
    for &proto in protos {
        for family in Family::BOTH {
            let failed = match &mut sock_diag {
                Ok(sock_diag) => list(netns, sock_diag, (proto, family), port),
                Err(error) => Err(error.gap(GapSubject::SocketDetails(proto, family))),
            };
            if let Err(gap) = failed {
                read_table(netns, (proto, family), port, gap);
            }
        }
    }
    if let Ok(sock_diag) = &mut sock_diag
        && netns.sockets.iter().any(|socket| socket.proto == Proto::Tcp)
    {
        mark_mptcp(&mut netns.sockets, sock_diag, port);
    }
    if !privileged {
        netns.gaps.push(Gap {
            subject: GapSubject::SocketMarks,
            reason: GapReason::NeedsRoot,
            detail: "the kernel shows SO_MARK of sockets to CAP_NET_ADMIN only".to_owned(),
        });
    }
}

/// Lists the sockets of one protocol and family. An error where nothing could be listed at all.
fn list(
    netns: &mut Netns,
    sock_diag: &mut NetlinkSocket,
    (proto, family): (Proto, Family),
    port: Port,
) -> Result<(), Gap> {
    let request = sock_diag::list_request(proto, family, port);
    let (rows, error) = sock_diag.dump("dump sockets", sock_diag::BY_FAMILY, &request, |message| {
        let row = sock_diag::decode(proto, message)?;
        Ok(row.filter(|socket: &Socket| socket.family == family))
    });
    match error {
        Some(error) if rows.is_empty() => {
            return Err(error.gap(GapSubject::SocketDetails(proto, family)));
        }
        // Some are missing: an answer must not rest on there being no other.
        Some(error) => netns.gaps.push(error.gap(GapSubject::Sockets(proto, family))),
        None => {}
    }
    netns.sockets.extend(rows);
    Ok(())
}

/// Reads the text file instead. `gap` says what the file does not have.
fn read_table(netns: &mut Netns, (proto, family): (Proto, Family), port: Port, gap: Gap) {
    match socket_table::read(proto, family, port) {
        Ok(sockets) => {
            netns.sockets.extend(sockets);
            netns.gaps.push(gap);
        }
        // A kernel without IPv6 has no such file, and no such sockets.
        Err(error) if family == Family::Ipv6 && error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => netns.gaps.push(Gap {
            subject: GapSubject::Sockets(proto, family),
            detail: format!("{}; and /proc/net: {error}", gap.detail),
            reason: gap.reason,
        }),
    }
}

/// Marks the listeners of Multipath TCP. Their rows say so themselves only beside a long list of
/// counters and to CAP_NET_ADMIN, so a second list names them, where the namespace has any at all.
/// Nothing hangs on it but the word: an error is no gap.
fn mark_mptcp(sockets: &mut [Socket], sock_diag: &mut NetlinkSocket, port: Port) {
    let protocols = directory::read_text("/proc/thread-self/net/protocols");
    if !protocols.is_ok_and(|protocols| has_mptcp_sockets(&protocols)) {
        return;
    }
    for family in Family::BOTH {
        let request = sock_diag::list_mptcp_request(family, port);
        let (listeners, _) = sock_diag.dump(
            "dump sockets of Multipath TCP",
            sock_diag::BY_FAMILY,
            &request,
            |message| sock_diag::decode(Proto::Tcp, message),
        );
        let inodes: BTreeSet<u64> = listeners.iter().map(|listener| listener.inode).collect();
        for socket in sockets.iter_mut() {
            socket.mptcp |= socket.proto == Proto::Tcp && inodes.contains(&socket.inode);
        }
    }
}

/// Reads /proc/net/protocols: name, size of a socket, number of sockets.
fn has_mptcp_sockets(protocols: &str) -> bool {
    protocols.lines().filter(|line| line.starts_with("MPTCP")).any(|line| {
        let count = line.split_ascii_whitespace().nth(2);
        count.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count > 0)
    })
}

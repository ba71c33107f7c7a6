//! Tables of iptables-legacy and ip6tables-legacy: their rules, and whether each lets every packet
//! pass.
//!
//! A table that is registered holds its built-in chains, which filter nothing by themselves. The
//! kernel gives out the whole table as one block (`IPT_SO_GET_ENTRIES`); where each chain starts
//! and where its policy stands comes before it (`IPT_SO_GET_INFO`). A chain that starts at its
//! policy has no rules. The structures are those of include/uapi/linux/netfilter/x_tables.h,
//! netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h.
//!
//! Asking for a table that is not registered would register it: only those are asked for that /proc
//! lists.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use canreach_snapshot::{Family, Firewall, Gap, GapSubject, LegacyTable, NfFamily, xt};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::os_reason;
use crate::netlink::xt::{TableLayout, decode_table};
use crate::sys;

/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_get_entries` up to the entries: name, size, and padding to eight.
const ENTRIES_HEADER: usize = 40;
/// `IPT_SO_GET_INFO`, `IP6T_SO_GET_INFO`.
const GET_INFO: i32 = 64;
/// `IPT_SO_GET_ENTRIES`, `IP6T_SO_GET_ENTRIES`.
const GET_ENTRIES: i32 = 65;
/// `-NF_ACCEPT - 1`: the verdict of a policy that lets pass.
const ACCEPT: i32 = -2;
/// `struct xt_entry_target`, before the verdict.
const TARGET_HEADER: usize = 32;
/// `XT_MAX_TABLE_SIZE` (net/netfilter/x_tables.c): the kernel takes no larger ones.
const LARGEST: usize = 512 << 20;
/// A table that is replaced during each of this many reads is given up.
const ATTEMPTS: u32 = 4;

/// Reads the tables of one family.
pub(crate) fn read(family: Family, firewall: &mut Firewall, gaps: &mut Vec<Gap>) {
    let (file, nf_family) = match family {
        Family::Ipv4 => ("/proc/thread-self/net/ip_tables_names", NfFamily::Ip),
        Family::Ipv6 => ("/proc/thread-self/net/ip6_tables_names", NfFamily::Ip6),
    };
    let names = match std::fs::read_to_string(file) {
        Ok(names) => names,
        // The file comes with the module: without, there is no table.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            gaps.push(Gap {
                subject: GapSubject::LegacyTables(family),
                reason: os_reason(&error),
                detail: format!("read {file}: {error}"),
            });
            return;
        }
    };
    for name in names.lines() {
        let reading = open(family).and_then(|socket| read_table(family, socket.as_fd(), name)).ok();
        let (idle, table) = reading.unwrap_or_default();
        let name = name.to_owned();
        firewall.legacy_tables.push(LegacyTable { family: nf_family, name, idle });
        firewall.xt_tables.extend(table);
    }
}

/// Any socket of the family leads to its tables.
fn open(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::Ipv4 => AddressFamily::INET,
        Family::Ipv6 => AddressFamily::INET6,
    };
    Ok(rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

/// A table, each of whose parts is `None` where the kernel's answer makes no sense.
fn read_table(
    family: Family,
    socket: BorrowedFd<'_>,
    name: &str,
) -> io::Result<(Option<bool>, Option<xt::Table>)> {
    for _ in 0..ATTEMPTS {
        let layout = read_layout(family, socket, name)?;
        match read_entries(family, socket, name, &layout) {
            // It has another size now.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
            // Another table of the same size may have taken its place between the two questions.
            Ok(entries) if read_layout(family, socket, name)? == layout => {
                let entries = entries.get(ENTRIES_HEADER..).unwrap_or_default();
                let idle = all_accept(family, &layout, entries);
                return Ok((idle, decode_table(family, name, &layout, entries)));
            }
            Ok(_) => {}
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

const fn level(family: Family) -> i32 {
    match family {
        Family::Ipv4 => libc::SOL_IP,
        Family::Ipv6 => libc::SOL_IPV6,
    }
}

/// A buffer that starts with the name of a table.
fn named(name: &str, length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    // The name's last byte stays zero.
    buffer.iter_mut().zip(name.bytes().take(NAME - 1)).for_each(|(to, from)| *to = from);
    buffer
}

fn read_layout(family: Family, socket: BorrowedFd<'_>, name: &str) -> io::Result<TableLayout> {
    let mut bytes = named(name, TableLayout::LENGTH);
    sys::read_socket_option(socket, level(family), GET_INFO, &mut bytes)?;
    TableLayout::read(&bytes)
        .filter(|layout| layout.size() <= LARGEST)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn read_entries(
    family: Family,
    socket: BorrowedFd<'_>,
    name: &str,
    layout: &TableLayout,
) -> io::Result<Vec<u8>> {
    let mut bytes = named(name, ENTRIES_HEADER + layout.size());
    if let Some(size) = bytes.get_mut(NAME..NAME + 4) {
        size.copy_from_slice(&(layout.size() as u32).to_ne_bytes());
    }
    sys::read_socket_option(socket, level(family), GET_ENTRIES, &mut bytes)?;
    Ok(bytes)
}

/// Whether each chain is its policy alone, and that is ACCEPT. `None` for bytes that are no table.
fn all_accept(family: Family, layout: &TableLayout, entries: &[u8]) -> Option<bool> {
    // `target_offset` follows the address part and a word of flags.
    let target_offset_at = match family {
        Family::Ipv4 => 88,
        Family::Ipv6 => 140,
    };
    for (start, policy) in layout.chains() {
        if start != policy {
            return Some(false);
        }
        let entry = entries.get(policy..)?;
        let offset = entry.get(target_offset_at..)?.first_chunk().copied()?;
        let verdict = entry.get(usize::from(u16::from_ne_bytes(offset)) + TARGET_HEADER..)?;
        if i32::from_ne_bytes(*verdict.first_chunk()?) != ACCEPT {
            return Some(false);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with one chain, whose policy is its only entry.
    fn entry(family: Family, verdict: i32) -> Vec<u8> {
        let (at, offset) = match family {
            Family::Ipv4 => (88, 112_u16),
            Family::Ipv6 => (140, 168),
        };
        let mut bytes = vec![0; usize::from(offset) + TARGET_HEADER + 8];
        bytes[at..at + 2].copy_from_slice(&offset.to_ne_bytes());
        let at = usize::from(offset) + TARGET_HEADER;
        bytes[at..at + 4].copy_from_slice(&verdict.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_chain_is_idle_when_it_is_an_accepting_policy_alone() {
        for family in Family::BOTH {
            let check = |chains: &[(u32, u32)], verdict, expected| {
                let mut words = vec![(1 << chains.len()) - 1];
                let mut hooks = [[0; 5]; 2];
                for (hook, &(start, policy)) in chains.iter().enumerate() {
                    hooks[0][hook] = start;
                    hooks[1][hook] = policy;
                }
                words.extend(hooks.concat());
                words.extend([1, 0]);
                let mut bytes = vec![0; NAME];
                bytes.extend(words.iter().flat_map(|word: &u32| word.to_ne_bytes()));
                let layout = TableLayout::read(&bytes).unwrap();
                let judged = all_accept(family, &layout, &entry(family, verdict));
                assert_eq!(judged, expected, "{family:?} {chains:?} {verdict}");
            };
            check(&[(0, 0)], ACCEPT, Some(true));
            check(&[(0, 0)], -1, Some(false));
            check(&[(0, 152)], ACCEPT, Some(false));
            check(&[], ACCEPT, Some(true));
            check(&[(u32::MAX, u32::MAX)], ACCEPT, None);
            check(&[(170, 170)], ACCEPT, None);
        }
    }
}

//! Tables of iptables-legacy and ip6tables-legacy, and whether each lets every packet pass.
//!
//! A table that is registered holds its built-in chains, which filter nothing by themselves. The
//! kernel gives out the whole table as one block (`IPT_SO_GET_ENTRIES`); where each chain starts
//! and where its policy stands comes before it (`IPT_SO_GET_INFO`). A chain that starts at its
//! policy has no rules. The structures are those of include/uapi/linux/netfilter/x_tables.h,
//! netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use canreach_snapshot::{Family, Gap, GapSubject, LegacyTable, NfFamily};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::os_reason;
use crate::sys;

/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_getinfo`: name, valid hooks, five starts, five policies, number of entries, size.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
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
/// Tables are a few hundred kilobytes at the very most; sizes beyond this are no table's.
const LARGEST: usize = 64 << 20;

/// Reads the tables of one family.
pub(crate) fn read(family: Family, gaps: &mut Vec<Gap>) -> Vec<LegacyTable> {
    let (file, nf_family) = match family {
        Family::Ipv4 => ("/proc/thread-self/net/ip_tables_names", NfFamily::Ip),
        Family::Ipv6 => ("/proc/thread-self/net/ip6_tables_names", NfFamily::Ip6),
    };
    let names = match std::fs::read_to_string(file) {
        Ok(names) => names,
        // The file comes with the module: without, there is no table.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            gaps.push(Gap {
                subject: GapSubject::LegacyTables(family),
                reason: os_reason(&error),
                detail: format!("read {file}: {error}"),
            });
            return Vec::new();
        }
    };
    let table = |name: &str| LegacyTable {
        family: nf_family,
        name: name.to_owned(),
        idle: open(family).and_then(|socket| is_idle(family, socket.as_fd(), name)).ok(),
    };
    names.lines().map(table).collect()
}

/// Any socket of the family leads to its tables.
fn open(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::Ipv4 => AddressFamily::INET,
        Family::Ipv6 => AddressFamily::INET6,
    };
    Ok(rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?)
}

fn is_idle(family: Family, socket: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let level = match family {
        Family::Ipv4 => libc::SOL_IP,
        Family::Ipv6 => libc::SOL_IPV6,
    };
    let named = |length: usize| {
        let mut buffer = vec![0; length];
        // The name's last byte stays zero.
        buffer.iter_mut().zip(name.bytes().take(NAME - 1)).for_each(|(to, from)| *to = from);
        buffer
    };
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut info = named(INFO);
    sys::read_socket_option(socket, level, GET_INFO, &mut info)?;
    let info = TableLayout::read(&info).ok_or_else(malformed)?;
    if info.size > LARGEST {
        return Err(malformed());
    }
    let mut entries = named(ENTRIES_HEADER + info.size);
    if let Some(size) = entries.get_mut(NAME..NAME + 4) {
        size.copy_from_slice(&(info.size as u32).to_ne_bytes());
    }
    sys::read_socket_option(socket, level, GET_ENTRIES, &mut entries)?;
    let entries = entries.get(ENTRIES_HEADER..).unwrap_or_default();
    all_accept(family, &info, entries).ok_or_else(malformed)
}

/// What `IPT_SO_GET_INFO` says.
#[derive(Debug)]
struct TableLayout {
    /// Where each chain starts and where its policy is.
    chains: Vec<(usize, usize)>,
    size: usize,
}

impl TableLayout {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (words, _) = bytes.get(NAME..)?.as_chunks::<4>();
        let word = |at: usize| words.get(at).map(|word| u32::from_ne_bytes(*word) as usize);
        let valid = word(0)?;
        let hooks = (0..5).filter(|hook| valid & 1 << hook != 0);
        let chains = hooks.map(|hook| Some((word(1 + hook)?, word(6 + hook)?))).collect();
        Some(Self { chains: Option::from_iter::<Vec<_>>(chains)?, size: word(12)? })
    }
}

/// Whether each chain is its policy alone, and that is ACCEPT. `None` for bytes that are no table.
fn all_accept(family: Family, info: &TableLayout, entries: &[u8]) -> Option<bool> {
    // `target_offset` follows the address part and a word of flags.
    let target_offset_at = match family {
        Family::Ipv4 => 88,
        Family::Ipv6 => 140,
    };
    for &(start, policy) in &info.chains {
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
            let check = |chains: &[(usize, usize)], verdict, expected| {
                let info = TableLayout { chains: chains.to_vec(), size: 0 };
                let judged = all_accept(family, &info, &entry(family, verdict));
                assert_eq!(judged, expected, "{family:?} {chains:?} {verdict}");
            };
            check(&[(0, 0)], ACCEPT, Some(true));
            check(&[(0, 0)], -1, Some(false));
            check(&[(0, 152)], ACCEPT, Some(false));
            check(&[], ACCEPT, Some(true));
            check(&[(usize::MAX, usize::MAX)], ACCEPT, None);
            check(&[(170, 170)], ACCEPT, None);
        }
    }

    #[test]
    fn information_names_the_chains_of_valid_hooks() {
        let mut words = vec![0b01010_u32, 1, 2, 3, 4, 5, 11, 12, 13, 14, 15, 6, 1000];
        let bytes = |words: &[u32]| {
            let mut bytes = vec![0; NAME];
            bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
            bytes
        };
        let info = TableLayout::read(&bytes(&words)).unwrap();
        assert_eq!((info.chains, info.size), (vec![(2, 12), (4, 14)], 1000));
        words.pop();
        assert!(TableLayout::read(&bytes(&words)).is_none());
    }
}

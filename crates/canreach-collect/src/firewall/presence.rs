//! Which packet filters are loaded, and what stands in for that where it cannot be read.

use canreach_snapshot::nft::Ruleset;
use canreach_snapshot::{Family, Firewall, Gap, GapReason, GapSubject, HookEntry, Link};

use super::{ipset, legacy};
use crate::error::ReadError;
use crate::kernel_module::{KernelModules, Presence};
use crate::netlink::socket::{NetlinkFamily, NetlinkSocket};
use crate::netlink::{hook_list, nft};

/// What sends packets elsewhere: nftables writes addresses by itself (`ip daddr set`), all of NAT is
/// in the second, transparent proxies in the next two; the others hand packets to programs, balance
/// load, translate prefixes, or set the marks that policy rules select by.
const REWRITERS: [&str; 9] = [
    "nf_tables",
    "nf_nat",
    "nf_tproxy_ipv4",
    "nf_tproxy_ipv6",
    "nfnetlink_queue",
    "ip_vs",
    "ip6t_NPT",
    "xt_mark",
    "xt_connmark",
];

/// Reads the packet filters of the calling thread's namespace.
pub(crate) fn read(gaps: &mut Vec<Gap>) -> Firewall {
    let mut firewall = Firewall::default();
    let modules = KernelModules::default();
    let known = gaps.len();
    read_nft(&mut firewall, &modules, gaps);
    for family in Family::BOTH {
        legacy::read(family, &mut firewall, gaps);
    }
    ipset::read(&mut firewall, &modules, gaps);
    if gaps.len() > known {
        let absent = |module: &str| modules.presence(module) == Presence::Absent;
        firewall.cannot_redirect = REWRITERS.iter().all(|module| absent(module));
    }
    firewall
}

/// Reads what is registered at the hooks. `None` where the kernel does not say: asking must not load
/// the module, so it has to be there.
pub(crate) fn read_hooks(links: &[Link]) -> Option<Vec<HookEntry>> {
    if KernelModules::default().presence("nfnetlink_hook") != Presence::Present {
        return None;
    }
    let mut nfnetlink = NetlinkSocket::open(NetlinkFamily::Netfilter).ok()?;
    hook_list::read(&mut nfnetlink, links.iter().map(|link| link.name.as_str())).ok()
}

fn read_nft(firewall: &mut Firewall, modules: &KernelModules, gaps: &mut Vec<Gap>) {
    // Asking would load the module. What is not loaded has no rules.
    if modules.presence("nf_tables") == Presence::Absent {
        firewall.nft = Some(Ruleset::default());
        return;
    }
    let ruleset = NetlinkSocket::open(NetlinkFamily::Netfilter)
        .map_err(|error| ReadError::no_socket("open a netfilter socket", &error))
        .and_then(|mut nfnetlink| nft::read(&mut nfnetlink));
    match ruleset {
        Ok(ruleset) => {
            let ruleset = ruleset.unwrap_or_default();
            firewall.nft_generation = ruleset.generation;
            firewall.chains = nft::hooked_chains(&ruleset);
            firewall.nft = Some(ruleset);
        }
        // A kernel without netfilter's sockets has no nftables either.
        Err(error) if error.reason() == GapReason::Unsupported => {
            firewall.nft = Some(Ruleset::default());
        }
        Err(error) => gaps.push(error.gap(GapSubject::NftRuleset)),
    }
}

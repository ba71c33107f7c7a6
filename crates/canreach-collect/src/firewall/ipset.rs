//! Sets of ipset, and their names for the rules that know them by number.

use std::collections::BTreeMap;

use canreach_snapshot::nft::Expr;
use canreach_snapshot::xt::{MatchKind, SetReference, TargetKind};
use canreach_snapshot::{Firewall, Gap, GapSubject};

use crate::error::ReadError;
use crate::kernel_module::{KernelModules, Presence};
use crate::netlink::ipset;
use crate::netlink::socket::{NetlinkFamily, NetlinkSocket};

/// Reads the sets. After the rules: a set that a rule refers to cannot go, so it is among them.
pub(super) fn read(firewall: &mut Firewall, modules: &KernelModules, gaps: &mut Vec<Gap>) {
    // Asking would load the module. What is not loaded has no sets.
    if modules.presence("ip_set") == Presence::Absent {
        firewall.ipsets = Some(Vec::new());
        return;
    }
    let sets = NetlinkSocket::open(NetlinkFamily::Netfilter)
        .map_err(|error| ReadError::no_socket("open a netfilter socket", &error))
        .and_then(|mut nfnetlink| ipset::read(&mut nfnetlink));
    match sets {
        Ok(sets) => firewall.ipsets = Some(sets.unwrap_or_default()),
        // A kernel without netfilter's sockets has no sets either.
        Err(ReadError::Os { source, .. })
            if source.raw_os_error() == Some(libc::EPROTONOSUPPORT) =>
        {
            firewall.ipsets = Some(Vec::new());
        }
        Err(error) => gaps.push(error.gap(GapSubject::Ipsets)),
    }
    name_references(firewall);
}

fn name_references(firewall: &mut Firewall) {
    let Some(sets) = &firewall.ipsets else { return };
    let names: BTreeMap<u16, &str> =
        sets.iter().map(|set| (set.index, set.name.as_str())).collect();
    let name = |reference: &mut SetReference| {
        reference.name = names.get(&reference.index).map(|name| (*name).to_owned());
    };
    let of_match = |kind: &mut MatchKind| {
        if let MatchKind::Set(reference) = kind {
            name(reference);
        }
    };
    let of_target = |kind: &mut TargetKind| {
        if let TargetKind::Set { add, delete, map, .. } = kind {
            [add, delete, map].into_iter().flatten().for_each(name);
        }
    };
    let chains = firewall.xt_tables.iter_mut().flat_map(|table| &mut table.chains);
    for rule in chains.flat_map(|chain| &mut chain.rules) {
        rule.matches.iter_mut().for_each(|row| of_match(&mut row.kind));
        of_target(&mut rule.target.kind);
    }
    let tables = firewall.nft.iter_mut().flat_map(|ruleset| &mut ruleset.tables);
    let chains = tables.flat_map(|table| &mut table.chains);
    for expr in chains.flat_map(|chain| &mut chain.rules).flat_map(|rule| &mut rule.exprs) {
        if let Expr::Match(row) = expr {
            of_match(&mut row.kind);
        } else if let Expr::Target(row) = expr {
            of_target(&mut row.kind);
        }
    }
}

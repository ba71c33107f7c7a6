//! Which server of one state is which of the other.

use std::collections::BTreeMap;

use canreach_snapshot::{Port, Proto};

use super::Two;
use crate::access::{ProgramName, Server};

/// Pairs servers by protocol, port and program; where a name is missing or an inference, by protocol
/// and port alone. What is left is in one state only. In the order of ports.
pub(super) fn pair(befores: Vec<Server>, afters: Vec<Server>) -> Vec<Two<Option<Server>>> {
    let mut ports: BTreeMap<(Port, Proto), Two<Vec<Server>>> = BTreeMap::new();
    let none = || Two { before: Vec::new(), after: Vec::new() };
    for server in befores {
        ports.entry((server.port, server.proto)).or_insert_with(none).before.push(server);
    }
    for server in afters {
        ports.entry((server.port, server.proto)).or_insert_with(none).after.push(server);
    }
    ports.into_values().flat_map(pair_port).collect()
}

fn pair_port(servers: Two<Vec<Server>>) -> Vec<Two<Option<Server>>> {
    let Two { before: mut befores, after: mut afters } = servers;
    let mut pairs = Vec::new();
    for same in [is_same_program as fn(&Server, &Server) -> bool, may_be_same_program] {
        let mut rest = Vec::new();
        for before in befores {
            match afters.iter().position(|after| same(&before, after)) {
                Some(at) => {
                    pairs.push(Two { before: Some(before), after: Some(afters.remove(at)) });
                }
                None => rest.push(before),
            }
        }
        befores = rest;
    }
    pairs.extend(befores.into_iter().map(|gone| Two { before: Some(gone), after: None }));
    pairs.extend(afters.into_iter().map(|new| Two { before: None, after: Some(new) }));
    pairs
}

fn is_same_program(one: &Server, other: &Server) -> bool {
    let name = |server: &Server| server.program.as_ref().map(|program| program.name.clone());
    name(one).is_some() && name(one) == name(other)
}

fn may_be_same_program(one: &Server, other: &Server) -> bool {
    let certain = |program: &Option<ProgramName>| program.as_ref().is_some_and(|p| p.certain);
    !(certain(&one.program) && certain(&other.program))
}

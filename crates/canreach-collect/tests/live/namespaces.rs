//! Finding namespaces, and asking for one by each of its names.

use std::error::Error;
use std::io::ErrorKind;

use canreach_collect::{CollectError, NetnsChoice, Scope, SocketScope, collect};
use canreach_snapshot::Pid;

use crate::namespace::{Namespace, everything};

#[test]
fn every_namespace_of_a_process_is_found_and_named() {
    let (Some(one), Some(two)) = (Namespace::new(), Namespace::new()) else { return };
    let scope = Scope { all_namespaces: true, sockets: SocketScope::None, ..everything() };
    let snapshot = collect(&scope).expect("it can be read");
    assert!(snapshot.namespaces[0].own);
    for namespace in [&one, &two] {
        let id = namespace.read().id;
        let mut all = snapshot.namespaces.iter();
        let found = all.find(|netns| netns.id == id).expect("its holder runs");
        let process = format!(" ({})", namespace.pid().0);
        assert!(found.name.as_ref().is_some_and(|name| name.ends_with(&process)), "{found:?}");
        assert!(!found.own);
        assert_eq!(found.links.len(), 1);
    }
    let mut ids: Vec<_> = snapshot.namespaces.iter().map(|netns| netns.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), snapshot.namespaces.len(), "each is read once");
}

#[test]
fn a_namespace_is_read_by_process_and_by_path_alike() {
    let Some(namespace) = Namespace::new() else { return };
    let path = format!("/proc/{}/ns/net", namespace.pid().0).into();
    let by = |netns| {
        let read = collect(&Scope { netns, ..everything() }).expect("it can be read");
        (read.namespaces[0].id, read.namespaces[0].name.clone())
    };
    let (by_path, name) = by(NetnsChoice::Path(path));
    assert!(name.is_some_and(|name| name.ends_with("/ns/net")));
    let (by_process, name) = by(NetnsChoice::Process(namespace.pid()));
    assert_eq!(name, Some(format!("process {}", namespace.pid().0)));
    assert_eq!(by_path, by_process);
}

#[test]
fn what_is_no_namespace_is_refused_with_its_name() {
    let Some(namespace) = Namespace::new() else { return };
    let gone = namespace.pid();
    drop(namespace);
    for (netns, kind, wanted) in [
        (NetnsChoice::Process(gone), ErrorKind::NotFound, format!("process {}", gone.0)),
        (NetnsChoice::Process(Pid(0)), ErrorKind::NotFound, "process 0".to_owned()),
        (NetnsChoice::Name("nobody".to_owned()), ErrorKind::NotFound, "nobody".to_owned()),
        (NetnsChoice::Path("/dev/null".into()), ErrorKind::InvalidInput, "/dev/null".to_owned()),
    ] {
        match collect(&Scope { netns, ..everything() }) {
            Err(error) => {
                assert!(error.is_usage() && error.to_string().contains(&wanted), "{error}");
                assert!(error.source().is_none(), "the message says it all: {error}");
                let CollectError::Netns { name, cause } = error else { panic!("{error}") };
                assert_eq!((name, cause.kind()), (wanted, kind));
            }
            other => panic!("{other:?}"),
        }
    }
}

//! The state that is asked: of this machine, or of a file.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use canreach_collect::{NetnsChoice, Scope, SocketScope, collect};
use canreach_snapshot::{Netns, Pid, Port, Snapshot};

use crate::cli::Global;
use crate::exit::UsageError;

/// Reads the machine as far as the question needs it, or a file.
pub(crate) fn read(global: &Global, wanted: &Wanted) -> anyhow::Result<Snapshot> {
    match &global.snapshot {
        Some(path) => from_file(path),
        None => Ok(collect(&Scope {
            netns: global.netns.as_deref().map_or(NetnsChoice::Own, netns_choice),
            all_namespaces: wanted.all_namespaces,
            sockets: wanted.sockets,
            owners: wanted.owners,
            filters: wanted.filters,
        })?),
    }
}

/// What a question needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) sockets: SocketScope,
    pub(crate) owners: bool,
    pub(crate) filters: bool,
    pub(crate) all_namespaces: bool,
}

impl Wanted {
    /// Everything about one namespace.
    pub(crate) const ALL: Self =
        Self { sockets: SocketScope::All, owners: true, filters: true, all_namespaces: false };

    /// Links, addresses and routes.
    pub(crate) const ADDRESSES: Self =
        Self { sockets: SocketScope::None, owners: false, filters: false, all_namespaces: false };
}

/// The namespace that the question is about.
pub(crate) fn subject<'a>(snapshot: &'a Snapshot, global: &Global) -> anyhow::Result<&'a Netns> {
    let first = || {
        snapshot.subject().ok_or_else(|| UsageError("the snapshot holds no namespace".to_owned()))
    };
    let (Some(wanted), Some(_)) = (&global.netns, &global.snapshot) else { return Ok(first()?) };
    let found = snapshot
        .namespaces
        .iter()
        .find(|netns| netns.name.as_deref() == Some(wanted) || netns.id.0.to_string() == *wanted);
    let names = || -> Vec<String> {
        let name = |netns: &Netns| netns.name.clone().unwrap_or_else(|| netns.id.0.to_string());
        snapshot.namespaces.iter().map(name).collect()
    };
    Ok(found.ok_or_else(|| {
        UsageError(format!(
            "the file holds no namespace {wanted}; it holds: {}",
            names().join(", ")
        ))
    })?)
}

/// A namespace as typed: a number is a process, something with a slash is a path.
fn netns_choice(text: &str) -> NetnsChoice {
    if text.contains('/') {
        NetnsChoice::Path(text.into())
    } else {
        match text.parse() {
            Ok(pid) => NetnsChoice::Process(Pid(pid)),
            Err(_) => NetnsChoice::Name(text.to_owned()),
        }
    }
}

fn from_file(path: &Path) -> anyhow::Result<Snapshot> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(path)
    };
    let bytes = bytes.with_context(|| format!("read snapshot {}", path.display()))?;
    Snapshot::from_bytes(&bytes)
        .map_err(|error| UsageError(format!("{} cannot be asked: {error}", path.display())).into())
}

/// Connections of this machine whose near end has a port, and who holds them.
pub(crate) fn connections(global: &Global, port: Port) -> Option<Snapshot> {
    let choice = global.netns.as_deref().map_or(NetnsChoice::Own, netns_choice);
    // It only adds to an answer, so that it may be missing.
    canreach_collect::connections(&choice, port).ok()
}

/// The user that canreach runs as: policy rules can select by it.
pub(crate) fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    // Without /proc nothing else is known either; root is what most rules are about.
    std::fs::metadata("/proc/self").map_or(0, |metadata| metadata.uid())
}

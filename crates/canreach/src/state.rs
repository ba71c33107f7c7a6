//! The state that is asked: of this machine, or of a file.

use std::io::{ErrorKind, Read};
use std::path::Path;

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
            beyond: wanted.filters,
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
    subject_of(snapshot, global.netns.as_deref().filter(|_| global.snapshot.is_some()))
}

/// The namespace of a file that has a name or number, or the one it was made for.
pub(crate) fn subject_of<'a>(
    snapshot: &'a Snapshot,
    wanted: Option<&str>,
) -> anyhow::Result<&'a Netns> {
    let first = || {
        snapshot.subject().ok_or_else(|| UsageError("the snapshot holds no namespace".to_owned()))
    };
    let Some(wanted) = wanted else { return Ok(first()?) };
    let found = snapshot
        .namespaces
        .iter()
        .find(|netns| netns.name.as_deref() == Some(wanted) || netns.id.0.to_string() == wanted);
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

/// Reads a file that `snapshot` saved.
pub(crate) fn from_file(path: &Path) -> anyhow::Result<Snapshot> {
    let bytes = file_bytes("snapshot", path, u64::MAX)?;
    Snapshot::from_bytes(&bytes)
        .map_err(|error| UsageError(format!("{} cannot be asked: {error}", path.display())).into())
}

/// The bytes of a file that was named on the command line, or of standard input. That it is not there
/// is a mistake of who typed it.
pub(crate) fn file_bytes(what: &str, path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let failed = format!("read {what} {}: {error}", path.display());
            let mistyped = matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory
            );
            Err(if mistyped { UsageError(failed).into() } else { anyhow::anyhow!(failed) })
        }
    }
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

//! Everything that is written: the answer on stdout, notes and errors on stderr.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anstream::{AutoStream, ColorChoice};
use anyhow::Context;
use canreach_report::text::Look;
use canreach_report::text::line::{WIDTH_MAX, printable, wrap};

/// Writes the answer. A reader that has seen enough is no error.
pub(crate) fn answer(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("write to standard output")
        }
        _ => Ok(()),
    }
}

/// Writes a note: what the answer could not take into account.
pub(crate) fn note(text: &str) {
    stderr("note: ", text);
}

/// Writes an error and what caused it.
pub(crate) fn error(error: &anyhow::Error) {
    stderr("error: ", &format!("{error:#}"));
}

/// Writes what to report when canreach itself is wrong.
pub(crate) fn internal_error(text: &str) {
    stderr("error: ", &format!("this is a mistake in canreach, please report it: {text}"));
}

fn stderr(label: &str, text: &str) {
    let indent = " ".repeat(label.len());
    let mut out = String::new();
    // Names in messages hold whatever others wrote.
    let lines = text.trim_end().lines().map(printable);
    let lines = lines.flat_map(|line| wrap(&line, WIDTH_MAX - label.len()));
    for (index, line) in lines.enumerate() {
        out.push_str(if index == 0 { label } else { &indent });
        out.push_str(&line);
        out.push('\n');
    }
    // Where even stderr is gone there is nobody to tell.
    let _ = io::stderr().lock().write_all(out.as_bytes());
}

/// Whether a person reads the answer.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// The width and colour of standard output.
pub(crate) fn look() -> Look {
    let size = terminal_size::terminal_size_of(io::stdout());
    let color = match AutoStream::choice(&io::stdout()) {
        ColorChoice::Never => false,
        ColorChoice::Auto | ColorChoice::Always | ColorChoice::AlwaysAnsi => true,
    };
    Look { width: size.map_or(WIDTH_MAX, |(width, _)| usize::from(width.0)), color }
}

/// Writes a file that only its owner may read: it holds what programs run here.
pub(crate) fn private_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let open = File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("write {}", path.display()))
}

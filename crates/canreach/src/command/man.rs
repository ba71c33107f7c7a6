//! `man`: the manual page.

use crate::cli::description;
use crate::exit::Exit;
use crate::output;

pub(super) fn run() -> anyhow::Result<Exit> {
    let mut page = Vec::new();
    clap_mangen::Man::new(description()).render(&mut page)?;
    output::answer(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Yes)
}

//! `why`: can they connect, and why not.

use canreach_collect::SocketScope;
use canreach_engine::address_choice::choose;
use canreach_engine::ask::{Ask, AskError};
use canreach_engine::{Answer, DropReason, Host, answer};
use canreach_report::report::why::connection;
use canreach_report::{WhyReport, json, text};
use canreach_snapshot::{Netns, Proto, Snapshot};

use crate::cli::{Global, WhyArguments};
use crate::exit::Exit;
use crate::output;
use crate::state::{self, Wanted};

pub(super) fn run(global: &Global, arguments: &WhyArguments, typed: &str) -> anyhow::Result<Exit> {
    let (proto, port) = arguments.port;
    let ask = Ask {
        proto,
        port,
        from: arguments.from.clone(),
        to: arguments.to.clone(),
        via: arguments.via.clone(),
        uid: state::uid(),
    };
    let wanted = Wanted { sockets: SocketScope::Port(proto, port), ..Wanted::ALL };
    let mut snapshot = state::read(global, &wanted)?;
    let mut report = report(&snapshot, state::subject(&snapshot, global)?, &ask, typed)?;
    let nothing_there = report.listener.is_none()
        && report.stop_reason() == Some(DropReason::NotListening)
        && global.snapshot.is_none();
    if nothing_there {
        // Only now are the other servers worth reading: perhaps another one was meant.
        snapshot = state::read(global, &Wanted::ALL)?;
        report = self::report(&snapshot, state::subject(&snapshot, global)?, &ask, typed)?;
        if proto == Proto::Tcp && report.connection.is_none() {
            let found = state::connections(global, port);
            report.connection = found.and_then(|found| connection(&found, found.subject()?, &ask));
        }
    }
    let text = if global.json {
        json::print(&json::why::Why::new(&report))
    } else {
        text::why::why(&report, typed, output::look())
    };
    output::answer(&text)?;
    Ok(Exit::of_verdict(report.verdict))
}

fn report(
    snapshot: &Snapshot,
    netns: &Netns,
    ask: &Ask,
    typed: &str,
) -> Result<WhyReport, AskError> {
    let choice = choose(netns, &snapshot.machine);
    let questions = match ask.questions(netns, &choice) {
        // Nobody can dial a machine without an address: an answer, not a mistake.
        Err(AskError::NoLanAddress) => Vec::new(),
        questions => questions?,
    };
    let host = Host::resolve_among(snapshot, netns);
    let answers: Vec<Answer> = questions.iter().map(|question| answer(&host, question)).collect();
    Ok(WhyReport::new(snapshot, netns, ask, &answers, typed))
}

//! What a fix does, in words. Each is the first half of a sentence that a command ends.

use canreach_engine::Question;
use canreach_engine::explain::fix::{Fix, FixId, FixNote, FixStep, NoteKind, Place};
use canreach_engine::explain::launcher::Launcher;
use canreach_snapshot::Family;

/// What it does. `program` is who listens, where the fix is about somebody.
#[must_use]
pub fn fix(fix: &Fix, question: &Question, program: Option<&str>) -> String {
    let sure = fix.server.as_ref().is_none_or(|server| !server.probably);
    let text = certain_fix(fix, question, program);
    if sure { text } else { format!("probably: {text}") }
}

fn certain_fix(fix: &Fix, question: &Question, program: Option<&str>) -> String {
    let server = server(fix);
    let to = question.to;
    let program = program.unwrap_or("the program");
    match fix.id {
        FixId::HostFlag | FixId::HostVariable => host(fix, &server),
        FixId::HostSetting => match file(fix) {
            Some(file) => format!("start it again with this in {file}{server}"),
            None => format!("let it listen on all addresses{server}"),
        },
        FixId::HostCode => format!("in its code, listen on all addresses{}", name(fix)),
        FixId::HostArgument => "probably: start it with the address for everybody".to_owned(),
        FixId::ListenOnAll => listen_on_all(question.family()),
        FixId::UnitDropIn => {
            format!("change its systemd service{server}; the indented lines go into the editor")
        }
        FixId::SocketUnit if fix.steps.len() > 1 => {
            "systemd holds its socket: change the unit; the indented lines go into the editor"
                .to_owned()
        }
        FixId::SocketUnit => "systemd holds its socket: find the unit, and edit it".to_owned(),
        FixId::PublishPort => {
            "publish the port for everybody, in docker run or in compose.yml".to_owned()
        }
        FixId::DialBoundAddress | FixId::DialOtherAddress => dial(fix, program),
        FixId::ListenIpv4 => {
            "have it listen on 0.0.0.0 as well, or without its IPv6-only setting".to_owned()
        }
        FixId::UnbindDevice => {
            "take the interface out of its settings (often called interface or device)".to_owned()
        }
        FixId::VrfAccept => "let servers outside every VRF take what comes in by one".to_owned(),
        FixId::OtherPort => format!("perhaps another port was meant; {program} listens there"),
        FixId::UnblockProgram => {
            format!("{program} does not accept what is waiting: let it go on, or restart it")
        }
        FixId::LinkUp => "switch the interface on".to_owned(),
        FixId::LinkCarrier => {
            "connect it: a cable, a Wi-Fi, or the other end of a virtual cable".to_owned()
        }
        FixId::AnswerNeighbors => "let this computer answer those who ask for it".to_owned(),
        FixId::WaitForAddress => "wait a second: the check ends by itself".to_owned(),
        FixId::ChangeAddress => {
            format!("another machine has {to} too: give one of the two another address")
        }
        FixId::EnableIpv6 => {
            "switch IPv6 on; addresses set by hand have to be added again".to_owned()
        }
        FixId::RpFilterLoose => "make the reverse-path filter loose".to_owned(),
        FixId::RpFilterOff => "switch the reverse-path filter off".to_owned(),
        FixId::DeleteRoute => "delete that route".to_owned(),
        FixId::DeletePolicyRule => "delete that policy rule".to_owned(),
        FixId::AddRoute => add_route(fix),
        FixId::AddLocalRoute => format!("make {to} local where answers look for it"),
        FixId::UfwAllow | FixId::FirewalldAllow | FixId::NftAllow | FixId::IptablesAllow => {
            "let them in".to_owned()
        }
        FixId::Unban => "take them out of the jail".to_owned(),
        FixId::AddReplyRule => format!("send answers from {to} by the way their packets came"),
    }
}

fn add_route(fix: &Fix) -> String {
    let has_form = fix.steps.iter().any(|step| matches!(step, FixStep::Form(_)));
    let fill = if has_form { " (fill in the words in capitals)" } else { "" };
    format!("give answers a way back{fill}")
}

/// ` (it is a Node.js program)`.
fn name(fix: &Fix) -> String {
    fix.server.as_ref().map(|server| format!(" (it is {})", server.name)).unwrap_or_default()
}

/// ` (it is Vite, started by npm)`.
fn server(fix: &Fix) -> String {
    let Some(server) = &fix.server else { return String::new() };
    let by = match &fix.launcher {
        Some(Launcher::Runner(name)) => format!(", started by {name}"),
        Some(
            Launcher::Service(_) | Launcher::Socket(_) | Launcher::Container | Launcher::Command,
        )
        | None => String::new(),
    };
    format!(" (it is {}{by})", server.name)
}

/// Where lines go, if they go into a file.
fn file(fix: &Fix) -> Option<&str> {
    fix.steps.iter().find_map(|step| match step {
        FixStep::Write(Place::File(file), _) => Some(file.as_str()),
        FixStep::Write(_, _) | FixStep::Run(_) | FixStep::Form(_) => None,
    })
}

fn host(fix: &Fix, server: &str) -> String {
    let place = fix.steps.iter().find_map(|step| match step {
        FixStep::Write(Place::Command, _) => Some("add to the command that starts it"),
        FixStep::Write(Place::Environment, _) => Some("start it with this variable"),
        FixStep::Write(..) | FixStep::Run(_) | FixStep::Form(_) => None,
    });
    format!("{}{server}", place.unwrap_or("start it on all addresses"))
}

fn listen_on_all(family: Family) -> String {
    let all = family.unspecified();
    format!(
        "start it on {all} (all addresses); its setting is usually called host, bind, listen or \
         address"
    )
}

fn dial(fix: &Fix, program: &str) -> String {
    let address = fix.dial.map(|address| address.to_string()).unwrap_or_default();
    match fix.id {
        FixId::DialBoundAddress => format!("dial {address}, where {program} listens"),
        _ => format!("dial {address}, which is this computer's"),
    }
}

/// What to know besides.
#[must_use]
pub fn note(note: &FixNote) -> String {
    match note.kind {
        NoteKind::Host | NoteKind::Origin | NoteKind::Page | NoteKind::Peer => {
            format!("Then: {}.", note.text)
        }
        NoteKind::Other => format!("Note: {}.", note.text),
    }
}

//! What makes a server listen on another address: its own switch, typed for the way it was started.
//!
//! Kernel counterpart: bind(2), which cannot be undone from outside; so each of these starts the
//! server anew. Left out: programs whose address stands in code or in a file nobody here knows; for
//! those there is the general rule.

use std::net::IpAddr;

use canreach_snapshot::{Family, Netns, OwnerReason, Pid, Process, Snapshot, Socket, Unit};

use super::command_line::{CommandLine, Interpreter, shell_word, shell_words, without_options};
use super::fix::{Fix, FixId, FixNote, FixStep, NoteKind, Place, ServerName, Undo};
use super::known_server::{ANCESTORS_MAX, KnownServer, recognise};
use super::launcher::{self, Launcher, Start};
use crate::{DropReason, Question};

/// Values for the names in braces of the data file.
struct Texts {
    names: [(&'static str, String); 9],
}

impl Texts {
    fn new(netns: &Netns, socket: &Socket, question: &Question) -> Self {
        let family = question.family();
        let all = family.unspecified();
        let own = netns.addresses.iter().find(|address| address.address() == question.to);
        let network = own.map_or_else(
            || question.to.to_string(),
            |address| address.prefix.network().to_string(),
        );
        let psql_port =
            if socket.port.0 == 5432 { String::new() } else { format!(" -p {}", socket.port) };
        let (both, tuple) = match family {
            Family::Ipv4 => ("0.0.0.0", "{0, 0, 0, 0}"),
            Family::Ipv6 => ("0.0.0.0 ::", "{0, 0, 0, 0, 0, 0, 0, 0}"),
        };
        Self {
            names: [
                ("{all}", all.to_string()),
                ("{all_url}", in_url(all)),
                ("{both}", both.to_owned()),
                ("{all_tuple}", tuple.to_owned()),
                ("{port}", socket.port.to_string()),
                ("{to}", question.to.to_string()),
                ("{to_url}", in_url(question.to)),
                ("{network}", network),
                ("{psql_port}", psql_port),
            ],
        }
    }

    fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    fn fill_all(&self, texts: &[String]) -> Vec<String> {
        texts.iter().map(|text| self.fill(text)).collect()
    }

    /// The words of an option.
    fn words(&self, text: &str) -> Vec<String> {
        self.fill(text).split_whitespace().map(str::to_owned).collect()
    }
}

/// An address as it stands before a port.
fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The holder of a socket, its parent, and so on.
fn chain<'a>(snapshot: &'a Snapshot, netns: &Netns, socket: &Socket) -> Vec<&'a Process> {
    let holder = netns.owner(socket.inode).and_then(|owner| owner.holders.first().copied());
    let mut chain: Vec<&Process> = Vec::new();
    let mut next = holder;
    while let Some(process) = next.and_then(|pid| snapshot.process(pid)) {
        // A snapshot from a file may hold a circle.
        if chain.len() > ANCESTORS_MAX || chain.iter().any(|seen| seen.pid == process.pid) {
            break;
        }
        chain.push(process);
        next = process.parent;
    }
    chain
}

fn unit<'a>(snapshot: &'a Snapshot, socket: &Socket) -> Option<&'a Unit> {
    snapshot.cgroup(socket.cgroup?)?.unit.as_ref()
}

/// What the program behind a socket is called, if it is a known server.
#[must_use]
pub fn server_of(
    snapshot: &Snapshot,
    netns: &Netns,
    socket: &Socket,
) -> Option<&'static KnownServer> {
    let chain = chain(snapshot, netns, socket);
    let (holder, ancestors) = chain.split_first()?;
    Some(recognise(holder, ancestors, unit(snapshot, socket))?.server)
}

/// Fixes for a listener that is bound to another address than the one dialled.
#[must_use]
pub fn bind_fixes(
    snapshot: &Snapshot,
    netns: &Netns,
    socket: &Socket,
    question: &Question,
    reason: DropReason,
) -> Vec<Fix> {
    let texts = Texts::new(netns, socket, question);
    let chain = chain(snapshot, netns, socket);
    let unit = unit(snapshot, socket);
    if let Some(fix) = socket_unit_fix(netns, socket, &chain, unit, reason) {
        return vec![fix];
    }
    let Some((holder, ancestors)) = chain.split_first() else {
        return vec![general_fix(reason)];
    };
    if let Some(fix) = published_port_fix(holder, reason) {
        return vec![fix];
    }
    let Some(found) = recognise(holder, ancestors, unit) else {
        let guess = replaced_argument_fix(holder, socket, &texts, reason);
        return vec![guess.unwrap_or_else(|| general_fix(reason))];
    };
    if found.server.ipv4_only && question.family() == Family::Ipv6 {
        return vec![general_fix(reason)];
    }
    let (launcher, start) = match (found.by, unit) {
        (Some(by), _) => launcher::find(&chain, by, unit),
        (None, Some(unit)) => (Launcher::Service(unit.clone()), None),
        (None, None) => (Launcher::Command, None),
    };
    let mut fix = switch_fix(found.server, &launcher, start.as_ref(), &texts, reason);
    if fix.id == FixId::HostCode
        && let Some(guess) = replaced_argument_fix(holder, socket, &texts, reason)
    {
        fix = guess;
    }
    fix.launcher = Some(launcher);
    fix.server =
        Some(ServerName { name: found.server.name.clone(), probably: !found.server.verified });
    add_notes(&mut fix, found.server, &texts);
    vec![fix]
}

/// The general rule.
fn general_fix(reason: DropReason) -> Fix {
    Fix::new(reason, FixId::ListenOnAll)
}

/// systemd holds the socket: the address stands in the socket unit.
fn socket_unit_fix(
    netns: &Netns,
    socket: &Socket,
    chain: &[&Process],
    unit: Option<&Unit>,
    reason: DropReason,
) -> Option<Fix> {
    let is_activated = netns.owner(socket.inode)?.reason == Some(OwnerReason::SocketActivated);
    // In a container, number 1 is whatever was started there.
    let is_systemd = |process: &&Process| {
        let line = CommandLine::read(process);
        let program = line.as_ref().map_or(process.comm.as_str(), CommandLine::program);
        matches!(program, "systemd" | "init") && process.pid == Pid(1)
    };
    let held_by_init = chain.first().is_some_and(is_systemd);
    let unit = unit.filter(|unit| unit.name.ends_with(".socket"));
    let unit = match unit {
        Some(unit) => unit,
        None if is_activated || held_by_init => {
            let mut fix = Fix::new(reason, FixId::SocketUnit);
            fix.steps = vec![FixStep::Run("systemctl list-sockets".to_owned())];
            return Some(fix);
        }
        None => return None,
    };
    let key = match socket.proto {
        canreach_snapshot::Proto::Tcp => "ListenStream",
        canreach_snapshot::Proto::Udp => "ListenDatagram",
    };
    let systemctl = systemctl(unit);
    let name = shell_word(&unit.name);
    // A socket unit cannot be restarted while its service runs.
    let stop =
        unit.starts.as_ref().map(|service| format!("{systemctl} stop {}", shell_word(service)));
    let edit = format!("{systemctl} edit {name}");
    let restart = format!("{systemctl} restart {name}");
    let mut lines = vec!["[Socket]".to_owned()];
    if reason == DropReason::BindDevice {
        lines.push("BindToDevice=".to_owned());
    } else if reason == DropReason::V6Only {
        lines.push("BindIPv6Only=both".to_owned());
    } else {
        // An empty value forgets the addresses set so far; a port alone is every address.
        lines.extend([format!("{key}="), format!("{key}={}", socket.port)]);
    }
    let mut fix = Fix::new(reason, FixId::SocketUnit);
    fix.launcher = Some(Launcher::Socket(unit.clone()));
    fix.needs_root = !unit.user;
    fix.steps = vec![FixStep::Run(edit.clone()), FixStep::Write(Place::Editor, lines)];
    fix.steps.extend(stop.clone().map(FixStep::Run));
    fix.steps.push(FixStep::Run(restart.clone()));
    let commands = std::iter::once(edit).chain(stop).chain([restart]).collect();
    fix.undo = Some(Undo { commands, take_lines_out: true });
    Some(fix)
}

/// `sudo systemctl`, or the user's own manager.
fn systemctl(unit: &Unit) -> &'static str {
    if unit.user { "systemctl --user" } else { "sudo systemctl" }
}

/// A container engine's proxy holds the socket: the address stands in what was published.
fn published_port_fix(holder: &Process, reason: DropReason) -> Option<Fix> {
    let line = CommandLine::read(holder)?;
    if line.program() != "docker-proxy" {
        return None;
    }
    let value = |option: &str| {
        let at = line.words.iter().position(|word| word == option)?;
        line.words.get(at + 1).map(String::as_str)
    };
    let (host, container) = (value("-host-port")?, value("-container-port")?);
    let suffix = if value("-proto") == Some("udp") { "/udp" } else { "" };
    let mut fix = Fix::new(reason, FixId::PublishPort);
    fix.launcher = Some(Launcher::Container);
    fix.server = Some(ServerName { name: "Docker".to_owned(), probably: false });
    fix.steps = vec![
        FixStep::Write(Place::Command, vec![format!("-p {host}:{container}{suffix}")]),
        FixStep::Write(
            Place::File("compose.yml".to_owned()),
            vec![format!("ports: [\"{host}:{container}{suffix}\"]")],
        ),
    ];
    Some(fix)
}

/// The server's own switch, for the way it was started.
fn switch_fix(
    server: &KnownServer,
    launcher: &Launcher,
    start: Option<&Start>,
    texts: &Texts,
    reason: DropReason,
) -> Fix {
    match launcher {
        Launcher::Service(unit) => service_fix(server, unit, start, texts, reason),
        Launcher::Runner(_) | Launcher::Command | Launcher::Container | Launcher::Socket(_) => {
            command_fix(server, start, texts, reason)
        }
    }
}

/// The words that start it with its switch; `None` if it has none, or its command cannot be seen.
fn switched_command(
    server: &KnownServer,
    start: Option<&Start>,
    texts: &Texts,
) -> Option<Vec<String>> {
    let flag = server.flag.as_ref()?;
    let added = texts.words(flag);
    match (start, &server.argument_after) {
        (Some(start), Some(after)) => Some(start.with_argument(after, &added.join(" "))),
        (Some(start), None) => Some(start.with(&server.replaces, &added)),
        (None, _) => None,
    }
}

/// Started by a person: the same command with its switch.
fn command_fix(
    server: &KnownServer,
    start: Option<&Start>,
    texts: &Texts,
    reason: DropReason,
) -> Fix {
    let typical = || server.typical.as_ref().map(|typical| texts.fill(typical));
    if let Some(words) = switched_command(server, start, texts) {
        return Fix::new(reason, FixId::HostFlag).run(shell_words(&as_typed(words)));
    }
    if let Some(flag) = &server.flag {
        let fix = Fix::new(reason, FixId::HostFlag);
        return match typical() {
            Some(command) => fix.run(command),
            None => fix.write(Place::Command, vec![texts.fill(flag)]),
        };
    }
    if let Some(variable) = &server.variable {
        let fix = Fix::new(reason, FixId::HostVariable);
        let command = start.map(|start| shell_words(&as_typed(start.unchanged()))).or_else(typical);
        let variable = texts.fill(variable);
        return match (command, variable.split_once('=')) {
            (Some(command), Some((name, value))) => {
                fix.run(format!("{name}={} {command}", shell_word(value)))
            }
            (Some(_) | None, _) => fix.write(Place::Environment, vec![variable]),
        };
    }
    setting_fix(server, None, texts, reason)
}

/// A program of a folder that is on everybody's path is started by its name alone.
fn as_typed(mut words: Vec<String>) -> Vec<String> {
    const FOLDERS: [&str; 6] =
        ["/bin", "/usr/bin", "/usr/local/bin", "/sbin", "/usr/sbin", "/usr/local/sbin"];
    /// Tools that keep several versions put the chosen one on the path.
    const VERSIONS: [&str; 4] = ["/.pyenv/", "/.nvm/", "/.rbenv/", "/.asdf/"];
    let program = words.first().and_then(|first| first.rsplit_once('/'));
    let on_path = |folder: &str| {
        FOLDERS.contains(&folder) || VERSIONS.iter().any(|version| folder.contains(version))
    };
    let name = program.filter(|(folder, _)| on_path(folder)).map(|(_, name)| name.to_owned());
    if let (Some(name), Some(first)) = (name, words.first_mut()) {
        *first = name;
    }
    words
}

/// Started by systemd: a drop-in, or its own file where people set such services up.
fn service_fix(
    server: &KnownServer,
    unit: &Unit,
    start: Option<&Start>,
    texts: &Texts,
    reason: DropReason,
) -> Fix {
    let has_file = server.restart && (!server.commands.is_empty() || server.file.is_some());
    if has_file && server.variable.is_none() {
        return setting_fix(server, Some(unit), texts, reason);
    }
    // An option in its command would win over a variable.
    let may_have_option = server.flag.is_some()
        && start.is_none_or(|start| {
            without_options(&start.arguments, &server.replaces) != start.arguments
        });
    let variable = server.variable.as_ref().filter(|_| !may_have_option);
    let lines = if let Some(variable) = variable {
        vec![format!("Environment={}", systemd_word(&texts.fill(variable)))]
    } else if let Some(flag) = &server.flag {
        let words = switched_command(server, start, texts);
        // systemd wants the whole path of the program.
        let absolute =
            words.filter(|words| words.first().is_some_and(|first| first.starts_with('/')));
        let command = absolute.map_or_else(
            || format!("(its command, from systemctl cat) {}", texts.fill(flag)),
            |words| words.iter().map(|word| systemd_word(word)).collect::<Vec<_>>().join(" "),
        );
        vec!["ExecStart=".to_owned(), format!("ExecStart={command}")]
    } else {
        return setting_fix(server, Some(unit), texts, reason);
    };
    let systemctl = systemctl(unit);
    let name = shell_word(&unit.name);
    let edit = format!("{systemctl} edit {name}");
    let restart = format!("{systemctl} restart {name}");
    let lines = std::iter::once("[Service]".to_owned()).chain(lines).collect();
    let mut fix = Fix::new(reason, FixId::UnitDropIn);
    fix.needs_root = !unit.user;
    fix.steps = vec![
        FixStep::Run(edit.clone()),
        FixStep::Write(Place::Editor, lines),
        FixStep::Run(restart.clone()),
    ];
    fix.undo = Some(Undo { commands: vec![edit, restart], take_lines_out: true });
    fix
}

/// A word of an `ExecStart=` or `Environment=` line: `%` and `$` mean something there.
fn systemd_word(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('%', "%%").replace('$', "$$");
    let is_plain = !escaped.is_empty()
        && !escaped.contains(|letter: char| letter.is_whitespace() || "\"';".contains(letter));
    if is_plain { escaped } else { format!("\"{}\"", escaped.replace('"', "\\\"")) }
}

/// Its configuration, or what to write in one's own program.
fn setting_fix(
    server: &KnownServer,
    unit: Option<&Unit>,
    texts: &Texts,
    reason: DropReason,
) -> Fix {
    let restart =
        unit.map(|unit| format!("{} restart {}", systemctl(unit), shell_word(&unit.name)));
    let needs_root = unit.is_some_and(|unit| !unit.user);
    if !server.commands.is_empty() {
        let mut fix = Fix::new(reason, FixId::HostSetting);
        fix.needs_root = true;
        let run = |commands: &[String]| -> Vec<String> {
            texts.fill_all(commands).into_iter().chain(restart.clone()).collect()
        };
        fix.steps = run(&server.commands).into_iter().map(FixStep::Run).collect();
        fix.undo = Some(Undo { commands: run(&server.undo), take_lines_out: false });
        return fix;
    }
    if let Some(file) = &server.file {
        let mut fix = Fix::new(reason, FixId::HostSetting)
            .write(Place::File(file.clone()), texts.fill_all(&server.setting));
        fix.needs_root = needs_root;
        fix.steps.extend(restart.map(FixStep::Run));
        return fix;
    }
    match &server.code {
        Some(code) => Fix::new(reason, FixId::HostCode).write(Place::Code, vec![texts.fill(code)]),
        None => general_fix(reason),
    }
}

/// The address it is bound to stands in its command: the same command with another one. Likely, not
/// certain: an argument may mean something else.
fn replaced_argument_fix(
    holder: &Process,
    socket: &Socket,
    texts: &Texts,
    reason: DropReason,
) -> Option<Fix> {
    let line = CommandLine::read(holder)?;
    if line.retitled || line.interpreter == Some(Interpreter::Shell) {
        return None;
    }
    let mut written = vec![socket.address.to_string(), in_url(socket.address)];
    if socket.address.is_loopback() {
        written.push("localhost".to_owned());
    }
    let mut words = line.words.clone();
    let mut changed = false;
    for at in 1..words.len() {
        let before = words[at - 1].clone();
        for address in &written {
            let replaced = replaced_word(&words[at], &before, address, socket.port.0, texts);
            if let Some(replaced) = replaced {
                words[at] = replaced;
                changed = true;
                break;
            }
        }
    }
    changed.then(|| {
        let mut fix = Fix::new(reason, FixId::HostArgument).run(shell_words(&words));
        fix.launcher = Some(Launcher::Command);
        fix
    })
}

/// `ADDRESS:PORT` with the socket's own port anywhere in a word, or the address alone as the value of
/// an option whose name says so.
fn replaced_word(
    word: &str,
    before: &str,
    address: &str,
    port: u16,
    texts: &Texts,
) -> Option<String> {
    let with_port = format!("{address}:{port}");
    if let Some((start, end)) = word.split_once(&with_port) {
        let starts_clean =
            !start.ends_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '.');
        let ends_clean = !end.starts_with(|letter: char| letter.is_ascii_digit());
        return (starts_clean && ends_clean)
            .then(|| format!("{start}{}:{port}{end}", texts.fill("{all_url}")));
    }
    let names_address = |option: &str| {
        const PARTS: [&str; 5] = ["host", "bind", "listen", "addr", "interface"];
        let option = option.to_ascii_lowercase();
        option.starts_with('-')
            && (PARTS.iter().any(|part| option.contains(part)) || option.ends_with("-ip"))
    };
    if word == address && names_address(before) {
        return Some(texts.fill("{all}"));
    }
    let (option, value) = word.split_once('=')?;
    (value == address && names_address(option)).then(|| format!("{option}={}", texts.fill("{all}")))
}

/// What still stands between a client and the application, once it connects.
fn add_notes(fix: &mut Fix, server: &KnownServer, texts: &Texts) {
    let notes = [
        (NoteKind::Host, &server.host),
        (NoteKind::Origin, &server.origin),
        (NoteKind::Page, &server.page),
        (NoteKind::Peer, &server.peer),
        (NoteKind::Other, &server.note),
    ];
    let present = notes
        .into_iter()
        .filter_map(|(kind, text)| Some(FixNote { kind, text: texts.fill(text.as_ref()?) }));
    fix.notes.extend(present);
}

#[cfg(test)]
mod tests {
    use super::super::test_host::{listener, question, snapshot};
    use super::*;

    fn fix(bound: &str, port: u16, to: &str, chain: &[&str], unit: Option<Unit>) -> Fix {
        let snapshot = snapshot(listener(bound, port), chain, unit);
        let netns = snapshot.subject().expect("one namespace");
        let question = question(to, port);
        let mut fixes =
            bind_fixes(&snapshot, netns, &netns.sockets[0], &question, DropReason::BindLoopback);
        assert_eq!(fixes.len(), 1);
        fixes.remove(0)
    }

    /// What is to be typed or written, line by line.
    fn lines(fix: &Fix) -> Vec<String> {
        fix.steps
            .iter()
            .flat_map(|step| match step {
                FixStep::Run(line) | FixStep::Form(line) => vec![line.clone()],
                FixStep::Write(_, lines) => lines.clone(),
            })
            .collect()
    }

    fn service(name: &str) -> Option<Unit> {
        Some(Unit { name: name.to_owned(), user: false, starts: None })
    }

    #[test]
    fn servers_started_by_hand() {
        let check = |port: u16, chain: &[&str], id: FixId, expected: &str| {
            let fix = fix("127.0.0.1", port, "192.168.1.20", chain, None);
            assert_eq!((fix.id, lines(&fix).join("|").as_str()), (id, expected), "{chain:?}");
            assert!(!fix.needs_root && fix.undo.is_none());
        };
        let flag = FixId::HostFlag;
        check(
            5173,
            &["node /a/node_modules/.bin/vite", "\"npm run dev\""],
            flag,
            "npm run dev -- --host",
        );
        check(
            3000,
            &["\"next-server (v15)\"", "node /a/node_modules/.bin/next dev -H 127.0.0.1"],
            flag,
            "npx next dev -H 0.0.0.0",
        );
        check(
            3000,
            &["\"next-server (v15)\"", "\"npm run dev\""],
            flag,
            "npm run dev -- -H 0.0.0.0",
        );
        check(3000, &["\"next-server (v15)\""], flag, "npx next dev -H 0.0.0.0");
        check(
            8001,
            &["python manage.py runserver 8001"],
            flag,
            "python manage.py runserver 0.0.0.0:8001",
        );
        check(
            8000,
            &["python3 -m uvicorn app:app --host 127.0.0.1"],
            flag,
            "python3 -m uvicorn app:app --host 0.0.0.0",
        );
        check(
            5000,
            &["python -m flask --app x run -h localhost"],
            flag,
            "python -m flask --app x run --host 0.0.0.0",
        );
        check(
            8000,
            &["gunicorn --bind=127.0.0.1:8000 app:app"],
            flag,
            "gunicorn app:app -b 0.0.0.0:8000",
        );
        check(8000, &["php -S 127.0.0.1:8000 -t public"], flag, "php -t public -S 0.0.0.0:8000");
        check(
            8000,
            &["php -S localhost:8000 /a/laravel/framework/src/server.php", "php artisan serve"],
            flag,
            "php artisan serve --host=0.0.0.0",
        );
        check(
            3000,
            &["\"puma 5.6.5 (tcp://127.0.0.1:3000) [blog]\""],
            flag,
            "bin/rails server -b 0.0.0.0",
        );
        check(
            1313,
            &["hugo server -D"],
            flag,
            "hugo server -D --bind 0.0.0.0 --baseURL http://192.168.1.20:1313/",
        );
        check(4000, &["/usr/bin/ruby /usr/bin/jekyll serve"], flag, "jekyll serve --host 0.0.0.0");
        check(
            8080,
            &["java -jar shop.jar --server.address=127.0.0.1 --server.port=8080"],
            flag,
            "java -jar shop.jar --server.port=8080 --server.address=0.0.0.0",
        );
        check(
            6379,
            &["\"redis-server 127.0.0.1:6379\""],
            flag,
            "redis-server --port 6379 --bind 0.0.0.0",
        );
        check(
            8888,
            &["/usr/bin/python3 /usr/bin/jupyter-lab --ip=127.0.0.1"],
            flag,
            "jupyter-lab --ip=0.0.0.0",
        );
        check(
            6006,
            &["tensorboard --logdir runs --host localhost"],
            flag,
            "tensorboard --logdir runs --bind_all",
        );
        check(
            3000,
            &["node /a/node_modules/react-scripts/scripts/start.js", "\"npm start\""],
            FixId::HostVariable,
            "HOST=0.0.0.0 npm start",
        );
        check(
            11434,
            &["ollama serve"],
            FixId::HostVariable,
            "OLLAMA_HOST=0.0.0.0:11434 ollama serve",
        );
        check(3000, &["node server.js"], FixId::HostCode, "server.listen(3000, '0.0.0.0')");
        check(9000, &["./shop"], FixId::ListenOnAll, "");
    }

    #[test]
    fn a_database_started_by_hand() {
        let chain = ["/usr/lib/postgresql/15/bin/postgres -D /tmp/db -p 5439"];
        let found = fix("127.0.0.1", 5439, "192.168.1.20", &chain, None);
        assert_eq!(
            lines(&found),
            ["/usr/lib/postgresql/15/bin/postgres -D /tmp/db -p 5439 -c 'listen_addresses=*'"]
        );
    }

    #[test]
    fn over_ipv6_the_wildcard_is_the_other_one() {
        let check = |chain: &[&str], expected: &str| {
            let fix = fix("::1", 8000, "2001:db8::20", chain, None);
            assert_eq!(lines(&fix).join("|"), expected);
        };
        check(&["uvicorn app:app"], "uvicorn app:app --host ::");
        check(&["python manage.py runserver"], "python manage.py runserver '[::]:8000'");
        check(&["mongod --bind_ip ::1"], "");
        check(&["redis-server --bind ::1"], "redis-server --bind 0.0.0.0 ::");
    }

    #[test]
    fn servers_started_by_systemd() {
        let check = |unit: &str, chain: &[&str], id: FixId, expected: &[&str]| {
            let fix = fix("127.0.0.1", 8000, "192.168.1.20", chain, service(unit));
            assert_eq!(fix.id, id, "{unit}");
            assert_eq!(lines(&fix), expected, "{unit}");
            assert!(fix.needs_root);
        };
        check(
            "ollama.service",
            &["/usr/local/bin/ollama serve", "/sbin/init"],
            FixId::UnitDropIn,
            &[
                "sudo systemctl edit ollama.service",
                "[Service]",
                "Environment=OLLAMA_HOST=0.0.0.0:8000",
                "sudo systemctl restart ollama.service",
            ],
        );
        check(
            "shop.service",
            &["/venv/bin/python3 /venv/bin/gunicorn -n 50% app:app", "/sbin/init"],
            FixId::UnitDropIn,
            &[
                "sudo systemctl edit shop.service",
                "[Service]",
                "Environment=GUNICORN_CMD_ARGS=--bind=0.0.0.0:8000",
                "sudo systemctl restart shop.service",
            ],
        );
        // An option in the command wins over the variable.
        check(
            "shop.service",
            &["/venv/bin/python3 /venv/bin/uvicorn --host 127.0.0.1 app:app", "/sbin/init"],
            FixId::UnitDropIn,
            &[
                "sudo systemctl edit shop.service",
                "[Service]",
                "ExecStart=",
                "ExecStart=/venv/bin/uvicorn app:app --host 0.0.0.0",
                "sudo systemctl restart shop.service",
            ],
        );
        check(
            "shop.service",
            &["\"gunicorn: master [app:app]\"", "/sbin/init"],
            FixId::UnitDropIn,
            &[
                "sudo systemctl edit shop.service",
                "[Service]",
                "ExecStart=",
                "ExecStart=(its command, from systemctl cat) -b 0.0.0.0:8000",
                "sudo systemctl restart shop.service",
            ],
        );
        check(
            "book.service",
            &["/usr/bin/mdbook serve -n 127.0.0.1 --dest /tmp/100%", "/sbin/init"],
            FixId::UnitDropIn,
            &[
                "sudo systemctl edit book.service",
                "[Service]",
                "ExecStart=",
                "ExecStart=/usr/bin/mdbook serve --dest /tmp/100%% -n 0.0.0.0",
                "sudo systemctl restart book.service",
            ],
        );
        check(
            "redis-server.service",
            &["\"/usr/bin/redis-server 127.0.0.1:6379\"", "/sbin/init"],
            FixId::HostSetting,
            &["bind 0.0.0.0", "sudo systemctl restart redis-server.service"],
        );
        check(
            "postgresql@15-main.service",
            &["/usr/lib/postgresql/15/bin/postgres -D /var/lib/x", "/sbin/init"],
            FixId::HostSetting,
            &[
                "sudo -u postgres psql -p 8000 -c \"ALTER SYSTEM SET listen_addresses = '*'\"",
                "sudo systemctl restart postgresql@15-main.service",
            ],
        );
    }

    #[test]
    fn a_change_of_a_unit_says_how_to_take_it_back() {
        let chain = ["/usr/local/bin/ollama serve", "/sbin/init"];
        let fix = fix("127.0.0.1", 11434, "192.168.1.20", &chain, service("ollama.service"));
        let undo = fix.undo.expect("changes the machine");
        assert!(undo.take_lines_out);
        assert_eq!(undo.commands[0], "sudo systemctl edit ollama.service");
    }

    #[test]
    fn sockets_of_systemd_and_of_container_engines() {
        let unit = Unit {
            name: "web.socket".to_owned(),
            user: true,
            starts: Some("web.service".to_owned()),
        };
        let found = fix("127.0.0.1", 80, "192.168.1.20", &["/sbin/init"], Some(unit));
        assert_eq!(
            lines(&found),
            [
                "systemctl --user edit web.socket",
                "[Socket]",
                "ListenStream=",
                "ListenStream=80",
                "systemctl --user stop web.service",
                "systemctl --user restart web.socket",
            ]
        );
        assert!(!found.needs_root);
        let proxy = "/usr/bin/docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port 5432 \
                     -container-ip 172.17.0.2 -container-port 5433";
        let found = fix("127.0.0.1", 5432, "192.168.1.20", &[proxy], service("docker.service"));
        assert_eq!(found.id, FixId::PublishPort);
        assert_eq!(lines(&found), ["-p 5432:5433", "ports: [\"5432:5433\"]"]);
    }

    #[test]
    fn an_address_in_the_command_of_an_unknown_server_is_a_guess() {
        let check = |chain: &[&str], id: FixId, expected: &str| {
            let fix = fix("127.0.0.1", 9000, "192.168.1.20", chain, None);
            assert_eq!((fix.id, lines(&fix).join("|").as_str()), (id, expected));
        };
        let guess = FixId::HostArgument;
        check(&["./shop --listen 127.0.0.1:9000"], guess, "./shop --listen 0.0.0.0:9000");
        check(&["./shop --bind-addr=127.0.0.1"], guess, "./shop --bind-addr=0.0.0.0");
        check(&["node server.js --host localhost"], guess, "node server.js --host 0.0.0.0");
        check(&["./shop -u tcp://localhost:9000"], guess, "./shop -u tcp://0.0.0.0:9000");
        // Addresses of others, and ports of others, stay as they are.
        check(&["./shop --db 127.0.0.1"], FixId::ListenOnAll, "");
        check(&["./shop --db localhost:90001"], FixId::ListenOnAll, "");
        check(&["./shop --x 10.127.0.0.1:9000"], FixId::ListenOnAll, "");
    }

    #[test]
    fn notes_say_what_stands_behind_the_connection() {
        let kinds = |chain: &[&str]| -> Vec<NoteKind> {
            let fix = fix("127.0.0.1", 8000, "192.168.1.20", chain, None);
            fix.notes.iter().map(|note| note.kind).collect()
        };
        assert_eq!(kinds(&["python manage.py runserver"]), [NoteKind::Host]);
        assert_eq!(kinds(&["mongod"]), [NoteKind::Peer]);
        assert_eq!(kinds(&["node /a/node_modules/.bin/vite"]), []);
        let django = fix("127.0.0.1", 8000, "192.168.1.20", &["python manage.py runserver"], None);
        assert!(django.notes[0].text.contains("'192.168.1.20' to ALLOWED_HOSTS"));
    }

    #[test]
    fn a_circle_of_parents_ends() {
        let mut snapshot = snapshot(listener("127.0.0.1", 80), &["./a", "./b"], None);
        snapshot.processes[1].parent = Some(Pid(10));
        let netns = snapshot.subject().expect("one namespace");
        assert_eq!(server_of(&snapshot, netns, &netns.sockets[0]), None);
    }
}

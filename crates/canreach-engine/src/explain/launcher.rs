//! How a server was started, and how the same command is typed with other options: behind npm an
//! option needs `--` in front, behind yarn it does not.
//!
//! Left out: make, just, and scripts of one's own, which pass options on in ways nobody can see from
//! outside; a server behind one of them is shown by its own command.

use canreach_snapshot::{Process, Unit};

use super::command_line::{CommandLine, Interpreter, base_name, without_options};
use super::known_server::ANCESTORS_MAX;

/// What started a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launcher {
    /// A script of package.json, or another runner: npm, pnpm, yarn, bun, npx, uv...
    Runner(String),
    /// A service of systemd.
    Service(Unit),
    /// systemd holds the socket itself.
    Socket(Unit),
    /// A container engine publishes the port.
    Container,
    /// Its own command.
    Command,
}

/// A command one can type again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The words in front of the server's own arguments, or of those a runner passes on.
    pub words: Vec<String>,
    /// `--`, where the runner needs one in front of what it passes on.
    pub separator: Option<&'static str>,
    /// The arguments it has now.
    pub arguments: Vec<String>,
}

impl Start {
    /// The command with some options replaced.
    #[must_use]
    pub fn with(&self, replaces: &[String], added: &[String]) -> Vec<String> {
        let kept = without_options(&self.arguments, replaces);
        self.joined(kept.iter().chain(added).cloned().collect())
    }

    /// The command with an address as the argument behind a word, in place of the one there.
    #[must_use]
    pub fn with_argument(&self, after: &str, address: &str) -> Vec<String> {
        let mut arguments = self.arguments.clone();
        let behind = arguments.iter().position(|word| word == after).map_or(0, |at| at + 1);
        let old = arguments[behind..].iter().position(|word| is_port_argument(word));
        if let Some(at) = old {
            arguments.remove(behind + at);
        }
        arguments.insert(behind, address.to_owned());
        self.joined(arguments)
    }

    /// The command as it is.
    #[must_use]
    pub fn unchanged(&self) -> Vec<String> {
        self.joined(self.arguments.clone())
    }

    fn joined(&self, arguments: Vec<String>) -> Vec<String> {
        let separator = self.separator.filter(|_| !arguments.is_empty()).map(str::to_owned);
        self.words.iter().cloned().chain(separator).chain(arguments).collect()
    }
}

/// `8000`, `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`.
fn is_port_argument(word: &str) -> bool {
    let port = word.rsplit_once(':').map_or(word, |(_, port)| port);
    !word.starts_with('-') && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// What started a server, from the chain that begins with the process that holds its socket. `by` is
/// the process of that chain that runs the server. The command is `None` if it cannot be seen.
#[must_use]
pub fn find(chain: &[&Process], by: usize, unit: Option<&Unit>) -> (Launcher, Option<Start>) {
    let lines: Vec<Option<CommandLine>> =
        chain.iter().take(ANCESTORS_MAX).map(|process| CommandLine::read(process)).collect();
    let server = lines.get(by).and_then(Option::as_ref);
    let program = server.map(|line| line.program().to_owned());
    let runner = find_runner(&lines, by, program.as_deref());
    let own = server.filter(|line| !line.retitled).map(start_of_command);
    let service = unit.filter(|unit| unit.name.ends_with(".service"));
    if let Some(unit) = service
        && is_main_of_service(&lines, by, runner.as_ref().map(|(at, _, _)| *at))
    {
        return (Launcher::Service(unit.clone()), runner.map(|(_, _, start)| start).or(own));
    }
    match runner {
        Some((_, name, start)) => (Launcher::Runner(name), Some(start)),
        None => (Launcher::Command, own),
    }
}

/// The nearest runner above the server that passes words on to it.
fn find_runner(
    lines: &[Option<CommandLine>],
    by: usize,
    program: Option<&str>,
) -> Option<(usize, String, Start)> {
    for (position, line) in lines.iter().enumerate().skip(by + 1) {
        let line = line.as_ref()?;
        if let Some((name, start)) = runner_start(line, program) {
            return Some((position, name, start));
        }
        if line.interpreter == Some(Interpreter::Shell) {
            // `sh -c SCRIPT` hands words on only to the last command of the script.
            let script = line.words.iter().skip_while(|word| *word != "-c").nth(1)?;
            if !ends_with_program(script, program?) {
                return None;
            }
        }
    }
    None
}

/// Whether the last command of a shell script is this program.
fn ends_with_program(script: &str, program: &str) -> bool {
    let last = script.rsplit([';', '|', '&', '\n']).next().unwrap_or(script);
    let mut words = last.split_whitespace().skip_while(|word| {
        let is_assignment = word.contains('=') && !word.starts_with('-');
        is_assignment || matches!(*word, "exec" | "env" | "cross-env" | "npx" | "node")
    });
    words.next().is_some_and(|word| {
        // npx puts the name in quotes.
        let name = base_name(word.trim_matches(['\'', '"']));
        name == program || name.split_once('.').is_some_and(|(stem, _)| stem == program)
    })
}

/// Words of npm and its relatives that are commands of their own and no scripts.
const NOT_SCRIPTS: [&str; 14] = [
    "install",
    "i",
    "ci",
    "add",
    "remove",
    "rm",
    "update",
    "up",
    "publish",
    "pack",
    "audit",
    "init",
    "create",
    "workspace",
];

/// The command of a runner, if this is one.
fn runner_start(line: &CommandLine, program: Option<&str>) -> Option<(String, Start)> {
    let name = line.program();
    let arguments = line.arguments();
    match name {
        "npm" | "npm-cli" => npm_start(line, program),
        "npx" | "npx-cli" => wrapper_start("npx", &["npx"], arguments, program),
        "pnpm" => script_start("pnpm", arguments, program),
        "yarn" | "yarnpkg" => script_start("yarn", arguments, program),
        // Yarn's own releases are files such as yarn-4.1.0.cjs.
        _ if name.starts_with("yarn-") => script_start("yarn", arguments, program),
        "bunx" => wrapper_start("bunx", &["bunx"], arguments, program),
        "uv" | "poetry" | "pipenv" | "hatch" | "pdm" | "rye" => {
            wrapper_start(name, &[name], arguments, program)
        }
        // `bun run dev` and `deno task dev`: the word behind the interpreter is no script.
        "run" | "task" | "x" if line.program_at == 1 => {
            let interpreter = base_name(&line.words[0]);
            matches!(interpreter, "bun" | "deno")
                .then(|| script_start(interpreter, &line.words[1..], program))
                .flatten()
        }
        _ => None,
    }
}

fn npm_start(line: &CommandLine, program: Option<&str>) -> Option<(String, Start)> {
    let arguments = line.arguments();
    let (words, rest) = arguments.split_first()?;
    if matches!(words.as_str(), "exec" | "x") {
        // What npx calls itself: `npm exec vite`.
        return wrapper_start("npx", &["npx"], rest, program);
    }
    let (mut command, rest) = match words.as_str() {
        "run" | "run-script" | "rum" | "urn" => {
            let (script, rest) = rest.split_first()?;
            (vec!["npm".to_owned(), "run".to_owned(), script.clone()], rest)
        }
        "start" | "test" | "restart" => (vec!["npm".to_owned(), words.clone()], rest),
        _ => return None,
    };
    // A title has lost the `--`; what follows the script's name was passed on in both cases.
    let split = rest.iter().position(|word| word == "--");
    let (options, passed) = match split {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None if line.retitled => (&rest[..0], rest),
        None => (rest, &rest[..0]),
    };
    command.extend(options.iter().cloned());
    let start = Start { words: command, separator: Some("--"), arguments: passed.to_vec() };
    Some(("npm".to_owned(), start))
}

/// pnpm, yarn, bun, deno: what follows the script's name is passed on as it is.
fn script_start(
    name: &str,
    arguments: &[String],
    program: Option<&str>,
) -> Option<(String, Start)> {
    let mut at = 0;
    let first = arguments.first()?;
    match first.as_str() {
        "exec" | "dlx" | "x" => return wrapper_start(name, &[name], arguments, program),
        "run" | "task" => at = 1,
        _ if NOT_SCRIPTS.contains(&first.as_str()) => return None,
        _ => {}
    }
    let script = arguments[at..].iter().position(|word| !word.starts_with('-'))? + at;
    let words = std::iter::once(name.to_owned()).chain(arguments[..=script].iter().cloned());
    let start = Start {
        words: words.collect(),
        separator: None,
        arguments: arguments[script + 1..].to_vec(),
    };
    Some((name.to_owned(), start))
}

/// `npx vite`, `uv run uvicorn app:app`: the server's own command stands behind the runner.
fn wrapper_start(
    name: &str,
    words: &[&str],
    arguments: &[String],
    program: Option<&str>,
) -> Option<(String, Start)> {
    let program = program?;
    let at = arguments.iter().position(|word| {
        let without_version = word.rsplit_once('@').map_or(word.as_str(), |(name, _)| name);
        base_name(word) == program || without_version == program
    })?;
    let words = words.iter().map(|word| (*word).to_owned()).chain(arguments[..=at].iter().cloned());
    let start =
        Start { words: words.collect(), separator: None, arguments: arguments[at + 1..].to_vec() };
    Some((name.to_owned(), start))
}

/// The command of a process, simplified where the result means the same.
fn start_of_command(line: &CommandLine) -> Start {
    let path = line.path();
    let is_npm_binary = path.rsplit_once('/').is_some_and(|(folder, _)| folder.ends_with("/.bin"));
    // A script in a folder of programs was started by its name; the kernel put the interpreter in
    // front.
    let is_program = line.has_script()
        && !line.is_module
        && path.starts_with('/')
        && path.rsplit('/').nth(1) == Some("bin");
    let words = if line.interpreter == Some(Interpreter::Node) && is_npm_binary {
        vec!["npx".to_owned(), base_name(path).to_owned()]
    } else if is_program && line.program_at == 1 && line.package().is_none() {
        vec![path.to_owned()]
    } else {
        line.words[..=line.program_at].to_vec()
    };
    let mut start = Start { words, separator: None, arguments: line.arguments().to_vec() };
    // The interpreter's own arguments are the server's where there is no script (`php -S`).
    if line.program_at == 0 {
        start.words = line.words[..1].to_vec();
    }
    start
}

/// Whether systemd started this server itself: nothing but the server, its runner and shells stands
/// between the two. A terminal or an editor run as a service has its users' servers in its group.
fn is_main_of_service(lines: &[Option<CommandLine>], by: usize, runner: Option<usize>) -> bool {
    let top = runner.unwrap_or(by);
    lines.iter().skip(top + 1).all(|line| {
        line.as_ref().is_none_or(|line| {
            let is_manager = matches!(line.program(), "systemd" | "init");
            let is_shell_command = line.interpreter == Some(Interpreter::Shell)
                && (line.has_script() || line.words.iter().any(|word| word == "-c"));
            is_manager || is_shell_command
        })
    })
}

#[cfg(test)]
mod tests {
    use canreach_snapshot::Pid;

    use super::*;

    /// Processes from the holder up; one in double quotes is a title.
    fn processes(chain: &[&str]) -> Vec<Process> {
        let process = |(at, text): (usize, &&str)| {
            let title = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let words: Vec<String> = match (title, text.split_once(" -c ")) {
                (Some(title), _) => vec![title.to_owned()],
                (None, Some((shell, script))) => {
                    vec![shell.to_owned(), "-c".to_owned(), script.to_owned()]
                }
                (None, None) => text.split(' ').map(str::to_owned).collect(),
            };
            Process {
                pid: Pid(100 - u32::try_from(at).expect("small")),
                parent: None,
                comm: String::new(),
                cmdline: words,
                cwd: None,
                uid: 0,
                user: None,
                cgroup_path: None,
                started_at_ms: None,
            }
        };
        chain.iter().enumerate().map(process).collect()
    }

    #[test]
    fn options_are_typed_for_what_started_the_server() {
        let check = |chain: &[&str], name: &str, command: &str| {
            let processes = processes(chain);
            let chain: Vec<&Process> = processes.iter().collect();
            let (launcher, start) = find(&chain, 0, None);
            let found = match &launcher {
                Launcher::Runner(name) => name.clone(),
                Launcher::Command => "command".to_owned(),
                Launcher::Service(_) | Launcher::Socket(_) | Launcher::Container => {
                    format!("{launcher:?}")
                }
            };
            let words = start.expect("seen").with(&["--host".to_owned()], &["--host".to_owned()]);
            assert_eq!((found.as_str(), words.join(" ").as_str()), (name, command));
        };
        let vite = "node /a/node_modules/.bin/vite";
        check(&[vite], "command", "npx vite --host");
        check(&[vite, "sh -c vite", "\"npm run dev\"", "bash"], "npm", "npm run dev -- --host");
        check(&[vite, "sh -c tsc && vite", "\"npm start\""], "npm", "npm start -- --host");
        check(
            &[
                "node /a/node_modules/.bin/vite --port 1",
                "sh -c vite --port 1",
                "\"npm run dev --port 1\"",
            ],
            "npm",
            "npm run dev -- --port 1 --host",
        );
        check(
            &[vite, "node /usr/bin/npm run dev -- --host 127.0.0.1 -d"],
            "npm",
            "npm run dev -- -d --host",
        );
        check(&[vite, "node /usr/bin/npm run dev -w web"], "npm", "npm run dev -w web -- --host");
        check(&[vite, "node /usr/bin/pnpm dev"], "pnpm", "pnpm dev --host");
        check(&[vite, "node /usr/lib/pnpm.cjs run dev"], "pnpm", "pnpm run dev --host");
        check(&[vite, "/usr/bin/node /usr/share/yarn/bin/yarn.js dev"], "yarn", "yarn dev --host");
        check(&[vite, "node /a/.yarn/releases/yarn-4.1.0.cjs dev"], "yarn", "yarn dev --host");
        check(&[vite, "bun run dev"], "bun", "bun run dev --host");
        check(&[vite, "deno task dev"], "deno", "deno task dev --host");
        check(&[vite, "\"npm exec vite\""], "npx", "npx vite --host");
        check(&[vite, "sh -c 'vite' -d", "\"npm exec vite -d\""], "npx", "npx vite -d --host");
        check(&[vite, "node /usr/bin/npx vite@5 --port 1"], "npx", "npx vite@5 --port 1 --host");
        check(&[vite, "node /usr/bin/pnpm exec vite"], "pnpm", "pnpm exec vite --host");
        // A script that ends with something else would hand the option to that.
        check(&[vite, "sh -c vite & tail -f log", "\"npm run dev\""], "command", "npx vite --host");
        // What a shell somebody types into was started by has nothing to do with it.
        check(&[vite, "bash", "\"npm run shell\""], "command", "npx vite --host");
        let uvicorn = "/venv/bin/python3 /venv/bin/uvicorn app:app";
        check(&[uvicorn], "command", "/venv/bin/uvicorn app:app --host");
        check(&[uvicorn, "uv run uvicorn app:app"], "uv", "uv run uvicorn app:app --host");
        check(&["python -m uvicorn app:app"], "command", "python -m uvicorn app:app --host");
        check(&["python3 app.py"], "command", "python3 app.py --host");
    }

    #[test]
    fn an_address_argument_takes_the_place_of_the_old_one() {
        let check = |text: &str, command: &str| {
            let line = CommandLine::of_words(text.split(' ').map(str::to_owned).collect(), false);
            let start = start_of_command(&line.expect("words"));
            assert_eq!(start.with_argument("runserver", "0.0.0.0:8000").join(" "), command);
        };
        check("python manage.py runserver", "python manage.py runserver 0.0.0.0:8000");
        check("python manage.py runserver 8001", "python manage.py runserver 0.0.0.0:8000");
        check(
            "python manage.py runserver [::1]:80 -v 2",
            "python manage.py runserver 0.0.0.0:8000 -v 2",
        );
        check(
            "python manage.py runserver --settings dev 127.0.0.1:80",
            "python manage.py runserver 0.0.0.0:8000 --settings dev",
        );
    }

    #[test]
    fn a_service_is_what_systemd_itself_started() {
        let unit = Unit { name: "shop.service".to_owned(), user: false, starts: None };
        let check = |chain: &[&str], by: usize, is_service: bool| {
            let processes = processes(chain);
            let chain: Vec<&Process> = processes.iter().collect();
            let (launcher, _) = find(&chain, by, Some(&unit));
            assert_eq!(matches!(launcher, Launcher::Service(_)), is_service, "{chain:?}");
        };
        check(&["/usr/bin/uvicorn app:app", "/sbin/init"], 0, true);
        check(&["/usr/bin/uvicorn app:app"], 0, true);
        check(
            &[
                "uvicorn app:app",
                "/bin/sh -c exec uvicorn app:app",
                "/usr/lib/systemd/systemd --user",
            ],
            0,
            true,
        );
        check(&["node /a/node_modules/.bin/vite", "\"npm run dev\"", "/sbin/init"], 0, true);
        // A terminal inside an editor that runs as a service.
        check(
            &["uvicorn app:app", "bash", "/usr/lib/code-server/lib/node", "/sbin/init"],
            0,
            false,
        );
    }
}

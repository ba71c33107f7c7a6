//! Known servers: recognised by their command line or unit, with their own switch for the address
//! they listen on.
//!
//! The records are data (`data/servers.toml`); this file reads and matches them. A pattern compares
//! whole words and base names, never parts of them: `vitess` is not Vite. Left out: what a server
//! says over the network, and its configuration files.

use std::sync::OnceLock;

use canreach_snapshot::{Process, Unit};
use serde::Deserialize;

use super::command_line::{CommandLine, base_name, has_value_attached};

/// One record of the data file; the keys are explained there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownServer {
    /// A word of its own.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The version whose source or manual was read.
    pub version: String,
    /// The fix was checked against that version.
    pub verified: bool,
    /// Where it listens when it is told nothing.
    pub bind: String,
    /// The ports it uses when it is told nothing.
    pub ports: Vec<u16>,
    /// Alternatives.
    pub recognise: Vec<Pattern>,
    /// Processes that it starts may hold its sockets.
    #[serde(default)]
    pub children: bool,
    /// Options to add to its command.
    pub flag: Option<String>,
    /// The options these replace.
    #[serde(default)]
    pub replaces: Vec<String>,
    /// `flag` is the first argument behind this word.
    pub argument_after: Option<String>,
    /// An environment variable that does the same.
    pub variable: Option<String>,
    /// A configuration file.
    pub file: Option<String>,
    /// Lines in it.
    #[serde(default)]
    pub setting: Vec<String>,
    /// Commands that do the same as editing the file.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Commands that take it back.
    #[serde(default)]
    pub undo: Vec<String>,
    /// It is a system service that people set up by its file.
    #[serde(default)]
    pub restart: bool,
    /// Its command, for when its own cannot be seen.
    pub typical: Option<String>,
    /// What to write in a program of one's own.
    pub code: Option<String>,
    /// A Host check that refuses IP addresses.
    pub host: Option<String>,
    /// An Origin check that refuses IP addresses.
    pub origin: Option<String>,
    /// The setting of a Host check that lets IP addresses pass, and refuses other names.
    pub names: Option<String>,
    /// Rules on the client's address, or a missing password.
    pub peer: Option<String>,
    /// Its pages point to an address of their own.
    pub page: Option<String>,
    /// Anything else.
    pub note: Option<String>,
    /// Browsers can open it.
    #[serde(default = "yes")]
    pub http: bool,
    /// There is no switch for IPv6, or it takes more than that.
    #[serde(default)]
    pub ipv4_only: bool,
}

/// Most servers that people want to show to others speak HTTP.
const fn yes() -> bool {
    true
}

/// One way to recognise a server: everything that is set must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pattern {
    /// The program is one of these.
    pub program: Vec<String>,
    /// The Python module is one of these.
    pub module: Vec<String>,
    /// The npm package of the script.
    pub package: Option<String>,
    /// The first argument that is no option is one of these.
    pub word: Vec<String>,
    /// Some argument is this word.
    pub has: Option<String>,
    /// Some argument is this option, by itself or with a value attached.
    pub option: Option<String>,
    /// Some argument starts so.
    pub prefix: Option<String>,
    /// What runs the script.
    pub interpreter: Option<String>,
    /// A script is run, whatever its name.
    pub script: bool,
    /// These folders follow each other in some argument.
    pub path: Option<String>,
    /// The script lies in a folder of this name, or runs there.
    pub folder: Option<String>,
    /// Java: a jar on the class path has this name, before its version.
    pub library: Option<String>,
    /// The process gave itself a title that starts with this word.
    pub title: Option<String>,
    /// The systemd unit; one `*` stands for anything.
    pub unit: Option<String>,
}

#[derive(Deserialize)]
struct File {
    server: Vec<KnownServer>,
}

/// Every record, in the order of the file.
#[must_use]
pub fn all() -> &'static [KnownServer] {
    static ALL: OnceLock<Vec<KnownServer>> = OnceLock::new();
    ALL.get_or_init(|| {
        let file: Result<File, _> = toml::from_str(include_str!("../../data/servers.toml"));
        file.map(|file| file.server).unwrap_or_default()
    })
}

/// A server, and the process of the chain that gave it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recognised {
    /// The record.
    pub server: &'static KnownServer,
    /// 0 is the process that holds the socket, 1 its parent, and so on; `None` if only the unit's
    /// name matched.
    pub by: Option<usize>,
}

/// More ancestors than this are not looked at.
pub const ANCESTORS_MAX: usize = 16;

/// The server behind a socket. `ancestors` are the holder's parent, its parent, and so on.
#[must_use]
pub fn recognise(
    process: &Process,
    ancestors: &[&Process],
    unit: Option<&Unit>,
) -> Option<Recognised> {
    let chain: Vec<(CommandLine, Option<&str>)> = std::iter::once(&process)
        .chain(ancestors.iter().take(ANCESTORS_MAX))
        .map_while(|process| Some((CommandLine::read(process)?, process.cwd.as_deref())))
        .enumerate()
        .take_while(|(position, (line, _))| *position == 0 || !is_interactive_shell(line))
        .map(|(_, entry)| entry)
        .collect();
    let matching = |server: &KnownServer, position: usize| {
        chain.get(position).is_some_and(|(line, cwd)| {
            server.recognise.iter().any(|pattern| pattern.matches(line, *cwd))
        })
    };
    // A record of its own beats the general one for its language, however far up it matches.
    let (general, named): (Vec<_>, Vec<_>) = all().iter().partition(|server| server.is_general());
    let by_process = |servers: &[&'static KnownServer]| {
        (0..chain.len()).find_map(|position| {
            let fits = |server: &&&'static KnownServer| {
                (position == 0 || server.children) && matching(server, position)
            };
            let server = *servers.iter().find(fits)?;
            // A server that restarts itself runs as its own child: its command is that of the first.
            let run = (position..chain.len()).take_while(|above| matching(server, *above));
            Some(Recognised { server, by: run.last() })
        })
    };
    let by_unit = || {
        let name = unit?.name.as_str();
        let fits = |server: &&&'static KnownServer| {
            server.recognise.iter().any(|pattern| pattern.matches_unit(name))
        };
        named.iter().find(fits).map(|server| Recognised { server, by: None })
    };
    by_process(&named).or_else(by_unit).or_else(|| by_process(&general))
}

/// A shell somebody types into: what runs above it did not start the server.
fn is_interactive_shell(line: &CommandLine) -> bool {
    line.interpreter == Some(super::command_line::Interpreter::Shell)
        && !line.has_script()
        && !line.words.iter().any(|word| word == "-c")
}

impl KnownServer {
    /// It stands for every program of a language that no other record knows.
    fn is_general(&self) -> bool {
        self.recognise.iter().any(|pattern| pattern.script)
    }
}

impl Pattern {
    /// Whether a process fits. A pattern for a unit fits no process.
    #[must_use]
    pub fn matches(&self, line: &CommandLine, cwd: Option<&str>) -> bool {
        let Self {
            program,
            module,
            package,
            word,
            has,
            option,
            prefix,
            interpreter,
            script,
            path,
            folder,
            library,
            title,
            unit,
        } = self;
        let arguments = || line.words.iter().skip(1);
        let one_of = |wanted: &[String], found: Option<&str>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|w| w == found))
        };
        // A title's first words are not the program and its arguments.
        let plain = !(line.retitled && program.is_empty() && title.is_none());
        unit.is_none()
            && plain
            && one_of(program, (!line.is_module).then(|| line.program()))
            && one_of(module, line.is_module.then(|| line.program()))
            && one_of(word, line.subcommand())
            && package.as_ref().is_none_or(|wanted| line.package() == Some(wanted))
            && has.as_ref().is_none_or(|wanted| arguments().any(|word| word == wanted))
            && option.as_ref().is_none_or(|wanted| {
                arguments().any(|word| word == wanted || has_value_attached(word, wanted))
            })
            && prefix.as_ref().is_none_or(|wanted| arguments().any(|word| word.starts_with(wanted)))
            && interpreter
                .as_ref()
                .is_none_or(|wanted| line.interpreter.is_some_and(|i| i.word() == wanted))
            && (!script || line.has_script())
            && path.as_ref().is_none_or(|wanted| line.words.iter().any(|w| holds_path(w, wanted)))
            && folder.as_ref().is_none_or(|wanted| lies_in(line, cwd, wanted))
            && library.as_ref().is_none_or(|wanted| has_library(line, wanted))
            && title
                .as_ref()
                .is_none_or(|wanted| line.retitled && line.program() == wanted.as_str())
    }

    /// Whether a unit's name fits.
    #[must_use]
    pub fn matches_unit(&self, name: &str) -> bool {
        self.unit.as_deref().is_some_and(|wanted| match wanted.split_once('*') {
            None => wanted == name,
            Some((start, end)) => {
                name.len() >= start.len() + end.len()
                    && name.starts_with(start)
                    && name.ends_with(end)
            }
        })
    }
}

/// Whether a path holds these folders, as whole names, except that the first may have an ending of
/// digits (`/tmp/go-build1234/b001/exe/main`).
fn holds_path(word: &str, wanted: &str) -> bool {
    let parts: Vec<&str> = word.split('/').collect();
    let wanted: Vec<&str> = wanted.split('/').collect();
    let same = |part: &str, wanted: &str| {
        part.strip_prefix(wanted).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    parts
        .windows(wanted.len())
        .any(|window| window.iter().zip(&wanted).all(|(part, wanted)| same(part, wanted)))
}

fn lies_in(line: &CommandLine, cwd: Option<&str>, folder: &str) -> bool {
    let same = |name: &str| name.eq_ignore_ascii_case(folder);
    match line.path().rsplit_once('/') {
        Some((parent, _)) => same(base_name(parent)),
        None => cwd.is_some_and(|cwd| same(base_name(cwd))),
    }
}

/// Whether the class path names a jar such as `spring-boot-3.2.0.jar`.
fn has_library(line: &CommandLine, library: &str) -> bool {
    let is_it = |entry: &str| {
        base_name(entry).strip_prefix(library).is_some_and(|rest| {
            rest.ends_with(".jar")
                && rest
                    .strip_prefix('-')
                    .is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    let value_follows = |option: &str| matches!(option, "-cp" | "-classpath" | "--class-path");
    line.words.windows(2).any(|pair| value_follows(&pair[0]) && pair[1].split(':').any(is_it))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use canreach_snapshot::Pid;

    use super::*;

    fn process(pid: u32, words: &[&str]) -> Process {
        Process {
            pid: Pid(pid),
            parent: None,
            comm: "comm".to_owned(),
            cmdline: words.iter().map(|word| (*word).to_owned()).collect(),
            cwd: Some("/home/dev/shop".to_owned()),
            uid: 1000,
            user: None,
            cgroup_path: None,
            started_at_ms: None,
        }
    }

    /// A command line by its words; one in double quotes is a title.
    fn id_of(text: &str) -> Option<&'static str> {
        let title = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let words: Vec<&str> = title.map_or_else(|| text.split(' ').collect(), |title| vec![title]);
        let found = recognise(&process(1, &words), &[], None)?;
        Some(found.server.id.as_str())
    }

    #[test]
    fn the_data_file_is_sound() {
        let parsed: Result<File, _> = toml::from_str(include_str!("../../data/servers.toml"));
        assert_eq!(parsed.as_ref().err(), None);
        assert!(all().len() >= 72);
        let ids: BTreeSet<&str> = all().iter().map(|server| server.id.as_str()).collect();
        assert_eq!(ids.len(), all().len(), "an id is used twice");
        for server in all() {
            let id = &server.id;
            let has_switch = server.flag.is_some()
                || server.variable.is_some()
                || server.file.is_some()
                || server.code.is_some();
            let needs_none = ["eleventy", "docker"].contains(&id.as_str());
            assert!(has_switch || needs_none, "{id}: no switch");
            assert!(!server.recognise.is_empty() || server.code.is_some(), "{id}: never found");
            assert_eq!(server.file.is_some(), !server.setting.is_empty(), "{id}");
            assert_eq!(server.commands.len(), server.undo.len(), "{id}: cannot be undone");
            assert!(server.recognise.iter().all(|p| *p != Pattern::default()), "{id}: matches all");
            assert!(!server.version.is_empty() && !server.name.is_empty(), "{id}");
        }
    }

    #[test]
    fn names_in_braces_are_known() {
        let known =
            ["all", "all_url", "both", "all_tuple", "port", "to", "to_url", "network", "psql_port"];
        for server in all() {
            let texts = [
                &server.flag,
                &server.variable,
                &server.typical,
                &server.code,
                &server.host,
                &server.origin,
                &server.peer,
                &server.page,
                &server.note,
            ];
            let texts = texts.into_iter().flatten();
            let lists = [&server.setting, &server.commands, &server.undo].into_iter().flatten();
            for text in texts.chain(lists) {
                for part in text.split('{').skip(1) {
                    let name = part.split_once('}').map_or(part, |(name, _)| name);
                    // JavaScript and JSON have braces of their own, with blanks inside.
                    let is_code = name.trim() != name || name.is_empty();
                    assert!(is_code || known.contains(&name), "{}: {{{name}}}", server.id);
                }
            }
        }
    }

    #[test]
    fn command_lines_of_javascript_servers() {
        let check = |text: &str, id: &str| assert_eq!(id_of(text), Some(id), "{text}");
        check("node /home/dev/shop/node_modules/.bin/vite", "vite");
        check("node /home/dev/shop/node_modules/vite/bin/vite.js --port 3000", "vite");
        check(
            "/usr/bin/node /a/node_modules/.pnpm/vite@7.1.0/node_modules/vite/bin/vite.js",
            "vite",
        );
        check("node /a/node_modules/.bin/next dev", "next");
        check("\"next-server (v15.1.0)\"", "next");
        check("node /a/node_modules/.bin/nuxt dev", "nuxt");
        check("node /a/node_modules/@nuxt/cli/bin/nuxi.mjs _dev", "nuxt");
        check("node /a/node_modules/.bin/ng serve --port 4201", "angular");
        check("node /a/node_modules/@angular/cli/bin/ng.js serve", "angular");
        check("node /a/node_modules/.bin/astro dev", "astro");
        check("node /a/node_modules/.bin/react-router dev", "react-router");
        check("node /a/node_modules/.bin/remix vite:dev", "react-router");
        check("node /a/node_modules/react-scripts/scripts/start.js", "create-react-app");
        check("node /a/node_modules/.bin/webpack serve --mode development", "webpack-dev-server");
        check("node /a/node_modules/.bin/webpack-dev-server", "webpack-dev-server");
        check("node /a/node_modules/.bin/parcel src/index.html", "parcel");
        check("/a/node_modules/@esbuild/linux-x64/bin/esbuild --serve=127.0.0.1:8000", "esbuild");
        check("node /a/node_modules/.bin/storybook dev -p 6006", "storybook");
        check("node /a/node_modules/.bin/rsbuild dev", "rsbuild");
        check("node /a/node_modules/.bin/docusaurus start", "docusaurus");
        check("node /a/node_modules/.bin/gatsby develop", "gatsby");
        check("node /a/node_modules/.bin/eleventy --serve", "eleventy");
        check("node /a/node_modules/wrangler/wrangler-dist/cli.js dev", "wrangler");
        check("node /a/node_modules/.bin/expo start", "expo");
        check("node /usr/local/bin/serve -s build", "serve");
        check("node /usr/local/bin/http-server", "http-server");
        check("node /usr/local/bin/live-server", "live-server");
        check("node /usr/local/bin/browser-sync start --server", "browser-sync");
        check("node /usr/local/bin/json-server --watch db.json", "json-server");
        check("/usr/lib/code-server/lib/node /usr/lib/code-server", "code-server");
        check("node /home/dev/shop/server.js", "node");
        check("node --inspect app.mjs", "node");
        check("bun server.ts", "node");
    }

    #[test]
    fn command_lines_of_other_servers() {
        let check = |text: &str, id: &str| assert_eq!(id_of(text), Some(id), "{text}");
        check("python manage.py runserver", "django");
        check("/venv/bin/python3 /srv/app/manage.py runserver 8001", "django");
        check("python3 -m django runserver", "django");
        check("/venv/bin/python /venv/bin/flask --app shop run --debug", "flask");
        check("python -m flask run", "flask");
        check("/venv/bin/python3 /venv/bin/uvicorn app:app --reload", "uvicorn");
        check("python -m uvicorn app:app", "uvicorn");
        check("/venv/bin/python3 /venv/bin/fastapi dev main.py", "fastapi");
        check("\"gunicorn: master [app:app]\"", "gunicorn");
        check("/venv/bin/python3 /venv/bin/gunicorn app:app", "gunicorn");
        check("/venv/bin/python3 /venv/bin/hypercorn app:app", "hypercorn");
        check("/venv/bin/python3 /venv/bin/streamlit run app.py", "streamlit");
        check("/venv/bin/python3 /venv/bin/gradio app.py", "gradio");
        check("/venv/bin/python3 /venv/bin/tensorboard --logdir runs", "tensorboard");
        check("/usr/bin/python3 /usr/bin/jupyter-lab", "jupyter");
        check("python3 -m jupyterlab --no-browser", "jupyter");
        check("/usr/bin/python3 /usr/bin/mkdocs serve", "mkdocs");
        check("/venv/bin/python3 /venv/bin/bokeh serve app.py", "bokeh");
        check("/venv/bin/python3 /venv/bin/mlflow ui", "mlflow");
        check("python -m uvicorn --port 5000 mlflow.server.fastapi_app:app", "mlflow");
        check("python3 -m http.server 8000 --bind 127.0.0.1", "http-server-python");
        check("python3 -m aiohttp.web -P 8080 app:init", "aiohttp");
        check("python /opt/ComfyUI/main.py", "comfyui");
        check("ruby bin/rails server", "rails");
        check("\"puma 5.6.5 (tcp://localhost:3000) [blog]\"", "puma");
        check("/usr/bin/ruby /usr/bin/rackup", "rackup");
        check("/usr/bin/ruby3.1 /usr/bin/jekyll serve", "jekyll");
        check("hugo server -D", "hugo");
        check("/snap/zola/1/bin/zola serve", "zola");
        check("mdbook serve", "mdbook");
        check("trunk serve", "trunk");
        check("php -S 127.0.0.1:8000 -t public", "php");
        check("php8.2 -S localhost:8000", "php");
        check("php artisan serve", "laravel");
        check(
            "/usr/bin/php8.2 -S 127.0.0.1:8000 /srv/vendor/laravel/framework/src/server.php",
            "laravel",
        );
        check("java -jar app.jar --server.port=8081", "spring-boot");
        check("java -cp /a/shop.jar:/m2/spring-boot-3.2.0.jar com.example.Shop", "spring-boot");
        check("java -Dserver.port=9 -jar app.jar", "spring-boot");
        check("/usr/lib/erlang/erts-13/bin/beam.smp -- -extra /usr/bin/mix phx.server", "phoenix");
        check("/tmp/go-build1234/b001/exe/main", "go");
        check("miniserve .", "miniserve");
        check("dufs", "dufs");
        check("simple-http-server -p 8000", "simple-http-server");
        check("/usr/local/bin/ollama serve", "ollama");
        check("/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main", "postgresql");
        check("/usr/sbin/mariadbd", "mariadb");
        check("\"/usr/bin/redis-server 127.0.0.1:6379\"", "redis");
        check("redis-server *:6379", "redis");
        check("/usr/bin/mongod --config /etc/mongod.conf", "mongodb");
        check("java -Xms1g org.elasticsearch.bootstrap.Elasticsearch -d", "elasticsearch");
        check("/usr/lib/erlang/erts-13/bin/beam.smp -W w -- -s rabbit boot", "rabbitmq");
        check("/usr/share/grafana/bin/grafana server", "grafana");
        check("/usr/bin/prometheus --web.listen-address=127.0.0.1:9090", "prometheus");
        check("kubectl -n shop port-forward svc/web 8080:80", "kubectl-port-forward");
        check("/usr/bin/syncthing serve --no-browser", "syncthing");
        check("/usr/bin/docker-proxy -proto tcp -host-port 80", "docker");
        check("/venv/bin/python3 -m homeassistant", "home-assistant");
        check("/usr/bin/transmission-daemon -f", "transmission");
        check("/usr/sbin/mosquitto -c /etc/mosquitto/mosquitto.conf", "mosquitto");
        check("/usr/bin/memcached -m 64 -l 127.0.0.1", "memcached");
    }

    #[test]
    fn likenesses_are_not_taken_for_servers() {
        let check = |text: &str| assert_eq!(id_of(text), None, "{text}");
        check("vitess --port 3000");
        check("nextcloud start");
        check("/opt/vite-tools/run");
        check("python3 app.py --server uvicorn");
        check("java -jar app.jar");
        check("java -cp /m2/spring-boot-admin.jar com.example.App");
        check("php -f index.php");
        check("python main.py");
        check("kubectl get pods");
        check("ng build");
        check("hugo");
        check("serve");
        check("\"postgresql-exporter --web\"");
        assert_eq!(recognise(&process(1, &[]), &[], None), None);
    }

    #[test]
    fn children_are_recognised_by_who_started_them() {
        let child = process(3, &["python", "-c", "spawn_main(tracker_fd=5)", "--fork"]);
        let parent = process(2, &["python3", "/venv/bin/uvicorn", "app:app", "--reload"]);
        let found = recognise(&child, &[&parent], None).expect("found");
        assert_eq!((found.server.id.as_str(), found.by), ("uvicorn", Some(1)));
        // A title hides the command; the process above it still has it.
        let child = process(3, &["next-server (v15.1.0)"]);
        let parent = process(2, &["node", "/a/node_modules/.bin/next", "dev"]);
        let found = recognise(&child, &[&parent], None).expect("found");
        assert_eq!((found.server.id.as_str(), found.by), ("next", Some(1)));
        // Django's reloader is its own parent.
        let words = ["python", "manage.py", "runserver"];
        let (child, parent) = (process(3, &words), process(2, &words));
        assert_eq!(recognise(&child, &[&parent], None).expect("found").by, Some(1));
    }

    #[test]
    fn what_runs_a_terminal_did_not_start_what_runs_inside() {
        let server = process(9, &["./shop"]);
        let shell = process(8, &["bash"]);
        let above = process(7, &["python3", "/venv/bin/uvicorn", "app:app"]);
        assert_eq!(recognise(&server, &[&shell, &above], None), None);
        // An editor is no server of the programs it starts, also without a shell between.
        let editor = process(7, &["/usr/lib/code-server/lib/node", "/usr/lib/code-server"]);
        assert_eq!(recognise(&server, &[&editor], None), None);
    }

    #[test]
    fn units_tell_where_arguments_do_not() {
        let hidden = process(3, &["beam"]);
        let check = |unit: &str, id: Option<&str>| {
            let unit = Unit { name: unit.to_owned(), user: false, starts: None };
            let found = recognise(&hidden, &[], Some(&unit)).map(|found| found.server.id.as_str());
            assert_eq!(found, id, "{}", unit.name);
        };
        check("ollama.service", Some("ollama"));
        check("postgresql@15-main.service", Some("postgresql"));
        check("syncthing@dev.service", Some("syncthing"));
        check("my-ollama.service", None);
        check("postgresql@.service.d", None);
    }
}

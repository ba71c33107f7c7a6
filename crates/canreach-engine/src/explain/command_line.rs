//! What a process runs, read off its arguments: the program behind an interpreter, and the words
//! that follow it.
//!
//! Kernel counterpart: `/proc/PID/cmdline`. Left out: programs started with `-c` or `-e`, whose text
//! is no program name.

use canreach_snapshot::Process;

/// The arguments of a process, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// Every word. For a process that changed its title, the words of the title.
    pub words: Vec<String>,
    /// What runs the program, if it is a script.
    pub interpreter: Option<Interpreter>,
    /// Where in `words` the program stands: behind the interpreter and its options.
    pub program_at: usize,
    /// The program stands behind `-m` and is a Python module.
    pub is_module: bool,
    /// The process replaced its arguments by a title: what it was started with is gone.
    pub retitled: bool,
}

/// What runs a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Interpreter {
    /// node, bun, deno.
    Node,
    /// python, pypy.
    Python,
    /// ruby.
    Ruby,
    /// php.
    Php,
    /// java.
    Java,
    /// sh and its relatives, perl.
    Shell,
}

impl Interpreter {
    /// By the base name of an executable, with or without a version: `python3.11`, `php8.2`.
    fn of(base_name: &str) -> Option<Self> {
        let bare =
            base_name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        Some(match bare {
            "node" | "nodejs" | "bun" | "deno" => Self::Node,
            "python" | "pypy" => Self::Python,
            "ruby" => Self::Ruby,
            "php" | "php-cli" => Self::Php,
            "java" => Self::Java,
            "sh" | "bash" | "dash" | "zsh" | "ash" | "ksh" | "fish" | "perl" => Self::Shell,
            _ => return None,
        })
    }

    /// The word of the data file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Php => "php",
            Self::Java => "java",
            Self::Shell => "shell",
        }
    }

    /// Options whose value is the next word.
    const fn options_with_value(self) -> &'static [&'static str] {
        match self {
            Self::Node => &["-r", "--require", "--import", "--loader", "-C", "--conditions", "-c"],
            Self::Python => &["-X", "-W", "--check-hash-based-pycs"],
            Self::Ruby => &["-I", "-r", "-C", "-E", "-W"],
            Self::Php => &["-S", "-t", "-d", "-c", "-z"],
            Self::Java => &[
                "-cp",
                "-classpath",
                "--class-path",
                "-p",
                "--module-path",
                "--add-modules",
                "--add-opens",
                "--add-exports",
                "--add-reads",
                "--enable-native-access",
            ],
            Self::Shell => &["-o", "-O"],
        }
    }

    /// Options that take a program's text instead of its name.
    const fn options_with_text(self) -> &'static [&'static str] {
        match self {
            Self::Node => &["-e", "--eval", "-p", "--print"],
            Self::Python | Self::Shell => &["-c"],
            Self::Ruby => &["-e"],
            Self::Php => &["-r"],
            Self::Java => &[],
        }
    }
}

/// Endings that do not belong to a program's name.
const SCRIPT_ENDINGS: [&str; 12] =
    [".js", ".mjs", ".cjs", ".ts", ".mts", ".py", ".rb", ".php", ".phar", ".sh", ".exe", ".jar"];

impl CommandLine {
    /// Reads a process. `None` where its arguments are empty: a kernel thread, or not readable.
    #[must_use]
    pub fn read(process: &Process) -> Option<Self> {
        let mut words = process.cmdline.clone();
        // A changed title is padded with empty words up to the length of the old arguments.
        while words.last().is_some_and(|word| word.trim().is_empty()) {
            words.pop();
        }
        let retitled = words.len() == 1 && words[0].trim().contains(' ');
        if retitled {
            words = words[0].split_whitespace().map(str::to_owned).collect();
        }
        Self::of_words(words, retitled)
    }

    /// Reads words. `None` where there are none.
    #[must_use]
    pub fn of_words(words: Vec<String>, retitled: bool) -> Option<Self> {
        let first = words.first()?;
        let interpreter = Interpreter::of(base_name(first.trim_start_matches('-')));
        let mut line = Self { words, interpreter, program_at: 0, is_module: false, retitled };
        if let Some(interpreter) = interpreter {
            line.skip_options(interpreter);
        }
        Some(line)
    }

    /// Moves to the script behind the interpreter's options. Stays at the interpreter if there is
    /// none.
    fn skip_options(&mut self, interpreter: Interpreter) {
        let mut at = 1;
        while let Some(word) = self.words.get(at) {
            if interpreter.options_with_text().contains(&word.as_str()) {
                return;
            }
            let names_program = match interpreter {
                Interpreter::Python => word == "-m",
                Interpreter::Java => matches!(word.as_str(), "-jar" | "-m" | "--module"),
                Interpreter::Php => word == "-f",
                Interpreter::Node | Interpreter::Ruby | Interpreter::Shell => false,
            };
            if names_program {
                self.is_module = interpreter == Interpreter::Python;
                self.set_program(at + 1);
                return;
            }
            if interpreter.options_with_value().contains(&word.as_str()) {
                at += 2;
            } else if word.starts_with('-') && word.len() > 1 {
                at += 1;
            } else {
                self.set_program(at);
                return;
            }
        }
    }

    fn set_program(&mut self, at: usize) {
        if at < self.words.len() {
            self.program_at = at;
        } else {
            self.is_module = false;
        }
    }

    /// The path, module or class that is run.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.words[self.program_at]
    }

    /// A script or module is run, not the interpreter by itself.
    #[must_use]
    pub const fn has_script(&self) -> bool {
        self.interpreter.is_some() && self.program_at > 0
    }

    /// The name of what is run: the base name without a script's ending; a module's and a Java
    /// class's whole name; a title's first word.
    #[must_use]
    pub fn program(&self) -> &str {
        let path = self.path();
        let is_class = self.interpreter == Some(Interpreter::Java) && !path.ends_with(".jar");
        if self.is_module || is_class {
            return path;
        }
        let path = path.trim_end_matches(':');
        let mut name = base_name(path);
        if matches!(name, "__main__.py") {
            name = base_name(path.trim_end_matches("/__main__.py"));
        }
        let ending = SCRIPT_ENDINGS.iter().find(|ending| name.ends_with(**ending));
        ending.map_or(name, |ending| &name[..name.len() - ending.len()])
    }

    /// The npm package the script belongs to, by the last `node_modules` in its path.
    #[must_use]
    pub fn package(&self) -> Option<&str> {
        const FOLDER: &str = "node_modules/";
        let path = self.path();
        let inside = &path[path.rfind(FOLDER)? + FOLDER.len()..];
        let parts = if inside.starts_with('@') { 2 } else { 1 };
        let end = inside.match_indices('/').nth(parts - 1)?.0;
        let package = &inside[..end];
        (package != ".bin").then_some(package)
    }

    /// The words behind the program.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.words[self.program_at + 1..]
    }

    /// The first of them that is no option: a subcommand, as a rule.
    #[must_use]
    pub fn subcommand(&self) -> Option<&str> {
        self.arguments().iter().map(String::as_str).find(|word| !word.starts_with('-'))
    }
}

/// The last part of a path.
#[must_use]
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Takes options away, each with its value, whether that is the next word, follows `=`, or is
/// attached to a short option.
#[must_use]
pub fn without_options(words: &[String], options: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        if options.contains(word) {
            // An option at the end, or in front of another, has no value.
            words.next_if(|next| !next.starts_with('-'));
        } else if !options.iter().any(|option| has_value_attached(word, option)) {
            kept.push(word.clone());
        }
    }
    kept
}

/// `--host=127.0.0.1`, `-b127.0.0.1`.
#[must_use]
pub fn has_value_attached(word: &str, option: &str) -> bool {
    let Some(rest) = word.strip_prefix(option) else { return false };
    if rest.starts_with('=') {
        return true;
    }
    // `-b127.0.0.1` is the option -b; `-bind` is another option.
    let is_short = option.len() == 2;
    is_short
        && (rest.starts_with(|letter: char| letter.is_ascii_digit() || "[:*".contains(letter))
            || rest.starts_with("localhost"))
}

/// Words as one types them into a shell.
#[must_use]
pub fn shell_words(words: &[String]) -> String {
    words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

/// One word, quoted if a shell would read it otherwise.
#[must_use]
pub fn shell_word(word: &str) -> String {
    // Brackets are quoted as well: zsh takes `[::]` for a pattern, and refuses it.
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=+./:,@%^".contains(letter);
    let is_plain = !word.is_empty() && word.chars().all(plain);
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> CommandLine {
        let words = text.split_whitespace().map(str::to_owned).collect();
        CommandLine::of_words(words, false).expect("not empty")
    }

    #[test]
    fn the_program_is_found_behind_its_interpreter() {
        let check = |text: &str, program: &str, subcommand: Option<&str>| {
            let line = line(text);
            assert_eq!((line.program(), line.subcommand()), (program, subcommand), "{text}");
        };
        check("nginx -g daemon", "nginx", Some("daemon"));
        check("node /app/node_modules/.bin/vite --port 3000", "vite", Some("3000"));
        check("node /app/node_modules/vite/bin/vite.js", "vite", None);
        check("/usr/bin/node --require ./a.js --inspect server.mjs x", "server", Some("x"));
        check("node -e server.listen(1)", "node", Some("server.listen(1)"));
        check("python3.11 -u manage.py runserver", "manage", Some("runserver"));
        check("/venv/bin/python -m http.server 8000", "http.server", Some("8000"));
        check("python3 /venv/lib/uvicorn/__main__.py app:app", "uvicorn", Some("app:app"));
        check("python3 -c import_x --fork", "python3", Some("import_x"));
        check("python3 -m", "python3", None);
        check("php8.2 -S localhost:8000 -t public", "php8.2", Some("localhost:8000"));
        check("php artisan serve", "artisan", Some("serve"));
        check("php -d a=b -f x.php", "x", None);
        check("java -Xmx1g -jar target/shop-1.0.jar --server.port=1", "shop-1.0", None);
        check("java -cp a.jar:b.jar com.example.App go", "com.example.App", Some("go"));
        check("ruby -I lib bin/rails s", "rails", Some("s"));
        check("-bash", "-bash", None);
    }

    #[test]
    fn packages_are_those_of_the_innermost_folder() {
        let check = |text: &str, package| assert_eq!(line(text).package(), package, "{text}");
        check("node /a/node_modules/vite/bin/vite.js", Some("vite"));
        check("node /a/node_modules/@angular/cli/bin/ng.js serve", Some("@angular/cli"));
        check("node /a/node_modules/.bin/vite", None);
        check("node /a/node_modules/.pnpm/vite@5/node_modules/vite/bin/vite.js", Some("vite"));
        check("node server.js", None);
        check("node /a/node_modules/vite", None);
    }

    #[test]
    fn a_title_is_split_into_words() {
        let process = |words: &[&str]| Process {
            pid: canreach_snapshot::Pid(1),
            parent: None,
            comm: String::new(),
            cmdline: words.iter().map(|word| (*word).to_owned()).collect(),
            cwd: None,
            uid: 0,
            user: None,
            cgroup_path: None,
            started_at_ms: None,
        };
        let puma =
            CommandLine::read(&process(&["puma 5.6.5 (tcp://localhost:3000) [app]", "", ""]));
        let puma = puma.expect("has words");
        assert!(puma.retitled);
        assert_eq!((puma.program(), puma.words.len()), ("puma", 4));
        let nginx = CommandLine::read(&process(&["nginx: master process /usr/sbin/nginx"]));
        assert_eq!(nginx.expect("has words").program(), "nginx");
        assert_eq!(CommandLine::read(&process(&[])), None);
        assert_eq!(CommandLine::read(&process(&["", ""])), None);
    }

    #[test]
    fn options_go_with_their_values() {
        let check = |text: &str, options: &[&str], left: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(without_options(&words, &options).join(" "), left, "{text}");
        };
        check("--host 127.0.0.1 --port 3", &["--host"], "--port 3");
        check("--host --port 3", &["--host"], "--port 3");
        check("--host=127.0.0.1 x", &["--host"], "x");
        check("app:app -b127.0.0.1:80 -w 2", &["-b"], "app:app -w 2");
        check("-b[::1]:80", &["-b"], "");
        check("-bind 127.0.0.1", &["-b"], "-bind 127.0.0.1");
        check("--hostname x", &["--host"], "--hostname x");
        check("x --host", &["--host"], "x");
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        let check = |word: &str, quoted: &str| assert_eq!(shell_word(word), quoted);
        check("--host=0.0.0.0", "--host=0.0.0.0");
        check("tcp://[::]:3000", "'tcp://[::]:3000'");
        check("a b", "'a b'");
        check("it's", "'it'\\''s'");
        check("", "''");
        check("$HOME", "'$HOME'");
        check("page[1].html", "'page[1].html'");
        check("*", "'*'");
    }
}

//! The table of `docs/benchmarks.md`.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::bench::setting;
use crate::bench::tool::{BASELINE, Who};

/// Between these lines of the file stands what is measured; the rest is written by people.
const BEGIN: &str = "<!-- written by cargo xtask bench --write -->";
const END: &str = "<!-- end -->";
const FILE: &str = "docs/benchmarks.md";

/// One table per user: a row per program, two columns per setting.
pub(crate) fn render(lines: &[Value]) -> String {
    let mut text = String::new();
    for setting in setting::all() {
        let Some(line) = lines.iter().find(|line| line["setting"] == setting.name) else {
            continue;
        };
        let (name, title, rounds) = (setting.name, setting.title, &line["rounds"]);
        let _ = writeln!(text, "- ({name}) {title}; median of {rounds} runs");
    }
    for who in Who::ALL {
        let heading = match who {
            Who::Root => "As root",
            Who::Nobody => "As an ordinary user who owns none of the servers",
        };
        let _ = write!(text, "\n{heading}:\n\n| command |");
        let settings: Vec<_> = setting::all()
            .into_iter()
            .filter(|setting| lines.iter().any(|line| line["setting"] == setting.name))
            .collect();
        for setting in &settings {
            let _ = write!(text, " ({}) ms | ratio | named |", setting.name);
        }
        let _ = write!(text, "\n|---|{}", "--:|--:|--:|".repeat(settings.len()));
        let mut tools: Vec<&str> = Vec::new();
        for tool in lines.iter().filter_map(|line| line["tool"].as_str()) {
            if !tools.contains(&tool) {
                tools.push(tool);
            }
        }
        for tool in tools {
            let _ = write!(text, "\n| `{tool}` |");
            for setting in &settings {
                text.push_str(&cells(lines, setting.name, who, tool));
            }
        }
        text.push('\n');
    }
    text
}

/// Milliseconds, how many times faster than the baseline, and owners named of rows printed.
fn cells(lines: &[Value], setting: &str, who: Who, tool: &str) -> String {
    let find = |tool: &str| {
        lines.iter().find(|line| {
            line["setting"] == setting && line["who"] == who.name() && line["tool"] == tool
        })
    };
    let Some(line) = find(tool) else { return " | | |".to_owned() };
    let ms = line["ms"].as_f64().unwrap_or_default();
    let baseline = find(BASELINE).and_then(|line| line["ms"].as_f64()).unwrap_or_default();
    let named = match (line["named"].as_u64(), line["rows"].as_u64()) {
        (Some(named), Some(rows)) => format!("{named} of {rows}"),
        _ => String::new(),
    };
    format!(" {ms:.2} | {:.1}x | {named} |", baseline / ms)
}

/// Puts the table into its file.
pub(crate) fn write(root: &Path, table: &str) -> Result<()> {
    let path = root.join(FILE);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {FILE}"))?;
    let text = replace(&text, table).with_context(|| format!("{FILE} has no {BEGIN} and {END}"))?;
    std::fs::write(&path, text).with_context(|| format!("write {FILE}"))
}

fn replace(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n\n{END}{after}", table.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_has_ratios() {
        let line = |tool: &str, ms: f64| {
            json!({"setting": "ii", "who": "root", "tool": tool, "ms": ms, "rounds": 3,
                "rows": 9, "named": 9})
        };
        let text = render(&[line(BASELINE, 30.0), line("canreach list", 1.5)]);
        assert!(text.contains("| `canreach list` | 1.50 | 20.0x | 9 of 9 |"), "{text}");
        assert!(text.contains("| command | (ii) ms | ratio | named |"), "{text}");
        assert!(text.contains("median of 3 runs"), "{text}");
        assert!(!text.contains("(iii)"), "{text}");
    }

    #[test]
    fn only_what_is_measured_is_replaced() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let once = replace(&text, "\nnew\n").expect("both lines are there");
        assert!(once.starts_with("a\n") && once.ends_with("\nb\n") && !once.contains("old"));
        assert_eq!(replace(&once, "\nnew\n").as_ref(), Some(&once));
        assert_eq!(replace("a", "new"), None);
    }
}

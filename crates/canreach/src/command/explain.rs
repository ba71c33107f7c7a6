//! `explain`: the idea behind a code, an address, a term.

use canreach_report::topic::{self, TopicKind};
use canreach_report::topic_fact::Facts;

use crate::cli::{ExplainArguments, Global};
use crate::exit::{Exit, UsageError};
use crate::output;
use crate::state::{self, Wanted};

pub(super) fn run(global: &Global, arguments: &ExplainArguments) -> anyhow::Result<Exit> {
    let Some(word) = &arguments.word else {
        output::answer(&contents())?;
        return Ok(Exit::Yes);
    };
    let Some(topic) = topic::find(word) else {
        let similar = topic::suggest(word);
        let advice = if similar.is_empty() {
            "the list of pages: canreach explain".to_owned()
        } else {
            format!("did you mean: {}?", similar.join(", "))
        };
        return Err(UsageError(format!("there is no page `{word}`; {advice}")).into());
    };
    // The examples are from this machine where it can be read; a page makes sense without.
    let facts = match state::read(global, &Wanted::ALL) {
        Ok(snapshot) => Facts::of(&snapshot),
        Err(error) if global.snapshot.is_some() => return Err(error),
        Err(_) => Facts::default(),
    };
    output::answer(&topic.render(&facts))?;
    Ok(Exit::Yes)
}

/// Every page, by kind.
fn contents() -> String {
    let mut text = String::new();
    for kind in TopicKind::ALL {
        let of_kind: Vec<_> = topic::all().iter().filter(|topic| topic.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(kind.heading());
        text.push('\n');
        for topic in of_kind {
            text.push_str(&format!("  {:<24} {}\n", topic.word, topic.title));
        }
    }
    text.push_str("\nOne of them: canreach explain WORD\n");
    text
}

//! The documents keep up with the code: every code has its row in `docs/verdicts.md`, and no row
//! speaks of a code that does not exist.

use std::collections::{BTreeMap, BTreeSet};

use canreach_engine::{DropReason, Stage, TheySee, UnknownReason, Verdict};

const VERDICTS: &str = include_str!("../../../docs/verdicts.md");
const RECEIVE_PATH: &str = include_str!("../../../docs/receive-path.md");

/// The rows of a section's table: the code in the first column, and the other columns.
fn rows(document: &str, heading: &str) -> Vec<(String, Vec<String>)> {
    let section = document.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no section {heading}"));
    section
        .lines()
        .filter(|line| line.starts_with("| "))
        .skip(1)
        .map(|line| {
            let mut columns = line.trim_matches('|').split(" | ").map(|c| c.trim().to_owned());
            let first = columns.next().unwrap_or_default();
            (first.trim_matches('`').to_owned(), columns.collect())
        })
        .collect()
}

fn check_codes(heading: &str, codes: &[&str]) {
    let listed: Vec<String> = rows(VERDICTS, heading).into_iter().map(|(code, _)| code).collect();
    let unique: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(unique.len(), listed.len(), "{heading}: a code is listed twice");
    assert_eq!(unique, codes.iter().copied().collect(), "{heading}");
}

#[test]
fn every_code_has_a_row() {
    check_codes("Stops", &DropReason::ALL.map(DropReason::slug));
    check_codes("Doubts", &UnknownReason::ALL.map(UnknownReason::slug));
    check_codes("What they see", &TheySee::ALL.map(TheySee::slug));
    let verdicts = [Verdict::Yes, Verdict::No, Verdict::Partly, Verdict::Unknown];
    check_codes("Verdicts", &verdicts.map(Verdict::slug));
}

#[test]
fn stops_stand_in_path_order_with_their_stage_and_what_they_cause() {
    let sights: BTreeSet<&str> = TheySee::ALL.map(TheySee::slug).into();
    let stages = [
        Stage::Link,
        Stage::Ingress,
        Stage::Prerouting,
        Stage::Route,
        Stage::Input,
        Stage::Forward,
        Stage::Socket,
        Stage::Gate,
        Stage::Reply,
        Stage::Output,
    ];
    let stages: BTreeMap<&str, Stage> = stages.map(|stage| (stage.slug(), stage)).into();
    let stops = rows(VERDICTS, "Stops");
    let order: Vec<&str> = stops.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(order, DropReason::ALL.map(DropReason::slug));
    for (code, columns) in &stops {
        assert_eq!(columns.len(), 4, "{code}: a column is missing");
        for stage in columns[0].split(", ") {
            assert!(stages.contains_key(stage), "{code}: `{stage}` is no stage");
        }
        let quoted = columns[2].split('`').skip(1).step_by(2);
        for sight in quoted {
            assert!(sights.contains(sight), "{code}: nobody sees `{sight}`");
        }
    }
}

#[test]
fn the_receive_path_names_every_stage_once() {
    let listed: Vec<String> =
        rows(RECEIVE_PATH, "# The receive path").into_iter().map(|(stage, _)| stage).collect();
    let stages = [
        Stage::Link,
        Stage::Ingress,
        Stage::Prerouting,
        Stage::Route,
        Stage::Input,
        Stage::Forward,
        Stage::Socket,
        Stage::Gate,
        Stage::Reply,
        Stage::Output,
    ];
    assert_eq!(listed, stages.map(Stage::slug));
}

//! All checks, in the order of their reports.

use crate::tidy::{document, independence, manifest, name, purity, size, slug, stage};
use crate::tree::Tree;

/// Everything that must be mended.
pub(crate) fn findings(tree: &Tree) -> Vec<String> {
    let checks: [fn(&Tree) -> Vec<String>; 14] = [
        size::long_files,
        size::long_functions,
        stage::missing_words,
        stage::code_in_mod,
        name::forbidden_files,
        name::forbidden_items,
        purity::unsafe_outside_its_room,
        purity::input_or_output_in_pure_crates,
        purity::tests_that_sleep_or_are_ignored,
        purity::paths_of_this_machine,
        independence::findings,
        manifest::findings,
        slug::findings,
        document::dead_paths,
    ];
    checks.iter().flat_map(|check| check(tree)).collect()
}

/// Everything that should be looked at.
pub(crate) fn advice(tree: &Tree) -> Vec<String> {
    size::files_over_budget(tree)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree;

    #[test]
    fn the_house_is_tidy() {
        let tree = Tree::read(&tree::root()).expect("the repository can be read");
        let findings = findings(&tree);
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    }
}

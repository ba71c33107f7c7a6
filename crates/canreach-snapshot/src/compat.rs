//! Fix-ups that bring the file of an older canreach up to the present format.
//!
//! Each version that changed the format in a way that serde's defaults cannot bridge has one entry
//! in [`FIX_UPS`]: what to add, move or remove. Entries are applied one after the other, oldest
//! first, so each only has to know its direct successor.

use serde_json::Value;

/// What one version needs to become the next.
pub(crate) struct FixUp {
    /// The version this applies to; the result is the next one.
    pub(crate) from: u32,
    /// The changes, in order.
    pub(crate) changes: &'static [Change],
}

/// One change. A place is a list of keys joined by dots; `key[]` stands for each element of an
/// array. Where a place does not exist there is nothing to change.
#[allow(dead_code, reason = "the first format has no older versions; tests make some up")]
pub(crate) enum Change {
    /// A field that did not exist before, as JSON.
    Add { at: &'static str, key: &'static str, json: &'static str },
    /// A field that got another name within its object.
    Rename { at: &'static str, from: &'static str, to: &'static str },
    /// A field that is gone.
    Remove { at: &'static str, key: &'static str },
}

/// Every fix-up, oldest first. Empty while the format has one version only.
pub(crate) const FIX_UPS: &[FixUp] = &[];

/// Applies every fix-up from a version on.
pub(crate) fn upgrade(file: &mut Value, version: u32, fix_ups: &[FixUp]) {
    for fix_up in fix_ups.iter().filter(|fix_up| fix_up.from >= version) {
        for change in fix_up.changes {
            apply(file, change);
        }
    }
}

fn apply(file: &mut Value, change: &Change) {
    match change {
        Change::Add { at, key, json } => each_object(file, at, &mut |object| {
            let value = serde_json::from_str(json).unwrap_or(Value::Null);
            object.entry(*key).or_insert(value);
        }),
        Change::Rename { at, from, to } => each_object(file, at, &mut |object| {
            if let Some(value) = object.remove(*from) {
                object.insert((*to).to_owned(), value);
            }
        }),
        Change::Remove { at, key } => each_object(file, at, &mut |object| {
            object.remove(*key);
        }),
    }
}

/// Calls `change` for each object at a place. The depth is that of the place, not of the file.
fn each_object(
    value: &mut Value,
    at: &str,
    change: &mut dyn FnMut(&mut serde_json::Map<String, Value>),
) {
    if at.is_empty() {
        if let Some(object) = value.as_object_mut() {
            change(object);
        }
        return;
    }
    let (step, rest) = at.split_once('.').unwrap_or((at, ""));
    if let Some(key) = step.strip_suffix("[]") {
        let elements = value.get_mut(key).and_then(Value::as_array_mut);
        for element in elements.into_iter().flatten() {
            each_object(element, rest, change);
        }
    } else if let Some(inner) = value.get_mut(step) {
        each_object(inner, rest, change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two versions that never were: the first knew links by another key, the second had no gaps.
    const MADE_UP: &[FixUp] = &[
        FixUp {
            from: 1,
            changes: &[
                Change::Rename { at: "namespaces[]", from: "interfaces", to: "links" },
                Change::Remove { at: "namespaces[].links[]", key: "colour" },
            ],
        },
        FixUp { from: 2, changes: &[Change::Add { at: "machine", key: "gaps", json: "[1]" }] },
    ];

    fn check(version: u32, before: &str, after: &str) {
        let mut file: Value = serde_json::from_str(before).expect("the test's own JSON");
        upgrade(&mut file, version, MADE_UP);
        let after: Value = serde_json::from_str(after).expect("the test's own JSON");
        assert_eq!(file, after);
    }

    #[test]
    fn an_older_file_passes_through_every_later_fix_up() {
        check(
            1,
            r#"{"machine":{},"namespaces":[{"interfaces":[{"colour":1,"name":"lo"}]},{}]}"#,
            r#"{"machine":{"gaps":[1]},"namespaces":[{"links":[{"name":"lo"}]},{}]}"#,
        );
        check(
            2,
            r#"{"machine":{},"namespaces":[]}"#,
            r#"{"machine":{"gaps":[1]},"namespaces":[]}"#,
        );
        check(3, r#"{"machine":{}}"#, r#"{"machine":{}}"#);
    }

    #[test]
    fn a_field_that_is_there_already_is_kept() {
        check(2, r#"{"machine":{"gaps":[]}}"#, r#"{"machine":{"gaps":[]}}"#);
    }

    #[test]
    fn a_place_that_does_not_exist_is_no_error() {
        check(1, r#"{"namespaces":7}"#, r#"{"namespaces":7}"#);
        check(1, "[]", "[]");
    }

    #[test]
    fn each_version_before_the_present_one_has_a_fix_up() {
        let versions: Vec<u32> = FIX_UPS.iter().map(|fix_up| fix_up.from).collect();
        assert_eq!(versions, (1..crate::FORMAT_VERSION).collect::<Vec<_>>());
    }
}

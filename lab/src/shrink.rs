//! Finds the smallest host that still shows a disagreement: leaves out lines, more at a time first.

use anyhow::Result;

use crate::compare::Comparison;
use crate::step::Step;

/// Leaves out whatever is not needed. `show` compares on a host and says whether the three differ
/// there; a host that cannot be built does not show anything.
pub fn shrink(
    steps: &[Step],
    shown: Comparison,
    show: impl Fn(&[Step]) -> Result<Option<Comparison>>,
) -> (Vec<Step>, Comparison) {
    let mut steps = steps.to_vec();
    let mut shown = shown;
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut start = 0;
        let mut removed = false;
        while start < steps.len() {
            let end = (start + size).min(steps.len());
            let fewer = [&steps[..start], &steps[end..]].concat();
            // A surprise of another kind is a surprise as well, but not the one that was found.
            match show(&fewer) {
                Ok(Some(comparison)) if comparison.is_like(&shown) => {
                    steps = fewer;
                    shown = comparison;
                    removed = true;
                }
                Ok(_) | Err(_) => start = end,
            }
        }
        if !(removed && size == 1) {
            size /= 2;
        }
    }
    (steps, shown)
}

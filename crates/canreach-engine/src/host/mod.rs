//! The resolved machine: a namespace, indexed for the walk.

use canreach_snapshot::Netns;

/// A namespace, ready to be asked.
#[derive(Debug)]
pub struct Host<'a> {
    netns: &'a Netns,
}

impl<'a> Host<'a> {
    /// Indexes a namespace. Never fails: what is missing makes answers unknown.
    #[must_use]
    pub const fn resolve(netns: &'a Netns) -> Self {
        Self { netns }
    }

    /// What was resolved.
    #[must_use]
    pub const fn netns(&self) -> &'a Netns {
        self.netns
    }
}

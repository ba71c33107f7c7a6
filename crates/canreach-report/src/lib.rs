//! Words: an answer as text and as JSON, and the pages of `explain`.

pub mod topic;
pub mod topic_fact;

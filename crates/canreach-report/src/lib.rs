//! Words: an answer as text for people and as JSON for programs, and the pages of `explain`.
//!
//! Everything here is pure: width, colour and time are arguments. A [`report`] is plain data with
//! the names people know things by; [`text`] and [`json`] print it; [`phrase`], [`rule_phrase`]
//! and [`fix_phrase`] hold the wording; [`rule_text`] spells rules as their tools do.

pub mod fix_phrase;
pub mod json;
pub mod phrase;
pub mod report;
pub mod rule_phrase;
pub mod rule_text;
pub mod text;
pub mod topic;
pub mod topic_fact;

pub use report::check::CheckReport;
pub use report::diff::DiffReport;
pub use report::ip::IpReport;
pub use report::list::ListReport;
pub use report::why::WhyReport;

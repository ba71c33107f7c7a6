//! The model: who can reach what on a machine, and why not.
//!
//! Everything here is pure: a snapshot goes in, an answer comes out, without I/O, clock or
//! randomness. Reading order: [`question`] (what is asked), [`packet`] (packets and sets of them),
//! [`verdict`] and [`trace`] (what comes out), then the stages of the path, then [`explain`] (what would
//! change the answer).

// A new variant of ours must break every place that has to consider it.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod access;
pub mod address_choice;
pub mod ask;
pub mod audience;
pub mod difference;
pub mod expectation;
pub mod explain;
pub mod host;
pub mod link_role;
mod netfilter;
pub mod packet;
pub mod path;
pub mod question;
pub mod reference;
pub mod they_see;
pub mod trace;
pub mod verdict;

pub use host::Host;
pub use packet::address_set::AddressSet;
pub use packet::header::{Arrival, Packet};
pub use path::answer;
pub use question::Question;
pub use they_see::TheySee;
pub use trace::{
    Blocker, Doubt, DoubtEffect, NetnsIndex, NfSubject, SocketIndex, Stage, Step, StepResult,
    Subject,
};
pub use verdict::{Answer, DropReason, Fate, Group, Outcome, UnknownReason, Verdict};

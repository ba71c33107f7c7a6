//! The second opinion: the fate of ONE packet, worked out the slow and obvious way.
//!
//! [`walk()`] follows a packet through the snapshot as the kernel would, with linear scans, no index
//! and no sets. Each function mirrors one function of the kernel and names it. It shares plain data
//! with the rest of the engine (the snapshot, [`Packet`](crate::Packet), [`Fate`](crate::Fate) and
//! the reasons) and no evaluation code, or one mistake could hide in both.
//!
//! Reading order: `walk` (the stages), `link`, `route`, `table`, `rule`, `source`, `socket`,
//! `output`, `source_choice`, `reply`, `local`; `netfilter/` judges packet filters; `hook` holds what
//! cannot be judged, `fork` what becomes of a packet then.

mod fork;
mod hook;
mod link;
mod local;
mod netfilter;
mod output;
mod reply;
mod route;
mod rule;
mod socket;
mod source;
mod source_choice;
mod table;
#[cfg(test)]
mod tests;
mod walk;

pub use walk::walk;

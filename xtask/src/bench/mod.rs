//! `cargo xtask bench`: whole programs, timed side by side on machines of three sizes.
//!
//! Each setting is built in a network and PID namespace of its own, with a cgroup per server, and
//! is gone afterwards. Ratios are what counts: every round runs each program once, in turn.

mod cgroup;
mod member;
mod outside;
mod round;
mod setting;
mod table;
mod tool;

pub(crate) use member::{MEMBER, run_member};
pub(crate) use outside::run;
pub(crate) use round::{INSIDE, run_inside};

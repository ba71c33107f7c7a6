//! The test lab: real namespaces, the kernel against the reference evaluator against the engine.
//!
//! Reading order: [`step`] (what is done to a host), [`probe`] (what is asked), [`topology`] (how it
//! is built), [`peer`], [`client`] (how it is asked), then what is compared with what.

pub mod builder;
pub mod case;
pub mod client;
pub mod command;
pub mod compare;
mod corpus;
pub mod differential;
pub mod examine;
pub mod filter_step;
pub mod fix;
pub mod frame;
pub mod generate;
mod generate_rules;
mod generate_xtables;
pub mod judge;
pub mod netlink;
pub mod netns;
pub mod observe;
pub mod peer;
pub mod probe;
pub mod question;
pub mod random;
mod random_run;
pub mod raw;
pub mod route_step;
pub mod rule_step;
pub mod server;
pub mod settle;
pub mod shrink;
pub mod sickbay;
pub mod step;
pub mod sysctl;
pub mod topology;
pub mod trace;
pub mod wiring;
pub mod words;

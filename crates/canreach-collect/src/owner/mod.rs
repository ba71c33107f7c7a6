//! Who holds the sockets: from inode and control group to processes, units and containers.
//!
//! Narrow first, then scan. The control group of a socket's creator leads to the few processes
//! whose descriptors are worth reading; only what they do not hold is looked for in the whole of
//! /proc. What no descriptor shows may be inferred, and is labelled as such. Where nothing is found, the
//! reason comes from the errors that were met, never from who is asking.
//!
//! Left out: which thread serves a socket, and descriptors that no directory shows (in flight
//! between processes, or registered with io_uring only).

mod docker_proxy;
mod inference;
mod reason;
mod resolve;
mod search;
mod unit_file;

pub(crate) use resolve::resolve;

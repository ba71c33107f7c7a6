//! What comes from /proc.

pub(crate) mod fib_layout;
pub(crate) mod process;
pub(crate) mod socket_table;
pub(crate) mod sysctl;

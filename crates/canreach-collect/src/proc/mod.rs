//! What comes from /proc.

pub(crate) mod fib_layout;
pub(crate) mod process;
pub(crate) mod sysctl;

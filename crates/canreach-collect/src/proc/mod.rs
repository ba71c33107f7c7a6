//! What comes from /proc.

pub(crate) mod sysctl;

//! What packet filters a namespace has: that they are there, not yet what they decide.

pub(crate) mod hint;
mod ipset;
pub(crate) mod legacy;
pub(crate) mod presence;
pub(crate) mod ufw;

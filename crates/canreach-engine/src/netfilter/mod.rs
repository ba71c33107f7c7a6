//! Rules of every generation of netfilter, for all sources at once.

pub(crate) mod view;

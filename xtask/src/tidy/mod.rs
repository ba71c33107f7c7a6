//! House style, as far as a program can see it: mostly things that must be absent.
//!
//! Each check takes the whole [`Tree`](crate::tree::Tree), and its tests show it a tree that breaks
//! the rule. What is not checked: meaning.

mod check;
mod document;
mod independence;
mod manifest;
mod name;
mod purity;
mod rust_text;
mod size;
mod slug;
mod stage;

pub(crate) use check::{advice, findings};

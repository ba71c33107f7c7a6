//! Reports as text for a terminal: 80 columns, colour only where asked for, nothing by colour alone.

pub mod check;
mod circle;
pub mod diff;
mod fix;
pub mod ip;
pub mod line;
pub mod list;
mod source;
mod step;
mod verdict;
pub mod why;

pub use line::Look;

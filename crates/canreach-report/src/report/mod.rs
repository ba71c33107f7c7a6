//! Reports: answers as plain data, with the names people know things by.

pub mod check;
pub mod diff;
pub mod firewall;
pub mod fix;
pub mod ip;
pub mod list;
pub mod program;
pub mod server;
pub mod subject;
pub mod unknown;
pub mod url;
pub mod why;

//! From an answer to what would change it.
//!
//! Reading order: [`command_line`] (what a process runs), [`known_server`] (which server that is),
//! [`launcher`] (how it was started), [`fix`] (what a fix is), [`bind_remedy`] (the switch that makes a
//! server listen to others), [`link_remedy`] and [`route_remedy`] (links, sysctls, routes),
//! [`rule_owner`] (whose a rule is) and `firewall_remedy` (letting in, past it), [`remedy`]
//! (the fixes of each reason). What is returned are commands and enums; sentences are the report's.

pub mod bind_remedy;
pub mod command_line;
mod firewall_remedy;
pub mod fix;
pub mod known_server;
pub mod launcher;
pub mod link_remedy;
pub mod near_port;
pub mod remedy;
pub mod route_remedy;
pub mod rule_owner;

#[cfg(test)]
mod test_host;

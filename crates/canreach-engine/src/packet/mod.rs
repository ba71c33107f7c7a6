//! Packets, and sets of packets.

pub mod address_set;
pub mod header;

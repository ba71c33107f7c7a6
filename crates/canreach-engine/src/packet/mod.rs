//! Packets, and sets of packets.

pub mod address_set;
pub mod diagram;
pub mod field;
pub mod header;
pub mod packet_set;

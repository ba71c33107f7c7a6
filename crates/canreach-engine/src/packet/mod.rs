//! Packets, and sets of packets.

pub mod address_set;
pub mod atoms;
pub mod diagram;
pub mod field;
pub mod header;
pub mod packet_set;
pub mod witness;

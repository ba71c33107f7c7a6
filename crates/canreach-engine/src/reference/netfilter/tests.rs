//! Packet filters on small hosts.

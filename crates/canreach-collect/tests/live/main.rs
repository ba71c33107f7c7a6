//! Reading real network namespaces, made for the test and gone with it.
//!
//! Making one needs root; without, each test says that it was skipped and passes.

mod changes;
mod decoder;
mod filters;
mod ipsets;
mod links;
mod namespace;
mod namespaces;
mod nft;
mod routes;
mod rules;
mod sockets;
mod xt;

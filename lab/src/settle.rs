//! Waiting until a namespace has come to rest.
//!
//! The kernel puts the local route of an IPv6 address in place a moment after the address
//! (net/ipv6/addrconf.c, addrconf_dad_start), and until then takes it for somebody else's.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use canreach_snapshot::address::address_value;

/// How long a namespace may take.
pub const SETTLE: Duration = Duration::from_millis(500);
/// How long a peer may take, which always comes to rest: longer, for the days when a machine is busy.
pub const PEER_SETTLE: Duration = Duration::from_secs(10);

/// Waits until the calling thread's namespace has local routes for these addresses, those of IPv6
/// at least; `false` if they do not come in time.
///
/// # Errors
/// If the routes cannot be read.
pub fn wait_for_local_routes(
    addresses: impl IntoIterator<Item = IpAddr>,
    patience: Duration,
) -> Result<bool> {
    let wanted: Vec<String> = addresses
        .into_iter()
        .filter(IpAddr::is_ipv6)
        .map(|address| format!("{:032x} 80 ", address_value(address)))
        .collect();
    let path = "/proc/thread-self/net/ipv6_route";
    let deadline = Instant::now() + patience;
    loop {
        let routes = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        let there = |start: &String| routes.lines().any(|line| line.starts_with(start));
        if wanted.iter().all(there) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::yield_now();
    }
}

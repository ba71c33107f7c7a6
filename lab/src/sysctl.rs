//! Writing sysctls of the namespace that the calling thread is in.

use anyhow::{Context, Result};

/// Writes one sysctl. Parts are divided by dots, so a link whose name holds a dot cannot be named.
///
/// # Errors
/// If it is not there or the kernel refuses the value.
pub fn write(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    std::fs::write(&path, value).with_context(|| format!("write {value} to {path}"))
}

/// Writes several.
///
/// # Errors
/// With the first that failed.
pub fn write_all(settings: &[(&str, &str)]) -> Result<()> {
    settings.iter().try_for_each(|(name, value)| write(name, value))
}

/// What every namespace of the lab starts with, so that a run does not depend on the machine: a new
/// namespace inherits IPv4 settings from the first one (net/ipv4/devinet.c, devinet_init_net).
///
/// # Errors
/// If one cannot be written.
pub fn write_defaults() -> Result<()> {
    write("net.ipv4.ip_forward", "0")?;
    for set in ["all", "default"] {
        for name in [
            "rp_filter",
            "accept_local",
            "route_localnet",
            "src_valid_mark",
            "arp_ignore",
            "arp_filter",
            "arp_announce",
            "proxy_arp",
            "ignore_routes_with_linkdown",
            "drop_unicast_in_l2_multicast",
        ] {
            write(&format!("net.ipv4.conf.{set}.{name}"), "0")?;
        }
        // No waiting for duplicates: addresses are usable at once. Both values count.
        write(&format!("net.ipv6.conf.{set}.accept_dad"), "0")?;
    }
    write_all(&[
        ("net.ipv6.conf.default.router_solicitations", "0"),
        // Errors are told to every client, not to the first few of each second.
        ("net.ipv4.icmp_ratemask", "0"),
        ("net.ipv6.icmp.ratelimit", "0"),
        ("net.ipv6.icmp.ratemask", "0"),
    ])
}

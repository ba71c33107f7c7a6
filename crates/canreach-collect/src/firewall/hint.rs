//! What files say about the firewall to everybody.

use canreach_snapshot::FirewallHint;

/// Where ufw keeps whether it is on.
const UFW: &str = "/etc/ufw/ufw.conf";

/// Reads what there is.
pub(crate) fn read() -> Vec<FirewallHint> {
    let Ok(text) = std::fs::read_to_string(UFW) else { return Vec::new() };
    vec![FirewallHint {
        source: UFW.to_owned(),
        program: "ufw".to_owned(),
        enabled: ufw_enabled(&text),
    }]
}

/// ufw takes the last `ENABLED=yes` or `ENABLED=no`, whatever the case.
fn ufw_enabled(text: &str) -> Option<bool> {
    text.lines().rev().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        match (name.trim().eq_ignore_ascii_case("enabled"), value) {
            (true, yes) if yes.eq_ignore_ascii_case("yes") => Some(true),
            (true, no) if no.eq_ignore_ascii_case("no") => Some(false),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ufw_says_whether_it_is_on() {
        for (text, expected) in [
            ("# ENABLED=yes by default\nENABLED=no\nLOGLEVEL=low\n", Some(false)),
            ("ENABLED=yes\n", Some(true)),
            ("ENABLED=\"Yes\"\n", Some(true)),
            ("ENABLED=no\nENABLED=yes\n", Some(true)),
            ("ENABLED=maybe\n", None),
            ("", None),
        ] {
            assert_eq!(ufw_enabled(text), expected, "{text:?}");
        }
    }
}

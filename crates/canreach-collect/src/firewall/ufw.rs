//! How ufw numbers its rules.
//!
//! The kernel's rules do not say which of ufw's they belong to; ufw's own list does, in comments
//! (`### tuple ###`) in front of the lines of each rule. Only root may read it. `ufw status numbered`
//! counts the rules for IPv4 first, then those for IPv6; rules that one application profile made count
//! as one (ufw 0.36, `get_status` and `get_app_tuple`).

use canreach_snapshot::UfwRule;

/// Where Debian and most others keep the lists; older versions had them in /lib/ufw.
const DIRECTORIES: [&str; 2] = ["/etc/ufw", "/lib/ufw"];
/// Whether ufw speaks IPv6 at all.
const DEFAULTS: &str = "/etc/default/ufw";
/// Longer lists than this were not written by a person.
const RULES_MAX: usize = 100_000;

/// Reads the lists; `None` if there is none that may be read.
pub(crate) fn read() -> Option<Vec<UfwRule>> {
    let file = |name: &str| {
        let text = |directory: &&str| std::fs::read_to_string(format!("{directory}/{name}")).ok();
        DIRECTORIES.iter().find_map(text)
    };
    let ipv4 = file("user.rules")?;
    let defaults = std::fs::read_to_string(DEFAULTS).unwrap_or_default();
    let ipv6 = if speaks_ipv6(&defaults) { file("user6.rules")? } else { String::new() };
    let rules = numbered(&[&ipv4, &ipv6]);
    (rules.len() <= RULES_MAX).then_some(rules)
}

/// `IPV6=yes` is the default, and anything else but `no` means it too.
fn speaks_ipv6(defaults: &str) -> bool {
    let values = defaults.lines().rev().filter_map(|line| line.split_once('='));
    let value = values.filter(|(name, _)| name.trim() == "IPV6").map(|(_, value)| value).next();
    value.is_none_or(|value| !value.trim().trim_matches(['"', '\'']).eq_ignore_ascii_case("no"))
}

/// Counts the rules of lists, one after the other.
fn numbered(lists: &[&str]) -> Vec<UfwRule> {
    let mut rules: Vec<UfwRule> = Vec::new();
    let mut profiles: Vec<(String, u32)> = Vec::new();
    let mut last = 0;
    for list in lists {
        let mut current = None;
        for line in list.lines() {
            if let Some(tuple) = line.strip_prefix("### tuple ###") {
                let known = profile(tuple).and_then(|profile| {
                    profiles.iter().find(|(name, _)| *name == profile).map(|(_, number)| *number)
                });
                let number = known.unwrap_or_else(|| {
                    last += 1;
                    profiles.extend(profile(tuple).map(|profile| (profile, last)));
                    last
                });
                current = Some(number);
            } else if line.starts_with("### ") {
                // The rules of logging and limits, which are nobody's.
                current = None;
            }
            let (Some(number), Some(chain)) = (current, appended_to(line)) else { continue };
            match rules.last_mut() {
                Some(rule) if rule.number == number && rule.chain == chain => rule.lines += 1,
                _ => rules.push(UfwRule { number, chain: chain.to_owned(), lines: 1 }),
            }
        }
    }
    rules
}

/// The chain of users' rules that a line adds to.
fn appended_to(line: &str) -> Option<&str> {
    let chain = line.strip_prefix("-A ")?.split_whitespace().next()?;
    ["-user-input", "-user-output", "-user-forward"]
        .iter()
        .any(|end| chain.ends_with(end))
        .then_some(chain)
}

/// What makes rules of one application profile the same: both applications, or the application on one
/// side and the port on the other, both addresses, and the links or the direction.
fn profile(tuple: &str) -> Option<String> {
    let tuple = tuple.split(" comment=").next().unwrap_or(tuple);
    let fields: Vec<&str> = tuple.split_whitespace().collect();
    let [_, _, dport, dst, sport, src, dapp, sapp, direction] = fields[..] else { return None };
    let (to, from) = match (dapp, sapp) {
        ("-", "-") => return None,
        ("-", sapp) => (dport, sapp),
        (dapp, "-") => (dapp, sport),
        both => both,
    };
    Some([to, dst, from, src, direction].join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IPV4: &str = "*filter
:ufw-user-input - [0:0]
### RULES ###

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-input -p tcp --dport 22 -j ACCEPT

### tuple ### allow any 53 0.0.0.0/0 any 0.0.0.0/0 in comment=444e53
-A ufw-user-input -p tcp --dport 53 -j ACCEPT
-A ufw-user-input -p udp --dport 53 -j ACCEPT

### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 Web%20Server - in
-A ufw-user-input -p tcp --dport 80 -j ACCEPT -m comment --comment 'dapp_Web%20Server'

### tuple ### allow udp 443 0.0.0.0/0 any 0.0.0.0/0 Web%20Server - in
-A ufw-user-input -p udp --dport 443 -j ACCEPT -m comment --comment 'dapp_Web%20Server'

### tuple ### limit_log tcp 2222 0.0.0.0/0 any 0.0.0.0/0 in
-A ufw-user-logging-input -p tcp --dport 2222 -j RETURN
-A ufw-user-input -p tcp --dport 2222 -j ufw-user-logging-input
-A ufw-user-input -p tcp --dport 2222 -j ufw-user-limit-accept

### tuple ### route:allow tcp 8080 0.0.0.0/0 any 0.0.0.0/0 in_eth0!out_docker0
-A ufw-user-forward -i eth0 -o docker0 -p tcp --dport 8080 -j ACCEPT

### END RULES ###

### LOGGING ###
-A ufw-after-logging-input -j LOG
### END LOGGING ###
";
    const IPV6: &str = "### tuple ### allow tcp 22 ::/0 any ::/0 in
-A ufw6-user-input -p tcp --dport 22 -j ACCEPT
";

    #[test]
    fn rules_are_counted_as_ufw_counts_them() {
        let found: Vec<(u32, String, u32)> = numbered(&[IPV4, IPV6])
            .into_iter()
            .map(|rule| (rule.number, rule.chain, rule.lines))
            .collect();
        let rule = |number, chain: &str, lines| (number, chain.to_owned(), lines);
        assert_eq!(
            found,
            [
                rule(1, "ufw-user-input", 1),
                rule(2, "ufw-user-input", 2),
                // Two rules of one application.
                rule(3, "ufw-user-input", 2),
                rule(4, "ufw-user-input", 2),
                rule(5, "ufw-user-forward", 1),
                rule(6, "ufw6-user-input", 1),
            ]
        );
    }

    #[test]
    fn ipv6_is_on_unless_it_is_off() {
        for (text, expected) in [
            ("", true),
            ("IPV6=yes\n", true),
            ("IPV6=no\n", false),
            ("IPV6=\"No\"\n", false),
            ("#IPV6=no\nIPV6=yes\n", true),
        ] {
            assert_eq!(speaks_ipv6(text), expected, "{text:?}");
        }
    }
}

//! Names that are replaced by counters: equal names by equal ones, different by different ones.
//!
//! Names that every machine may have (`eth0`, `docker0`, `ssh.service`, `node`) tell nothing and
//! stay. The model judges some links by the start of their name, so that stays as well.

use std::collections::{BTreeMap, BTreeSet};

use super::met::Met;
use super::nft::{self, NameUse};
use crate::nft::Ruleset;
use crate::{MacAddress, Snapshot};

/// How names of links start that kernel, systemd, container engines and VPN programs give.
const LINK_NAMES: [&str; 38] = [
    "docker",
    "br-",
    "veth",
    "virbr",
    "vnet",
    "lxcbr",
    "lxdbr",
    "incusbr",
    "podman",
    "cni",
    "flannel",
    "cali",
    "kube",
    "tun",
    "wg",
    "tailscale",
    "zt",
    "nordlynx",
    "utun",
    "eth",
    "en",
    "wlan",
    "wl",
    "ww",
    "usb",
    "bond",
    "team",
    "br",
    "dummy",
    "vlan",
    "vrf",
    "ppp",
    "tap",
    "gre",
    "sit",
    "ifb",
    "macvlan",
    "ipvlan",
];

/// Programs, and units of them, that are as common as to tell nothing.
const PROGRAMS: [&str; 44] = [
    "systemd",
    "systemd-resolved",
    "systemd-resolve",
    "systemd-network",
    "systemd-networkd",
    "systemd-timesyncd",
    "init",
    "dbus-daemon",
    "ssh",
    "sshd",
    "cupsd",
    "cups",
    "cups-browsed",
    "avahi-daemon",
    "chronyd",
    "NetworkManager",
    "dhclient",
    "dnsmasq",
    "rpcbind",
    "nginx",
    "apache2",
    "httpd",
    "caddy",
    "node",
    "python",
    "python3",
    "ruby",
    "php",
    "java",
    "postgres",
    "postgresql",
    "mysqld",
    "mariadbd",
    "redis-server",
    "mongod",
    "docker",
    "dockerd",
    "docker-proxy",
    "containerd",
    "podman",
    "sh",
    "bash",
    "npm",
    "sudo",
];

/// Parts of paths of control groups that systemd and container engines give everywhere.
const GROUPS: [&str; 13] = [
    "system.slice",
    "user.slice",
    "machine.slice",
    "app.slice",
    "session.slice",
    "background.slice",
    "init.scope",
    "docker",
    "lxc",
    "libpod_parent",
    "kubepods",
    "kubepods.slice",
    "container",
];

/// Tables and chains that people take from examples.
const FILTERS: [&str; 20] = [
    "filter",
    "nat",
    "mangle",
    "raw",
    "security",
    "firewalld",
    "INPUT",
    "OUTPUT",
    "FORWARD",
    "PREROUTING",
    "POSTROUTING",
    "input",
    "output",
    "forward",
    "prerouting",
    "postrouting",
    "ingress",
    "egress",
    "input_wan",
    "forward_wan",
];

/// How chains begin that programs give the same names everywhere.
const FILTER_STARTS: [&str; 4] = ["ufw-", "ufw6-", "DOCKER", "LIBVIRT_"];

/// One kind of names.
#[derive(Debug, Default)]
struct Names {
    replaced: BTreeMap<String, String>,
    /// Names that were there before, which no replacement may take.
    present: BTreeSet<String>,
    counts: BTreeMap<String, usize>,
    /// How some of these names begin that stay: no replacement may begin so.
    kept_starts: BTreeSet<String>,
}

/// After so many replacements in a row that are not free, a name stays.
const ATTEMPTS: usize = 100_000;

impl Names {
    /// The replacement of a name: a start, a counter, and an end.
    fn replace(&mut self, name: &str, start: &str, end: &str) -> String {
        if let Some(replaced) = self.replaced.get(name) {
            return replaced.clone();
        }
        let count = self.counts.entry(start.to_owned()).or_default();
        let mut replaced = name.to_owned();
        for _ in 0..ATTEMPTS {
            *count += 1;
            let candidate = format!("{start}{count}{end}");
            let taken = self.present.contains(&candidate);
            if !taken && !self.kept_starts.iter().any(|kept| candidate.starts_with(kept)) {
                replaced = candidate;
                break;
            }
        }
        self.replaced.insert(name.to_owned(), replaced.clone());
        replaced
    }
}

/// Every replacement made so far.
#[derive(Debug)]
pub(crate) struct NameMap {
    links: Names,
    units: Names,
    groups: Names,
    containers: Names,
    namespaces: Names,
    programs: Names,
    filters: Names,
    sets: Names,
    /// How names of links start in rules, and what they start with instead.
    link_starts: BTreeMap<String, String>,
    /// How names of links start of which nothing is known.
    other_links: &'static str,
    macs: BTreeMap<[u8; 6], MacAddress>,
}

impl Default for NameMap {
    fn default() -> Self {
        Self {
            links: Names::default(),
            units: Names::default(),
            groups: Names::default(),
            containers: Names::default(),
            namespaces: Names::default(),
            programs: Names::default(),
            filters: Names::default(),
            sets: Names::default(),
            link_starts: BTreeMap::new(),
            other_links: "link",
            macs: BTreeMap::new(),
        }
    }
}

impl NameMap {
    /// Knows which names are there, so that no replacement takes one.
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let mut map = Self::default();
        let mut starts = BTreeSet::new();
        for netns in &snapshot.namespaces {
            let met = Met::of(&netns.firewall);
            map.links.present.extend(met.links);
            map.filters.present.extend(met.chains);
            map.sets.present.extend(met.sets);
            starts.extend(met.link_starts.into_iter().map(|start| (start.len(), start)));
            let links = netns.links.iter().map(|link| &link.name);
            let rules = netns.policy_rules.iter().flat_map(|rule| rule.iif.iter().chain(&rule.oif));
            let devices = netns.firewall.chains.iter().flat_map(|chain| &chain.devices);
            let all = links.chain(rules).chain(devices).chain(netns.sysctls.links.keys());
            map.links.present.extend(all.cloned());
            let chains = netns.firewall.chains.iter();
            let names = chains.flat_map(|chain| [&chain.table, &chain.name]);
            map.filters.present.extend(names.cloned());
            if let Some(ruleset) = &netns.firewall.nft {
                map.know_ruleset(ruleset);
            }
        }
        // Shorter ones first: longer ones may start with them.
        map.exchange_starts(starts.into_iter().map(|(_, start)| start).collect());
        map.programs.present = snapshot.processes.iter().map(|it| it.comm.clone()).collect();
        for group in &snapshot.cgroups {
            let parts: Vec<String> = group.path.split('/').map(str::to_owned).collect();
            map.units.present.extend(parts.iter().cloned());
            map.groups.present.extend(parts);
        }
        map
    }

    fn know_ruleset(&mut self, ruleset: &Ruleset) {
        nft::names(ruleset, &mut |used| match used {
            NameUse::Exact(name) => _ = self.links.present.insert(name),
            NameUse::Start(start) => self.keep_start(start),
        });
        for table in &ruleset.tables {
            let chains = table.chains.iter().map(|chain| &chain.name);
            let sets = table.sets.iter().map(|set| &set.name);
            let objects = table.objects.iter().map(|object| &object.name);
            let flowtables = table.flowtables.iter().map(|flowtable| &flowtable.name);
            let all = chains.chain(sets).chain(objects).chain(flowtables).chain([&table.name]);
            self.filters.present.extend(all.cloned());
        }
    }

    /// Rules ask how names of links begin. Where that is how everybody's begin, replacements begin so
    /// as well; otherwise, names that begin so stay, and others are not given such a name.
    pub(crate) fn keep_start(&mut self, start: String) {
        if !LINK_NAMES.contains(&start.as_str()) {
            self.links.kept_starts.insert(start);
        }
    }

    pub(crate) fn link(&mut self, name: &str) -> String {
        if self.links.kept_starts.iter().any(|kept| name.starts_with(kept)) {
            return name.to_owned();
        }
        let known = known_start(name);
        let plain = known.is_some_and(|start| is_number(&name[start.len()..]));
        // The root of each sysctl directory is no link.
        if plain || matches!(name, "lo" | "all" | "default") {
            return name.to_owned();
        }
        let start = self.start_of(name).unwrap_or(self.other_links).to_owned();
        self.links.replace(name, &start, "")
    }

    /// How names of links start in a rule: those that started so still do, and no others.
    pub(crate) fn link_start(&mut self, start: &str) -> String {
        self.link_starts.get(start).cloned().unwrap_or_else(|| start.to_owned())
    }

    /// What the longest known start of a name is exchanged for.
    fn start_of(&self, name: &str) -> Option<&str> {
        let known = known_start(name).map(|start| (start.len(), start));
        let starts = self.link_starts.iter().filter(|(start, _)| name.starts_with(*start));
        let in_rules = starts.map(|(start, exchanged)| (start.len(), exchanged.as_str()));
        known.into_iter().chain(in_rules).max_by_key(|(length, _)| *length).map(|(_, it)| it)
    }

    fn exchange_starts(&mut self, starts: Vec<String>) {
        let other = ["link", "net", "dev", "x", "q", "j"].into_iter();
        let mut other = other.filter(|other| !starts.iter().any(|start| other.starts_with(start)));
        self.other_links = other.next().unwrap_or("link");
        for (count, start) in starts.into_iter().enumerate() {
            let known = known_start(&start);
            // A start of what stays stays: what has a number alone behind a known start does.
            let mut kept = self.links.kept_starts.iter();
            let stays = LINK_NAMES.iter().any(|name| name.starts_with(&start))
                || kept.any(|kept| kept.starts_with(&start) || start.starts_with(kept))
                || known.is_some_and(|known| is_number(&start[known.len()..]));
            let exchanged = if stays {
                start.clone()
            } else {
                // Counted names go on with a digit.
                format!("{}g{}-", self.start_of(&start).unwrap_or(self.other_links), count + 1)
            };
            self.link_starts.insert(start, exchanged);
        }
    }

    /// A set of ipset, and what else rules share by name.
    pub(crate) fn set(&mut self, name: &str) -> String {
        self.sets.replace(name, "set", "")
    }

    /// The full name of a sysctl, which may hold the name of a link: `net.ipv4.conf.NAME.rp_filter`.
    /// Names of links may hold dots themselves.
    pub(crate) fn sysctl(&mut self, name: &str) -> String {
        for start in ["net.ipv4.conf.", "net.ipv6.conf."] {
            if let Some((link, key)) = name.strip_prefix(start).and_then(|it| it.rsplit_once('.')) {
                return format!("{start}{}.{key}", self.link(link));
            }
        }
        name.to_owned()
    }

    pub(crate) fn unit(&mut self, name: &str) -> String {
        let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, "service"));
        let numbered = ["user@", "user-", "session-"]
            .iter()
            .any(|start| stem.strip_prefix(start).is_some_and(is_number));
        if numbered || PROGRAMS.contains(&stem) || GROUPS.contains(&name) {
            return name.to_owned();
        }
        self.units.replace(name, "unit", &format!(".{suffix}"))
    }

    /// Component by component, so that what was below a group still is.
    pub(crate) fn cgroup_path(&mut self, path: &str) -> String {
        let part = |part: &str| {
            if part.is_empty() || GROUPS.contains(&part) {
                part.to_owned()
            } else if [".service", ".socket", ".scope", ".slice"]
                .iter()
                .any(|it| part.ends_with(it))
            {
                self.unit(part)
            } else {
                self.groups.replace(part, "group", "")
            }
        };
        path.split('/').map(part).collect::<Vec<_>>().join("/")
    }

    pub(crate) fn container(&mut self, id: &str) -> String {
        self.containers.replace(id, "container", "")
    }

    pub(crate) fn netns(&mut self, name: &str) -> String {
        self.namespaces.replace(name, "netns", "")
    }

    pub(crate) fn program(&mut self, comm: &str) -> String {
        if PROGRAMS.contains(&comm) {
            return comm.to_owned();
        }
        self.programs.replace(comm, "program", "")
    }

    /// A table or chain of a packet filter.
    pub(crate) fn filter(&mut self, name: &str) -> String {
        let by_kernel = ["__set", "__map", "__chain"]
            .iter()
            .any(|start| name.strip_prefix(start).is_some_and(is_number));
        let by_program = FILTER_STARTS.iter().any(|start| name.starts_with(start));
        if by_kernel || by_program || FILTERS.contains(&name) {
            return name.to_owned();
        }
        self.filters.replace(name, "rules", "")
    }

    /// A hardware address: locally administered ones, counted. No device and everyone stay.
    pub(crate) fn mac(&mut self, mac: MacAddress) -> MacAddress {
        if [[0; 6], [0xff; 6]].contains(&mac.0) {
            return mac;
        }
        let count = u32::try_from(self.macs.len() + 1).unwrap_or(u32::MAX);
        *self.macs.entry(mac.0).or_insert_with(|| {
            let [a, b, c, d] = count.to_be_bytes();
            MacAddress([0x02, 0, a, b, c, d])
        })
    }
}

/// The longest known start of a link's name.
fn known_start(name: &str) -> Option<&'static str> {
    let starts = LINK_NAMES.iter().filter(|start| name.starts_with(**start));
    starts.max_by_key(|start| start.len()).copied()
}

/// One to four digits: an index, not an identifier.
fn is_number(text: &str) -> bool {
    (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rename: impl Fn(&mut NameMap, &str) -> String, cases: &[(&str, &str)]) {
        let mut map = NameMap::default();
        map.links.present.insert("link1".into());
        for (name, expect) in cases {
            assert_eq!(rename(&mut map, name), *expect, "{name}");
        }
        for (name, expect) in cases {
            assert_eq!(rename(&mut map, name), *expect, "{name}, asked again");
        }
    }

    #[test]
    fn names_of_links_keep_what_the_model_reads_of_them() {
        check(
            |map, name| map.link(name),
            &[
                ("lo", "lo"),
                ("eth0", "eth0"),
                ("docker0", "docker0"),
                ("wlx00c0ca981234", "wl1"),
                ("enp3s0", "en1"),
                ("enx00c0ca981234", "en2"),
                ("br-5f3a2b1c0d9e", "br-1"),
                ("veth1a2b3c4", "veth1"),
                ("wg-acme", "wg1"),
                // `link1` is the name of another link.
                ("acme", "link2"),
                ("eth0.100", "eth1"),
                ("eth12345", "eth2"),
                ("", "link3"),
            ],
        );
    }

    #[test]
    fn what_a_rule_matches_by_the_start_it_still_does_and_nothing_else() {
        let starts = ["acme", "acme-lan", "br-5f3a", "eth", "eth1", "eth1.", "l", "ve", "x-"];
        let links = [
            "acme",
            "acme-lan0",
            "acme-lan",
            "acm",
            "br-5f3a2b1c0d9e",
            "br-77",
            "br0",
            "eth0",
            "eth1",
            "eth10",
            "eth1.100",
            "eth100.5",
            "lan",
            "lo",
            "veth1a2b3c4",
            "vexed",
            "x-1",
            "y",
        ];
        let mut map = NameMap::default();
        map.links.present.extend(links.map(str::to_owned));
        map.exchange_starts(starts.map(str::to_owned).into());
        for start in starts {
            let exchanged = map.link_start(start);
            for link in links {
                let renamed = map.link(link);
                let (before, after) = (link.starts_with(start), renamed.starts_with(&exchanged));
                assert_eq!(before, after, "{start} {exchanged}: {link} {renamed}");
            }
        }
        assert!(!map.link_start("acme-lan").contains("acme"));
    }

    #[test]
    fn sysctls_follow_the_links() {
        check(
            |map, name| map.sysctl(name),
            &[
                ("net.ipv4.conf.all.rp_filter", "net.ipv4.conf.all.rp_filter"),
                ("net.ipv4.conf.acme.5.rp_filter", "net.ipv4.conf.link2.rp_filter"),
                ("net.ipv6.conf.acme.5.forwarding", "net.ipv6.conf.link2.forwarding"),
                ("net.ipv4.tcp_l3mdev_accept", "net.ipv4.tcp_l3mdev_accept"),
            ],
        );
    }

    #[test]
    fn paths_of_control_groups_nest_as_before() {
        check(
            |map, path| map.cgroup_path(path),
            &[
                ("/", "/"),
                ("/system.slice/ssh.service", "/system.slice/ssh.service"),
                ("/system.slice/acme.service", "/system.slice/unit1.service"),
                ("/system.slice/acme.service/worker", "/system.slice/unit1.service/group1"),
                (
                    "/user.slice/user-1000.slice/session-3.scope",
                    "/user.slice/user-1000.slice/session-3.scope",
                ),
                ("/docker/4f9c", "/docker/group2"),
                (
                    "/user.slice/user-1000.slice/user@1000.service/app.slice/app-acme.scope",
                    "/user.slice/user-1000.slice/user@1000.service/app.slice/unit2.scope",
                ),
            ],
        );
        let mut map = NameMap::default();
        let path = map.cgroup_path("/system.slice/acme.service");
        assert!(path.ends_with(&map.unit("acme.service")), "a unit is named as its group is");
    }

    #[test]
    fn other_names_stay_or_are_counted() {
        check(|map, name| map.program(name), &[("node", "node"), ("acme", "program1")]);
        check(|map, name| map.filter(name), &[("filter", "filter"), ("acme", "rules1")]);
        check(|map, name| map.netns(name), &[("blue", "netns1"), ("red", "netns2")]);
        check(|map, name| map.container(name), &[("4f9c", "container1")]);
    }

    #[test]
    fn hardware_addresses_stay_apart() {
        let mut map = NameMap::default();
        let mac = |last| MacAddress([0x52, 0x54, 0, 1, 2, last]);
        let (one, two) = (map.mac(mac(1)), map.mac(mac(2)));
        assert_eq!((one, two), (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2])));
        assert_eq!(map.mac(mac(1)), one);
        assert_eq!(map.mac(MacAddress([0xff; 6])), MacAddress([0xff; 6]));
    }
}

//! Random rules of iptables, for the legacy program and the one over nftables alike, and the sets of
//! ipset that they name.

use canreach_snapshot::Family;

use crate::filter_step::{FilterStep, Loader};
use crate::generate_rules::{Lines, Vocabulary, short};

/// A set of ipset, by its name: of which family, and how it is looked up.
const SETS: [(&str, &str, Option<Family>, &str); 6] = [
    ("ips4", "hash:ip", Some(Family::Ipv4), "src"),
    ("ips6", "hash:ip family inet6", Some(Family::Ipv6), "src"),
    ("nets4", "hash:net", Some(Family::Ipv4), "src"),
    ("nets6", "hash:net family inet6", Some(Family::Ipv6), "src"),
    ("pairs4", "hash:net,port", Some(Family::Ipv4), "src,dst"),
    ("ports", "bitmap:port range 1-10000", None, "dst"),
];

/// Makes all sets, with a few elements each.
pub(crate) fn add_ipsets(words: &mut Vocabulary, rules: &mut Vec<FilterStep>) {
    let mut lines = Lines::new(Loader::Ipset);
    for (name, kind, family, _) in SETS {
        lines.add(format!("create {name} {kind}"));
        for _ in 0..1 + words.random.below(3) {
            let port = words.port();
            let element = match family {
                None => port.to_string(),
                Some(family) if kind.contains("port") => {
                    format!("{},{}:{port}", short(words.prefix(family)), words.proto())
                }
                Some(family) if kind.starts_with("hash:net") => {
                    let except = if words.random.percent(20) { " nomatch" } else { "" };
                    format!("{}{except}", short(words.prefix(family)))
                }
                Some(family) => words.somebody(family).to_string(),
            };
            lines.add(format!("add {name} {element}"));
        }
    }
    rules.append(&mut lines.rules);
}

/// Random tables for either family.
pub(crate) fn rules(words: &mut Vocabulary, loaders: [Loader; 2], sets: bool) -> Vec<FilterStep> {
    let mut rules = Vec::new();
    for (family, loader) in Family::BOTH.into_iter().zip(loaders) {
        if !words.random.percent(if family == Family::Ipv4 { 80 } else { 45 }) {
            continue;
        }
        let mut lines = Lines::new(loader);
        for (table, chance) in [("raw", 20), ("mangle", 35), ("nat", 30), ("filter", 80)] {
            if words.random.percent(chance) {
                let mut table =
                    XtTable { words, lines: &mut lines, family, table, sets, chains: 0 };
                table.add();
            }
        }
        rules.append(&mut lines.rules);
    }
    rules
}

/// A random table.
struct XtTable<'a> {
    words: &'a mut Vocabulary,
    lines: &'a mut Lines,
    family: Family,
    table: &'static str,
    /// Whether there are sets to look up.
    sets: bool,
    /// How many user chains there are; a chain jumps to later ones only.
    chains: usize,
}

impl XtTable<'_> {
    fn add(&mut self) {
        self.chains = self.words.random.below(3);
        for number in 0..self.chains {
            self.line(&format!("-N u{number}"));
        }
        for number in 0..self.chains {
            for _ in 0..1 + self.words.random.below(3) {
                self.add_rule(&format!("u{number}"), number + 1);
            }
        }
        let chains: &[&str] = match self.table {
            "raw" => &["PREROUTING", "OUTPUT"],
            "mangle" => &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"],
            "nat" => &["PREROUTING", "OUTPUT"],
            _ => &["INPUT", "INPUT", "OUTPUT"],
        };
        for _ in 0..1 + self.words.random.below(2) {
            let chain = self.words.random.choose(chains).copied().unwrap_or("OUTPUT");
            if self.table == "filter" && self.words.random.percent(15) {
                self.line(&format!("-P {chain} DROP"));
                if self.words.random.percent(70) {
                    let icmp = if self.family == Family::Ipv6 { "ipv6-icmp" } else { "icmp" };
                    self.line(&format!("-A {chain} -p {icmp} -j ACCEPT"));
                    let state = "-m conntrack --ctstate RELATED,ESTABLISHED";
                    self.line(&format!("-A {chain} {state} -j ACCEPT"));
                }
            }
            for _ in 0..2 + self.words.random.below(4) {
                self.add_rule(chain, 0);
            }
        }
    }

    fn line(&mut self, text: &str) {
        let table =
            if self.table == "filter" { String::new() } else { format!("-t {} ", self.table) };
        self.lines.add(format!("{table}{text}"));
    }

    fn add_rule(&mut self, chain: &str, calls: usize) {
        let proto = self.words.random.one_of(["", "", "tcp", "tcp", "udp"]);
        let mut parts = vec![format!("-A {chain}")];
        if !proto.is_empty() {
            parts.push(format!("-p {proto}"));
            parts.extend(self.ports(proto));
        }
        for _ in 0..self.words.random.one_of([0, 1, 1, 2]) {
            let part = self.matching(chain);
            // Each option may be given once.
            let option = part.trim_start_matches("! ").split(' ').next().unwrap_or("").to_owned();
            let again = |other: &String| other.trim_start_matches("! ").starts_with(&option);
            if option == "-m" || !parts.iter().any(again) {
                parts.push(part);
            }
        }
        let target = self.target(chain, proto, calls);
        // What stops everything hides all others.
        if parts.len() == 1 && ["-j DROP", "-j REJECT"].iter().any(|stop| target.starts_with(stop))
        {
            parts.push(format!("-s {}", short(self.words.prefix(self.family))));
        }
        parts.push(target);
        self.line(&parts.join(" "));
    }

    fn ports(&mut self, proto: &str) -> Option<String> {
        let not = if self.words.random.percent(15) { "! " } else { "" };
        let (low, high) = self.words.port_range();
        match self.words.random.below(6) {
            0 | 1 => Some(format!("{not}--dport {}", self.words.port())),
            2 => Some(format!("{not}--dport {low}:{high}")),
            3 if low < high => {
                Some(format!("-m multiport {not}--dports {},{low}:{high}", self.words.port()))
            }
            4 if proto == "tcp" => {
                let flags = ["SYN,ACK SYN", "SYN SYN", "FIN,SYN,RST,ACK SYN", "ACK ACK"];
                Some(format!("{not}--tcp-flags {}", self.words.random.one_of(flags)))
            }
            4 => {
                let (low, high) = self.words.client_ports();
                Some(format!("{not}--sport {low}:{high}"))
            }
            _ => None,
        }
    }

    fn matching(&mut self, chain: &str) -> String {
        let not = if self.words.random.percent(15) { "! " } else { "" };
        let family = self.family;
        match self.words.random.below(14) {
            0..=2 => format!("{not}-s {}", short(self.words.prefix(family))),
            3 => format!("{not}-d {}", self.words.own(family)),
            4 | 5 => {
                let link = self.words.link();
                let plus = self.words.random.percent(25);
                let link = if plus { format!("{}+", &link[..1]) } else { link };
                match chain {
                    "OUTPUT" | "POSTROUTING" => format!("{not}-o {link}"),
                    "INPUT" | "PREROUTING" => format!("{not}-i {link}"),
                    _ => format!("{not}-s {}", short(self.words.prefix(family))),
                }
            }
            6 | 7 => {
                let states = ["NEW", "ESTABLISHED", "INVALID", "UNTRACKED", "DNAT", "NEW,RELATED"];
                let state = self.words.random.one_of(states);
                format!("-m conntrack {not}--ctstate {state}")
            }
            8 => {
                let (mark, mask) = (self.words.mark(), self.words.mask());
                match self.words.random.below(3) {
                    0 => format!("-m mark {not}--mark {}/{mask}", mark & mask),
                    1 => format!("-m connmark {not}--mark {mark}"),
                    _ => format!("-m mark {not}--mark {mark}"),
                }
            }
            9 => match (family, chain) {
                (_, "OUTPUT" | "POSTROUTING") => format!("-m owner {not}--uid-owner 1000"),
                (Family::Ipv4, "INPUT" | "PREROUTING") if self.words.random.percent(30) => {
                    format!("-m addrtype {not}--dst-type LOCAL --limit-iface-in")
                }
                _ => format!("-m addrtype {not}--dst-type LOCAL"),
            },
            10 if self.sets => {
                let family = Some(family);
                let fits = |of: Option<Family>| of.is_none() || of == family;
                let sets: Vec<_> = SETS.into_iter().filter(|(_, _, of, _)| fits(*of)).collect();
                let set = self.words.random.choose(&sets).copied();
                let (name, _, _, how) = set.unwrap_or(SETS[0]);
                format!("-m set {not}--match-set {name} {how}")
            }
            11 if self.table != "nat" && chain == "PREROUTING" => {
                self.words.random.one_of(["-m rpfilter --invert", "-m rpfilter"]).to_owned()
            }
            12 if self.words.random.percent(10) => "-m limit --limit 500/second".to_owned(),
            13 if family == Family::Ipv4 => {
                format!(
                    "-m iprange {not}--src-range 10.0.0.{}-10.1.0.3",
                    self.words.random.below(5)
                )
            }
            _ => "-m conntrack --ctdir ORIGINAL".to_owned(),
        }
    }

    fn target(&mut self, chain: &str, proto: &str, calls: usize) -> String {
        let mark = self.words.mark();
        let call = calls + self.words.random.below(3);
        if call < self.chains && self.words.random.percent(35) {
            let verb = self.words.random.one_of(["-j", "-j", "-g"]);
            return format!("{verb} u{call}");
        }
        let turn = self.words.random.below(10);
        match (self.table, turn) {
            ("nat", 0..=6) if !proto.is_empty() => {
                let (port, own) = (self.words.port(), self.words.own(self.family));
                match (self.words.random.percent(50), own) {
                    (true, _) => format!("-j REDIRECT --to-ports {port}"),
                    (false, std::net::IpAddr::V4(own)) => {
                        format!("-j DNAT --to-destination {own}:{port}")
                    }
                    (false, std::net::IpAddr::V6(own)) => {
                        format!("-j DNAT --to-destination [{own}]:{port}")
                    }
                }
            }
            ("nat", 0..=2) => format!("-j DNAT --to-destination {}", self.words.own(self.family)),
            ("nat", _) => self.words.random.one_of(["-j ACCEPT", "-j RETURN"]).to_owned(),
            ("raw", 0..=2) => "-j CT --notrack".to_owned(),
            ("mangle", 0..=2) => format!("-j MARK --set-mark {mark}"),
            ("mangle", 3) => format!("-j MARK --set-xmark {mark}/{}", self.words.mask()),
            ("mangle", 4) => format!("-j MARK --or-mark {mark}"),
            ("mangle", 5) => format!("-j CONNMARK --set-mark {mark}"),
            ("mangle", 6) => {
                let what = ["-j CONNMARK --save-mark", "-j CONNMARK --restore-mark"];
                self.words.random.one_of(what).to_owned()
            }
            ("filter", 0 | 1) if chain.len() > 2 => self.refusal(proto),
            (_, 1 | 2) => "-j RETURN".to_owned(),
            (_, 3..=7) => "-j ACCEPT".to_owned(),
            _ => "-j DROP".to_owned(),
        }
    }

    fn refusal(&mut self, proto: &str) -> String {
        if proto == "tcp" && self.words.random.percent(40) {
            return "-j REJECT --reject-with tcp-reset".to_owned();
        }
        let with = match self.family {
            Family::Ipv4 => self.words.random.one_of([
                "",
                " --reject-with icmp-host-prohibited",
                " --reject-with icmp-net-unreachable",
                " --reject-with icmp-admin-prohibited",
            ]),
            Family::Ipv6 => self.words.random.one_of([
                "",
                " --reject-with icmp6-adm-prohibited",
                " --reject-with icmp6-no-route",
            ]),
        };
        format!("-j REJECT{with}")
    }
}

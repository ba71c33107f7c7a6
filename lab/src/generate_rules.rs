//! Random packet filters for a random host: nftables here, iptables in `generate_xtables`.
//!
//! Rules are about the addresses, ports, links and marks that occur on that host and in the questions
//! about it, so that they matter. What is refused when it is loaded (a set that one program makes
//! otherwise) is left out, and counted.

use std::net::IpAddr;

use canreach_snapshot::{Family, PolicyAction, Prefix, Proto, TableId};

use crate::filter_step::{FilterStep, Loader};
use crate::generate::{PORTS, base, prefix};
use crate::generate_xtables;
use crate::random::Random;
use crate::rule_step::RuleStep;
use crate::step::Step;

/// What rules of a host can be about.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) random: Random,
    links: Vec<String>,
    own: Vec<IpAddr>,
    ports: Vec<u16>,
}

/// Adds rules to a random host.
pub(crate) fn add_rules(seed: u64, steps: &mut Vec<Step>) {
    let mut words = Vocabulary::of(seed, steps);
    let chosen = loop {
        let chosen = [60, 35, 35].map(|chance| words.random.percent(chance));
        if chosen.contains(&true) {
            break chosen;
        }
    };
    let [nft, legacy, nft_backed] = chosen;
    if words.random.percent(25) {
        let table = TableId(words.random.one_of([100, 101]));
        let family = words.family();
        let mut rule = RuleStep::plain(family, 9, PolicyAction::Lookup(table));
        rule.mark = Some((7, u32::MAX));
        steps.push(Step::Rule(rule));
    }
    let mut rules = Vec::new();
    if (legacy || nft_backed) && words.random.percent(40) {
        generate_xtables::add_ipsets(&mut words, &mut rules);
    }
    let mut parts: Vec<Vec<FilterStep>> = vec![rules];
    if nft {
        let mut lines = Lines::new(Loader::Nft);
        for number in 0..=words.random.below(2) {
            NftTable::add(&mut words, number, &mut lines);
        }
        if words.random.percent(10) {
            add_netdev(&mut words, &mut lines);
        }
        parts.push(lines.rules);
    }
    for (chosen, loaders) in [
        (legacy, [Loader::IptablesLegacy, Loader::Ip6tablesLegacy]),
        (nft_backed, [Loader::Iptables, Loader::Ip6tables]),
    ] {
        if chosen {
            let sets = !parts[0].is_empty();
            parts.push(generate_xtables::rules(&mut words, loaders, sets));
        }
    }
    steps.extend(parts.into_iter().flatten().map(Step::Filter));
}

/// Lines for one program.
pub(crate) struct Lines {
    with: Loader,
    pub(crate) rules: Vec<FilterStep>,
}

impl Lines {
    pub(crate) const fn new(with: Loader) -> Self {
        Self { with, rules: Vec::new() }
    }

    pub(crate) fn add(&mut self, text: String) {
        self.rules.push(FilterStep { with: self.with, text });
    }
}

impl Vocabulary {
    fn of(seed: u64, steps: &[Step]) -> Self {
        let mut words = Self {
            random: Random::new(seed ^ 0x0072_756c_6573),
            links: vec!["lo".to_owned()],
            own: Vec::new(),
            ports: PORTS.to_vec(),
        };
        for step in steps {
            match step {
                Step::Link { name, .. } => words.links.push(name.clone()),
                Step::Address(address) => words.own.push(address.prefix.address()),
                Step::Server(server) => words.ports.push(server.bind.port()),
                _ => {}
            }
        }
        words
    }

    pub(crate) fn family(&mut self) -> Family {
        self.random.one_of([Family::Ipv4, Family::Ipv4, Family::Ipv6])
    }

    pub(crate) fn proto(&mut self) -> &'static str {
        self.random.one_of([Proto::Tcp, Proto::Tcp, Proto::Udp]).name()
    }

    pub(crate) fn link(&mut self) -> String {
        self.random.choose(&self.links).cloned().unwrap_or_else(|| "lo".to_owned())
    }

    /// A port that somebody dials.
    pub(crate) fn port(&mut self) -> u16 {
        self.random.choose(&self.ports).copied().unwrap_or(80)
    }

    /// Ports with a few neighbours.
    pub(crate) fn port_range(&mut self) -> (u16, u16) {
        let port = self.port();
        (port - self.random.below(3) as u16, port + self.random.below(3) as u16)
    }

    /// The client's ports: those that the lab hands out are in two of them.
    pub(crate) fn client_ports(&mut self) -> (u16, u16) {
        self.random.one_of([(7000, 7000), (0, 1023), (1024, 65535), (20_000, 20_020)])
    }

    pub(crate) fn mark(&mut self) -> u32 {
        self.random.one_of([1, 7, 7, 16, 23])
    }

    pub(crate) fn mask(&mut self) -> u32 {
        self.random.one_of([1, 3, 16, 255])
    }

    pub(crate) fn own(&mut self, family: Family) -> IpAddr {
        let own: Vec<IpAddr> =
            self.own.iter().copied().filter(|own| Family::of(*own) == family).collect();
        self.random.choose(&own).copied().unwrap_or_else(|| family.address(base(family, 7) + 1))
    }

    /// Somebody: a neighbour, somebody far away, or this machine.
    pub(crate) fn somebody(&mut self, family: Family) -> IpAddr {
        let range = self.random.one_of([0, 0, 1, 2, 8, 9]);
        let near = family.address(base(family, range) + self.random.below(6) as u128);
        if self.random.percent(20) { self.own(family) } else { near }
    }

    /// A prefix around somebody.
    pub(crate) fn prefix(&mut self, family: Family) -> Prefix {
        let somebody = canreach_snapshot::address::address_value(self.somebody(family));
        let shorter = self.random.one_of([0, 0, 1, 1, 2, 3, 8, 16]);
        prefix(family, somebody, family.bits() - shorter).network()
    }
}

/// Writes a prefix as rules do, without the length of a host.
pub(crate) fn short(prefix: Prefix) -> String {
    if prefix.length() == prefix.family().bits() {
        prefix.address().to_string()
    } else {
        prefix.to_string()
    }
}

/// A random table of nftables.
struct NftTable<'a> {
    words: &'a mut Vocabulary,
    lines: &'a mut Lines,
    /// `inet f0`.
    name: String,
    /// `None` for both.
    family: Option<Family>,
    /// How many user chains there are; a chain jumps to later ones only.
    chains: usize,
    /// Sets of addresses, of addresses and ports, and maps to verdicts, with their families.
    sets: Vec<(String, Family)>,
    pairs: Vec<(String, Family)>,
}

/// What a rule stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    hook: &'static str,
    kind: &'static str,
    /// The first user chain that it may call.
    calls: usize,
    /// Before connection tracking.
    early: bool,
    /// The protocol that this rule is about, if it is about one.
    proto: &'static str,
}

impl NftTable<'_> {
    fn add(words: &mut Vocabulary, number: usize, lines: &mut Lines) {
        let family = words.random.one_of([None, None, Some(Family::Ipv4), Some(Family::Ipv6)]);
        let kind = match family {
            None => "inet",
            Some(Family::Ipv4) => "ip",
            Some(Family::Ipv6) => "ip6",
        };
        let chains = words.random.below(4);
        let mut table = NftTable {
            words,
            lines,
            name: format!("{kind} f{number}"),
            family,
            chains,
            sets: Vec::new(),
            pairs: Vec::new(),
        };
        table.line("table", "");
        for number in 0..table.words.random.below(3) {
            table.add_set(number);
        }
        for number in 0..chains {
            table.line("chain", &format!("u{number}"));
        }
        // Rules of user chains must suit every hook that may call them.
        for number in 0..chains {
            let place =
                Place { hook: "any", kind: "filter", calls: number + 1, early: false, proto: "" };
            for _ in 0..1 + table.words.random.below(3) {
                table.add_rule(&format!("u{number}"), place);
            }
        }
        for turn in 0..1 + table.words.random.below(3) {
            table.add_base_chain(turn * 2 + number);
        }
    }

    fn line(&mut self, what: &str, text: &str) {
        let text = format!("add {what} {} {text}", self.name);
        self.lines.add(text.trim_end().to_owned());
    }

    fn some_family(&mut self) -> Family {
        self.family.unwrap_or_else(|| self.words.family())
    }

    fn add_set(&mut self, number: usize) {
        let family = self.some_family();
        let kind = match family {
            Family::Ipv4 => "ipv4_addr",
            Family::Ipv6 => "ipv6_addr",
        };
        let name = format!("s{number}");
        let pairs = self.words.random.percent(40);
        let interval = self.words.random.percent(50);
        let flags = if interval { " flags interval; auto-merge;" } else { "" };
        let flags = if interval && pairs { " flags interval;" } else { flags };
        let service = if pairs { " . inet_service" } else { "" };
        self.line("set", &format!("{name} {{ type {kind}{service};{flags} }}"));
        for _ in 0..1 + self.words.random.below(4) {
            let somebody = self.words.somebody(family).to_string();
            let who = if interval { short(self.words.prefix(family)) } else { somebody };
            let port = self.words.port();
            let element = if pairs { format!("{who} . {port}") } else { who };
            self.line("element", &format!("{name} {{ {element} }}"));
        }
        if pairs { &mut self.pairs } else { &mut self.sets }.push((name, family));
    }

    fn add_base_chain(&mut self, number: usize) {
        let random = &mut self.words.random;
        let hook =
            random.one_of(["prerouting", "input", "input", "input", "output", "postrouting"]);
        let kind = match hook {
            "prerouting" | "output" if random.percent(35) => "nat",
            "output" if random.percent(30) => "route",
            _ => "filter",
        };
        let priority = match (hook, kind) {
            (_, "nat") => -100,
            ("prerouting", _) => random.one_of([-300, -150, -150, -50, 0]),
            _ => random.one_of([-150, 0, 0, 50]),
        };
        // Seldom the same as of another chain, whose order nobody knows.
        let priority = priority + if random.percent(5) { 0 } else { 1 + number as i32 };
        let drops = random.percent(10);
        let policy = if drops { "drop" } else { "accept" };
        let name = format!("{hook}{number}");
        let hooked =
            format!("{name} {{ type {kind} hook {hook} priority {priority}; policy {policy}; }}");
        self.line("chain", &hooked);
        let place = Place { hook, kind, calls: 0, early: priority < -200, proto: "" };
        if drops && self.words.random.percent(70) {
            self.line("rule", &format!("{name} meta l4proto ipv6-icmp accept"));
            if kind == "filter" {
                self.line("rule", &format!("{name} ct state established,related accept"));
            }
        }
        for _ in 0..2 + self.words.random.below(5) {
            self.add_rule(&name, place);
        }
    }

    fn add_rule(&mut self, chain: &str, place: Place) {
        let mut parts = Vec::new();
        let family = self.some_family();
        let place = Place { proto: self.words.proto(), ..place };
        for _ in 0..self.words.random.one_of([0, 1, 1, 1, 2, 2, 3]) {
            parts.push(self.matching(family, place));
        }
        let action = match place.kind {
            "nat" => self.translation(family, place),
            _ => self.action(place),
        };
        // Translation of both families needs to be told which, and a protocol for ports.
        if place.kind == "nat" && self.family.is_none() && action.starts_with("dnat") {
            parts.insert(
                0,
                format!("meta nfproto ipv{}", if family == Family::Ipv4 { 4 } else { 6 }),
            );
        }
        if action.contains(" :") || action.contains(" [") || action.contains("reject with tcp") {
            let proto = if action.contains("reject") { "tcp" } else { place.proto };
            parts.push(format!("meta l4proto {proto}"));
        }
        // What stops everything hides all others.
        if parts.is_empty() && (action == "drop" || action.starts_with("reject")) {
            let ip = if family == Family::Ipv4 { "ip" } else { "ip6" };
            parts.push(format!("{ip} saddr {}", short(self.words.prefix(family))));
        }
        parts.push(action);
        self.line("rule", &format!("{chain} {}", parts.join(" ")));
    }

    fn matching(&mut self, family: Family, place: Place) -> String {
        let ip = if family == Family::Ipv4 { "ip" } else { "ip6" };
        let not = if self.words.random.percent(15) { "!= " } else { "" };
        match self.words.random.below(24) {
            0..=3 => format!("{ip} saddr {not}{}", short(self.words.prefix(family))),
            4 => format!("{ip} daddr {not}{}", self.words.own(family)),
            5..=8 => self.port_matching(not, place),
            9 => match self.sets.iter().find(|(_, of)| *of == family) {
                Some((set, _)) => format!("{ip} saddr {not}@{set}"),
                None => format!("{ip} saddr {not}{{ {} }}", self.words.somebody(family)),
            },
            10 => match self.pairs.iter().find(|(_, of)| *of == family) {
                Some((set, _)) => format!("{ip} saddr . {} dport {not}@{set}", place.proto),
                None => self.port_matching(not, place),
            },
            11 | 12 => self.link_matching(not, place),
            13 => format!("meta mark {not}{}", self.words.mark()),
            14 => {
                let (mask, mark) = (self.words.mask(), self.words.mark());
                format!("meta mark & {mask} == {}", mark & mask)
            }
            15 | 16 => {
                let state =
                    self.words.random.one_of(["new", "established", "invalid", "untracked"]);
                format!("ct state {not}{state}")
            }
            17 => self.connection_matching(place),
            18 if place.proto == "tcp" => self
                .words
                .random
                .one_of([
                    "tcp flags & (syn|ack) == syn",
                    "tcp flags syn",
                    "tcp flags { syn, ack }",
                    "tcp flags & (syn|ack) == syn|ack",
                ])
                .to_owned(),
            19 => self.route_matching(place),
            20 if not.is_empty() => format!("meta l4proto {}", place.proto),
            21 => format!("@th,16,16 {not}{}", self.words.port()),
            22 if self.family.is_none() => "meta nfproto ipv4".to_owned(),
            22 => "meta pkttype unicast".to_owned(),
            _ if self.words.random.percent(15) => self
                .words
                .random
                .one_of(["limit rate 500/second", "numgen random mod 2 0"])
                .to_owned(),
            _ => {
                let (low, high) = self.words.client_ports();
                format!("{} sport {not}{low}-{high}", place.proto).replace("7000-7000", "7000")
            }
        }
    }

    fn port_matching(&mut self, not: &str, place: Place) -> String {
        let header = self.words.random.one_of([place.proto, place.proto, place.proto, "th"]);
        // A port of whatever protocol needs to know that there is one.
        let start = if header == "th" {
            format!("meta l4proto {} th", place.proto)
        } else {
            header.to_owned()
        };
        let ports = match self.words.random.below(3) {
            0 => {
                let (low, high) = self.words.port_range();
                if low == high { low.to_string() } else { format!("{low}-{high}") }
            }
            1 => {
                let first = self.words.port();
                let second = self.words.random.one_of(PORTS);
                if first == second { first.to_string() } else { format!("{{ {first}, {second} }}") }
            }
            _ => self.words.port().to_string(),
        };
        format!("{start} dport {not}{ports}")
    }

    fn link_matching(&mut self, not: &str, place: Place) -> String {
        let link = self.words.link();
        let out = match place.hook {
            "output" | "postrouting" => true,
            "any" => self.words.random.percent(30),
            _ => false,
        };
        let way = if out { "oif" } else { "iif" };
        match self.words.random.below(4) {
            0 => format!("{way} {not}\"{link}\""),
            1 => format!("{way}name {not}\"{}*\"", &link[..1]),
            _ => format!("{way}name {not}\"{link}\""),
        }
    }

    fn connection_matching(&mut self, place: Place) -> String {
        let (mark, port) = (self.words.mark(), self.words.port());
        match self.words.random.below(5) {
            0 => "ct status dnat".to_owned(),
            1 => format!("ct mark {mark}"),
            2 => format!("meta l4proto {} ct original proto-dst {port}", place.proto),
            3 => "ct direction reply".to_owned(),
            _ => "ct direction original".to_owned(),
        }
    }

    fn route_matching(&mut self, place: Place) -> String {
        let not = self.words.random.one_of(["", "!= "]);
        match (place.hook, self.words.random.below(3)) {
            ("prerouting" | "input", 0) => "fib saddr . iif oif missing".to_owned(),
            ("prerouting" | "input", 1) => format!("fib daddr . iif type {not}local"),
            ("output" | "postrouting" | "any", _) => "meta skuid 1000".to_owned(),
            _ => format!("fib daddr type {not}local"),
        }
    }

    fn action(&mut self, place: Place) -> String {
        let mark = self.words.mark();
        let can_reject = matches!(place.hook, "input" | "output");
        let call = place.calls + self.words.random.below(3);
        match self.words.random.below(24) {
            0..=8 => "accept".to_owned(),
            9 | 10 => "drop".to_owned(),
            12 if can_reject => self.refusal(place),
            12 => "drop".to_owned(),
            14 => "return".to_owned(),
            15..=18 if call < self.chains => {
                let verb = self.words.random.one_of(["jump", "jump", "goto"]);
                format!("{verb} u{call}")
            }
            15 | 16 => format!("meta mark set {mark}"),
            17 => format!("meta mark set meta mark | {mark}"),
            18 => format!("meta mark set meta mark & {}", self.words.mask()),
            19 if place.hook != "any" && !place.early => format!("ct mark set {mark}"),
            20 if place.hook != "any" && !place.early => "meta mark set ct mark".to_owned(),
            21 if place.early => "notrack".to_owned(),
            22 if place.proto == "tcp" => {
                let (first, second) = (self.words.port(), self.words.random.one_of([1, 2, 3]));
                format!("tcp dport vmap {{ {first} : accept, {} : drop }}", first + second)
            }
            _ => format!("meta mark set {mark}"),
        }
    }

    fn refusal(&mut self, place: Place) -> String {
        let with = match self.family {
            None => self.words.random.one_of([
                "",
                " with icmpx type admin-prohibited",
                " with icmpx type no-route",
                " with tcp reset",
            ]),
            Some(Family::Ipv4) => self.words.random.one_of([
                "",
                " with icmp type net-unreachable",
                " with icmp type host-prohibited",
                " with tcp reset",
            ]),
            Some(Family::Ipv6) => self.words.random.one_of([
                "",
                " with icmpv6 type no-route",
                " with icmpv6 type policy-fail",
                " with tcp reset",
            ]),
        };
        // A reset is for TCP.
        let with = if with.contains("tcp") && place.proto != "tcp" { "" } else { with };
        format!("reject{with}")
    }

    fn translation(&mut self, family: Family, place: Place) -> String {
        let (port, own) = (self.words.port(), self.words.own(family));
        let brackets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let ip = match (self.family, family) {
            (Some(_), _) => "",
            (None, Family::Ipv4) => " ip",
            (None, Family::Ipv6) => " ip6",
        };
        match self.words.random.below(8) {
            0..=2 => format!("redirect to :{port}"),
            3 | 4 => format!("dnat{ip} to {own}"),
            5 | 6 => {
                let proto = place.proto;
                format!("meta l4proto {proto} dnat{ip} to {}:{port}", brackets(own))
            }
            _ => self.words.random.one_of(["accept", "return", "drop"]).to_owned(),
        }
    }
}

/// A chain at the ingress of one link.
fn add_netdev(words: &mut Vocabulary, lines: &mut Lines) {
    let link = words.link();
    lines.add("add table netdev n".to_owned());
    lines.add(format!(
        "add chain netdev n in {{ type filter hook ingress device \"{link}\" priority 0; policy accept; }}"
    ));
    for _ in 0..1 + words.random.below(3) {
        let family = words.family();
        let ip = if family == Family::Ipv4 { "ip" } else { "ip6" };
        let what = match words.random.below(3) {
            0 => format!("{ip} saddr {}", short(words.prefix(family))),
            1 => format!("{} dport {}", words.proto(), words.port()),
            _ => format!("meta mark set {}", words.mark()),
        };
        let action = words.random.one_of(["drop", "drop", "accept"]);
        let action = if what.starts_with("meta") { "" } else { action };
        lines.add(format!("add rule netdev n in {what} {action}").trim_end().to_owned());
    }
}

//! Filter chains.

use super::*;

#[track_caller]
fn check(text: &str, sets: Vec<Set>, passed: &str) {
    let mut seen = Bench::new(text, sets).input();
    assert_eq!(seen.passed(), passed, "{text}");
}

#[test]
fn rules_in_order() {
    let head = "chain in input 0 drop\n";
    for (rules, passed) in [
        ("accept", "0.0.0.0/0"),
        ("dport 80 accept", ""),
        ("dport 22 accept", "0.0.0.0/0"),
        ("saddr 10.0.0.0/8 accept", "10.0.0.0/8"),
        ("saddr 10.0.0.0/9 drop \n saddr 10.0.0.0/8 accept", "10.128.0.0/9"),
        ("!saddr 128.0.0.0/1 accept", "0.0.0.0/1"),
        ("saddr 10.0.0.0/8 counter dport 22 accept", "10.0.0.0/8"),
        ("saddr 10.0.0.0/8 \n saddr 11.0.0.0/8 accept", "11.0.0.0/8"),
        ("iifname eth0 saddr 1.2.3.4 accept", "1.2.3.4/32"),
        ("iifname eth* saddr 1.2.3.4 accept", "1.2.3.4/32"),
        ("iifname eth saddr 1.2.3.4 accept", ""),
        ("!iifname eth1 saddr 1.2.3.4 accept", "1.2.3.4/32"),
        // Without a link its name is empty: the test does not end the rule.
        ("!oifname eth1 saddr 1.2.3.4 accept", "1.2.3.4/32"),
        ("flags 2/2 accept", "0.0.0.0/0"),
        ("flags 2/22 accept", "0.0.0.0/0"),
        ("flags 18/18 accept", ""),
        ("saddr 10.0.0.3&255.255.255.251 accept", "10.0.0.3/32, 10.0.0.7/32"),
        ("sport <1024 drop \n accept", "0.0.0.0/0 [(1024, 65535)]"),
        ("sport 100-200 saddr 1.2.3.4 accept", "1.2.3.4/32 [(100, 200)]"),
        // What only the sender decides, unless it holds for everyone.
        ("ttl 0-255 accept", "0.0.0.0/0"),
        ("ttl <64 accept \n ttl 64-255 accept", "0.0.0.0/0"),
        ("ttl <64 saddr 10.0.0.0/8 accept", "? 10.0.0.0/8"),
        ("ttl <64 saddr 10.0.0.0/8 accept \n saddr 10.0.0.0/9 accept", "10.0.0.0/9 ? 10.128.0.0/9"),
        ("limit saddr 1.2.3.4 accept", "? 1.2.3.4/32"),
        (
            "saddr 1.2.3.4 limit drop \n saddr 1.2.3.4 limit drop \n accept",
            "0.0.0.0/7, 2.0.0.0/7, 4.0.0.0/6, 8.0.0.0/5, 16.0.0.0/4, 32.0.0.0/3, 64.0.0.0/2, \
          128.0.0.0/1",
        ),
    ] {
        if rules.contains("limit drop") {
            let mut seen = Bench::new(&format!("{head}{rules}"), Vec::new()).input();
            assert!(seen.passed().ends_with("? 1.2.3.4/32"), "{}", seen.passed());
            continue;
        }
        check(&format!("{head}{rules}"), Vec::new(), passed);
    }
}

#[test]
fn chains_call_each_other() {
    let head = "chain in input 0 drop\n";
    for (rules, passed) in [
        (
            "jump a \n saddr 2.0.0.0/8 accept \n chain a \n saddr 1.0.0.0/8 accept",
            "1.0.0.0/8, 2.0.0.0/8",
        ),
        // The end of a chain that was gone to is the end of the base chain.
        ("goto a \n saddr 2.0.0.0/8 accept \n chain a \n saddr 1.0.0.0/8 accept", "1.0.0.0/8"),
        (
            "jump a \n accept \n chain a \n saddr 0.0.0.0/1 goto b \n drop \n chain b \n return",
            "0.0.0.0/1",
        ),
        ("saddr 0.0.0.0/1 return \n accept", "128.0.0.0/1"),
        ("jump a \n accept \n chain a \n saddr 0.0.0.0/1 return \n drop", "0.0.0.0/1"),
        // Marks that a chain sets are there when it returns.
        ("saddr 0.0.0.0/1 jump a \n mark 7 accept \n chain a \n setmark 7", "0.0.0.0/1"),
        // Also where the rest of the rule does not match.
        ("setmark 7 dport 80 \n mark 7 accept", "0.0.0.0/0"),
        (
            "saddr 0.0.0.0/1 setmark 7 \n mark 7 saddr 1.0.0.0/8 accept \n mark 0 accept",
            "1.0.0.0/8, 128.0.0.0/1",
        ),
        ("saddr 0.0.0.0/1 setmark 7 \n setmark 0 \n mark 0 accept", "0.0.0.0/0"),
    ] {
        check(&format!("{head}{rules}"), Vec::new(), passed);
    }
}

#[test]
fn each_chain_must_let_it_pass() {
    let text = "chain a input -10 accept \n saddr 10.0.0.0/8 accept \n saddr 11.0.0.0/8 drop
        chain b input 0 drop \n saddr 10.0.0.0/7 accept
        chain c forward 0 drop";
    let bench = Bench::new(text, Vec::new());
    let mut seen = bench.input();
    assert_eq!(seen.passed(), "10.0.0.0/8");
    let by = NfSubject::NftRule { table: 0, chain: 1, rule: 0 };
    assert_eq!(seen.result.passed[0].by, Some(by));
    let policy = NfSubject::NftPolicy { table: 0, chain: 1 };
    let drop = NfSubject::NftRule { table: 0, chain: 0, rule: 1 };
    let subjects: Vec<_> = seen.stops().iter().map(|stop| stop.subject).collect();
    assert_eq!(subjects, [drop, policy]);
    // Without what stops them.
    let neutral = Neutral([policy, drop].into());
    let mut seen = Bench { neutral, ..bench }.input();
    assert_eq!(seen.passed(), "0.0.0.0/0");
}

#[test]
fn sets_and_maps() {
    let head = "chain in input 0 drop\n";
    let points = || vec![addresses("s", &["1.2.3.4", "1.2.3.5", "9.9.9.9"])];
    check(&format!("{head} load saddr in s accept"), points(), "1.2.3.4/31, 9.9.9.9/32");
    let all = addresses("s", &["0.0.0.0/1", "128.0.0.0/1"]);
    check(&format!("{head} load saddr in s accept"), vec![all], "0.0.0.0/0");
    let prefixes = || vec![addresses("s", &["10.0.0.0/8", "11.0.0.0/8", "255.0.0.0/8"])];
    check(&format!("{head} load saddr in s accept"), prefixes(), "10.0.0.0/7, 255.0.0.0/8");
    check(
        &format!("{head} load saddr !in s drop \n accept"),
        prefixes(),
        "10.0.0.0/7, 255.0.0.0/8",
    );
    let map = || vec![addresses("s", &["10.0.0.0/8=accept", "11.0.0.0/8=jump:a", "*=goto:b"])];
    let chains = "chain a \n saddr 11.0.0.0/9 accept \n chain b \n saddr 12.0.0.0/8 accept";
    check(
        &format!("{head} load saddr vmap s \n {chains}"),
        map(),
        "10.0.0.0/8, 11.0.0.0/9, 12.0.0.0/8",
    );
    let pairs = vec![pairs("s", &["10.0.0.0/8:22", "11.0.0.0/8:80", "12.0.0.0/8:20-30"])];
    check(&format!("{head} load saddr.dport in s accept"), pairs, "10.0.0.0/8, 12.0.0.0/8");
    // One of three, never a fourth.
    let choice = vec![numbers("n", &[(0, "accept"), (1, "accept"), (2, "jump:a")])];
    let text = format!("{head} numgen 3 vmap n \n chain a \n saddr 10.0.0.0/8 accept");
    let mut seen = Bench::new(&text, choice).input();
    assert!(seen.passed().starts_with("10.0.0.0/8 ? "), "{}", seen.passed());
    assert_eq!(seen.reasons(), [UnknownReason::RandomChoice]);
}

#[test]
fn pairs_of_source_and_port() {
    let elements = ["10.0.0.0/8:1000-2000", "10.1.0.0/16:3000", "11.0.0.0/8:0-65535"];
    check(
        "chain in input 0 drop \n load saddr.sport in s accept",
        vec![pairs("s", &elements)],
        "11.0.0.0/8; 10.0.0.0/16, 10.2.0.0/15, 10.4.0.0/14, 10.8.0.0/13, 10.16.0.0/12, 10.32.0.0/11, \
         10.64.0.0/10, 10.128.0.0/9 [(1000, 2000)]; 10.1.0.0/16 [(1000, 2000), (3000, 3000)]",
    );
}

#[test]
fn sets_that_packets_fill() {
    // Read before it is written: what was in it counts.
    let set = || vec![addresses("s", &["1.2.3.4"])];
    let text = "chain in input 0 drop \n load saddr in s accept \n load saddr add s";
    check(text, set(), "1.2.3.4/32");
    let text =
        "chain in input 0 drop \n saddr 10.0.0.0/8 load saddr add s \n load saddr in s accept";
    let mut seen = Bench::new(text, set()).input();
    assert_eq!(seen.passed(), "1.2.3.4/32 ? 10.0.0.0/8");
    assert_eq!(seen.reasons(), [UnknownReason::EarlierPackets]);
    let limit = canreach_snapshot::nft::Expr::Quota { bytes: 1, consumed: 0, invert: false };
    let limited = vec![with_expr(addresses("s", &["5.5.5.5", "1.2.3.4"]), limit)];
    let text = "chain in input 0 drop \n load saddr in s accept";
    let mut seen = Bench::new(text, limited).input();
    assert_eq!(seen.passed(), "5.5.5.5/32 ? 1.2.3.4/32");
}

#[test]
fn what_is_sent_back() {
    for (rule, answer) in
        [("reject", Some(RejectAnswer::Icmp(3))), ("reset", Some(RejectAnswer::TcpReset))]
    {
        let text = format!("chain in input 0 accept \n saddr 10.0.0.0/8 {rule}");
        let mut seen = Bench::new(&text, Vec::new()).input();
        assert_eq!(seen.rejected(), "10.0.0.0/8");
        assert_eq!(seen.stops()[0].answer, answer);
    }
}

#[test]
fn states_of_connections() {
    let hooks = [NfHook::Prerouting, NfHook::Input];
    for (text, passed) in [
        // 8 is new, 2 established, 1 invalid, 64 untracked.
        ("chain in input 0 drop \n ct 8 accept", "0.0.0.0/0"),
        ("chain in input 0 drop \n ct 2 accept \n ct 8 saddr 10.0.0.0/8 accept", "10.0.0.0/8"),
        ("chain in input 0 drop \n ct 1 accept", ""),
        // Before conntrack has seen it, everything is invalid.
        ("chain pre prerouting -300 accept \n ct 1 drop", ""),
        (
            "chain pre prerouting -300 accept \n saddr 10.0.0.0/8 notrack
             chain in input 0 drop \n ct 64 accept",
            "10.0.0.0/8",
        ),
    ] {
        let mut seen = Bench::new(text, Vec::new()).run(Bench::syn(), &hooks);
        assert_eq!(seen.passed(), passed, "{text}");
    }
    // Nothing hooks conntrack in, so nothing is tracked.
    let text = "chain in input 0 drop \n accept";
    let seen = Bench::new(text, Vec::new()).run(Bench::syn(), &hooks);
    assert!(!seen.result.passed[0].view.connection.is_attached());
}

#[test]
fn what_is_not_modelled_is_lost() {
    let text = "chain in input 0 drop \n saddr 10.0.0.0/8 opaque accept \n saddr 11.0.0.0/8 accept";
    let mut seen = Bench::new(text, Vec::new()).input();
    assert_eq!(seen.passed(), "11.0.0.0/8");
    assert_eq!(seen.reasons(), [UnknownReason::NotModelled]);
}

#[test]
fn chains_that_fan_out_are_walked_once() {
    // 16 levels of two jumps each would be 65,536 walks.
    let mut text = "chain in input 0 drop \n jump c0 \n accept\n".to_owned();
    for level in 0..14 {
        let next = level + 1;
        text.push_str(&format!("chain c{level} \n jump c{next} \n jump c{next} \n"));
    }
    text.push_str("chain c14 \n saddr 10.0.0.0/8 drop \n saddr 11.0.0.0/8");
    let mut seen = Bench::new(&text, Vec::new()).input();
    assert!(seen.passed().contains("11.0.0.0/8"));
}

#[test]
fn chains_of_links_see_what_comes_in_by_them() {
    let text = "chain a ingress 0 accept on:eth0 \n saddr 10.0.0.0/8 drop
        chain b ingress 0 accept on:eth1 on:lo \n saddr 11.0.0.0/8 drop
        chain c ingress 0 accept on:eth* \n saddr 12.0.0.0/8 iifname eth1 reset";
    for netdev in [false, true] {
        let mut rules = ruleset(text, Vec::new());
        if netdev {
            rules.tables[0].family = canreach_snapshot::NfFamily::Netdev;
        }
        let bench = Bench::of(rules);
        for (link, stopped) in [(1, "11.0.0.0/8"), (2, "10.0.0.0/8"), (3, "11.0.0.0/8, 12.0.0.0/8")]
        {
            let place = HookPlace { hook: NfHook::Ingress, link: Some(Ifindex(link)) };
            let mut seen = bench.run_at(Bench::syn(), &[place]);
            assert_eq!(seen.stopped(), stopped, "{link}");
        }
    }
    // No other hook has them.
    let mut seen = Bench::new(text, Vec::new()).input();
    assert_eq!(seen.stopped(), "");
}

#[test]
fn equal_priorities_of_two_tables() {
    let reader = "chain in input 0 accept \n saddr 10.0.0.0/8 mark 7 drop";
    let writer = "chain in input 0 accept \n saddr 10.0.0.0/9 setmark 7";
    let mut rules = ruleset(reader, Vec::new());
    rules.tables.extend(ruleset(writer, Vec::new()).tables);
    let mut bench = Bench::of(rules);
    for _ in 0..2 {
        let mut seen = bench.input();
        assert_eq!(seen.stopped(), "? 10.0.0.0/9");
        assert_eq!(seen.reasons(), [UnknownReason::HookOrder]);
        if let Some(rules) = &mut bench.netns.firewall.nft {
            rules.tables.reverse();
        }
    }
    // One that only stops packets may be before or after another such one.
    let mut rules = ruleset(reader, Vec::new());
    rules
        .tables
        .extend(ruleset("chain in input 0 accept \n saddr 11.0.0.0/8 drop", Vec::new()).tables);
    let mut seen = Bench::of(rules).input();
    assert_eq!(seen.stopped(), "11.0.0.0/8");
    assert!(seen.reasons().is_empty());
}

/// The SYN, up to where it is delivered, then what comes after it: the SYN-ACK at output, the ACK at
/// prerouting and input.
fn conversation(text: &str, turn: Turn) -> Seen {
    let bench = Bench::new(text, Vec::new());
    let first = bench.run(Bench::syn(), &[NfHook::Prerouting, NfHook::Input]);
    let connection = first.result.passed[0].view.connection.detached();
    let syn = Bench::syn();
    let (from, to) = ((syn.source, syn.source_port), (syn.destination, syn.destination_port));
    let (from, to) = if turn == Turn::Answer { (to, from) } else { (from, to) };
    let iif = syn.iif.filter(|_| turn == Turn::Second);
    let oif = syn.iif.filter(|_| turn == Turn::Answer);
    let view = View { connection, iif, oif, ..View::new(Family::Ipv4, 6, turn, from, to) };
    let hooks: &[NfHook] = match turn {
        Turn::Answer => &[NfHook::Output],
        _ => &[NfHook::Prerouting, NfHook::Input],
    };
    bench.run(view, hooks)
}

#[test]
fn what_conntrack_says_of_the_second_packet() {
    let rules = "chain raw output -300 accept \n RAW
        chain in input 0 drop \n ct 8 accept \n ct 2 status 2 status 4 status 8 accept";
    for (raw, passed) in [
        ("counter", "0.0.0.0/0"),
        // Its answer was not seen: it is invalid.
        ("daddr 10.0.0.0/8 notrack \n !daddr 11.0.0.0/8 accept \n zone 5", NOT_10_NOT_11),
    ] {
        let mut seen = conversation(&rules.replace("RAW", raw), Turn::Second);
        assert_eq!(seen.passed(), passed, "{raw}");
    }
}

/// All but 10.0.0.0/7.
const NOT_10_NOT_11: &str =
    "0.0.0.0/5, 8.0.0.0/7, 12.0.0.0/6, 16.0.0.0/4, 32.0.0.0/3, 64.0.0.0/2, 128.0.0.0/1";

#[test]
fn answers_are_of_their_zone() {
    let pre = "chain raw prerouting -300 accept \n zone 5 \n zone 6 \n notrack";
    let out = "chain out output 0 drop \n ct 2 accept";
    let mut seen = conversation(&format!("{pre} \n {out}"), Turn::Answer);
    assert_eq!(seen.passed(), "");
    let raw = "chain raw2 output -300 accept \n daddr 10.0.0.0/8 zone 5 \n zone 6";
    let mut seen = conversation(&format!("{pre} \n {raw} \n {out}"), Turn::Answer);
    assert_eq!(seen.passed(), "10.0.0.0/8");
    let input = "chain in input 0 drop \n ct 8 accept \n ct 2 accept";
    let mut seen = conversation(&format!("{pre} \n {raw} \n {input}"), Turn::Second);
    assert_eq!(seen.passed(), "10.0.0.0/8");
}

#[test]
fn masks_of_low_bits() {
    let mut bench = Bench::new("chain in input 0 drop \n saddr 0.0.0.4&0.0.0.5 accept", Vec::new());
    bench.netns.addresses.push(address("10.1.0.1/29", Ifindex(2)));
    let mut seen = bench.input();
    // The other networks are too many.
    assert!(seen.passed().starts_with("10.1.0.4/32, 10.1.0.6/32 ? 0.0.0.0/5"), "{}", seen.passed());
    assert_eq!(seen.reasons(), [UnknownReason::LimitReached]);
}

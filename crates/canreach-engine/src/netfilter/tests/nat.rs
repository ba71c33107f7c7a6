//! Translation.

use super::*;
use crate::netfilter::view::Tracking;

fn destination(view: &View) -> (Part, Part) {
    (view.destination, view.destination_port)
}

const HOME: (Part, Part) = (Part::Is(0x0a00_0002), Part::Is(80));

#[test]
fn to_another_destination_and_back() {
    let text = "chain pre prerouting -100 accept nat \n dport 22 dnat 10.0.0.2:80
        chain post postrouting 100 accept nat";
    let bench = Bench::new(text, Vec::new());
    let seen = bench.run(Bench::syn(), &[NfHook::Prerouting]);
    let view = &seen.result.passed[0].view;
    assert_eq!(destination(view), HOME);
    assert!(view.connection.destination_nat.is_some());
    let seen = bench.run(view.clone(), &[NfHook::Forward, NfHook::Postrouting]);
    let view = &seen.result.passed[0].view;
    assert!(view.connection.confirmed && view.connection.source_done);
    // The answer comes from where the connection was sent, and looks as if it came from where it was
    // meant to go.
    let connection = view.connection.detached();
    let (from, to) = (HOME, (Part::Client, Part::Client));
    let mut answer = View::new(Family::Ipv4, 6, Turn::Answer, from, to);
    answer.connection = connection;
    let seen = bench.run(answer, &[NfHook::Prerouting]);
    let view = &seen.result.passed[0].view;
    assert_eq!(view.connection.tracking, Tracking::Established);
    assert_eq!((view.source, view.source_port), HOME);
    let seen = bench.run(view.clone(), &[NfHook::Postrouting]);
    let view = &seen.result.passed[0].view;
    assert_eq!((view.source, view.source_port), (Part::Is(0xc000_0201), Part::Is(22)));
    // The client's second packet takes the same way as the first.
    let mut second = Bench::syn();
    second.turn = Turn::Second;
    second.connection = view.connection.detached();
    let seen = bench.run(second, &[NfHook::Prerouting]);
    let view = &seen.result.passed[0].view;
    assert_eq!(destination(view), HOME);
    assert!(view.connection.assured && !view.connection.reply);
}

#[test]
fn filters_before_see_what_was_dialled() {
    let text = "chain pre prerouting -150 accept nat \n dnat 10.0.0.2:80
        chain raw prerouting -110 accept \n dport 80 drop
        chain late prerouting -90 accept \n dport 22 drop
        chain in input 0 drop \n daddr 10.0.0.2 dport 80 accept";
    let mut seen =
        Bench::new(text, Vec::new()).run(Bench::syn(), &[NfHook::Prerouting, NfHook::Input]);
    assert_eq!(seen.passed(), "0.0.0.0/0");
}

#[test]
fn nobody_asks_nat_chains_without_conntrack() {
    let text = "chain pre prerouting -100 drop nat \n dport 80 drop";
    let mut seen = Bench::new(text, Vec::new()).run(Bench::syn(), &[NfHook::Prerouting]);
    assert_eq!(seen.passed(), "0.0.0.0/0");
    let text = "chain pre prerouting -100 drop nat \n dport 22 saddr 10.0.0.0/8 accept
        chain in input 0 accept \n ct 2 accept";
    let mut seen = Bench::new(text, Vec::new()).run(Bench::syn(), &[NfHook::Prerouting]);
    assert_eq!(seen.passed(), "10.0.0.0/8");
}

#[test]
fn one_of_several_targets() {
    let text = "chain pre prerouting -100 accept nat \n dnat 10.0.0.2-10.0.0.4";
    let seen = Bench::new(text, Vec::new()).run(Bench::syn(), &[NfHook::Prerouting]);
    let mut targets: Vec<_> =
        seen.result.passed.iter().map(|strand| strand.view.destination).collect();
    targets.sort_unstable();
    assert_eq!(targets, [2, 3, 4].map(|last| Part::Is(0x0a00_0000 + last)));
    assert_eq!(seen.reasons(), [UnknownReason::RandomChoice]);
}

#[test]
fn to_the_links_own_address() {
    let text = "chain pre prerouting -100 accept nat \n redirect 8080
        chain out output -100 accept nat \n redirect 8080";
    let bench = Bench::new(text, Vec::new());
    let seen = bench.run(Bench::syn(), &[NfHook::Prerouting]);
    let stops: Vec<_> = seen.stops().iter().map(|stop| stop.reason).collect();
    assert_eq!(stops, [DropReason::NatFailed]);
    let mut local = Bench::syn();
    local.iif = None;
    local.oif = Some(Ifindex(2));
    let seen = bench.run(local, &[NfHook::Output]);
    let view = &seen.result.passed[0].view;
    assert_eq!(destination(view), (Part::Is(0x7f00_0001), Part::Is(8080)));
    assert!(view.reroute);
}

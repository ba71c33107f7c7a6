//! Two states of a saved machine: what became reachable, for whom, and because of what.

use canreach_engine::access::{Access, ProgramName};
use canreach_engine::difference::{Change, Difference, Two, difference};
use canreach_engine::{Host, SocketIndex, Subject};
use canreach_snapshot::{Netns, Port, Snapshot};

fn machine(name: &str) -> Snapshot {
    let path = format!("{}/../../fixtures/snapshots/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    Snapshot::from_bytes(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names by port: enough to tell programs apart here.
fn name(netns: &Netns, SocketIndex(index): SocketIndex) -> Option<ProgramName> {
    let socket = netns.sockets.get(index)?;
    Some(ProgramName { name: format!("port {} of {}", socket.port, socket.uid), certain: true })
}

fn compare(before: &Netns, after: &Netns) -> Difference {
    let hosts = Two { before: &Host::resolve(before), after: &Host::resolve(after) };
    let of_before = |socket| name(before, socket);
    let of_after = |socket| name(after, socket);
    difference(hosts, Two { before: &of_before, after: &of_after })
}

fn access(access: Access) -> &'static str {
    match access {
        Access::No => "no",
        Access::Improbable => "no?",
        Access::Probable => "yes?",
        Access::Yes => "yes",
    }
}

fn subject(subject: Option<&Subject>) -> String {
    subject.map_or_else(|| "-".to_owned(), |subject| format!("{subject:?}"))
}

/// `tcp/22 wlan0 192.168.1.20: no -> yes network 192.168.1.0/24; socket bind-loopback ... -> ...`,
/// IPv4 alone.
fn lines(difference: &Difference) -> Vec<String> {
    let mut lines = Vec::new();
    for server in &difference.servers {
        let of = server.server.after.as_ref().or(server.server.before.as_ref()).expect("one");
        for change in server.changes.iter().filter(|change| change.to.is_ipv4()) {
            let Change { via, to, circle, sources, elsewhere, .. } = change;
            let via = via.as_deref().unwrap_or("self");
            let causes = change.causes.iter().map(|cause| {
                let Two { before, after } = &cause.deciding;
                let slug = |reason: Option<canreach_engine::difference::Reason>| {
                    reason.map_or("passes", canreach_engine::difference::Reason::slug)
                };
                format!(
                    "; {}: {} {} -> {} {}",
                    cause.stage.slug(),
                    slug(before.reason),
                    subject(before.subject.as_ref()),
                    slug(after.reason),
                    subject(after.subject.as_ref())
                )
            });
            let prefixes = sources.to_prefixes();
            let shown = prefixes.first().map(ToString::to_string).unwrap_or_default();
            let more = if prefixes.len() > 1 { ", ..." } else { "" };
            lines.push(format!(
                "{}/{} {via} {to}: {} -> {} {} {shown}{more}{}{}",
                of.proto.name(),
                of.port,
                access(change.access.before),
                access(change.access.after),
                circle.slug(),
                if *elsewhere { " (elsewhere)" } else { "" },
                causes.collect::<String>(),
            ));
        }
    }
    lines
}

/// `ports` are the servers that are left on the machine.
fn check(name: &str, ports: &[u16], change: fn(&mut Netns), expected: &[&str]) {
    let mut before = machine(name);
    before.namespaces[0].sockets.retain(|socket| ports.contains(&socket.port.0));
    let mut after = before.clone();
    change(&mut after.namespaces[0]);
    let (before, after) = (&before.namespaces[0], &after.namespaces[0]);
    let found = lines(&compare(before, after));
    assert_eq!(found, expected, "{name}");
    // The other way round, the same differences the other way round.
    let back = compare(after, before);
    let sides = |difference: &Difference| {
        let mut sides: Vec<_> = difference
            .servers
            .iter()
            .flat_map(|server| &server.changes)
            .map(|change| (change.access, change.elsewhere, change.sources.to_string()))
            .collect();
        sides.sort();
        sides
    };
    let mut turned: Vec<_> = sides(&back)
        .into_iter()
        .map(|(Two { before, after }, elsewhere, sources)| {
            (Two { before: after, after: before }, elsewhere, sources)
        })
        .collect();
    turned.sort();
    assert_eq!(turned, sides(&compare(before, after)), "{name}, backwards");
}

#[test]
fn nothing_differs_from_itself() {
    for name in ["laptop", "server", "vpn", "container", "offline", "laptop-firewall"] {
        check(name, &[22, 3000, 5432, 8000, 8888, 9000, 5353], |_| {}, &[]);
    }
}

/// Containers that pretend to be on the LAN are answered there: that doubt adds nobody.
#[test]
fn a_server_that_listens_on_more_addresses() {
    let because = "socket: bind-loopback Socket(SocketIndex(2)) -> passes Socket(SocketIndex(2))";
    check(
        "laptop",
        &[22, 3000],
        |netns| {
            let socket = netns.sockets.iter_mut().find(|socket| socket.port == Port(3000));
            socket.expect("vite").address = "0.0.0.0".parse().expect("an address");
        },
        &[
            &format!("tcp/3000 wlan0 192.168.1.20: no -> yes internet 0.0.0.0/1, ...; {because}"),
            &format!("tcp/3000 docker0 172.17.0.1: no -> yes containers 172.17.0.0/16; {because}"),
            &format!("tcp/3000 wlan0 172.17.0.1: no -> yes internet 0.0.0.0/1, ...; {because}"),
            &format!(
                "tcp/3000 docker0 192.168.1.20: no -> yes containers 172.17.0.0/16; {because}"
            ),
        ],
    );
}

#[test]
fn a_server_that_is_gone() {
    let because = "socket: passes Socket(SocketIndex(2)) -> not-listening -";
    check(
        "server",
        &[22, 80],
        |netns| netns.sockets.retain(|socket| socket.port != Port(80)),
        &[
            &format!("tcp/80 ens3 203.0.113.10: yes -> no internet 0.0.0.0/5, ...; {because}"),
            &format!("tcp/80 ens4 10.0.0.5: yes -> no network 10.0.0.0/24; {because}"),
            &format!("tcp/80 ens3 10.0.0.5: yes -> no internet 0.0.0.0/5, ...; {because}"),
            &format!("tcp/80 ens4 203.0.113.10: yes -> no network 10.0.0.0/24; {because}"),
            &format!("tcp/80 self 127.0.0.1: yes -> no self 127.0.0.1/32; {because}"),
        ],
    );
}

/// The same people, by another address: not one of them could not connect before.
#[test]
fn a_machine_with_another_address() {
    let new = "(elsewhere); route: not-local - -> passes Address(1); \
               reply: reply-source-not-local - -> passes Link";
    let gone = "(elsewhere); route: passes Address(1) -> not-local -; \
                reply: passes Link(Ifindex(2)) -> reply-source-not-local -";
    let gone3 = gone.replace("Ifindex(2)", "Ifindex(3)");
    check(
        "laptop",
        &[22],
        |netns| {
            let from = "192.168.1.20/24".parse().expect("a prefix");
            let address = netns.addresses.iter_mut().find(|address| address.prefix == from);
            address.expect("the LAN address").prefix = "192.168.1.21/24".parse().expect("a prefix");
            for route in &mut netns.routes {
                if route.destination == "192.168.1.20/32".parse().expect("a prefix") {
                    route.destination = "192.168.1.21/32".parse().expect("a prefix");
                }
                route.preferred_source = None;
            }
        },
        &[
            &format!(
                "tcp/22 wlan0 192.168.1.21: no -> yes internet 0.0.0.0/1, ... {new}(Ifindex(2))"
            ),
            &format!(
                "tcp/22 docker0 192.168.1.21: no -> yes containers 172.17.0.0/16 {new}(Ifindex(3))"
            ),
            &format!("tcp/22 wlan0 192.168.1.20: yes -> no internet 0.0.0.0/1, ... {gone}"),
            &format!("tcp/22 docker0 192.168.1.20: yes -> no containers 172.17.0.0/16 {gone3}"),
        ],
    );
}

#[test]
fn a_route_that_is_gone() {
    let because = "reply: passes Route(0) -> no-reply-route -";
    check(
        "server",
        &[22, 5432],
        |netns| netns.routes.retain(|route| route.destination.length() > 0),
        &[
            &format!("tcp/22 ens3 203.0.113.10: yes -> no internet 0.0.0.0/5, ...; {because}"),
            &format!("tcp/22 ens3 10.0.0.5: yes -> no internet 0.0.0.0/5, ...; {because}"),
            &format!("tcp/5432 ens3 10.0.0.5: yes -> no internet 0.0.0.0/5, ...; {because}"),
        ],
    );
}

/// A VPN that takes all answers: who is behind it gets in, and the internet no longer does.
#[test]
fn a_link_that_is_new() {
    let mut after = machine("vpn");
    after.namespaces[0].sockets.retain(|socket| socket.port == Port(8888));
    let mut before = after.clone();
    let netns = &mut before.namespaces[0];
    let new = netns.link_named("tun0").expect("a link").ifindex;
    netns.links.retain(|link| link.ifindex != new);
    netns.addresses.retain(|address| address.ifindex != new);
    netns.routes.retain(|route| !route.nexthops.iter().any(|hop| hop.ifindex == Some(new)));
    let difference = compare(&before.namespaces[0], &after.namespaces[0]);
    let vpn = "reply: passes Link(Ifindex(2)) -> vpn-reply Route(2)";
    let link = "link: link-down - -> passes Link(Ifindex(3))";
    let address = "(elsewhere); route: not-local - -> passes Address(2); \
                   reply: reply-source-not-local - -> passes Link";
    let expected = [
        format!("tcp/8888 enp3s0 192.168.7.40: yes -> no internet 0.0.0.0/2, ...; {vpn}"),
        format!("tcp/8888 tun0 10.8.0.6: no -> yes network 0.0.0.0/2, ...; {link}"),
        format!("tcp/8888 enp3s0 10.8.0.6: no -> yes network 192.168.7.0/24 {address}(Ifindex(2))"),
        format!("tcp/8888 enp3s0 100.101.7.3: yes -> no internet 0.0.0.0/2, ...; {vpn}"),
        format!("tcp/8888 tun0 192.168.7.40: no -> yes network 0.0.0.0/2, ...; {link}"),
        format!("tcp/8888 tun0 100.101.7.3: no -> yes network 0.0.0.0/2, ...; {link}"),
        format!(
            "tcp/8888 tailscale0 10.8.0.6: no -> yes network 100.64.0.0/10 {address}(Ifindex(4))"
        ),
    ];
    assert_eq!(lines(&difference), expected);
}

#[test]
fn rules_that_appear_are_a_doubt() {
    let (mut before, mut after) = (machine("laptop"), machine("laptop-firewall"));
    for snapshot in [&mut before, &mut after] {
        snapshot.namespaces[0].sockets.retain(|socket| socket.port == Port(22));
    }
    let difference = compare(&before.namespaces[0], &after.namespaces[0]);
    let because = "input: passes - -> not-modelled Chain(0)";
    let expected = [
        format!("tcp/22 wlan0 192.168.1.20: yes -> yes? internet 0.0.0.0/1, ...; {because}"),
        format!("tcp/22 docker0 172.17.0.1: yes -> yes? containers 172.17.0.0/16; {because}"),
        format!("tcp/22 wlan0 172.17.0.1: yes -> yes? internet 0.0.0.0/1, ...; {because}"),
        format!("tcp/22 docker0 192.168.1.20: yes -> yes? containers 172.17.0.0/16; {because}"),
        format!("tcp/22 self 127.0.0.1: yes -> yes? self 127.0.0.1/32; {because}"),
    ];
    assert_eq!(lines(&difference), expected);
    assert!(difference.is_uncertain());
}

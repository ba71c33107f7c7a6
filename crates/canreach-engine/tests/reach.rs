//! Who can reach what on the saved machines: the classifier against tables.

use canreach_engine::Host;
use canreach_engine::audience::{ListenerReach, classify};
use canreach_snapshot::{Ifindex, Netns, PolicyRule, Port, Snapshot};

fn machine(name: &str) -> Snapshot {
    let path = format!("{}/../../fixtures/snapshots/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    Snapshot::from_bytes(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn subject(snapshot: &Snapshot) -> &Netns {
    snapshot.subject().expect("every saved machine has a namespace")
}

/// `port address: reach (if doubts do no harm), stop`, for each listener.
fn lines(netns: &Netns) -> Vec<String> {
    let host = Host::resolve(netns);
    let line = |listener: &ListenerReach| {
        let socket = &netns.sockets[listener.socket.0];
        let stop = listener.stop.map(|stop| format!(", {}", stop.slug())).unwrap_or_default();
        let reach = if listener.reach == listener.apart_from_doubts {
            listener.reach.slug().to_owned()
        } else {
            format!("{} ({})", listener.reach.slug(), listener.apart_from_doubts.slug())
        };
        format!("{} {}: {reach}{stop}", socket.port, socket.address)
    };
    classify(&host).iter().map(line).collect()
}

#[test]
fn reach_on_saved_machines() {
    let check = |name: &str, change: fn(&mut Netns), expected: &[&str]| {
        let mut snapshot = machine(name);
        change(&mut snapshot.namespaces[0]);
        assert_eq!(lines(subject(&snapshot)), expected, "{name}");
    };
    let as_it_is: fn(&mut Netns) = |_| {};
    check(
        "server",
        as_it_is,
        &[
            "22 0.0.0.0: internet",
            "22 ::: internet",
            "80 0.0.0.0: internet",
            "80 ::: internet",
            "5432 10.0.0.5: internet",
            "5432 127.0.0.1: self, bind-loopback",
            "6379 127.0.0.1: self, bind-loopback",
            "6379 ::1: self, bind-loopback",
            "2049 0.0.0.0: internet",
            "2049 ::: internet",
        ],
    );
    // Containers are all that is left while the Wi-Fi is off.
    check(
        "offline",
        as_it_is,
        &[
            "22 0.0.0.0: containers, no-reply-route",
            "22 ::: containers, no-reply-route",
            "5432 0.0.0.0: containers, no-reply-route",
            "5432 ::: containers, no-reply-route",
            "5173 0.0.0.0: containers, no-reply-route",
            "3000 127.0.0.1: self, bind-loopback",
        ],
    );
    // Without a default route, no answer reaches anyone but the neighbours.
    check(
        "container",
        |netns| {
            netns.routes.retain(|route| route.destination.length() > 0);
            netns.sockets[0].address = "0.0.0.0".parse().expect("an address");
        },
        &["8000 0.0.0.0: network"],
    );
    // Something else than the bind address stops everyone.
    check(
        "container",
        |netns| {
            netns.sockets[0].address = "0.0.0.0".parse().expect("an address");
            netns.links[1].flags.0 &= !0x10000;
        },
        &["8000 0.0.0.0: blocked, link-down"],
    );
    check(
        "laptop-firewall",
        |netns| netns.sockets.retain(|socket| [22, 3000].contains(&socket.port.0)),
        &[
            "22 0.0.0.0: unknown (internet)",
            "22 ::: unknown (internet)",
            "3000 127.0.0.1: self, bind-loopback",
        ],
    );
}

/// Ten thousand listeners that differ in nothing but their port get what each would get alone.
#[test]
fn alike_listeners_share_their_answers() {
    let mut snapshot = machine("laptop");
    let netns = &mut snapshot.namespaces[0];
    let samples = netns.sockets.clone();
    netns.sockets = (0..300_u16)
        .map(|number| {
            let mut socket = samples[usize::from(number) % samples.len()].clone();
            socket.port = Port(2000 + number);
            socket
        })
        .collect();
    let together: Vec<ListenerReach> = classify(&Host::resolve(netns));
    assert_eq!(together.len(), 300);
    for listener in together.iter().step_by(37) {
        let mut alone = netns.clone();
        alone.sockets = vec![netns.sockets[listener.socket.0].clone()];
        let by_itself = classify(&Host::resolve(&alone)).remove(0);
        let socket = listener.socket;
        assert_eq!(*listener, ListenerReach { socket, ..by_itself });
    }
}

/// Where a policy rule asks for a port, listeners are not alike any more.
#[test]
fn rules_about_ports_tell_listeners_apart() {
    let mut snapshot = machine("container");
    let netns = &mut snapshot.namespaces[0];
    netns.sockets[0].address = "0.0.0.0".parse().expect("an address");
    let mut second = netns.sockets[0].clone();
    second.port = Port(8001);
    netns.sockets.push(second);
    let template = netns.policy_rules[0].clone();
    let rule = PolicyRule {
        priority: 1,
        source_ports: Some((8001, 8001)),
        ip_protocol: Some(6),
        action: canreach_snapshot::PolicyAction::Prohibit,
        ..template
    };
    netns.policy_rules.insert(0, rule);
    netns.fib_layout = canreach_snapshot::FibLayout::Split;
    let found = lines(netns);
    assert_ne!(found[0].split_once(' '), found[1].split_once(' '), "{found:?}");
    assert!(found[1].starts_with("8001"), "{found:?}");
}

#[test]
fn the_ways_in_are_named() {
    let snapshot = machine("laptop");
    let netns = subject(&snapshot);
    let listeners = classify(&Host::resolve(netns));
    let of_port = |port: u16| {
        listeners
            .iter()
            .find(|listener| netns.sockets[listener.socket.0].port == Port(port))
            .expect("a listener")
    };
    let wifi = netns.link_named("wlan0").expect("a link").ifindex;
    let vite = of_port(5173);
    let lan: std::net::IpAddr = "192.168.1.20".parse().expect("an address");
    let way = vite.audience.iter().find(|way| way.via == Some(wifi) && way.to == lan);
    let way = way.expect("the LAN");
    assert!(way.sources.contains("192.168.1.50".parse().expect("an address")));
    assert!(!way.sources.contains("172.17.0.5".parse().expect("an address")), "answers elsewhere");
    let only: Vec<Option<Ifindex>> = of_port(3000).audience.iter().map(|way| way.via).collect();
    assert_eq!(only, [None], "127.0.0.1 is reached from here alone");
}

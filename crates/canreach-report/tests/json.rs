//! The JSON of saved machines against its own schemas, and against what DESIGN promises of it.

use canreach_engine::address_choice::choose;
use canreach_engine::ask::{Ask, AskError, From};
use canreach_engine::difference::Two;
use canreach_engine::expectation::Policy;
use canreach_engine::{AddressSet, Answer, Host, answer};
use canreach_report::json::{self, schema};
use canreach_report::report::diff::Side;
use canreach_report::{CheckReport, DiffReport, IpReport, ListReport, WhyReport};
use canreach_snapshot::{Family, Gap, GapReason, GapSubject, Netns, Port, Prefix, Proto, Snapshot};
use serde_json::Value;

const MACHINES: [&str; 8] = [
    "laptop",
    "laptop-as-user",
    "laptop-firewall",
    "offline",
    "server",
    "container",
    "vpn",
    "nothing-listening",
];

fn machine(name: &str) -> Snapshot {
    let path = format!("{}/../../fixtures/snapshots/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    Snapshot::from_bytes(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn subject(snapshot: &Snapshot) -> &Netns {
    snapshot.subject().expect("every saved machine has a namespace")
}

fn read(text: &str) -> Value {
    assert!(text.ends_with('\n') && text.trim_end().lines().count() == 1, "one object, one line");
    serde_json::from_str(text).expect("JSON")
}

fn why(snapshot: &Snapshot, port: u16, from: Option<From>) -> Value {
    let netns = subject(snapshot);
    let ask = Ask { proto: Proto::Tcp, port: Port(port), from, to: None, via: None, uid: 0 };
    let questions = match ask.questions(netns, &choose(netns, &snapshot.machine)) {
        Err(AskError::NoLanAddress) => Vec::new(),
        questions => questions.expect("a question"),
    };
    let host = Host::resolve(netns);
    let answers: Vec<Answer> = questions.iter().map(|question| answer(&host, question)).collect();
    let report = WhyReport::new(snapshot, netns, &ask, &answers, "canreach why");
    read(&json::print(&json::why::Why::new(&report)))
}

fn list(snapshot: &Snapshot) -> Value {
    let report = ListReport::new(snapshot, subject(snapshot), false, "canreach");
    read(&json::print(&json::list::List::new(&[report])))
}

fn ip(snapshot: &Snapshot) -> Value {
    let report = IpReport::new(snapshot, subject(snapshot));
    read(&json::print(&json::ip::Ip::new(&report, true)))
}

fn checked(snapshot: &Snapshot, rule: &str) -> Value {
    let policy = Policy { rules: vec![rule.parse().expect(rule)], allow_unknown: false };
    let report = CheckReport::new(snapshot, subject(snapshot), &policy, &[], "canreach check");
    read(&json::print(&json::check::Check::new(&report)))
}

fn compared(before: &Snapshot, after: &Snapshot) -> Value {
    let sides = Two {
        before: Side { snapshot: before, netns: subject(before), file: Some("before.json") },
        after: Side { snapshot: after, netns: subject(after), file: None },
    };
    let report = DiffReport::new(sides, "canreach diff before.json");
    read(&json::print(&json::diff::Diff::new(&report)))
}

/// As much of JSON Schema as schemars writes. A keyword it does not know fails the test.
fn check(schema: &Value, root: &Value, value: &Value, path: &str) -> Result<(), String> {
    let Some(keywords) = schema.as_object() else {
        return if schema == &Value::Bool(true) { Ok(()) } else { Err(format!("{path}: never")) };
    };
    for (keyword, wanted) in keywords {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "format" => {}
            "$ref" => {
                let name = wanted.as_str().and_then(|name| name.strip_prefix("#/$defs/"));
                let target = &root["$defs"][name.expect("a reference to a definition")];
                assert!(!target.is_null(), "{path}: {wanted} is defined");
                check(target, root, value, path)?;
            }
            "type" => {
                let names: Vec<&str> = match wanted {
                    Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
                    name => name.as_str().into_iter().collect(),
                };
                if !names.iter().any(|name| is_of_type(value, name)) {
                    return Err(format!("{path}: {value} is no {names:?}"));
                }
            }
            "properties" => {
                for (name, schema) in wanted.as_object().expect("properties are an object") {
                    if let Some(inner) = value.get(name) {
                        check(schema, root, inner, &format!("{path}.{name}"))?;
                    }
                }
                // Nothing is printed that the schema does not name.
                for name in value.as_object().into_iter().flat_map(|object| object.keys()) {
                    let of_variant = keywords.contains_key("$ref") || wanted.get(name).is_some();
                    if !of_variant {
                        return Err(format!("{path}: {name} is not in the schema"));
                    }
                }
            }
            "required" => {
                for name in wanted.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.get(name).is_none() {
                        return Err(format!("{path}: {name} is missing"));
                    }
                }
            }
            "items" => {
                for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
                    check(wanted, root, inner, &format!("{path}[{index}]"))?;
                }
            }
            "prefixItems" => {
                let schemas = wanted.as_array().into_iter().flatten();
                for (schema, inner) in schemas.zip(value.as_array().into_iter().flatten()) {
                    check(schema, root, inner, path)?;
                }
            }
            "anyOf" | "oneOf" => {
                let schemas = wanted.as_array().into_iter().flatten();
                let matching =
                    schemas.filter(|schema| check(schema, root, value, path).is_ok()).count();
                if matching == 0 || (keyword == "oneOf" && matching > 1) {
                    return Err(format!("{path}: {value} matches {matching} of {keyword}"));
                }
            }
            "const" if value != wanted => return Err(format!("{path}: {value} is not {wanted}")),
            "const" => {}
            "minimum" if value.is_number() && value.as_f64() < wanted.as_f64() => {
                return Err(format!("{path}: {value} is below {wanted}"));
            }
            "maximum" if value.is_number() && value.as_f64() > wanted.as_f64() => {
                return Err(format!("{path}: {value} is above {wanted}"));
            }
            "minItems" | "maxItems" | "minimum" | "maximum" => {}
            other => panic!("{path}: this test does not know the keyword {other}"),
        }
    }
    Ok(())
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("this test does not know the type {other}"),
    }
}

fn check_schema(name: &str, value: &Value) {
    let schema: Value =
        serde_json::from_str(&schema::schema(name).expect("a schema")).expect("JSON");
    check(&schema, &schema, value, name).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(value["schema"], format!("canreach.{name}/1"));
    assert_eq!(value["complete"], value["unknown"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn everything_printed_is_in_its_schema() {
    for name in MACHINES {
        let snapshot = machine(name);
        check_schema("list", &list(&snapshot));
        check_schema("ip", &ip(&snapshot));
        check_schema("check", &checked(&snapshot, "tcp/22 from lan, containers via wlan0"));
        check_schema("diff", &compared(&snapshot, &machine("server")));
        check_schema("diff", &compared(&machine("laptop"), &snapshot));
        for port in [22, 3000, 5432, 4000] {
            check_schema("why", &why(&snapshot, port, None));
            check_schema("why", &why(&snapshot, port, Some(From::Itself)));
        }
    }
}

#[test]
fn a_schema_refuses_what_is_wrong() {
    let good = list(&machine("laptop"));
    let schema: Value =
        serde_json::from_str(&schema::schema("list").expect("a schema")).expect("JSON");
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        check(&schema, &schema, &value, "list").is_err()
    };
    assert!(broken(&|value| value["listeners"][0]["port"] = "22".into()));
    assert!(broken(&|value| value["listeners"][0]["port"] = 70_000.into()));
    assert!(broken(&|value| value["listeners"][0]["extra"] = 1.into()));
    assert!(broken(&|value| {
        value.as_object_mut().expect("an object").remove("complete");
    }));
}

fn set(family: Family, prefixes: &Value) -> AddressSet {
    let prefixes = prefixes.as_array().into_iter().flatten().filter_map(Value::as_str);
    let prefixes = prefixes.map(|text| text.parse::<Prefix>().expect(text));
    AddressSet::from_prefixes(family, prefixes)
}

/// `yes`, every `no` and every `unknown` are disjoint, and together what was asked about.
fn check_partition(question: &Value, sources: &Value) {
    let Some(from) = question["from"].as_str().filter(|from| *from != "self") else { return };
    let first: Prefix = from.split(", ").next().expect("a prefix").parse().expect("a prefix");
    let family = first.family();
    let asked = from.split(", ").map(|text| text.parse::<Prefix>().expect("a prefix"));
    let asked = AddressSet::from_prefixes(family, asked);
    let mut parts = vec![set(family, &sources["yes"])];
    for kind in ["no", "unknown"] {
        let groups = sources[kind].as_array().into_iter().flatten();
        parts.extend(
            groups.filter(|group| group["ports"].is_null()).map(|g| set(family, &g["set"])),
        );
    }
    let mut all = AddressSet::empty(family);
    for part in parts {
        assert!(all.intersection(&part).is_empty(), "{sources}");
        all = all.union(&part);
    }
    assert_eq!(all, asked, "{sources}");
}

#[test]
fn sources_partition_what_was_asked() {
    for name in MACHINES {
        let snapshot = machine(name);
        for from in [None, Some(From::Any)] {
            let answer = why(&snapshot, 22, from);
            if answer["question"]["to"].is_null() {
                assert_eq!(answer["stop"]["code"], "no-lan-address");
                continue;
            }
            check_partition(&answer["question"], &answer["sources"]);
            for also in answer["also"].as_array().expect("an array") {
                check_partition(&also["question"], &also["sources"]);
            }
        }
    }
}

#[test]
fn addresses_that_could_not_be_read_are_not_absent() {
    let mut snapshot = machine("offline");
    assert_eq!(why(&snapshot, 22, None)["verdict"], "no");
    snapshot.namespaces[0].gaps.push(Gap {
        subject: GapSubject::Links,
        reason: GapReason::NeedsRoot,
        detail: "open a netlink socket: EPERM".to_owned(),
    });
    let answer = why(&snapshot, 22, None);
    assert_eq!(answer["verdict"], "unknown");
    assert_eq!(answer["complete"], false);
    assert!(answer["stop"].is_null());
    assert_eq!(answer["unknown"][0]["what"], "links");
}

#[test]
fn a_server_on_loopback() {
    let answer = why(&machine("laptop"), 3000, None);
    assert_eq!(answer["verdict"], "no");
    assert_eq!(answer["they_see"], "refused");
    assert_eq!(answer["question"]["from"], "192.168.1.0/24");
    assert_eq!(answer["question"]["to"], "192.168.1.20");
    assert_eq!(answer["question"]["via"], "wlan0");
    assert_eq!(answer["stop"]["stage"], "socket");
    assert_eq!(answer["stop"]["code"], "bind-loopback");
    assert_eq!(answer["stop"]["subject"]["kind"], "socket");
    assert_eq!(answer["stop"]["subject"]["address"], "127.0.0.1");
    assert_eq!(answer["listener"]["pid"], 4182);
    assert_eq!(answer["listener"]["resolved_by"], "fd");
    assert_eq!(answer["also"][0]["question"]["to"], "2001:db8::20");
    assert_eq!(answer["not_checked"], serde_json::json!(["ap-isolation", "their-firewall"]));
}

#[test]
fn what_root_alone_can_see_is_unknown_and_says_so() {
    let snapshot = machine("laptop-as-user");
    let answer = why(&snapshot, 22, None);
    assert_eq!(answer["verdict"], "unknown");
    assert_eq!(answer["probably"], "yes");
    assert_eq!(answer["they_see"], Value::Null);
    assert_eq!(answer["unknown"][0]["what"], "firewall");
    assert_eq!(answer["unknown"][0]["reason"], "needs-root");
    assert_eq!(answer["unknown"][0]["how"], "sudo canreach why");
    assert_eq!(why(&snapshot, 3000, None)["probably"], "no");
    let list = list(&snapshot);
    for listener in list["listeners"].as_array().expect("an array") {
        assert_eq!(listener["reach"], "unknown");
        assert_eq!(listener["audience"], serde_json::json!([]));
    }
}

#[test]
fn reach_and_the_ways_in() {
    let list = list(&machine("laptop"));
    let listeners = list["listeners"].as_array().expect("an array");
    let of_port =
        |port: u16| listeners.iter().find(|listener| listener["port"] == port).expect("a listener");
    assert_eq!(of_port(3000)["reach"], "self");
    assert_eq!(of_port(3000)["stop"], "bind-loopback");
    assert_eq!(of_port(22)["reach"], "internet");
    assert_eq!(of_port(22)["binds"].as_array().map(Vec::len), Some(2));
    assert_eq!(of_port(22)["netns"], Value::Null);
    let ways = of_port(5173)["audience"].as_array().expect("an array");
    let way = ways
        .iter()
        .find(|way| way["via"] == "wlan0" && way["to"] == "192.168.1.20")
        .expect("the LAN");
    assert_eq!(way["how"], "direct");
    // Everyone but the containers' network, whose answers would leave by another link.
    assert!(set(Family::Ipv4, &way["sources"]).contains("192.168.1.50".parse().expect("IPv4")));
}

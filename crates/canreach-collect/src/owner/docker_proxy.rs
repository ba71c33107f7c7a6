//! `docker-proxy`: Docker's program that takes connections to a published port in user space. Its
//! arguments name what it listens on.

use std::net::IpAddr;

use canreach_snapshot::{Port, Proto};

/// What it calls itself.
pub(crate) const COMM: &str = "docker-proxy";

/// What one `docker-proxy` listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) proto: Proto,
    /// `None` when the arguments do not say: any address.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: Port,
}

impl Mapping {
    /// `docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2 ...`. Go
    /// programs take one dash or two, and the value after a space or an equals sign.
    pub(crate) fn from_arguments(arguments: &[String]) -> Option<Self> {
        let value = |name: &str| {
            arguments.iter().enumerate().find_map(|(position, argument)| {
                let option = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-'))?;
                match option.split_once('=') {
                    Some((option, value)) => (option == name).then_some(value),
                    None if option == name => arguments.get(position + 1).map(String::as_str),
                    None => None,
                }
            })
        };
        let proto = match value("proto") {
            Some("udp") => Proto::Udp,
            Some("tcp") | None => Proto::Tcp,
            Some(_) => return None,
        };
        let address = value("host-ip").filter(|address| !address.is_empty());
        Some(Self {
            proto,
            address: address.map(str::parse).transpose().ok()?,
            port: Port(value("host-port")?.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Option<(Proto, Option<&str>, u16)>) {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let expect = expect.map(|(proto, address, port)| Mapping {
            proto,
            address: address.map(|address| address.parse().expect("the test's own address")),
            port: Port(port),
        });
        assert_eq!(Mapping::from_arguments(&arguments), expect, "{line}");
    }

    #[test]
    fn arguments_name_what_it_listens_on() {
        check(
            "docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2 \
             -container-port 80 -use-listen-fd",
            Some((Proto::Tcp, Some("0.0.0.0"), 8080)),
        );
        check(
            "docker-proxy --proto=udp --host-ip=:: --host-port=53",
            Some((Proto::Udp, Some("::"), 53)),
        );
        check("docker-proxy -host-port 53", Some((Proto::Tcp, None, 53)));
        check("docker-proxy -proto sctp -host-port 53", None);
        check("docker-proxy -proto tcp -host-port", None);
        check("docker-proxy -proto tcp -host-port 99999", None);
        check("docker-proxy -host-ip x -host-port 5", None);
        check("docker-proxy", None);
    }
}

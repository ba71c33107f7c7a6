//! The three machines: what runs on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One machine.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    /// As on the command line and in the table.
    pub(crate) name: &'static str,
    /// What it stands for.
    pub(crate) title: &'static str,
    /// How often each program runs.
    pub(crate) rounds: usize,
    /// How many listeners there are.
    pub(crate) listeners: usize,
    /// The port that `why` is asked about.
    pub(crate) port: u16,
    /// The processes, in the order in which they start.
    pub(crate) members: Vec<Member>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The cgroup it joins before it opens a socket; the root cgroup without one.
    pub(crate) unit: Option<String>,
    /// Descriptors that are no network sockets, besides the standard three.
    pub(crate) other_descriptors: usize,
    /// What it does.
    pub(crate) work: Work,
}

/// What a process does, until it is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nothing.
    Idle,
    /// Listens on `count` ports, and accepts `accept` connections on the first.
    Listen { address: IpAddr, first: u16, count: u16, accept: usize },
    /// Connects, that often.
    Connect { to: SocketAddr, count: usize },
}

/// Processes of the rest of a machine: many have a hundred, with few descriptors.
const BYSTANDERS: usize = 95;

/// All three.
pub(crate) fn all() -> [Setting; 3] {
    [plain(), processes(), connections()]
}

fn bystanders() -> Vec<Member> {
    // One or two descriptors each besides the standard three: some 430 in all.
    let member = |n| Member { unit: None, other_descriptors: 1 + n % 2, work: Work::Idle };
    (0..BYSTANDERS).map(member).collect()
}

fn unit(name: &str, number: usize) -> Option<String> {
    Some(format!("cr-{name}-{number}.service"))
}

fn plain() -> Setting {
    let mut members = bystanders();
    for number in 0..20_u16 {
        let address = match number {
            n if n % 4 == 0 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            n if n % 3 == 0 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            _ => IpAddr::from(Ipv4Addr::LOCALHOST),
        };
        members.push(Member {
            unit: unit("server", number.into()),
            other_descriptors: 10,
            work: Work::Listen { address, first: 20_000 + number, count: 1, accept: 0 },
        });
    }
    let title = "a plain box: 20 servers";
    Setting { name: "i", title, rounds: 21, listeners: 20, port: 20_019, members }
}

fn processes() -> Setting {
    let mut members = bystanders();
    for number in 0..500 {
        let unit = unit("idle", number);
        members.push(Member { unit, other_descriptors: 47, work: Work::Idle });
    }
    // The last process, and so the largest number: the worst case for a scan that stops early.
    let address = Ipv4Addr::LOCALHOST.into();
    members.push(Member {
        unit: unit("server", 0),
        other_descriptors: 0,
        work: Work::Listen { address, first: 20_000, count: 1_000, accept: 0 },
    });
    let title = "1,000 listeners in one process, 500 other processes";
    Setting { name: "ii", title, rounds: 9, listeners: 1_000, port: 20_999, members }
}

fn connections() -> Setting {
    let mut members = bystanders();
    for number in 0..10_u8 {
        let address = Ipv4Addr::new(127, 0, 0, 1 + number).into();
        members.push(Member {
            unit: unit("server", number.into()),
            other_descriptors: 0,
            work: Work::Listen { address, first: 10_000, count: 1_000, accept: 0 },
        });
    }
    for number in 0..5_u16 {
        let address = IpAddr::from(Ipv4Addr::new(127, 0, 0, 100));
        let (first, count) = (9_000 + number, 10_000);
        members.push(Member {
            unit: unit("busy", number.into()),
            other_descriptors: 0,
            work: Work::Listen { address, first, count: 1, accept: count },
        });
        members.push(Member {
            unit: unit("client", number.into()),
            other_descriptors: 0,
            work: Work::Connect { to: SocketAddr::new(address, first), count },
        });
    }
    let title = "50,000 connections, 10,005 listeners";
    Setting { name: "iii", title, rounds: 5, listeners: 10_005, port: 10_999, members }
}

impl Work {
    /// As arguments of the process.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        match self {
            Self::Idle => vec!["idle".into()],
            Self::Listen { address, first, count, accept } => {
                let numbers = [first.to_string(), count.to_string(), accept.to_string()];
                [vec!["listen".into(), address.to_string()], numbers.to_vec()].concat()
            }
            Self::Connect { to, count } => {
                vec!["connect".into(), to.to_string(), count.to_string()]
            }
        }
    }

    /// From the arguments of the process.
    pub(crate) fn from_arguments(arguments: &[&str]) -> Option<Self> {
        match arguments {
            ["idle"] => Some(Self::Idle),
            ["listen", address, first, count, accept] => Some(Self::Listen {
                address: address.parse().ok()?,
                first: first.parse().ok()?,
                count: count.parse().ok()?,
                accept: accept.parse().ok()?,
            }),
            ["connect", to, count] => {
                Some(Self::Connect { to: to.parse().ok()?, count: count.parse().ok()? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_hold_what_they_promise() {
        for setting in all() {
            let listeners: usize = setting
                .members
                .iter()
                .map(|member| match member.work {
                    Work::Listen { count, .. } => count.into(),
                    Work::Idle | Work::Connect { .. } => 0,
                })
                .sum();
            assert_eq!(listeners, setting.listeners, "{}", setting.name);
            for member in setting.members {
                let arguments = member.work.to_arguments();
                let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
                assert_eq!(Work::from_arguments(&words), Some(member.work));
            }
        }
    }
}

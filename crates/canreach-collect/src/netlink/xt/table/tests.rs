//! Tables as libiptc lays them out, and as nobody does.

use super::*;

/// Makes the bytes of a table, entry by entry.
struct Builder {
    family: Family,
    bytes: Vec<u8>,
}

impl Builder {
    const fn new(family: Family) -> Self {
        Self { family, bytes: Vec::new() }
    }

    /// How long an entry is before its matches, and where the offset of its target stands.
    const fn entry(&self) -> (usize, usize) {
        match self.family {
            Family::Ipv4 => (112, 88),
            Family::Ipv6 => (168, 140),
        }
    }

    /// Appends an entry; where it starts.
    fn push(&mut self, flags: u8, matches: &[u8], target: &[u8]) -> usize {
        let (length, offset_at) = self.entry();
        let at = self.bytes.len();
        let mut entry = vec![0; length];
        let target_at = (length + matches.len()) as u16;
        let next = target_at + target.len() as u16;
        entry[offset_at..offset_at + 2].copy_from_slice(&target_at.to_ne_bytes());
        entry[offset_at + 2..offset_at + 4].copy_from_slice(&next.to_ne_bytes());
        entry[match self.family {
            Family::Ipv4 => 82,
            Family::Ipv6 => 131,
        }] = flags;
        self.bytes.extend(entry);
        self.bytes.extend(matches);
        self.bytes.extend(target);
        at
    }

    fn verdict(&mut self, verdict: i32) -> usize {
        self.push(0, &[], &standard(verdict))
    }

    fn error(&mut self, name: &str) -> usize {
        let mut text = vec![0; 32];
        text[..name.len()].copy_from_slice(name.as_bytes());
        self.push(0, &[], &extension("ERROR", 0, &text))
    }

    fn decode(&self, hooks: &[(usize, usize, usize)]) -> Option<Table> {
        let layout = TableLayout { hooks: hooks.to_vec(), size: self.bytes.len() };
        decode_table(self.family, "filter", &layout, &self.bytes)
    }
}

fn extension(name: &str, revision: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; EXTENSION_HEADER];
    bytes[..2].copy_from_slice(&((EXTENSION_HEADER + data.len()) as u16).to_ne_bytes());
    bytes[2..2 + name.len()].copy_from_slice(name.as_bytes());
    bytes[EXTENSION_HEADER - 1] = revision;
    bytes.extend(data);
    bytes
}

fn standard(verdict: i32) -> Vec<u8> {
    extension("", 0, &[verdict.to_ne_bytes(), [0; 4]].concat())
}

const ACCEPT: i32 = -2;
const DROP: i32 = -1;
const RETURN: i32 = -5;

#[test]
fn chains_and_jumps_are_found() {
    for (family, goto) in [(Family::Ipv4, 2), (Family::Ipv6, 4)] {
        let mut table = Builder::new(family);
        let length = table.entry().0 + EXTENSION_HEADER + 8;
        // Where the first rule of the user's chain will be: five entries, one with a match, and its name.
        let mark = extension("mark", 1, &[0; 16]);
        let own = length * 6 + mark.len() + table.entry().0 + EXTENSION_HEADER + 32;
        let input = table.push(0, &mark, &standard(own as i32));
        table.push(goto, &[], &standard(own as i32));
        let after = table.bytes.len() + length;
        table.verdict(after as i32);
        let input_policy = table.verdict(DROP);
        let output = table.verdict(DROP);
        let output_policy = table.verdict(ACCEPT);
        table.error("OWN");
        assert_eq!(table.bytes.len(), own);
        table.push(0, &[], &extension("MARK", 2, &[1, 0, 0, 0, 3, 0, 0, 0]));
        table.verdict(RETURN);
        table.error("EMPTY");
        table.verdict(RETURN);
        table.error("ERROR");
        let hooks = [(1, input, input_policy), (3, output, output_policy)];
        let read = table.decode(&hooks).expect("it is a table");
        let chains: Vec<_> = read
            .chains
            .iter()
            .map(|chain| (chain.name.as_str(), chain.base, chain.rules.len()))
            .collect();
        assert_eq!(
            chains,
            [
                ("INPUT", Some((NfHook::Input, ChainPolicy::Drop)), 3),
                ("OUTPUT", Some((NfHook::Output, ChainPolicy::Accept)), 1),
                ("OWN", None, 1),
                ("EMPTY", None, 0),
            ]
        );
        let targets: Vec<_> = read
            .chains
            .iter()
            .flat_map(|chain| &chain.rules)
            .map(|rule| &rule.target.kind)
            .collect();
        let own = || "OWN".to_owned();
        assert_eq!(
            targets,
            [
                &TargetKind::Standard(NfVerdict::Jump(own())),
                &TargetKind::Standard(NfVerdict::Goto(own())),
                &TargetKind::Continue,
                &TargetKind::Standard(NfVerdict::Drop),
                &TargetKind::Mark { mark: 1, mask: 3 },
            ]
        );
        let asked = &read.chains[0].rules[0].matches;
        assert_eq!(asked[0].kind, MatchKind::Mark { mark: 0, mask: 0, inverted: false });

        // Every cut, and each byte changed, is a table or none.
        for cut in 0..table.bytes.len() {
            let layout = TableLayout { hooks: hooks.to_vec(), size: cut };
            assert_eq!(decode_table(family, "filter", &layout, &table.bytes[..cut]), None, "{cut}");
        }
        for at in 0..table.bytes.len() {
            for value in [0x80, 0xff] {
                let mut bytes = table.bytes.clone();
                bytes[at] ^= value;
                let layout = TableLayout { hooks: hooks.to_vec(), size: bytes.len() };
                let _ = decode_table(family, "filter", &layout, &bytes);
            }
        }
    }
}

#[test]
fn other_layouts_are_not_guessed_at() {
    let check = |entries: &[Option<i32>], hooks: &[(usize, usize, usize)], why: &str| {
        let mut table = Builder::new(Family::Ipv4);
        let starts: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(at, entry)| match entry {
                Some(verdict) => table.verdict(*verdict),
                None if at + 1 == entries.len() => table.error("ERROR"),
                None => table.error("OWN"),
            })
            .collect();
        let hooks: Vec<_> = hooks
            .iter()
            .map(|&(hook, start, policy)| (hook, starts[start], starts[policy]))
            .collect();
        let read = table.decode(&hooks);
        assert_eq!(read.is_some(), why == "none", "{why}: {read:?}");
    };
    let accept = Some(ACCEPT);
    check(&[accept, None], &[(1, 0, 0)], "none");
    check(&[accept, accept], &[(1, 0, 0)], "no end");
    check(&[accept, accept, None], &[(1, 0, 0)], "a rule of no chain");
    check(&[accept, accept, None], &[(1, 1, 1)], "a rule before the first chain");
    check(&[accept, accept, None], &[(1, 0, 1), (2, 1, 1)], "chains that overlap");
    check(&[accept, accept, None], &[(1, 1, 0)], "a policy before its chain");
    check(&[Some(RETURN), None], &[(1, 0, 0)], "a policy that returns");
    check(&[accept, None, accept, None], &[(1, 0, 0)], "a chain that does not return");
    check(&[accept, None, None], &[(1, 0, 0)], "a chain without an end");
    check(&[accept, None, accept, accept, None], &[(1, 0, 3)], "a chain within another");
    check(&[Some(8), accept, None], &[(1, 0, 1)], "a jump to no rule");
    check(&[Some(0), accept, None], &[(1, 0, 1)], "a jump to a built-in chain");
}

#[test]
fn information_names_the_chains_of_valid_hooks() {
    let mut words = vec![0b01010_u32, 1, 2, 3, 4, 5, 11, 12, 13, 14, 15, 6, 1000];
    let bytes = |words: &[u32]| {
        let mut bytes = vec![0; NAME];
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    };
    let layout = TableLayout::read(&bytes(&words)).unwrap();
    assert_eq!((layout.hooks, layout.size), (vec![(1, 2, 12), (3, 4, 14)], 1000));
    words.pop();
    assert!(TableLayout::read(&bytes(&words)).is_none());
}

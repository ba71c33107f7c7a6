//! Changes to JSON that leave it JSON: bytes changed at random hardly ever get past the parser.

use serde_json::Value;

use crate::random::Random;

/// Numbers at which fields end or turn.
const NUMBERS: [i64; 17] =
    [-1, 0, 1, 2, 3, 8, 24, 32, 33, 64, 128, 254, 255, 256, 65_535, 4_294_967_295, i64::MAX];

/// Texts that some field takes.
const TEXTS: [&str; 18] = [
    "",
    "lo",
    "eth0",
    "all",
    "0.0.0.0",
    "::",
    "127.0.0.1/8",
    "::1/128",
    "0.0.0.0/0",
    "::/0",
    "255.255.255.255",
    "::ffff:10.0.0.1",
    "fe80::1/64",
    "224.0.0.0/4",
    "9.9.9.0/24",
    "unknown",
    "local",
    "\u{1b}[1m",
];

/// A file with one to four places changed; `None` if it is no JSON to begin with.
#[must_use]
pub fn mutate(bytes: &[u8], random: &mut Random) -> Option<Vec<u8>> {
    let mut file: Value = serde_json::from_slice(bytes).ok()?;
    for _ in 0..=random.below(4) {
        let place = random.below(places(&file));
        change(&mut file, place, random);
    }
    serde_json::to_vec(&file).ok()
}

/// [`mutate`] within a buffer, every other time: the new length, or `None` where other changes are to
/// be made.
pub fn mutate_in_place(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    random: &mut Random,
) -> Option<usize> {
    if random.below(2) == 0 {
        return None;
    }
    let changed = mutate(data.get(..size)?, random).filter(|changed| changed.len() <= max_size)?;
    data.get_mut(..changed.len())?.copy_from_slice(&changed);
    Some(changed.len())
}

/// How many values there are, counting the outermost.
fn places(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(places).sum(),
        Value::Object(fields) => fields.values().map(places).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Changes the value at a place, counted in order. Returns the places passed if it lies further on.
fn change(value: &mut Value, place: usize, random: &mut Random) -> Option<usize> {
    if place == 0 {
        change_here(value, random);
        return None;
    }
    let mut left = place - 1;
    let below: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    for inner in below {
        left = change(inner, left, random)?;
    }
    Some(left)
}

fn change_here(value: &mut Value, random: &mut Random) {
    match value {
        Value::Null => *value = if random.below(2) == 0 { number(random) } else { text(random) },
        Value::Bool(on) => *on = !*on,
        Value::Number(_) => *value = number(random),
        Value::String(_) if random.below(8) == 0 => *value = Value::Null,
        Value::String(_) => *value = text(random),
        Value::Array(items) => match (random.below(3), items.is_empty()) {
            (0, false) => {
                items.remove(random.below(items.len()));
            }
            (1, false) => {
                let copy = items[random.below(items.len())].clone();
                items.insert(random.below(items.len() + 1), copy);
            }
            (_, false) => {
                let (one, other) = (random.below(items.len()), random.below(items.len()));
                items.swap(one, other);
            }
            (_, true) => items.push(number(random)),
        },
        Value::Object(fields) => {
            let keys: Vec<String> = fields.keys().cloned().collect();
            let (Some(one), Some(other)) =
                (keys.get(random.below(keys.len())), keys.get(random.below(keys.len())))
            else {
                return;
            };
            match random.below(3) {
                0 => {
                    fields.remove(one);
                }
                _ => {
                    let copy = fields.get(one).cloned().unwrap_or(Value::Null);
                    fields.insert(other.clone(), copy);
                }
            }
        }
    }
}

fn number(random: &mut Random) -> Value {
    match random.below(4) {
        0 => Value::from(random.number()),
        1 => Value::from(random.below(40)),
        _ => Value::from(NUMBERS[random.below(NUMBERS.len())]),
    }
}

fn text(random: &mut Random) -> Value {
    match random.below(4) {
        0 => Value::from(format!(
            "{}.{}.{}.{}/{}",
            random.below(256),
            random.below(256),
            random.below(256),
            random.below(256),
            random.below(34)
        )),
        1 => Value::from(format!(
            "2a00:{:x}::{:x}/{}",
            random.below(65_536),
            random.below(65_536),
            random.below(130)
        )),
        _ => Value::from(TEXTS[random.below(TEXTS.len())]),
    }
}

//! One change of an input: bytes as they may be damaged, and numbers and words as somebody may have chosen them.

use std::ops::Range;

use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

/// Numbers at the edges of what types hold.
const NUMBERS: [&str; 16] = [
    "0",
    "-1",
    "1",
    "0.5",
    "65536",
    "2147483648",
    "4294967296",
    "16777217",
    "9007199254740993",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e300",
    "-1e-300",
    ".nan",
    "1e999",
];

/// What may take the place of something else.
const WORDS: [&str; 14] = [
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"..\"",
    "/",
    "\\u0000",
    "{{",
    "}}",
    "{% for a in range(100000) %}",
    "*a",
    "&a ",
    "\n",
];

/// Changes an input in place; `other` is one that parts are taken from.
pub(crate) fn change(input: &mut Vec<u8>, other: &[u8], random: &mut ChaCha8Rng) {
    match random.random_range(0..12) {
        0 | 1 => flip(input, random),
        2 => input.truncate(random.random_range(0..=input.len())),
        3 => drop(input.drain(part(input.len(), 64, random))),
        4 => {
            let from = part(input.len(), 64, random);
            let copy = input[from].to_vec();
            insert(input, &copy, random);
        }
        5 => {
            let from = part(other.len(), 64, random);
            insert(input, &other[from], random);
        }
        6 => insert(input, pick(&WORDS, random), random),
        7 | 8 => replace_number(input, random),
        9 => replace_string(input, random),
        10 => binary(input, random),
        _ => nest(input, random),
    }
}

fn pick<'a>(words: &[&'a str], random: &mut ChaCha8Rng) -> &'a [u8] {
    words.choose(random).copied().unwrap_or_default().as_bytes()
}

/// A part of so many bytes at most.
fn part(length: usize, most: usize, random: &mut ChaCha8Rng) -> Range<usize> {
    let start = random.random_range(0..=length);
    start..random.random_range(start..=(start + most).min(length))
}

fn insert(input: &mut Vec<u8>, bytes: &[u8], random: &mut ChaCha8Rng) {
    let at = random.random_range(0..=input.len());
    input.splice(at..at, bytes.iter().copied());
}

fn flip(input: &mut [u8], random: &mut ChaCha8Rng) {
    // Half of the time near the start, where headers are.
    let most = if random.random_bool(0.5) { 256.min(input.len()) } else { input.len() };
    if most > 0 {
        input[random.random_range(0..most)] ^= 1 << random.random_range(0..8);
    }
}

/// Puts a number of the edge in the place of one that is written out.
fn replace_number(input: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let starts: Vec<usize> = (0..input.len())
        .filter(|&at| input[at].is_ascii_digit() && (at == 0 || !input[at - 1].is_ascii_digit()))
        .take(2000)
        .collect();
    let Some(&start) = starts.choose(random) else { return };
    let length = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    input.splice(start..start + length, pick(&NUMBERS, random).iter().copied());
}

/// Puts a word in the place of a text between quotes, or that of another such text.
fn replace_string(input: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let quotes: Vec<usize> = (0..input.len()).filter(|&at| input[at] == b'"').take(2000).collect();
    let spans: Vec<Range<usize>> = quotes.windows(2).map(|pair| pair[0] + 1..pair[1]).collect();
    let (Some(to), Some(from)) = (spans.choose(random).cloned(), spans.choose(random).cloned()) else { return };
    let new = if random.random_bool(0.5) { input[from].to_vec() } else { pick(&WORDS, random).to_vec() };
    input.splice(to, new);
}

/// Writes a number of the edge over eight bytes, as binary formats hold lengths.
fn binary(input: &mut [u8], random: &mut ChaCha8Rng) {
    let numbers = [0, 1, u64::MAX, 1 << 31, 1 << 32, 1 << 63, input.len() as u64, (1 << 40) - 1];
    let width = if random.random_bool(0.5) { 4 } else { 8 };
    let most = if random.random_bool(0.7) { 512.min(input.len()) } else { input.len() };
    if most >= width {
        let at = random.random_range(0..=most - width);
        let number = numbers.choose(random).copied().unwrap_or_default().to_le_bytes();
        input[at..at + width].copy_from_slice(&number[..width]);
    }
}

/// Nests a place deep, or repeats a byte often.
fn nest(input: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    let unit = [b"[".as_slice(), b"{\"a\":", b"(", b"a", b"-", b" "].choose(random).copied().unwrap_or_default();
    let times = if random.random_bool(0.9) { 100 } else { 10_000 };
    insert(input, &unit.repeat(times), random);
}

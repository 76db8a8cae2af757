//! Makes a broken input of whole ones.

/// xorshift64*: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(if seed == 0 { 1 } else { seed })
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 where there is none.
    pub const fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }
}

/// Numbers at which readers break.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    7,
    8,
    16,
    63,
    64,
    111,
    112,
    127,
    128,
    255,
    256,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    u64::MAX,
];

/// No input grows beyond this.
const LONGEST: usize = 1 << 17;

/// A whole input with one to eight things wrong with it.
pub(super) fn mutate(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
    for _ in 0..=random.below(8) {
        break_once(&mut input, corpus, random);
    }
    input.truncate(LONGEST);
    input
}

fn break_once(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len());
    // Lengths and counts lie in front: half of the wounds go there.
    let front = random.below(input.len().min(256));
    let at = if random.below(2) == 0 { front } else { at };
    match random.below(9) {
        0 => input.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << random.below(8)),
        1 => input.iter_mut().skip(at).take(1).for_each(|b| *b = random.next() as u8),
        2 => {
            let edge =
                EDGES[random.below(EDGES.len())].wrapping_add(random.below(3) as u64).wrapping_sub(1).to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)];
            input.iter_mut().skip(at).zip(&edge[..width]).for_each(|(b, e)| *b = *e);
        }
        3 => input.truncate(at),
        4 => {
            let end = (at + random.below(64)).min(input.len());
            input.drain(at..end);
        }
        5 => {
            let more: Vec<u8> = (0..random.below(32)).map(|_| random.next() as u8).collect();
            input.splice(at..at, more);
        }
        6 => {
            let end = (at + random.below(256)).min(input.len());
            let copy = input[at..end].to_vec();
            let to = random.below(input.len());
            input.splice(to..to, copy);
        }
        7 => {
            let other = corpus.get(random.below(corpus.len())).map_or(&[][..], Vec::as_slice);
            let from = random.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        _ => {
            let (from, to) = (random.below(input.len()), random.below(input.len()));
            if !input.is_empty() {
                input.swap(from, to);
            }
        }
    }
}

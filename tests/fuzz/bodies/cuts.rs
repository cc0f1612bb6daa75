//! How bytes are cut into reads.

/// Cuts `bytes` as `seed` says: 0 is byte by byte, 1 all at once, everything else pieces of chance lengths.
pub fn pieces(bytes: &[u8], seed: u16) -> Vec<&[u8]> {
    match seed {
        0 => bytes.chunks(1).collect(),
        1 => vec![bytes],
        _ => by_chance(bytes, seed),
    }
}

fn by_chance(mut bytes: &[u8], seed: u16) -> Vec<&[u8]> {
    let mut chance = Chance::new(seed);
    let longest = 1 << (seed % 11);
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((1 + chance.below(longest)).min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

/// Numbers that look like chance and follow from a seed (xorshift).
pub struct Chance(u32);

impl Chance {
    /// The same numbers for the same seed.
    pub fn new(seed: u16) -> Self {
        Self(u32::from(seed) << 8 | 0x9E37_0001)
    }

    /// From 0 up to and without `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % bound.max(1)
    }
}

/// Two control bytes as a number.
pub fn number(control: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([control[at], control[at + 1]])
}

/// The reasons that a log line or a metric may give for the end of a session.
pub fn assert_is_a_word_of_ours(reason: &str) {
    let mut words =
        relay::telemetry::labels::ENDINGS.iter().flat_map(|(_, words)| words.iter()).chain(&relay::telemetry::labels::REJECTIONS);
    assert!(words.any(|word| *word == reason), "{reason} is no word of ours");
}

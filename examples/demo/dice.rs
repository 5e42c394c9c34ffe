//! [`Dice`]: chance that is the same in every run.

/// Chance that is the same in every run: xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper half: the low bits of this generator are its weak ones. It fits a usize of 32 bits.
        (self.0 >> 32) as usize % sides
    }
}

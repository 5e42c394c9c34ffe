//! [`Glance`]: what can be seen of a circuit without its lock.

use crate::CircuitState;

/// What can be seen of a circuit without its lock; as a whole, so nothing in it can be older than the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glance {
    /// Rises with each change of the state.
    pub(super) epoch: u64,
    pub(super) state: CircuitState,
    pub(super) is_forced: bool,
    /// A success changes nothing.
    pub(super) is_calm: bool,
}

impl Glance {
    pub(super) fn to_bits(self) -> u64 {
        let Self { epoch, state, is_forced, is_calm } = self;
        epoch << 4 | u64::from(is_calm) << 3 | u64::from(is_forced) << 2 | state as u64
    }

    pub(super) fn from_bits(bits: u64) -> Self {
        Self {
            epoch: bits >> 4,
            state: CircuitState::from_place((bits & 0b11) as u8),
            is_forced: bits >> 2 & 1 == 1,
            is_calm: bits >> 3 & 1 == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_seen() {
        for state in CircuitState::ALL {
            for (is_forced, is_calm, epoch) in
                [(true, false, 0), (false, true, 1), (true, true, u64::MAX >> 4)]
            {
                let glance = Glance { epoch, state, is_forced, is_calm };
                assert_eq!(Glance::from_bits(glance.to_bits()), glance);
            }
        }
    }
}

//! [`CircuitConfig`]: when a circuit opens, and for how long.

use std::time::Duration;

use crate::{Jitter, Schedule};

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CircuitConfig {
    /// How many faults, with no success between them, open it. Default 3: one may be chance, and every further one costs a caller
    /// its time. 1 to 1,000; 0 counts as 1, more as 1,000.
    pub faults: u32,
    /// How long it stays open before the first probe, and after each probe that fails; once it has been closed the first interval
    /// is in force again. Default 250 ms, doubled up to 30 s, with [`Jitter::Equal`]: full jitter would now and then not wait at all.
    /// An interval beyond a year counts as a year.
    pub open: Schedule,
}

impl Default for CircuitConfig {
    fn default() -> Self {
        let open = Schedule::new(Duration::from_millis(250), Duration::from_secs(30)).jitter(Jitter::Equal);
        Self { faults: 3, open }
    }
}

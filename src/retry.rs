//! Trying again: how often, how soon, and whether the process can afford it. Pure.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use crate::Schedule;

/// How a call is sent again after a fault that may pass. There is no other layer that does so: the driver's are off.
///
/// A call is sent again only within its deadline, while the circuit is closed, and while the process can afford it: each fault
/// takes one of 10 tokens, each success gives back a tenth, and at half of them or less nothing is sent again. So an outage does
/// not multiply the load (gRPC proposal A6, "Throttling Retry Attempts and Hedged RPCs").
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RetryConfig {
    /// How many times a call is sent at most; 1: never again. Default 4; 1 to 10.
    pub attempts: u32,
    /// The pauses between. Default 50 ms, doubled up to 2 s, each drawn from 0 to that ([`Jitter::Full`](crate::Jitter::Full)), so that
    /// many do not come back together. Base and cap 1 ms to 1 min.
    pub delays: Schedule,
}

impl Default for RetryConfig {
    fn default() -> Self {
        let delays = Schedule::new(Duration::from_millis(50), Duration::from_secs(2));
        Self { attempts: 4, delays }
    }
}

/// What the process can afford.
#[derive(Debug)]
pub(crate) struct Budget {
    /// In hundredths of a token.
    left: AtomicU32,
}

const FULL: u32 = 1000;
const FAULT: u32 = 100;
const SUCCESS: u32 = 10;

impl Budget {
    pub(crate) fn full() -> Self {
        Self { left: AtomicU32::new(FULL) }
    }

    pub(crate) fn succeeded(&self) {
        if self.left.load(Relaxed) < FULL {
            self.change(|left| (left + SUCCESS).min(FULL));
        }
    }

    pub(crate) fn failed(&self) {
        self.change(|left| left.saturating_sub(FAULT));
    }

    /// Whether a call may be sent again.
    pub(crate) fn allows(&self) -> bool {
        self.left.load(Relaxed) > FULL / 2
    }

    /// What is left, 0 to 1.
    pub(crate) fn ratio(&self) -> f64 {
        f64::from(self.left.load(Relaxed)) / f64::from(FULL)
    }

    fn change(&self, change: impl Fn(u32) -> u32) {
        // It always succeeds: the change is never refused.
        let _ = self.left.fetch_update(Relaxed, Relaxed, |left| Some(change(left)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_budget_is_five_faults_and_comes_back_by_tenths() {
        let budget = Budget::full();
        for _ in 0..4 {
            budget.failed();
            assert!(budget.allows());
        }
        budget.failed();
        assert!(!budget.allows(), "half is not above half");
        budget.succeeded();
        assert!(budget.allows());
        for _ in 0..100 {
            budget.failed();
        }
        assert_eq!((budget.allows(), budget.ratio()), (false, 0.0));
        for successes in 1..=50 {
            assert!(!budget.allows(), "after {successes}");
            budget.succeeded();
        }
        budget.succeeded();
        assert!(budget.allows());
        for _ in 0..1000 {
            budget.succeeded();
        }
        assert_eq!(budget.ratio(), 1.0);
    }
}

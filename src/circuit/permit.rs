//! [`Permit`]: the right to one call through a circuit, and [`Rejected`]: there is none now.

use std::{fmt, mem, time::Duration};

use super::{
    Circuit,
    rules::{Outcome, Role},
};

/// The right to one call through a [`Circuit`]. Whoever makes the call says how it went.
///
/// Dropped, it is [`neutral`](Self::neutral): what was cancelled says nothing of the other side. So put a time limit around the call
/// and not around its permit: otherwise an answer that never comes is never a fault, and a probe that hangs keeps everybody out.
#[derive(Debug)]
#[must_use = "dropped, it is neutral: say how the call went"]
pub struct Permit<'a> {
    circuit: &'a Circuit,
    role: Role,
    epoch: u64,
}

impl<'a> Permit<'a> {
    pub(super) fn new(circuit: &'a Circuit, role: Role, epoch: u64) -> Self {
        Self { circuit, role, epoch }
    }

    /// The other side is well: ends a run of faults, and closes the circuit if this was its probe.
    pub fn success(self) {
        self.settle(Outcome::Success);
    }

    /// The other side is ill: opens the circuit if there were enough of these, or if this was its probe.
    pub fn fault(self) {
        self.settle(Outcome::Fault);
    }

    /// The call says nothing of the other side, such as one that was never sent. A probe is given back: the next one who asks is it.
    pub fn neutral(self) {
        drop(self);
    }

    /// No repetition will mend this, such as a wrong password: opens the circuit at once, for exactly `interval`, a year at most, and
    /// again for as long as the probe says. The intervals of the configuration do not grow by it.
    pub fn open_for(self, interval: Duration) {
        self.settle(Outcome::OpenFor(interval));
    }

    fn settle(self, outcome: Outcome) {
        self.circuit.settle(self.role, self.epoch, outcome);
        // It has been said how it went.
        mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // Of the others nothing follows.
        if self.role == Role::Prober {
            self.circuit.settle(self.role, self.epoch, Outcome::Neutral);
        }
    }
}

/// A circuit lets no call through now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// After that it is worth asking again: what is left of the interval; the first interval where that is over, or while the probe
    /// is under way; the longest where the circuit was opened by hand.
    pub retry_after: Duration,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the circuit is open, ask again in {:?}", self.retry_after)
    }
}

impl std::error::Error for Rejected {}

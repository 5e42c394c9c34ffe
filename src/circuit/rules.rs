//! [`Rules`]: who passes, and what follows from how it went. Pure: outcome and `now` in, decision out.
//!
//! Each change of the state begins a new epoch, and a permit is of the epoch in which it was given. What it reports later counts
//! only while that lasts: a success from before the circuit opened says nothing about now.

use std::time::Duration;

use tokio::time::Instant;

use super::{CircuitConfig, Rejected, engine::Engine, glance::Glance};
use crate::{CircuitState, schedule::Delays};

/// No interval is longer: a clock cannot show every moment that a duration can name.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a permit was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A call through a closed circuit.
    Caller,
    /// The one call that finds out whether an open circuit may be closed.
    Prober,
    /// A call that passes whatever the state: it can only say that things are well again.
    Witness,
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    Fault,
    /// It says nothing of the other side.
    Neutral,
    /// A fault that no repetition will mend: open at once, for so long.
    OpenFor(Duration),
}

#[derive(Debug)]
pub(super) struct Rules {
    config: CircuitConfig,
    engine: Engine,
    /// The intervals since it was last closed.
    intervals: Delays,
    epoch: u64,
    /// The epoch that began when it last opened; a probe that is given back opens nothing.
    opened: u64,
    /// From then on an open circuit lets a probe through; none while it is closed or forced.
    due: Option<Instant>,
    forced: Option<CircuitState>,
}

impl Rules {
    pub(super) fn new(config: CircuitConfig) -> Self {
        let (engine, intervals) = (Engine::new(config.faults), config.open.delays());
        Self { config, engine, intervals, epoch: 0, opened: 0, due: None, forced: None }
    }

    pub(super) fn glance(&self) -> Glance {
        let is_forced = self.forced.is_some();
        let is_calm = is_forced || self.engine.is_calm();
        Glance { epoch: self.epoch, state: self.state(), is_forced, is_calm }
    }

    fn state(&self) -> CircuitState {
        self.forced.unwrap_or_else(|| self.engine.state())
    }

    /// When the next probe is due: only while it is open, and not forced.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        self.due.filter(|_| self.state() == CircuitState::Open)
    }

    /// Where nobody knows when it will close, the first interval: after that it is worth asking again.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        let Self { config, forced, .. } = self;
        let left = self.probe_at().map(|due| due.saturating_duration_since(now));
        match (self.state(), left) {
            (CircuitState::Closed, _) => Duration::ZERO,
            (_, Some(left)) if !left.is_zero() => left,
            _ if forced.is_some() => config.open.cap.min(LONGEST),
            _ => config.open.base.min(config.open.cap).min(LONGEST),
        }
    }

    /// The epoch of a call that passes; none is a probe.
    pub(super) fn admit(&self, now: Instant) -> Result<u64, Rejected> {
        match self.state() {
            CircuitState::Closed => Ok(self.epoch),
            _ => Err(Rejected { retry_after: self.retry_after(now) }),
        }
    }

    /// The epoch of the one probe, if it is due.
    pub(super) fn probe(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.probe_at().is_some_and(|due| due <= now);
        (is_due && self.engine.half_open()).then(|| self.next_epoch())
    }

    /// Hears how a call went.
    pub(super) fn settle(&mut self, role: Role, epoch: u64, outcome: Outcome, now: Instant) {
        let counts = match (role, self.state()) {
            _ if self.forced.is_some() => false,
            (Role::Witness, CircuitState::Open | CircuitState::HalfOpen) => {
                outcome == Outcome::Success && epoch >= self.opened
            }
            _ => epoch == self.epoch,
        };
        match outcome {
            _ if !counts => {}
            Outcome::Success => self.succeed(),
            Outcome::Fault => {
                self.engine.fault();
                if self.engine.state() == CircuitState::Open {
                    let interval = self.intervals.draw();
                    self.stay_open(interval, now);
                }
            }
            Outcome::OpenFor(interval) => {
                self.engine.open();
                self.stay_open(interval, now);
            }
            Outcome::Neutral if role == Role::Prober => {
                // Its interval is over: the next one who asks is the probe.
                self.engine.open();
                self.next_epoch();
            }
            Outcome::Neutral => {}
        }
    }

    /// Stays so, whatever the permits report.
    pub(super) fn force(&mut self, state: CircuitState) {
        self.reset();
        self.forced = Some(state);
    }

    /// As new, but for the epoch.
    pub(super) fn reset(&mut self) {
        self.forced = None;
        self.close();
    }

    fn succeed(&mut self) {
        if self.state() == CircuitState::Closed {
            self.engine.close();
        } else {
            self.close();
        }
    }

    fn close(&mut self) {
        self.engine.close();
        self.intervals = self.config.open.delays();
        self.due = None;
        self.next_epoch();
    }

    fn stay_open(&mut self, interval: Duration, now: Instant) {
        self.due = Some(now + interval.min(LONGEST));
        self.opened = self.next_epoch();
    }

    fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }
}

//! [`Engine`]: the run of faults and the three states, by `failsafe`.
//!
//! The only file that names that crate. Its own intervals are whole seconds of the std clock, so it is told that an interval is
//! zero, and the [`Rules`](super::rules::Rules) keep the time; who may pass in which state is their affair too. All calls come
//! from under their lock: what the engine reports therefore comes in order.

use std::{
    hint,
    iter::{self, Repeat},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use failsafe::{
    Instrument, StateMachine,
    failure_policy::{ConsecutiveFailures, consecutive_failures},
};

use crate::CircuitState;

/// How often the engine is asked whether its interval of zero is over. It is when its clock has ticked once more.
const TICK: u32 = 10_000;

#[derive(Debug)]
pub(super) struct Engine {
    machine: StateMachine<ConsecutiveFailures<Repeat<Duration>>, Seen>,
    seen: Seen,
    faults: u32,
    /// Whether the last outcome was a fault.
    has_run: bool,
}

/// The last state that the engine reported: it cannot be asked for without changing it.
#[derive(Debug, Clone, Default)]
struct Seen(Arc<AtomicU8>);

impl Engine {
    pub(super) fn new(faults: u32) -> Self {
        let faults = faults.clamp(1, 1000);
        let seen = Seen::default();
        let policy = consecutive_failures(faults, iter::repeat(Duration::ZERO));
        Self { machine: StateMachine::new(policy, seen.clone()), seen, faults, has_run: false }
    }

    pub(super) fn state(&self) -> CircuitState {
        CircuitState::from_place(self.seen.0.load(Relaxed))
    }

    /// Whether it is closed and a success would change nothing.
    pub(super) fn is_calm(&self) -> bool {
        self.state() == CircuitState::Closed && !self.has_run
    }

    /// Closes it, if it is not closed, and forgets the run of faults.
    pub(super) fn close(&mut self) {
        self.machine.reset();
        self.machine.on_success();
        self.has_run = false;
    }

    /// One fault more: opens it if it was half open, or if they are enough.
    pub(super) fn fault(&mut self) {
        self.machine.on_error();
        self.has_run = true;
    }

    /// Opens it from whatever state.
    pub(super) fn open(&mut self) {
        // Its count of faults would go on rising where an outage never ends.
        self.machine.reset();
        for _ in 0..self.faults {
            self.fault();
        }
    }

    /// Makes it half open, if it was open, and says whether it could.
    pub(super) fn half_open(&mut self) -> bool {
        (0..TICK).any(|_| {
            hint::spin_loop();
            self.machine.is_call_permitted()
        })
    }
}

impl Seen {
    fn report(&self, state: CircuitState) {
        self.0.store(state as u8, Relaxed);
    }
}

impl Instrument for Seen {
    fn on_call_rejected(&self) {}

    fn on_open(&self) {
        self.report(CircuitState::Open);
    }

    fn on_half_open(&self) {
        self.report(CircuitState::HalfOpen);
    }

    fn on_closed(&self) {
        self.report(CircuitState::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_from_every_state() {
        let mut engine = Engine::new(3);
        engine.open();
        assert_eq!(engine.state(), CircuitState::Open);
        engine.open();
        assert_eq!(engine.state(), CircuitState::Open);
        assert!(engine.half_open());
        engine.open();
        assert_eq!(engine.state(), CircuitState::Open);
        engine.close();
        engine.fault();
        engine.open();
        assert_eq!((engine.state(), engine.is_calm()), (CircuitState::Open, false));
        engine.close();
        assert_eq!((engine.state(), engine.is_calm()), (CircuitState::Closed, true));
    }

    #[test]
    fn a_clock_that_stands_still_refuses_the_probe_and_hangs_nobody() {
        failsafe::clock::freeze(|_| {
            let mut engine = Engine::new(1);
            engine.open();
            assert!(!engine.half_open());
            assert_eq!(engine.state(), CircuitState::Open);
        });
    }

    #[test]
    fn a_number_of_faults_out_of_bounds_is_the_nearest_within() {
        for (faults, counts_as) in [(0, 1), (1, 1), (1000, 1000), (u32::MAX, 1000)] {
            let mut engine = Engine::new(faults);
            for _ in 1..counts_as {
                engine.fault();
                assert_eq!(engine.state(), CircuitState::Closed);
            }
            engine.fault();
            assert_eq!(engine.state(), CircuitState::Open, "{faults}");
        }
    }
}

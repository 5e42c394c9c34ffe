//! [`Tally`]: what a circuit has been through, in numbers.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::glance::Glance;
use crate::{CircuitState, CircuitStats};

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// By the state that it changed to.
    transitions: [u64; CircuitState::ALL.len()],
    last_transition: Option<SystemTime>,
    /// How long it was not closed, up to the last transition.
    open: Duration,
    /// Since when it has not been closed.
    open_since: Option<Instant>,
}

impl Tally {
    /// It changed its state to `to`.
    pub(super) fn changed(&mut self, to: CircuitState, now: Instant, wall: SystemTime) {
        self.transitions[to as usize] += 1;
        self.last_transition = Some(wall);
        self.open = self.open_until(now);
        self.open_since = (to != CircuitState::Closed).then_some(now);
    }

    pub(super) fn read(&self, glance: Glance, rejected: u64, now: Instant) -> CircuitStats {
        let count = |(state, count): (CircuitState, u64)| (state.as_str().to_owned(), count);
        CircuitStats {
            state: glance.state,
            forced: glance.is_forced,
            transitions_total: CircuitState::ALL
                .into_iter()
                .zip(self.transitions)
                .map(count)
                .collect::<BTreeMap<_, _>>(),
            rejected_total: rejected,
            last_transition: self.last_transition,
            open_seconds_total: self.open_until(now).as_secs_f64(),
        }
    }

    fn open_until(&self, now: Instant) -> Duration {
        self.open + self.open_since.map(|since| now.saturating_duration_since(since)).unwrap_or_default()
    }
}

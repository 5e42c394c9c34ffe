//! [`Queue`]: the processes that wait for one tag, first come, first served.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::Process;
use crate::store::Ask;

/// Where a process stands in a queue.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) process: Process,
    /// What the first of its waiters asks for.
    pub(super) ask: Ask,
    /// Unless it looks again before this, the process is passed over.
    pub(super) living: Instant,
    /// Unless it looks again before this, the process counts as dead.
    pub(super) until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    places: VecDeque<Place>,
}

impl Queue {
    /// Drops the places that have run out.
    pub(super) fn bury(&mut self, now: Instant) {
        self.places.retain(|place| place.until > now);
    }

    /// The first that counts as living; `here` is one that does because it calls.
    pub(super) fn first(&self, here: Option<Process>, now: Instant) -> Option<Process> {
        let is_living = |place: &&Place| place.living > now || Some(place.process) == here;
        self.places.iter().find(is_living).map(|place| place.process)
    }

    /// Takes out the first that counts as living.
    pub(super) fn take_first(&mut self, now: Instant) -> Option<Place> {
        let first = self.places.iter().position(|place| place.living > now)?;
        self.places.remove(first)
    }

    /// Puts a place where its process stands already, or else at the end.
    pub(super) fn put(&mut self, place: Place) {
        match self.places.iter_mut().find(|known| known.process == place.process) {
            Some(known) => *known = place,
            None => self.places.push_back(place),
        }
    }

    pub(super) fn leave(&mut self, process: Process) {
        self.places.retain(|place| place.process != process);
    }
}

//! The corridor: how each operation goes from the front door to the store and back.
//!
//! Every operation has the same parts, one straight function each: deadline → store → count → answer. This is the only place
//! that knows all rooms; the rooms do not know each other.

mod acquire;
mod acquire_all;
mod extend;
mod read;
mod release;

pub(crate) use self::{
    acquire::{acquire, find, leave, queue},
    acquire_all::acquire_all,
    extend::extend,
    read::{history, inspect, list, look, probe, walk},
    release::{force_release, release, sweep},
};

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Fault, LostReason,
    inner::Inner,
    known::Fate,
    meter::{LockMeter, Operation},
    store::{NotYours, Whose},
};

/// No call needs longer, and a deadline that far away can be counted.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long a call may take: what it says itself, or the config.
fn patience(inner: &Inner, deadline: Option<Duration>) -> Duration {
    deadline.unwrap_or(inner.config.deadline).min(LONGEST)
}

/// One call of an operation: when it began and when it must be over.
struct Call<'a> {
    operation: Operation,
    started: Instant,
    deadline: Instant,
    meter: &'a LockMeter,
}

impl<'a> Call<'a> {
    fn start(inner: &'a Inner, operation: Operation, deadline: Option<Duration>) -> Self {
        let started = Instant::now();
        let deadline = started + patience(inner, deadline);
        Self { operation, started, deadline, meter: &inner.meter }
    }

    /// Counts the outcome and hands it on.
    fn finish<T>(self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        let fault = outcome.as_ref().err().map(Fault::kind);
        self.meter.finished(self.operation, self.started.elapsed(), fault);
        outcome
    }
}

impl Inner {
    /// Counts what it means for a holder that the lease it named does not stand. Who names no fence claims no lease in
    /// particular and may never have had one: to release what is not held is a mistake of its caller, not a loss.
    fn refused(&self, operation: Operation, whose: &Whose<'_>, not: &NotYours, asked: Instant) {
        self.known.refused(whose.tag, not, asked);
        let Some(fence) = whose.fence else { return };
        if matches!(not, NotYours::Occupied(_)) {
            self.meter.fencing_rejections.add_one();
        }
        let reason = match not {
            // A release comes too late also when it comes twice; who extends is at work.
            NotYours::Free { .. } if operation == Operation::Extend => LostReason::Expired,
            NotYours::Occupied(occupant) if occupant.holder != *whose.holder => LostReason::Stolen,
            _ => return,
        };
        // The hub may have noticed it first: a lease is lost once.
        if self.known.lose(whose.tag, fence) != Some(Fate::Lost) {
            self.meter.lost(reason);
        }
    }
}

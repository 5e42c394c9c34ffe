//! The corridor: how each operation goes from the front door to the store and back.
//!
//! Every operation has the same parts, one straight function each: deadline → store → count → answer. This is the only place
//! that knows all rooms; the rooms do not know each other.

mod acquire;
mod extend;
mod read;
mod release;

pub(crate) use self::{
    acquire::acquire,
    extend::extend,
    read::{inspect, list, probe},
    release::{force_release, release},
};

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Fault, LostReason,
    inner::Inner,
    meter::{LockMeter, Operation},
    store::{NotYours, Whose},
};

/// No call needs longer, and a deadline that far away can be counted.
const LONGEST: Duration = Duration::from_secs(3600);

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
        let deadline = started + deadline.unwrap_or(inner.config.deadline).min(LONGEST);
        Self { operation, started, deadline, meter: &inner.meter }
    }

    /// Counts the outcome and hands it on.
    fn finish<T>(self, outcome: Result<T, Fault>) -> Result<T, Fault> {
        let fault = outcome.as_ref().err().map(Fault::kind);
        self.meter.finished(self.operation, self.started.elapsed(), fault);
        outcome
    }
}

impl LockMeter {
    /// Counts what it means for a holder that the lease it named does not stand. Who names no fence claims no lease in
    /// particular and may never have had one: to release what is not held is a mistake of its caller, not a loss.
    fn refused(&self, operation: Operation, whose: &Whose<'_>, not: &NotYours) {
        match not {
            // A release comes too late also when it comes twice; who extends is at work.
            NotYours::Free { .. } if whose.fence.is_some() && operation == Operation::Extend => {
                self.lost(LostReason::Expired);
            }
            NotYours::Occupied(occupant) if whose.fence.is_some() => {
                self.fencing_rejections.add_one();
                if occupant.holder != *whose.holder {
                    self.lost(LostReason::Stolen);
                }
            }
            _ => {}
        }
    }
}

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
    extend::{extend, renew},
    read::{history, inspect, list, look, probe, walk},
    release::{force_release, release, release_guard, sweep},
};

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Fault, Fence, Holder, LeaseKind, LostReason, Tag,
    held::Over,
    inner::Inner,
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

/// How a holder has lost the lease of which the store says this.
fn lost_to(not: &NotYours, holder: &Holder) -> LostReason {
    match not {
        NotYours::Occupied(occupant) if occupant.holder != *holder => LostReason::Stolen,
        // Its holder has another one by now, for which this one had to end first.
        NotYours::Occupied(_) | NotYours::Free { .. } => LostReason::Expired,
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
        let is_loss = match not {
            // Its guard finds out, and whoever else names its lease has not lost it.
            _ if whose.kind == LeaseKind::Guard => false,
            // A release comes too late also when it comes twice; who extends is at work.
            NotYours::Free { .. } => operation == Operation::Extend,
            NotYours::Occupied(occupant) => occupant.holder != *whose.holder,
        };
        if is_loss {
            self.had_ended(whose.tag, fence, lost_to(not, whose.holder));
        }
    }

    /// A call found that a lease had ended. The hub may have noticed it first: a lease is lost once. Nobody else is told of one that
    /// was given back.
    fn had_ended(&self, tag: &Tag, fence: Fence, reason: LostReason) {
        if let None | Some(Err(Over::GivenBack)) = self.lose(tag, fence, reason) {
            self.known.had_ended(tag, fence, reason);
            self.meter.lost(reason);
        }
    }
}

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Call, lost_to};
use crate::{
    ExtendError, Fault, FaultKind, Lease, LostReason, Ttl,
    abandoned::Abandoned,
    held::Held,
    inner::Inner,
    meter::Operation,
    store::{Extended, NotYours, Reach, Store as _, Whose, pool::SHORTEST_VERDICT},
};

/// Asks to prolong a lease.
pub(crate) async fn extend(
    inner: &Inner,
    whose: Whose<'_>,
    ttl: Ttl,
    shorten: bool,
    deadline: Option<Duration>,
) -> Result<Lease, ExtendError> {
    let mut call = Call::start(inner, Operation::Extend, deadline);
    let (asked, deadline) = (call.started, call.deadline);
    let reach = if shorten { Reach::Exactly } else { Reach::AtLeast };
    let outcome = call.run(|_| inner.store.extend(whose, ttl, reach, deadline)).await?;
    extended(inner, &outcome, asked);
    match outcome {
        Extended::Extended { lease, .. } => {
            inner.known.keeps(&lease.tag, Some(lease.fence));
            Ok(lease)
        }
        Extended::Not(not) => {
            inner.refused(Operation::Extend, &whose, &not, asked);
            Err(match not {
                NotYours::Occupied(occupant) => ExtendError::NotHolder(Box::new(occupant)),
                NotYours::Free { last } => ExtendError::NotHeld { last },
            })
        }
    }
}

/// Asks once to prolong a guard's lease, and tells the guard. A fault changes nothing, but for one: what stands at the key is not
/// a lock any more.
pub(crate) async fn renew(
    inner: &Arc<Inner>,
    held: &Held,
    ttl: Ttl,
    patience: Duration,
) -> Result<(), Fault> {
    let Lease { tag, holder, .. } = held.lease();
    // The keeper is who tries again, so the half that is left for that is not wanted; a short time is not halved.
    let is_halved = inner.node.retry.attempts > 1 && patience >= SHORTEST_VERDICT;
    let patience = if is_halved { 2 * patience } else { patience };
    let mut call = Call::start(inner, Operation::Extend, Some(patience));
    let (asked, deadline) = (call.started, call.deadline);
    // Shortened as well: where the server's clock was set back, the lock would outlive a crash by as much. That never cuts what the
    // guard counts on: a lease of a shorter ttl ends when the longest hold does, and none was promised for longer.
    let outcome = call.once(inner.store.extend(Whose::of(held.lease()), ttl, Reach::Exactly, deadline)).await;
    if let Ok(outcome) = &outcome {
        extended(inner, outcome, asked);
    }
    match outcome {
        Ok(Extended::Extended { .. }) => held.renewed(asked, ttl, Instant::now),
        // One that arrives after the release finds nothing either.
        Ok(Extended::Not(not)) => {
            inner.known.refused(tag, &not, asked);
            inner.lose_guard(held, lost_to(&not, holder));
        }
        Err(fault) if fault.kind() == FaultKind::NotALock => {
            if inner.lose_guard(held, LostReason::Stolen) {
                // Where it is ours, and somebody has taken its ttl away.
                inner.abandon_last(Abandoned::Granted(held.lease().clone()));
            }
        }
        Err(fault) => return Err(fault),
    }
    Ok(())
}

/// Counts an extend that was applied, and remembers what stands.
fn extended(inner: &Inner, extended: &Extended, asked: Instant) {
    if let Extended::Extended { lease, margin } = extended {
        inner.meter.extend_margin.observe(*margin);
        inner.known.stands(lease.clone().into(), asked);
    }
}

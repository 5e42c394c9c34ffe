use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Call, lost_to};
use crate::{
    ExtendError, Fault, FaultKind, Lease, LostReason, Ttl,
    abandoned::Abandoned,
    held::Held,
    inner::Inner,
    meter::Operation,
    store::{Extended, NotYours, Store as _, Whose},
};

/// Asks once to prolong a lease.
pub(crate) async fn extend(
    inner: &Inner,
    whose: Whose<'_>,
    ttl: Ttl,
    shorten: bool,
    deadline: Option<Duration>,
) -> Result<Lease, ExtendError> {
    let asked = Instant::now();
    match ask_once(inner, whose, ttl, shorten, deadline).await? {
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
    deadline: Duration,
) -> Result<(), Fault> {
    let Lease { tag, holder, .. } = held.lease();
    let asked = Instant::now();
    // Shortened as well: where the server's clock was set back, the lock would outlive a crash by as much. That never cuts what the
    // guard counts on: a lease of a shorter ttl ends when the longest hold does, and none was promised for longer.
    match ask_once(inner, Whose::of(held.lease()), ttl, true, Some(deadline)).await {
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

async fn ask_once(
    inner: &Inner,
    whose: Whose<'_>,
    ttl: Ttl,
    shorten: bool,
    deadline: Option<Duration>,
) -> Result<Extended, Fault> {
    let call = Call::start(inner, Operation::Extend, deadline);
    let asked = call.started;
    let outcome = inner.store.extend(whose, ttl, shorten, call.deadline).await;
    let extended = call.finish(outcome)?;
    if let Extended::Extended { lease, margin } = &extended {
        inner.meter.extend_margin.observe(*margin);
        inner.known.stands(lease.clone().into(), asked);
    }
    Ok(extended)
}

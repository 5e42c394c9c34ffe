use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    Call,
    deferred::{behind, defer, is_deferred, stands_behind},
    patience,
    read::look,
    restore::{lose_to, restore_guard},
    server::look_and_wait,
};
use crate::{
    DeferredCall, ExtendError, Fault, FaultKind, Lease, LostReason, RequestId, ShortenOutcome, Ttl,
    abandoned::Abandoned,
    held::Held,
    inner::Inner,
    meter::Operation,
    store::{Extended, NotYours, Reach, Seen, Store as _, Whose, pool::SHORTEST_VERDICT},
    time::from_unix_millis,
};

/// Asks to prolong a lease.
pub(crate) async fn extend(
    inner: &Inner,
    whose: Whose<'_>,
    ttl: Ttl,
    deadline: Option<Duration>,
) -> Result<Lease, ExtendError> {
    if inner.backlog.has_of(whose.tag, whose.holder) {
        // It would be cut when that is applied, or be in vain.
        return Err(behind().into());
    }
    set_ttl(inner, whose, ttl, Reach::AtLeast, deadline).await?.map_err(refusal)
}

/// Asks to set what is left of a lease; where Redis cannot be asked, that is kept for later.
pub(crate) async fn shorten(
    inner: &Inner,
    whose: Whose<'_>,
    ttl: Ttl,
    deadline: Option<Duration>,
) -> Result<ShortenOutcome, ExtendError> {
    let until = Instant::now() + patience(inner, deadline);
    let now_micros = inner.store.now_micros();
    let ends_at = from_unix_millis(now_micros / 1000) + ttl.duration();
    let deferred = |fault| async move {
        let request = RequestId::random().stamped(now_micros);
        let call = DeferredCall::Shorten { ends_at };
        let request = defer(inner, whose, request, call, fault, until).await?;
        Ok(ShortenOutcome::Deferred { request })
    };
    if let Some(fault) = stands_behind(inner, whose.tag) {
        return deferred(fault).await;
    }
    match set_ttl(inner, whose, ttl, Reach::Exactly, deadline).await {
        Ok(outcome) => outcome.map(ShortenOutcome::Shortened).map_err(refusal),
        Err(fault) if is_deferred(inner, &fault) => deferred(fault).await,
        Err(fault) => Err(fault.into()),
    }
}

/// Shortens the lease that a deferred call of then means.
pub(super) async fn shorten_since(
    inner: &Inner,
    whose: Whose<'_>,
    made_micros: u64,
    ttl: Ttl,
) -> Result<Result<(), NotYours>, Fault> {
    let whose = match whose.fence {
        Some(_) => whose,
        None => match look(inner, whose.tag).await? {
            Seen::Held(occupant) if whose.means(&occupant) && occupant.fence.get() <= made_micros => {
                Whose { fence: Some(occupant.fence), ..whose }
            }
            Seen::Held(occupant) => return Ok(Err(NotYours::Occupied(occupant))),
            Seen::Free { last } => return Ok(Err(NotYours::Free { last })),
        },
    };
    Ok(set_ttl(inner, whose, ttl, Reach::AtMost, None).await?.map(drop))
}

async fn set_ttl(
    inner: &Inner,
    whose: Whose<'_>,
    ttl: Ttl,
    reach: Reach,
    deadline: Option<Duration>,
) -> Result<Result<Lease, NotYours>, Fault> {
    let mut call = Call::start(inner, Operation::Extend, deadline);
    let (asked, deadline) = (call.started, call.deadline);
    let ask = |_| inner.store.extend(whose, ttl, reach, deadline);
    let mut outcome = call.run(ask).await?;
    if matches!(&outcome, Extended::Not(not) if whose.fence.is_some_and(|fence| not.forgets(fence))) {
        // It may be about to be put back.
        let _ = timeout_at(deadline, look_and_wait(inner)).await;
        outcome = call.run(ask).await?;
    }
    extended(inner, &outcome, asked);
    match outcome {
        Extended::Extended { lease, .. } => {
            inner.known.keeps(&lease.tag, Some(lease.fence));
            Ok(Ok(lease))
        }
        Extended::Not(not) => {
            inner.refused(Operation::Extend, &whose, &not, asked);
            Ok(Err(not))
        }
    }
}

fn refusal(not: NotYours) -> ExtendError {
    match not {
        NotYours::Occupied(occupant) => ExtendError::NotHolder(Box::new(occupant)),
        NotYours::Free { last } => ExtendError::NotHeld { last },
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
    let tag = &held.lease().tag;
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
            if not.forgets(held.lease().fence) {
                restore_guard(inner, held).await?;
            } else {
                lose_to(inner, held, &not).await;
            }
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

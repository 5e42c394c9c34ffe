use std::time::Duration;

use tokio::time::Instant;

use super::{
    Call,
    deferred::{defer, is_deferred, stands_behind},
    lost_to, patience,
};
use crate::{
    DeferredCall, Fault, FaultKind, ForceReleaseError, GuardReleaseError, Lease, LeaseKind, LockLost,
    LostReason, Occupant, ReleaseError, ReleaseOutcome, RequestId, Tag,
    grant::Grant,
    inner::{ForLock, Inner, Told},
    lines::{HandOver, HandOverEnd},
    meter::Operation,
    stats::Swept,
    store::{Forced, HandedOver, NotYours, Released, Store as _, Whose},
};

/// Asks to end a lease; where Redis cannot be asked, that is kept for later.
pub(crate) async fn release(
    inner: &Inner,
    whose: Whose<'_>,
    request: RequestId,
    deadline: Option<Duration>,
) -> Result<ReleaseOutcome, ReleaseError> {
    let until = Instant::now() + patience(inner, deadline);
    // What is deferred, or repeated, is to say when this call was made.
    let stamped = request.stamped(inner.store.now_micros());
    let deferred = |fault| async move {
        inner.known.giving_back(&whose);
        let call = DeferredCall::Release;
        let request = defer(inner, whose, stamped, call, fault, until).await?;
        Ok(ReleaseOutcome::Deferred { request })
    };
    if let Some(fault) = stands_behind(inner, whose.tag) {
        return deferred(fault).await;
    }
    match end(inner, whose, request, deadline).await {
        Ok(Ok(())) => Ok(ReleaseOutcome::Released),
        Ok(Err(NotYours::Occupied(occupant))) => Err(ReleaseError::NotHolder(Box::new(occupant))),
        Ok(Err(NotYours::Free { last })) => Err(ReleaseError::NotHeld { last }),
        Err(fault) if is_deferred(inner, &fault) => deferred(fault).await,
        Err(fault) if fault.kind().is_ambiguous() => Err(ReleaseError::Ambiguous { request: stamped, fault }),
        Err(fault) => Err(fault.into()),
    }
}

/// Asks to end a lease, and hands the lock on where somebody of this process waits for it.
pub(super) async fn end(
    inner: &Inner,
    whose: Whose<'_>,
    request: RequestId,
    deadline: Option<Duration>,
) -> Result<Result<(), NotYours>, Fault> {
    let mut call = Call::start(inner, Operation::Release, deadline);
    let stamped = request.stamped(inner.store.now_micros());
    let asked = call.started;
    let meant = inner.known.giving_back(&whose);
    let deadline = call.deadline;
    // Whoever waits counts on it: what a lost hand-over may do is over after the deadline of the config.
    let by = deadline.min(asked + inner.config.deadline);
    let ask = |is_repeat: bool| async move {
        let request = if is_repeat { stamped } else { request };
        match inner.lines.take_head(whose.tag, by, Instant::now()) {
            Some(head) => Box::pin(hand_over(inner, whose, request, head, by)).await,
            None => inner.store.release(whose, request, deadline).await,
        }
    };
    match call.run(ask).await {
        Ok(Released::Released { held }) => {
            inner.known.ended(whose.tag, meant);
            // Somebody else may have released a guard's lease by its name (`release_lease`): the guard is told.
            if let Some(fence) = meant.filter(|_| whose.kind == LeaseKind::Guard) {
                inner.lose(whose.tag, fence, LostReason::Expired);
            }
            if let Some(held) = held {
                inner.meter.held.observe(held);
            }
            Ok(Ok(()))
        }
        Ok(Released::Not(not)) => {
            inner.refused(Operation::Release, &whose, &not, asked);
            Ok(Err(not))
        }
        Err(fault) => {
            // A guard's release goes on, and so does what is deferred.
            let goes_on = whose.kind == LeaseKind::Guard || is_deferred(inner, &fault);
            if !goes_on && !fault.kind().is_ambiguous() {
                inner.known.keeps(whose.tag, meant);
            }
            Err(fault)
        }
    }
}

/// Asks once to end a guard's lease.
pub(crate) async fn release_guard(
    inner: &Inner,
    lease: &Lease,
    request: RequestId,
    deadline: Option<Duration>,
) -> Result<(), GuardReleaseError> {
    let Lease { tag, holder, fence, .. } = lease;
    let reason = match end(inner, Whose::of(lease), request, deadline).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(not)) => lost_to(&not, holder),
        Err(fault) if fault.kind() == FaultKind::NotALock => LostReason::Stolen,
        Err(fault) => return Err(GuardReleaseError::Unconfirmed(fault)),
    };
    inner.had_ended(tag, *fence, reason);
    Err(LockLost { tag: tag.clone(), fence: *fence, reason }.into())
}

/// Asks once to end a lease and to grant the lock to the head of the line in the same step.
async fn hand_over(
    inner: &Inner,
    whose: Whose<'_>,
    request: RequestId,
    head: HandOver<'_, ForLock>,
    deadline: Instant,
) -> Result<Released, Fault> {
    let asked = Instant::now();
    match inner.store.hand_over(whose, request, &head.ask, head.others_first, deadline).await {
        Ok(HandedOver::Granted { held, lease }) => {
            inner.known.granted(&lease, asked);
            let (sight, again) = inner.sight(lease.clone().into(), head.ask.ttl.duration());
            let grant = Grant::new(lease, asked, head.ask.ttl.duration());
            head.settle(HandOverEnd::Granted { answer: Told::Granted(grant), sight, again });
            Ok(Released::Released { held })
        }
        Ok(HandedOver::Passed { held, occupant, expires_in }) => {
            inner.known.stands(occupant.clone(), asked);
            let (sight, again) = inner.sight(occupant, expires_in);
            head.settle(HandOverEnd::Passed { sight, again });
            Ok(Released::Released { held })
        }
        Ok(HandedOver::Repeated) => {
            head.settle(HandOverEnd::Nothing);
            Ok(Released::Released { held: None })
        }
        Ok(HandedOver::Not(not)) => {
            head.settle(HandOverEnd::Nothing);
            Ok(Released::Not(not))
        }
        // That no fence can be minted is the head's affair.
        Err(fault) if fault.kind() == FaultKind::FenceRegression => {
            head.settle(HandOverEnd::Nothing);
            inner.store.release(whose, request, deadline).await
        }
        Err(fault) => {
            head.settle(if fault.kind().is_ambiguous() {
                HandOverEnd::Ambiguous
            } else {
                HandOverEnd::Nothing
            });
            Err(fault)
        }
    }
}

/// Asks once to end what a call was granted, on behalf of that call, and says what became of it: released, left alone because its
/// holder relies on it, or lapsed.
pub(crate) async fn sweep(inner: &Inner, lease: &Lease, request: RequestId) -> Result<Swept, Fault> {
    let mut call = Call::sweep(inner);
    let Lease { tag, fence, .. } = lease;
    let meant = inner.known.giving_back(&Whose::of(lease));
    match call.once(inner.store.sweep(lease, request, call.deadline)).await? {
        Released::Released { .. } => {
            inner.known.ended(tag, meant);
            // This process is not in the queue while one of its own has the lock.
            inner.lines.look_now(tag);
            Ok(Swept::Released)
        }
        Released::Not(NotYours::Occupied(occupant)) if occupant.fence == *fence => {
            inner.known.keeps(tag, meant);
            Ok(Swept::LeftToCaller)
        }
        Released::Not(_) => Ok(Swept::Lapsed),
    }
}

/// Asks once to end whatever lease stands.
pub(crate) async fn force_release(
    inner: &Inner,
    tag: &Tag,
    by: &str,
    why: &str,
) -> Result<Option<Occupant>, ForceReleaseError> {
    let mut call = Call::start(inner, Operation::Release, None);
    let asked = call.started;
    match call.once(inner.store.force_release(tag, by, why, call.deadline)).await? {
        Forced::Ended(occupant) => {
            let fence = occupant.as_ref().map(|occupant| occupant.fence);
            inner.known.ended(tag, fence);
            if let Some(fence) = fence {
                inner.lose(tag, fence, LostReason::Forced);
            }
            Ok(occupant)
        }
        Forced::Free { last } => {
            inner.known.free(tag, last, asked);
            Err(ForceReleaseError::NotHeld { last })
        }
    }
}

use std::time::Duration;

use tokio::time::Instant;

use super::{extend::shorten_since, release::end};
use crate::{
    CircuitState, Deferred, DeferredCall, Event, Fault, FaultKind, NotDeferred, RequestId, Settlement, Tag,
    Ttl, fault::Blame, inner::Inner, store::Whose,
};

/// How long a log has at least to keep a call for later.
const SHORTEST_KEEP: Duration = Duration::from_secs(1);

/// Whether a call that ended so is kept for later.
pub(super) fn is_deferred(inner: &Inner, fault: &Fault) -> bool {
    inner.backlog.is_on() && is_everybodys(fault)
}

/// Whether another call would have met the same: Redis could not be asked, or could not do it.
pub(crate) fn is_everybodys(fault: &Fault) -> bool {
    use FaultKind::{CheckoutTimeout, CircuitOpen, Late, Saturated};
    let was_not_asked = matches!(fault.kind(), CircuitOpen | CheckoutTimeout | Saturated | Late);
    was_not_asked || fault.kind().class().blame != Blame::Nobody
}

/// Why a call is kept for later without asking: an earlier one for its tag waits, which comes first; or any does, and those before it
/// have found out for it.
pub(super) fn stands_behind(inner: &Inner, tag: &Tag) -> Option<Fault> {
    if !inner.backlog.is_on() || inner.backlog.is_empty() {
        return None;
    }
    // A server that takes no writes says so at once, and may take releases nevertheless.
    let refused = inner.node.standing().err().filter(|_| inner.node.link.state() != CircuitState::Closed);
    let is_behind = inner.backlog.has(tag).then(behind);
    refused.or(is_behind)
}

/// An earlier call for the tag waits.
pub(super) fn behind() -> Fault {
    Fault::new(FaultKind::CircuitOpen, "an earlier call for this tag waits for redis")
}

/// Keeps a call for later, of which `fault` says why.
pub(super) async fn defer(
    inner: &Inner,
    whose: Whose<'_>,
    request: RequestId,
    call: DeferredCall,
    fault: Fault,
    until: Instant,
) -> Result<RequestId, NotDeferred> {
    let Whose { tag, holder, kind, fence } = whose;
    let deferred = Deferred { tag: tag.clone(), holder: holder.clone(), kind, fence, request, call };
    let until = until.max(Instant::now() + SHORTEST_KEEP);
    match inner.backlog.defer(deferred, until).await {
        Ok(()) => Ok(request),
        Err(why) => {
            inner.backlog.refused();
            // Nobody sees to its end any more.
            inner.known.keeps(tag, inner.known.giving_back(&whose));
            Err(NotDeferred { request, why, fault })
        }
    }
}

/// Applies a call that was deferred, and says what became of it.
pub(crate) async fn apply(inner: &Inner, deferred: &Deferred) -> Result<Settlement, Fault> {
    let Deferred { tag, holder, kind, fence, request, call } = deferred;
    let whose = Whose { tag, holder, kind: *kind, fence: *fence };
    let left = match *call {
        DeferredCall::Release => None,
        DeferredCall::Shorten { ends_at } => {
            let now = inner.server_now();
            Ttl::until(ends_at, now)
        }
    };
    // One that does not say when it was made may end nothing but what it names.
    let request = request.stamped(0);
    let outcome = match left {
        Some(ttl) => shorten_since(inner, whose, request.made().unwrap_or_default(), ttl).await,
        None => end(inner, whose, request, None).await,
    };
    match outcome {
        Ok(Ok(())) => Ok(Settlement::Applied),
        Ok(Err(_)) => Ok(Settlement::Ended),
        // Somebody has written over it.
        Err(fault) if fault.kind() == FaultKind::NotALock => Ok(Settlement::Ended),
        Err(fault) => Err(fault),
    }
}

/// Tells what became of a deferred call.
pub(crate) fn settled(inner: &Inner, deferred: &Deferred, settlement: Settlement) {
    let Deferred { tag, holder, fence, request, .. } = deferred.clone();
    tracing::info!(tag = tag.as_str(), holder = holder.id(), %request, settlement = settlement.as_str(), "a deferred call is done with");
    let at = inner.server_now();
    inner.hearing.tell(Event::Settled { tag, holder, fence, request, settlement, at });
}

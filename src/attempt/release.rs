use std::time::Duration;

use super::Call;
use crate::{
    ForceReleaseError, Occupant, ReleaseError, RequestId, Tag,
    inner::Inner,
    meter::Operation,
    store::{Forced, NotYours, Released, Store as _, Whose},
};

/// Asks once to end a lease.
pub(crate) async fn release(
    inner: &Inner,
    whose: Whose<'_>,
    request: RequestId,
    deadline: Option<Duration>,
) -> Result<(), ReleaseError> {
    let call = Call::start(inner, Operation::Release, deadline);
    // What a repeat of this call is to say of it.
    let stamped = request.stamped(inner.store.now_micros());
    let outcome = inner.store.release(whose, request, call.deadline).await;
    match call.finish(outcome) {
        Ok(Released::Released { held }) => {
            if let Some(held) = held {
                inner.meter.held.observe(held);
            }
            Ok(())
        }
        Ok(Released::Not(not)) => {
            inner.meter.refused(Operation::Release, &whose, &not);
            Err(match not {
                NotYours::Occupied(occupant) => ReleaseError::NotHolder(Box::new(occupant)),
                NotYours::Free { last } => ReleaseError::NotHeld { last },
            })
        }
        Err(fault) if fault.kind().is_ambiguous() => Err(ReleaseError::Ambiguous { request: stamped, fault }),
        Err(fault) => Err(fault.into()),
    }
}

/// Asks once to end whatever lease stands.
pub(crate) async fn force_release(inner: &Inner, tag: &Tag) -> Result<Option<Occupant>, ForceReleaseError> {
    let call = Call::start(inner, Operation::Release, None);
    let outcome = inner.store.force_release(tag, call.deadline).await;
    match call.finish(outcome)? {
        Forced::Ended(occupant) => Ok(occupant),
        Forced::Free { last } => Err(ForceReleaseError::NotHeld { last }),
    }
}

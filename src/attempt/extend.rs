use std::time::Duration;

use super::Call;
use crate::{
    ExtendError, Lease, Ttl,
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
    let call = Call::start(inner, Operation::Extend, deadline);
    let asked = call.started;
    let outcome = inner.store.extend(whose, ttl, shorten, call.deadline).await;
    match call.finish(outcome)? {
        Extended::Extended { lease, margin } => {
            inner.meter.extend_margin.observe(margin);
            inner.known.stands(lease.clone().into(), asked);
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

use std::time::Duration;

use super::Call;
use crate::{
    AcquireError, Lease,
    inner::Inner,
    meter::Operation,
    store::{Acquired, Ask, Store as _},
};

/// Asks once for the lock.
pub(crate) async fn acquire(
    inner: &Inner,
    ask: Ask<'_>,
    deadline: Option<Duration>,
) -> Result<Lease, AcquireError> {
    let call = Call::start(inner, Operation::Acquire, deadline);
    let outcome = inner.store.acquire(ask, call.deadline).await;
    match call.finish(outcome) {
        Ok(Acquired::Granted(lease)) => Ok(lease),
        Ok(Acquired::AlreadyHeld(lease)) => Err(AcquireError::AlreadyHeld(Box::new(lease))),
        Ok(Acquired::Contended { occupant, expires_in }) => {
            inner.meter.contended.add_one();
            Err(AcquireError::Contended { occupant: Box::new(occupant), expires_in })
        }
        Err(fault) if fault.kind().is_ambiguous() => Err(AcquireError::Ambiguous { token: ask.token, fault }),
        Err(fault) => Err(fault.into()),
    }
}

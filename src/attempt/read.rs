use std::time::Duration;

use super::Call;
use crate::{Fault, Occupant, ReadError, Reading, Tag, inner::Inner, meter::Operation, store::Store as _};

/// Asks once who holds the lock.
pub(crate) async fn inspect(inner: &Inner, tag: &Tag) -> Result<Reading<Option<Occupant>>, ReadError> {
    let call = Call::start(inner, Operation::Read, None);
    let outcome = inner.store.inspect(tag, call.deadline).await;
    Ok(Reading::live(call.finish(outcome)?))
}

/// Asks who holds which lock.
pub(crate) async fn list(inner: &Inner) -> Result<Reading<Vec<Occupant>>, ReadError> {
    let call = Call::start(inner, Operation::Read, None);
    let outcome = inner.store.list(call.deadline).await;
    Ok(Reading::live(call.finish(outcome)?))
}

/// Finds out whether locks could be taken now.
pub(crate) async fn probe(inner: &Inner, deadline: Duration) -> Result<(), Fault> {
    let call = Call::start(inner, Operation::Read, Some(deadline));
    let outcome = inner.store.probe(call.deadline).await;
    call.finish(outcome)
}

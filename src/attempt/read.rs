use std::time::Duration;

use super::Call;
use crate::{
    Fault, Occupant, PastLease, ReadError, Reading, Tag,
    inner::Inner,
    meter::Operation,
    store::{Seen, Store as _},
};

/// Asks once what stands at a tag.
pub(crate) async fn look(inner: &Inner, tag: &Tag) -> Result<Seen, Fault> {
    let call = Call::start(inner, Operation::Read, None);
    let asked = call.started;
    let outcome = inner.store.inspect(tag, call.deadline).await;
    let seen = call.finish(outcome)?;
    match &seen {
        Seen::Held(occupant) => inner.known.stands(occupant.clone(), asked),
        Seen::Free { last } => inner.known.free(tag, *last, asked),
    }
    Ok(seen)
}

/// Asks once who holds the lock.
pub(crate) async fn inspect(inner: &Inner, tag: &Tag) -> Result<Reading<Option<Occupant>>, ReadError> {
    Ok(Reading::live(match look(inner, tag).await? {
        Seen::Held(occupant) => Some(occupant),
        Seen::Free { .. } => None,
    }))
}

/// Asks for all locks that stand.
pub(crate) async fn walk(inner: &Inner) -> Result<Vec<Occupant>, Fault> {
    let call = Call::start(inner, Operation::Read, None);
    let asked = call.started;
    let outcome = inner.store.list(call.deadline).await;
    let listed = call.finish(outcome)?;
    for occupant in &listed {
        inner.known.stands(occupant.clone(), asked);
    }
    Ok(listed)
}

/// Asks who holds which lock.
pub(crate) async fn list(inner: &Inner) -> Result<Reading<Vec<Occupant>>, ReadError> {
    Ok(Reading::live(walk(inner).await?))
}

/// Asks for past grants, and for what stands: a history does not say which lease has ended by itself.
pub(crate) async fn history(inner: &Inner, tag: &Tag) -> Result<Reading<Vec<PastLease>>, ReadError> {
    // Before the history: what it shows beyond this was granted since.
    let seen = look(inner, tag).await?;
    let call = Call::start(inner, Operation::Read, None);
    let outcome = inner.store.history(tag, call.deadline).await;
    let over = |lease: &Occupant| match &seen {
        Seen::Held(standing) => lease.fence < standing.fence,
        Seen::Free { last } => last.is_none_or(|last| lease.fence <= last),
    };
    let most = inner.config.history.entries as usize;
    Ok(Reading::live(PastLease::pair(call.finish(outcome)?, most, over)))
}

/// Finds out whether locks could be taken now.
pub(crate) async fn probe(inner: &Inner, deadline: Duration) -> Result<(), Fault> {
    let call = Call::start(inner, Operation::Read, Some(deadline));
    let outcome = inner.store.probe(call.deadline).await;
    call.finish(outcome)
}

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Call;
use crate::{
    Fault, FaultKind, Occupant, PastLease, ReadError, Reading, Tag,
    fault::Blame,
    inner::Inner,
    meter::{Answered, Operation},
    store::{Seen, Store as _},
};

/// How many tags one call looks at.
pub(super) const PAGE: usize = 100;

/// How long a user's fallback may take, and how long it may where Redis has used up the time of the call.
const LONGEST_FALLBACK: Duration = Duration::from_secs(1);
const SHORTEST_FALLBACK: Duration = Duration::from_millis(200);

/// Asks what stands at a tag.
pub(crate) async fn look(inner: &Inner, tag: &Tag) -> Result<Seen, Fault> {
    let mut call = Call::start(inner, Operation::Read, None);
    let (asked, deadline) = (call.started, call.deadline);
    let seen = call.run(|_| inner.store.inspect(tag, deadline)).await?;
    match &seen {
        Seen::Held(occupant) => inner.known.stands(occupant.clone(), asked),
        Seen::Free { last } => inner.known.free(tag, *last, asked),
    }
    Ok(seen)
}

/// Says what stands at each of `tags`, in their order; none where it is no lock.
pub(crate) async fn look_at_all(inner: &Inner, tags: &[Tag]) -> Result<Vec<Option<Seen>>, Fault> {
    let mut seen = Vec::with_capacity(tags.len());
    look_at_as_many(inner, tags, &mut seen).await?;
    Ok(seen)
}

/// As [`look_at_all`]; what was seen before a fault, or a drop, is kept in `seen`.
pub(crate) async fn look_at_as_many(
    inner: &Inner,
    tags: &[Tag],
    seen: &mut Vec<Option<Seen>>,
) -> Result<(), Fault> {
    for page in tags.chunks(PAGE) {
        seen.extend(look_at_page(inner, page).await?);
    }
    Ok(())
}

pub(super) async fn look_at_page(inner: &Inner, page: &[Tag]) -> Result<Vec<Option<Seen>>, Fault> {
    let mut call = Call::start(inner, Operation::Read, None);
    let (asked, deadline) = (call.started, call.deadline);
    let seen = call.run(|_| inner.store.look(page, deadline)).await?;
    for (tag, seen) in page.iter().zip(&seen) {
        match seen {
            Some(Seen::Held(occupant)) => inner.known.stands(occupant.clone(), asked),
            Some(Seen::Free { last }) => inner.known.free(tag, *last, asked),
            None => {}
        }
    }
    Ok(seen)
}

/// Asks for all locks that stand.
pub(crate) async fn walk(inner: &Inner) -> Result<Vec<Occupant>, Fault> {
    let mut call = Call::start(inner, Operation::Read, None);
    let (asked, deadline) = (call.started, call.deadline);
    let listed = call.run(|_| inner.store.list(deadline)).await?;
    inner.known.listed(&listed, asked);
    Ok(listed)
}

/// Says who holds the lock.
pub(crate) async fn inspect(inner: &Inner, tag: &Tag) -> Result<Reading<Option<Occupant>>, ReadError> {
    let until = Instant::now() + inner.config.deadline;
    let last = || inner.known.last(tag).map(|(seen, at)| (seen.occupant(), at));
    let fallback = async { inner.doors.fallback.as_ref()?.inspect(tag).await };
    answer(inner, until, look(inner, tag).await.map(Seen::occupant), last, fallback).await
}

/// Says who holds which lock.
pub(crate) async fn list(inner: &Inner) -> Result<Reading<Vec<Occupant>>, ReadError> {
    let until = Instant::now() + inner.config.deadline;
    let fallback = async { inner.doors.fallback.as_ref()?.list().await };
    answer(inner, until, walk(inner).await, || inner.known.list(), fallback).await
}

/// What Redis said; or, where it cannot be asked, the last that this process knows if it is not too old, or what the user's fallback
/// says.
async fn answer<T>(
    inner: &Inner,
    until: Instant,
    live: Result<T, Fault>,
    last: impl FnOnce() -> Option<(T, Instant)>,
    fallback: impl Future<Output = Option<Reading<T>>>,
) -> Result<Reading<T>, ReadError> {
    let fault = match live {
        Ok(value) => {
            if inner.node.mode().is_degraded() {
                inner.meter.answered(Answered::Live);
            }
            return Ok(Reading::live(value));
        }
        Err(fault) if !is_out_of_reach(&fault) => return Err(fault.into()),
        Err(fault) => fault,
    };
    if let Some((value, at)) = last()
        && at.elapsed() <= inner.config.snapshot_max_age
    {
        inner.meter.answered(Answered::Snapshot);
        inner.node.answered_from(at);
        return Ok(Reading::snapshot(value, at.elapsed()));
    }
    // What it asks may be ill as well.
    let now = Instant::now();
    let until = until.clamp(now + SHORTEST_FALLBACK, now + LONGEST_FALLBACK);
    match timeout_at(until, fallback).await {
        Ok(Some(reading)) => {
            inner.meter.answered(Answered::Fallback);
            Ok(reading)
        }
        Ok(None) | Err(_) => {
            inner.meter.answered(Answered::NotAtAll);
            Err(fault.into())
        }
    }
}

/// Whether Redis could not be asked, as opposed to a pool that is full, or an answer that makes no sense.
fn is_out_of_reach(fault: &Fault) -> bool {
    fault.kind() == FaultKind::CircuitOpen || fault.kind().class().blame != Blame::Nobody
}

/// Says past grants; what stands is asked as well, because a history does not say which lease has ended by itself.
pub(crate) async fn history(inner: &Inner, tag: &Tag) -> Result<Reading<Vec<PastLease>>, ReadError> {
    // Before the history: what it shows beyond this was granted since.
    let seen = look(inner, tag).await?;
    let mut call = Call::start(inner, Operation::Read, None);
    let deadline = call.deadline;
    let told = call.run(|_| inner.store.history(tag, deadline)).await?;
    let over = |lease: &Occupant| match &seen {
        Seen::Held(standing) => lease.fence < standing.fence,
        Seen::Free { last } => last.is_none_or(|last| lease.fence <= last),
    };
    let most = inner.config.history.entries as usize;
    Ok(Reading::live(PastLease::pair(told, most, over)))
}

use std::{borrow::Cow, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::time::Instant;

use super::{
    Call,
    read::{PAGE, look_at_page},
    release::end,
    server::guard_lost_to,
};
use crate::{
    Fault, Lease, RequestId, RestoreOutcome, Ttl,
    abandoned::Abandoned,
    held::Held,
    inner::Inner,
    lease::check_note,
    meter::{Operation, PutBack},
    store::{NotYours, Restored, Seen, Store as _, Whose},
};

/// How many leases are put back at once.
const SIDE_BY_SIDE: usize = 16;

/// Puts back which of `leases` the store has lost; says of each, in their order, what became of it.
pub(crate) async fn restore(
    inner: &Inner,
    leases: &[Lease],
    mut done: impl FnMut(&Lease, RestoreOutcome),
) -> Result<(), Fault> {
    for page in leases.chunks(PAGE) {
        let tags: Vec<_> = page.iter().map(|lease| lease.tag.clone()).collect();
        let seen = look_at_page(inner, &tags).await?;
        let calls = page.iter().zip(seen).map(|(lease, seen)| restore_one(inner, lease, seen).boxed());
        // Made at once: a closure that is called later would have to take any lifetime.
        let calls: Vec<_> = calls.collect();
        let mut outcomes = stream::iter(calls).buffered(SIDE_BY_SIDE);
        for lease in page {
            if let Some(outcome) = outcomes.next().await {
                done(lease, outcome?);
            }
        }
    }
    Ok(())
}

async fn restore_one(inner: &Inner, lease: &Lease, seen: Option<Seen>) -> Result<RestoreOutcome, Fault> {
    let outcome = match seen {
        Some(Seen::Held(occupant)) if Whose::of(lease).means(&occupant) => RestoreOutcome::Stood(occupant),
        Some(Seen::Held(occupant)) => RestoreOutcome::Occupied(occupant),
        Some(Seen::Free { last }) if last.is_some_and(|last| last >= lease.fence) => {
            RestoreOutcome::Ended { last }
        }
        // Of what is no lock the store tells when it is to be written over.
        Some(Seen::Free { .. }) | None => put_back(inner, lease).await?,
    };
    inner.recovery.put_back(match outcome {
        RestoreOutcome::Restored(_) => PutBack::Restored,
        RestoreOutcome::Stood(_) => PutBack::Stood,
        RestoreOutcome::Occupied(_) | RestoreOutcome::Ended { .. } => PutBack::Refused,
    });
    Ok(outcome)
}

async fn put_back(inner: &Inner, lease: &Lease) -> Result<RestoreOutcome, Fault> {
    let now = inner.server_now();
    let Some(ttl) = Ttl::until(lease.expires_at, now) else {
        return Ok(RestoreOutcome::Ended { last: None });
    };
    let lease = with_a_right_note(lease);
    Ok(match ask(inner, &lease, ttl).await? {
        Restored::Restored(lease) => RestoreOutcome::Restored(lease),
        Restored::Stands(occupant) => RestoreOutcome::Stood(occupant),
        Restored::Not(NotYours::Occupied(occupant)) => RestoreOutcome::Occupied(occupant),
        Restored::Not(NotYours::Free { last }) => RestoreOutcome::Ended { last },
    })
}

/// A ledger may have a note that no acquire takes. Whose lease it is matters more: it is put back without.
fn with_a_right_note(lease: &Lease) -> Cow<'_, Lease> {
    let Err(invalid) = check_note(&lease.note) else { return Cow::Borrowed(lease) };
    tracing::warn!(tag = lease.tag.as_str(), fence = %lease.fence, %invalid, "a lease is put back without its note");
    Cow::Owned(Lease { note: String::new(), ..lease.clone() })
}

async fn ask(inner: &Inner, lease: &Lease, ttl: Ttl) -> Result<Restored, Fault> {
    let mut call = Call::start(inner, Operation::Extend, None);
    let (asked, deadline) = (call.started, call.deadline);
    let restored = call.run(|_| inner.store.restore(lease, ttl, deadline)).await?;
    match &restored {
        Restored::Restored(lease) => inner.known.granted(lease, asked),
        Restored::Stands(occupant) | Restored::Not(NotYours::Occupied(occupant)) => {
            inner.known.stands(occupant.clone(), asked);
        }
        Restored::Not(NotYours::Free { last }) => inner.known.free(&lease.tag, *last, asked),
    }
    Ok(restored)
}

/// Ends a lease that was put back although it had ended meanwhile.
pub(crate) async fn take_back(inner: &Inner, lease: &Lease) -> Result<(), Fault> {
    end(inner, Whose::of(lease), RequestId::random(), None).await.map(drop)
}

/// Puts a guard's lease back, which the store has lost; where it is somebody else's by now, or has ended, the guard is told. Says
/// whether it stands.
pub(crate) async fn restore_guard(inner: &Arc<Inner>, held: &Held) -> Result<bool, Fault> {
    let asked = Instant::now();
    let Some(ttl) = held.rest(asked) else { return Ok(false) };
    let restored = ask(inner, held.lease(), ttl).await;
    if let Ok(Restored::Not(not)) = restored {
        inner.recovery.put_back(PutBack::Refused);
        lose_to(inner, held, &not).await;
        return Ok(false);
    }
    match &restored {
        Ok(Restored::Restored(_)) => {
            held.renewed(asked, ttl, Instant::now);
            inner.recovery.put_back(PutBack::Restored);
        }
        Ok(_) => inner.recovery.put_back(PutBack::Stood),
        Err(_) => {}
    }
    if held.safe_until(Instant::now()).is_err() {
        // Whoever gave it back meanwhile, or lost it, released what was not there yet.
        inner.abandon_last(Abandoned::Granted(held.lease().clone()));
        return Ok(false);
    }
    restored.map(|_| true)
}

/// A guard's lock is not its own any more: it is told how that came about.
pub(crate) async fn lose_to(inner: &Arc<Inner>, held: &Held, not: &NotYours) {
    let was_counted_on = held.safe_until(Instant::now()).is_ok();
    let reason = guard_lost_to(inner, held, not).await;
    if inner.lose_guard(held, reason) && was_counted_on && matches!(not, NotYours::Occupied(_)) {
        inner.overlap(&held.lease().tag, held.lease().fence);
    }
}

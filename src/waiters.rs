//! The keepers of the lines: they look for those who wait.
//!
//! A line has one keeper. It asks the store for the head alone, keeps the place of this process in the store's queue by asking
//! again at each poll, and confirms what was granted from there. It ends with its line.

use std::{sync::Weak, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    AcquireError, FaultKind, Lease, Tag,
    abandoned::Abandoned,
    attempt,
    grant::Grant,
    inner::{Errands, ForLock, Inner, Told},
    lines::{Before, Errand, Settled, Step},
    store::{Ask, Queued},
};

/// Sees to the lines of a process until it is gone.
pub(crate) async fn keep(inner: Weak<Inner>, mut errands: Errands) {
    while let Some(errand) = errands.recv().await {
        let Some(here) = inner.upgrade() else { return };
        match errand {
            Errand::Opened(tag) => {
                tokio::spawn(keep_line(inner.clone(), tag));
            }
            Errand::Stray { answer: Told::Granted(grant), .. } => {
                here.abandon(Abandoned::Granted(grant.lease));
            }
            Errand::Stray { ask, answer: Told::Ambiguous } => {
                here.abandon(Abandoned::Unknown { ask, answered: None, until: here.until_all_is_over() });
            }
            // Nobody is left to be told.
            Errand::Stray { answer: Told::Refused(_), .. } => {}
            Errand::Abandoned { ask, until } => {
                here.abandon(Abandoned::Unknown { ask, answered: None, until });
            }
        }
    }
}

async fn keep_line(inner: Weak<Inner>, tag: Tag) {
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let Some(bell) = inner.lines.bell(&tag) else { return };
        let settled = match inner.lines.step(&tag, Instant::now()) {
            Step::Look { ask, before } => look(&inner, &ask, before).await,
            Step::Leave(before) => leave(&inner, before).await,
            Step::Rest(until) => {
                drop(inner);
                // Either way there may be something to do.
                let _ = timeout_at(until, bell.notified()).await;
                continue;
            }
            Step::Close => return,
        };
        inner.lines.settle(&tag, settled, Instant::now());
    }
}

/// Asks the store for the head of a line.
async fn look(inner: &Inner, ask: &Ask, before: Option<Before<ForLock>>) -> Settled<ForLock> {
    let token = before.as_ref().map(|before| before.ask.token);
    let asked = Instant::now();
    match attempt::queue(inner, ask, token).await {
        Ok(Queued::Granted(lease)) => {
            let (sight, again) = inner.sight(lease.clone().into(), ask.ttl.duration());
            let grant = Grant::new(lease, asked, ask.ttl.duration());
            Settled::Granted { answer: Told::Granted(grant), sight, again }
        }
        Ok(Queued::GrantedBefore(lease)) => before_granted(inner, before, lease).await,
        Ok(Queued::AlreadyHeld(lease)) => refused(inner, AcquireError::AlreadyHeld(Box::new(lease))),
        Ok(Queued::Waits { occupant, expires_in }) => {
            let (sight, again) = inner.sight(occupant, expires_in);
            Settled::Waits { sight, again }
        }
        // At the poll at the latest, as always: what is put back meanwhile may be released again.
        Ok(Queued::Warming { rest }) => Settled::NotYet { again: rest.min(inner.config.wait.poll) },
        Err(fault) if may_recover(fault.kind()) => ambiguous(inner),
        Err(fault) => refused(inner, fault.into()),
    }
}

/// Leaves the store's queue, in which nobody waits any more.
async fn leave(inner: &Inner, before: Before<ForLock>) -> Settled<ForLock> {
    match attempt::leave(inner, &before.ask.tag, before.ask.token).await {
        Ok(None) => Settled::Left,
        Ok(Some(lease)) => before_granted(inner, Some(before), lease).await,
        Err(_) => ambiguous(inner),
    }
}

/// Whose time was over was granted the lock in that moment. It gets it, if it is still there.
async fn before_granted(inner: &Inner, before: Option<Before<ForLock>>, lease: Lease) -> Settled<ForLock> {
    let Some(before) = before.filter(|before| before.is_here) else {
        // Nobody is left to count on it.
        let grant = Grant::new(lease, Instant::now(), Duration::ZERO);
        return Settled::BeforeGranted(Told::Granted(grant));
    };
    let asked = Instant::now();
    match attempt::queue(inner, &before.ask, None).await {
        Ok(Queued::Granted(lease)) => {
            let grant = Grant::new(lease, asked, before.ask.ttl.duration());
            Settled::BeforeGranted(Told::Granted(grant))
        }
        // The grant has run out: it has not got the lock, and stands in the queue once more.
        Ok(_) | Err(_) => ambiguous(inner),
    }
}

fn refused(inner: &Inner, why: AcquireError) -> Settled<ForLock> {
    Settled::Refused { answer: Told::Refused(why), again: inner.config.wait.poll }
}

fn ambiguous(inner: &Inner) -> Settled<ForLock> {
    Settled::Ambiguous { again: inner.config.wait.poll, until: inner.until_all_is_over() }
}

/// Whether waiting on makes sense: Redis did not refuse, it could not be asked or has no time now.
fn may_recover(kind: FaultKind) -> bool {
    use FaultKind::*;
    matches!(
        kind,
        Timeout
            | Disconnected
            | CheckoutTimeout
            | Saturated
            | Connect
            | ClosedInHandshake
            | MaxClients
            | Loading
            | Busy
            | Late
            | Protocol
            | CircuitOpen
    )
}

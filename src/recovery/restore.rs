//! [`Restore`]: what the server has lost is put back.

use std::{collections::HashSet, error::Error, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    LONGEST_PAUSE, SHORTEST_PAUSE, Tally, tell,
    verify::{Missing, is_held},
};
use crate::{
    CircuitState, Event, Fence, Lease, LeaseSource, LostReason, Occupant, RecoveryPhase, RestoreOutcome, Tag,
    attempt, held::Held, inner::Inner,
};

/// How long the phase takes at most.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a source may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many guards are put back at once.
const SIDE_BY_SIDE: usize = 16;

type Reason = Box<dyn Error + Send + Sync>;

/// What is to be put back, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Restore {
    /// When the source is asked again; none where all is done.
    next: Option<Instant>,
    pause: Duration,
    /// Whether the server has lost data since the source was last done with.
    has_lost_data: bool,
    /// What was put back, and of which the source has not said since that it is to stand.
    restored: Vec<Lease>,
    /// What identities had, and nobody has told them yet whether it is lost.
    missing: Vec<Occupant>,
}

impl Restore {
    pub(super) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// The phase of a recovery: `missing` is what this process held and does not stand. Where the server has lost data, who cannot have
    /// it back is told.
    pub(super) async fn go_through(&mut self, inner: &Arc<Inner>, missing: Missing, has_lost_data: bool) {
        let (began, tally) = (Instant::now(), Tally::default());
        let until = began + LONGEST;
        if has_lost_data {
            self.has_lost_data = true;
            self.missing.extend(missing.identities);
            // Those that are not put back by then are by their renewals.
            let _ = timeout_at(until, restore_guards(inner, &missing.guards, &tally)).await;
        }
        let is_complete = timeout_at(until, self.ask_until_done(inner, &tally)).await.unwrap_or(false);
        self.tell_missing(inner).await;
        tell(inner, RecoveryPhase::Restore, began, &tally, is_complete);
    }

    /// As the phase does, once and beside all else.
    pub(super) async fn ask_if_due(&mut self, inner: &Inner) {
        if self.next.is_some_and(|due| due <= Instant::now()) {
            self.ask(inner, &Tally::default()).await;
            self.tell_missing(inner).await;
        }
    }

    /// Says whether it was done before Redis went away again.
    async fn ask_until_done(&mut self, inner: &Inner, tally: &Tally) -> bool {
        loop {
            self.ask(inner, tally).await;
            match self.next {
                None => return true,
                Some(_) if inner.node.link.state() != CircuitState::Closed => return false,
                Some(next) => sleep_until(next).await,
            }
        }
    }

    async fn ask(&mut self, inner: &Inner, tally: &Tally) {
        match self.restore_source(inner, tally).await {
            Ok(()) => (self.next, self.pause, self.has_lost_data) = (None, Duration::ZERO, false),
            Err(error) => {
                tracing::warn!(%error, "the leases of the source could not be put back yet");
                self.pause = (2 * self.pause).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                self.next = Some(Instant::now() + self.pause);
            }
        }
    }

    /// Puts back what the source names and the server does not have. Who released one meanwhile found nothing there: so the source is
    /// asked once more, and what it does not name any more is released.
    async fn restore_source(&mut self, inner: &Inner, tally: &Tally) -> Result<(), Reason> {
        let Some(source) = &inner.doors.source else { return Ok(()) };
        let leases = ask(source).await?;
        let (restored, has_lost_data) = (&mut self.restored, self.has_lost_data);
        let done = |lease: &Lease, outcome| match outcome {
            RestoreOutcome::Restored(lease) => {
                tally.done(1);
                restored.push(lease);
            }
            RestoreOutcome::Occupied(_) => {
                tally.left(1);
                if has_lost_data {
                    tell_lost(inner, lease.clone().into());
                }
            }
            RestoreOutcome::Stood(_) | RestoreOutcome::Ended { .. } => {}
        };
        attempt::restore(inner, &leases, done).await?;
        if self.restored.is_empty() {
            return Ok(());
        }
        let named: HashSet<(Tag, Fence)> =
            ask(source).await?.into_iter().map(|lease| (lease.tag, lease.fence)).collect();
        while let Some(lease) = self.restored.last() {
            if !named.contains(&(lease.tag.clone(), lease.fence)) {
                attempt::take_back(inner, lease).await?;
            }
            self.restored.pop();
        }
        Ok(())
    }

    /// Identities whose lease went with the server's data, and does not stand again, are told that they have lost it.
    async fn tell_missing(&mut self, inner: &Inner) {
        let tags: Vec<Tag> = self.missing.iter().map(|occupant| occupant.tag.clone()).collect();
        match attempt::look_at_all(inner, &tags).await {
            Ok(seen) => {
                for (occupant, seen) in self.missing.drain(..).zip(&seen) {
                    if !is_held(seen, occupant.fence) {
                        tell_lost(inner, occupant);
                    }
                }
            }
            // They are told when Redis says so.
            Err(_) => self.next = self.next.or(Some(Instant::now() + SHORTEST_PAUSE)),
        }
    }
}

/// The guards' own. One that meets a fault is left to its renewal.
async fn restore_guards(inner: &Arc<Inner>, guards: &[Arc<Held>], tally: &Tally) {
    let guards: Vec<_> = guards.iter().map(|held| attempt::restore_guard(inner, held).boxed()).collect();
    let mut restored = stream::iter(guards).buffer_unordered(SIDE_BY_SIDE);
    while let Some(restored) = restored.next().await {
        if restored.unwrap_or(false) { tally.done(1) } else { tally.left(1) }
    }
}

/// In a task of its own: a source that panics has not answered.
async fn ask(source: &Arc<dyn LeaseSource>) -> Result<Vec<Lease>, Reason> {
    let source = source.clone();
    let mut asked = JoinSet::new();
    asked.spawn(async move { source.leases().await });
    timeout(PATIENCE, asked.join_next()).await?.ok_or("the source was not asked")??
}

/// A lease went with the server's data. One that had run out, was given back, or is known to be lost is not told of.
fn tell_lost(inner: &Inner, occupant: Occupant) {
    let at = inner.server_now();
    if occupant.expires_at <= at {
        return;
    }
    let reason = match inner.lose(&occupant.tag, occupant.fence, LostReason::Restarted) {
        Some(Ok(reason)) => reason,
        Some(Err(_)) => return,
        // Another process had acquired it, of which the source knows.
        None => {
            inner.meter.lost(LostReason::Restarted);
            LostReason::Restarted
        }
    };
    inner.hearing.tell(Event::Lost { occupant, reason, at });
}

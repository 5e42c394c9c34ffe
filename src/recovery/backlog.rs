//! [`Pace`]: deferred calls are applied, in the phase of a recovery and beside all else.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, timeout_at};

use super::{LONGEST_PAUSE, SHORTEST_PAUSE, Tally, tell};
use crate::{Deferred, Fault, RecoveryPhase, Settlement, attempt, backlog::Taken, inner::Inner};

/// How long the phase takes at most.
const LONGEST: Duration = Duration::from_secs(5);
/// How long a round takes at most beside all else: others are to be seen to as well.
const ROUND: Duration = Duration::from_millis(300);

/// How many are applied side by side: what two lanes carry.
const SIDE_BY_SIDE: usize = 32;

/// Of how many that are done with the log is told at once.
const BATCH: usize = 256;

/// When deferred calls are applied beside all else.
#[derive(Debug)]
pub(super) struct Pace {
    next: Instant,
    pause: Duration,
    /// Those that are done with, of which the log does not know yet.
    settled: Vec<(Deferred, Settlement)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { next: Instant::now(), pause: SHORTEST_PAUSE, settled: Vec::new() }
    }
}

impl Pace {
    /// When there is something to be applied.
    pub(super) fn due(&self, inner: &Inner) -> Option<Instant> {
        (!inner.backlog.is_empty()).then_some(self.next)
    }

    /// What refused is over: there is no sense in pausing any longer.
    pub(super) fn hurry(&mut self) {
        (self.next, self.pause) = (Instant::now(), SHORTEST_PAUSE);
    }

    pub(super) async fn apply_if_due(&mut self, inner: &Inner) {
        let now = Instant::now();
        if self.due(inner).is_some_and(|due| due <= now) {
            self.apply(inner, now + ROUND, &Tally::default()).await;
        }
    }

    /// The phase of a recovery.
    pub(super) async fn apply_all(&mut self, inner: &Inner) {
        let (began, tally) = (Instant::now(), Tally::default());
        let until = began + LONGEST;
        // One that is under way then is taken up again, which has no effect where it was applied.
        let _ = timeout_at(until, self.apply(inner, until, &tally)).await;
        tally.left(inner.backlog.len() as u64);
        tell(inner, RecoveryPhase::Deferred, began, &tally, inner.backlog.is_empty());
    }

    /// Applies all that it can by then.
    async fn apply(&mut self, inner: &Inner, until: Instant, tally: &Tally) {
        match self.apply_those_that_wait(inner, until, tally).await {
            Ok(()) => self.pause = SHORTEST_PAUSE,
            Err(fault) => {
                tracing::debug!(%fault, waiting = inner.backlog.len(), "deferred calls wait on");
                self.next = Instant::now() + self.pause;
                self.pause = (2 * self.pause).min(LONGEST_PAUSE);
            }
        }
        self.forget(inner).await;
    }

    /// Applies what waits, those of a tag one after the other. None is begun after `until`; a fault that is everybody's ends it, one that
    /// is of a single call is left for the next time.
    async fn apply_those_that_wait(
        &mut self,
        inner: &Inner,
        until: Instant,
        tally: &Tally,
    ) -> Result<(), Fault> {
        let mut under_way = FuturesUnordered::new();
        let mut aside = Vec::new();
        let mut outcome = Ok(());
        loop {
            while outcome.is_ok()
                && under_way.len() < SIDE_BY_SIDE
                && Instant::now() < until
                && let Some(taken) = inner.backlog.take()
            {
                under_way.push(apply_one(inner, taken));
            }
            match under_way.next().await {
                None => break,
                Some(Ok(done)) => {
                    tally.done(1);
                    self.settled.push(done);
                }
                Some(Err((_taken, fault))) if attempt::is_everybodys(&fault) => outcome = Err(fault),
                Some(Err((taken, fault))) => {
                    tracing::warn!(tag = taken.deferred.tag.as_str(), %fault, "a deferred call could not be applied");
                    aside.push((taken, fault));
                }
            }
            if self.settled.len() >= BATCH {
                self.forget(inner).await;
            }
        }
        // Those that are put aside are tried again after a pause.
        outcome.and_then(|()| aside.pop().map_or(Ok(()), |(_, fault)| Err(fault)))
    }

    async fn forget(&mut self, inner: &Inner) {
        inner.backlog.forget(std::mem::take(&mut self.settled)).await;
    }
}

async fn apply_one(inner: &Inner, taken: Taken) -> Result<(Deferred, Settlement), (Taken, Fault)> {
    match attempt::apply(inner, &taken.deferred).await {
        Ok(settlement) => {
            let deferred = taken.settle(settlement);
            attempt::settled(inner, &deferred, settlement);
            Ok(((*deferred).clone(), settlement))
        }
        Err(fault) => Err((taken, fault)),
    }
}

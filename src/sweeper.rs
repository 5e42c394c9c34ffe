//! [`Sweeper`]: finds out what was granted to those who did not hear of it or have gone away, and releases it.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep},
};

use crate::{
    CircuitState, FaultKind, Fence, Lease, RequestId,
    abandoned::Abandoned,
    attempt,
    claim::Owner,
    inner::{Inner, ToSweep},
    stats::Swept,
    store::Ask,
};

/// How long it takes until what was left behind is looked for again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How many calls sweep side by side. A service whose callers have all gone away has other things to do.
const SIDE_BY_SIDE: usize = 16;

/// How many may wait to be swept: some 10 MB, and the callers of an outage of minutes. What is beyond lasts its ttl, and is counted.
const MOST: usize = 10_000;

/// Sweeps for a process until it is gone.
pub(crate) async fn keep(inner: Weak<Inner>, mut to_sweep: mpsc::UnboundedReceiver<ToSweep>) {
    let sweeper = Sweeper { inner, permits: Arc::new(Semaphore::new(SIDE_BY_SIDE)), pending: Arc::default() };
    while let Some(ToSweep { abandoned, keeps }) = to_sweep.recv().await {
        if sweeper.pending.load(Relaxed) >= MOST {
            sweeper.count(Swept::Lapsed);
            tracing::warn!("too much was given up at once: a lock that was granted lasts its ttl");
            continue;
        }
        let pending = Pending::new(&sweeper.pending);
        let sweeper = sweeper.clone();
        tokio::spawn(async move {
            let (_pending, _keeps) = (pending, keeps);
            match abandoned {
                Abandoned::Granted(lease) => {
                    let outcome = sweeper.release(&lease, RequestId::random()).await;
                    sweeper.count(outcome);
                }
                Abandoned::GivenBack { lease, request } => {
                    let outcome = sweeper.release(&lease, request).await;
                    sweeper.count(outcome);
                }
                Abandoned::Unknown { ask, answered, until } => {
                    sweeper.find_out(&ask, answered, until, Owner::Gone).await;
                }
                Abandoned::Claimed { ask, until, owner } => {
                    sweeper.find_out(&ask, None, until, owner).await;
                }
            }
        });
    }
}

/// One that is counted among those who wait to be swept.
struct Pending(Arc<AtomicUsize>);

impl Pending {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Relaxed);
        Self(all.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[derive(Clone)]
struct Sweeper {
    inner: Weak<Inner>,
    permits: Arc<Semaphore>,
    pending: Arc<AtomicUsize>,
}

impl Sweeper {
    /// Finds out what a call was granted, or is yet to be, of which nobody heard, and does with it what its owner wants.
    ///
    /// The call may be on its way still, until its time is over, also after it was found once: one that waits in line is granted the
    /// lock from the queue and by a look. So it is looked for again, ever more seldom, and once more then.
    async fn find_out(&self, ask: &Ask, mut given: Option<Fence>, until: Instant, mut owner: Owner) {
        let mut pause = SHORTEST_PAUSE;
        let mut outcome = Swept::NotGranted;
        while !matches!(owner, Owner::LeavesIt) {
            let (asked, found) = {
                let Some((inner, _permit)) = self.permit().await else { return };
                (Instant::now(), attempt::find(&inner, ask).await)
            };
            // Where Redis cannot be asked: whoever was granted it would have it for its ttl.
            let end = if found.is_ok() { until } else { until + ask.ttl.duration() };
            let is_over = asked >= end;
            match &found {
                Ok(Some(lease)) if given == Some(lease.fence) || matches!(owner, Owner::Silent { .. }) => {}
                Ok(Some(lease)) => {
                    if owner.takes(lease).await {
                        given = Some(lease.fence);
                        outcome = Swept::LeftToCaller;
                    } else if matches!(owner, Owner::Gone) {
                        outcome = self.release(lease, RequestId::random()).await;
                    }
                }
                Err(_) if is_over && given.is_none() => outcome = Swept::Lapsed,
                _ => {}
            }
            if is_over && !matches!(owner, Owner::Silent { .. } | Owner::LeavesIt) {
                owner.hears_of_nothing();
                return self.count(outcome);
            }
            let left = until.saturating_duration_since(Instant::now());
            let rest = if left.is_zero() { pause } else { pause.min(left) };
            tokio::select! {
                () = owner.listen(rest) => pause = (2 * pause).min(LONGEST_PAUSE),
                () = self.redis_is_back(), if found.is_err() => pause = SHORTEST_PAUSE,
            }
        }
        self.count(Swept::LeftToCaller);
    }

    /// Releases what was granted to somebody who has gone away, and so hands it on to the next; but not where somebody else was
    /// told meanwhile that this holder has it.
    async fn release(&self, lease: &Lease, request: RequestId) -> Swept {
        let lasts = lease.expires_at.duration_since(lease.since).unwrap_or_default().max(LONGEST_PAUSE);
        let ends = Instant::now() + lasts;
        let mut pause = SHORTEST_PAUSE;
        while Instant::now() < ends {
            let swept = {
                let Some((inner, _permit)) = self.permit().await else { break };
                attempt::sweep(&inner, lease, request).await
            };
            match swept {
                Ok(outcome) => return outcome,
                // Somebody has written over it.
                Err(fault) if fault.kind() == FaultKind::NotALock => break,
                Err(_) => {}
            }
            tokio::select! {
                () = sleep(pause) => pause = (2 * pause).min(LONGEST_PAUSE),
                () = self.redis_is_back() => pause = SHORTEST_PAUSE,
            }
        }
        Swept::Lapsed
    }

    /// Waits until Redis is asked again, where it is not.
    async fn redis_is_back(&self) {
        let watch = self.inner.upgrade().map(|inner| inner.node.link.watch());
        match watch {
            Some(mut link) if link.state() != CircuitState::Closed => {
                while link.changed().await.is_some_and(|state| state != CircuitState::Closed) {}
            }
            // It is asked, or nobody is left to ask it.
            _ => std::future::pending().await,
        }
    }

    fn count(&self, outcome: Swept) {
        if let Some(inner) = self.inner.upgrade() {
            inner.meter.swept(outcome);
        }
    }

    /// Waits until the store may be asked; `None` where the process is gone.
    async fn permit(&self) -> Option<(Arc<Inner>, OwnedSemaphorePermit)> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        Some((self.inner.upgrade()?, permit))
    }
}

#[cfg(feature = "memory")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Config, Holder, LeaseKind, Tag, Token, Ttl,
        inner::{Doors, Mailboxes},
        store::{Acquired, Seen, Store as _},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn ask() -> Arc<Ask> {
        Arc::new(Ask {
            tag: Tag::new("TEST-02").unwrap(),
            holder: Holder::new("93", "").unwrap(),
            kind: LeaseKind::Identity,
            token: Token::random(),
            ttl: Ttl::HOUR,
            note: String::new(),
        })
    }

    async fn process() -> Arc<Inner> {
        let (inner, Mailboxes { to_sweep, .. }) =
            Inner::connect(Config::new("memory://").unwrap(), Doors::default()).await.unwrap();
        let inner = Arc::new(inner);
        tokio::spawn(keep(Arc::downgrade(&inner), to_sweep));
        inner
    }

    async fn grant(inner: &Inner, ask: &Ask) {
        let outcome = inner.store.acquire(ask, Instant::now() + SECOND).await.unwrap();
        assert!(matches!(outcome, Acquired::Granted(_)), "{outcome:?}");
    }

    async fn is_free(inner: &Inner, ask: &Ask) -> bool {
        matches!(inner.store.inspect(&ask.tag, Instant::now() + SECOND).await.unwrap(), Seen::Free { .. })
    }

    #[tokio::test(start_paused = true)]
    async fn what_arrives_until_its_time_is_over_is_released_each_time() {
        let (inner, ask) = (process().await, ask());
        let until = Instant::now() + 8 * SECOND;
        inner.abandon(Abandoned::Unknown { ask: ask.clone(), answered: None, until });
        // It is looked for at 0, 0.25, 0.75, 1.75, 3.75, 7.75 and 8 s.
        for seen_after in [1, 5] {
            sleep(SECOND).await;
            grant(&inner, &ask).await;
            sleep(seen_after * SECOND).await;
            assert!(is_free(&inner, &ask).await);
        }
        sleep(SECOND).await;
        assert_eq!(inner.stats().locks.swept_total["released"], 1, "one call");
        grant(&inner, &ask).await;
        sleep(60 * SECOND).await;
        assert!(!is_free(&inner, &ask).await, "nobody looks any more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_its_owner_has_taken_stays_and_what_comes_after_it_does_not() {
        let (inner, ask) = (process().await, ask());
        grant(&inner, &ask).await;
        let claim = inner.claim(ask.clone(), false, Instant::now() + 8 * SECOND);
        let lease = claim.settled().await.unwrap().expect("it was granted");
        sleep(2 * SECOND).await;
        assert!(!is_free(&inner, &ask).await);
        assert_eq!(attempt::sweep(&inner, &lease, RequestId::random()).await.unwrap(), Swept::Released);
        grant(&inner, &ask).await;
        sleep(8 * SECOND).await;
        assert!(is_free(&inner, &ask).await, "granted once more by a call that came late");
    }

    /// Of an acquire that was answered by its second try: the first may come late.
    #[tokio::test(start_paused = true)]
    async fn what_a_call_was_answered_stays_and_what_an_earlier_try_is_granted_does_not() {
        let (inner, ask) = (process().await, ask());
        grant(&inner, &ask).await;
        let lease = attempt::find(&inner, &ask).await.unwrap().expect("it was granted");
        let until = Instant::now() + 8 * SECOND;
        inner.abandon(Abandoned::Unknown { ask: ask.clone(), answered: Some(lease.fence), until });
        sleep(3 * SECOND).await;
        assert!(!is_free(&inner, &ask).await, "its caller has it");
        assert_eq!(attempt::sweep(&inner, &lease, RequestId::random()).await.unwrap(), Swept::Released);
        grant(&inner, &ask).await;
        sleep(8 * SECOND).await;
        assert!(is_free(&inner, &ask).await, "nobody knows of that one");
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_not_more_than_can_be_seen_to() {
        let inner = process().await;
        let until = Instant::now() + SECOND;
        for _ in 0..MOST + 5 {
            inner.abandon(Abandoned::Unknown { ask: ask(), answered: None, until });
        }
        sleep(60 * SECOND).await;
        let swept = inner.stats().locks.swept_total;
        assert_eq!((swept["lapsed"], swept["not_granted"]), (5, MOST as u64));
    }
}

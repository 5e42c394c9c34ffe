//! [`Sweeper`]: finds out what was granted to those who did not hear of it or have gone away, and releases it.

use std::{
    mem,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use crate::{
    Fence, Lease, RequestId,
    abandoned::Abandoned,
    attempt,
    claim::{Claimant, HandedOut, Wish},
    inner::Inner,
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
pub(crate) async fn keep(inner: Weak<Inner>, mut abandoned: mpsc::UnboundedReceiver<Abandoned>) {
    let sweeper = Sweeper { inner, permits: Arc::new(Semaphore::new(SIDE_BY_SIDE)), pending: Arc::default() };
    while let Some(abandoned) = abandoned.recv().await {
        if sweeper.pending.load(Relaxed) >= MOST {
            sweeper.count(Swept::Lapsed);
            tracing::warn!(
                "too many calls were given up at once: a lock that this one was granted lasts its ttl"
            );
            continue;
        }
        let pending = Pending::new(&sweeper.pending);
        let sweeper = sweeper.clone();
        tokio::spawn(async move {
            let _pending = pending;
            match abandoned {
                Abandoned::Granted(lease) => {
                    let outcome = sweeper.release(&lease).await;
                    sweeper.count(outcome);
                }
                Abandoned::Unknown { ask, until } => sweeper.find_out(&ask, until, Owner::Gone).await,
                Abandoned::Claimed { ask, until, claimant, is_named } => {
                    sweeper.find_out(&ask, until, Owner::Silent(claimant, is_named)).await;
                }
            }
        });
    }
}

/// Where the owner of a claim stands; whether the call had named its token.
enum Owner {
    /// They have not said anything yet.
    Silent(Claimant, bool),
    /// They wait for what is found.
    Wants(oneshot::Sender<Option<HandedOut>>, bool),
    LeaveIt,
    /// What is found is released.
    Gone,
}

impl Owner {
    fn listen(&mut self) {
        if let Self::Silent(claimant, is_named) = self {
            let is_named = *is_named;
            match claimant.0.try_recv() {
                Ok(wish) => self.hear(Ok(wish), is_named),
                Err(oneshot::error::TryRecvError::Closed) => self.hear(Err(()), is_named),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
        }
    }

    fn hear(&mut self, wish: Result<Wish, ()>, is_named: bool) {
        *self = match wish {
            Ok(Wish::Tell(tell)) => Self::Wants(tell, is_named),
            Ok(Wish::Leave) => Self::LeaveIt,
            Err(()) if is_named => Self::LeaveIt,
            Err(()) => Self::Gone,
        };
    }

    /// Waits until they say something.
    async fn hear_out(&mut self) {
        if let Self::Silent(claimant, is_named) = self {
            let is_named = *is_named;
            let wish = (&mut claimant.0).await;
            self.hear(wish.map_err(drop), is_named);
        }
    }

    /// Sleeps, unless they say something.
    async fn sleep(&mut self, pause: Duration) {
        match self {
            Self::Silent(claimant, is_named) => {
                let is_named = *is_named;
                if let Ok(wish) = timeout(pause, &mut claimant.0).await {
                    self.hear(wish.map_err(drop), is_named);
                }
            }
            _ => sleep(pause).await,
        }
    }
}

/// Hands a lease out to who waits for it, and says whether it was taken before it ended.
async fn hand_out(tell: oneshot::Sender<Option<HandedOut>>, lease: &Lease) -> bool {
    let (taken, takes) = oneshot::channel();
    let lasts = lease.expires_at.duration_since(lease.since).unwrap_or_default();
    tell.send(Some(HandedOut { lease: lease.clone(), taken })).is_ok()
        && matches!(timeout(lasts, takes).await, Ok(Ok(())))
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
    async fn find_out(&self, ask: &Ask, until: Instant, mut owner: Owner) {
        let mut pause = SHORTEST_PAUSE;
        let mut outcome = Swept::NotGranted;
        let mut given: Option<Fence> = None;
        loop {
            owner.listen();
            if matches!(owner, Owner::LeaveIt) {
                return self.count(Swept::LeftToCaller);
            }
            let (asked, found) = {
                let Some((inner, _permit)) = self.permit().await else { return };
                (Instant::now(), attempt::find(&inner, ask).await)
            };
            let is_over = match &found {
                Ok(_) => asked >= until,
                // Whoever was granted it would have it for its ttl.
                Err(_) => asked >= until + ask.ttl.duration(),
            };
            let is_nothing = !matches!(found, Ok(Some(_)));
            match found {
                Ok(Some(lease)) if given == Some(lease.fence) => {}
                Ok(Some(lease)) => match mem::replace(&mut owner, Owner::Gone) {
                    Owner::Silent(claimant, is_named) => owner = Owner::Silent(claimant, is_named),
                    Owner::Wants(tell, is_named) => {
                        if hand_out(tell, &lease).await {
                            (given, outcome) = (Some(lease.fence), Swept::LeftToCaller);
                        } else if is_named {
                            return self.count(Swept::LeftToCaller);
                        } else {
                            outcome = self.release(&lease).await;
                        }
                    }
                    Owner::Gone | Owner::LeaveIt => outcome = self.release(&lease).await,
                },
                Err(_) if is_over && given.is_none() => outcome = Swept::Lapsed,
                _ => {}
            }
            if is_over && !matches!(owner, Owner::Silent(..)) {
                if let Owner::Wants(tell, _) = owner {
                    let _ = tell.send(None);
                }
                return self.count(outcome);
            }
            if is_over && is_nothing {
                // Nothing will come: what is left is to say so.
                owner.hear_out().await;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            owner.sleep(if left.is_zero() { pause } else { pause.min(left) }).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Releases what was granted to somebody who has gone away, and so hands it on to the next; but not where somebody else was
    /// told meanwhile that this holder has it.
    async fn release(&self, lease: &Lease) -> Swept {
        let request = RequestId::random();
        let lasts = lease.expires_at.duration_since(lease.since).unwrap_or_default().max(LONGEST_PAUSE);
        let ends = Instant::now() + lasts;
        let mut pause = SHORTEST_PAUSE;
        while Instant::now() < ends {
            let swept = {
                let Some((inner, _permit)) = self.permit().await else { break };
                attempt::sweep(&inner, lease, request).await
            };
            if let Ok(outcome) = swept {
                return outcome;
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        Swept::Lapsed
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

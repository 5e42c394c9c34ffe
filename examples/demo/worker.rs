//! [`Crew`]: workers who take, extend and release spools until they are told to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use spool_lock::{
    AcquireError, ExtendError, Fence, Holder, InvalidText, Lease, ReleaseError, ReleaseOutcome, SpoolLocks,
    Tag, Ttl,
};
use tokio::{
    task::{JoinError, JoinSet},
    time::{Instant, sleep, timeout},
};

use crate::{
    WORK, WORKERS,
    dice::Dice,
    ledger::Ledger,
    outage::Outage,
    tally::{Deeds, Tally},
};

/// Few enough for workers to meet: each holds one spool most of the time.
const TAGS: usize = 200;
/// How soon a worker asks again what had no answer.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the workers may take in the end to give back what they hold: they can when Redis answers.
const LAST_ORDERS: Duration = Duration::from_secs(15);

/// All workers of the demo.
pub(crate) struct Crew {
    workers: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    locks: SpoolLocks,
    ledger: Ledger,
    tags: Vec<Tag>,
    tally: Tally,
    outage: Arc<Outage>,
    is_over: AtomicBool,
}

impl Crew {
    pub(crate) fn start(
        locks: &SpoolLocks,
        ledger: &Ledger,
        outage: &Arc<Outage>,
    ) -> Result<Self, InvalidText> {
        let tags =
            (1..=TAGS).map(|number| Tag::new(format!("TEST-{number:03}"))).collect::<Result<_, _>>()?;
        let (locks, ledger, outage) = (locks.clone(), ledger.clone(), outage.clone());
        let shared = Shared { locks, ledger, tags, tally: Tally::default(), outage, is_over: false.into() };
        let (mut workers, shared) = (JoinSet::new(), Arc::new(shared));
        for number in 1..=WORKERS {
            let holder = Holder::new(number.to_string(), format!("worker {number}"))?;
            workers.spawn(work(shared.clone(), holder, Dice::new(number)));
        }
        Ok(Self { workers, shared })
    }

    /// What was done since the last look.
    pub(crate) fn look(&self) -> Deeds {
        self.shared.tally.take()
    }

    /// Waits until every worker has given back what it holds and no release waits for Redis any more, for as long as there is any
    /// hope of that; returns what was done since the last look.
    pub(crate) async fn finish(mut self) -> Result<Deeds, JoinError> {
        self.shared.is_over.store(true, Relaxed);
        let all = async {
            while let Some(worker) = self.workers.join_next().await {
                worker?;
            }
            while self.shared.locks.stats().recovery.deferred > 0 {
                sleep(WORK).await;
            }
            Ok(())
        };
        timeout(LAST_ORDERS, all).await.unwrap_or(Ok(()))?;
        let mut deeds = self.look();
        deeds.stuck = self.workers.len() as u64;
        Ok(deeds)
    }
}

/// One spool after the other. Nobody goes home in an outage: whether calls work again is to be known.
async fn work(shared: Arc<Shared>, holder: Holder, mut dice: Dice) {
    while !shared.is_over.load(Relaxed) || shared.outage.is_unanswered() {
        match shared.take(&shared.tags[dice.roll(TAGS)], &holder).await {
            Some(lease) => shared.work_on(lease).await,
            None => sleep(WORK).await,
        }
    }
}

impl Shared {
    /// Takes a spool if it is free.
    async fn take(&self, tag: &Tag, holder: &Holder) -> Option<Lease> {
        match self.timed(self.locks.acquire(tag, holder).ttl(Ttl::HALF_MINUTE).note("ARM")).await {
            Ok(lease) => {
                self.outage.answered();
                return Some(lease);
            }
            Err(AcquireError::AlreadyHeld(lease)) => {
                self.outage.answered();
                return Some(*lease);
            }
            Err(AcquireError::Contended { .. }) => self.tally.contended(),
            Err(AcquireError::Warming { .. }) => self.tally.warming(),
            Err(AcquireError::Unavailable { .. }) => {
                self.outage.refused();
                self.tally.refused();
            }
            // Should it have been granted, that is released in the background.
            Err(error @ (AcquireError::Ambiguous { .. } | AcquireError::Fault(_))) => {
                self.tally.unanswered(&error);
            }
            Err(error) => self.tally.error(&error),
        }
        None
    }

    /// Works on a spool, extends, works on, gives it back.
    async fn work_on(&self, mut lease: Lease) {
        self.ledger.write(&lease);
        sleep(WORK).await;
        if !self.extend(&mut lease).await {
            return self.ledger.strike(&lease);
        }
        self.ledger.write(&lease);
        sleep(WORK).await;
        // Before the release: what the ledger names is put back, should Redis lose it now.
        self.ledger.strike(&lease);
        self.give_back(&lease).await;
    }

    /// Extends a lease, and says whether it stands. Until that is known its worker goes on: nobody else has the spool meanwhile.
    async fn extend(&self, lease: &mut Lease) -> bool {
        let mut is_first = true;
        loop {
            let extend = self.locks.extend(&lease.tag, &lease.holder, Ttl::HOUR).fence(lease.fence);
            match self.timed(extend).await {
                Ok(extended) => {
                    if !is_first {
                        self.tally.stood();
                    }
                    *lease = extended;
                    return true;
                }
                // It stands in the ledger, and is about to be put back.
                Err(ExtendError::NotHeld { last }) if is_forgotten(lease, last) => {}
                Err(ExtendError::NotHeld { .. } | ExtendError::NotHolder(_)) => {
                    self.tally.lost();
                    return false;
                }
                Err(error @ ExtendError::Fault(_)) => self.tally.unanswered(&error),
                Err(error) => self.tally.error(&error),
            }
            is_first = false;
            sleep(AGAIN).await;
        }
    }

    /// Releases a lease. Where Redis cannot be asked, that is deferred: its worker has done his part.
    async fn give_back(&self, lease: &Lease) {
        let mut release = self.locks.release_lease(lease);
        loop {
            match self.timed(release).await {
                Ok(ReleaseOutcome::Released) => return self.tally.pair(),
                Ok(ReleaseOutcome::Deferred { .. }) => return,
                // Nobody puts it back: the ledger names it no more.
                Err(ReleaseError::NotHeld { last }) if is_forgotten(lease, last) => return,
                Err(ReleaseError::NotHeld { .. } | ReleaseError::NotHolder(_)) => return self.tally.lost(),
                Err(ReleaseError::Ambiguous { request, fault }) => {
                    self.tally.unanswered(&fault);
                    release = self.locks.release_lease(lease).request(request);
                }
                Err(error) => {
                    self.tally.error(&error);
                    release = self.locks.release_lease(lease);
                }
            }
            sleep(AGAIN).await;
        }
    }

    async fn timed<C: IntoFuture>(&self, call: C) -> C::Output {
        let start = Instant::now();
        let output = call.await;
        self.tally.call(start.elapsed());
        output
    }
}

/// Whether Redis, which names this fence as the last, has lost what it knew of a lease: otherwise the lease has ended.
fn is_forgotten(lease: &Lease, last: Option<Fence>) -> bool {
    last.is_none_or(|last| last < lease.fence)
}

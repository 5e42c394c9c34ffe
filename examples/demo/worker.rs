//! [`Crew`]: workers who take, extend and release spools until they are told to stop.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use spool_lock::{
    AcquireError, ExtendError, Fence, Holder, InvalidText, Lease, ReleaseError, SpoolLocks, Tag, Ttl,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    WORK, WORKERS,
    outage::Outage,
    tally::{Deeds, Tally},
};

/// Few enough for workers to meet: each holds one spool most of the time.
const TAGS: usize = 200;
/// How long the workers may take in the end to give back what they hold: they can when Redis answers.
const LAST_ORDERS: Duration = Duration::from_secs(15);

/// All workers of the demo.
pub(crate) struct Crew {
    workers: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    locks: SpoolLocks,
    tags: Vec<Tag>,
    tally: Tally,
    outage: Arc<Outage>,
    is_over: AtomicBool,
}

/// A lease that its worker could not give back, because no answer came.
struct Unsettled {
    lease: Lease,
    /// Whether the release may have been applied all the same.
    is_perhaps_released: bool,
}

impl Crew {
    pub(crate) fn start(locks: &SpoolLocks, outage: &Arc<Outage>) -> Result<Self, InvalidText> {
        let tags =
            (1..=TAGS).map(|number| Tag::new(format!("TEST-{number:03}"))).collect::<Result<_, _>>()?;
        let (locks, outage) = (locks.clone(), outage.clone());
        let shared = Shared { locks, tags, tally: Tally::default(), outage, is_over: false.into() };
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

    /// Waits until every worker has given back what it holds, and returns what was done since the last look.
    pub(crate) async fn finish(mut self) -> Result<Deeds, Box<dyn Error>> {
        self.shared.is_over.store(true, Relaxed);
        let all = async {
            while let Some(worker) = self.workers.join_next().await {
                worker?;
            }
            Ok(self.look())
        };
        timeout(LAST_ORDERS, all).await.map_err(|_| "the workers cannot give back what they hold")?
    }
}

/// One spool after the other; one that could not be given back is asked for again until it is known how it stands.
async fn work(shared: Arc<Shared>, holder: Holder, mut dice: Dice) {
    let mut unsettled: Option<Unsettled> = None;
    while !shared.is_over.load(Relaxed) || unsettled.is_some() {
        let tag = match &unsettled {
            Some(Unsettled { lease, .. }) => lease.tag.clone(),
            None => shared.tags[dice.roll(TAGS)].clone(),
        };
        unsettled = match shared.take(&tag, &holder, unsettled).await {
            Ok(lease) => shared.work_on(lease).await,
            Err(unsettled) => {
                sleep(WORK).await;
                unsettled
            }
        };
    }
}

impl Shared {
    /// Takes a spool if it is free. `known` is the lease on it that could not be given back before; it is returned while nothing
    /// more is known of it.
    async fn take(
        &self,
        tag: &Tag,
        holder: &Holder,
        known: Option<Unsettled>,
    ) -> Result<Lease, Option<Unsettled>> {
        match self.timed(self.locks.acquire(tag, holder).ttl(Ttl::HALF_MINUTE).note("ARM")).await {
            Ok(lease) => {
                self.outage.answered();
                self.compare(known, None);
                Ok(lease)
            }
            Err(AcquireError::AlreadyHeld(lease)) => {
                self.outage.answered();
                self.compare(known, Some(lease.fence));
                Ok(*lease)
            }
            Err(AcquireError::Contended { .. }) => {
                self.tally.contended();
                self.compare(known, None);
                Err(None)
            }
            Err(AcquireError::Unavailable { .. }) => {
                self.outage.refused();
                self.tally.refused();
                Err(known)
            }
            Err(error @ (AcquireError::Ambiguous { .. } | AcquireError::Fault(_))) => {
                // Should it have been granted, that is released in the background.
                self.tally.unanswered(&error);
                Err(known)
            }
            Err(error) => {
                self.tally.error(&error);
                Err(known)
            }
        }
    }

    /// Redis answers again: what it says of a lease is compared with what its worker knows.
    fn compare(&self, known: Option<Unsettled>, found: Option<Fence>) {
        match known {
            Some(known) if found == Some(known.lease.fence) => self.tally.stood(),
            Some(known) if !known.is_perhaps_released => self.tally.lost(),
            _ => {}
        }
    }

    /// Works on a spool, extends, works on, releases. Returns what could not be given back.
    async fn work_on(&self, lease: Lease) -> Option<Unsettled> {
        sleep(WORK).await;
        let extend = self.locks.extend(&lease.tag, &lease.holder, Ttl::HOUR).fence(lease.fence);
        let extended = self.timed(extend).await;
        match &extended {
            Ok(_) => {}
            Err(ExtendError::NotHeld { .. } | ExtendError::NotHolder(_)) => {
                self.tally.lost();
                return None;
            }
            Err(error @ ExtendError::Fault(_)) => self.tally.unanswered(error),
            Err(error) => self.tally.error(error),
        }
        sleep(WORK).await;
        let error = match self.timed(self.locks.release_lease(&lease)).await {
            Ok(()) if extended.is_ok() => {
                self.tally.pair();
                return None;
            }
            Ok(()) => return None,
            Err(ReleaseError::NotHeld { .. } | ReleaseError::NotHolder(_)) => {
                self.tally.lost();
                return None;
            }
            Err(error) => error,
        };
        match error {
            ReleaseError::Ambiguous { .. } | ReleaseError::Fault(_) => self.tally.unanswered(&error),
            _ => self.tally.error(&error),
        }
        Some(Unsettled { lease, is_perhaps_released: matches!(error, ReleaseError::Ambiguous { .. }) })
    }

    async fn timed<C: IntoFuture>(&self, call: C) -> C::Output {
        let start = Instant::now();
        let output = call.await;
        self.tally.call(start.elapsed());
        output
    }
}

/// Chance that is the same in every run: xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
struct Dice(u64);

impl Dice {
    fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// A number below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper half: the low bits of this generator are its weak ones. It fits a usize of 32 bits.
        (self.0 >> 32) as usize % sides
    }
}

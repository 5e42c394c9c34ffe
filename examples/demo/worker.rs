//! [`Crew`]: workers who take, extend and release spools until they are told to stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use spool_lock::{AcquireError, Holder, SpoolLocks, Tag, Ttl};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    WORK, WORKERS,
    tally::{Deeds, Tally},
};

/// Few enough for workers to meet: each holds one spool most of the time.
const TAGS: usize = 200;

/// All workers of the demo.
pub(crate) struct Crew {
    workers: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    locks: SpoolLocks,
    tags: Vec<Tag>,
    tally: Tally,
    is_over: AtomicBool,
}

impl Crew {
    pub(crate) fn start(locks: &SpoolLocks) -> Result<Self, spool_lock::InvalidText> {
        let tags =
            (1..=TAGS).map(|number| Tag::new(format!("TEST-{number:03}"))).collect::<Result<_, _>>()?;
        let shared = Shared { locks: locks.clone(), tags, tally: Tally::default(), is_over: false.into() };
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
    pub(crate) async fn finish(mut self) -> Result<Deeds, tokio::task::JoinError> {
        self.shared.is_over.store(true, Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker?;
        }
        Ok(self.look())
    }
}

async fn work(shared: Arc<Shared>, holder: Holder, mut dice: Dice) {
    while !shared.is_over.load(Relaxed) {
        let tag = &shared.tags[dice.roll(TAGS)];
        shared.occupy(tag, &holder).await;
    }
}

impl Shared {
    /// Takes a spool if it is free, works on it, extends, works on, releases.
    async fn occupy(&self, tag: &Tag, holder: &Holder) {
        let Self { locks, tally, .. } = self;
        let taken = self.timed(locks.acquire(tag, holder).ttl(Ttl::HALF_MINUTE).note("ARM")).await;
        let lease = match taken {
            Ok(lease) => lease,
            // Left from a release that failed, which was counted.
            Err(AcquireError::AlreadyHeld(lease)) => *lease,
            Err(error) => {
                match error {
                    AcquireError::Contended { .. } => tally.contended(),
                    error => tally.error(&error),
                }
                return sleep(WORK).await;
            }
        };
        sleep(WORK).await;
        let extended = self.timed(locks.extend(tag, holder, Ttl::HOUR).fence(lease.fence)).await;
        sleep(WORK).await;
        let released = self.timed(locks.release_lease(&lease)).await;
        match (extended, released) {
            (Ok(_), Ok(())) => tally.pair(),
            (Err(error), _) => tally.error(&error),
            (_, Err(error)) => tally.error(&error),
        }
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

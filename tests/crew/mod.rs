//! Waiters who take turns at a lock, in this process or in one of their own, and what came of it.
//!
//! Tests and benches share it. Nothing is asked of the crate about fairness or exclusion: each waiter writes down when it
//! asked, entered and left by the clock of the machine, and [`Turns`] looks at that.

// Each binary includes the whole module and uses a part of it.
#![allow(dead_code, unused_imports)]
// `pub` here means "for the test or bench that includes this module"; there is no crate to reach it from.
#![allow(unreachable_pub)]

mod child;
mod turns;

use std::time::Duration;

use spool_lock::{Holder, Lease, SpoolLocks, Tag};
use tokio::task::JoinSet;

pub use self::{
    child::{Child, Crew, collect, start},
    turns::{Turn, Turns, machine_clock, percentile},
};

/// Whatever went wrong.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Longer than anybody has to wait where all goes well.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who waits for a lock that others want too.
pub trait Waiter: Send + 'static {
    type Lock: Send;

    /// Waits for the lock, and gets it.
    fn take(&mut self) -> impl Future<Output = Result<Self::Lock, Failure>> + Send;

    /// Where locks have one.
    fn fence(lock: &Self::Lock) -> Option<u64>;

    fn give_back(&mut self, lock: Self::Lock) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A worker who shares a tag with others and locks it by the public API.
#[derive(Debug, Clone)]
pub struct Worker {
    pub locks: SpoolLocks,
    pub tag: Tag,
    pub holder: Holder,
}

impl Worker {
    pub fn new(locks: &SpoolLocks, tag: &str, number: usize) -> Self {
        let text = "a tag, an id and a name without control characters";
        Self {
            locks: locks.clone(),
            tag: Tag::new(tag).expect(text),
            holder: Holder::new(number.to_string(), format!("MR({number})")).expect(text),
        }
    }
}

impl Waiter for Worker {
    type Lock = Lease;

    async fn take(&mut self) -> Result<Lease, Failure> {
        Ok(self.locks.acquire(&self.tag, &self.holder).note("ARM").wait(PATIENCE).await?)
    }

    fn fence(lease: &Lease) -> Option<u64> {
        Some(lease.fence.get())
    }

    async fn give_back(&mut self, lease: Lease) -> Result<(), Failure> {
        self.locks.release_lease(&lease).await?;
        Ok(())
    }
}

/// Lets all take turns until `warm_up` and `length` have passed, each at least once, and holds the lock for `hold` each time.
pub async fn crowd<W: Waiter>(
    waiters: impl IntoIterator<Item = W>,
    hold: Duration,
    warm_up: Duration,
    length: Duration,
) -> Result<Turns, Failure> {
    let from = machine_clock() + warm_up;
    let until = from + length;
    let mut crowd: JoinSet<_> = waiters.into_iter().map(|waiter| take_turns(waiter, hold, until)).collect();
    let mut groups = Vec::with_capacity(crowd.len());
    while let Some(turns) = crowd.join_next().await {
        groups.push(turns??);
    }
    Ok(Turns { groups, from, until })
}

async fn take_turns<W: Waiter>(mut waiter: W, hold: Duration, until: Duration) -> Result<Vec<Turn>, Failure> {
    let mut turns = Vec::new();
    loop {
        let asked = machine_clock();
        let lock = waiter.take().await?;
        let (fence, entered) = (W::fence(&lock), machine_clock());
        if !hold.is_zero() {
            tokio::time::sleep(hold).await;
        }
        let left = machine_clock();
        waiter.give_back(lock).await?;
        turns.push(Turn { fence, asked, entered, left });
        if left >= until {
            return Ok(turns);
        }
    }
}

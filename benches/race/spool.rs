//! spool-lock as its users have it: fence, holder, note, metrics, pool and timeouts, all by the public API.

use spool_lock::{Config, Holder, Lease, LockGuard, SpoolLocks, Tag, Ttl};

use super::{Contender, Failure, tag};

/// spool-lock with its default config, but for what a bench sweeps.
pub struct Spool {
    pub locks: SpoolLocks,
}

impl Spool {
    pub async fn connect(url: &str) -> Result<Self, Failure> {
        Ok(Self { locks: SpoolLocks::connect(Config::new(url)?).await? })
    }

    pub async fn with_depth(url: &str, depth: u32) -> Result<Self, Failure> {
        let mut config = Config::new(url)?;
        config.pool.depth = depth;
        Ok(Self { locks: SpoolLocks::connect(config).await? })
    }
}

/// A worker at its spool.
pub struct Worker {
    tag: Tag,
    holder: Holder,
}

impl Worker {
    pub fn of(number: usize) -> Self {
        let text = "a tag, an id and a name without control characters";
        Self { tag: Tag::new(tag(number)).expect(text), holder: Holder::new("93", "MR(93)").expect(text) }
    }

    pub async fn acquire(&self, locks: &SpoolLocks) -> Result<Lease, Failure> {
        Ok(locks.acquire(&self.tag, &self.holder).note("ARM").await?)
    }

    pub async fn guard(&self, locks: &SpoolLocks, ttl: Ttl) -> Result<LockGuard, Failure> {
        Ok(locks.guard(&self.tag, &self.holder).ttl(ttl).note("ARM").await?)
    }
}

impl Contender for Spool {
    type Task = Worker;

    fn task(&self, number: usize) -> Worker {
        Worker::of(number)
    }

    async fn pair(&self, worker: &mut Worker) -> Result<(), Failure> {
        let lease = worker.acquire(&self.locks).await?;
        self.locks.release_lease(&lease).await?;
        Ok(())
    }
}

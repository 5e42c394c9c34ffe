//! rslock as it comes: the crate that most would take instead.

use std::time::Duration;

use rslock::{Lock, LockManager};

use super::{Contender, Failure, lock_key, tag};

const TTL: Duration = Duration::from_secs(3600);

/// One lock manager for all tasks. `SET NX PX` and a script that compares and deletes; no fence, no note.
pub struct Rslock {
    manager: LockManager,
}

impl Rslock {
    pub fn new(url: &str) -> Self {
        Self { manager: LockManager::new(vec![url]) }
    }

    pub async fn lock(&self, key: &str) -> Result<Lock, Failure> {
        Ok(self.manager.lock(key, TTL).await?)
    }

    /// Asks again and again, with rslock's own pauses: up to 200 ms, by chance.
    pub async fn wait(&self, key: &str) -> Result<Lock, Failure> {
        Ok(self.manager.acquire_no_guard(key, TTL).await?)
    }

    pub async fn unlock(&self, lock: &Lock) {
        self.manager.unlock(lock).await;
    }
}

impl Contender for Rslock {
    type Task = String;

    fn task(&self, number: usize) -> String {
        lock_key(&tag(number))
    }

    // An unlock that failed does not say so: the next lock of the task fails, or the key is left behind.
    async fn pair(&self, key: &mut String) -> Result<(), Failure> {
        let lock = self.lock(key).await?;
        self.unlock(&lock).await;
        Ok(())
    }
}

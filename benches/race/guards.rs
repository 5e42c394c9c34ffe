//! spool-lock's guards: the same locks, tied to a value that renews them.

use spool_lock::Ttl;

use super::{
    Contender, Failure,
    spool::{Spool, Worker},
};

/// A pair is a guard and its release.
pub struct Guards(pub Spool);

impl Contender for Guards {
    type Task = Worker;

    fn task(&self, number: usize) -> Worker {
        Worker::of(number)
    }

    async fn pair(&self, worker: &mut Worker) -> Result<(), Failure> {
        Ok(worker.guard(&self.0.locks, Ttl::HALF_MINUTE).await?.release().await?)
    }
}

use std::time::Duration;

use tokio::time::Instant;

use super::{acquire, sweep};
use crate::{
    AcquireAllError, Lease, RequestId, Tag, abandoned::Abandoned, inner::Inner, stats::Swept, store::Ask,
};

/// Acquires one after the other, in the order of their tags, in which everybody does: so no two wait for each other. Where one
/// refuses, those before are given back.
pub(crate) async fn acquire_all(
    inner: &Inner,
    mut asks: Vec<Ask>,
    wait: Duration,
    deadline: Option<Duration>,
) -> Result<Vec<Lease>, AcquireAllError> {
    asks.sort_by(|one, other| one.tag.cmp(&other.tag));
    asks.dedup_by(|one, other| one.tag == other.tag);
    let started = Instant::now();
    let mut acquired = Acquired { inner, leases: Vec::with_capacity(asks.len()) };
    for ask in asks {
        let tag = ask.tag.clone();
        let left = wait.saturating_sub(started.elapsed());
        match acquire(inner, ask, false, left, deadline).await {
            Ok(grant) => acquired.leases.push(grant.lease),
            Err(why) => {
                let lost = acquired.give_back().await;
                return Err(AcquireAllError { tag, why: Box::new(why), lost });
            }
        }
    }
    Ok(std::mem::take(&mut acquired.leases))
}

/// Those that are acquired so far. Dropped, they are released in the background.
struct Acquired<'a> {
    inner: &'a Inner,
    leases: Vec<Lease>,
}

impl Acquired<'_> {
    /// Releases what was acquired last first, and says which had ended by then. What Redis cannot be asked now is released in the
    /// background.
    async fn give_back(mut self) -> Vec<Tag> {
        let mut lost = Vec::new();
        while let Some(lease) = self.leases.last() {
            match sweep(self.inner, lease, RequestId::random()).await {
                Ok(Swept::Released) => {}
                Ok(_) => lost.push(lease.tag.clone()),
                // The rest goes the same way.
                Err(_) => break,
            }
            self.leases.pop();
        }
        lost
    }
}

impl Drop for Acquired<'_> {
    fn drop(&mut self) {
        for lease in self.leases.drain(..) {
            self.inner.abandon(Abandoned::Granted(lease));
        }
    }
}

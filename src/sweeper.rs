//! [`Sweeper`]: releases what was granted to somebody who has gone away.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep},
};

use crate::{
    Lease, ReleaseError, RequestId, attempt,
    inner::Inner,
    store::{Ask, Whose},
};

/// How long it takes until what was left behind is looked for again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How many calls sweep side by side. A service whose callers have all gone away has other things to do.
const SIDE_BY_SIDE: usize = 16;

#[derive(Clone)]
pub(crate) struct Sweeper {
    inner: Weak<Inner>,
    permits: Arc<Semaphore>,
}

impl Sweeper {
    pub(crate) fn new(inner: Weak<Inner>) -> Self {
        Self { inner, permits: Arc::new(Semaphore::new(SIDE_BY_SIDE)) }
    }

    /// Releases what an acquire was granted, or is yet to be, whose caller went away before the answer was there.
    ///
    /// It may be on its way still, until its time is over: so it is looked for again, ever more seldom, and once more then.
    pub(crate) async fn clear_up(self, ask: Arc<Ask>, until: Instant) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let (asked, found) = {
                let Some((inner, _permit)) = self.permit().await else { return };
                (Instant::now(), attempt::find(&inner, &ask).await)
            };
            match found {
                Ok(Some(lease)) => return self.release_stray(lease).await,
                Ok(None) if asked >= until => return,
                // Whoever was granted it would have it for its ttl.
                Err(_) if asked >= until + ask.ttl.duration() => return,
                _ => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            sleep(if left.is_zero() { pause } else { pause.min(left) }).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Releases what was granted to somebody who has gone away, and so hands it on to the next.
    pub(crate) async fn release_stray(self, lease: Lease) {
        let request = RequestId::random();
        let whose =
            Whose { tag: &lease.tag, holder: &lease.holder, kind: lease.kind, fence: Some(lease.fence) };
        let ends = Instant::now() + lease.expires_at.duration_since(lease.since).unwrap_or_default();
        let mut pause = SHORTEST_PAUSE;
        while Instant::now() < ends {
            let released = {
                let Some((inner, _permit)) = self.permit().await else { return };
                attempt::release(&inner, whose, request, None).await
            };
            if let Ok(()) | Err(ReleaseError::NotHeld { .. } | ReleaseError::NotHolder(_)) = released {
                return;
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Waits until the store may be asked; `None` where the process is gone.
    async fn permit(&self) -> Option<(Arc<Inner>, OwnedSemaphorePermit)> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        Some((self.inner.upgrade()?, permit))
    }
}

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Pending;
use crate::{
    AcquireAllError, AcquireError, GuardReleaseError, Holder, LeaseKind, LockGuard, Tag, Token, Ttl, attempt,
    held::Terms, inner::Inner, lease::check_note, store::Ask,
};

/// No guard is renewed more often.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// The call that acquires a [`LockGuard`], or one for each of several tags; its options are yet to be given; `.await` it.
#[derive(Debug)]
#[must_use = "nothing is acquired until this is awaited"]
pub struct AcquireGuard<'a, What = &'a Tag> {
    inner: &'a Arc<Inner>,
    what: What,
    holder: &'a Holder,
    ttl: Ttl,
    note: &'a str,
    wait: Duration,
    deadline: Option<Duration>,
    max_hold: Duration,
    renew_every: Duration,
    margin: Duration,
}

impl<'a, What> AcquireGuard<'a, What> {
    pub(crate) fn new(inner: &'a Arc<Inner>, what: What, holder: &'a Holder) -> Self {
        let (guard, wait) = (&inner.config.guard, inner.config.wait.wait);
        Self {
            inner,
            what,
            holder,
            ttl: guard.ttl,
            note: "",
            wait,
            deadline: None,
            max_hold: guard.max_hold,
            // At most: `take` lowers them to what the ttl allows.
            renew_every: Duration::MAX,
            margin: Duration::MAX,
        }
    }

    /// How long the lock lasts after its last renewal: how long Redis may be away without a loss, and how long others wait after a
    /// crash. Default: that of the config, 30 s; up to 30 days. Take much more than a reply of Redis or a pause of this process takes:
    /// seconds, not milliseconds. One of a few milliseconds is lost before it can be renewed.
    pub fn ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = ttl;
        self
    }

    /// What stands beside the lock for others to read, such as the operation: up to 200 bytes without control characters.
    pub fn note(mut self, note: &'a str) -> Self {
        self.note = note;
        self
    }

    /// How long to wait while somebody else has it, as [`Acquire::wait`](crate::Acquire::wait) has it; for several tags, for all of
    /// them together. Default: that of the config, 0; up to 1 day.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long the call may take beside its [`wait`](Self::wait), for each tag; up to 1 h. Default: that of the config, 5 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How long the lock is held at most: it is not renewed beyond this, so that a stuck task does not hold it for ever. Default:
    /// that of the config, 1 h; up to 30 days. One that is shorter than the ttl holds for the ttl.
    pub fn max_hold(mut self, max_hold: Duration) -> Self {
        self.max_hold = max_hold;
        self
    }

    /// How often it is renewed. Default, and at most: a third of the ttl, which leaves time for two more tries. At least 1 ms.
    pub fn renew_every(mut self, interval: Duration) -> Self {
        self.renew_every = interval;
        self
    }

    /// With how little left the lock counts as in [jeopardy](crate::GuardState::Jeopardy): the early warning before a loss. Default,
    /// and at most: half of the ttl. Zero: no warning.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Acquires one of them.
    async fn take(&self, tag: &Tag, wait: Duration) -> Result<LockGuard, AcquireError> {
        check_note(self.note)?;
        let ask = Ask {
            tag: tag.clone(),
            holder: self.holder.clone(),
            kind: LeaseKind::Guard,
            token: Token::random(),
            ttl: self.ttl,
            note: self.note.to_owned(),
        };
        let grant = attempt::acquire(self.inner, ask, false, wait, self.deadline).await?;
        let ttl = self.ttl.duration();
        let terms = Terms {
            ttl: self.ttl,
            margin: self.margin.min(ttl / 2),
            renew_every: self.renew_every.min(ttl / 3).max(SHORTEST_INTERVAL),
            ends: Instant::now() + self.max_hold.min(Ttl::MAX.duration()),
        };
        Ok(LockGuard::new(self.inner.clone(), grant, terms))
    }
}

impl<'a> IntoFuture for AcquireGuard<'a> {
    type Output = Result<LockGuard, AcquireError>;
    type IntoFuture = Pending<'a, LockGuard, AcquireError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.take(self.what, self.wait).await })
    }
}

impl<'a> IntoFuture for AcquireGuard<'a, &'a [Tag]> {
    type Output = Result<Vec<LockGuard>, AcquireAllError>;
    type IntoFuture = Pending<'a, Vec<LockGuard>, AcquireAllError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let started = Instant::now();
            // In the order in which everybody takes them.
            let mut tags: Vec<_> = self.what.iter().collect();
            tags.sort();
            tags.dedup();
            let mut guards = Vec::with_capacity(tags.len());
            for tag in tags {
                // Not in the corridor, which knows no guards: those before are renewed meanwhile.
                match self.take(tag, self.wait.saturating_sub(started.elapsed())).await {
                    Ok(guard) => guards.push(guard),
                    Err(why) => {
                        let (tag, why) = (tag.clone(), Box::new(why));
                        return Err(AcquireAllError { tag, why, lost: give_back(guards).await });
                    }
                }
            }
            Ok(guards)
        })
    }
}

/// Releases what was acquired last first, and says which had been lost by then. What Redis cannot be asked now is released in the
/// background.
async fn give_back(mut guards: Vec<LockGuard>) -> Vec<Tag> {
    let mut lost = Vec::new();
    while let Some(guard) = guards.pop() {
        match guard.release().await {
            Ok(()) => {}
            Err(GuardReleaseError::Lost(loss)) => lost.push(loss.tag),
            Err(GuardReleaseError::Unconfirmed(_)) => break,
        }
    }
    lost
}

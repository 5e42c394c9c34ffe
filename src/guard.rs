//! [`LockGuard`]: a lock that is tied to a value.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Fence, GuardReleaseError, GuardState, GuardWatch, Holder, Lease, LockLost, LostReason, RequestId, Tag,
    Token,
    abandoned::Abandoned,
    attempt,
    grant::Grant,
    held::{Held, Over, Terms},
    inner::Inner,
    renewal,
    store::Whose,
};

/// A lock that is held for as long as this value lives: it renews itself, tells when it is lost, and is released when it is
/// dropped.
///
/// # What it says, it knows
/// [`safe_for`](Self::safe_for) and [`state`](Self::state) are told from the holder's own clock: the lock was confirmed for its
/// ttl by the last call that Redis answered, counted from before that call was sent, less 0.05 % and 2 ms for clocks that do not
/// go alike. They need no network, and a process that was stopped finds out at its first look. A suspended machine may stop that clock
/// too, and a clock of Redis that is set forward ends leases early: there only the [`fence`](Self::fence) helps, if what is written
/// to checks it (a [`fence::Register`](crate::fence::Register)).
///
/// # Losing it
/// The lock is lost at the moment up to which it was safe: it could not be renewed in time, or its `max_hold` is over. Or before,
/// when a renewal finds that it has ended (deleted, written over, released by force, taken by somebody else). Where the process
/// [watches](crate::SpoolLocks::watch_tag) the tag, it hears of most such ends at once. Lost is lost: it never comes back.
/// [`protect`](Self::protect) stops the work; [`cancellation`](Self::cancellation), [`lost`](Self::lost) and
/// [`watch`](Self::watch) tell other tasks.
///
/// # Giving it back
/// [`release`](Self::release) waits for Redis to confirm it. Dropped instead, the lock is released in the background: that never
/// blocks and never panics, wherever it happens, and is a best effort. So release guards before `main` returns: a runtime that ends
/// releases nothing, and the lock lasts its ttl (30 s by default). So it does where Redis cannot be asked for that long, and what is
/// dropped while 10,000 others wait to be released. A guard that is leaked (`mem::forget`) is renewed until its `max_hold` is over.
///
/// It is renewed and released on the runtime that called `connect`, also when the last [`SpoolLocks`](crate::SpoolLocks) is gone;
/// only news of the tag is not heard any more then.
///
/// # Examples
/// ```
/// use spool_lock::{Config, Holder, SpoolLocks, Tag};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let locks = SpoolLocks::connect(Config::new("memory://")?).await?;
/// let (tag, robot) = (Tag::new("TEST-02")?, Holder::new("robot-7", "")?);
///
/// let guard = locks.guard(&tag, &robot).await?;
/// let welded = guard.protect(async { /* stopped should the lock be lost */ 12 }).await?;
/// assert_eq!(welded, 12);
/// guard.release().await?;
/// assert_eq!(locks.inspect(&tag).await?.value, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// It cannot be used after its release,
/// ```compile_fail,E0382
/// # async fn f(guard: spool_lock::LockGuard) {
/// guard.release().await.ok();
/// guard.fence();
/// # }
/// ```
/// nor is there a second one of it:
/// ```compile_fail,E0599
/// # fn f(guard: &spool_lock::LockGuard) -> spool_lock::LockGuard {
/// guard.clone()
/// # }
/// ```
#[must_use = "dropped, it releases the lock"]
pub struct LockGuard {
    inner: Arc<Inner>,
    held: Arc<Held>,
}

/// In each interval there are so many moments at which guards are renewed: those of one moment share the wake-ups that a renewal
/// mostly costs (docs/benchmarks.md).
const MOMENTS: u32 = 50;

impl LockGuard {
    /// Keeps what was just granted.
    pub(crate) fn new(inner: Arc<Inner>, grant: Grant, terms: Terms) -> Self {
        let now = Instant::now();
        // A rhythm of its own, begun at a random one of the common moments: guards that were taken together are renewed apart.
        let random = now + terms.renew_every.mul_f64(grant.lease.token.map_or(1.0, Token::fraction));
        let first = inner.roster.common(random, terms.renew_every / MOMENTS);
        let held = Arc::new(Held::new(grant, terms, first));
        inner.known.guarded(&held);
        // Sooner where the grant took its time: there is to be time for a second try.
        let left = held.state(now).safe_for();
        inner.roster.set(&held, first.min(now + left / 3));
        Self { inner, held }
    }

    /// The lease, as it was granted: its `expires_at` is that of the grant.
    pub fn lease(&self) -> &Lease {
        self.held.lease()
    }

    /// What is locked.
    pub fn tag(&self) -> &Tag {
        &self.lease().tag
    }

    /// Who holds it.
    pub fn holder(&self) -> &Holder {
        &self.lease().holder
    }

    /// Orders this grant among all of its tag; the same for as long as the guard lives.
    pub fn fence(&self) -> Fence {
        self.lease().fence
    }

    /// How the lock stands. Asks nobody.
    pub fn state(&self) -> GuardState {
        self.held.state(Instant::now())
    }

    /// How long the lock is held at least, whatever happens to Redis or the network; zero where it is lost. Asks nobody.
    pub fn safe_for(&self) -> Duration {
        self.state().safe_for()
    }

    /// Hears how the lock stands, for other tasks too.
    pub fn watch(&self) -> GuardWatch {
        GuardWatch::new(self.held.clone())
    }

    /// Fires when the lock is no longer held: lost, released, or dropped with its guard. Each call makes a token of its own, and
    /// who cancels it stops nothing else. A task of the runtime fires it; where that is starved, [`state`](Self::state) knows first.
    pub fn cancellation(&self) -> CancellationToken {
        self.held.cancellation(Instant::now()).child_token()
    }

    /// Waits until the lock is lost; for ever, should it not be. Asks nobody.
    ///
    /// # Cancel safety
    /// Changes nothing.
    pub async fn lost(&self) -> LockLost {
        let mut state = self.state();
        loop {
            if let GuardState::Lost { reason } = state {
                return self.is_lost(reason);
            }
            state = self.held.changed(state).await;
        }
    }

    /// Runs `work` for as long as the lock is held. Work that does not await cannot be stopped: what matters then is whether what it
    /// writes to checks the [`fence`](Self::fence).
    ///
    /// # Errors
    /// [`LockLost`] — the lock was lost first; `work` was dropped at the await where it was.
    ///
    /// # Cancel safety
    /// If dropped, so is `work`; the lock stays.
    pub async fn protect<T>(&self, work: impl Future<Output = T>) -> Result<T, LockLost> {
        tokio::select! {
            biased;
            lost = self.lost() => Err(lost),
            done = work => Ok(done),
        }
    }

    /// Releases the lock, and hands it on to whoever waits for it.
    ///
    /// It is not renewed any more from the moment of this call. Takes the config's deadline at most.
    ///
    /// # Errors
    /// [`GuardReleaseError`]: `Lost` — it was not held any more. `Unconfirmed` — Redis has not answered; it goes on in the
    /// background.
    ///
    /// # Cancel safety
    /// If dropped, it is released in the background.
    pub async fn release(self) -> Result<(), GuardReleaseError> {
        let unreleased = match self.give_back() {
            Ok(unreleased) => unreleased,
            Err(Over::Lost(reason)) => return Err(self.is_lost(reason).into()),
            // Not here: it is given back once, and the drop that follows finds it so.
            Err(Over::GivenBack) => return Ok(()),
        };
        let outcome = attempt::release_guard(&self.inner, self.lease(), unreleased.request, None).await;
        if !matches!(outcome, Err(GuardReleaseError::Unconfirmed(_))) {
            unreleased.settle();
        }
        outcome
    }

    /// From now on it is not renewed, and has to be released.
    fn give_back(&self) -> Result<Unreleased<'_>, Over> {
        let Self { inner, held } = self;
        if let Err(over) = held.give_back(Instant::now) {
            // Where the keeper has yet to notice it, and may not live to do so.
            if over == Over::Lost(LostReason::Deadline) {
                renewal::time_is_over(inner, held);
            }
            return Err(over);
        }
        inner.roster.cancel(held);
        // Here too: the guard may be gone before the sweeper asks, and news of the end are no loss.
        inner.known.giving_back(&Whose::of(held.lease()));
        Ok(Unreleased { inner, lease: Some(held.lease()), request: RequestId::random() })
    }

    fn is_lost(&self, reason: LostReason) -> LockLost {
        LockLost { tag: self.tag().clone(), fence: self.fence(), reason }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        drop(self.give_back());
    }
}

/// A lock that was given back and may not be released yet. Dropped, it is released in the background.
struct Unreleased<'a> {
    inner: &'a Arc<Inner>,
    lease: Option<&'a Lease>,
    request: RequestId,
}

impl Unreleased<'_> {
    fn settle(mut self) {
        self.lease = None;
    }
}

impl Drop for Unreleased<'_> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease {
            let (lease, request) = (lease.clone(), self.request);
            self.inner.abandon_last(Abandoned::GivenBack { lease, request });
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").field("lease", self.lease()).field("state", &self.state()).finish()
    }
}

//! [`Held`]: what a guard and its keeper share: a lease, and until when it is safe.
//!
//! The state is a function of the clock and of one moment, `safe_until`: the instant before the last confirmed call was sent,
//! plus the ttl, less the drift. A renewal moves that moment; news can only end it early. So nobody needs the network, a timer or
//! the keeper to say how the lock stands, and a process that was stopped for longer than the ttl says "lost" at its first look.
//!
//! Lost is lost: whoever was told so is never told otherwise, also where a renewal that was under way turns out to have been
//! applied. So what changes the state reads the clock while nobody else can: a task that was stopped between the two would bring
//! back what others have seen to be over.

mod state;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

use std::{
    fmt,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

pub use self::{state::GuardState, watch::GuardWatch};
use crate::{Lease, LostReason, Ttl, grant::Grant};

/// How much a lease is counted shorter than it is, since two clocks never go quite alike: 500 ppm, the most that NTP corrects in
/// a clock (`MAXFREQ` of RFC 5905, appendix A), and 2 ms because Redis counts in whole ones.
fn drift(lasts: Duration) -> Duration {
    lasts / 2000 + Duration::from_millis(2)
}

/// What was agreed when the guard was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) ttl: Ttl,
    /// With less than this left it is in jeopardy.
    pub(crate) margin: Duration,
    /// How often it is renewed.
    pub(crate) renew_every: Duration,
    /// It is not renewed beyond this.
    pub(crate) ends: Instant,
}

pub(crate) struct Held {
    lease: Lease,
    terms: Terms,
    /// The first renewal; the others come in the same rhythm, also after one was late.
    first: Instant,
    standing: Mutex<Standing>,
    changed: Notify,
    cancellation: OnceLock<CancellationToken>,
}

#[derive(Debug, Clone, Copy)]
enum Standing {
    Safe { until: Instant },
    Over(Over),
}

/// A lease that this process was granted is not held by it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    GivenBack,
    Lost(LostReason),
}

impl Held {
    /// A lease that was granted, and is renewed for the first time at `first`.
    pub(crate) fn new(grant: Grant, terms: Terms, first: Instant) -> Self {
        let Grant { lease, until } = grant;
        let until = until - drift(terms.ttl.duration());
        Self {
            lease,
            terms,
            first,
            standing: Mutex::new(Standing::Safe { until }),
            changed: Notify::new(),
            cancellation: OnceLock::new(),
        }
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Until when it is safe.
    pub(crate) fn safe_until(&self, now: Instant) -> Result<Instant, Over> {
        self.standing().at(now)
    }

    /// When the call was sent that last showed that it stands, or earlier where that was for less than the ttl; none where it is over.
    pub(crate) fn confirmed(&self) -> Option<Instant> {
        match *self.standing() {
            Standing::Safe { until } => Some(until.checked_sub(self.terms.ttl.duration()).unwrap_or(until)),
            Standing::Over(_) => None,
        }
    }

    pub(crate) fn is_given_back(&self) -> bool {
        matches!(*self.standing(), Standing::Over(Over::GivenBack))
    }

    pub(crate) fn state(&self, now: Instant) -> GuardState {
        match self.safe_until(now) {
            Ok(until) => {
                let safe_for = until - now;
                if safe_for > self.terms.margin {
                    GuardState::Held { safe_for }
                } else {
                    GuardState::Jeopardy { safe_for }
                }
            }
            Err(Over::Lost(reason)) => GuardState::Lost { reason },
            Err(Over::GivenBack) => GuardState::Released,
        }
    }

    /// The ttl that a renewal asks for now; none where it would not make the lock safe for longer.
    pub(crate) fn next_ttl(&self, now: Instant) -> Option<Ttl> {
        let until = self.safe_until(now).ok()?;
        let ttl = Ttl::at_most(self.longest_hold(now))?;
        (now + ttl.duration() > until + drift(ttl.duration())).then_some(ttl)
    }

    /// How long it is to last where it is put back: as after a renewal, but no shorter than it is counted on, which is for its ttl
    /// also where its longest hold is shorter.
    pub(crate) fn rest(&self, now: Instant) -> Option<Ttl> {
        let ttl = self.terms.ttl.duration();
        // What is rounded down is counted on as well.
        let counted_on = self.safe_until(now).ok()? - now + drift(ttl) + Duration::from_millis(1);
        Ttl::at_most(counted_on.max(self.longest_hold(now)).min(ttl))
    }

    /// How long a call may have it last: for its ttl, and no longer than it is held at most.
    fn longest_hold(&self, now: Instant) -> Duration {
        self.terms.ends.saturating_duration_since(now).min(self.terms.ttl.duration())
    }

    /// When it is renewed after an outage, of which all guards are to come one after the other: `part`, from 0 to 1, says how far at the
    /// back. One that is late waits for half of the time that it is safe for at most, any other as long as it is not in jeopardy; and
    /// none for longer than until it comes again.
    pub(crate) fn renewal_after_outage(&self, now: Instant, part: f64) -> Instant {
        let Terms { ttl, margin, renew_every, .. } = self.terms;
        let safe_for = self.state(now).safe_for();
        let after = |longest: Duration| now + longest.min(renew_every).mul_f64(part);
        if safe_for + renew_every < ttl.duration() {
            after(safe_for / 2)
        } else {
            after(safe_for.saturating_sub(margin)).max(self.next_renewal(now))
        }
    }

    /// Whether its renewal is late: less than seven twelfths of its ttl are left, where two thirds are when it is due.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.state(now).safe_for() < self.terms.ttl.duration() * 7 / 12
    }

    /// How long a renewal may take: a sixth of the ttl, so that there is time for two more, from 50 ms to 1 s.
    pub(crate) fn patience(&self) -> Duration {
        (self.terms.ttl.duration() / 6).clamp(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// When it is renewed next, in its rhythm.
    pub(crate) fn next_renewal(&self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.first).as_nanos();
        let past = if now < self.first { 0 } else { since / self.terms.renew_every.as_nanos().max(1) + 1 };
        self.first + self.terms.renew_every * u32::try_from(past).unwrap_or(u32::MAX)
    }

    /// A renewal that was asked for at `asked` was applied. Too late where the lock is no longer held: then nothing changes.
    pub(crate) fn renewed(&self, asked: Instant, ttl: Ttl, clock: impl FnOnce() -> Instant) {
        let mut standing = self.standing();
        let Ok(before) = standing.at(clock()) else { return };
        let until = before.max(asked + ttl.duration() - drift(ttl.duration()));
        *standing = Standing::Safe { until };
        drop(standing);
        // Whoever was told that it is in jeopardy.
        self.changed.notify_waiters();
    }

    /// It is lost, and whoever watches is told. Answers how, to the first who says so.
    pub(crate) fn lose(
        &self,
        reason: LostReason,
        clock: impl FnOnce() -> Instant,
    ) -> Result<LostReason, Over> {
        let mut standing = self.standing();
        let now = clock();
        let reason = match *standing {
            Standing::Safe { until } if now < until => reason,
            Standing::Safe { .. } => LostReason::Deadline,
            Standing::Over(over) => return Err(over),
        };
        *standing = Standing::Over(Over::Lost(reason));
        drop(standing);
        self.tell();
        Ok(reason)
    }

    /// From now on it is not renewed. Refused where it is not held any more.
    pub(crate) fn give_back(&self, clock: impl FnOnce() -> Instant) -> Result<(), Over> {
        let mut standing = self.standing();
        standing.at(clock())?;
        *standing = Standing::Over(Over::GivenBack);
        drop(standing);
        self.tell();
        Ok(())
    }

    /// Fires when it is not held any more.
    pub(crate) fn cancellation(&self, now: Instant) -> &CancellationToken {
        let cancellation = self.cancellation.get_or_init(CancellationToken::new);
        // After it was made: whoever ends the lock from here on sees it.
        if self.safe_until(now).is_err() {
            cancellation.cancel();
        }
        cancellation
    }

    /// Waits until it stands otherwise than `before`, and says how.
    ///
    /// Needs no keeper: what time alone changes is noticed here.
    pub(crate) async fn changed(&self, before: GuardState) -> GuardState {
        loop {
            // Made before the look: it hears what is told between the two.
            let news = self.changed.notified();
            let now = Instant::now();
            let state = self.state(now);
            if !state.is_like(before) {
                return state;
            }
            let in_time = match state {
                GuardState::Held { safe_for } => safe_for - self.terms.margin,
                GuardState::Jeopardy { safe_for } => safe_for,
                // There is no other to come.
                GuardState::Lost { .. } | GuardState::Released => return std::future::pending().await,
            };
            let _ = timeout_at(now + in_time, news).await;
        }
    }

    fn tell(&self) {
        self.changed.notify_waiters();
        if let Some(cancellation) = self.cancellation.get() {
            cancellation.cancel();
        }
    }

    /// Held for a few lines, and never while anybody is told.
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    fn at(&self, now: Instant) -> Result<Instant, Over> {
        match *self {
            Self::Safe { until } if now < until => Ok(until),
            Self::Safe { .. } => Err(Over::Lost(LostReason::Deadline)),
            Self::Over(over) => Err(over),
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lease, terms, standing, .. } = self;
        f.debug_struct("Held")
            .field("lease", lease)
            .field("terms", terms)
            .field("standing", standing)
            .finish_non_exhaustive()
    }
}

//! The keeper of the guards: renews them, and notices when one is lost.
//!
//! One task for all guards of a process. It sleeps until one of them is due, and sends the renewals that are due together. Each
//! guard has a rhythm of its own, begun at a random one of the moments that guards of its interval have in common: guards that were
//! taken together are not renewed together, also not after an outage.
//!
//! # Why not each at a moment of its own
//! What a renewal costs is mostly that everybody wakes up for it with cold caches: the keeper, the connection's driver and the
//! server, and both once more for the reply. Those of one moment share that (docs/benchmarks.md, "Guards").
//!
//! # How it fails
//! A renewal that fails is tried again until the guard is no longer safe. From then on the lock is lost, whatever the answer to a
//! renewal under way will say; should it stand nevertheless, it is released for the others. Where there is no place for all,
//! those that are nearest to their end come first. The end of a guard waits for no renewal.
//!
//! A fault is mostly everybody's: after one, a single renewal at a time finds out whether Redis can be asked again, after a
//! pause that grows. Thousands of guards that each try for themselves would be a storm. So what a renewal is given for its answer
//! depends on its ttl, and not on what is left to it: where those that are nearest to their end find out for all, an answer that
//! comes too late for them is in time for the others.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

use crate::{
    LostReason, Ttl, abandoned::Abandoned, agenda::Agenda, attempt, held::Held, inner::Inner,
    roster::ByPlace, store::Store as _, token::random_byte,
};

/// How many renewals are under way at once: what one lane carries, and four where that is not enough. Locks are for work, not
/// for being renewed.
const SIDE_BY_SIDE: usize = 16;
const SIDE_BY_SIDE_OVERDUE: usize = 64;

/// The pause after a fault, which doubles; and how soon a guard's own renewal is due again after it failed.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long a lane is kept after guards were last seen: those that come and go do not open and close connections.
const LINGER: Duration = Duration::from_secs(60);

/// Keeps the guards of a process until it is gone.
pub(crate) async fn keep(inner: Weak<Inner>) {
    let Some(bell) = inner.upgrade().map(|inner| inner.roster.bell()) else { return };
    let mut keeper = Keeper::default();
    loop {
        let next = {
            let Some(inner) = inner.upgrade() else { return };
            keeper.see_to_those_due(&inner)
        };
        tokio::select! {
            () = bell.notified() => {}
            () = until(next) => {}
            Some(is_answered) = keeper.renewals.next() => keeper.ended(is_answered, Instant::now()),
        }
    }
}

/// A renewal: whether Redis answered; none where it was not asked.
type Renewal = Pin<Box<dyn Future<Output = Option<bool>> + Send>>;

#[derive(Default)]
struct Keeper {
    /// Those under way. The keeper runs them itself: a task for each would be a wake-up more.
    renewals: FuturesUnordered<Renewal>,
    /// Those that are due, by when they are no longer safe.
    waiting: Agenda<Instant, ByPlace>,
    /// The pause after the last fault; none where Redis has answered since.
    pause: Option<Pause>,
    /// Whether Redis has answered just now, after a fault.
    is_back: bool,
    /// Until when a lane is kept where no guard is seen any more; none where none is kept.
    lane_until: Option<Instant>,
}

/// Redis did not answer.
#[derive(Debug, Clone, Copy)]
struct Pause {
    lasts: Duration,
    until: Instant,
}

impl Keeper {
    /// Does what there is to do now, and says when there is something else.
    fn see_to_those_due(&mut self, inner: &Arc<Inner>) -> Option<Instant> {
        // What has ended together is seen to together.
        while let Some(Some(is_answered)) = self.renewals.next().now_or_never() {
            self.ended(is_answered, Instant::now());
        }
        let now = Instant::now();
        while let Some(held) = inner.roster.take(now) {
            match held.safe_until(now) {
                // Until its renewal is over there is nothing to do but to lose it.
                Ok(safe_until) => {
                    inner.roster.set(&held, safe_until);
                    self.waiting.set(&ByPlace(held), safe_until);
                }
                Err(_) => time_is_over(inner, &held),
            }
        }
        if std::mem::take(&mut self.is_back) {
            self.spread(inner, now);
        }
        while self.renewals.len() < self.side_by_side(now)
            && let Some(ByPlace(held)) = self.waiting.pop()
        {
            // Whose `max_hold` is over has none, nor has one that was given back meanwhile.
            if let Some(ttl) = held.next_ttl(now) {
                self.renewals.push(Box::pin(renew(inner.clone(), held, ttl)));
            }
        }
        let next = inner.roster.next();
        self.keep_lane(inner, next.is_some(), now);
        let resumes = self.pause.map(|pause| pause.until);
        let resumes = resumes.filter(|until| now < *until && !self.waiting.is_empty());
        [next, resumes, self.lane_until].into_iter().flatten().min()
    }

    /// Redis is back: those who have waited for it are no burst on top of those who come in their rhythm. So all come one after the
    /// other, those that are nearest to their end first.
    fn spread(&mut self, inner: &Inner, now: Instant) {
        while self.waiting.pop().is_some() {}
        let mut all = inner.roster.all();
        all.sort_by_cached_key(|held| held.safe_until(now).ok());
        let count = all.len() as f64;
        for (place, held) in all.iter().enumerate() {
            // By chance as well: other processes do the same.
            let part = (place as f64 + f64::from(random_byte()) / 256.0) / count;
            inner.roster.set(held, held.renewal_after_outage(now, part));
        }
    }

    fn side_by_side(&self, now: Instant) -> usize {
        let is_overdue = |ByPlace(held): &ByPlace| held.is_overdue(now);
        match self.pause {
            Some(Pause { until, .. }) if now < until => 0,
            Some(_) => 1,
            None if self.waiting.first().is_some_and(is_overdue) => SIDE_BY_SIDE_OVERDUE,
            None => SIDE_BY_SIDE,
        }
    }

    /// A lane is kept while there are guards, and for a while after they were last seen.
    fn keep_lane(&mut self, inner: &Inner, has_guards: bool, now: Instant) {
        if has_guards {
            if self.lane_until.is_none() {
                inner.store.keep_lane(true);
            }
            self.lane_until = Some(now + LINGER);
        } else if self.lane_until.is_some_and(|until| until <= now) {
            inner.store.keep_lane(false);
            self.lane_until = None;
        }
    }

    /// A renewal has ended.
    fn ended(&mut self, is_answered: Option<bool>, now: Instant) {
        match (is_answered, self.pause) {
            (None, _) => {}
            (Some(true), before) => {
                self.is_back |= before.is_some();
                self.pause = None;
            }
            // Those that were under way together fail together: it is one fault.
            (Some(false), Some(Pause { until, .. })) if now < until => {}
            (Some(false), before) => {
                let grown = before.map_or(SHORTEST_PAUSE, |pause| 2 * pause.lasts).min(LONGEST_PAUSE);
                // No longer than whoever is nearest to their end can wait.
                let left = self.waiting.next().map_or(grown, |end| end.saturating_duration_since(now) / 4);
                let lasts = grown.min(left).max(SHORTEST_PAUSE);
                self.pause = Some(Pause { lasts, until: now + lasts });
            }
        }
    }
}

/// Renews a guard, and says whether Redis answered.
async fn renew(inner: Arc<Inner>, held: Arc<Held>, ttl: Ttl) -> Option<bool> {
    // Given back since? Then its release comes first.
    held.safe_until(Instant::now()).ok()?;
    let renewed = attempt::renew(&inner, &held, ttl, held.patience().min(inner.config.deadline)).await;
    let now = Instant::now();
    if let Ok(safe_until) = held.safe_until(now) {
        let due = match &renewed {
            Ok(()) => held.next_renewal(now),
            Err(fault) => {
                tracing::debug!(tag = held.lease().tag.as_str(), %fault, "a renewal failed");
                now + LONGEST_PAUSE.min((safe_until - now) / 4).max(SHORTEST_PAUSE)
            }
        };
        inner.roster.set(&held, due.min(safe_until));
    }
    Some(renewed.is_ok())
}

/// A guard's time is over: it is lost, if nobody has said so before, and what may still stand is released.
pub(crate) fn time_is_over(inner: &Arc<Inner>, held: &Held) {
    if !inner.lose_guard(held, LostReason::Deadline) {
        return;
    }
    let lease = held.lease();
    let (tag, fence) = (lease.tag.as_str(), lease.fence.get());
    tracing::warn!(tag, fence, "a guard's lock is lost: it was not renewed in time, or its max_hold is over");
    // A renewal whose answer was lost may have prolonged it.
    inner.abandon_last(Abandoned::Granted(lease.clone()));
}

/// Never, where there is no time.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(feature = "memory")]
#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::{
        Config, GuardState, Holder, LockGuard, Tag, Ttl,
        builder::AcquireGuard,
        inner::{Doors, Mailboxes},
        sweeper,
    };

    const GUARDS: usize = 1000;
    const INTERVAL: Duration = Duration::from_secs(10);

    async fn process() -> Arc<Inner> {
        let (inner, Mailboxes { to_sweep, .. }) =
            Inner::connect(Config::new("memory://").unwrap(), Doors::default()).await.unwrap();
        let inner = Arc::new(inner);
        tokio::spawn(sweeper::keep(Arc::downgrade(&inner), to_sweep));
        inner
    }

    async fn process_with_keeper() -> Arc<Inner> {
        let inner = process().await;
        tokio::spawn(keep(Arc::downgrade(&inner)));
        inner
    }

    /// All in the same moment, renewed each 10 s.
    async fn take(inner: &Arc<Inner>, named: &str, ttl: Ttl, count: usize) -> Vec<LockGuard> {
        let robot = Holder::new("robot-7", "").unwrap();
        let mut guards = Vec::with_capacity(count);
        for number in 0..count {
            let tag = Tag::new(format!("{named}-{number}")).unwrap();
            guards.push(AcquireGuard::new(inner, &tag, &robot).ttl(ttl).renew_every(INTERVAL).await.unwrap());
        }
        guards
    }

    fn renewals(inner: &Inner) -> u64 {
        inner.stats().locks.operations["extend"].total
    }

    /// How many renewals are sent in each tenth of the next interval.
    async fn tenths(inner: &Inner) -> Vec<u64> {
        let mut tenths = Vec::with_capacity(10);
        for _ in 0..10 {
            let before = renewals(inner);
            sleep(INTERVAL / 10).await;
            tenths.push(renewals(inner) - before);
        }
        tenths
    }

    #[track_caller]
    fn assert_spread(tenths: &[u64], guards: usize) {
        let mean = guards as u64 / 10;
        assert!(tenths.iter().all(|tenth| *tenth <= 2 * mean), "{tenths:?}");
    }

    fn lost(guards: &[LockGuard]) -> usize {
        let lost = GuardState::Lost { reason: LostReason::Deadline };
        guards.iter().filter(|guard| guard.state() == lost).count()
    }

    #[tokio::test(start_paused = true)]
    async fn guards_that_were_taken_together_are_renewed_all_over_the_interval() {
        let inner = process_with_keeper().await;
        let guards = take(&inner, "TEST", Ttl::HALF_MINUTE, GUARDS).await;
        for interval in 0..5 {
            let tenths = tenths(&inner).await;
            println!("interval {interval}: {tenths:?}");
            assert_spread(&tenths, GUARDS);
            // Those at the very edge are counted there or here.
            let all: u64 = tenths.iter().sum();
            assert!(all.abs_diff(GUARDS as u64) <= 5, "{all} in interval {interval}");
            let shortest = guards.iter().map(LockGuard::safe_for).min().unwrap();
            assert!(shortest > Duration::from_millis(19_950), "{shortest:?}: each of them");
        }
        drop(guards);
        sleep(INTERVAL).await;
        let before = renewals(&inner);
        sleep(10 * INTERVAL).await;
        assert_eq!((renewals(&inner), inner.roster.next()), (before, None), "none that was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_renewals_are_under_way_than_side_by_side() {
        // All are due when the process wakes up; and overdue, if it slept for longer.
        for (slept, side_by_side) in [(INTERVAL, SIDE_BY_SIDE), (2 * INTERVAL, SIDE_BY_SIDE_OVERDUE)] {
            let inner = process().await;
            let guards = take(&inner, "TEST", Ttl::HALF_MINUTE, GUARDS).await;
            advance(slept).await;
            let mut keeper = Keeper::default();
            for left in (1..=GUARDS).rev().step_by(side_by_side) {
                keeper.see_to_those_due(&inner);
                assert_eq!(keeper.renewals.len(), left.min(side_by_side), "of {left}");
                while let Some(is_answered) = keeper.renewals.next().await {
                    keeper.ended(is_answered, Instant::now());
                }
            }
            keeper.see_to_those_due(&inner);
            assert_eq!((keeper.renewals.len(), renewals(&inner)), (0, GUARDS as u64), "each once");
            assert!(guards.iter().all(|guard| guard.safe_for() > 2 * INTERVAL), "nobody is forgotten");
        }
    }

    /// 64 that fail together are one fault, and nobody waits for longer than he can.
    #[tokio::test(start_paused = true)]
    async fn what_fails_together_is_one_fault_and_the_pause_is_no_longer_than_those_who_wait_can_wait() {
        let inner = process().await;
        let mut keeper = Keeper::default();
        let lasts = |keeper: &Keeper| keeper.pause.map(|pause| pause.lasts);
        for millis in [10, 20, 40, 80, 160, 320, 500, 500] {
            for _ in 0..64 {
                keeper.ended(Some(false), Instant::now());
            }
            keeper.ended(None, Instant::now());
            assert_eq!(lasts(&keeper), Some(Duration::from_millis(millis)));
            assert_eq!(keeper.side_by_side(Instant::now()), 0);
            advance(Duration::from_millis(millis)).await;
            assert_eq!(keeper.side_by_side(Instant::now()), 1);
        }
        let guards = take(&inner, "TEST", Ttl::new(Duration::from_millis(600)).unwrap(), 1).await;
        let now = Instant::now();
        let held = inner.roster.take(now + INTERVAL).unwrap();
        let left = guards[0].safe_for();
        keeper.waiting.set(&ByPlace(held), now + left);
        keeper.ended(Some(false), now);
        assert_eq!(lasts(&keeper), Some(left / 4));
        keeper.ended(Some(true), now);
        assert_eq!((lasts(&keeper), keeper.side_by_side(now)), (None, SIDE_BY_SIDE));
        drop(guards);
    }

    /// Those that were late came on top of those that were not: more than twice as many as ever, when Redis has just come back.
    #[tokio::test(start_paused = true)]
    async fn when_redis_is_back_all_come_one_after_the_other_the_nearest_to_their_end_first() {
        let inner = process().await;
        let guards = take(&inner, "TEST", Ttl::HALF_MINUTE, GUARDS).await;
        let mut keeper = Keeper::default();
        advance(INTERVAL * 6 / 5).await;
        let now = Instant::now();
        while let Some(held) = inner.roster.take(now) {
            inner.roster.set(&held, now + 2 * INTERVAL);
            keeper.waiting.set(&ByPlace(held), now);
        }
        assert_eq!(keeper.waiting.iter().count(), GUARDS, "all are late");
        keeper.spread(&inner, now);
        assert!(keeper.waiting.is_empty());
        let mut tenths = [0; 10];
        for tenth in &mut tenths {
            advance(INTERVAL / 10).await;
            while inner.roster.take(Instant::now()).is_some() {
                *tenth += 1;
            }
        }
        println!("after the outage: {tenths:?}");
        assert_spread(&tenths, GUARDS);
        assert_eq!(tenths.iter().sum::<u64>(), GUARDS as u64, "each once");
        drop(guards);
    }

    /// As after a suspension of the machine whose clock goes on: what can be held on to is renewed once, in its old rhythm.
    #[tokio::test(start_paused = true)]
    async fn after_a_long_gap_each_guard_is_renewed_once_or_lost() {
        let inner = process_with_keeper().await;
        let short = take(&inner, "short", Ttl::HALF_MINUTE, GUARDS / 2).await;
        let long = take(&inner, "long", Ttl::HOUR, GUARDS / 2).await;
        sleep(INTERVAL).await;
        let before = renewals(&inner);
        advance(10 * INTERVAL).await;
        assert_eq!((lost(&short), lost(&long)), (GUARDS / 2, 0), "at the first look");
        // 64 each 10 ms.
        sleep(INTERVAL / 50).await;
        let after = renewals(&inner) - before;
        println!("{after} renewals after the gap");
        assert!((500..=530).contains(&after), "{after} renewals for 500 guards");
        assert_eq!(inner.stats().locks.lost_total["deadline"], 500);

        for _ in 0..2 {
            let tenths = tenths(&inner).await;
            println!("then: {tenths:?}");
            assert_spread(&tenths, GUARDS / 2);
            assert!((480..=520).contains(&tenths.iter().sum::<u64>()), "{tenths:?}");
        }
        assert_eq!((lost(&short), lost(&long)), (GUARDS / 2, 0));
        let swept = inner.stats().locks.swept_total;
        assert_eq!(
            swept.values().sum::<u64>(),
            500,
            "what a renewal may have prolonged is looked for: {swept:?}"
        );
    }
}

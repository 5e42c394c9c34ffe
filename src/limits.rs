//! [`Limits`]: how often a holder may ask for locks, and how often a tag may be asked for.
//!
//! The rule is governor's, the generic cell rate algorithm: of each key one moment is remembered, when it will be as if it had never
//! asked. An acquire moves that moment on by one interval of the rate, and is refused where it is too far ahead already.
//!
//! # Both or neither
//! The holder's limit comes first, so whoever runs into it uses up nothing of a tag that others want. Where the tag's limit refuses
//! then, the holder is given back what that took.
//!
//! # How much is remembered
//! Each acquire forgets up to two of those that have not asked for longest: while these are as if they had never asked, and where more
//! than 100,000 are remembered. So nobody ever waits while all are looked through. Whoever is forgotten is only given more.

use std::{
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos, state::StateStore,
};
use lru::LruCache;
use tokio::time::Instant;

use crate::{AcquireError, Holder, LimitedBy, Rate, Tag};

/// Everybody in a large factory, and what else an error may make up.
const KEYS: usize = 100_000;

#[derive(Debug)]
pub(crate) struct Limits {
    per_holder: Option<Limit<Holder>>,
    per_tag: Option<Limit<Tag>>,
}

/// The acquire was one too many.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) by: LimitedBy,
    retry_after: Duration,
}

impl Limits {
    pub(crate) fn new(per_holder: Option<Rate>, per_tag: Option<Rate>, now: Instant) -> Self {
        Self {
            per_holder: per_holder.map(|rate| Limit::new(rate, now)),
            per_tag: per_tag.map(|rate| Limit::new(rate, now)),
        }
    }

    /// Counts an acquire of `tag` by `holder`, or refuses it and counts nothing.
    pub(crate) fn check(&self, tag: &Tag, holder: &Holder, now: Instant) -> Result<(), Limited> {
        let refuse = |by| move |retry_after| Limited { by, retry_after };
        if let Some(limit) = &self.per_holder {
            limit.take(holder, now).map_err(refuse(LimitedBy::Holder))?;
        }
        let Some(limit) = &self.per_tag else { return Ok(()) };
        let taken = limit.take(tag, now).map_err(refuse(LimitedBy::Tag));
        if let (Err(_), Some(limit)) = (&taken, &self.per_holder) {
            limit.give_back(holder);
        }
        taken
    }
}

impl From<Limited> for AcquireError {
    fn from(Limited { by, retry_after }: Limited) -> Self {
        Self::Limited { by, retry_after }
    }
}

/// One rate, for each key by itself.
#[derive(Debug)]
struct Limit<K: Hash + Eq + Clone> {
    governor: RateLimiter<K, States<K>, Told, NoOpMiddleware<Nanos>>,
    /// Those of the governor, which shows them to nobody.
    states: States<K>,
    /// How long until one more may come.
    interval: Duration,
}

impl<K: Hash + Eq + Clone> Limit<K> {
    fn new(rate: Rate, now: Instant) -> Self {
        let count = rate.count();
        // Rounded up, so that it is never more often than the rate says.
        let interval = (rate.per() + Duration::from_nanos(u64::from(count.get()) - 1)) / count.get();
        let quota =
            Quota::with_period(interval).expect("the period of a rate is not zero").allow_burst(count);
        let states = States::default();
        let clock = Told { start: now, latest: AtomicU64::new(0) };
        Self { governor: RateLimiter::new(quota, states.clone(), clock), states, interval }
    }

    /// Counts one more, or says when there may be one.
    fn take(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let now = self.governor.clock().tell(now);
        let taken = self.governor.check_key(key);
        self.states.forget(now);
        taken.map_err(|refused| refused.wait_time_from(now))
    }

    /// Takes back that one was counted.
    fn give_back(&self, key: &K) {
        if let Some(fresh_at) = self.states.lock().peek_mut(key) {
            *fresh_at = fresh_at.saturating_sub(self.interval.into());
        }
    }
}

/// When each key will be as if it had never asked; the one first that asked last.
#[derive(Debug, Clone)]
struct States<K: Hash + Eq>(Arc<Mutex<LruCache<K, Nanos>>>);

impl<K: Hash + Eq> Default for States<K> {
    fn default() -> Self {
        // Bounded by `forget`: a cache that knows its bound takes all the memory at once.
        Self(Arc::new(Mutex::new(LruCache::unbounded())))
    }
}

impl<K: Hash + Eq> States<K> {
    fn lock(&self) -> MutexGuard<'_, LruCache<K, Nanos>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets up to two, which is one more than an acquire adds.
    fn forget(&self, now: Nanos) {
        let mut states = self.lock();
        for _ in 0..2 {
            let is_over =
                states.len() > KEYS || states.peek_lru().is_some_and(|(_, fresh_at)| *fresh_at <= now);
            if !is_over {
                return;
            }
            states.pop_lru();
        }
    }
}

impl<K: Hash + Eq + Clone> StateStore for States<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut states = self.lock();
        let (answer, fresh_at) = measure(states.get(key).copied())?;
        states.put(key.clone(), fresh_at);
        Ok(answer)
    }
}

/// A clock that shows the latest moment that it was told.
#[derive(Debug)]
struct Told {
    start: Instant,
    /// In nanoseconds since the start.
    latest: AtomicU64,
}

impl Told {
    fn tell(&self, now: Instant) -> Nanos {
        let now = Nanos::from(now.saturating_duration_since(self.start));
        self.latest.fetch_max(now.as_u64(), Relaxed);
        now
    }
}

impl Clock for Told {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.latest.load(Relaxed).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NANO: Duration = Duration::from_nanos(1);

    fn rate(text: &str) -> Option<Rate> {
        (!text.is_empty()).then(|| text.parse().unwrap())
    }

    /// Limits, and when they were made.
    fn limits(per_holder: &str, per_tag: &str) -> (Limits, Instant) {
        let now = Instant::now();
        (Limits::new(rate(per_holder), rate(per_tag), now), now)
    }

    fn tag(name: impl ToString) -> Tag {
        Tag::new(name.to_string()).unwrap()
    }

    fn holder(id: impl ToString) -> Holder {
        Holder::new(id.to_string(), "").unwrap()
    }

    fn refused(limits: &Limits, name: &str, id: &str, now: Instant) -> (LimitedBy, Duration) {
        let Limited { by, retry_after } = limits.check(&tag(name), &holder(id), now).unwrap_err();
        (by, retry_after)
    }

    /// How many of 100 acquires at this moment pass.
    fn passing(limits: &Limits, name: &str, id: &str, now: Instant) -> usize {
        (0..100).filter(|_| limits.check(&tag(name), &holder(id), now).is_ok()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_period_may_come_at_once_and_then_one_each_interval() {
        let (limits, start) = limits("10/1s", "");
        assert_eq!(passing(&limits, "TEST-02", "93", start), 10);
        for interval in 1..=20 {
            let now = start + SECOND / 10 * interval;
            assert_eq!(passing(&limits, "TEST-02", "93", now - NANO), 0, "just before {interval}");
            assert_eq!(passing(&limits, "TEST-02", "93", now), 1, "at {interval}");
        }
        assert_eq!(passing(&limits, "TEST-02", "93", start + 100 * SECOND), 10, "no more after a long pause");
    }

    #[tokio::test(start_paused = true)]
    async fn rate_holds_over_ten_periods_also_where_it_divides_badly() {
        for (text, steps) in [("10/1s", 1000_u32), ("7/1s", 1000), ("3/1ms", 1000), ("1/1day", 1000)] {
            let (limits, start) = limits("", text);
            let rate = rate(text).unwrap();
            let passed: usize = (0..10 * steps)
                .filter(|step| {
                    limits.check(&tag("TEST-02"), &holder(step), start + rate.per() / steps * *step).is_ok()
                })
                .count();
            let count = rate.count().get() as usize;
            // A burst at the beginning; what the last interval lets pass may come only after the end.
            assert!((11 * count - 1..=11 * count).contains(&passed), "{text}: {passed}");
        }
        let (limits, start) = limits("1000000/1900us", "");
        let by_the_nanosecond =
            (0..1_000_000).map(|_| start).chain((1..=1900).map(|nano| start + NANO * nano));
        let passed =
            by_the_nanosecond.filter(|now| limits.check(&tag("TEST-02"), &holder("93"), *now).is_ok());
        assert_eq!(passed.count(), 1_000_950, "one each 1.9 ns is one each 2 ns, and not each 1 ns");
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_is_the_moment_from_which_one_passes() {
        let (limits, start) = limits("3/1s", "");
        assert_eq!(passing(&limits, "TEST-02", "93", start), 3);
        for later in [Duration::ZERO, NANO, SECOND / 10, SECOND / 4] {
            let now = start + later;
            let (by, retry_after) = refused(&limits, "TEST-02", "93", now);
            assert_eq!((by, later + retry_after), (LimitedBy::Holder, Duration::from_nanos(333_333_334)));
        }
        let (_, retry_after) = refused(&limits, "TEST-02", "93", start);
        refused(&limits, "TEST-02", "93", start + retry_after - NANO);
        assert_eq!(passing(&limits, "TEST-02", "93", start + retry_after), 1, "to be refused costs nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn holders_and_tags_do_not_disturb_each_other() {
        let (limits, start) = limits("3/1s", "5/1s");
        assert_eq!(passing(&limits, "TEST-02", "93", start), 3);
        assert_eq!(refused(&limits, "TEST-03", "93", start).0, LimitedBy::Holder, "on any tag");
        assert_eq!(passing(&limits, "TEST-02", "94", start), 2, "what the first left of the tag");
        assert_eq!(refused(&limits, "TEST-02", "95", start), (LimitedBy::Tag, SECOND / 5), "whoever asks");
        assert_eq!(passing(&limits, "TEST-03", "95", start), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_by_one_limit_uses_up_nothing_of_the_other() {
        let (limits, start) = limits("3/1s", "5/1s");
        assert_eq!(passing(&limits, "TEST-02", "93", start), 3);
        assert_eq!(
            passing(&limits, "TEST-02", "94", start),
            2,
            "97 refusals of another holder's took nothing"
        );
        for _ in 0..100 {
            assert_eq!(refused(&limits, "TEST-02", "95", start).0, LimitedBy::Tag);
        }
        assert_eq!(passing(&limits, "TEST-03", "95", start), 3, "of the holder");
        assert_eq!(passing(&limits, "TEST-03", "96", start), 2, "of the tag");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_all_pass() {
        let (limits, start) = limits("", "");
        assert_eq!(passing(&limits, "TEST-02", "93", start), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_that_comes_late_gives_nobody_more() {
        let (limits, start) = limits("2/1s", "");
        let late = start + 10 * SECOND;
        assert_eq!(passing(&limits, "TEST-02", "93", late), 2);
        assert_eq!(passing(&limits, "TEST-02", "93", start), 0);
        assert_eq!(passing(&limits, "TEST-02", "94", start), 2);
        assert_eq!(refused(&limits, "TEST-02", "94", late).1, SECOND / 2, "and nobody less");
    }

    fn remembered(limits: &Limits) -> usize {
        limits.per_holder.as_ref().unwrap().states.lock().len()
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_bound_are_remembered_and_those_who_ask_are_not_forgotten() {
        let (limits, start) = limits("1/1day", "");
        for id in 0..KEYS + 1000 {
            limits.check(&tag("TEST-02"), &holder(id), start).unwrap();
            assert!(remembered(&limits) <= KEYS);
            // Refused, it has asked all the same.
            assert_eq!(refused(&limits, "TEST-02", "0", start).0, LimitedBy::Holder, "at {id}");
        }
        assert_eq!(remembered(&limits), KEYS);
        assert_eq!(passing(&limits, "TEST-02", "1", start), 1, "forgotten, it is given more");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_as_if_they_had_never_asked_is_forgotten() {
        let (limits, start) = limits("10/1s", "");
        for id in 0..1000 {
            limits.check(&tag("TEST-02"), &holder(id), start).unwrap();
        }
        let before = start + SECOND / 10 - NANO;
        limits.check(&tag("TEST-02"), &holder("93"), before).unwrap();
        assert_eq!(remembered(&limits), 1000, "not while it can be told");
        for _ in 0..500 {
            let _ = limits.check(&tag("TEST-02"), &holder("one"), start + SECOND / 10);
        }
        assert_eq!(remembered(&limits), 2);
    }
}

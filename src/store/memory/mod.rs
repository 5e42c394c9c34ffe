//! Locks in this process's memory: for tests and first steps, without a server.
//!
//! `memory://` is private to one connect, `memory://NAME` is shared in the process and lives as long as somebody uses it. Time
//! is tokio's, so a test that pauses it can let an hour's lock expire at once. Nothing is slow and nothing is ever lost here, so
//! there is no grace after a restart either: code that must survive a bad day is tested against a real server.

mod feed;
mod queue;
mod step;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

pub(crate) use self::feed::Subscription;
use self::{
    feed::Feeds,
    queue::Place,
    step::{Entry, Held, Step},
};
use super::{
    Acquired, Ask, Extended, Feed, Forced, HandedOver, NotYours, Queued, Reach, Released, Restored, Rules,
    Seen, Store, Whose,
};
use crate::{
    ClosedReason, Event, Fault, Histogram, Lease, Occupant, PoolReport, PoolStats, PoolStatus, RequestId,
    ServerReport, Tag, Token, Ttl, buckets, meter::FaultCounters, time::from_unix_millis,
};

/// The memory store of one connect, which counts as one process: it has its own places in the queues, and its own feed.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    process: Process,
    rules: Rules,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process(u64);

/// What the stores of one name have in common.
#[derive(Debug)]
struct Shared {
    /// The wall clock when the store was made; from there on it goes with tokio's.
    origin: (Instant, SystemTime),
    tags: Mutex<BTreeMap<Tag, Entry>>,
    feeds: Feeds,
}

static NAMED: LazyLock<Mutex<HashMap<String, Weak<Shared>>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStore {
    pub(super) fn open(name: Option<&str>, rules: Rules) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let process = Process(NEXT.fetch_add(1, Relaxed));
        let shared = name.map_or_else(Shared::new, Shared::named);
        Self { process, rules, shared }
    }

    /// One connection of one.
    pub(super) fn pool(&self) -> PoolStats {
        let none = |bounds: &[f64]| Histogram {
            bounds: bounds.to_vec(),
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        };
        let closed = ClosedReason::ALL.iter().map(|reason| (reason.as_str().to_owned(), 0)).collect();
        PoolStats {
            report: PoolReport {
                max_connections: 1,
                active_connections: 0,
                available_connections: 1,
                utilization_percent: 0.0,
                status: PoolStatus::Healthy,
                alert: None,
                timestamp: SystemTime::now(),
            },
            name: "memory".to_owned(),
            limit: 1,
            limit_reason: None,
            depth: 1,
            idle_connections: 1,
            connecting_connections: 0,
            draining_connections: 0,
            in_flight: 0,
            slots: 1,
            waiting: 0,
            oldest_waiting_seconds: 0.0,
            peak_active_connections: 0,
            active_connection_seconds_total: 0.0,
            saturated_seconds_total: 0.0,
            exhausted_seconds_total: 0.0,
            checkout_wait_seconds: none(buckets::CHECKOUT),
            checkout_failures_total: FaultCounters::default().read(),
            connection_use_seconds: none(buckets::CHECKOUT),
            connection_create_seconds: none(buckets::CREATE),
            connection_create_failures_total: FaultCounters::default().read(),
            connections_closed_total: closed,
        }
    }

    pub(super) fn report(&self) -> ServerReport {
        ServerReport { version: "memory".to_owned(), role: "master".to_owned(), ..ServerReport::default() }
    }
}

impl Shared {
    fn new() -> Arc<Self> {
        let origin = (Instant::now(), SystemTime::now());
        Arc::new(Self { origin, tags: Mutex::default(), feeds: Feeds::default() })
    }

    fn named(name: &str) -> Arc<Self> {
        let mut named = lock(&NAMED);
        named.retain(|_, store| store.strong_count() > 0);
        let known = named.get(name).and_then(Weak::upgrade);
        let shared = known.unwrap_or_else(Self::new);
        named.insert(name.to_owned(), Arc::downgrade(&shared));
        shared
    }

    /// The wall clock in whole milliseconds, as Redis keeps times: a lease is the same after it was in a ledger.
    fn wall(&self, instant: Instant) -> SystemTime {
        from_unix_millis(self.micros(instant) / 1000)
    }

    fn micros(&self, instant: Instant) -> u64 {
        let (origin, wall) = self.origin;
        let since = (wall + instant.saturating_duration_since(origin)).duration_since(UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
    }
}

impl MemoryStore {
    /// Does one thing to one tag.
    fn step<T>(&self, tag: &Tag, act: impl FnOnce(&mut Step<'_>) -> T) -> Result<T, Fault> {
        let now = Instant::now();
        let mut tags = lock(&self.shared.tags);
        let entry = tags.entry(tag.clone()).or_default();
        Ok(act(&mut Step::new(self, entry, now)?))
    }

    /// A place for this process, from now on.
    fn place(&self, ask: &Ask, now: Instant) -> Place {
        Place {
            process: self.process,
            ask: ask.clone(),
            living: now + self.rules.place / 2,
            until: now + self.rules.place,
        }
    }
}

impl Store for MemoryStore {
    fn now_micros(&self) -> u64 {
        self.shared.micros(Instant::now())
    }

    async fn acquire(&self, ask: &Ask, _: Instant) -> Result<Acquired, Fault> {
        self.step(&ask.tag, |step| {
            step.serve();
            let Some(Held { lease, until, .. }) = step.entry.held.clone() else {
                return Acquired::Granted(step.grant(ask));
            };
            if lease.token == Some(ask.token) {
                Acquired::Adopted { lease, expires_in: until - step.now }
            } else if ask.is_by(&lease.holder, lease.kind) {
                step.rely();
                Acquired::AlreadyHeld(Lease { token: None, ..lease })
            } else {
                Acquired::Contended { occupant: lease.into(), expires_in: until - step.now }
            }
        })
    }

    async fn extend(&self, whose: Whose<'_>, ttl: Ttl, reach: Reach, _: Instant) -> Result<Extended, Fault> {
        self.step(whose.tag, |step| match step.entry.meant(&whose) {
            Err(not) => Extended::Not(not),
            Ok(mut held) => {
                held.rely();
                step.rely();
                let (mut lease, margin) = (held.lease.clone(), held.until - step.now);
                let is_set = match reach {
                    Reach::AtLeast => ttl.duration() >= margin,
                    Reach::Exactly => true,
                    Reach::AtMost => ttl.duration() <= margin,
                };
                if is_set {
                    lease = step.set_ttl(held, ttl);
                }
                Extended::Extended { lease: Lease { token: None, ..lease }, margin }
            }
        })
    }

    async fn restore(&self, lease: &Lease, ttl: Ttl, _: Instant) -> Result<Restored, Fault> {
        self.step(&lease.tag, |step| match step.entry.meant(&Whose::of(lease)) {
            Ok(held) => Restored::Stands(held.lease.into()),
            Err(not) if not.forgets(lease.fence) => Restored::Restored(step.restore(lease, ttl)),
            Err(not) => Restored::Not(not),
        })
    }

    async fn release(&self, whose: Whose<'_>, request: RequestId, _: Instant) -> Result<Released, Fault> {
        self.step(whose.tag, |step| step.end(&whose, request))
    }

    async fn sweep(&self, lease: &Lease, request: RequestId, _: Instant) -> Result<Released, Fault> {
        self.step(&lease.tag, |step| match &step.entry.held {
            Some(held)
                if (held.lease.token != lease.token || held.is_relied_on)
                    && !step.entry.was_released_by(request) =>
            {
                Released::Not(NotYours::Occupied(held.lease.clone().into()))
            }
            _ => step.end(&Whose::of(lease), request),
        })
    }

    async fn hand_over(
        &self,
        whose: Whose<'_>,
        request: RequestId,
        next: &Ask,
        others_first: bool,
        _: Instant,
    ) -> Result<HandedOver, Fault> {
        self.step(whose.tag, |step| {
            let held = match step.release(&whose, request) {
                Err(not) => return HandedOver::Not(not),
                Ok(None) => return HandedOver::Repeated,
                Ok(held) => held,
            };
            step.entry.queue.leave(self.process);
            if others_first {
                step.serve();
            }
            let Some(Held { lease, until, .. }) = step.entry.held.clone() else {
                return HandedOver::Granted { held, lease: step.grant(next) };
            };
            step.entry.queue.put(self.place(next, step.now));
            HandedOver::Passed { held, occupant: lease.into(), expires_in: until - step.now }
        })
    }

    async fn queue(&self, ask: &Ask, before: Option<Token>, _: Instant) -> Result<Queued, Fault> {
        self.step(&ask.tag, |step| {
            if step.entry.queue.first(Some(self.process), step.now) != Some(self.process) {
                step.serve();
            }
            let Some(held) = step.entry.held.clone() else {
                step.entry.queue.leave(self.process);
                return Queued::Granted(step.grant(ask));
            };
            let expires_in = held.until - step.now;
            if held.lease.token == Some(ask.token) {
                step.entry.queue.leave(self.process);
                let is_short = ask.ttl.duration() > expires_in;
                return Queued::Granted(if is_short { step.set_ttl(held, ask.ttl) } else { held.lease });
            }
            if held.lease.token == before {
                return Queued::GrantedBefore(held.lease);
            }
            if ask.is_by(&held.lease.holder, held.lease.kind) {
                step.rely();
                return Queued::AlreadyHeld(Lease { token: None, ..held.lease });
            }
            step.entry.queue.put(self.place(ask, step.now));
            Queued::Waits { occupant: held.lease.into(), expires_in }
        })
    }

    async fn leave(&self, tag: &Tag, token: Token, _: Instant) -> Result<Option<Lease>, Fault> {
        self.step(tag, |step| {
            step.entry.queue.leave(self.process);
            let held = step.entry.held.as_ref().filter(|held| held.lease.token == Some(token));
            held.map(|held| held.lease.clone())
        })
    }

    async fn force_release(&self, tag: &Tag, by: &str, why: &str, _: Instant) -> Result<Forced, Fault> {
        self.step(tag, |step| {
            let Some(held) = step.entry.held.take() else { return Forced::Free { last: step.entry.last() } };
            let (by, why) = (by.to_owned(), why.to_owned());
            step.say(Event::Forced { occupant: step.ended(&held.lease), by, why, at: step.at });
            step.serve();
            Forced::Ended(Some(held.lease.into()))
        })
    }

    async fn find(&self, tag: &Tag, token: Token, _: Instant) -> Result<Option<Lease>, Fault> {
        self.step(tag, |step| {
            let held = step.entry.held.as_ref().filter(|held| held.lease.token == Some(token));
            held.map(|held| held.lease.clone())
        })
    }

    async fn inspect(&self, tag: &Tag, _: Instant) -> Result<Seen, Fault> {
        self.step(tag, |step| match &step.entry.held {
            Some(held) => Seen::Held(held.lease.clone().into()),
            None => Seen::Free { last: step.entry.last() },
        })
    }

    async fn look(&self, tags: &[Tag], deadline: Instant) -> Result<Vec<Option<Seen>>, Fault> {
        let mut seen = Vec::with_capacity(tags.len());
        for tag in tags {
            seen.push(Some(self.inspect(tag, deadline).await?));
        }
        Ok(seen)
    }

    async fn history(&self, tag: &Tag, _: Instant) -> Result<Vec<Event>, Fault> {
        self.step(tag, |step| step.entry.history.iter().map(|(_, event)| event.clone()).collect())
    }

    /// Nothing waits here.
    fn keep_lane(&self, _: bool) {}

    async fn feed(&self, _: Instant) -> Result<Feed, Fault> {
        Ok(self.shared.feeds.open(self.process))
    }

    async fn probe(&self, _: Instant) -> Result<(), Fault> {
        Ok(())
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn silence(&self) -> Duration {
        Duration::ZERO
    }

    async fn ping(&self, _: Instant) -> Result<(), Fault> {
        Ok(())
    }

    /// The memory of a process ends with it: there is but one run.
    async fn run(&self, _: Instant) -> Result<Option<String>, Fault> {
        Ok(Some("memory".to_owned()))
    }

    async fn leave_witness(&self, _: Instant) -> Result<(), Fault> {
        Ok(())
    }

    async fn has_witness(&self, _: Instant) -> Result<bool, Fault> {
        Ok(true)
    }

    fn breaks(&self) -> u64 {
        0
    }

    async fn list(&self, _: Instant) -> Result<Vec<Occupant>, Fault> {
        let now = Instant::now();
        let tags = lock(&self.shared.tags);
        let held = tags.values().filter_map(|entry| entry.held.as_ref()).filter(|held| held.until > now);
        Ok(held.map(|held| held.lease.clone().into()).collect())
    }
}

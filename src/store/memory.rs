//! Locks in this process's memory: for tests and first steps, without a server.
//!
//! `memory://` is private to one connect, `memory://NAME` is shared in the process and lives as long as somebody uses it. Time
//! is tokio's, so a test that pauses it can let an hour's lock expire at once. Nothing is slow and nothing is ever lost here:
//! code that must survive a bad day is tested against a real server.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use super::{Acquired, Ask, Extended, Forced, NotYours, Released, Store, Whose};
use crate::{
    ClosedReason, Fault, FaultKind, Fence, Histogram, Lease, Occupant, PoolReport, PoolStats, PoolStatus,
    RequestId, ServerReport, Tag, Ttl, buckets, meter::FaultCounters, time::from_unix_millis,
};

/// How many releases of a tag are remembered, as in Redis.
const REQUESTS: usize = 3;

#[derive(Debug)]
pub(crate) struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The wall clock when the store was made; from there on it goes with tokio's.
    origin: (Instant, SystemTime),
    tags: Mutex<BTreeMap<Tag, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    held: Option<Held>,
    fence: u64,
    requests: VecDeque<RequestId>,
}

#[derive(Debug, Clone)]
struct Held {
    lease: Lease,
    until: Instant,
}

static NAMED: LazyLock<Mutex<HashMap<String, Weak<Shared>>>> = LazyLock::new(Mutex::default);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryStore {
    pub(super) fn open(name: Option<&str>) -> Self {
        let new = || Arc::new(Shared { origin: (Instant::now(), SystemTime::now()), tags: Mutex::default() });
        let Some(name) = name else { return Self { shared: new() } };
        let mut named = lock(&NAMED);
        named.retain(|_, store| store.strong_count() > 0);
        let known = named.get(name).and_then(Weak::upgrade);
        let shared = known.unwrap_or_else(new);
        named.insert(name.to_owned(), Arc::downgrade(&shared));
        Self { shared }
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
    /// The wall clock in whole milliseconds, as Redis keeps times: a lease is the same after it was in a ledger.
    fn wall(&self, instant: Instant) -> SystemTime {
        from_unix_millis(self.micros(instant) / 1000)
    }

    fn micros(&self, instant: Instant) -> u64 {
        let (origin, wall) = self.origin;
        let since = (wall + instant.saturating_duration_since(origin)).duration_since(UNIX_EPOCH);
        u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
    }

    /// Does something with the entry of a tag, in which no lock that has expired stands.
    fn with<T>(&self, tag: &Tag, act: impl FnOnce(&mut Entry, Instant) -> T) -> T {
        let now = Instant::now();
        let mut tags = lock(&self.tags);
        let entry = tags.entry(tag.clone()).or_default();
        entry.held.take_if(|held| held.until <= now);
        act(entry, now)
    }
}

impl Entry {
    fn last(&self) -> Option<Fence> {
        Fence::new(self.fence).filter(|fence| fence.get() > 0)
    }

    /// The lease that a call means, or why it may not touch it.
    fn meant(&mut self, whose: &Whose<'_>) -> Result<&mut Held, NotYours> {
        let last = self.last();
        let Some(held) = &mut self.held else { return Err(NotYours::Free { last }) };
        let lease = &held.lease;
        let meant = lease.holder == *whose.holder
            && lease.kind == whose.kind
            && whose.fence.is_none_or(|fence| fence == lease.fence);
        if meant { Ok(held) } else { Err(NotYours::Occupied(lease.clone().into())) }
    }
}

impl Store for MemoryStore {
    fn now_micros(&self) -> u64 {
        self.shared.micros(Instant::now())
    }

    async fn acquire(&self, ask: Ask<'_>, _: Instant) -> Result<Acquired, Fault> {
        let Ask { tag, holder, kind, token, ttl, note } = ask;
        self.shared.with(tag, |entry, now| {
            if let Some(Held { lease, until }) = &entry.held {
                return Ok(if lease.token == Some(token) {
                    Acquired::Granted(lease.clone())
                } else if lease.holder == *holder && lease.kind == kind {
                    Acquired::AlreadyHeld(Lease { token: None, ..lease.clone() })
                } else {
                    Acquired::Contended { occupant: lease.clone().into(), expires_in: *until - now }
                });
            }
            let fence =
                Fence::new(self.shared.micros(now).max(entry.fence + 1)).ok_or(FaultKind::FenceRegression)?;
            let since = self.shared.wall(now);
            let lease = Lease {
                tag: tag.clone(),
                holder: holder.clone(),
                kind,
                token: Some(token),
                fence,
                since,
                expires_at: since + ttl.duration(),
                note: note.to_owned(),
            };
            entry.fence = fence.get();
            entry.held = Some(Held { lease: lease.clone(), until: now + ttl.duration() });
            Ok(Acquired::Granted(lease))
        })
    }

    async fn extend(&self, whose: Whose<'_>, ttl: Ttl, shorten: bool, _: Instant) -> Result<Extended, Fault> {
        Ok(self.shared.with(whose.tag, |entry, now| match entry.meant(&whose) {
            Err(not) => Extended::Not(not),
            Ok(held) => {
                let margin = held.until - now;
                if shorten || now + ttl.duration() > held.until {
                    held.until = now + ttl.duration();
                    held.lease.expires_at = self.shared.wall(held.until);
                }
                Extended::Extended { lease: Lease { token: None, ..held.lease.clone() }, margin }
            }
        }))
    }

    async fn release(&self, whose: Whose<'_>, request: RequestId, _: Instant) -> Result<Released, Fault> {
        Ok(self.shared.with(whose.tag, |entry, now| {
            if entry.requests.contains(&request) {
                return Released::Released { held: None };
            }
            let since = match entry.meant(&whose) {
                Err(not) => return Released::Not(not),
                // A repeat, and this was granted after the first try was made.
                Ok(Held { lease, .. }) if request.made().is_some_and(|made| lease.fence.get() > made) => {
                    return Released::Not(NotYours::Occupied(lease.clone().into()));
                }
                Ok(held) => held.lease.since,
            };
            entry.held = None;
            entry.requests.push_front(request);
            entry.requests.truncate(REQUESTS);
            Released::Released { held: Some(self.shared.wall(now).duration_since(since).unwrap_or_default()) }
        }))
    }

    async fn force_release(&self, tag: &Tag, _: Instant) -> Result<Forced, Fault> {
        Ok(self.shared.with(tag, |entry, _| match entry.held.take() {
            Some(held) => Forced::Ended(Some(held.lease.into())),
            None => Forced::Free { last: entry.last() },
        }))
    }

    async fn inspect(&self, tag: &Tag, _: Instant) -> Result<Option<Occupant>, Fault> {
        Ok(self.shared.with(tag, |entry, _| entry.held.as_ref().map(|held| held.lease.clone().into())))
    }

    async fn probe(&self, _: Instant) -> Result<(), Fault> {
        Ok(())
    }

    async fn list(&self, _: Instant) -> Result<Vec<Occupant>, Fault> {
        let now = Instant::now();
        let tags = lock(&self.shared.tags);
        let held = tags.values().filter_map(|entry| entry.held.as_ref()).filter(|held| held.until > now);
        Ok(held.map(|held| held.lease.clone().into()).collect())
    }
}

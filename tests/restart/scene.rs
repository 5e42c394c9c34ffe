//! A factory: a process with guards, and with the leases of a ledger that it names to whoever asks which are to stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use spool_lock::{
    Config, Event, Fence, GuardState, Holder, Lease, LeaseSource, LeaseSourceAnswer, LockGuard, LostReason,
    RecoveryPhase, SpoolLocks, Tag, Ttl,
};
use tokio::{runtime::Builder, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{RedisServer, eventually};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything takes that goes well, on a machine with much else to do.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a tag")
}

pub(crate) fn numbered(what: &str, number: usize) -> Tag {
    tag(&format!("{what}-{number:04}"))
}

pub(crate) fn owner() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

pub(crate) fn stranger() -> Holder {
    Holder::new("7", "AB(7)").expect("a holder")
}

pub(crate) fn ttl(lasts: Duration) -> Ttl {
    Ttl::new(lasts).expect("a ttl")
}

pub(crate) fn config(url: &str) -> Config {
    Config::new(url).expect("an address")
}

pub(crate) async fn connect(url: &str) -> SpoolLocks {
    SpoolLocks::connect(config(url)).await.expect("healthy")
}

/// Which leases are to stand, as a service has it in its books.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Lease>>>);

impl Ledger {
    pub(crate) fn entries(&self) -> MutexGuard<'_, Vec<Lease>> {
        self.0.lock().expect("nobody panicked")
    }

    pub(crate) fn strike(&self, tag: &Tag) {
        self.entries().retain(|lease| lease.tag != *tag);
    }
}

impl LeaseSource for Ledger {
    fn leases(&self) -> LeaseSourceAnswer<'_> {
        Box::pin(async { Ok(self.entries().clone()) })
    }
}

/// What a watcher was told, and when.
type Heard = (Instant, Arc<Event>);

/// All that a watcher was told.
pub(crate) struct Told {
    events: Arc<Mutex<Vec<Heard>>>,
    _listening: DropGuard,
}

impl Told {
    pub(crate) async fn to(locks: &SpoolLocks) -> Self {
        let mut watch = locks.watch().await.expect("healthy");
        let events = Arc::new(Mutex::new(Vec::new()));
        let is_over = CancellationToken::new();
        let listen = {
            let (events, is_over) = (events.clone(), is_over.clone());
            let hear = async move {
                while let Some(event) = watch.next().await {
                    events.lock().expect("nobody panicked").push((Instant::now(), event));
                }
            };
            async move { is_over.run_until_cancelled(hear).await }
        };
        // On a thread of its own: strangers who hammer on those of the test do not make it too slow for a mass loss.
        std::thread::spawn(move || {
            Builder::new_current_thread().build().expect("a runtime").block_on(listen)
        });
        Self { events, _listening: is_over.drop_guard() }
    }

    pub(crate) fn all(&self) -> Vec<Heard> {
        let events = self.events.lock().expect("nobody panicked").clone();
        assert!(events.iter().all(|(_, event)| event.name() != "missed"), "the watcher was too slow");
        events
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.all().iter().filter(|(_, event)| event.name() == name).count()
    }

    /// When the first event of that name came.
    pub(crate) async fn first(&self, name: &str) -> Instant {
        eventually(SOON, async || {
            self.all().iter().find(|(_, event)| event.name() == name).map(|(at, _)| *at)
        })
        .await
    }

    /// What was told to be lost, and how; each once.
    pub(crate) fn lost(&self) -> BTreeMap<Tag, LostReason> {
        let mut lost = BTreeMap::new();
        for (_, event) in self.all() {
            if let Event::Lost { occupant, reason, .. } = &*event {
                let before = lost.insert(occupant.tag.clone(), *reason);
                assert_eq!(before, None, "{} is told to be lost twice", occupant.tag);
            }
        }
        lost
    }

    /// The phases that were gone through, in their order, with what was done and what was not.
    pub(crate) fn phases(&self) -> Vec<(RecoveryPhase, u64, u64)> {
        let all = self.all();
        let phase = |(_, event): &Heard| match **event {
            Event::Recovered { phase, done, left, .. } => Some((phase, done, left)),
            _ => None,
        };
        all.iter().filter_map(phase).collect()
    }
}

pub(crate) struct Factory {
    pub(crate) locks: SpoolLocks,
    pub(crate) guards: Vec<LockGuard>,
    pub(crate) ledger: Ledger,
    /// The fence of each tag that it holds.
    pub(crate) fences: BTreeMap<Tag, Fence>,
    pub(crate) told: Told,
}

impl Factory {
    /// Takes so many guards, and leases that stand in the ledger.
    pub(crate) async fn open(
        server: &RedisServer,
        config: Config,
        guards: usize,
        guard_ttl: Ttl,
        leases: usize,
    ) -> Self {
        let ledger = Ledger::default();
        let locks = SpoolLocks::connect(config).lease_source(ledger.clone()).await.expect("healthy");
        let holder = owner();
        let (guard_tags, lease_tags): (Vec<_>, Vec<_>) = (
            (0..guards).map(|number| numbered("GUARD", number)).collect(),
            (0..leases).map(|number| numbered("LEASE", number)).collect(),
        );
        // With a wait: the server was just started, and there may be a grace.
        let taken = stream::iter(&guard_tags).map(|tag| locks.guard(tag, &holder).ttl(guard_ttl).wait(SOON));
        let guards: Vec<_> = taken.map(IntoFuture::into_future).buffered(100).collect().await;
        let guards: Vec<_> = guards.into_iter().map(|guard| guard.expect("it is free")).collect();
        let taken = stream::iter(&lease_tags).map(|tag| locks.acquire(tag, &holder).note("ARM").wait(SOON));
        let leases: Vec<_> = taken.map(IntoFuture::into_future).buffered(1000).collect().await;
        ledger.entries().extend(leases.into_iter().map(|lease| lease.expect("it is free")));
        let fences = guards.iter().map(|guard| (guard.tag().clone(), guard.fence()));
        let fences =
            fences.chain(ledger.entries().iter().map(|lease| (lease.tag.clone(), lease.fence))).collect();
        let told = Told::to(&locks).await;
        eventually(SOON, async || has_witness(server)).await;
        Self { locks, guards, ledger, fences, told }
    }

    pub(crate) fn tags(&self) -> Vec<Tag> {
        self.fences.keys().cloned().collect()
    }

    /// Those of its tags that stand in Redis under its fence.
    pub(crate) fn standing(&self, server: &RedisServer) -> BTreeSet<Tag> {
        let mut standing = standing(server, &self.tags());
        standing.retain(|tag, fence| self.fences[tag] == *fence);
        standing.into_keys().collect()
    }

    pub(crate) fn is_whole(&self, server: &RedisServer) -> Result<(), String> {
        let standing = self.standing(server).len();
        if standing == self.fences.len() { Ok(()) } else { Err(format!("{standing} stand")) }
    }

    /// The guards that are lost, and how.
    pub(crate) fn lost_guards(&self) -> BTreeMap<Tag, LostReason> {
        let lost = |guard: &LockGuard| match guard.state() {
            GuardState::Lost { reason } => Some((guard.tag().clone(), reason)),
            _ => None,
        };
        self.guards.iter().filter_map(lost).collect()
    }

    /// The losses that were counted.
    pub(crate) fn lost_total(&self) -> BTreeMap<String, u64> {
        let mut lost = self.locks.stats().locks.lost_total;
        lost.retain(|_, count| *count > 0);
        lost
    }

    pub(crate) fn restored(&self) -> u64 {
        self.locks.stats().recovery.restored_total["restored"]
    }
}

/// Whether somebody has left a witness there: from then on it is noticed where data goes.
pub(crate) fn has_witness(server: &RedisServer) -> bool {
    !server.query::<Vec<String>>(&["KEYS", "spool:{}:witness:*"]).is_empty()
}

/// Which fence stands at each of these tags.
pub(crate) fn standing(server: &RedisServer, tags: &[Tag]) -> BTreeMap<Tag, Fence> {
    let keys = tags.iter().map(|tag| format!("spool:{{{tag}}}:lock"));
    let command: Vec<_> = std::iter::once("MGET".to_owned()).chain(keys).collect();
    let values: Vec<Option<String>> = server.query(&command.iter().map(String::as_str).collect::<Vec<_>>());
    let fence = |value: &str| value.split('|').nth(2)?.parse().ok().and_then(Fence::new);
    tags.iter().zip(values).filter_map(|(tag, value)| Some((tag.clone(), fence(&value?)?))).collect()
}

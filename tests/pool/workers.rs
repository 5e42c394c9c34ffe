//! Workers that take, keep and give back locks, and what they have to say about it; a sampler of the server's clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use spool_lock::{
    AcquireError, Config, ExtendError, FaultKind, Holder, PoolStats, ReleaseError, SpoolLocks, Tag, Ttl,
};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{RedisServer, eventually};

pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) async fn connect(url: &str, tune: impl FnOnce(&mut Config)) -> SpoolLocks {
    let mut config = Config::new(url).expect("a URL of the tests");
    tune(&mut config);
    SpoolLocks::connect(config).await.expect("a server of the tests")
}

pub(crate) fn pool(locks: &SpoolLocks) -> PoolStats {
    locks.stats().pool
}

/// Lanes that take work: those with work and those without.
pub(crate) fn open(pool: &PoolStats) -> u32 {
    pool.slots / pool.depth
}

/// Waits until no call is under way and no connection is being opened or closed.
pub(crate) async fn at_rest(locks: &SpoolLocks) -> PoolStats {
    eventually(SOON * 2, async || {
        let pool = pool(locks);
        let busy = pool.in_flight + pool.waiting + pool.draining_connections + pool.connecting_connections;
        if busy == 0 { Ok(pool) } else { Err(format!("{pool:?}")) }
    })
    .await
}

/// What a worker could not do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Redis or the way to it misbehaved, and the call said so.
    Fault(String),
    /// An answer that is not true.
    Wrong(String),
}

impl Trouble {
    fn wrong(what: impl fmt::Debug) -> Self {
        Self::Wrong(format!("{what:?}"))
    }

    /// A fault of the road is what breaking the road may cause; any other is a wrong answer.
    pub(crate) fn of(kind: FaultKind) -> Self {
        match kind {
            FaultKind::Timeout
            | FaultKind::Disconnected
            | FaultKind::CheckoutTimeout
            | FaultKind::Connect
            | FaultKind::ClosedInHandshake
            | FaultKind::MaxClients
            | FaultKind::Late => Self::Fault(kind.as_str().to_owned()),
            kind => Self::wrong(kind),
        }
    }
}

/// Somebody with a tag that nobody else wants.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) tag: Tag,
    pub(crate) holder: Holder,
    /// An answer was lost: what stands at the tag is not known.
    unsure: bool,
}

impl Worker {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            tag: Tag::new(format!("TEST-{number:02}")).expect("a tag"),
            holder: holder(number),
            unsure: false,
        }
    }

    /// Acquires, extends, releases. An answer that does not fit the one before is a wrong one.
    pub(crate) async fn round(&mut self, locks: &SpoolLocks) -> Result<(), Trouble> {
        let (tag, holder) = (&self.tag, &self.holder);
        let unsure = std::mem::replace(&mut self.unsure, true);
        let fence = match locks.acquire(tag, holder).await {
            Ok(lease) => lease.fence,
            Err(AcquireError::AlreadyHeld(lease)) if unsure => lease.fence,
            Err(AcquireError::Ambiguous { fault, .. } | AcquireError::Fault(fault)) => {
                return Err(Trouble::of(fault.kind()));
            }
            Err(error) => return Err(Trouble::wrong(error)),
        };
        match locks.extend(tag, holder, Ttl::HOUR).await {
            Ok(lease) if lease.fence == fence => {}
            Err(ExtendError::Fault(fault)) => return Err(Trouble::of(fault.kind())),
            other => return Err(Trouble::wrong(other)),
        }
        match locks.release(tag, holder).await {
            Ok(_) => {}
            Err(ReleaseError::Ambiguous { fault, .. } | ReleaseError::Fault(fault)) => {
                return Err(Trouble::of(fault.kind()));
            }
            Err(error) => return Err(Trouble::wrong(error)),
        }
        self.unsure = false;
        Ok(())
    }
}

pub(crate) fn holder(number: usize) -> Holder {
    Holder::new(number.to_string(), format!("MR({number})")).expect("a holder")
}

/// What came of the work of many.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rounds: u64,
    pub(crate) troubles: BTreeMap<Trouble, u64>,
    /// When the last trouble was, from the start.
    pub(crate) last_trouble: Duration,
}

impl Tally {
    #[track_caller]
    pub(crate) fn assert_no_trouble(&self) {
        assert!(self.troubles.is_empty() && self.rounds > 0, "{self:?}");
    }

    #[track_caller]
    pub(crate) fn assert_faults_only(&self) {
        assert!(self.troubles.keys().all(|trouble| matches!(trouble, Trouble::Fault(_))), "{self:?}");
        assert!(self.rounds > 0, "{self:?}");
    }
}

/// Lets `workers` work, each round after round, until told to stop or for `time` at most.
pub(crate) async fn work(locks: &SpoolLocks, workers: usize, time: Duration) -> Tally {
    work_while(locks, workers, time, Arc::new(AtomicBool::new(true))).await
}

pub(crate) async fn work_while(
    locks: &SpoolLocks,
    workers: usize,
    time: Duration,
    going: Arc<AtomicBool>,
) -> Tally {
    let start = Instant::now();
    let mut crew = JoinSet::new();
    for number in 0..workers {
        let (locks, going) = (locks.clone(), going.clone());
        crew.spawn(async move {
            let mut worker = Worker::new(number);
            let mut tally = Tally::default();
            while going.load(SeqCst) && start.elapsed() < time {
                match worker.round(&locks).await {
                    Ok(()) => tally.rounds += 1,
                    Err(trouble) => {
                        *tally.troubles.entry(trouble).or_default() += 1;
                        tally.last_trouble = start.elapsed();
                    }
                }
            }
            tally
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = crew.join_next().await {
        let tally = tally.expect("a worker does not panic");
        all.rounds += tally.rounds;
        for (trouble, count) in tally.troubles {
            *all.troubles.entry(trouble).or_default() += count;
        }
        all.last_trouble = all.last_trouble.max(tally.last_trouble);
    }
    all
}

/// One round of each, after whatever was left lying about has been released.
pub(crate) async fn assert_clean_round(locks: &SpoolLocks, workers: usize) {
    let mut crew = JoinSet::new();
    for number in 0..workers {
        let locks = locks.clone();
        crew.spawn(async move {
            let mut worker = Worker::new(number);
            match locks.release(&worker.tag, &worker.holder).await {
                Ok(_) | Err(ReleaseError::NotHeld { .. }) => {}
                Err(error) => panic!("{number}: {error:?}"),
            }
            worker.round(&locks).await
        });
    }
    while let Some(outcome) = crew.join_next().await {
        assert_eq!(outcome.expect("a worker does not panic"), Ok(()));
    }
}

/// Looks at the server's clients every few milliseconds, from a thread of its own.
#[derive(Debug)]
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Counts connections that are there in two looks, `lag` apart: one that has been closed by its client may still stand in
    /// the list until the server has read so.
    pub(crate) fn start(server: &Arc<RedisServer>, lag: Duration) -> Self {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = thread::spawn({
            let (server, stop, peak) = (server.clone(), stop.clone(), peak.clone());
            move || {
                while !stop.load(SeqCst) {
                    let mut seen = ids(&server);
                    if seen.len() > peak.load(SeqCst) {
                        thread::sleep(lag);
                        let again = ids(&server);
                        seen.retain(|id| again.contains(id));
                        peak.fetch_max(seen.len(), SeqCst);
                    }
                    thread::sleep(millis(2));
                }
            }
        });
        Self { stop, peak, thread: Some(thread) }
    }

    /// The most connections that were there at the same time.
    pub(crate) fn stop(mut self) -> usize {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the sampler does not panic");
        }
        self.peak.load(SeqCst)
    }
}

/// Our connections and those that have no name yet.
fn ids(server: &RedisServer) -> BTreeSet<String> {
    let mut clients = server.clients();
    clients.retain(|client| client["name"].is_empty() || client["name"] == "spool-lock:spool");
    clients.into_iter().map(|client| client["id"].clone()).collect()
}

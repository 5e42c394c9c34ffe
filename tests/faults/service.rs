//! [`Service`]: somebody who works with locks over a network of their own, and writes down how each call went.
//!
//! Calls come in an open loop: whether Redis answers or not, the next one comes when it is its time.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use spool_lock::{
    AcquireError, CircuitConfig, CircuitState, Config, FaultKind, HealthStatus, Holder, Mode, ReadError,
    ReleaseError, Source, SpoolLocks, Tag,
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::support::{FaultProxy, RedisServer};

/// How often each kind of call is made.
pub(crate) const RHYTHM: Duration = Duration::from_millis(50);

/// How often health is asked, after the answer.
const HEALTH_RHYTHM: Duration = Duration::from_millis(250);

/// How often a circuit is looked at.
const GLANCE: Duration = Duration::from_millis(2);

pub(crate) fn tag(name: &str) -> Tag {
    Tag::new(name).expect("a tag")
}

pub(crate) fn holder(id: &str) -> Holder {
    Holder::new(id, "").expect("a holder")
}

/// The tag that a [`Service`] looks at. A stranger holds it.
pub(crate) fn seen_tag() -> Tag {
    tag("SEEN-01")
}

/// What a call wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Acquire,
    Release,
    /// Who holds the tag that was seen before.
    Seen,
    /// Who holds a tag that was never seen.
    Unseen,
}

/// What a call was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Done,
    /// Who holds it: whether anybody does, by whom it was said, and how old that is.
    Reading {
        is_held: bool,
        source: Source,
        age: Duration,
    },
    /// It was not sent.
    Refused {
        mode: Mode,
        retry_after: Duration,
    },
    Fault(FaultKind),
}

/// How a call went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) want: Want,
    pub(crate) told: Told,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    pub(crate) deadline: Duration,
    /// Whether its first poll had the answer.
    pub(crate) is_at_once: bool,
    /// Whether the link was open or half open, before its first poll and after.
    pub(crate) is_link_open: bool,
}

impl Call {
    pub(crate) fn took(&self) -> Duration {
        self.ended - self.began
    }
}

/// What health said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checkup {
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    pub(crate) status: HealthStatus,
    pub(crate) mode: Mode,
}

/// An interval of the link's circuit in which nothing is probed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interval {
    pub(crate) began: Instant,
    pub(crate) lasts: Duration,
}

/// What was written down.
#[derive(Debug, Default, Clone)]
pub(crate) struct Log {
    pub(crate) calls: Vec<Call>,
    pub(crate) checkups: Vec<Checkup>,
    pub(crate) intervals: Vec<Interval>,
    /// What a watch of the mode told.
    pub(crate) modes: Vec<(Mode, Instant)>,
}

/// Somebody who works with locks over a network of their own.
pub(crate) struct Service {
    /// Its tags begin with it.
    name: &'static str,
    pub(crate) network: FaultProxy,
    pub(crate) locks: SpoolLocks,
    log: Arc<Mutex<Log>>,
    work: JoinSet<()>,
}

impl Service {
    /// One that does nothing yet but watch its mode and its circuit.
    pub(crate) async fn open(name: &'static str, server: &RedisServer) -> Self {
        let network = FaultProxy::before(server);
        let config = Config::new(&network.url()).expect("an address");
        let locks = SpoolLocks::connect(config).await.expect("healthy");
        let mut service = Self { name, network, locks, log: Arc::default(), work: JoinSet::new() };
        service.work.spawn(watch_mode(service.locks.clone(), service.log.clone()));
        service.work.spawn(watch_intervals(service.locks.clone(), service.log.clone()));
        service
    }

    /// Makes calls from now on: an acquire and its release, and both kinds of look.
    pub(crate) fn works(&mut self) {
        for want in [Want::Acquire, Want::Seen, Want::Unseen] {
            let (name, locks, log) = (self.name, self.locks.clone(), self.log.clone());
            self.work.spawn(async move {
                let mut calls = JoinSet::new();
                let mut rhythm = interval(RHYTHM);
                rhythm.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for number in 0_u64.. {
                    rhythm.tick().await;
                    let (locks, log) = (locks.clone(), log.clone());
                    calls.spawn(async move {
                        match want {
                            Want::Acquire | Want::Release => {
                                pair(&locks, &log, &tag(&format!("{name}-{number}"))).await
                            }
                            Want::Seen => look(&locks, &log, want, &seen_tag()).await,
                            Want::Unseen => look(&locks, &log, want, &tag(&format!("UNSEEN-{number}"))).await,
                        }
                    });
                    while calls.try_join_next().is_some_and(|call| call.is_ok()) {}
                }
            });
        }
    }

    /// Asks how it stands from now on.
    pub(crate) fn asks_health(&mut self) {
        let (locks, log) = (self.locks.clone(), self.log.clone());
        self.work.spawn(async move {
            loop {
                let asked = Instant::now();
                let health = locks.health().await;
                let answered = Instant::now();
                let (status, mode) = (health.status, health.details.mode);
                lock(&log).checkups.push(Checkup { asked, answered, status, mode });
                sleep(HEALTH_RHYTHM).await;
            }
        });
    }

    /// What was written down so far.
    pub(crate) fn log(&self) -> Log {
        lock(&self.log).clone()
    }

    /// How often the link was probed in the background.
    pub(crate) fn probes(&self) -> u64 {
        self.locks.link_circuit().stats().transitions_total["half_open"]
    }

    /// Requests that have come to the network, delivered or not.
    pub(crate) fn requests(&self) -> u64 {
        self.network.commands().values().sum()
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch_mode(locks: SpoolLocks, log: Arc<Mutex<Log>>) {
    let mut watch = locks.watch_mode();
    while let Some(mode) = watch.changed().await {
        lock(&log).modes.push((mode, Instant::now()));
    }
}

/// Notes each interval when it begins: what is left of it rises then, and falls at all other times.
async fn watch_intervals(locks: SpoolLocks, log: Arc<Mutex<Log>>) {
    let circuit = locks.link_circuit();
    let hope = CircuitConfig::default().open.base;
    let mut left = Duration::ZERO;
    loop {
        let (state, lasts) = (circuit.state(), circuit.retry_after());
        // While the probe is due or under way it says what a caller may hope, and no interval.
        if state == CircuitState::Open && circuit.state() == state && lasts != hope {
            if lasts > left {
                lock(&log).intervals.push(Interval { began: Instant::now(), lasts });
            }
            left = lasts;
        } else {
            left = Duration::ZERO;
        }
        sleep(GLANCE).await;
    }
}

/// Takes a lock that nobody else wants, and gives it back.
async fn pair(locks: &SpoolLocks, log: &Mutex<Log>, tag: &Tag) {
    let holder = holder("93");
    let acquired =
        timed(locks, Want::Acquire, locks.acquire(tag, &holder).into_future(), |outcome| match outcome {
            Ok(_) => Told::Done,
            Err(AcquireError::Unavailable { mode, retry_after, .. }) => {
                Told::Refused { mode: *mode, retry_after: *retry_after }
            }
            Err(AcquireError::Ambiguous { fault, .. } | AcquireError::Fault(fault)) => {
                Told::Fault(fault.kind())
            }
            Err(AcquireError::Saturated) => Told::Fault(FaultKind::Saturated),
            Err(other) => panic!("nobody else wants it: {other}"),
        });
    let (call, acquired) = acquired.await;
    lock(log).calls.push(call);
    let Ok(lease) = acquired else { return };
    let released =
        timed(locks, Want::Release, locks.release_lease(&lease).into_future(), |outcome| match outcome {
            Ok(_) | Err(ReleaseError::NotHeld { .. }) => Told::Done,
            Err(ReleaseError::Ambiguous { fault, .. } | ReleaseError::Fault(fault)) => {
                Told::Fault(fault.kind())
            }
            Err(ReleaseError::Saturated) => Told::Fault(FaultKind::Saturated),
            Err(other) => panic!("nobody else wants it: {other}"),
        });
    let (call, _released) = released.await;
    lock(log).calls.push(call);
}

async fn look(locks: &SpoolLocks, log: &Mutex<Log>, want: Want, tag: &Tag) {
    let looked = timed(locks, want, locks.inspect(tag), |outcome| match outcome {
        Ok(reading) => {
            Told::Reading { is_held: reading.value.is_some(), source: reading.source, age: reading.age }
        }
        Err(ReadError::Unavailable { mode, retry_after, .. }) => {
            Told::Refused { mode: *mode, retry_after: *retry_after }
        }
        Err(ReadError::Fault(fault)) => Told::Fault(fault.kind()),
        Err(ReadError::Saturated) => Told::Fault(FaultKind::Saturated),
        Err(other) => panic!("nothing is set up wrongly: {other}"),
    });
    let (call, _looked) = looked.await;
    lock(log).calls.push(call);
}

/// Makes a call, and says how it went.
async fn timed<T>(
    locks: &SpoolLocks,
    want: Want,
    call: impl Future<Output = T>,
    told: impl FnOnce(&T) -> Told,
) -> (Call, T) {
    let link = locks.link_circuit();
    let mut call = pin!(call);
    let (began, before) = (Instant::now(), link.state());
    let first = call.as_mut().now_or_never();
    let is_link_open = before != CircuitState::Closed && link.state() != CircuitState::Closed;
    let is_at_once = first.is_some();
    let outcome = match first {
        Some(outcome) => outcome,
        None => call.await,
    };
    let told = told(&outcome);
    let deadline = Config::default().deadline;
    (Call { want, told, began, ended: Instant::now(), deadline, is_at_once, is_link_open }, outcome)
}

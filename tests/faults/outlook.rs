//! A service that locks, and what it sees of a Redis that is ill.

use std::{
    error::Error,
    fmt::{Debug, Display},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use spool_lock::{
    AcquireError, Circuit, CircuitState, Config, Fault, Health, HealthStatus, Holder, Lease, Mode,
    SpoolLocks, Tag,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) async fn connect(url: &str, tune: impl FnOnce(&mut Config)) -> SpoolLocks {
    let mut config = Config::new(url).expect("an address");
    tune(&mut config);
    SpoolLocks::connect(config).await.expect("healthy")
}

pub(crate) fn tag(number: usize) -> Tag {
    Tag::new(format!("TEST-{number:02}")).expect("a tag")
}

pub(crate) fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

/// The answer of an acquire in its first poll.
pub(crate) fn acquire_at_once(locks: &SpoolLocks, number: usize) -> AcquireError {
    let (tag, worker) = (tag(number), worker());
    let answer = locks.acquire(&tag, &worker).into_future().now_or_never();
    answer.expect("refused in the first poll").expect_err("refused")
}

/// What a call is told that is refused without asking Redis.
pub(crate) struct Refused {
    pub(crate) mode: Mode,
    pub(crate) fault: Fault,
}

/// Asserts that acquires are refused in their first poll, and says in which words.
#[track_caller]
pub(crate) fn assert_refused(locks: &SpoolLocks, number: usize) -> Refused {
    match acquire_at_once(locks, number) {
        AcquireError::Unavailable { mode, retry_after, fault, .. } => {
            assert!(!retry_after.is_zero() && retry_after <= 30 * SECOND, "{retry_after:?}");
            assert_eq!(fault.retry_after(), Some(retry_after));
            Refused { mode, fault }
        }
        other => panic!("it is to be refused: {other:?}"),
    }
}

/// An error and all that stands behind it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let (mut said, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    said
}

/// How often a circuit has gone over to a state.
pub(crate) fn times(circuit: &Circuit, state: CircuitState) -> u64 {
    circuit.stats().transitions_total.get(state.as_str()).copied().unwrap_or_default()
}

/// Asserts that a circuit has never been other than closed.
#[track_caller]
pub(crate) fn assert_stayed_closed(circuit: &Circuit) {
    let stats = circuit.stats();
    let is_untouched = stats.transitions_total.values().all(|count| *count == 0);
    assert!(
        circuit.state() == CircuitState::Closed && is_untouched && stats.rejected_total == 0,
        "{stats:?}"
    );
}

/// Asks for the lock until it is granted, and says how long that took.
pub(crate) async fn first_success(locks: &SpoolLocks, number: usize) -> (Duration, Lease) {
    let asked = Instant::now();
    loop {
        match locks.acquire(&tag(number), &worker()).await {
            Ok(lease) => return (asked.elapsed(), lease),
            Err(error) => assert!(asked.elapsed() < SOON, "{}", chain(&error)),
        }
        sleep(millis(10)).await;
    }
}

/// Asserts what health says of a Redis that is ill, and returns the words for it.
#[track_caller]
pub(crate) fn assert_ill(health: &Health, status: HealthStatus, mode: Mode) -> String {
    assert_eq!((health.status, health.operational, health.details.mode), (status, false, mode), "{health:?}");
    health.details.redis_error.clone().expect("it says what is wrong")
}

/// Asserts what the metrics say of a circuit.
#[cfg(feature = "prometheus")]
#[track_caller]
pub(crate) fn assert_measured(locks: &SpoolLocks, name: &str, state: CircuitState, is_forced: bool) {
    let mut page = spool_lock::metrics::Page::new();
    page.add_snapshot(&locks.snapshot(), None);
    let (page, forced) = (page.render(), u8::from(is_forced));
    for state_or_not in CircuitState::ALL {
        let (label, value) = (state_or_not.as_str(), u8::from(state_or_not == state));
        let sample = format!("spool_breaker_state{{breaker=\"{name}\",state=\"{label}\"}} {value}\n");
        assert!(page.contains(&sample), "{sample}{page}");
    }
    let sample = format!("spool_breaker_forced{{breaker=\"{name}\"}} {forced}\n");
    assert!(page.contains(&sample), "{sample}{page}");
}

/// There are none.
#[cfg(not(feature = "prometheus"))]
pub(crate) fn assert_measured(_: &SpoolLocks, _: &str, _: CircuitState, _: bool) {}

/// Asserts that all is well.
pub(crate) async fn assert_well(locks: &SpoolLocks) {
    let health = locks.health().await;
    assert_eq!((health.status, health.operational), (HealthStatus::Healthy, true), "{health:?}");
    assert_eq!((locks.mode(), health.details.redis_error), (Mode::Normal, None));
}

/// Hears every mode that the locks are in, until it is asked.
pub(crate) struct Modes {
    ends: Arc<AtomicBool>,
    listening: JoinHandle<Vec<Mode>>,
}

impl Modes {
    pub(crate) fn of(locks: &SpoolLocks) -> Self {
        let (ends, mut watch) = (Arc::new(AtomicBool::new(false)), locks.watch_mode());
        let is_over = ends.clone();
        let listening = tokio::spawn(async move {
            let mut heard = Vec::new();
            loop {
                tokio::select! {
                    mode = watch.changed() => heard.extend(mode),
                    () = sleep(millis(20)), if is_over.load(Relaxed) => return heard,
                    () = sleep(millis(20)) => {}
                }
            }
        });
        Self { ends, listening }
    }

    /// Those that were entered since, in their order.
    pub(crate) async fn entered(self) -> Vec<Mode> {
        self.ends.store(true, Relaxed);
        self.listening.await.expect("no panic")
    }
}

/// Asserts that an error's words have a part.
#[track_caller]
pub(crate) fn assert_says(said: &(impl Display + Debug), part: &str) {
    assert!(said.to_string().contains(part), "{said:?} does not say {part:?}");
}

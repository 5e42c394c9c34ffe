//! A caller has little time, and Redis says nothing.

use std::time::Duration;

use spool_lock::{AcquireError, Config, FaultKind, Mode, ReadError, SpoolLocks};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    report::{self, Row},
    service::{holder, tag},
    support::{FaultProxy, RedisServer, eventually, proxy::Close},
};

const DEADLINE: Duration = Duration::from_millis(50);
const OVERDUE: Duration = Duration::from_millis(250);
/// Fewer than a connection carries at a time: all of them are sent, if one is open.
const CALLERS: usize = 12;
/// How long Redis is silent.
const LASTS: Duration = Duration::from_secs(1);
/// How soon after it nothing is left: the circuit closes, and what was abandoned is looked for and released.
const SWEPT_AFTER: Duration = Duration::from_secs(3);

const MUST: &str = "answers at 50 ms, 250 ms later at the latest; what was abandoned is swept";
const TIMEOUTS: &str = "the call's deadline 50 ms";

/// How Redis is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// Nothing passes.
    Both,
    /// Redis hears and does what it is told, and its answers come too late.
    Answers,
}

/// Where a caller who has 50 ms may be held up.
struct Scene {
    server: RedisServer,
    network: FaultProxy,
    locks: SpoolLocks,
}

impl Scene {
    async fn set(tune: impl FnOnce(&mut Config)) -> Self {
        let server = RedisServer::start();
        let network = FaultProxy::before(&server);
        let mut config = Config::new(&network.url()).expect("an address");
        tune(&mut config);
        let locks = SpoolLocks::connect(config).await.expect("healthy");
        // The server learns the scripts: from here on an acquire is one command.
        let lease = locks.acquire(&tag("FIRST"), &holder("93")).await.expect("it is free");
        locks.release_lease(&lease).await.expect("it is ours");
        Self { server, network, locks }
    }

    /// Acquires that are made at once, a tag each: how each ended, and when the latest did.
    async fn acquire(&self) -> (Vec<AcquireError>, Duration) {
        let mut calls = JoinSet::new();
        for number in 0..CALLERS {
            let locks = self.locks.clone();
            calls.spawn(async move {
                let (tag, holder) = (tag(&format!("WORK-{number}")), holder("93"));
                let began = Instant::now();
                let outcome = locks.acquire(&tag, &holder).deadline(DEADLINE).await;
                (outcome.expect_err("Redis says nothing"), began.elapsed())
            });
        }
        let (mut errors, mut latest) = (Vec::new(), Duration::ZERO);
        while let Some(call) = calls.join_next().await {
            let (error, took) = call.expect("no panic");
            assert!(took >= DEADLINE, "{took:?}: {error}");
            assert!(took <= DEADLINE + OVERDUE, "{took:?}: {error}");
            latest = latest.max(took);
            errors.push(error);
        }
        (errors, latest)
    }

    fn locks_left(&self) -> Vec<String> {
        self.server.query(&["KEYS", "spool:*:lock"])
    }

    /// Waits until no lock is left, and answers how long that took.
    async fn is_swept(&self) -> Duration {
        let healed = Instant::now();
        eventually(SWEPT_AFTER, async || match self.locks_left() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{} of {CALLERS} are left", left.len())),
        })
        .await;
        healed.elapsed()
    }
}

async fn is_answered_in_time(silence: Silence, row: &str, fault: &str) {
    let scene = Scene::set(|_| {}).await;
    match silence {
        Silence::Both => scene.network.blackhole(),
        Silence::Answers => scene.network.delay(2 * LASTS),
    }
    let silent = Instant::now();
    let (errors, latest) = scene.acquire().await;
    for error in &errors {
        let AcquireError::Ambiguous { fault, .. } = error else { panic!("{error:?}") };
        assert_eq!(fault.kind(), FaultKind::Timeout);
    }
    let granted = scene.locks_left().len();
    assert_eq!(granted, if silence == Silence::Answers { CALLERS } else { 0 });
    // Nobody wants what was granted.
    drop(errors);
    sleep((silent + LASTS).saturating_duration_since(Instant::now())).await;
    scene.network.heal();
    let swept = scene.is_swept().await;
    // Late requests have come by then, and were granted nothing.
    sleep(LASTS).await;
    assert_eq!(scene.locks_left(), Vec::<String>::new());
    eventually(SWEPT_AFTER, async || scene.locks.mode() == Mode::Normal).await;

    report::row(Row {
        row,
        fault,
        must: MUST,
        timeouts: TIMEOUTS,
        measured: &[
            ("answered", format!("after {latest:.1?} at the latest")),
            ("granted", format!("{granted} of {CALLERS}")),
            ("swept", format!("{swept:.1?} after the end")),
        ],
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_passes() {
    let fault = "nothing passes for 1 s";
    is_answered_in_time(Silence::Both, "deadline::nothing_passes", fault).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answers() {
    let fault = "Redis hears, and its answers come 2 s later";
    is_answered_in_time(Silence::Answers, "deadline::no_answers", fault).await;
}

/// The connections broke, and new ones stay silent: nothing can be sent, and nothing is ambiguous.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection() {
    let scene = Scene::set(|config| config.deadline = DEADLINE).await;
    scene.network.blackhole();
    scene.network.close_all(Close::Rst);
    eventually(LASTS, async || scene.locks.stats().pool.slots == 0).await;

    let (errors, latest) = scene.acquire().await;
    for error in &errors {
        let AcquireError::Unavailable { fault, .. } = error else { panic!("{error:?}") };
        assert_eq!(fault.kind(), FaultKind::CircuitOpen, "what this process holds is to be seen to first");
    }
    scene.locks.link_circuit().reset();
    let began = Instant::now();
    let looked = scene.locks.inspect(&tag("UNSEEN-01")).await;
    let looked_for = began.elapsed();
    let Err(ReadError::Fault(fault)) = looked else { panic!("{looked:?}") };
    assert_eq!(fault.kind(), FaultKind::Connect);
    assert!(looked_for <= DEADLINE + OVERDUE, "{looked_for:?}");

    scene.network.heal();
    eventually(SWEPT_AFTER, async || scene.locks.acquire(&tag("WORK-00"), &holder("93")).await.map(drop))
        .await;
    assert_eq!(scene.locks_left().len(), 1, "and nothing of the others");

    report::row(Row {
        row: "deadline::no_connection",
        fault: "no connection is open, and new ones stay silent",
        must: MUST,
        timeouts: "the deadline of the config 50 ms",
        measured: &[("answered", format!("after {latest:.1?} at the latest, a look after {looked_for:.1?}"))],
    });
}

/// Nothing is open over which silence could be noticed: a call that waits for a connection is noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_silent_to_new_connections_is_found_within_two_seconds() {
    const SECOND: Duration = Duration::from_secs(1);
    let server = RedisServer::start();
    let network = FaultProxy::before(&server);
    let locks = SpoolLocks::connect(Config::new(&network.url()).expect("an address")).await.expect("healthy");
    network.blackhole();
    network.close_all(Close::Rst);
    eventually(SECOND, async || locks.stats().pool.slots == 0).await;
    let began = Instant::now();
    let call = tokio::spawn({
        let locks = locks.clone();
        async move { locks.acquire(&tag("NEVER-SEEN"), &holder("93")).await }
    });
    eventually(4 * SECOND, async || locks.mode() == Mode::Unreachable).await;
    let found = began.elapsed();
    assert!(found < 2 * SECOND, "{found:?}");
    network.heal();
    eventually(10 * SECOND, async || locks.mode() == Mode::Normal).await;
    drop(call.await.expect("no panic"));
}

//! Set up in a way that only an operator can mend: the password was changed, or a right taken away.
//!
//! All timeouts are the defaults, but for the ttl of the guards, which is short where renewals are to be due while nothing passes. No
//! release is deferred where it is to be told what is wrong.

use std::time::Duration;

use spool_lock::{
    AcquireError, CircuitState, ExtendError, ForceReleaseError, GuardReleaseError, GuardState, HealthStatus,
    LockGuard, Mode, ReadError, ReleaseError, Source, SpoolLocks, Ttl,
};
use tokio::time::{Instant, sleep};

use super::{
    outlook::*,
    report::{self, Row},
    support::{FaultProxy, RedisServer, eventually},
};

/// How often Redis is tried while nothing will change until an operator acts.
const PAUSE: Duration = Duration::from_secs(30);

const MUST: &str = "Misconfigured, one try per 30 s, the message says what to grant";

/// A server with a password, and a service whose every byte is seen.
struct Locked {
    server: RedisServer,
    proxy: FaultProxy,
    locks: SpoolLocks,
}

impl Locked {
    async fn open() -> Self {
        let server = RedisServer::builder().password("sesame").start();
        let proxy = FaultProxy::before(&server);
        let locks = connect(&proxy.url(), |config| config.deferred = 0).await;
        Self { server, proxy, locks }
    }

    /// Changes the password and cuts everybody off. Waits until that is known: a call that is cut off may have been carried out.
    async fn change_password(&self) {
        self.server.cmd(&["CONFIG", "SET", "requirepass", "changed"]);
        for kind in ["normal", "pubsub"] {
            self.server.cmd(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
        }
        eventually(SOON, async || self.locks.stats().pool.slots == 0).await;
    }

    fn change_it_back(&self) {
        self.server.cmd(&["CONFIG", "SET", "requirepass", "sesame"]);
    }

    /// What has reached the server: connections, those that said a password, and all that was sent.
    fn tries(&self) -> (usize, u64, u64) {
        (self.proxy.connections_opened(), self.proxy.requests("HELLO"), self.proxy.frames_to_server())
    }

    async fn guard(&self, number: usize, ttl: Duration) -> LockGuard {
        let ttl = Ttl::new(ttl).expect("a ttl");
        let guard = self.locks.guard(&tag(number), &worker()).ttl(ttl).await.expect("it is free");
        // The lane that is kept for its renewals, beside the first.
        eventually(SOON, async || self.proxy.connections_open() >= 2).await;
        guard
    }
}

/// Makes every call, and asserts that each is told that an operator has to act. Returns what the first says.
async fn every_call_is_refused(locks: &SpoolLocks) -> String {
    let (held, unknown, worker) = (tag(1), tag(99), worker());
    let said = match locks.acquire(&unknown, &worker).await {
        Err(error @ AcquireError::Misconfigured(_)) => chain(&error),
        other => panic!("{other:?}"),
    };
    let extended = locks.extend(&held, &worker, Ttl::HOUR).await;
    assert!(matches!(extended, Err(ExtendError::Misconfigured(_))), "{extended:?}");
    let released = locks.release(&held, &worker).await;
    assert!(matches!(released, Err(ReleaseError::Misconfigured(_))), "{released:?}");
    let forced = locks.force_release(&held, "operator", "test").await;
    assert!(matches!(forced, Err(ForceReleaseError::Misconfigured(_))), "{forced:?}");
    let read = locks.inspect(&unknown).await;
    assert!(matches!(read, Err(ReadError::Misconfigured(_))), "{read:?}");
    let watched = locks.watch_tag(&unknown).await;
    assert!(matches!(watched, Err(ReadError::Misconfigured(_))), "{watched:?}");
    assert_eq!(locks.inspect(&held).await.expect("it is known").source, Source::Snapshot);
    said
}

/// Asserts that the next try is some 30 s away.
#[track_caller]
fn assert_pauses(locks: &SpoolLocks, since: Instant) {
    let left = locks.link_circuit().retry_after();
    let paused = since.elapsed() + left;
    assert!(
        paused > PAUSE - millis(500) && left <= PAUSE,
        "{left:?} left, {:?} after the fault",
        since.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_password_was_changed_nothing_passes_until_the_next_probe_finds_it_right() {
    let locked = Locked::open().await;
    let locks = &locked.locks;
    locks.acquire(&tag(1), &worker()).await.unwrap();
    // Renewed each 3 s, so that renewals are due while nothing passes, and a release too.
    let (guard, given_back) = (locked.guard(2, 9 * SECOND).await, locked.guard(3, 9 * SECOND).await);
    let _watch = locks.watch_tag(&tag(1)).await.unwrap();
    let (before, modes) = (locked.tries(), Modes::of(locks));

    locked.change_password().await;
    let began = Instant::now();
    let said = every_call_is_refused(locks).await;
    assert_says(&said, "invalid username-password pair");
    let first = locked.tries();
    assert!(first.0 - before.0 <= 3, "one lane, the kept one and the feed: {} dials", first.0 - before.0);
    assert_pauses(locks, began);

    let released = given_back.release().await;
    assert!(matches!(released, Err(GuardReleaseError::Unconfirmed(_))), "{released:?}");
    // What was under way when the fault was found has ended.
    eventually(SECOND, async || locked.proxy.connections_open() == 0).await;
    let (quiet, mut calls) = (locked.tries(), 0);
    while began.elapsed() < 5 * SECOND {
        every_call_is_refused(locks).await;
        let said = assert_ill(&locks.health().await, HealthStatus::Unhealthy, Mode::Unreachable);
        assert_says(&said, "invalid username-password pair");
        calls += 1;
        sleep(millis(50)).await;
    }
    assert!(calls > 10 && matches!(guard.state(), GuardState::Jeopardy { .. }), "{:?}", guard.state());
    assert_eq!(locked.tries(), quiet, "nothing was sent, neither calls nor renewals nor releases");
    assert_eq!(quiet.0, first.0, "and nothing dialled");
    assert_pauses(locks, began);

    locked.change_it_back();
    eventually(PAUSE, async || locks.mode() == Mode::Normal).await;
    let took = began.elapsed();
    assert!(took > PAUSE - SECOND && took < PAUSE + SECOND, "by the probe that was due: {took:?}");
    assert_well(locks).await;
    assert_eq!(modes.entered().await, [Mode::Unreachable, Mode::Normal]);
    eventually(SOON, async || locks.acquire(&tag(3), &worker()).await).await;
    report::row(Row {
        row: "setup::password",
        fault: "the password is changed, and connections are cut",
        must: MUST,
        timeouts: "guard ttl 9 s",
        measured: &[
            ("dials until it was known", (first.0 - before.0).to_string()),
            ("calls in 5 s of which nothing was sent", (calls * 7).to_string()),
            ("closed by the probe after", format!("{took:.1?}")),
        ],
    });
}

/// Each 250 ms a lane was dialled for the guards, with the wrong password.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_not_tried_again_for_the_lane_that_guards_want() {
    let locked = Locked::open().await;
    let _guard = locked.guard(1, 60 * SECOND).await;
    let _watch = locked.locks.watch_tag(&tag(1)).await.unwrap();
    let before = locked.tries();
    locked.change_password().await;
    // Nobody calls: it is the pool and the feed alone that would try.
    sleep(3 * SECOND).await;
    let dials = locked.tries().0 - before.0;
    assert!((1..=3).contains(&dials), "{dials} dials in 3 s");

    locked.change_it_back();
    locked.locks.link_circuit().reset();
    locked.locks.acquire(&tag(2), &worker()).await.unwrap();
    eventually(SOON, async || locked.proxy.connections_open() >= 3).await;
}

/// The password was changed and nobody was cut off: what is connected goes on, and what is not does not try all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_that_are_open_go_on_with_the_old_password() {
    let locked = Locked::open().await;
    locked.locks.acquire(&tag(1), &worker()).await.unwrap();
    locked.server.cmd(&["CONFIG", "SET", "requirepass", "changed"]);
    let before = locked.tries();
    // It wants a lane of its own, and whoever watches a connection.
    let guard = locked.locks.guard(&tag(2), &worker()).await.unwrap();
    let watched = locked.locks.watch_tag(&tag(1)).await;
    assert!(watched.is_err(), "{watched:?}");
    let began = Instant::now();
    while began.elapsed() < 2 * SECOND {
        locked.locks.extend(&tag(1), &worker(), Ttl::HOUR).await.unwrap();
        assert_eq!(locked.locks.inspect(&tag(1)).await.unwrap().source, Source::Live);
        sleep(millis(20)).await;
    }
    let dials = locked.tries().0 - before.0;
    assert!(dials <= 2, "{dials} dials");
    assert_stayed_closed(locked.locks.link_circuit());
    guard.release().await.unwrap();
}

#[tokio::test]
async fn a_user_who_may_run_no_script_is_told_so_and_an_operator_mends_it() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    server.cmd(&["ACL", "SETUSER", "svc", "on", ">sesame", "~*", "&*", "+@all"]);
    let url = proxy.url().replace("redis://", "redis://svc:sesame@");
    let locks = connect(&url, |config| config.deferred = 0).await;
    let lease = locks.acquire(&tag(1), &worker()).await.unwrap();

    server.cmd(&["ACL", "SETUSER", "svc", "-evalsha", "-eval"]);
    let began = Instant::now();
    let said = every_call_is_refused(&locks).await;
    assert_says(&said.to_lowercase(), "no permissions to run the 'evalsha' command");
    let sent = proxy.frames_to_server();
    for _ in 0..20 {
        every_call_is_refused(&locks).await;
        let said = assert_ill(&locks.health().await, HealthStatus::Unhealthy, Mode::Unreachable);
        assert_says(&said, "evalsha");
        sleep(millis(50)).await;
    }
    assert_eq!(proxy.frames_to_server(), sent, "it is not asked");
    assert_pauses(&locks, began);

    server.cmd(&["ACL", "SETUSER", "svc", "+evalsha", "+eval"]);
    locks.link_circuit().reset();
    let mended = Instant::now();
    locks.release_lease(&lease).await.unwrap();
    assert_well(&locks).await;
    report::row(Row {
        row: "setup::rights",
        fault: "the user may not run EVALSHA any more",
        must: MUST,
        timeouts: "all defaults",
        measured: &[
            ("said", said),
            ("sent in 1 s of calls", "nothing".to_owned()),
            ("first success after reset", format!("{:.0?}", mended.elapsed())),
        ],
    });
}

#[tokio::test]
async fn a_right_that_one_script_lacks_stops_nothing_else() {
    let server = RedisServer::start();
    server.cmd(&["ACL", "SETUSER", "svc", "on", ">sesame", "~*", "&*", "+@all", "-lrange"]);
    let url = server.url().replace("redis://", "redis://svc:sesame@");
    let locks = connect(&url, |config| config.history.enabled = true).await;
    for _ in 0..5 {
        match locks.history(&tag(1)).await {
            Err(error @ ReadError::Misconfigured(_)) => assert_says(&chain(&error), "can't run this command"),
            other => panic!("{other:?}"),
        }
        locks.acquire(&tag(1), &worker()).await.unwrap();
        assert_eq!(locks.inspect(&tag(1)).await.unwrap().source, Source::Live);
        locks.release(&tag(1), &worker()).await.unwrap();
    }
    assert_stayed_closed(locks.link_circuit());
    assert_stayed_closed(locks.writes_circuit());
    assert_well(&locks).await;
}

/// An acquire that lacks a right within its script is refused; reads, extends and releases go on.
#[tokio::test]
async fn a_right_that_acquires_lack_stops_acquires_alone() {
    let server = RedisServer::start();
    server.cmd(&["ACL", "SETUSER", "svc", "on", ">sesame", "~*", "&*", "+@all"]);
    let url = server.url().replace("redis://", "redis://svc:sesame@");
    let locks = connect(&url, |_| {}).await;
    locks.acquire(&tag(1), &worker()).await.unwrap();
    server.cmd(&["ACL", "SETUSER", "svc", "-zrange"]);
    let refused = locks.health().await;
    assert_says(&assert_ill(&refused, HealthStatus::Degraded, Mode::ReadOnlyServer), "may not run zrange");
    match acquire_at_once(&locks, 2) {
        error @ AcquireError::Misconfigured(_) => assert_says(&chain(&error), "may not run zrange"),
        other => panic!("{other:?}"),
    }
    let left = locks.writes_circuit().retry_after();
    assert!(left > PAUSE - SECOND && left <= PAUSE, "{left:?}");
    assert_eq!(locks.inspect(&tag(1)).await.unwrap().source, Source::Live);
    locks.release(&tag(1), &worker()).await.unwrap();
    assert_eq!(locks.link_circuit().state(), CircuitState::Closed);

    server.cmd(&["ACL", "SETUSER", "svc", "+zrange"]);
    locks.writes_circuit().reset();
    locks.acquire(&tag(2), &worker()).await.unwrap();
    assert_well(&locks).await;
}

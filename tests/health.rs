//! Health tells the truth, of Redis and of whatever else the service stands on, and tells it within a second.

#![cfg(all(feature = "memory", feature = "serde"))]

mod support;

use std::{
    future::pending,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use spool_lock::{
    Config, Connect, ConnectError, ConnectionState, FallbackReading, Health, HealthStatus, Mode, Occupant,
    ReadFallback, SpoolLocks, Tag,
};
use support::{FaultProxy, RedisServer, eventually, free_port};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

/// A check may take a second; the rest is for a busy machine.
const AT_MOST: Duration = Duration::from_millis(1250);

fn memory() -> Connect {
    SpoolLocks::connect(Config::new("memory://").expect("an address"))
}

fn redis(url: &str) -> Connect {
    SpoolLocks::connect(Config::new(url).expect("an address"))
}

async fn works() -> Result<(), io::Error> {
    Ok(())
}

async fn fails() -> Result<(), io::Error> {
    Err(io::Error::other("quota exceeded"))
}

async fn never_ends() -> Result<(), io::Error> {
    pending().await
}

fn json_of(health: &Health) -> Value {
    serde_json::to_value(health).expect("JSON")
}

/// The report without what differs each time: when it was made, and the pool.
fn plain_json_of(health: &Health) -> Value {
    let mut json = json_of(health);
    assert!(json["details"]["redis_pool_stats"]["max_connections"].is_u64(), "{json}");
    json.as_object_mut().expect("an object").remove("timestamp").expect("it says when");
    json["details"].as_object_mut().expect("an object").remove("redis_pool_stats");
    json
}

fn state(health: &Health, name: &str) -> ConnectionState {
    health.connections[&format!("{name}_connection")]
}

#[tokio::test]
async fn when_all_is_well_the_report_says_so_and_no_more() {
    let server = RedisServer::start();
    let locks = redis(&server.url()).dependency("sheets", works).dependency("mail_2", works).await.unwrap();
    let expected = json!({
        "status": "healthy", "operational": true, "redis_connection": "ok", "sheets_connection": "ok",
        "mail_2_connection": "ok", "details": { "mode": "normal" },
    });
    assert_eq!(plain_json_of(&locks.health().await), expected);
}

#[tokio::test]
async fn when_redis_is_gone_and_the_ledger_works_it_is_the_report_of_the_incident() {
    let server = RedisServer::start();
    let locks = redis(&server.url()).dependency("sheets", works).await.unwrap();
    server.kill9();
    let health = locks.health().await;
    let redis_error = health.details.redis_error.clone().expect("Redis is gone");
    let expected = json!({
        "status": "degraded", "operational": false, "sheets_connection": "ok", "redis_connection": "error",
        "details": { "redis_error": redis_error, "mode": "unreachable" },
    });
    assert_eq!(plain_json_of(&health), expected);

    server.restart();
    let seen = async || locks.health().await.status == HealthStatus::Healthy;
    eventually(5 * SECOND, seen).await;
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_can_be_read_so_it_is_degraded_by_itself() {
    let server = RedisServer::start();
    let (locks, broken) =
        tokio::try_join!(redis(&server.url()), redis(&server.url()).dependency("sheets", fails)).unwrap();
    server.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    let expected = json!({
        "status": "degraded", "operational": false, "redis_connection": "error",
        "details": { "redis_error": "the memory of redis is full", "mode": "read_only_server" },
    });
    assert_eq!(plain_json_of(&locks.health().await), expected);
    assert_eq!(broken.health().await.status, HealthStatus::Degraded, "Redis itself is read");
}

#[tokio::test]
async fn a_dependency_that_fails_says_why() {
    let locks = memory().dependency("sheets", fails).dependency("mail", works).await.unwrap();
    let health = locks.health().await;
    let expected = json!({
        "status": "unhealthy", "operational": true, "redis_connection": "ok", "sheets_connection": "error",
        "mail_connection": "ok",
        "details": { "mode": "normal", "dependencies": { "sheets": "quota exceeded" } },
    });
    assert_eq!(plain_json_of(&health), expected);
    let read: Health = serde_json::from_value(json_of(&health)).unwrap();
    assert_eq!(json_of(&read), json_of(&health), "what is written can be read");
}

#[tokio::test(start_paused = true)]
async fn checks_run_side_by_side() {
    let slow = || async {
        sleep(Duration::from_millis(900)).await;
        works().await
    };
    let mut connect = memory();
    for name in ["a", "b", "c", "d", "e"] {
        connect = connect.dependency(name, slow);
    }
    let locks = connect.await.unwrap();
    let asked = Instant::now();
    assert_eq!(locks.health().await.status, HealthStatus::Healthy);
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_check_that_never_ends_is_given_a_second() {
    let locks = memory().dependency("sheets", never_ends).dependency("mail", works).await.unwrap();
    let asked = Instant::now();
    let health = locks.health().await;
    assert!((SECOND..AT_MOST).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    assert_eq!(health.details.dependencies["sheets"], "no answer within 1s");
    assert_eq!(
        (state(&health, "sheets"), state(&health, "mail")),
        (ConnectionState::Error, ConnectionState::Ok)
    );
}

#[tokio::test]
async fn whatever_hangs_health_answers_within_a_second() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = redis(&proxy.url()).dependency("sheets", never_ends).dependency("mail", works).await.unwrap();
    proxy.blackhole();
    for _ in 0..3 {
        let asked = Instant::now();
        let health = locks.health().await;
        assert!(asked.elapsed() < AT_MOST, "{:?}", asked.elapsed());
        assert_eq!((health.status, health.details.mode), (HealthStatus::Unhealthy, Mode::Unreachable));
        assert_eq!(state(&health, "mail"), ConnectionState::Ok);
    }
}

/// Its text cannot be had either.
struct NoText;

impl std::fmt::Display for NoText {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("wherever a check goes wrong")
    }
}

#[tokio::test]
async fn a_check_that_panics_has_failed_and_nothing_else_has() {
    let at_once = || -> std::future::Ready<Result<(), io::Error>> { panic!("wherever a check goes wrong") };
    let later = || async {
        tokio::task::yield_now().await;
        assert!(Instant::now().elapsed() > SECOND, "wherever a check goes wrong");
        works().await
    };
    let locks = memory()
        .dependency("at_once", at_once)
        .dependency("later", later)
        .dependency("text", || async { Err(NoText) })
        .dependency("mail", works)
        .await
        .unwrap();
    // Beyond the third one their circuits answer.
    for _ in 0..4 {
        let health = locks.health().await;
        assert!(health.operational);
        assert_eq!(state(&health, "mail"), ConnectionState::Ok);
        for name in ["at_once", "later", "text"] {
            assert_eq!(health.details.dependencies[name], "its check panicked", "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_is_down_is_left_alone_and_seen_again_within_5_s() {
    let (is_up, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let check = {
        let (is_up, calls) = (is_up.clone(), calls.clone());
        move || {
            let (is_up, call) = (is_up.load(Relaxed), calls.fetch_add(1, Relaxed) + 1);
            async move { if is_up { Ok(()) } else { Err(format!("failed at call {call}")) } }
        }
    };
    let locks = memory().dependency("sheets", check).await.unwrap();
    // One report each 100 ms.
    let next = async || {
        sleep(Duration::from_millis(100)).await;
        locks.health().await
    };
    for _ in 0..20 {
        assert_eq!(state(&next().await, "sheets"), ConnectionState::Ok);
    }
    assert_eq!(calls.swap(0, Relaxed), 20, "what works is asked each time");

    is_up.store(false, Relaxed);
    for report in 1..=300 {
        let health = next().await;
        let last = calls.load(Relaxed);
        assert!(report > 3 || last == report, "the first three failures are its own");
        assert_eq!(health.details.dependencies["sheets"], format!("failed at call {last}"));
    }
    // 3, and one after each interval: the half of 250 ms, 500 ms, 1 s and from then on 2 s at least, the whole at most.
    let calls_while_down = calls.load(Relaxed);
    assert!((15..=36).contains(&calls_while_down), "{calls_while_down} calls in 30 s");

    is_up.store(true, Relaxed);
    let mended = Instant::now();
    eventually(5 * SECOND, async || state(&next().await, "sheets") == ConnectionState::Ok).await;
    assert!(
        mended.elapsed() < Duration::from_millis(2200),
        "an interval and a report: {:?}",
        mended.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn while_one_report_asks_the_others_repeat_what_was_said_last() {
    let (hangs, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let check = {
        let (hangs, calls) = (hangs.clone(), calls.clone());
        move || {
            let hangs = hangs.load(Relaxed);
            calls.fetch_add(1, Relaxed);
            async move { if hangs { never_ends().await } else { fails().await } }
        }
    };
    let locks = memory().dependency("sheets", check).await.unwrap();
    for _ in 0..3 {
        locks.health().await;
    }
    hangs.store(true, Relaxed);
    sleep(SECOND / 4).await;
    let probe = tokio::spawn({
        let locks = locks.clone();
        async move { locks.health().await }
    });
    eventually(SECOND / 2, async || calls.load(Relaxed) == 4).await;
    let asked = Instant::now();
    for _ in 0..100 {
        assert_eq!(locks.health().await.details.dependencies["sheets"], "quota exceeded");
    }
    assert_eq!((asked.elapsed(), calls.load(Relaxed)), (Duration::ZERO, 4));
    assert_eq!(probe.await.unwrap().details.dependencies["sheets"], "no answer within 1s");
}

#[tokio::test(start_paused = true)]
async fn a_report_that_is_dropped_ends_its_checks_and_counts_neither_way() {
    struct Leaves(Arc<AtomicU32>);
    impl Drop for Leaves {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let (is_up, left) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let check = {
        let (is_up, left) = (is_up.clone(), left.clone());
        move || {
            let (is_up, leaves) = (is_up.load(Relaxed), Leaves(left.clone()));
            async move {
                let _leaves = leaves;
                if is_up { works().await } else { never_ends().await }
            }
        }
    };
    let locks = memory().dependency("sheets", check).await.unwrap();
    for _ in 0..10 {
        timeout(SECOND / 10, locks.health()).await.expect_err("it is dropped before its check is over");
    }
    eventually(SECOND / 2, async || left.load(Relaxed) == 10).await;
    is_up.store(true, Relaxed);
    assert_eq!(state(&locks.health().await, "sheets"), ConnectionState::Ok, "its circuit is closed");
}

#[tokio::test]
async fn a_name_that_no_report_can_have_is_refused_before_anything_is_opened() {
    // Nobody listens there: what is refused for its name was not connected.
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let long = "x".repeat(33);
    for name in ["", "Sheets", "shéets", "google sheets", "google-sheets", "a.b", "a\n", &long] {
        match redis(&nowhere).dependency(name, works).await {
            Err(ConnectError::Config(error)) => {
                assert_eq!((&*error.variable, &*error.value), ("dependency", name));
                assert_eq!(error.right, "1 to 32 of a-z 0-9 _ can");
            }
            other => panic!("{name:?}: {other:?}"),
        }
    }
    let refused = |outcome: Result<SpoolLocks, ConnectError>| outcome.unwrap_err().to_string();
    assert_eq!(
        refused(redis(&nowhere).dependency("redis", works).await),
        "dependency: \"redis\" cannot be used; redis is asked anyway"
    );
    let twice = redis(&nowhere).dependency("a", works).dependency("b", works).dependency("a", fails);
    assert_eq!(refused(twice.await), "dependency: \"a\" cannot be used; another one has that name");

    let longest = "_09az".repeat(7)[..32].to_owned();
    let locks = memory().dependency(&longest, works).dependency("_", works).await.unwrap();
    assert_eq!(locks.health().await.connections.len(), 3);
}

#[tokio::test]
async fn connect_is_awaited_like_any_future() {
    let (one, two) = tokio::join!(memory(), memory().dependency("sheets", works));
    one.unwrap().health().await;
    two.unwrap().health().await;
    timeout(SECOND, memory()).await.unwrap().unwrap();
    let spawned = tokio::spawn(memory().dependency("sheets", works).into_future());
    assert_eq!(spawned.await.unwrap().unwrap().health().await.status, HealthStatus::Healthy);
}

#[tokio::test]
async fn a_connect_that_is_dropped_leaves_nothing_open() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    drop(redis(&proxy.url()));
    assert_eq!(proxy.connections_opened(), 0, "nothing is opened before it is awaited");
    proxy.delay(SECOND);
    timeout(SECOND / 2, redis(&proxy.url())).await.expect_err("the replies take longer");
    proxy.heal();
    eventually(5 * SECOND, async || proxy.connections_open() == 0).await;
}

struct Nobody;

impl ReadFallback for Nobody {
    fn inspect<'a>(&'a self, _: &'a Tag) -> FallbackReading<'a, Option<Occupant>> {
        Box::pin(async { None })
    }

    fn list(&self) -> FallbackReading<'_, Vec<Occupant>> {
        Box::pin(async { None })
    }
}

#[tokio::test]
async fn options_come_in_any_order() {
    let locks =
        memory().read_fallback(Nobody).dependency("sheets", works).read_fallback(Nobody).await.unwrap();
    assert_eq!(locks.health().await.status, HealthStatus::Healthy);
}

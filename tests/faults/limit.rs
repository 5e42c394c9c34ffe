//! Turned away at the server's client limit: with lanes, and without any. All timeouts are the defaults, `depth` is 1, so that each
//! call wants a lane.

use std::time::Duration;

use spool_lock::{
    AcquireError, CircuitState, Config, HealthStatus, LimitReason, Mode, ReadError, SpoolLocks,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    outlook::*,
    report::{self, Row},
    support::{FaultProxy, RedisServer, eventually},
};

const WORKERS: usize = 20;
const LASTS: Duration = Duration::from_secs(3);
const MUST: &str = "serves from the lanes it has; no flapping; says so";
const TURNED_AWAY: [LimitReason; 2] = [LimitReason::MaxClients, LimitReason::ClosedInHandshake];

fn one_call_a_lane(config: &mut Config) {
    config.pool.depth = 1;
}

/// Workers take a lock each and give it back, over and over. Says how often.
async fn work(locks: &SpoolLocks, workers: usize, lasts: Duration) -> u64 {
    let (mut crew, until) = (JoinSet::new(), Instant::now() + lasts);
    for number in 0..workers {
        let locks = locks.clone();
        crew.spawn(async move {
            let mut rounds = 0;
            while Instant::now() < until {
                locks.acquire(&tag(number), &worker()).await.expect("a lane comes free");
                locks.release(&tag(number), &worker()).await.expect("a lane comes free");
                rounds += 1;
            }
            rounds
        });
    }
    crew.join_all().await.into_iter().sum()
}

/// Twenty workers want twenty lanes, and those that the server has room for serve them all. Says how often.
async fn are_served_by(lanes: u32, locks: &SpoolLocks) -> u64 {
    let working = tokio::spawn({
        let locks = locks.clone();
        async move { work(&locks, WORKERS, LASTS).await }
    });
    eventually(SOON, async || locks.stats().pool.limit == lanes).await;
    // Dials that were under way together may have been counted one after the other.
    sleep(SECOND / 2).await;
    while !working.is_finished() {
        let pool = locks.stats().pool;
        assert_eq!(pool.limit, lanes, "it does not flap: {pool:?}");
        assert!(pool.limit_reason.is_some_and(|reason| TURNED_AWAY.contains(&reason)), "{pool:?}");
        sleep(millis(5)).await;
    }
    let rounds = working.await.expect("no panic");
    assert!(rounds > WORKERS as u64, "{rounds} rounds");
    assert_stayed_closed(locks.link_circuit());
    assert_stayed_closed(locks.writes_circuit());
    rounds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_more_lanes_are_turned_away_those_that_are_open_serve_everybody() {
    // One of them is the test's own.
    let server = RedisServer::builder().maxclients(4).start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), one_call_a_lane).await;
    let modes = Modes::of(&locks);
    let rounds = are_served_by(3, &locks).await;
    let lately = Instant::now() - 2 * SECOND;
    let late_dials = proxy.dials().into_iter().filter(|at| *at > lately).count();
    assert!(late_dials <= 4, "each after a longer pause: {:?}", proxy.dials());
    assert_eq!(locks.stats().pool.report.available_connections, 3, "of those that it can have");
    assert_well(&locks).await;
    assert_eq!(modes.entered().await, []);
    report::row(Row {
        row: "limit::grows",
        fault: "more connections are turned away at the client limit",
        must: MUST,
        timeouts: "depth 1",
        measured: &[
            ("lanes", "3 of 20".to_owned()),
            ("rounds in 3 s", rounds.to_string()),
            ("dials in the last 2 s", late_dials.to_string()),
        ],
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_limit_is_lowered_below_what_is_open_what_is_open_goes_on() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), one_call_a_lane).await;
    work(&locks, 4, millis(300)).await;
    let open = u32::try_from(server.clients().len()).expect("a few");
    assert!((2..10).contains(&open), "{open} lanes");
    server.cmd(&["CONFIG", "SET", "maxclients", "2"]);
    are_served_by(open, &locks).await;
    assert_well(&locks).await;
}

/// A feed that is turned away is one connection less, and says nothing of the lanes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_turned_away_opens_no_circuit() {
    let server = RedisServer::builder().maxclients(2).start();
    let locks = connect(&server.url(), one_call_a_lane).await;
    for _ in 0..5 {
        let watched = locks.watch_tag(&tag(1)).await;
        assert!(matches!(watched, Err(ReadError::Fault(_) | ReadError::Saturated)), "{watched:?}");
        sleep(millis(300)).await;
    }
    assert_stayed_closed(locks.link_circuit());
    locks.acquire(&tag(1), &worker()).await.unwrap();
    assert_well(&locks).await;
    server.cmd(&["CONFIG", "SET", "maxclients", "100"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_lane_the_link_opens_and_closes_by_itself_when_there_is_room() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), one_call_a_lane).await;
    let modes = Modes::of(&locks);
    // The test itself is the one client that it has room for.
    server.cmd(&["CONFIG", "SET", "maxclients", "1"]);
    server.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let mut calls = 0;
    while locks.link_circuit().state() == CircuitState::Closed {
        match locks.acquire(&tag(1), &worker()).await {
            // Refused where it waited until what this process holds is seen to, and that found out.
            Err(
                AcquireError::Fault(_) | AcquireError::Ambiguous { .. } | AcquireError::Unavailable { .. },
            ) => calls += 1,
            other => panic!("{other:?}"),
        }
        assert!(calls <= 3, "{calls} calls failed");
    }
    let refused = assert_refused(&locks, 1);
    assert_eq!(refused.mode, Mode::Unreachable);
    let words = |said: &str| said.contains("client limit") || said.contains("max number of clients");
    assert!(words(&chain(&refused.fault)), "{}", chain(&refused.fault));
    let said = assert_ill(&locks.health().await, HealthStatus::Unhealthy, Mode::Unreachable);
    assert!(words(&said), "{said}");

    sleep(2 * SECOND).await;
    assert_eq!(locks.mode(), Mode::Unreachable);
    assert!(proxy.peak_dials(SECOND) <= 5, "{:?}", proxy.dials());
    server.cmd(&["CONFIG", "SET", "maxclients", "100"]);
    let interval = locks.link_circuit().retry_after();
    let (took, _) = first_success(&locks, 1).await;
    assert!(took <= interval + SECOND, "{took:?} after there was room, the interval was {interval:?}");
    assert_eq!(modes.entered().await, [Mode::Unreachable, Mode::Normal]);
    assert_well(&locks).await;
    report::row(Row {
        row: "limit::no_lane",
        fault: "all connections are cut, and new ones turned away at the client limit",
        must: "the link opens, health says why, recovers by itself",
        timeouts: "depth 1",
        measured: &[
            ("failed calls until refused", calls.to_string()),
            ("health", said),
            ("most dials in a second", proxy.peak_dials(SECOND).to_string()),
            ("open interval at the end", format!("{interval:.0?}")),
            ("first success after", format!("{took:.0?}")),
        ],
    });
}

//! Opened or closed by hand, and given back. All timeouts are the defaults.

use spool_lock::{
    AcquireError, CircuitState, FaultKind, HealthStatus, Mode, ReadError, ReleaseError, Source, Ttl,
};
use tokio::time::sleep;

use super::{
    outlook::*,
    report::{self, Row},
    support::{FaultProxy, RedisServer, eventually, proxy::Close},
};

const BY_HAND: &str = "by hand";
const MUST: &str = "as named; visible in metrics and health";

#[tokio::test]
async fn a_link_that_was_opened_by_hand_lets_releases_through_and_nothing_else() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |_| {}).await;
    for number in 1..=2 {
        locks.acquire(&tag(number), &worker()).await.unwrap();
    }
    let link = locks.link_circuit();
    link.force_open();
    assert_eq!((link.state(), link.is_forced(), locks.mode()), (CircuitState::Open, true, Mode::Unreachable));
    assert_measured(&locks, "link", CircuitState::Open, true);
    let sent = proxy.frames_to_server();
    let refused = assert_refused(&locks, 3);
    assert_eq!(refused.mode, Mode::Unreachable);
    assert_says(&chain(&refused.fault), BY_HAND);
    match locks.inspect(&tag(3)).await {
        Err(ReadError::Unavailable { mode, .. }) => assert_eq!(mode, Mode::Unreachable),
        other => panic!("{other:?}"),
    }
    assert_eq!(locks.inspect(&tag(1)).await.unwrap().source, Source::Snapshot);
    let said = assert_ill(&locks.health().await, HealthStatus::Unhealthy, Mode::Unreachable);
    assert_says(&said, BY_HAND);
    // The first probe would be due after 250 ms at most.
    sleep(SECOND).await;
    assert_eq!(proxy.frames_to_server(), sent, "neither calls nor probes");

    locks.release(&tag(1), &worker()).await.unwrap();
    locks.extend(&tag(2), &worker(), Ttl::HOUR).await.unwrap();
    assert!(proxy.frames_to_server() > sent);
    assert_eq!((link.state(), link.is_forced()), (CircuitState::Open, true), "their success changes nothing");

    link.reset();
    assert_eq!((link.state(), link.is_forced(), locks.mode()), (CircuitState::Closed, false, Mode::Normal));
    assert_measured(&locks, "link", CircuitState::Closed, false);
    locks.acquire(&tag(3), &worker()).await.unwrap();
    assert_well(&locks).await;
    report::row(Row {
        row: "forced::open",
        fault: "link opened by hand",
        must: MUST,
        timeouts: "all defaults",
        measured: &[("sent in 1 s", "nothing".to_owned()), ("health", said)],
    });
}

#[tokio::test]
async fn writes_that_were_opened_by_hand_leave_reads_and_releases_alone() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |_| {}).await;
    locks.acquire(&tag(1), &worker()).await.unwrap();
    let writes = locks.writes_circuit();
    writes.force_open();
    assert_eq!((writes.state(), writes.is_forced()), (CircuitState::Open, true));
    assert_measured(&locks, "writes", CircuitState::Open, true);
    assert_measured(&locks, "link", CircuitState::Closed, false);
    assert_eq!(locks.mode(), Mode::ReadOnlyServer);
    let refused = assert_refused(&locks, 2);
    assert_eq!(refused.mode, Mode::ReadOnlyServer);
    assert_says(&chain(&refused.fault), BY_HAND);
    assert_eq!(locks.inspect(&tag(1)).await.unwrap().source, Source::Live);
    let said = assert_ill(&locks.health().await, HealthStatus::Degraded, Mode::ReadOnlyServer);
    assert_says(&said, BY_HAND);
    locks.release(&tag(1), &worker()).await.unwrap();
    assert_eq!((writes.state(), locks.link_circuit().state()), (CircuitState::Open, CircuitState::Closed));

    writes.reset();
    locks.acquire(&tag(1), &worker()).await.unwrap();
    assert_well(&locks).await;
}

/// As named: whatever happens every call is tried, and fails with its own fault; but for acquires, which come after all that is to be
/// seen to first.
#[tokio::test]
async fn a_link_that_was_closed_by_hand_lets_every_call_be_tried_in_an_outage() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| {
        config.deadline = SECOND;
        (config.retry.attempts, config.deferred) = (1, 0);
    })
    .await;
    locks.acquire(&tag(1), &worker()).await.unwrap();
    let link = locks.link_circuit();
    link.force_closed();
    assert_eq!((link.state(), link.is_forced()), (CircuitState::Closed, true));
    assert_measured(&locks, "link", CircuitState::Closed, true);
    proxy.refuse();
    proxy.close_all(Close::Rst);
    eventually(SOON, async || proxy.connections_open() == 0).await;
    let dials = proxy.connections_opened();
    let mut tried = 0;
    for _ in 0..6 {
        match locks.inspect(&tag(2)).await {
            Err(ReadError::Fault(fault)) => {
                assert_ne!(fault.kind(), FaultKind::CircuitOpen);
                tried += 1;
            }
            other => panic!("it is tried: {other:?}"),
        }
        assert_eq!((link.state(), link.is_forced()), (CircuitState::Closed, true));
        assert_eq!(locks.mode(), Mode::Normal);
    }
    match locks.release(&tag(1), &worker()).await {
        Err(ReleaseError::Fault(fault) | ReleaseError::Ambiguous { fault, .. }) => {
            assert_ne!(fault.kind(), FaultKind::CircuitOpen);
            tried += 1;
        }
        other => panic!("it is tried: {other:?}"),
    }
    // It is no circuit that these wait for.
    match locks.acquire(&tag(2), &worker()).await {
        Err(error @ AcquireError::Unavailable { mode: Mode::Normal, .. }) => {
            assert_says(&chain(&error), "what this process holds is seen to first");
        }
        other => panic!("{other:?}"),
    }
    assert!(proxy.connections_opened() > dials + 3, "{} dials", proxy.connections_opened() - dials);
    // Health is asked, and not of the circuits alone.
    let health = locks.health().await;
    assert_eq!((health.status, health.operational), (HealthStatus::Unhealthy, false), "{health:?}");

    proxy.heal();
    first_success(&locks, 2).await;
    link.reset();
    assert_well(&locks).await;
    report::row(Row {
        row: "forced::closed",
        fault: "link closed by hand, server away",
        must: MUST,
        timeouts: "deadline 1 s, 1 attempt",
        measured: &[("calls tried", format!("{tried} of 7"))],
    });
}

#[tokio::test]
async fn writes_that_were_closed_by_hand_are_tried_each_time() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |_| {}).await;
    let writes = locks.writes_circuit();
    writes.force_closed();
    server.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    for _ in 0..6 {
        let refused = locks.acquire(&tag(1), &worker()).await.unwrap_err();
        let AcquireError::Fault(fault) = &refused else { panic!("it is tried: {refused:?}") };
        assert_eq!(fault.kind(), FaultKind::OutOfMemory);
        assert_eq!(
            (writes.state(), writes.is_forced(), locks.mode()),
            (CircuitState::Closed, true, Mode::Normal)
        );
    }
    assert_measured(&locks, "writes", CircuitState::Closed, true);
    let health = locks.health().await;
    assert_eq!((health.status, health.operational), (HealthStatus::Degraded, false), "{health:?}");
    server.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    writes.reset();
    assert_well(&locks).await;
}

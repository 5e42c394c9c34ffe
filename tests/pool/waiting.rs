//! Calls that find the pool full: how they are told, how long they wait, who goes first, and what the numbers say meanwhile.

use std::time::Duration;

use spool_lock::{AcquireError, Config, FaultKind, PoolAlert, SpoolLocks, Tag, Ttl};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    support::{
        FaultProxy, RedisServer, eventually,
        proxy::{Close, Held, containing, named},
    },
    workers::{SOON, assert_clean_round, at_rest, connect, holder, millis, open, pool},
};

/// A pool of `connections`, each with one operation at a time, behind a proxy.
async fn narrow(connections: u32, tune: impl FnOnce(&mut Config)) -> (RedisServer, FaultProxy, SpoolLocks) {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| {
        config.pool.max_connections = connections;
        config.pool.depth = 1;
        tune(config);
    })
    .await;
    // The server learns the scripts, so that from here on an operation is one command.
    assert_clean_round(&locks, 1).await;
    (server, proxy, locks)
}

fn tag(name: &str) -> Tag {
    Tag::new(name).expect("a tag")
}

/// The number of the call and its fence: the server's order.
type Outcome = Result<(usize, u64), AcquireError>;

/// Starts an acquire of a tag of its own.
fn start(crew: &mut JoinSet<Outcome>, locks: &SpoolLocks, number: usize, deadline: Duration) {
    let locks = locks.clone();
    crew.spawn(async move {
        let tag = tag(&format!("CALL-{number:02}"));
        locks.acquire(&tag, &holder(number)).deadline(deadline).await.map(|lease| (number, lease.fence.get()))
    });
}

/// Fills the pool with `calls` whose requests are held.
async fn fill(proxy: &FaultProxy, locks: &SpoolLocks, calls: u32) -> (JoinSet<Outcome>, Held) {
    let held = proxy.hold_requests(named("EVALSHA"));
    let mut crew = JoinSet::new();
    for number in 0..calls {
        start(&mut crew, locks, number as usize, SOON);
        eventually(SOON, async || pool(locks).in_flight == number + 1).await;
    }
    (crew, held)
}

async fn waiting(locks: &SpoolLocks, calls: u32) {
    eventually(SOON, async || pool(locks).waiting == calls).await;
}

#[tokio::test]
async fn saturation_is_told_at_once() {
    let (_server, proxy, locks) = narrow(1, |config| config.pool.max_waiters = 3).await;
    let (mut crew, held) = fill(&proxy, &locks, 1).await;
    for number in 1..4 {
        start(&mut crew, &locks, number, SOON);
    }
    waiting(&locks, 3).await;

    let asked = Instant::now();
    let refused = locks.acquire(&tag("ONE-MORE"), &holder(9)).await;
    assert!(matches!(refused, Err(AcquireError::Saturated)), "{refused:?}");
    assert!(asked.elapsed() < millis(50), "{:?}", asked.elapsed());
    assert_eq!(pool(&locks).checkout_failures_total["saturated"], 1);

    held.release();
    while let Some(outcome) = crew.join_next().await {
        outcome.expect("no panic").expect("whoever waits is served");
    }
    assert_eq!(pool(&locks).waiting, 0);
}

/// Nobody may wait with `max_waiters = 0`, so nobody was there for whom a lost connection would have been replaced.
#[tokio::test]
async fn a_pool_without_waiters_recovers_too() {
    let (_server, proxy, locks) = narrow(2, |config| config.pool.max_waiters = 0).await;
    proxy.close_all(Close::Rst);
    eventually(SOON, async || locks.inspect(&tag("TEST-02")).await).await;

    let (_crew, _held) = fill(&proxy, &locks, 1).await;
    // The second finds the only lane taken and is refused; a later one finds the lane that was opened meanwhile.
    let refused = locks.inspect(&tag("TEST-02")).await;
    assert!(refused.is_err(), "{refused:?}");
    eventually(SOON, async || open(&pool(&locks)) == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_says_when_time_is_up() {
    let (_server, proxy, locks) = narrow(1, |_| {}).await;
    let (_crew, _held) = fill(&proxy, &locks, 1).await;
    let mut waiters = JoinSet::new();
    for number in 0..10 {
        let locks = locks.clone();
        waiters.spawn(async move {
            let deadline = millis(200 + 50 * number);
            let asked = Instant::now();
            let outcome = locks.acquire(&tag("TEST-02"), &holder(2)).deadline(deadline).await;
            (outcome, asked.elapsed(), deadline)
        });
    }
    while let Some(outcome) = waiters.join_next().await {
        let (outcome, spent, deadline) = outcome.expect("no panic");
        let Err(AcquireError::Fault(fault)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(fault.kind(), FaultKind::CheckoutTimeout);
        // Half of the time is for the reply, unless the half were shorter than this.
        let due = deadline.min(millis(250).max(deadline / 2));
        assert!(spent >= due && spent < due + millis(50), "{spent:?} of {deadline:?}");
    }
    assert_eq!(pool(&locks).checkout_failures_total["checkout_timeout"], 10);
    assert_eq!(pool(&locks).waiting, 0);
}

#[tokio::test]
async fn urgent_calls_overtake() {
    let (_server, proxy, locks) = narrow(1, |_| {}).await;
    let lease = locks.acquire(&tag("MINE"), &holder(1)).await.expect("it is free");
    let (mut crew, held) = fill(&proxy, &locks, 1).await;
    for number in 1..6 {
        start(&mut crew, &locks, number, SOON);
    }
    waiting(&locks, 5).await;
    let release = tokio::spawn({
        let locks = locks.clone();
        async move { locks.release_lease(&lease).await }
    });
    waiting(&locks, 6).await;
    held.release();
    release.await.expect("no panic").expect("it is held");
    // The call that was under way has been served before it, the five have not.
    let released = pool(&locks);
    assert!(released.waiting >= 4, "{released:?}");
    while let Some(outcome) = crew.join_next().await {
        outcome.expect("no panic").expect("it is free");
    }
}

/// Also within a line: the first to come is the first to be served.
#[tokio::test]
async fn those_who_wait_are_served_in_their_order() {
    let (_server, proxy, locks) = narrow(1, |_| {}).await;
    let (mut crew, held) = fill(&proxy, &locks, 1).await;
    for number in 1..20 {
        start(&mut crew, &locks, number, SOON);
        waiting(&locks, u32::try_from(number).expect("few")).await;
    }
    held.release();
    let mut fences = vec![0; 20];
    while let Some(outcome) = crew.join_next().await {
        let (number, fence) = outcome.expect("no panic").expect("it is free");
        fences[number] = fence;
    }
    assert!(fences.is_sorted(), "{fences:?}");
}

#[tokio::test]
async fn list_has_a_lane_of_its_own() {
    let (_server, proxy, locks) = narrow(2, |config| config.pool.depth = 16).await;
    let held = proxy.hold_requests(containing("{*}:lock"));
    let list = tokio::spawn({
        let locks = locks.clone();
        async move { locks.list().await }
    });
    held.caught(1).await;
    // Whoever shared its connection would stand behind it.
    for number in 0..20 {
        locks.acquire(&tag(&format!("CALL-{number:02}")), &holder(1)).await.expect("it is free");
    }
    assert_eq!((open(&pool(&locks)), pool(&locks).in_flight), (2, 1));
    held.release();
    assert_eq!(list.await.expect("no panic").expect("it is let through").value.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_is_not_starved_by_a_full_pool() {
    let (_server, proxy, locks) = narrow(2, |config| config.pool.depth = 2).await;
    proxy.delay(millis(2));
    let load = tokio::spawn({
        let locks = locks.clone();
        async move { crate::workers::work(&locks, 12, millis(1500)).await }
    });
    eventually(SOON, async || pool(&locks).waiting > 0).await;
    let mut walks = 0;
    while !load.is_finished() {
        let asked = Instant::now();
        locks.list().await.expect("it gets its lane");
        assert!(asked.elapsed() < millis(500), "{:?}", asked.elapsed());
        walks += 1;
    }
    load.await.expect("no panic").assert_no_trouble();
    assert!(walks >= 3, "{walks}");
}

#[tokio::test]
async fn a_slot_returns_with_its_reply() {
    let (_server, proxy, locks) = narrow(1, |_| {}).await;
    let lease = locks.acquire(&tag("DROPPED"), &holder(1)).await.expect("it is free");
    let held = proxy.hold_requests(named("EVALSHA"));
    let dropped = tokio::spawn({
        let locks = locks.clone();
        async move { locks.extend(&tag("DROPPED"), &holder(1), Ttl::MAX).await }
    });
    held.caught(1).await;
    dropped.abort();
    assert!(dropped.await.expect_err("it was aborted").is_cancelled());

    let next = tokio::spawn({
        let locks = locks.clone();
        async move { locks.inspect(&tag("DROPPED")).await }
    });
    waiting(&locks, 1).await;
    tokio::time::sleep(millis(100)).await;
    let meanwhile = pool(&locks);
    assert_eq!((meanwhile.in_flight, meanwhile.waiting), (1, 1), "{meanwhile:?}");

    held.release();
    let occupant = next.await.expect("no panic").expect("it is served").value.expect("it is held");
    assert_eq!(occupant.fence, lease.fence);
    assert!(occupant.expires_at > lease.expires_at, "the drop undid nothing");
    assert_eq!(open(&at_rest(&locks).await), 1);
    assert_eq!(proxy.connections_opened(), 1, "and nothing was closed");
}

#[tokio::test]
async fn utilization_is_full_while_anyone_waits() {
    let (_server, proxy, locks) = narrow(5, |_| {}).await;
    let (mut crew, held) = fill(&proxy, &locks, 4).await;
    let at_four = pool(&locks).report;
    assert_eq!((at_four.active_connections, at_four.available_connections), (4, 1));
    assert_eq!((at_four.utilization_percent, at_four.alert), (80.0, None), "above 80, not at 80");

    start(&mut crew, &locks, 4, SOON);
    eventually(SOON, async || pool(&locks).in_flight == 5).await;
    let at_five = pool(&locks).report;
    assert_eq!((at_five.utilization_percent, at_five.alert), (100.0, Some(PoolAlert::HighUtilization)));

    held.release();
    while let Some(outcome) = crew.join_next().await {
        outcome.expect("no panic").expect("it is free");
    }
    let at_rest = at_rest(&locks).await;
    assert_eq!((at_rest.report.utilization_percent, at_rest.report.alert), (0.0, None));
    assert_eq!(at_rest.peak_active_connections, 5);

    // Somebody who waits for a connection that does not open waits, however few are active.
    proxy.close_all(Close::Fin);
    eventually(SOON, async || open(&pool(&locks)) == 0).await;
    proxy.blackhole();
    start(&mut crew, &locks, 5, SOON);
    waiting(&locks, 1).await;
    let waiting = pool(&locks);
    assert_eq!(waiting.report.active_connections, 0);
    assert_eq!(waiting.report.utilization_percent, 100.0);
    assert_eq!(waiting.report.alert, Some(PoolAlert::HighUtilization));
}

//! Many waiters and little room: for connections, and in the line.

use futures_util::FutureExt as _;
use spool_lock::{AcquireError, Tag};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    crew::{Waiter as _, Worker},
    queued,
    support::{RedisServer, eventually},
    workers::{SOON, connect, millis},
};

const TAG: &str = "TEST-02";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_waiters_leave_the_only_connection_to_others() {
    // Ours, the holder's and the only one; one is spare.
    let server = RedisServer::builder().maxclients(4).start();
    let there = connect(&server.url(), |config| config.pool.max_connections = 1).await;
    let here = connect(&server.url(), |config| config.pool.max_connections = 1).await;
    let mut holder = Worker::new(&there, TAG, 0);
    let lease = holder.take().await.expect("it is free");
    let mut waiters = JoinSet::new();
    for number in 1..=50 {
        let mut waiter = Worker::new(&here, TAG, number);
        waiters.spawn(async move {
            let lease = waiter.take().await?;
            waiter.give_back(lease).await
        });
    }
    queued(&server, TAG, 1).await;
    eventually(SOON, async || here.stats().locks.waiters == 50).await;

    for other in 0..20 {
        let asked = Instant::now();
        let seen = here.inspect(&Tag::new(format!("OTHER-{other}")).expect("a tag")).await;
        assert!(seen.expect("it has a connection").value.is_none());
        assert!(asked.elapsed() <= millis(100), "{:?}", asked.elapsed());
        tokio::time::sleep(millis(50)).await;
    }
    holder.give_back(lease).await.expect("it is held");
    while let Some(served) = timeout(SOON, waiters.join_next()).await.expect("all are served") {
        served.expect("no panic").expect("it is granted");
    }
    assert_eq!(server.info("stats")["rejected_connections"], "0");
}

/// On one thread: the first is not answered before the others are there.
#[tokio::test]
async fn waiters_that_find_the_pool_full_wait_in_line() {
    let server = RedisServer::start();
    let there = connect(&server.url(), |_| {}).await;
    let here = connect(&server.url(), |config| {
        (config.pool.max_connections, config.pool.depth, config.pool.max_waiters) = (1, 1, 1);
    })
    .await;
    let mut holder = Worker::new(&there, TAG, 0);
    let lease = holder.take().await.expect("it is free");
    let mut waiters = JoinSet::new();
    for number in 1..=50 {
        let mut waiter = Worker::new(&here, TAG, number);
        waiters.spawn(async move { waiter.take().await });
    }
    queued(&server, TAG, 1).await;
    eventually(SOON, async || here.stats().locks.waiters == 50).await;
    assert!(here.stats().pool.checkout_failures_total["saturated"] > 0, "some found the pool full");
    holder.give_back(lease).await.expect("it is held");
    waiters.join_next().await.expect("the first").expect("no panic").expect("it is granted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_beyond_the_bound_is_refused_at_once() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |config| config.wait.line = 3).await;
    let mut holder = Worker::new(&locks, TAG, 0);
    let lease = holder.take().await.expect("it is free");
    let mut waiters = JoinSet::new();
    for number in 1..=4 {
        let waiter = Worker::new(&locks, TAG, number);
        waiters.spawn(async move {
            let asked = Instant::now();
            let outcome = waiter.locks.acquire(&waiter.tag, &waiter.holder).wait(SOON).await;
            (waiter, outcome, asked.elapsed())
        });
    }
    let (_, refused, spent) = waiters.join_next().await.expect("four are there").expect("no panic");
    assert!(matches!(refused, Err(AcquireError::Saturated)), "{refused:?}");
    assert!(spent < millis(50), "{spent:?}");
    tokio::time::sleep(millis(100)).await;
    assert!(waiters.try_join_next().is_none(), "the others wait");

    holder.give_back(lease).await.expect("it is held");
    let mut served = 0;
    while let Some(outcome) = timeout(SOON, waiters.join_next()).await.expect("all are served") {
        let (mut waiter, lease, _) = outcome.expect("no panic");
        waiter.give_back(lease.expect("it is granted")).await.expect("it is held");
        served += 1;
    }
    assert_eq!(served, 3);
    // Room again.
    let lease = holder.take().await.expect("it is free");
    let again = holder.locks.acquire(&holder.tag, &Worker::new(&locks, TAG, 4).holder).wait(millis(10)).await;
    assert!(matches!(again, Err(AcquireError::Contended { .. })), "{again:?}");
    holder.give_back(lease).await.expect("it is held");
}

/// In its first poll, as where nobody waits; those who came before wait on, and are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_to_a_line_while_redis_is_not_asked_is_refused_at_once() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |_| {}).await;
    let (mut holder, mut waiter) = (Worker::new(&locks, TAG, 0), Worker::new(&locks, TAG, 1));
    let lease = holder.take().await.expect("it is free");
    let waits = tokio::spawn(async move {
        let lease = waiter.take().await?;
        waiter.give_back(lease).await
    });
    eventually(SOON, async || locks.stats().locks.waiters == 1).await;

    locks.link_circuit().force_open();
    let (tag, late) = (Tag::new(TAG).expect("a tag"), Worker::new(&locks, TAG, 2));
    let counted = || locks.stats().locks.operations["acquire"].failures_total["circuit_open"];
    let before = counted();
    let refused = locks.acquire(&tag, &late.holder).wait(SOON).into_future().now_or_never();
    assert!(matches!(refused, Some(Err(AcquireError::Unavailable { .. }))), "{refused:?}");
    assert!(counted() > before, "it is counted as an acquire that failed");
    locks.link_circuit().reset();

    holder.give_back(lease).await.expect("it is held");
    timeout(SOON, waits).await.expect("it is served").expect("no panic").expect("it is granted");
}

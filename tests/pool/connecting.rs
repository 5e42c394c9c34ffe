//! Servers that are not there, or there and silent: every call is over in its time.

use std::time::Duration;

use spool_lock::{AcquireError, Config, ConnectError, ExtendError, FaultKind, SpoolLocks, Tag, Ttl};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    support::{
        FaultProxy, RedisServer, eventually, free_port,
        proxy::{Close, Held, named},
    },
    workers::{SOON, assert_clean_round, at_rest, connect, holder, millis, open, pool, work},
};

async fn refused(url: &str) -> (FaultKind, Duration) {
    let mut config = Config::new(url).expect("a URL of the tests");
    config.pool.connect_timeout = millis(300);
    let asked = Instant::now();
    match SpoolLocks::connect(config).await {
        Err(ConnectError::Fault(fault)) => (fault.kind(), asked.elapsed()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn connecting_to_a_frozen_or_absent_server_fails_in_time() {
    let (kind, spent) = refused(&format!("redis://127.0.0.1:{}", free_port())).await;
    assert_eq!(kind, FaultKind::Connect);
    assert!(spent < millis(200), "{spent:?}");

    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    proxy.blackhole();
    let (kind, spent) = refused(&proxy.url()).await;
    assert_eq!(kind, FaultKind::Timeout);
    assert!(spent >= millis(300) && spent < millis(450), "{spent:?}");

    server.stop();
    let (kind, spent) = refused(&server.url()).await;
    assert_eq!(kind, FaultKind::Timeout);
    assert!(spent >= millis(300) && spent < millis(450), "{spent:?}");
    server.cont();
    eventually(SOON, async || server.clients().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_told_within_the_deadline() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |config| {
        config.deadline = millis(500);
        config.pool.connect_timeout = millis(300);
    })
    .await;
    server.stop();
    for _ in 0..3 {
        let mut crew = JoinSet::new();
        for number in 0..40 {
            let locks = locks.clone();
            crew.spawn(async move {
                let (tag, holder) = (Tag::new(format!("CALL-{number}")).expect("a tag"), holder(number));
                let asked = Instant::now();
                let kind = match locks.acquire(&tag, &holder).await {
                    Err(
                        AcquireError::Ambiguous { fault, .. }
                        | AcquireError::Unavailable { fault, .. }
                        | AcquireError::Fault(fault),
                    ) => fault.kind(),
                    other => panic!("{other:?}"),
                };
                (kind, asked.elapsed())
            });
        }
        while let Some(outcome) = crew.join_next().await {
            let (kind, spent) = outcome.expect("no panic");
            // Connect: the lane was evicted, and no other could be opened. After three of them nothing is sent.
            let told =
                [FaultKind::Timeout, FaultKind::CheckoutTimeout, FaultKind::Connect, FaultKind::CircuitOpen];
            assert!(told.contains(&kind), "{kind:?}");
            assert!(spent < millis(600), "{spent:?}");
        }
    }
    server.cont();
    eventually(SOON, async || locks.inspect(&Tag::new("TEST-02").expect("a tag")).await).await;
    at_rest(&locks).await;
    assert_clean_round(&locks, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_server_is_dialled_four_times_a_second() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| config.pool.depth = 1).await;
    proxy.refuse();
    proxy.close_all(Close::Rst);
    eventually(SOON, async || pool(&locks).slots == 0).await;
    let before = proxy.connections_opened();
    let tally = work(&locks, 50, Duration::from_secs(2)).await;
    assert_eq!(tally.rounds, 0);
    let mut dials = proxy.dials().split_off(before);
    let first = *dials.first().expect("it was dialled");
    dials.retain(|at| *at - first < Duration::from_secs(2));
    let burst = dials.iter().filter(|at| **at - first < millis(200)).count();
    println!("{burst} dials at once, {} in 2 s", dials.len());
    // Up to four at once, until the first is known to have failed; then one each 250 ms.
    assert!(burst <= 4, "{burst} dials at once");
    assert!(dials.len() <= burst + 8, "{} dials in 2 s", dials.len());

    proxy.heal();
    eventually(SOON, async || locks.inspect(&Tag::new("TEST-02").expect("a tag")).await).await;
    assert_eq!(pool(&locks).limit, 20, "an absent server says nothing about the limit");
}

/// The pool seemed full where there was no pool: nobody knew that Redis was away.
#[tokio::test]
async fn whoever_waits_for_the_first_connection_is_not_told_that_none_came_free() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |_| {}).await;
    proxy.blackhole();
    proxy.close_all(Close::Rst);
    eventually(SOON, async || pool(&locks).slots == 0).await;
    let tag = Tag::new("TEST-02").expect("a tag");
    let asked = Instant::now();
    // An acquire would wait until what this process holds is seen to.
    match locks.extend(&tag, &holder(1), Ttl::HOUR).deadline(millis(300)).await {
        Err(ExtendError::Fault(fault)) => assert_eq!(fault.kind(), FaultKind::Connect),
        other => panic!("{other:?}"),
    }
    assert!(asked.elapsed() >= millis(300), "{:?}", asked.elapsed());
    let failures = pool(&locks).checkout_failures_total;
    assert_eq!([failures["connect"], failures["checkout_timeout"]], [1, 0]);
}

/// A network that loses all that it is given, also after it is back: nobody sends it again soon.
struct Lossy {
    _server: RedisServer,
    proxy: FaultProxy,
    locks: SpoolLocks,
}

impl Lossy {
    async fn new() -> (Self, Held) {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        // Calls are let through all the time: it is the pool that is looked at.
        let locks = connect(&proxy.url(), |config| config.circuit.faults = 1000).await;
        assert_clean_round(&locks, 1).await;
        let lost = proxy.hold_requests(|_| true);
        proxy.close_all(Close::Rst);
        eventually(SOON, async || pool(&locks).slots == 0).await;
        (Self { _server: server, proxy, locks }, lost)
    }
}

/// A dial that was begun in the outage was waited for alone, for the whole of its five seconds.
#[tokio::test]
async fn a_dial_that_hangs_is_not_waited_for_when_the_network_is_back() {
    let (Lossy { _server, proxy, locks }, lost) = Lossy::new().await;
    let before = proxy.connections_opened();
    let tag = Tag::new("TEST-02").expect("a tag");
    let waits = tokio::spawn({
        let (locks, tag) = (locks.clone(), tag.clone());
        async move { locks.inspect(&tag).await }
    });
    // The worst moment: one that was made in haste has just been lost too.
    eventually(SOON, async || proxy.connections_opened() == before + 3).await;
    assert_eq!(pool(&locks).connecting_connections, 2, "one at a time beside the first");
    tokio::time::sleep(millis(50)).await;
    proxy.heal();
    let healed = Instant::now();
    locks.inspect(&tag).await.expect("the network is back");
    let spent = healed.elapsed();
    println!("served {spent:?} after the network was back, {} dials", proxy.connections_opened() - before);
    assert!(spent < millis(1300), "{spent:?}");
    waits.await.expect("no panic").expect("whoever came before is served too");
    assert!(proxy.peak_dials(Duration::from_secs(1)) <= 4);
    // The hanging one is given up in its time.
    drop(lost);
    assert_eq!(open(&at_rest(&locks).await), 1);
}

/// Each round trip takes 700 ms, and a connection is open after three.
#[tokio::test]
async fn a_slow_network_is_connected_to_by_the_dial_that_has_patience() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |_| {}).await;
    assert_clean_round(&locks, 1).await;
    proxy.delay(millis(700));
    proxy.close_all(Close::Rst);
    eventually(SOON, async || pool(&locks).slots == 0).await;
    let asked = Instant::now();
    locks.inspect(&Tag::new("TEST-02").expect("a tag")).await.expect("it is slow and works");
    let rest = at_rest(&locks).await;
    println!("served after {:?}: {:?}", asked.elapsed(), rest.connection_create_failures_total);
    assert_eq!(rest.connection_create_failures_total["timeout"], 1, "one was made in haste and given up");
    // Another one is opened to find out whether the server is there, whose answer takes so long.
    assert!(open(&rest) <= 2, "{rest:?}");
}

/// A dial that had failed gave its place back before it was counted as failed: in a pool without another free place the next one
/// began without a pause.
#[tokio::test]
async fn a_failed_dial_is_followed_by_a_pause() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| {
        config.pool.max_connections = 2;
        config.pool.depth = 1;
    })
    .await;
    let held = proxy.hold_requests(named("EVALSHA"));
    let tag = Tag::new("TEST-02").expect("a tag");
    let mut crew = JoinSet::new();
    for number in 0..4 {
        let (locks, tag) = (locks.clone(), tag.clone());
        crew.spawn(async move { locks.inspect(&tag).await.map_err(|error| format!("{number}: {error}")) });
        if number == 0 {
            held.caught(1).await;
            proxy.refuse();
        }
    }
    eventually(SOON, async || proxy.connections_opened() >= 4).await;
    let dials = proxy.dials();
    let pauses: Vec<_> = dials.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| *pause >= millis(200)), "{pauses:?}");
    proxy.heal();
    held.release();
    while let Some(outcome) = crew.join_next().await {
        outcome.expect("no panic").expect("it was waited for");
    }
}

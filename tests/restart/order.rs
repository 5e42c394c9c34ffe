//! Redis is back, and acquires come in slowly.

use futures_util::future::join_all;
use spool_lock::{AcquireError, GuardState, Mode, RecoveryPhase, SpoolLocks, Ttl};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    scene::*,
    support::{
        FaultProxy, RedisServer, eventually,
        proxy::{Close, containing},
    },
};

/// Redis cannot be reached, until that is known; and then it can be again.
async fn outage(proxy: &FaultProxy, locks: &SpoolLocks) {
    proxy.refuse();
    proxy.close_all(Close::Rst);
    eventually(SOON, async || {
        let _ = locks.inspect(&tag("OTHER-0000")).await;
        locks.mode() != Mode::Normal
    })
    .await;
    proxy.heal();
}

/// What is under way is seen in the network, where each acquire is held until no more come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acquires_come_in_one_two_four_at_a_time_after_an_outage() {
    const ACQUIRES: usize = 63;
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url()).await;
    // The server knows the script: each acquire is one request.
    locks.acquire(&tag("OTHER-0000"), &owner()).await.unwrap();
    let told = Told::to(&locks).await;
    let before = told.phases().len();
    outage(&proxy, &locks).await;
    let is_seen_to =
        async || told.phases()[before..].iter().any(|(phase, ..)| *phase == RecoveryPhase::Deferred);
    eventually(SOON, is_seen_to).await;

    let matches = || containing("ADMIT-");
    let mut held = proxy.hold_requests(matches());
    let mut acquires = JoinSet::new();
    for number in 0..ACQUIRES {
        let locks = locks.clone();
        acquires.spawn(async move { locks.acquire(&numbered("ADMIT", number), &owner()).await });
    }
    let mut seen = Vec::new();
    for right in [1, 2, 4, 8, 16, 32] {
        held.caught(right).await;
        // More would have come by now.
        sleep(millis(50)).await;
        seen.push(held.count());
        let next = proxy.hold_requests(matches());
        std::mem::replace(&mut held, next).release();
    }
    held.release();
    println!("acquires under way: {seen:?}");
    assert_eq!(seen, [1, 2, 4, 8, 16, 32]);
    while let Some(acquired) = acquires.join_next().await {
        acquired.expect("no panic").expect("it is free");
    }
    // The rest of the five seconds in which they come in slowly.
    let is_over = async || told.phases()[before..].iter().any(|(phase, ..)| *phase == RecoveryPhase::Admit);
    eventually(SOON, is_over).await;
    assert!(!locks.stats().recovery.is_recovering);
}

/// Nobody is waited for who is not there: where nothing is to be seen to, an acquire waits for a look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_acquire_after_an_outage_waits_for_a_few_calls_and_no_longer() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let factory = Factory::open(&server, config(&proxy.url()), 20, ttl(10 * SECOND), 200).await;
    outage(&proxy, &factory.locks).await;
    let healed = Instant::now();
    let (tag, owner) = (tag("OTHER-0001"), owner());
    eventually(SOON, async || factory.locks.acquire(&tag, &owner).await).await;
    let took = healed.elapsed();
    println!("the first acquire was granted {took:?} after the network was back");
    assert!(took < 5 * SECOND, "{took:?}");
}

/// What answers over the next connection may know nothing of what this process holds: who has not been sent is not sent before that is
/// seen to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acquire_that_waits_for_a_connection_when_it_breaks_does_not_come_before_a_guard_is_put_back() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut config = config(&proxy.url());
    (config.pool.max_connections, config.pool.depth) = (1, 1);
    let locks = SpoolLocks::connect(config).await.expect("healthy");
    let guard = locks.guard(&tag("GUARD-0000"), &owner()).await.unwrap();
    eventually(SOON, async || has_witness(&server)).await;
    for round in 0..5 {
        let held = proxy.hold_requests(containing("OTHER-0000"));
        let reads = tokio::spawn({
            let locks = locks.clone();
            async move { locks.inspect(&tag("OTHER-0000")).await.map(drop) }
        });
        held.caught(1).await;
        let acquires = tokio::spawn({
            let (locks, tag) = (locks.clone(), guard.tag().clone());
            async move { locks.acquire(&tag, &stranger()).await }
        });
        eventually(SOON, async || locks.stats().pool.waiting > 0).await;
        server.cmd(&["FLUSHALL"]);
        // What is held is lost, and its connection closed.
        drop(held);
        match acquires.await.expect("no panic") {
            Err(AcquireError::Contended { occupant, .. }) => assert_eq!(occupant.fence, guard.fence()),
            other => panic!("round {round}: {other:?}"),
        }
        reads.await.expect("no panic").expect("it is read the next time");
        assert!(matches!(guard.state(), GuardState::Held { .. }), "round {round}: {guard:?}");
        eventually(SOON, async || has_witness(&server)).await;
    }
    assert_eq!(locks.stats().recovery.restored_total["restored"], 5);
    assert_eq!(locks.stats().recovery.overlaps_total, 0);
}

/// Its data are gone, which is noticed, and Redis goes away before what was lost is put back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovery_that_was_cut_short_puts_all_back_the_next_time_and_strangers_get_nothing() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let factory = Factory::open(&server, config(&proxy.url()), 3, Ttl::HALF_MINUTE, 3).await;
    // A look at what this process holds, and at what the source names.
    let held = proxy.hold_requests(containing("LEASE-0000}:fence"));
    server.cmd(&["FLUSHALL"]);
    factory.told.first("data_lost").await;
    let is_verified =
        async || factory.told.phases().iter().any(|(phase, ..)| *phase == RecoveryPhase::Verify);
    eventually(SOON, is_verified).await;
    proxy.refuse();
    proxy.close_all(Close::Rst);
    drop(held);
    eventually(SOON, async || {
        let _ = factory.locks.inspect(&tag("OTHER-0000")).await;
        factory.locks.mode() == Mode::Unreachable
    })
    .await;
    // A guard may have been put back by its renewal.
    assert!(
        factory
            .standing(&server)
            .is_disjoint(&factory.ledger.entries().iter().map(|lease| lease.tag.clone()).collect())
    );
    // Those who come at every moment from now on.
    let stranger = &stranger();
    let strangers = factory.fences.iter().map(async |(tag, fence)| {
        let asks = async || match factory.locks.acquire(tag, stranger).await {
            Err(AcquireError::Contended { occupant, .. }) => Ok(occupant.fence == *fence),
            Ok(_) => Ok(false),
            Err(other) => Err(other),
        };
        assert!(eventually(SOON, asks).await, "a stranger was granted {tag}");
    });
    let heals = async {
        sleep(millis(300)).await;
        proxy.heal();
        Instant::now()
    };
    let (_, healed) = tokio::join!(join_all(strangers), heals);
    eventually(SOON, async || factory.is_whole(&server)).await;
    println!(
        "after a recovery that was cut short all {} were back {:?} after redis",
        factory.restored(),
        healed.elapsed()
    );
    sleep(2 * SECOND).await;
    assert_eq!(factory.is_whole(&server), Ok(()));
    assert_eq!((factory.told.lost(), factory.lost_guards()), ([].into(), [].into()));
}

/// That data have gone is looked for each second; once it is known nobody waits for the next look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_that_is_noticed_is_seen_to_at_once() {
    const ROUNDS: usize = 3;
    let server = RedisServer::start();
    let factory = Factory::open(&server, config(&server.url()), 5, Ttl::HALF_MINUTE, 5).await;
    let told = |name: &str| {
        let all = factory.told.all();
        all.into_iter().filter(|(_, event)| event.name() == name).map(|(at, _)| at).collect::<Vec<_>>()
    };
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        eventually(SOON, async || has_witness(&server)).await;
        let before = told("recovered").len();
        server.cmd(&["FLUSHALL"]);
        eventually(SOON, async || told("recovered").len() > before).await;
        took.push(told("recovered")[before] - told("data_lost")[round]);
        eventually(SOON, async || factory.is_whole(&server)).await;
    }
    println!("what this process holds was looked at {took:?} after it was noticed that data had gone");
    assert!(took.iter().any(|took| *took < SECOND / 2), "{took:?}");
}

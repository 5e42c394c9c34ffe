//! Redis has lost its data, restarted or flushed. Must hold 4 and 5.

use std::collections::BTreeSet;

use spool_lock::{AcquireError, GuardState, LostReason, RecoveryPhase, Tag, Ttl};
use tokio::time::{Instant, sleep};

use super::{
    scene::*,
    strangers::Strangers,
    support::{FaultProxy, RedisServer, eventually, proxy::Close},
};

const GUARDS: usize = 100;
const LEASES: usize = 1000;
const STRANGERS: usize = 20;
/// How soon it is noticed that data has gone.
const NOTICED_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

/// Who has lost something was told so, in every way, and everybody else has what he had. Answers who was.
fn assert_told_or_whole(factory: &Factory, server: &RedisServer) -> BTreeSet<Tag> {
    let standing = factory.standing(server);
    let lost = factory.told.lost();
    let guards = factory.lost_guards();
    let told: BTreeSet<_> = lost.keys().cloned().chain(guards.keys().cloned()).collect();
    let gone: BTreeSet<_> = factory.tags().into_iter().filter(|tag| !standing.contains(tag)).collect();
    assert_same(&told, &gone);
    assert_eq!(told.len() + standing.len(), factory.fences.len());
    let otherwise = lost.iter().chain(&guards).find(|(_, reason)| **reason != LostReason::Restarted);
    assert_eq!(otherwise, None);
    let counted = factory.lost_total();
    let right =
        if told.is_empty() { [].into() } else { [("restarted".to_owned(), told.len() as u64)].into() };
    assert_eq!(counted, right);
    for guard in &factory.guards {
        let is_held = matches!(guard.state(), GuardState::Held { .. } | GuardState::Jeopardy { .. });
        assert_eq!(is_held, standing.contains(guard.tag()), "{guard:?}");
    }
    told
}

/// Two sets of which the differences are few enough to be read.
#[track_caller]
fn assert_same(one: &BTreeSet<Tag>, other: &BTreeSet<Tag>) {
    let differs: Vec<_> = one.symmetric_difference(other).take(5).collect();
    assert!(differs.is_empty(), "{} and {}, which differ in {differs:?}", one.len(), other.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_grace_every_lease_is_back_after_a_restart_and_no_stranger_was_let_in() {
    const GRACE: std::time::Duration = std::time::Duration::from_secs(5);
    let server = RedisServer::start();
    let mut config = config(&server.url());
    config.restart_grace = GRACE;
    let factory = Factory::open(&server, config.clone(), GUARDS, Ttl::HALF_MINUTE, LEASES).await;
    let mut strangers = Strangers::gather(STRANGERS, &config, &factory.fences).await;
    sleep(SECOND).await;

    server.shutdown();
    server.restart();
    let back = Instant::now();
    eventually(GRACE, async || factory.is_whole(&server)).await;
    let took = back.elapsed();
    // They take turns at their own tags again: the grace is over.
    eventually(SOON, async || strangers.look(|record| record.grants.iter().any(|grant| grant.asked > back)))
        .await;
    sleep(SECOND).await;
    strangers.stop().await;

    assert_eq!(assert_told_or_whole(&factory, &server), [].into());
    strangers.look(|record| {
        println!(
            "grace: {} of {} back {took:?} after redis, strangers: {}",
            factory.restored(),
            factory.fences.len(),
            record.figures()
        );
        assert_eq!(record.taken(&factory.fences), [].into());
        assert_eq!(record.wrong, [""; 0]);
        record.assert_fences_rise();
        assert!(record.warming > 0 && record.longest_warming <= GRACE, "{:?}", record.longest_warming);
        let first = record.grants.iter().filter(|grant| grant.asked > back).map(|grant| grant.granted).min();
        let first = first.expect("there are some") - back;
        assert!(first > GRACE - SECOND, "{first:?} after the start somebody was let in");
    });
    assert_eq!(factory.told.count("data_lost"), 1);
    assert_eq!(factory.told.count("server_restarted"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_grace_who_could_not_be_restored_after_a_restart_is_told() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let factory = Factory::open(&server, config(&proxy.url()), GUARDS, Ttl::HALF_MINUTE, LEASES).await;
    let mut strangers = Strangers::gather(STRANGERS, &config(&server.url()), &factory.fences).await;
    sleep(SECOND).await;

    // The way of the factory is away for longer than Redis is: others come first.
    proxy.refuse();
    proxy.close_all(Close::Rst);
    server.shutdown();
    server.restart();
    let taken = async || strangers.look(|record| record.taken(&factory.fences).len()) >= 150;
    eventually(SOON, taken).await;
    proxy.heal();
    let healed = Instant::now();
    let phases = async || factory.told.phases().iter().any(|(phase, ..)| *phase == RecoveryPhase::Restore);
    eventually(SOON, phases).await;
    let took = healed.elapsed();
    strangers.stop().await;
    // Whatever comes late has come.
    sleep(2 * SECOND).await;

    let lost = assert_told_or_whole(&factory, &server);
    strangers.look(|record| {
        println!(
            "restart: {} restored and {} lost {took:?} after the network, strangers: {}",
            factory.restored(),
            lost.len(),
            record.figures()
        );
        assert_same(&record.taken(&factory.fences), &lost);
        assert!(lost.len() >= 150 && lost.len() < factory.fences.len());
        assert_eq!(record.wrong, [""; 0]);
        record.assert_fences_rise();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_is_noticed_in_two_seconds_and_every_lease_put_back() {
    let server = RedisServer::start();
    let factory = Factory::open(&server, config(&server.url()), GUARDS, Ttl::HALF_MINUTE, LEASES).await;
    server.cmd(&["FLUSHALL"]);
    let flushed = Instant::now();
    let noticed = factory.told.first("data_lost").await - flushed;
    eventually(SOON, async || factory.is_whole(&server)).await;
    let whole = flushed.elapsed();
    println!("flush: noticed after {noticed:?}, all {} back after {whole:?}", factory.restored());
    assert!(noticed <= NOTICED_WITHIN, "{noticed:?}");
    sleep(2 * SECOND).await;
    assert_eq!(assert_told_or_whole(&factory, &server), [].into());
    assert_eq!(factory.locks.stats().recovery.data_losses_total, 1);
    assert_eq!(factory.told.count("data_lost"), 1);
    assert_eq!(factory.told.count("server_restarted"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_flush_among_strangers_who_could_not_be_restored_is_told() {
    let server = RedisServer::start();
    let factory = Factory::open(&server, config(&server.url()), GUARDS, Ttl::HALF_MINUTE, LEASES).await;
    let mut strangers = Strangers::gather(STRANGERS, &config(&server.url()), &factory.fences).await;
    sleep(SECOND).await;
    server.cmd(&["FLUSHALL"]);
    let flushed = Instant::now();
    let noticed = factory.told.first("data_lost").await - flushed;
    let phases = async || factory.told.phases().iter().any(|(phase, ..)| *phase == RecoveryPhase::Restore);
    eventually(SOON, phases).await;
    strangers.stop().await;
    sleep(2 * SECOND).await;

    let lost = assert_told_or_whole(&factory, &server);
    strangers.look(|record| {
        println!(
            "flush: noticed after {noticed:?}, {} restored, {} lost, strangers: {}",
            factory.restored(),
            lost.len(),
            record.figures()
        );
        assert!(noticed <= NOTICED_WITHIN, "{noticed:?}");
        assert_same(&record.taken(&factory.fences), &lost);
        assert_eq!(record.wrong, [""; 0]);
        record.assert_fences_rise();
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_is_noticed_by_who_has_identities_alone() {
    let server = RedisServer::start();
    let factory = Factory::open(&server, config(&server.url()), 0, Ttl::HALF_MINUTE, 10).await;
    server.cmd(&["FLUSHALL"]);
    let flushed = Instant::now();
    let noticed = factory.told.first("data_lost").await - flushed;
    eventually(SOON, async || factory.is_whole(&server)).await;
    println!("identities alone: noticed after {noticed:?}");
    assert!(noticed <= NOTICED_WITHIN, "{noticed:?}");
}

/// Nobody has a ledger, and who has an identity's lease can not have it back: he is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_of_no_ledger_is_told_that_its_lease_went_with_the_data() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let told = Told::to(&locks).await;
    let lease = locks.acquire(&tag("TEST-02"), &owner()).await.unwrap();
    let guard = locks.guard(&tag("TEST-03"), &owner()).await.unwrap();
    eventually(SOON, async || has_witness(&server)).await;
    server.cmd(&["FLUSHALL"]);
    told.first("lost").await;
    sleep(2 * SECOND).await;
    assert_eq!(told.lost(), [(lease.tag.clone(), LostReason::Restarted)].into());
    assert!(matches!(guard.state(), GuardState::Held { .. }), "{guard:?}");
    assert_eq!(
        standing(&server, &[lease.tag, guard.tag().clone()]).len(),
        1,
        "the guard has put its own back"
    );
}

/// Somebody else was granted what the server had lost, and the holder heard of that before anybody knew of the loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_whose_tag_somebody_took_after_a_flush_is_told_why() {
    let server = RedisServer::start();
    let (locks, other) = (connect(&server.url()).await, connect(&server.url()).await);
    let told = Told::to(&locks).await;
    let lease = locks.acquire(&tag("TEST-02"), &owner()).await.unwrap();
    eventually(SOON, async || has_witness(&server)).await;
    server.cmd(&["FLUSHALL"]);
    let theirs = other.acquire(&lease.tag, &stranger()).await.unwrap();
    assert!(theirs.fence > lease.fence);
    told.first("lost").await;
    sleep(2 * SECOND).await;
    assert_eq!(told.lost(), [(lease.tag.clone(), LostReason::Restarted)].into());
    assert_eq!(locks.stats().locks.lost_total["restarted"], 1);
    assert_eq!(standing(&server, std::slice::from_ref(&lease.tag))[&lease.tag], theirs.fence);
}

/// Nothing is at stake: nothing is left in Redis, and nothing asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_process_leaves_no_witness_and_asks_nothing() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let lease = locks.acquire(&tag("TEST-02"), &owner()).await.unwrap();
    locks.release_lease(&lease).await.unwrap();
    let monitor = server.monitor();
    sleep(3 * SECOND).await;
    let sent = monitor.heard(&server);
    assert!(sent.is_empty(), "{sent:?}");
    assert!(!has_witness(&server));
}

/// It is renewed no more, so that no renewal would find out. What it counts on it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_is_not_renewed_any_more_is_put_back_for_as_long_as_it_is_safe() {
    let server = RedisServer::start();
    let (locks, other) = (connect(&server.url()).await, connect(&server.url()).await);
    let tag = tag("GUARD-0000");
    let guard = locks.guard(&tag, &owner()).ttl(Ttl::HALF_MINUTE).max_hold(20 * SECOND).await.unwrap();
    eventually(SOON, async || has_witness(&server)).await;
    server.cmd(&["FLUSHALL"]);
    let flushed = Instant::now();
    let stands = async || standing(&server, std::slice::from_ref(&tag)).get(&tag) == Some(&guard.fence());
    eventually(SOON, stands).await;
    println!("a guard that is not renewed any more was back after {:?}", flushed.elapsed());
    let safe_for = guard.safe_for();
    let left: i64 = server.query(&["PTTL", &format!("spool:{{{tag}}}:lock")]);
    assert!(safe_for > 20 * SECOND, "{safe_for:?}");
    assert!(
        left >= i64::try_from(safe_for.as_millis()).unwrap(),
        "{left} ms are left, and it is safe for {safe_for:?}"
    );
    match other.acquire(&tag, &stranger()).await {
        Err(AcquireError::Contended { occupant, .. }) => assert_eq!(occupant.fence, guard.fence()),
        taken => panic!("{taken:?}"),
    }
    assert_eq!(locks.stats().recovery.restored_total["restored"], 1);
}

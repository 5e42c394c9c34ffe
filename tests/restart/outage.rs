//! Redis is away for two seconds, and has lost nothing. Must hold 6.

use std::time::Duration;

use spool_lock::{LockGuard, RecoveryPhase};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    scene::*,
    support::{FaultProxy, RedisServer, eventually, proxy::Close},
};

const GUARDS: usize = 200;
const GUARDS_LAST: Duration = Duration::from_secs(10);
const LEASES: usize = 500;
const AWAY: Duration = Duration::from_secs(2);
/// What is normal is the mean of so many seconds.
const BEFORE: u32 = 5;
/// The most in the first second, in shares of the normal rate.
const MOST: f64 = 2.0;

/// How Redis is away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Outage {
    /// Nothing passes, and no connection is closed.
    Silence,
    /// It is stopped: what is sent is answered once it goes on.
    Stop,
    /// All connections are closed, and new ones too.
    Refusal,
}

/// What clients send is counted where it leaves them: what they had sent when Redis went away, and what reaches it when it is back, is
/// no herd that comes back.
async fn is_survived(outage: Outage) {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let factory = Factory::open(&server, config(&proxy.url()), GUARDS, ttl(GUARDS_LAST), LEASES).await;
    let sent = || proxy.commands().values().sum::<u64>();
    // Each guard has been renewed, in a rhythm of its own.
    sleep(GUARDS_LAST / 2).await;
    let before = sent();
    sleep(BEFORE * SECOND).await;
    let normal = (sent() - before) as f64 / f64::from(BEFORE);
    match outage {
        Outage::Silence => proxy.blackhole(),
        Outage::Stop => server.stop(),
        Outage::Refusal => {
            proxy.refuse();
            proxy.close_all(Close::Rst);
        }
    }
    sleep(AWAY).await;
    match outage {
        Outage::Silence | Outage::Refusal => proxy.heal(),
        Outage::Stop => server.cont(),
    }
    let (back, before) = (Instant::now(), sent());
    let mut tenths = Vec::new();
    for tenth in 1..=10 {
        sleep_until(back + tenth * SECOND / 10).await;
        tenths.push(sent() - before - tenths.iter().sum::<u64>());
    }
    let first = tenths.iter().sum::<u64>() as f64;
    let least = factory.guards.iter().map(LockGuard::safe_for).min().expect("there are guards");
    // All that was late has come.
    sleep(GUARDS_LAST / 2).await;

    println!(
        "{outage:?}: {normal:.0} commands in a normal second, {first} in the first ({:.2} of normal; by tenths {tenths:?}), \
         the least that a guard was safe for {least:?}",
        first / normal
    );
    assert!(first <= MOST * normal, "{first} commands, {normal:.0} are normal");

    assert_eq!(factory.is_whole(&server), Ok(()), "none released by mistake");
    assert_eq!(factory.lost_total(), [].into());
    assert_eq!(factory.told.lost(), [].into());
    assert!(factory.guards.iter().all(|guard| guard.safe_for() > Duration::ZERO), "none lost");
    assert_eq!(factory.locks.stats().recovery.data_losses_total, 0);
    for name in ["released", "expired", "taken", "data_lost", "server_restarted"] {
        assert_eq!(factory.told.count(name), 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_seconds_of_silence_lose_nothing_and_make_no_herd() {
    is_survived(Outage::Silence).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_two_seconds_loses_nothing_and_makes_no_herd() {
    is_survived(Outage::Stop).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_seconds_of_refused_connections_lose_nothing_and_make_no_herd() {
    is_survived(Outage::Refusal).await;
}

/// Redis was away, and what this process holds stands: that was looked at before anybody was let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_phases_of_a_recovery_come_in_their_order() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let factory = Factory::open(&server, config(&proxy.url()), 10, ttl(GUARDS_LAST), 250).await;
    let before = factory.told.phases().len();
    server.kill9();
    // The circuit of the link is open, so that the release is kept.
    let lease = factory.ledger.entries()[0].clone();
    let away = async || !matches!(factory.locks.mode(), spool_lock::Mode::Normal);
    let keeps_asking = async {
        while !away().await {
            let _ = factory.locks.inspect(&lease.tag).await;
            sleep(millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, keeps_asking).await.expect("three faults open it");
    factory.ledger.strike(&lease.tag);
    let deferred = factory.locks.release_lease(&lease).await.unwrap();
    assert!(matches!(deferred, spool_lock::ReleaseOutcome::Deferred { .. }), "{deferred:?}");
    server.restart();
    let restarted = Instant::now();
    // In the midst of it somebody asks.
    let (tag, owner) = (tag("OTHER-0000"), owner());
    let granted = async || factory.locks.acquire(&tag, &owner).await;
    eventually(SOON, granted).await;
    println!("an acquire was let in {:?} after redis", restarted.elapsed());
    let admit =
        async || factory.told.phases()[before..].iter().any(|(phase, ..)| *phase == RecoveryPhase::Admit);
    eventually(SOON, admit).await;

    let phases = factory.told.phases()[before..].to_vec();
    println!("phases: {phases:?}");
    // 10 guards, and 249 identities, since one was given back. A guard's renewal may have put it back already.
    let (RecoveryPhase::Verify, stood, lost) = phases[0] else { panic!("{phases:?}") };
    assert!(stood + lost == 259 && stood <= 10, "{phases:?}");
    assert_eq!(phases[1..3], [(RecoveryPhase::Deferred, 1, 0), (RecoveryPhase::Restore, lost, 0)]);
    assert_eq!(phases[3].0, RecoveryPhase::Admit);
    assert_eq!(phases.len(), 4, "each once");
    let counted = factory.locks.stats().recovery.phases;
    for phase in RecoveryPhase::ALL {
        assert!(
            counted[phase.as_str()].total >= 1 && counted[phase.as_str()].failures_total == 0,
            "{counted:?}"
        );
    }
    assert!(standing(&server, &[lease.tag]).is_empty(), "what was given back does not come back");
}

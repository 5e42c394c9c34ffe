//! Another run of Redis, or the same over another connection: what is told of it, and what is not lost.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use spool_lock::{Lease, Mode, RecoveryPhase, Ttl};
use tokio::time::{Instant, sleep, timeout};

use super::{
    scene::*,
    support::{FaultProxy, RedisServer, eventually},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_kept_the_data_is_told_and_loses_nothing() {
    let server = RedisServer::builder().arg("appendonly", "yes").start();
    let factory = Factory::open(&server, config(&server.url()), 10, Ttl::HALF_MINUTE, 50).await;
    let before = factory.told.phases().len();
    server.shutdown();
    server.restart();
    let back = Instant::now();
    let told = factory.told.first("server_restarted").await.saturating_duration_since(back);
    let restored =
        async || factory.told.phases()[before..].iter().any(|(phase, ..)| *phase == RecoveryPhase::Restore);
    eventually(SOON, restored).await;
    sleep(2 * SECOND).await;
    println!("a restart with its data: told {told:?} after it");
    let phases = &factory.told.phases()[before..];
    assert_eq!(phases[0], (RecoveryPhase::Verify, 60, 0));
    assert_eq!(phases[2], (RecoveryPhase::Restore, 0, 0));
    assert_eq!(factory.is_whole(&server), Ok(()));
    assert_eq!((factory.told.lost(), factory.lost_total()), ([].into(), [].into()));
    assert_eq!(factory.told.count("data_lost"), 0);
    assert_eq!(factory.told.count("server_restarted"), 1);
    let recovery = factory.locks.stats().recovery;
    assert_eq!((recovery.restarts_total, recovery.data_losses_total), (1, 0));
}

/// Before anything is left there by which its data are known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_restart_of_all_is_told_too() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let told = Told::to(&locks).await;
    server.shutdown();
    server.restart();
    told.first("server_restarted").await;
    assert_eq!(locks.stats().server.run_id, server.info("server")["run_id"]);
}

/// The server may not be asked which run it is: that it has lost its data is known by our witness alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_info_is_denied_a_loss_is_noticed_by_the_witness() {
    for flushed in [true, false] {
        let server = RedisServer::builder().arg("user", "svc on >sesame ~* &* +@all -info").start();
        let url = server.url().replace("redis://", "redis://svc:sesame@");
        let factory = Factory::open(&server, config(&url), 5, Ttl::HALF_MINUTE, 20).await;
        if flushed {
            server.cmd(&["FLUSHALL"]);
        } else {
            server.shutdown();
            server.restart();
        }
        let gone = Instant::now();
        let noticed = factory.told.first("data_lost").await.saturating_duration_since(gone);
        eventually(SOON, async || factory.is_whole(&server)).await;
        println!("without +info, flushed {flushed}: noticed after {noticed:?}");
        assert!(noticed <= 2 * SECOND, "{noticed:?}");
        assert_eq!((factory.told.lost(), factory.lost_total()), ([].into(), [].into()));
        assert_eq!(factory.told.count("server_restarted"), 0);
    }
}

/// A connection that breaks may have been the end of the server: acquires wait until it was looked at, and that is all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pairs_lose_nothing_while_connections_are_killed() {
    const PAIRS: usize = 1000;
    // Five calls that one broken connection takes with it are as many as are sent again at once (`RetryConfig`).
    const WORKERS: usize = 2;
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let factory = Factory::open(&server, config(&proxy.url()), 10, Ttl::HALF_MINUTE, 50).await;
    let verified = || factory.locks.stats().recovery.phases["verify"].total;
    let (recoveries, looks) = (verified(), proxy.requests("INFO"));
    let done = AtomicUsize::new(0);
    let work = async |number: usize| {
        let (tag, owner) = (numbered("PAIR", number), owner());
        // With what was known when it failed.
        let failed = |error: &dyn std::fmt::Debug| -> Lease {
            panic!("{error:?} after {} pairs: {:?}", done.load(Relaxed), factory.locks.stats().faults)
        };
        for _ in 0..PAIRS / WORKERS {
            let acquired = factory.locks.acquire(&tag, &owner).await;
            let lease = acquired.unwrap_or_else(|error| failed(&error));
            if let Err(error) = factory.locks.release_lease(&lease).await {
                failed(&error);
            }
            done.fetch_add(1, Relaxed);
        }
    };
    let kills = async {
        let mut killed = 0;
        for step in 1..=20 {
            eventually(SOON, async || done.load(Relaxed) >= step * PAIRS / 25).await;
            // One of those over which calls go, each time another.
            let lanes: Vec<_> =
                server.clients().into_iter().filter(|client| client["flags"] == "N").collect();
            let Some(lane) = lanes.get(step % lanes.len().max(1)) else { continue };
            killed += server.query::<u64>(&["CLIENT", "KILL", "ID", &lane["id"]]);
        }
        killed
    };
    let work = futures_util::future::join_all((0..WORKERS).map(work));
    let (_, killed) = tokio::join!(work, kills);
    let looks = proxy.requests("INFO") - looks;
    println!("{PAIRS} pairs, {killed} connections killed, {looks} looks at the server");
    assert!(killed > 10 && looks <= killed, "{looks} looks");
    assert_eq!(verified(), recoveries, "there is nothing to recover from");
    assert_eq!(factory.is_whole(&server), Ok(()));
    assert_eq!((factory.told.lost(), factory.lost_total()), ([].into(), [].into()));
}

/// What is to be left there by which its data are known cannot be: that is a refused write, and the server is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_witness_is_not_unreachable() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let lease = locks.acquire(&tag("TEST-02"), &owner()).await.unwrap();
    server.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(!has_witness(&server), "it is left there after the first second");
    let mut modes = locks.watch_mode();
    let heard = timeout(SOON, modes.changed()).await.expect("three tries are refused");
    assert_eq!(heard, Some(Mode::ReadOnlyServer));
    // It is tried again and again.
    sleep(4 * SECOND).await;
    assert_eq!(locks.mode(), Mode::ReadOnlyServer);
    assert!(locks.inspect(&lease.tag).await.unwrap().value.is_some());
    assert_eq!(locks.stats().faults.circuits["link"].transitions_total["open"], 0);
    server.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually(SOON, async || has_witness(&server) && locks.mode() == Mode::Normal).await;
}

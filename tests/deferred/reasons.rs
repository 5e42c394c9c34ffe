//! Why a release cannot be sent, or not be done: each is deferred, and applied once that is over.

use std::{path::Path, time::Duration};

use spool_lock::{FaultKind, Mode, ReleaseError, ReleaseOutcome};
use tokio::time::{Instant, sleep};

use super::{
    setup::*,
    support::{RedisServer, eventually, proxy::named},
};

/// A fault of the server that an operator mends.
struct Ill {
    name: &'static str,
    begin: fn(&RedisServer),
    end: fn(&RedisServer),
}

impl Ill {
    /// What could not be done is deferred, and done soon after the operator has mended it.
    #[expect(clippy::print_stdout, reason = "it is shown with `--nocapture`, and where the test fails")]
    async fn is_outlived(&self) {
        let &Self { name, begin, end } = self;
        let server = RedisServer::start();
        let locks = connect(&server.url(), |_| {}).await;
        let near = connect(&server.url(), |_| {}).await;
        let mut leases = Vec::new();
        for number in 0..20 {
            leases.push(locks.acquire(&tag(number), &worker()).await.expect("it is free"));
        }
        begin(&server);
        for lease in &leases {
            assert_deferred(locks.release_lease(lease).await);
        }
        // For long enough that what tries again does so seldom.
        let _ = locks.acquire(&tag(99), &worker()).await;
        sleep(4 * SECOND).await;
        assert_eq!(counts(&locks), Counts { waiting: 20, deferred: 20, ..Counts::default() }, "{name}");
        let is_there = standing(&near, &tag(0)).await;
        assert_eq!(is_there, Some(leases[0].fence), "{name}: it cannot be written");

        end(&server);
        let began = Instant::now();
        eventually(SOON, async || locks.mode() == Mode::Normal).await;
        let normal = began.elapsed();
        let after = all_settled(&locks).await;
        let took = began.elapsed();
        println!("{name}: normal {normal:?} after it was mended, all applied after {took:?}");
        assert_eq!(after, Counts { deferred: 20, applied: 20, ..Counts::default() }, "{name}");
        assert!(took < 2 * SECOND + normal, "{name}: all applied {took:?} after it was mended");
        assert!(near.list().await.expect("healthy").value.is_empty(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_at_a_server_that_cannot_save_is_deferred() {
    let end =
        |server: &RedisServer| drop(server.cmd(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]));
    Ill { name: "MISCONF", begin: stop_saving, end }.is_outlived().await;
}

/// The dump cannot replace a directory; `save` must be on, or the server does not mind.
pub(crate) fn stop_saving(server: &RedisServer) {
    let dir: Vec<String> = server.query(&["CONFIG", "GET", "dir"]);
    std::fs::create_dir(Path::new(&dir[1]).join("dump.rdb")).expect("the directory is ours");
    server.cmd(&["CONFIG", "SET", "save", "3600 1"]);
    for _ in 0..400 {
        // Refused while another one is under way.
        let _ = server.try_query::<String>(&["BGSAVE"]);
        if server.info("persistence")["rdb_last_bgsave_status"] == "err" {
            return;
        }
        std::thread::sleep(millis(5));
    }
    panic!("it could save: {:?}", server.info("persistence"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_at_a_server_without_its_replicas_is_deferred() {
    let begin = |server: &RedisServer| drop(server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]));
    let end = |server: &RedisServer| drop(server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]));
    Ill { name: "NOREPLICAS", begin, end }.is_outlived().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_at_a_replica_is_deferred() {
    let begin = |server: &RedisServer| drop(server.cmd(&["REPLICAOF", "127.0.0.1", "1"]));
    let end = |server: &RedisServer| drop(server.cmd(&["REPLICAOF", "NO", "ONE"]));
    Ill { name: "READONLY", begin, end }.is_outlived().await;
}

/// Nothing is sent meanwhile: an operator has to act, and says so by hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_with_a_password_that_was_changed_is_deferred() {
    let server = RedisServer::builder().password("sesame").start();
    let (locks, near) = (connect(&server.url(), |_| {}).await, connect(&server.url(), |_| {}).await);
    for number in 0..3 {
        locks.acquire(&tag(number), &worker()).await.unwrap();
    }
    server.cmd(&["CONFIG", "SET", "requirepass", "changed"]);
    for kind in ["normal", "pubsub"] {
        server.cmd(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
    }
    eventually(SOON, async || locks.stats().pool.slots == 0).await;
    for number in 0..3 {
        assert_deferred(locks.release(&tag(number), &worker()).await);
    }
    sleep(SECOND).await;
    assert_eq!(counts(&locks), Counts { waiting: 3, deferred: 3, ..Counts::default() });

    server.cmd(&["CONFIG", "SET", "requirepass", "sesame"]);
    let mended = Instant::now();
    locks.link_circuit().reset();
    assert_eq!(all_settled(&locks).await, Counts { deferred: 3, applied: 3, ..Counts::default() });
    println!("applied {:?} after the operator had mended it and said so", mended.elapsed());
    near.link_circuit().reset();
    eventually(SOON, async || near.list().await.is_ok_and(|list| list.value.is_empty())).await;
}

/// The only slot is taken, and one more may wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_finds_the_pool_full_is_deferred() {
    let net = Net::open(|config| {
        (config.pool.max_connections, config.pool.depth, config.pool.max_waiters) = (1, 1, 1);
    })
    .await;
    for number in 0..3 {
        net.acquired(number).await;
    }
    let held = net.proxy.hold_requests(named("EVALSHA"));
    let start = |number: usize, deadline| {
        let far = net.far.clone();
        tokio::spawn(async move { far.release(&tag(number), &worker()).deadline(deadline).await })
    };
    let under_way = start(0, 20 * SECOND);
    eventually(SOON, async || net.far.stats().pool.in_flight == 1).await;
    let waits = start(1, SECOND);
    eventually(SOON, async || net.far.stats().pool.waiting == 1).await;
    let began = Instant::now();
    assert_deferred(net.far.release(&tag(2), &worker()).await);
    assert!(began.elapsed() < SECOND, "it does not wait: {:?}", began.elapsed());
    assert_deferred(waits.await.unwrap());
    let failures = net.far.stats().pool.checkout_failures_total;
    assert!(failures["saturated"] >= 1 && failures["checkout_timeout"] >= 1, "{failures:?}");

    held.release();
    assert_eq!(under_way.await.unwrap().unwrap(), ReleaseOutcome::Released);
    assert_eq!(net.mend().await, Counts { deferred: 2, applied: 2, ..Counts::default() });
    assert!(net.near.list().await.unwrap().value.is_empty());
}

/// Where an operator keeps acquires away, what is given back passes; so does what was deferred before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_opened_by_hand_lets_them_pass() {
    let net = Net::open(|_| {}).await;
    let other = net.acquired(2).await;
    let (lease, _) = net.deferred(1).await;
    net.far.link_circuit().force_open();
    net.proxy.heal();
    eventually(SOON, async || standing(&net.near, &tag(1)).await.is_none()).await;
    assert_eq!(all_settled(&net.far).await, Counts { deferred: 1, applied: 1, ..Counts::default() });
    assert_eq!(net.far.release_lease(&other).await.unwrap(), ReleaseOutcome::Released);
    assert_eq!(releases(&net.near, &tag(1)).await, [(lease.fence, true)]);
    assert_eq!(net.far.mode(), Mode::Unreachable, "acquires are kept away still");
}

/// As it was before anything was deferred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_none_may_be_deferred_the_fault_itself_is_told() {
    let net = Net::open(|config| config.deferred = 0).await;
    let lease = net.acquired(1).await;
    net.proxy.refuse();
    net.proxy.close_all(super::support::proxy::Close::Rst);
    for _ in 0..3 {
        match net.far.release_lease(&lease).deadline(SECOND).await {
            Err(ReleaseError::Ambiguous { fault, .. } | ReleaseError::Fault(fault)) => {
                assert_ne!(fault.kind(), FaultKind::CircuitOpen, "a release passes an open circuit");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts(&net.far), Counts::default());
    net.proxy.heal();
    eventually(SOON, async || net.far.mode() == Mode::Normal).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(standing(&net.near, &tag(1)).await, Some(lease.fence), "nobody goes on with it");
    assert_eq!(net.far.release_lease(&lease).await.unwrap(), ReleaseOutcome::Released);
}

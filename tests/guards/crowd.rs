//! More guards than can be renewed at once, or at all.

use spool_lock::{GuardState, LockGuard};
use tokio::time::{Instant, sleep};

use super::*;
use crate::support::{FaultProxy, proxy::Close};

async fn take(locks: &SpoolLocks, guards: usize, lasts: Ttl) -> Vec<LockGuard> {
    let mut taken = tokio::task::JoinSet::new();
    for number in 0..guards {
        let locks = locks.clone();
        taken.spawn(async move { locks.guard(&numbered(number), &robot()).ttl(lasts).wait(SOON).await });
    }
    taken.join_all().await.into_iter().map(|guard| guard.expect("it is free")).collect()
}

/// A reply takes 200 ms, so 320 renewals a second are possible where 600 are due. Each guard needs one in six seconds: nobody has to
/// be lost if those come first that are nearest to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_renews_those_first_that_are_nearest_to_their_end() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut config = Config::new(&proxy.url()).expect("an address");
    config.pool.max_waiters = 2000;
    let locks = SpoolLocks::connect(config).await.expect("healthy");
    let guards = take(&locks, 1200, ttl(6000)).await;
    proxy.delay(Duration::from_millis(200));
    let before = renewals(&locks);
    sleep(Duration::from_secs(12)).await;
    assert_eq!(lost_total(&locks), [].into());
    let renewed = renewals(&locks) - before;
    assert!(renewed >= 2400, "{renewed} renewals, of which each guard needs two");
    drop(guards);
}

/// A server without its replicas answers each write with an error, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_is_asked_by_one_guard_at_a_time() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let guards = take(&locks, 500, ttl(6000)).await;
    server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    sleep(Duration::from_millis(2500)).await;
    let before = renewals(&locks);
    let since = Instant::now();
    sleep(Duration::from_secs(1)).await;
    let asked = (renewals(&locks) - before) as f64 / since.elapsed().as_secs_f64();
    assert!((1.0..=20.0).contains(&asked), "{asked} renewals a second by 500 guards, all of which are due");
    server.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    let are_held = || guards.iter().all(|guard| matches!(guard.state(), GuardState::Held { .. }));
    eventually(Duration::from_millis(1500), async || are_held()).await;
    assert_eq!(lost_total(&locks), [].into());
}

/// After an outage the guard that is nearest to its end finds out whether Redis is back, for all others too: what it is given for
/// that must not depend on how little is left to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_far_away_is_found_again_after_an_outage() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url()).await;
    let guards = take(&locks, 200, ttl(10_000)).await;
    sleep(Duration::from_secs(4)).await;
    proxy.refuse();
    proxy.close_all(Close::Rst);
    sleep(Duration::from_secs(6)).await;
    let (safe, late): (Vec<_>, Vec<_>) =
        guards.iter().partition(|guard| guard.safe_for() > Duration::from_millis(1500));
    proxy.heal();
    proxy.delay(Duration::from_millis(100));
    assert!(safe.len() > 50, "{} of 200 have some time left", safe.len());
    eventually(SOON, async || {
        safe.iter().all(|guard| guard.safe_for() > Duration::from_secs(5))
            && late.iter().all(|guard| guard.safe_for() > Duration::from_secs(5) || guard.state().is_final())
    })
    .await;
    assert!(safe.iter().all(|guard| !guard.state().is_final()));
}

/// A renewal that gets no answer is given up after a second, also where there is an hour for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_hangs_does_not_keep_the_others_out() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url()).await;
    let (long, robot) = (numbered(99), robot());
    let long = locks.guard(&long, &robot).ttl(Ttl::HOUR).max_hold(Duration::MAX);
    let long = long.renew_every(Duration::from_millis(100)).await.expect("it is free");
    let guards = take(&locks, 5, ttl(4000)).await;
    sleep(Duration::from_secs(2)).await;
    // What was sent is lost, and its connections are dead; new ones live after a second.
    let lost = proxy.hold_requests(|_| true);
    sleep(Duration::from_secs(1)).await;
    proxy.heal();
    sleep(Duration::from_secs(4)).await;
    assert_eq!(lost_total(&locks), [].into());
    assert!(guards.iter().chain([&long]).all(|guard| matches!(guard.state(), GuardState::Held { .. })));
    drop(lost);
}

//! The server was restarted and knows nothing: nobody is granted what somebody else may have to put back, until the grace is over.

mod support;
#[path = "pool/workers.rs"]
#[allow(dead_code, reason = "the tests of the pool use the rest")]
mod workers;

use std::time::Duration;

use spool_lock::{AcquireError, Config, Holder, Lease, SpoolLocks, Tag};
use support::{RedisServer, eventually};
use tokio::{task::JoinSet, time::Instant};
use workers::{SOON, connect};

/// Longer than any of these tests.
const LONG: Duration = Duration::from_secs(3600);

fn tag() -> Tag {
    Tag::new("TEST-02").expect("a tag")
}

fn holder(id: &str) -> Holder {
    Holder::new(id, "").expect("a holder")
}

fn grace(grace: Duration) -> impl FnOnce(&mut Config) {
    move |config| config.restart_grace = grace
}

async fn acquire(locks: &SpoolLocks, id: &str, wait: Duration) -> Result<Lease, AcquireError> {
    locks.acquire(&tag(), &holder(id)).wait(wait).await
}

#[tokio::test]
async fn who_does_not_wait_is_told_when_to_ask_again() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), grace(LONG)).await;
    let error = acquire(&locks, "93", Duration::ZERO).await.unwrap_err();
    let AcquireError::Warming { retry_after } = error else { panic!("{error:?}") };
    assert!(retry_after > LONG - SOON && retry_after <= LONG, "{retry_after:?}");
    assert_eq!(
        error.to_string(),
        format!(
            "redis was restarted, and who had this lock may not have it back yet; try again after {retry_after:?}"
        )
    );
    assert_eq!(locks.inspect(&tag()).await.unwrap().value, None);
}

#[tokio::test]
async fn a_wait_that_ends_within_the_grace_is_told_so_at_its_end() {
    const WAIT: Duration = Duration::from_millis(600);
    let server = RedisServer::start();
    let locks = connect(&server.url(), grace(LONG)).await;
    let (asked, before) = (Instant::now(), server.calls("evalsha"));
    let error = acquire(&locks, "93", WAIT).await.unwrap_err();
    assert!(matches!(error, AcquireError::Warming { .. }), "{error:?}");
    let spent = asked.elapsed();
    assert!(spent >= WAIT && spent < WAIT + Duration::from_millis(300), "{spent:?}");
    assert_eq!(server.calls("evalsha") - before, 2, "at the beginning and at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_granted_one_after_the_other_when_the_grace_is_over_and_not_before() {
    const GRACE: Duration = Duration::from_secs(2);
    const STRANGERS: u64 = 20;
    let server = RedisServer::start();
    let locks = connect(&server.url(), grace(GRACE)).await;
    let restarted = Instant::now();
    server.restart();
    eventually(SOON, async || locks.inspect(&tag()).await).await;
    let before = server.calls("evalsha");
    let mut strangers = JoinSet::new();
    for number in 0..STRANGERS {
        let locks = locks.clone();
        strangers.spawn(async move {
            let lease = acquire(&locks, &number.to_string(), 2 * SOON).await.expect("its turn comes");
            let granted = restarted.elapsed();
            locks.release_lease(&lease).await.expect("it has it");
            granted
        });
    }
    tokio::time::sleep((restarted + GRACE).saturating_duration_since(Instant::now())).await;
    let asked = server.calls("evalsha") - before;
    assert!(asked <= 3 * STRANGERS, "nobody hammers: {asked}");
    let granted = strangers.join_all().await;
    let first = granted.iter().min().expect("all of them");
    assert!(*first >= GRACE && *first < GRACE + Duration::from_millis(1_600), "{first:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_whose_lock_was_lost_waits_on_and_is_served_when_it_is_back() {
    let server = RedisServer::start();
    let hasty = connect(&server.url(), |_| {}).await;
    let locks = connect(&server.url(), grace(LONG)).await;
    acquire(&hasty, "93", Duration::ZERO).await.unwrap();
    let wait = |id: &'static str, wait| {
        let locks = locks.clone();
        tokio::spawn(async move { acquire(&locks, id, wait).await })
    };
    let patient = wait("patient", 4 * SOON);
    eventually(SOON, async || server.calls("zadd") >= 1).await;
    let hurried = wait("hurried", Duration::from_millis(2_500));
    server.cmd(&["FLUSHALL"]);
    let error = hurried.await.unwrap().unwrap_err();
    assert!(matches!(error, AcquireError::Warming { .. }), "nobody has it any more: {error:?}");
    assert!(!patient.is_finished());

    // As if it were put back.
    let lease = acquire(&hasty, "93", Duration::ZERO).await.unwrap();
    eventually(SOON, async || server.query::<u64>(&["EXISTS", "spool:{TEST-02}:queue"]) == 1).await;
    hasty.release_lease(&lease).await.unwrap();
    let next = patient.await.unwrap().unwrap();
    assert!(next.fence > lease.fence);
}

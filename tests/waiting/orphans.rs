//! A waiter that leaves as it is granted the lock: it may not take it along.

use std::time::Duration;

use spool_lock::AcquireError;
use tokio::{
    task::yield_now,
    time::{Instant, timeout},
};

use crate::{
    crew::{Waiter as _, Worker},
    nothing_left,
    support::RedisServer,
    workers::{connect, millis},
};

const TAG: &str = "TEST-02";
const ROUNDS: u64 = 1_000;

/// To the microsecond, where a sleep is exact to the millisecond.
async fn until(at: Instant) {
    while Instant::now() < at {
        yield_now().await;
    }
}

/// The same in every run, and as good as any below `bound`: multiples of a part of it, by the golden ratio.
fn spread(round: u64, bound: Duration) -> Duration {
    bound.mul_f64((round as f64 * 0.618_033_988_75).fract())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_wait_that_ends_as_it_is_granted_leaves_no_lock() {
    let server = RedisServer::start();
    let (here, there) = (connect(&server.url(), |_| {}).await, connect(&server.url(), |_| {}).await);
    let mut holder = Worker::new(&here, TAG, 1);
    // In the holder's process the lock is handed over, in another one it is granted by the server.
    let mut waiters = [Worker::new(&here, TAG, 2), Worker::new(&there, TAG, 3)];
    let (mut granted, mut refused) = ([0; 2], [0; 2]);
    for round in 0..ROUNDS {
        let (wait, place) = (millis(round / 2 % 3), usize::from(round % 2 == 1));
        let waiter = &mut waiters[place];
        let lease = holder.take().await.expect("nobody has it");
        let release_at = Instant::now() + (wait + spread(round, millis(1))).saturating_sub(millis(1) / 2);
        let (outcome, released) = tokio::join!(
            async { waiter.locks.acquire(&waiter.tag, &waiter.holder).wait(wait).await },
            async {
                until(release_at).await;
                holder.give_back(lease).await
            },
        );
        let occupant = here.inspect(&holder.tag).await.expect("redis answers").value;
        let has_it = occupant.is_some_and(|occupant| occupant.holder == waiter.holder);
        match outcome {
            Ok(lease) => {
                assert!(has_it, "round {round}: granted, and another has it");
                waiter.give_back(lease).await.expect("it is held");
                granted[place] += 1;
            }
            Err(AcquireError::Contended { .. }) => {
                assert!(!has_it, "round {round}: refused after {wait:?}, and has it");
                refused[place] += 1;
            }
            Err(error) => panic!("round {round}: {error:?}"),
        }
        released.expect("it was held");
    }
    println!("granted {granted:?}, refused {refused:?}");
    assert!(granted.iter().chain(&refused).all(|&rounds| rounds > 0), "{granted:?} {refused:?}");
    nothing_left(&server, Duration::from_secs(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_waiter_that_is_dropped_leaves_no_lock_and_holds_up_nobody() {
    const LATEST: Duration = Duration::from_millis(2);
    let server = RedisServer::start();
    let (here, there) = (connect(&server.url(), |_| {}).await, connect(&server.url(), |_| {}).await);
    let elsewhere = connect(&server.url(), |_| {}).await;
    let mut holder = Worker::new(&here, TAG, 1);
    let mut other = Worker::new(&there, TAG, 2);
    // With the holder, with the other one, and alone in its process.
    let mut victims = [&here, &there, &elsewhere].map(|locks| Worker::new(locks, TAG, 3));
    for (round, victim) in (0..ROUNDS).zip((0..3).cycle()) {
        let victim = &mut victims[victim];
        let lease = holder.take().await.expect("nobody has it");
        let now = Instant::now();
        let (drop_at, release_at) = (now + spread(round, LATEST), now + spread(round / 3, LATEST));
        let all = async {
            tokio::join!(
                async {
                    tokio::select! {
                        lease = victim.take() => victim.give_back(lease?).await,
                        () = until(drop_at) => Ok(()),
                    }
                },
                async {
                    until(release_at).await;
                    holder.give_back(lease).await
                },
                async {
                    let lease = other.take().await?;
                    other.give_back(lease).await
                },
            )
        };
        let all = timeout(LATEST + Duration::from_secs(1), all).await;
        let (dropped, released, served) = all.unwrap_or_else(|_| panic!("round {round}: not served"));
        dropped.and(released).and(served).unwrap_or_else(|error| panic!("round {round}: {error:?}"));
    }
    nothing_left(&server, Duration::from_secs(1)).await;
}

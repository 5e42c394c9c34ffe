//! What an operation costs the server.

use spool_lock::SpoolLocks;
use tokio::task::JoinSet;

use crate::{
    support::RedisServer,
    workers::{connect, holder},
};

const TASKS: usize = 50;
const PAIRS: usize = 100_000;

/// How often the server may read for a pair: commands that share a lane share its packets. Exclusive connections need 2.
const MOST_READS: f64 = 0.5;

async fn pairs(locks: &SpoolLocks, tasks: usize, each: usize) {
    let mut crew = JoinSet::new();
    for number in 0..tasks {
        let locks = locks.clone();
        crew.spawn(async move {
            let tag = format!("TEST-{number:02}").parse().expect("a tag");
            let holder = holder(number);
            for _ in 0..each {
                let lease = locks.acquire(&tag, &holder).await.expect("it is free");
                locks.release_lease(&lease).await.expect("it is held");
            }
        });
    }
    while let Some(outcome) = crew.join_next().await {
        outcome.expect("no task panics");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_is_two_commands() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |_| {}).await;
    // What is paid once: the look at the server, and the text of each script. After that not one command more.
    pairs(&locks, 1, 1).await;
    let count = || {
        let reads: u64 = server.info("stats")["total_reads_processed"].parse().expect("a number");
        (server.calls("evalsha"), server.calls("eval"), reads)
    };
    let before = count();
    let start = tokio::time::Instant::now();
    pairs(&locks, TASKS, PAIRS / TASKS).await;
    let spent = start.elapsed();
    let after = count();
    let (evalsha, eval) = (after.0 - before.0, after.1 - before.1);
    let reads = (after.2 - before.2) as f64 / PAIRS as f64;

    println!("{PAIRS} pairs in {spent:?}: {evalsha} EVALSHA, {reads:.3} reads of the server each");
    assert_eq!(eval, 0);
    assert_eq!(evalsha, 2 * PAIRS as u64);
    assert!(reads <= MOST_READS, "{reads:.3} reads of the server for a pair");
}

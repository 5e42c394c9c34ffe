//! How many connections there are: never more than were given, fewer when the server has fewer.

use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use spool_lock::LimitReason;

use crate::{
    support::{FaultProxy, RedisServer, eventually},
    workers::{Sampler, connect, millis, open, pool, work, work_while},
};

const WORKERS: usize = 50;

/// A server like the one of the incident, with three connections taken by others beside that of the test.
async fn hosted() -> (Arc<RedisServer>, Vec<TcpStream>) {
    let server = Arc::new(RedisServer::builder().maxclients(25).start());
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(TcpStream::connect(("127.0.0.1", server.port())).expect("the server has room"));
    }
    eventually(Duration::from_secs(5), async || server.clients().len() == 3).await;
    (server, others)
}

async fn fifty_workers(depth: u32, most: usize, time: Duration) -> (u64, usize) {
    let (server, others) = hosted().await;
    let locks = connect(&server.url(), |config| {
        config.pool.depth = depth;
        config.pool.idle_timeout = millis(300);
    })
    .await;
    let sampler = Sampler::start(&server, Duration::ZERO);
    let tally = work(&locks, WORKERS, time).await;
    let peak = sampler.stop() - others.len();

    tally.assert_no_trouble();
    assert!(peak <= most, "{peak} connections");
    assert_eq!(server.info("stats")["rejected_connections"], "0");
    eventually(Duration::from_secs(5), async || server.clients().len() - others.len() == 1).await;
    assert_eq!(open(&pool(&locks)), 1);
    (tally.rounds, peak)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_workers_need_five_connections() {
    let (rounds, peak) = fifty_workers(16, 5, Duration::from_secs(10)).await;
    println!("{rounds} rounds, {peak} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_workers_at_depth_one_stay_within_twenty() {
    let (rounds, peak) = fifty_workers(1, 20, Duration::from_secs(5)).await;
    println!("{rounds} rounds, {peak} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_limit_wins() {
    let server = Arc::new(RedisServer::builder().maxclients(12).start());
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| config.pool.depth = 1).await;
    let going = Arc::new(AtomicBool::new(true));
    let load = tokio::spawn({
        let (locks, going) = (locks.clone(), going.clone());
        async move { work_while(&locks, WORKERS, Duration::from_secs(60), going).await }
    });

    eventually(Duration::from_secs(5), async || pool(&locks).limit < 20).await;
    let first_refusal = tokio::time::Instant::now();
    tokio::time::sleep(millis(2500)).await;
    let settled = pool(&locks);
    // The test's own connection is the twelfth.
    assert_eq!(settled.limit, 11, "{settled:?}");
    assert!(open(&settled) <= 11, "{settled:?}");
    assert!(
        matches!(settled.limit_reason, Some(LimitReason::MaxClients | LimitReason::ClosedInHandshake)),
        "{settled:?}"
    );
    let dials = proxy.dials();
    let late: Vec<_> = dials.into_iter().filter(|at| *at > first_refusal).collect();
    for (number, from) in late.iter().enumerate() {
        let within = late[number..].iter().take_while(|at| **at - *from < Duration::from_secs(1)).count();
        assert!(within <= 4, "{within} dials in a second after a refusal");
    }

    server.cmd(&["CONFIG", "SET", "maxclients", "100"]);
    eventually(Duration::from_secs(10), async || {
        let pool = pool(&locks);
        if open(&pool) == 20 && pool.limit == 20 && pool.limit_reason.is_none() {
            Ok(())
        } else {
            Err(format!("{pool:?}"))
        }
    })
    .await;
    going.store(false, SeqCst);
    let tally = load.await.expect("workers do not panic");
    println!("{} rounds, {} dials after the first refusal: {:?}", tally.rounds, late.len(), tally.troubles);
    assert!(tally.rounds > 0 && tally.last_trouble < Duration::from_secs(1), "{tally:?}");
    tally.assert_faults_only();
}

//! Who prolongs a lease that Redis has lost and that is about to be put back.

use futures_util::future::join_all;
use spool_lock::{ExtendError, Ttl};
use tokio::time::Instant;

use super::{
    scene::*,
    support::{RedisServer, eventually},
};

const LEASES: usize = 20;

/// Each of the factory's workers prolongs his lease, again where Redis cannot be asked; all were put back before they were answered.
async fn all_are_prolonged(factory: &Factory, server: &RedisServer) {
    let began = Instant::now();
    let leases = factory.ledger.entries().clone();
    let owner = &owner();
    let prolonged = leases.iter().map(async |lease| {
        let prolongs =
            async || match factory.locks.extend(&lease.tag, owner, Ttl::HOUR).fence(lease.fence).await {
                Err(ExtendError::Fault(fault)) => Err(fault),
                answer => Ok(answer),
            };
        eventually(SOON, prolongs).await
    });
    for (lease, prolonged) in leases.iter().zip(join_all(prolonged).await) {
        let prolonged = prolonged.unwrap_or_else(|error| panic!("{}: {error:?}", lease.tag));
        assert_eq!((prolonged.fence, prolonged.since), (lease.fence, lease.since));
    }
    println!("{LEASES} were prolonged {:?} after the data had gone", began.elapsed());
    eventually(SOON, async || factory.is_whole(server)).await;
    assert_eq!((factory.told.lost(), factory.lost_total()), ([].into(), [].into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extend_after_a_flush_waits_until_its_lease_is_back() {
    let server = RedisServer::start();
    let factory = Factory::open(&server, config(&server.url()), 0, Ttl::HALF_MINUTE, LEASES).await;
    server.cmd(&["FLUSHALL"]);
    all_are_prolonged(&factory, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extend_after_a_restart_waits_until_its_lease_is_back() {
    let server = RedisServer::start();
    let factory = Factory::open(&server, config(&server.url()), 0, Ttl::HALF_MINUTE, LEASES).await;
    server.shutdown();
    server.restart();
    all_are_prolonged(&factory, &server).await;
}

/// Nobody knows of it, so that it cannot be put back: its holder is told, as soon as that is certain.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extend_of_what_is_not_put_back_is_told_that_it_is_not_held() {
    let server = RedisServer::start();
    let factory = Factory::open(&server, config(&server.url()), 0, Ttl::HALF_MINUTE, 1).await;
    let lease = factory.ledger.entries().pop().expect("there is one");
    server.cmd(&["FLUSHALL"]);
    let began = Instant::now();
    match factory.locks.extend(&lease.tag, &owner(), Ttl::HOUR).fence(lease.fence).await {
        Err(ExtendError::NotHeld { last: None }) => println!("told after {:?}", began.elapsed()),
        other => panic!("{other:?}"),
    }
}

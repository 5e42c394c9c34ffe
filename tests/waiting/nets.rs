//! What holds when a message does not arrive: the keeper of each line looks by itself at every poll.

use std::time::Duration;

use tokio::{task::JoinHandle, time::Instant};

use crate::{
    crew::{Waiter as _, Worker},
    queued,
    support::{FaultProxy, RedisServer, eventually, proxy::named},
    workers::{SOON, connect, millis},
};

/// The poll, and by how much chance may prolong it.
const POLL: Duration = Duration::from_millis(1_200);
const TAG: &str = "TEST-02";

/// Waits in a task of its own, and says when it was granted.
fn wait(mut waiter: Worker) -> JoinHandle<Instant> {
    tokio::spawn(async move {
        let lease = waiter.take().await.expect("it is granted");
        let granted = Instant::now();
        waiter.give_back(lease).await.expect("it is held");
        granted
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_found_although_the_subscription_was_killed() {
    let server = RedisServer::start();
    let (here, there) = (connect(&server.url(), |_| {}).await, connect(&server.url(), |_| {}).await);
    let mut holder = Worker::new(&here, TAG, 1);
    for round in 0..5 {
        let lease = holder.take().await.expect("it is free");
        let next = wait(Worker::new(&there, TAG, 2));
        queued(&server, TAG, 1).await;
        let kill = async || server.query::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]) == 1;
        eventually(SOON, kill).await;
        // At once, and when it may be subscribing again.
        tokio::time::sleep(millis(round)).await;
        let released = Instant::now();
        holder.give_back(lease).await.expect("it is held");
        let spent = next.await.expect("no panic") - released;
        assert!(spent <= POLL, "round {round}: {spent:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_noticed_while_the_subscription_is_on_its_way() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let (here, there) = (connect(&server.url(), |_| {}).await, connect(&proxy.url(), |_| {}).await);
    let mut holder = Worker::new(&here, TAG, 1);
    let lease = holder.take().await.expect("it is free");
    let subscribe = proxy.hold_requests(named("SUBSCRIBE"));
    let next = wait(Worker::new(&there, TAG, 2));
    subscribe.caught(1).await;

    let released = Instant::now();
    holder.give_back(lease).await.expect("it is held");
    let spent = next.await.expect("no panic") - released;
    assert!(spent <= POLL, "{spent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_asks_once_a_second_while_nothing_happens() {
    const TAGS: usize = 20;
    let server = RedisServer::start();
    let (here, there) = (connect(&server.url(), |_| {}).await, connect(&server.url(), |_| {}).await);
    let mut waiters = Vec::new();
    for number in 0..TAGS {
        let tag = format!("TEST-{number:02}");
        Worker::new(&here, &tag, 1).take().await.expect("it is free");
        waiters.push(wait(Worker::new(&there, &tag, 2)));
    }
    for number in 0..TAGS {
        queued(&server, &format!("TEST-{number:02}"), 1).await;
    }
    let (before, began) = (server.sent(), Instant::now());
    tokio::time::sleep(Duration::from_secs(8)).await;
    let commands = (server.sent() - before) as f64 / TAGS as f64 / began.elapsed().as_secs_f64();
    println!("{commands:.2} commands/s for each tag");
    assert!((0.75..=1.0).contains(&commands), "{commands} commands/s for each tag");
    waiters.iter().for_each(JoinHandle::abort);
}

//! Whose turn it is when a line is opened and closed again and again, and when somebody asks a second time.

use spool_lock::{AcquireError, Holder, Tag, Token, Ttl};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    crew::{Waiter as _, Worker},
    queued,
    support::{FaultProxy, RedisServer, eventually, proxy::containing},
    workers::{SOON, connect, millis},
};

const TAG: &str = "TEST-02";

/// Of two who hold in turn and think in between, nobody waits when a line ends: each time a new one begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_hand_on_to_each_other_do_not_keep_others_out() {
    let server = RedisServer::start();
    let here = connect(&server.url(), |_| {}).await;
    let there = connect(&server.url(), |_| {}).await;
    let mut pair = JoinSet::new();
    for number in 0..2 {
        let mut worker = Worker::new(&here, TAG, number);
        pair.spawn(async move {
            loop {
                let lease = worker.take().await.expect("its turn comes");
                sleep(millis(20)).await;
                worker.give_back(lease).await.expect("it is held");
                sleep(millis(5)).await;
            }
        });
    }
    sleep(millis(100)).await;
    let mut other = Worker::new(&there, TAG, 2);
    for _ in 0..5 {
        let asked = Instant::now();
        let lease = timeout(SOON, other.take()).await.expect("its turn comes").expect("no fault");
        assert!(asked.elapsed() < millis(500), "{:?}", asked.elapsed());
        other.give_back(lease).await.expect("it is held");
    }
    assert!(pair.try_join_next().is_none(), "both still take turns");
}

/// Whoever asks for what it may have been granted before is not behind those who wait for that.
#[tokio::test]
async fn who_repeats_a_call_does_not_wait_for_itself() {
    let server = RedisServer::start();
    let here = connect(&server.url(), |_| {}).await;
    let there = connect(&server.url(), |_| {}).await;
    let (tag, repeating) = (Tag::new(TAG).unwrap(), Holder::new("7", "").unwrap());
    let mut holder = Worker::new(&there, TAG, 0);
    holder.take().await.expect("it is free");
    let mut waiter = Worker::new(&here, TAG, 1);
    let waiting = tokio::spawn(async move { waiter.take().await.map(drop) });
    queued(&server, TAG, 1).await;
    // As if its first call had been granted from the queue, and nobody had heard of it.
    let token = Token::random();
    server.cmd(&["DEL", &format!("spool:{{{TAG}}}:lock"), &format!("spool:{{{TAG}}}:queue")]);
    let granted = there.acquire(&tag, &repeating).token(token).await.expect("it is free");

    let repeat = here.acquire(&tag, &repeating).token(token).wait(SOON);
    let adopted = timeout(millis(500), repeat.into_future()).await.expect("at once").expect("its own");
    assert_eq!(adopted.fence, granted.fence);
    waiting.abort();
}

/// Whoever heard that nobody knows, and found out by asking again, keeps what it has.
#[tokio::test]
async fn what_was_adopted_after_a_lost_answer_is_not_cleared_up() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let there = connect(&server.url(), |_| {}).await;
    let here = connect(&proxy.url(), |config| config.deadline = millis(400)).await;
    let mut holder = Worker::new(&there, TAG, 0);
    let lease = holder.take().await.expect("it is free");
    let (tag, waiter) = (Tag::new(TAG).unwrap(), Holder::new("7", "").unwrap());
    let waiting = tokio::spawn({
        let (here, tag, waiter) = (here.clone(), tag.clone(), waiter.clone());
        async move { here.acquire(&tag, &waiter).wait(millis(700)).await }
    });
    queued(&server, TAG, 1).await;
    // From here on nothing that it asks for the tag arrives: not that it confirms, not that it leaves.
    let held = proxy.hold_requests(containing(&format!("{{{TAG}}}:lock")));
    holder.give_back(lease).await.expect("it is held");
    let Err(AcquireError::Ambiguous { claim, .. }) = waiting.await.expect("no panic") else {
        panic!("it was granted the lock, and nobody told it so")
    };
    let token = claim.into_token();
    drop(held);
    let adopted = eventually(SOON, async || here.acquire(&tag, &waiter).token(token).await).await;
    let adopted = here.extend(&tag, &waiter, Ttl::HOUR).fence(adopted.fence).await.expect("it is held");

    let until = Instant::now() + millis(3_000);
    while Instant::now() < until {
        let occupant = there.inspect(&tag).await.expect("healthy").value;
        assert_eq!(occupant.map(|it| it.fence), Some(adopted.fence), "it keeps what it has");
        sleep(millis(50)).await;
    }
}

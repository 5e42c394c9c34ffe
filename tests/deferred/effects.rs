//! What a deferred release does, and what it leaves alone.

use spool_lock::{Event, ReleaseOutcome, Settlement};
use tokio::time::timeout;

use super::{
    setup::*,
    support::{
        eventually,
        proxy::{LostReply, containing, named},
    },
};

#[tokio::test]
async fn a_release_of_an_outage_is_applied_once_and_its_event_has_its_name() {
    let net = Net::open(|_| {}).await;
    let mut watch = net.far.watch().await.unwrap();
    let (lease, request) = net.deferred(1).await;
    assert_eq!(counts(&net.far), Counts { waiting: 1, deferred: 1, ..Counts::default() });
    assert_eq!(standing(&net.near, &tag(1)).await, Some(lease.fence), "nobody has released it yet");

    let after = net.mend().await;
    assert_eq!(after, Counts { deferred: 1, applied: 1, ..Counts::default() });
    assert_eq!(next_settled(&mut watch).await, (request, Settlement::Applied));
    assert_eq!(releases(&net.near, &tag(1)).await, [(lease.fence, true)]);
    assert_eq!(standing(&net.near, &tag(1)).await, None);
    // And that is all: another recovery has nothing to do.
    net.cut().await;
    assert_eq!(net.mend().await, after);
    assert_eq!(releases(&net.near, &tag(1)).await, [(lease.fence, true)]);
}

#[tokio::test]
async fn whoever_watches_the_tag_hears_what_became_of_the_call() {
    let net = Net::open(|_| {}).await;
    let mut watch = net.far.watch_tag(&tag(1)).await.unwrap();
    let (lease, request) = net.deferred(1).await;
    net.proxy.heal();
    loop {
        let event = timeout(SOON, watch.next()).await.unwrap().unwrap();
        if let Event::Settled { tag, holder, fence, request: told, settlement, .. } = &*event {
            assert_eq!((tag, holder, *fence), (&lease.tag, &lease.holder, Some(lease.fence)));
            assert_eq!((*told, *settlement), (request, Settlement::Applied));
            break;
        }
    }
}

#[tokio::test]
async fn of_a_lease_that_has_ended_by_itself_it_is_dropped_and_told() {
    let net = Net::open(|_| {}).await;
    let mut watch = net.far.watch().await.unwrap();
    let lease = net.far.acquire(&tag(1), &worker()).ttl(ttl(millis(1500))).await.unwrap();
    net.cut().await;
    let request = assert_deferred(net.far.release_lease(&lease).await);
    eventually(SOON, async || standing(&net.near, &tag(1)).await.is_none()).await;
    assert_eq!(net.mend().await, Counts { deferred: 1, ended: 1, ..Counts::default() });
    assert_eq!(next_settled(&mut watch).await, (request, Settlement::Ended));
    assert_eq!(releases(&net.near, &tag(1)).await, [(lease.fence, false)], "it was not released");
}

/// With a fence or without one: what was granted since stays.
#[tokio::test]
async fn neither_another_holder_nor_the_same_one_anew_loses_a_newer_lease() {
    for (holder, is_exact) in [(stranger(), true), (stranger(), false), (worker(), true), (worker(), false)] {
        let net = Net::open(|_| {}).await;
        let mut watch = net.far.watch().await.unwrap();
        let lease = net.acquired(1).await;
        net.cut().await;
        let (tag, worker) = (tag(1), worker());
        let release = net.far.release(&tag, &worker);
        let release = if is_exact { release.fence(lease.fence) } else { release };
        let request = assert_deferred(release.await);

        a_moment_later().await;
        net.near.force_release(&tag, "operator", "test").await.unwrap();
        let newer = net.near.acquire(&tag, &holder).await.unwrap();
        assert_eq!(net.mend().await, Counts { deferred: 1, ended: 1, ..Counts::default() });
        assert_eq!(next_settled(&mut watch).await, (request, Settlement::Ended));
        assert_eq!(standing(&net.near, &tag).await, Some(newer.fence), "{holder:?} {is_exact}");
        assert_eq!(releases(&net.near, &tag).await.last(), Some(&(newer.fence, false)));
    }
}

#[tokio::test]
async fn without_a_fence_it_ends_the_lease_that_stood_when_it_was_made() {
    let net = Net::open(|_| {}).await;
    let lease = net.acquired(1).await;
    net.cut().await;
    assert_deferred(net.far.release(&tag(1), &worker()).await);
    assert_deferred(net.far.release(&tag(2), &worker()).await);
    a_moment_later().await;
    let other = net.near.acquire(&tag(2), &worker()).await.unwrap();
    assert_eq!(net.mend().await, Counts { deferred: 2, applied: 1, ended: 1, ..Counts::default() });
    assert_eq!(releases(&net.near, &tag(1)).await, [(lease.fence, true)]);
    assert_eq!(standing(&net.near, &tag(2)).await, Some(other.fence), "it is younger than the call");
}

/// The server has applied it, and nobody heard.
#[tokio::test]
async fn a_release_whose_reply_was_lost_is_settled_as_applied_and_ends_nothing_newer() {
    for holder in [stranger(), worker()] {
        let net = Net::open(|_| {}).await;
        let mut watch = net.far.watch().await.unwrap();
        let lease = net.acquired(1).await;
        net.proxy.drop_replies(1, LostReply::DropThenClose, |request| {
            containing("TEST-00001")(request) && named("EVALSHA")(request)
        });
        net.proxy.refuse();
        let request = assert_deferred(net.far.release_lease(&lease).await);
        assert_eq!(net.proxy.replies_dropped(), 1);
        assert_eq!(releases(&net.near, &tag(1)).await, [(lease.fence, true)], "it was applied");

        let newer = net.near.acquire(&tag(1), &holder).await.unwrap();
        assert_eq!(net.mend().await, Counts { deferred: 1, applied: 1, ..Counts::default() });
        assert_eq!(next_settled(&mut watch).await, (request, Settlement::Applied));
        assert_eq!(standing(&net.near, &tag(1)).await, Some(newer.fence), "{holder:?}");
    }
}

/// The link is well again, and the first one is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_release_of_a_tag_stands_behind_the_first() {
    // A connection for each call: what is held stands in nobody's way.
    let net = Net::open(|config| config.pool.depth = 1).await;
    let mut watch = net.far.watch().await.unwrap();
    let other = net.acquired(2).await;
    let (lease, first) = net.deferred(1).await;
    net.proxy.heal();
    let held =
        net.proxy.hold_requests(|request| containing("TEST-00001")(request) && named("EVALSHA")(request));
    held.caught(1).await;
    let second = assert_deferred(net.far.release_lease(&lease).await);
    assert_eq!(held.count(), 1, "nothing was sent");
    // Nobody waits at the other tag.
    assert_eq!(net.far.release_lease(&other).await.unwrap(), ReleaseOutcome::Released);
    held.release();
    let settled = [next_settled(&mut watch).await, next_settled(&mut watch).await];
    assert_eq!(settled, [(first, Settlement::Applied), (second, Settlement::Ended)]);
    assert_eq!(
        all_settled(&net.far).await,
        Counts { deferred: 2, applied: 1, ended: 1, ..Counts::default() }
    );
}

#[tokio::test]
async fn it_is_applied_also_where_every_clone_of_the_locks_is_gone() {
    let net = Net::open(|_| {}).await;
    net.deferred(1).await;
    let Net { server: _server, proxy, far, near } = net;
    drop(far);
    proxy.heal();
    eventually(SOON, async || standing(&near, &tag(1)).await.is_none()).await;
    // And then nobody is left who would hold a connection.
    eventually(SOON, async || proxy.connections_open() == 0).await;
}

/// By the same step: whoever waits would look by himself only after a minute, and hears of nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_hands_the_lock_on_to_whoever_waits_in_this_process() {
    let net = Net::open(|config| {
        (config.wait.poll, config.pool.max_connections) = (60 * SECOND, 1);
    })
    .await;
    let lease = net.acquired(1).await;
    let waiter = tokio::spawn({
        let far = net.far.clone();
        async move { far.acquire(&tag(1), &stranger()).wait(50 * SECOND).await }
    });
    eventually(SOON, async || net.far.stats().locks.waiters == 1).await;
    net.cut().await;
    assert_deferred(net.far.release_lease(&lease).await);
    let before = net.server.sent();
    assert_eq!(net.mend().await, Counts { deferred: 1, applied: 1, ..Counts::default() });
    let granted = timeout(SOON, waiter).await.expect("it is handed on").unwrap().unwrap();
    assert_eq!(standing(&net.near, &tag(1)).await, Some(granted.fence));
    println!("{} commands from the way's end to the next holder", net.server.sent() - before);
}

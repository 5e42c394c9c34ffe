//! What happens between a grant and its guard, and beside the guard: each is told of, and counted once.

use std::{future::Future, pin::Pin, task::Poll};

use spool_lock::{GuardReleaseError, GuardState, LockGuard};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::support::{
    FaultProxy,
    proxy::{LostReply, named},
};

/// Polls a call once, and not again.
async fn begin<T>(call: &mut Pin<Box<impl Future<Output = T>>>) {
    std::future::poll_fn(|cx| {
        assert!(call.as_mut().poll(cx).is_pending(), "somebody else has it");
        Poll::Ready(())
    })
    .await;
}

/// Lets a guard wait for a tag that is released after that, and does not look at what it was granted.
macro_rules! granted_unseen {
    ($locks:expr, $tag:expr, $robot:expr, $ttl:expr) => {{
        let other = $locks.acquire($tag, &stranger()).await.expect("it is free");
        let mut waits = Box::pin($locks.guard($tag, $robot).ttl($ttl).wait(SOON).into_future());
        while $locks.stats().locks.waiters == 0 {
            begin(&mut waits).await;
            tokio::task::yield_now().await;
        }
        $locks.release_lease(&other).await.expect("it is held");
        waits
    }};
}

/// Its first renewal is due while there is time for it, however late the caller looks.
#[tokio::test]
async fn a_guard_that_was_granted_long_ago_is_renewed_in_time() {
    for (locks, _server) in stores().await {
        let (tags, robot): (Vec<_>, _) = ((0..20).map(numbered).collect(), robot());
        let mut all = Vec::new();
        for tag in &tags {
            all.push(granted_unseen!(locks, tag, &robot, ttl(3000)));
        }
        // Less than an interval is left.
        sleep(Duration::from_millis(2500)).await;
        let mut guards = Vec::new();
        for waits in all {
            guards.push(waits.await.expect("it was handed over"));
        }
        sleep(Duration::from_millis(1000)).await;
        for guard in &guards {
            assert!(
                matches!(guard.state(), GuardState::Held { .. } | GuardState::Jeopardy { .. }),
                "{guard:?}"
            );
        }
        assert_eq!(lost_total(&locks), [].into());
    }
}

#[tokio::test]
async fn a_guard_whose_lock_was_lost_before_it_was_seen_says_so() {
    for (locks, _server) in stores().await {
        let (tag, robot) = (tag(), robot());
        let waits = granted_unseen!(locks, &tag, &robot, Ttl::HALF_MINUTE);
        // What is granted from the queue lasts two seconds, until its process has heard of it.
        eventually(SOON, async || {
            let occupant = locks.inspect(&tag).await.expect("healthy").value.expect("it was handed over");
            occupant.expires_at > occupant.since + Duration::from_secs(29)
        })
        .await;
        locks.force_release(&tag, "boss", "a drill").await.expect("it is the robot's by now");
        let guard = waits.await.expect("it was handed over");
        assert_eq!(guard.state(), GuardState::Lost { reason: LostReason::Forced });
        assert_eq!(lost_total(&locks), [(LostReason::Forced, 1)].into());
    }
}

/// The lease of a guard can be read, and so can be released by a call that is not the guard's.
#[tokio::test]
async fn a_guard_whose_lease_was_released_by_another_call_says_so_at_once() {
    for (locks, _server) in stores().await {
        let guard = locks.guard(&tag(), &robot()).await.expect("it is free");
        locks.release_lease(guard.lease()).await.expect("it is held");
        assert_eq!(guard.state(), GuardState::Lost { reason: LostReason::Expired });
        assert!(matches!(guard.release().await, Err(GuardReleaseError::Lost(_))));
        assert_eq!(lost_total(&locks), [(LostReason::Expired, 1)].into());
    }
}

#[tokio::test]
async fn a_guard_whose_lease_was_released_by_another_process_says_so_as_soon_as_it_is_heard() {
    let server = RedisServer::start();
    let (locks, another) = (connect(&server.url()).await, connect(&server.url()).await);
    let _watch = locks.watch_tag(&tag()).await.expect("healthy");
    let guard = locks.guard(&tag(), &robot()).await.expect("it is free");
    another.release_lease(guard.lease()).await.expect("it is held");
    let lost = timeout(TOLD_WITHIN, guard.lost()).await.expect("it is heard");
    assert_eq!(lost.reason, LostReason::Expired);
    assert_eq!(lost_total(&locks), [(LostReason::Expired, 1)].into());
}

/// A renewal that is under way while its guard gives back does not make that a loss, also where the hub has not heard of it and
/// finds the lock free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_is_given_back_while_it_is_renewed_is_no_loss() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let mut watch = locks.watch().await.expect("healthy");
    let events = tokio::spawn(async move {
        let mut lost = 0;
        while let Some(event) = watch.next().await {
            lost += u32::from(event.name() == "lost");
        }
        lost
    });
    for round in 0..20 {
        let mut guards = Vec::new();
        for number in 0..20 {
            let (tag, robot) = (numbered(number), robot());
            let guard = locks.guard(&tag, &robot).wait(SOON).renew_every(Duration::from_millis(1));
            guards.push(guard.await.expect("it is free"));
        }
        sleep(Duration::from_millis(20)).await;
        server.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        for (number, guard) in guards.into_iter().enumerate() {
            if (number + round) % 2 == 0 { drop(guard) } else { guard.release().await.expect("it is held") }
        }
    }
    for number in 0..20 {
        is_freed(&locks, &numbered(number), SOON).await;
    }
    assert_eq!(lost_total(&locks), [].into());
    drop(locks);
    assert_eq!(timeout(SOON, events).await.expect("it ends").expect("no panic"), 0);
}

/// Whoever has the last handle finds out by himself what the keeper has no time to.
#[tokio::test]
async fn the_last_guard_leaves_nothing_behind_that_a_lost_reply_has_prolonged() {
    for is_dropped in [true, false] {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        let locks = connect(&proxy.url()).await;
        let guard = locks.guard(&tag(), &robot()).ttl(ttl(3000)).await.expect("it is free");
        // From here on the server knows the script.
        eventually(SOON, async || renewals(&locks) > 0).await;
        drop(locks);
        // Renewals reach the server and are not heard of. The keeper has no turn when it is too late.
        proxy.drop_replies(usize::MAX, LostReply::DropThenClose, named("EVALSHA"));
        while guard.safe_for() > Duration::from_millis(30) {
            sleep(Duration::from_millis(5)).await;
        }
        while guard.safe_for() > Duration::ZERO {
            std::thread::sleep(Duration::from_millis(1));
        }
        let key = key(&tag());
        let left: u64 = server.query(&["PTTL", &key]);
        assert!(left > 500, "{left} ms are left: it was prolonged");
        proxy.heal();
        if is_dropped {
            drop(guard);
        } else {
            assert!(matches!(guard.release().await, Err(GuardReleaseError::Lost(_))));
        }
        let bound = Duration::from_millis(left / 2);
        eventually(bound, async || !server.query::<bool>(&["EXISTS", &key])).await;
    }
}

/// Each release would wait for its deadline. The first that gets no answer says enough.
#[tokio::test]
async fn guards_of_several_tags_are_given_back_in_the_background_while_redis_is_away() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut config = Config::new(&proxy.url()).expect("an address");
    config.deadline = Duration::from_secs(1);
    let locks = SpoolLocks::connect(config).await.expect("healthy");
    let near = connect(&server.url()).await;
    let other = near.acquire(&numbered(9), &stranger()).await.expect("it is free");
    let tags: Vec<_> = (0..10).map(numbered).collect();
    let (robot, began) = (robot(), Instant::now());
    let (refused, ()) =
        tokio::join!(locks.guard_all(&tags, &robot).wait(Duration::from_millis(500)).into_future(), async {
            eventually(SOON, async || locks.stats().locks.waiters == 1).await;
            proxy.blackhole();
        });
    assert_eq!(refused.expect_err("one is held").tag, numbered(9));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    proxy.heal();
    for tag in &tags[..9] {
        is_freed(&near, tag, SOON).await;
    }
    near.release_lease(&other).await.expect("it is held");
}

/// There is nothing to repeat: it is said at once, and counted.
#[tokio::test]
async fn a_release_that_finds_the_lock_written_over_says_that_it_was_lost() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let guard = locks.guard(&tag(), &robot()).await.expect("it is free");
    server.cmd(&["SET", &key(&tag()), "junk"]);
    match guard.release().await {
        Err(GuardReleaseError::Lost(lost)) => assert_eq!(lost.reason, LostReason::Stolen),
        other => panic!("{other:?}"),
    }
    assert_eq!(lost_total(&locks), [(LostReason::Stolen, 1)].into());
    assert!(server.query::<bool>(&["EXISTS", &key(&tag())]), "it is not ours to delete");
}

/// One that it hands out ends nothing but itself.
#[tokio::test]
async fn who_cancels_a_token_of_a_guard_cancels_nobody_elses() {
    for (locks, _server) in stores().await {
        let guard: LockGuard = locks.guard(&tag(), &robot()).await.expect("it is free");
        guard.cancellation().cancel();
        assert!(!guard.cancellation().is_cancelled());
    }
}

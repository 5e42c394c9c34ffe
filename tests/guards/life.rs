//! How a guard is taken, kept and given back.

use std::time::Duration;

use spool_lock::{AcquireError, ExtendError, GuardState, LeaseKind, LostReason, ReleaseError};
use tokio::time::{Instant, sleep, timeout};

use super::*;

#[tokio::test]
async fn a_guard_holds_for_longer_than_its_ttl_and_is_released() {
    for (locks, _server) in stores().await {
        let guard = locks.guard(&tag(), &robot()).ttl(ttl(600)).note("ARM").await.expect("it is free");
        let fence = guard.fence();
        for _ in 0..10 {
            sleep(Duration::from_millis(150)).await;
            let occupant = locks.inspect(&tag()).await.expect("healthy").value.expect("it is held");
            assert_eq!((occupant.fence, occupant.kind), (fence, LeaseKind::Guard));
            assert_eq!((occupant.holder, occupant.note.as_str()), (robot(), "ARM"));
            assert!(
                matches!(guard.state(), GuardState::Held { safe_for } if safe_for < Duration::from_millis(600))
            );
        }
        let renewals = locks.stats().locks.operations["extend"].total;
        assert!((5..=15).contains(&renewals), "{renewals} in 1.5 s, one each 200 ms");
        guard.release().await.expect("it is held");
        assert!(is_free(&locks, &tag()).await);
        assert_eq!(locks.stats().locks.lost_total.values().sum::<u64>(), 0);
    }
}

#[tokio::test]
async fn a_guard_that_is_dropped_is_released() {
    for (locks, _server) in stores().await {
        drop(locks.guard(&tag(), &robot()).await.expect("it is free"));
        is_freed(&locks, &tag(), SOON).await;
        assert_eq!(locks.stats().locks.swept_total["released"], 1);
    }
}

#[tokio::test]
async fn a_guard_outlives_its_locks_and_is_released_by_the_last() {
    let server = RedisServer::start();
    let other = connect(&server.url()).await;
    for is_dropped in [true, false] {
        let locks = connect(&server.url()).await;
        let guard = locks.guard(&tag(), &robot()).ttl(ttl(600)).await.expect("it is free");
        drop(locks);
        sleep(Duration::from_millis(1200)).await;
        assert!(matches!(guard.state(), GuardState::Held { .. }), "it is renewed");
        if is_dropped {
            drop(guard);
        } else {
            guard.release().await.expect("it is held");
        }
        is_freed(&other, &tag(), Duration::from_millis(300)).await;
        // What it had open is closed.
        eventually(SOON, async || match server.clients().len() {
            1 => Ok(()),
            open => Err(format!("{open} connections are open")),
        })
        .await;
    }
}

#[tokio::test]
async fn a_guard_waits_in_line_and_hands_over() {
    for (locks, _server) in stores().await {
        let first = locks.guard(&tag(), &stranger()).await.expect("it is free");
        let refused = locks.guard(&tag(), &robot()).await.expect_err("it is held");
        assert!(matches!(refused, AcquireError::Contended { occupant, .. } if occupant.holder == stranger()));
        let (tag, robot) = (tag(), robot());
        let (second, ()) = tokio::join!(locks.guard(&tag, &robot).wait(SOON).into_future(), async {
            while locks.stats().locks.waiters == 0 {
                tokio::task::yield_now().await;
            }
            first.release().await.expect("it is held");
        });
        let second = second.expect("it was handed over");
        assert!(second.safe_for() > Duration::from_secs(29));
        second.release().await.expect("it is held");
    }
}

/// Must hold 9.
#[tokio::test]
async fn a_guard_and_an_identity_of_one_holder_do_not_touch_each_other() {
    for (locks, _server) in stores().await {
        let guard = locks.guard(&tag(), &robot()).ttl(ttl(900)).await.expect("it is free");
        let contended = locks.acquire(&tag(), &robot()).await.expect_err("it is held by a guard");
        assert!(
            matches!(contended, AcquireError::Contended { occupant, .. } if occupant.kind == LeaseKind::Guard)
        );
        let release = locks.release(&tag(), &robot()).await.expect_err("it is the guard's");
        assert!(matches!(release, ReleaseError::NotHolder(occupant) if occupant.fence == guard.fence()));
        let release =
            locks.release(&tag(), &robot()).fence(guard.fence()).await.expect_err("it is the guard's");
        assert!(matches!(release, ReleaseError::NotHolder(_)));
        let extend = locks.extend(&tag(), &robot(), Ttl::HOUR).await.expect_err("it is the guard's");
        assert!(matches!(extend, ExtendError::NotHolder(_)));
        sleep(Duration::from_millis(1000)).await;
        assert!(matches!(guard.state(), GuardState::Held { .. }));
        guard.release().await.expect("it is held");

        let lease = locks.acquire(&tag(), &robot()).await.expect("it is free");
        let contended = locks.guard(&tag(), &robot()).await.expect_err("it is held by the identity");
        assert!(
            matches!(contended, AcquireError::Contended { occupant, .. } if occupant.fence == lease.fence)
        );
        locks.release_lease(&lease).await.expect("it is held");
        assert_eq!(locks.stats().locks.lost_total.values().sum::<u64>(), 0);
    }
}

/// Two tasks of one robot exclude each other, and a loop that drops its guard takes the next.
#[tokio::test]
async fn another_guard_of_the_same_holder_waits_like_anybodys() {
    for (locks, server) in stores().await {
        let mut before = locks.guard(&tag(), &robot()).await.expect("it is free");
        let again = locks.guard(&tag(), &robot()).await.expect_err("it is held");
        assert!(
            matches!(again, AcquireError::Contended { occupant, .. } if occupant.fence == before.fence())
        );
        for _ in 0..20 {
            let fence = before.fence();
            drop(before);
            before = locks.guard(&tag(), &robot()).wait(SOON).await.expect("it is released");
            assert!(before.fence() > fence);
        }
        let another = connect_beside(&server).await;
        if let Some(another) = another {
            let (tag, robot) = (tag(), robot());
            let (next, ()) = tokio::join!(another.guard(&tag, &robot).wait(SOON).into_future(), async {
                eventually(SOON, async || another.stats().locks.waiters == 1).await;
                before.release().await.expect("it is held");
            });
            assert!(next.expect("of another process, too").safe_for() > Duration::from_secs(29));
        }
    }
}

#[tokio::test]
async fn guards_of_several_tags_are_all_taken_or_none() {
    for (locks, _server) in stores().await {
        let tags = [numbered(3), numbered(1), numbered(2), numbered(1)];
        let guards = locks.guard_all(&tags, &robot()).await.expect("they are free");
        let named: Vec<_> = guards.iter().map(|guard| guard.tag().clone()).collect();
        assert_eq!(named, [numbered(1), numbered(2), numbered(3)]);
        drop(guards);
        for number in 1..=3 {
            is_freed(&locks, &numbered(number), SOON).await;
        }

        let other = locks.acquire(&numbered(3), &stranger()).await.expect("it is free");
        let refused = locks.guard_all(&tags, &robot()).await.expect_err("one is held");
        assert_eq!((refused.tag, refused.lost.len()), (numbered(3), 0));
        assert!(matches!(*refused.why, AcquireError::Contended { .. }));
        assert!(is_free(&locks, &numbered(1)).await && is_free(&locks, &numbered(2)).await);
        locks.release_lease(&other).await.expect("it is held");
    }
}

/// Those that were taken first are kept while the last is waited for, longer than their ttl.
#[tokio::test]
async fn guards_of_several_tags_are_renewed_while_the_others_are_waited_for() {
    for (locks, _server) in stores().await {
        let tags = [numbered(1), numbered(2)];
        let other = locks.acquire(&numbered(2), &stranger()).await.expect("it is free");
        let robot = robot();
        let all = locks.guard_all(&tags, &robot).ttl(ttl(300)).wait(SOON);
        let (guards, ()) = tokio::join!(all.into_future(), async {
            sleep(Duration::from_millis(1000)).await;
            locks.release_lease(&other).await.expect("it is held");
        });
        let guards = guards.expect("both were free in the end");
        assert!(guards.iter().all(|guard| matches!(guard.state(), GuardState::Held { .. })));
    }
}

#[tokio::test]
async fn a_guard_is_not_renewed_beyond_its_longest_hold() {
    for (locks, _server) in stores().await {
        let taken = Instant::now();
        let guard = locks.guard(&tag(), &robot()).ttl(ttl(400)).max_hold(Duration::from_millis(1000)).await;
        let guard = guard.expect("it is free");
        let mut watch = guard.watch();
        assert!(matches!(watch.next().await, Some(GuardState::Held { .. })));
        assert!(matches!(watch.next().await, Some(GuardState::Jeopardy { .. })), "the early warning");
        assert!(taken.elapsed() >= Duration::from_millis(700), "{:?}", taken.elapsed());
        assert_eq!(watch.next().await, Some(GuardState::Lost { reason: LostReason::Deadline }));
        assert_eq!(watch.next().await, None);
        let held = taken.elapsed();
        assert!((900..=1050).contains(&held.as_millis()), "{held:?}");
        is_freed(&locks, &tag(), Duration::from_millis(250)).await;
    }
}

#[tokio::test]
async fn work_is_stopped_when_its_lock_is_lost_and_goes_on_while_it_is_not() {
    for (locks, _server) in stores().await {
        let guard = locks.guard(&tag(), &robot()).ttl(ttl(300)).await.expect("it is free");
        let work = async {
            sleep(Duration::from_millis(700)).await;
            12
        };
        assert_eq!(guard.protect(work).await, Ok(12));
        let cancellation = guard.cancellation();
        assert!(!cancellation.is_cancelled());

        let (lost, ended) = tokio::join!(guard.protect(std::future::pending::<()>()), async {
            locks.force_release(&tag(), "boss", "a drill").await.expect("it is held")
        });
        assert_eq!(ended.map(|occupant| occupant.fence), Some(guard.fence()));
        let lost = lost.expect_err("it was released by force");
        assert_eq!((lost.reason, lost.fence), (LostReason::Forced, guard.fence()));
        timeout(SOON, cancellation.cancelled()).await.expect("it fires");
        assert_eq!(guard.protect(std::future::ready(())).await, Err(lost.clone()), "no work is begun");
        let error = guard.release().await.expect_err("it was lost");
        assert_eq!(error.to_string(), lost.to_string());
        assert_eq!(locks.stats().locks.lost_total["forced"], 1);
    }
}

#[tokio::test]
async fn who_watches_hears_that_the_guard_was_given_back() {
    for (locks, _server) in stores().await {
        for is_dropped in [true, false] {
            let guard = locks.guard(&tag(), &robot()).wait(SOON).await.expect("it is free");
            let (mut watch, cancellation) = (guard.watch(), guard.cancellation());
            assert!(matches!(watch.next().await, Some(GuardState::Held { .. })));
            let given_back =
                async { if is_dropped { drop(guard) } else { guard.release().await.expect("it is held") } };
            let (state, ()) = tokio::join!(watch.next(), given_back);
            assert_eq!(state, Some(GuardState::Released));
            assert_eq!(watch.next().await, None);
            assert!(cancellation.is_cancelled());
        }
    }
}

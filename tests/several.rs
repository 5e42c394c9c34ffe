//! Several locks at once: all of them or none, in both stores.

#![cfg(feature = "memory")]

mod support;

use std::time::Duration;

use spool_lock::{AcquireAllError, AcquireError, Config, Holder, SpoolLocks, Tag, Ttl};
use support::{RedisServer, eventually};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(5);

/// The locks of a store of its own, which lives as long as the server beside it.
async fn stores() -> Vec<(SpoolLocks, Option<RedisServer>)> {
    let server = RedisServer::start();
    let connect =
        async |url: &str| SpoolLocks::connect(Config::new(url).expect("an address")).await.expect("healthy");
    vec![(connect("memory://").await, None), (connect(&server.url()).await, Some(server))]
}

fn tags<const N: usize>(numbers: [usize; N]) -> [Tag; N] {
    numbers.map(|number| Tag::new(format!("TEST-{number:02}")).expect("a tag"))
}

fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

fn stranger() -> Holder {
    Holder::new("7", "").expect("a holder")
}

async fn is_free(locks: &SpoolLocks, tag: &Tag) -> bool {
    locks.inspect(tag).await.expect("healthy").value.is_none()
}

#[tokio::test]
async fn all_are_acquired_in_the_order_of_their_tags_each_once() {
    for (locks, _server) in stores().await {
        let leases =
            locks.acquire_all(&tags([2, 1, 3, 1]), &worker()).note("ARM").await.expect("all are free");
        assert!(leases.iter().map(|lease| &lease.tag).eq(&tags([1, 2, 3])));
        assert!(leases.iter().all(|lease| lease.note == "ARM"));
        for lease in &leases {
            locks.release_lease(lease).await.expect("it is held");
        }
        assert!(locks.acquire_all(&[], &worker()).await.expect("nothing to be had").is_empty());
    }
}

#[tokio::test]
async fn where_one_refuses_none_is_kept() {
    for (locks, _server) in stores().await {
        let [one, two, three] = tags([1, 2, 3]);
        locks.acquire(&three, &stranger()).await.expect("it is free");
        let asked = [three.clone(), one.clone(), two.clone()];
        let AcquireAllError { tag, why, lost, .. } =
            locks.acquire_all(&asked, &worker()).await.expect_err("the third is held");
        assert!(
            matches!(&*why, AcquireError::Contended { occupant, .. } if occupant.holder == stranger()),
            "{why:?}"
        );
        assert_eq!((tag, lost), (three, vec![]));
        assert!(is_free(&locks, &one).await && is_free(&locks, &two).await);
    }
}

#[tokio::test]
async fn what_the_holder_had_before_stays() {
    for (locks, _server) in stores().await {
        let [one, two] = tags([1, 2]);
        let before = locks.acquire(&two, &worker()).await.expect("it is free");
        let error =
            locks.acquire_all(&[one.clone(), two.clone()], &worker()).await.expect_err("it has it already");
        assert!(
            matches!(&*error.why, AcquireError::AlreadyHeld(lease) if lease.fence == before.fence),
            "{error:?}"
        );
        assert!(is_free(&locks, &one).await);
        assert!(!is_free(&locks, &two).await);
    }
}

#[tokio::test]
async fn what_had_ended_before_it_was_given_back_is_told() {
    for (locks, _server) in stores().await {
        let [one, two] = tags([1, 2]);
        locks.acquire(&two, &stranger()).await.expect("it is free");
        let short = Ttl::new(Duration::from_millis(50)).expect("a ttl");
        let wait = Duration::from_millis(300);
        let error =
            locks.acquire_all(&[one.clone(), two], &worker()).ttl(short).wait(wait).await.expect_err("held");
        assert_eq!(error.lost, [one]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_want_the_same_in_another_order_do_not_wait_for_each_other() {
    for (locks, _server) in stores().await {
        let rounds = |tags: [Tag; 2], holder: Holder| {
            let locks = locks.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    let leases = locks.acquire_all(&tags, &holder).wait(SOON).await.expect("its turn comes");
                    for lease in &leases {
                        locks.release_lease(lease).await.expect("it is held");
                    }
                }
            })
        };
        let (one, other) = (rounds(tags([1, 2]), worker()), rounds(tags([2, 1]), stranger()));
        one.await.expect("no panic");
        other.await.expect("no panic");
    }
}

#[tokio::test]
async fn a_dropped_call_keeps_nothing() {
    for (locks, _server) in stores().await {
        let [one, two] = tags([1, 2]);
        locks.acquire(&two, &stranger()).await.expect("it is free");
        let (asked, worker) = ([one.clone(), two], worker());
        let call = locks.acquire_all(&asked, &worker).wait(SOON);
        timeout(Duration::from_millis(200), call.into_future()).await.expect_err("it waits");
        eventually(SOON, async || is_free(&locks, &one).await).await;
    }
}

#[tokio::test]
async fn a_bad_note_is_refused_before_anything_is_acquired() {
    for (locks, _server) in stores().await {
        let asked = tags([1, 2]);
        let error = locks.acquire_all(&asked, &worker()).note("two\nlines").await.expect_err("a line's end");
        assert!(matches!(*error.why, AcquireError::InvalidNote(_)), "{error:?}");
        assert!(is_free(&locks, &asked[0]).await);
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_for_all_together() {
    let locks = SpoolLocks::connect(Config::new("memory://").expect("an address")).await.expect("healthy");
    let (asked, worker) = (tags([1, 2]), worker());
    let first = locks.acquire(&asked[0], &stranger()).await.expect("it is free");
    locks.acquire(&asked[1], &stranger()).await.expect("it is free");
    let began = Instant::now();
    let (outcome, ()) = tokio::join!(
        locks.acquire_all(&asked, &worker).wait(Duration::from_millis(500)).into_future(),
        async {
            sleep(Duration::from_millis(300)).await;
            locks.release_lease(&first).await.expect("it is held");
        }
    );
    assert_eq!(outcome.expect_err("the second is held").tag, asked[1]);
    assert!(began.elapsed() < Duration::from_millis(510), "{:?}", began.elapsed());
}

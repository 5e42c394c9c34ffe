//! Limits: whoever asks too often is refused at once and leaves nothing, and whoever has a lock keeps it and gives it back.

#![cfg(all(feature = "memory", feature = "rate-limit"))]

use std::time::Duration;

use spool_lock::{AcquireAllError, AcquireError, Config, Holder, LimitedBy, SpoolLocks, Tag, Token, Ttl};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

async fn connect(per_holder: &str, per_tag: &str) -> SpoolLocks {
    let limit = |name: &str, rate: &str| (format!("SPOOL_LOCK_LIMIT_{name}"), rate.to_owned());
    let url = ("SPOOL_LOCK_URL".to_owned(), "memory://".to_owned());
    let config = Config::from_vars([url, limit("PER_HOLDER", per_holder), limit("PER_TAG", per_tag)]);
    SpoolLocks::connect(config.expect("settings")).await.expect("it needs no server")
}

fn tags() -> [Tag; 3] {
    ["TEST-01", "TEST-02", "TEST-03"].map(|name| Tag::new(name).expect("a tag"))
}

fn worker(id: &str) -> Holder {
    Holder::new(id, "").expect("a holder")
}

/// Whose limit refused it, and when there may be one more.
fn limited<T: std::fmt::Debug>(refused: Result<T, AcquireError>) -> (LimitedBy, Duration) {
    match refused.expect_err("a limit is reached") {
        AcquireError::Limited { by, retry_after, .. } => (by, retry_after),
        other => panic!("{other:?}"),
    }
}

/// How often the store was asked for a lock.
fn asked(locks: &SpoolLocks) -> u64 {
    locks.stats().locks.operations["acquire"].total
}

async fn is_free(locks: &SpoolLocks, tag: &Tag) -> bool {
    locks.inspect(tag).await.expect("healthy").value.is_none()
}

#[tokio::test(start_paused = true)]
async fn holder_who_asks_too_often_is_refused_at_once_and_leaves_nothing() {
    let locks = connect("2/1s", "").await;
    let ([first, second, third], rosa) = (tags(), worker("93"));
    locks.acquire(&first, &rosa).await.expect("the first");
    let guard = locks.guard(&second, &rosa).await.expect("the second");
    let (before, started) = (asked(&locks), Instant::now());

    let identity = limited(locks.acquire(&third, &rosa).await);
    assert_eq!(identity, (LimitedBy::Holder, SECOND / 2));
    assert_eq!(limited(locks.acquire(&third, &rosa).wait(5 * SECOND).await), identity, "also who would wait");
    assert_eq!(limited(locks.guard(&third, &rosa).await), identity);
    assert_eq!(limited(locks.guard(&third, &rosa).wait(5 * SECOND).await), identity);
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(asked(&locks), before, "nothing was sent");
    assert!(is_free(&locks, &third).await);

    locks.acquire(&third, &worker("94")).await.expect("another holder has a limit of his own");
    locks.release(&third, &worker("94")).await.expect("he has it");
    sleep(SECOND / 2).await;
    locks.acquire(&third, &rosa).await.expect("retry_after has passed");
    guard.release().await.expect("it is held");
}

#[tokio::test(start_paused = true)]
async fn tag_that_is_asked_for_too_often_is_refused_to_everybody_and_kept_by_its_holder() {
    let locks = connect("", "2/1s").await;
    let ([tag, other, _], rosa) = (tags(), worker("93"));
    let lease = locks.acquire(&tag, &rosa).await.expect("the first");
    let second = locks.acquire(&tag, &worker("94")).await;
    assert!(matches!(second, Err(AcquireError::Contended { .. })), "an answer counts as any: {second:?}");
    for id in ["93", "94", "95"] {
        assert_eq!(limited(locks.acquire(&tag, &worker(id)).await), (LimitedBy::Tag, SECOND / 2));
    }
    locks.acquire(&other, &worker("95")).await.expect("another tag has a limit of its own");

    for _ in 0..100 {
        locks.extend(&tag, &rosa, Ttl::HOUR).await.expect("she has it");
    }
    locks.release_lease(&lease).await.expect("she has it");
    assert!(is_free(&locks, &tag).await);
}

#[tokio::test(start_paused = true)]
async fn each_of_several_tags_counts_and_those_before_are_given_back() {
    let (tags, rosa) = (tags(), worker("93"));
    for is_guard in [false, true] {
        let locks = connect("2/1s", "").await;
        let refused = if is_guard {
            locks.guard_all(&tags, &rosa).await.map(drop)
        } else {
            locks.acquire_all(&tags, &rosa).await.map(drop)
        };
        let AcquireAllError { tag, why, lost, .. } = refused.expect_err("two of three");
        assert_eq!((&tag, lost), (&tags[2], vec![]));
        assert_eq!(limited::<()>(Err(*why)), (LimitedBy::Holder, SECOND / 2));
        for tag in &tags {
            assert!(is_free(&locks, tag).await, "{tag}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn repeat_of_a_call_by_its_token_is_not_counted() {
    let locks = connect("1/1s", "1/1s").await;
    let ([tag, ..], rosa) = (tags(), worker("93"));
    let lease = locks.acquire(&tag, &rosa).await.expect("the first");
    let token = lease.token.expect("it is hers");
    for _ in 0..10 {
        let again = locks.acquire(&tag, &rosa).token(token).await.expect("it is the same call");
        assert_eq!(again.fence, lease.fence);
    }
    let other = locks.acquire(&tag, &worker("94")).token(Token::random()).await;
    assert!(matches!(other, Err(AcquireError::Contended { .. })), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn wait_in_line_counts_once_however_long_it_lasts() {
    let locks = connect("", "2/1h").await;
    let ([tag, ..], rosa, juan) = (tags(), worker("93"), worker("94"));
    let lease = locks.acquire(&tag, &rosa).await.expect("the first");
    let (waited, released) =
        tokio::join!(async { locks.acquire(&tag, &juan).wait(60 * SECOND).await }, async {
            sleep(30 * SECOND).await;
            locks.release_lease(&lease).await
        },);
    released.expect("she has it");
    waited.expect("the second, after thirty looks");
    assert_eq!(limited(locks.acquire(&tag, &worker("95")).await).0, LimitedBy::Tag);
}

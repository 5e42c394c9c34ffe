use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{sync::mpsc::error::TryRecvError, time::advance};

use super::*;
use crate::{
    FaultKind, Holder, LeaseKind,
    store::{FEED_CAPACITY, News, Topic, suite},
};

suite::behaviours!(stand);

/// A store under a name of its own, that lives as long as its processes.
fn stand() -> impl AsyncFn(Rules) -> MemoryStore {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("store-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    async move |rules| MemoryStore::open(Some(&name), rules)
}

const PLACE: Duration = Duration::from_secs(4);
/// How long a process counts as living after it looked.
const LIVING: Duration = Duration::from_secs(2);
const RULES: Rules = Rules { place: PLACE, history: Some((2, Duration::from_secs(60))), ..suite::LIVING };
const MILLISECOND: Duration = Duration::from_millis(1);

async fn processes<const N: usize>() -> [MemoryStore; N] {
    let open = stand();
    let mut processes = Vec::new();
    for _ in 0..N {
        processes.push(open(RULES).await);
    }
    processes.try_into().expect("so many were opened")
}

fn tag() -> Tag {
    Tag::new("TEST-02").expect("a tag")
}

fn ask(holder: &str) -> Ask {
    Ask {
        tag: tag(),
        holder: Holder::new(holder, "").expect("a holder"),
        kind: LeaseKind::Identity,
        token: Token::random(),
        ttl: Ttl::HOUR,
        note: String::new(),
    }
}

fn whose(lease: &Lease) -> Whose<'_> {
    Whose { tag: &lease.tag, holder: &lease.holder, kind: lease.kind, fence: Some(lease.fence) }
}

async fn take(store: &MemoryStore, holder: &str) -> Lease {
    match store.acquire(&ask(holder), Instant::now()).await.expect("healthy") {
        Acquired::Granted(lease) => lease,
        other => panic!("a grant was expected: {other:?}"),
    }
}

async fn give(store: &MemoryStore, lease: &Lease) {
    store.release(whose(lease), RequestId::random(), Instant::now()).await.expect("healthy");
}

async fn look(store: &MemoryStore, ask: &Ask) -> Queued {
    store.queue(ask, None, Instant::now()).await.expect("healthy")
}

async fn holder_id(store: &MemoryStore) -> String {
    match store.inspect(&tag(), Instant::now()).await.expect("healthy") {
        Seen::Held(occupant) => occupant.holder.id().to_owned(),
        Seen::Free { .. } => String::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_not_looked_for_half_a_place_is_passed_over() {
    for (late, served) in [(false, "b"), (true, "")] {
        let [a, b] = processes().await;
        let lease = take(&a, "a").await;
        look(&b, &ask("b")).await;
        advance(if late { LIVING } else { LIVING - MILLISECOND }).await;
        give(&a, &lease).await;
        assert_eq!(holder_id(&a).await, served);
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_lasts_exactly_as_long_as_the_rules_say() {
    for (late, served) in [(false, "b"), (true, "c")] {
        let [a, b, c] = processes().await;
        let (lease, to_b) = (take(&a, "a").await, ask("b"));
        look(&b, &to_b).await;
        advance(PLACE - MILLISECOND).await;
        look(&c, &ask("c")).await;
        advance(if late { MILLISECOND } else { Duration::ZERO }).await;
        look(&b, &to_b).await;
        give(&a, &lease).await;
        assert_eq!(holder_id(&a).await, served);
    }
}

#[tokio::test(start_paused = true)]
async fn each_look_renews_the_place() {
    let [a, b] = processes().await;
    let (lease, to_b) = (take(&a, "a").await, ask("b"));
    for _ in 0..2 {
        look(&b, &to_b).await;
        advance(LIVING - MILLISECOND).await;
    }
    give(&a, &lease).await;
    assert_eq!(holder_id(&a).await, "b");
}

#[tokio::test(start_paused = true)]
async fn what_is_granted_from_the_queue_ends_when_its_process_falls_silent() {
    let [a, b] = processes().await;
    let lease = take(&a, "a").await;
    look(&b, &ask("b")).await;
    advance(LIVING / 2).await;
    give(&a, &lease).await;
    advance(LIVING / 2 - MILLISECOND).await;
    assert_eq!(holder_id(&a).await, "b");
    advance(MILLISECOND).await;
    assert_eq!(holder_id(&a).await, "");
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_lasts_its_whole_ttl_from_then_on() {
    let [a, b] = processes().await;
    let (lease, to_b) = (take(&a, "a").await, ask("b"));
    look(&b, &to_b).await;
    give(&a, &lease).await;
    advance(LIVING / 2).await;
    assert!(matches!(look(&b, &to_b).await, Queued::Granted(_)));
    advance(Ttl::HOUR.duration() - MILLISECOND).await;
    assert_eq!(holder_id(&a).await, "b");
    advance(MILLISECOND).await;
    assert_eq!(holder_id(&a).await, "");
}

#[tokio::test(start_paused = true)]
async fn who_passes_the_lock_to_others_has_a_whole_place_again() {
    let [a, b] = processes().await;
    let (lease, to_b, next) = (take(&a, "a").await, ask("b"), ask("next"));
    look(&a, &next).await;
    look(&b, &to_b).await;
    advance(LIVING - MILLISECOND).await;
    a.hand_over(whose(&lease), RequestId::random(), &next, true, Instant::now()).await.expect("healthy");
    let Queued::Granted(lease) = look(&b, &to_b).await else { panic!("it was granted to b") };
    advance(LIVING - MILLISECOND).await;
    give(&b, &lease).await;
    assert_eq!(holder_id(&a).await, "next");
}

#[tokio::test(start_paused = true)]
async fn who_confirms_has_no_place_left() {
    let [a] = processes().await;
    let (first, second) = (ask("a"), ask("b"));
    a.acquire(&first, Instant::now()).await.expect("healthy");
    look(&a, &second).await;
    let Queued::Granted(lease) = look(&a, &first).await else { panic!("the token holds") };
    give(&a, &lease).await;
    assert_eq!(holder_id(&a).await, "");
}

#[tokio::test(start_paused = true)]
async fn an_extend_that_changes_nothing_is_not_said() {
    let [a] = processes().await;
    let lease = take(&a, "a").await;
    let mut feed = a.feed(Instant::now()).await.expect("healthy");
    feed.topics.follow(&Topic::All).await.expect("healthy");
    a.extend(whose(&lease), Ttl::HALF_MINUTE, Reach::AtLeast, Instant::now()).await.expect("healthy");
    a.extend(whose(&lease), Ttl::HALF_MINUTE, Reach::Exactly, Instant::now()).await.expect("healthy");
    assert!(matches!(feed.news.try_recv(), Ok(News::Follows(Topic::All))));
    assert!(matches!(feed.news.try_recv(), Ok(News::Said(Event::Extended { .. }))));
    assert!(matches!(feed.news.try_recv(), Err(TryRecvError::Empty)));
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_told_with_the_time_of_its_end() {
    let [a] = processes().await;
    let lease = take(&a, "a").await;
    advance(Duration::from_secs(7)).await;
    give(&a, &lease).await;
    let told = a.history(&tag(), Instant::now()).await.expect("healthy");
    let Some(Event::Released { occupant, at }) = told.last() else { panic!("released: {told:?}") };
    assert_eq!((*at, occupant.expires_at), (lease.since + Duration::from_secs(7), *at));
}

#[tokio::test(start_paused = true)]
async fn each_record_is_forgotten_in_its_own_time() {
    let [a] = processes().await;
    let lease = take(&a, "a").await;
    advance(Duration::from_secs(40)).await;
    give(&a, &lease).await;
    advance(Duration::from_secs(20)).await;
    let told = a.history(&tag(), Instant::now()).await.expect("healthy");
    assert!(matches!(told[..], [Event::Released { .. }]), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_too_slow_sees_the_end_and_no_other_does() {
    let [a] = processes().await;
    let lease = take(&a, "a").await;
    let mut slow = a.feed(Instant::now()).await.expect("healthy");
    let mut quick = a.feed(Instant::now()).await.expect("healthy");
    for feed in [&slow, &quick] {
        feed.topics.follow(&Topic::Tag(tag())).await.expect("healthy");
    }
    quick.news.recv().await.expect("it follows");
    for _ in 0..FEED_CAPACITY {
        a.extend(whose(&lease), Ttl::HOUR, Reach::Exactly, Instant::now()).await.expect("healthy");
        assert!(matches!(quick.news.recv().await, Some(News::Said(_))));
    }
    for _ in 0..FEED_CAPACITY {
        slow.news.recv().await.expect("what it had room for");
    }
    assert!(matches!(slow.news.try_recv(), Err(TryRecvError::Disconnected)));
    let fault = slow.topics.follow(&Topic::All).await.expect_err("it has ended");
    assert_eq!(fault.kind(), FaultKind::Disconnected);
    quick.topics.unfollow(&Topic::Tag(tag())).await.expect("it lives");
}

#[tokio::test(start_paused = true)]
async fn feeds_that_nobody_reads_are_not_kept() {
    let [a] = processes().await;
    let dropped = a.feed(Instant::now()).await.expect("healthy").topics;
    let _read = a.feed(Instant::now()).await.expect("healthy");
    let fault = dropped.follow(&Topic::All).await.expect_err("nobody reads it");
    assert_eq!(fault.kind(), FaultKind::Disconnected);
}

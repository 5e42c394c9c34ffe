//! What a lock means does not depend on where it is kept: one suite, run against each store.
//!
//! Every behaviour gets two front doors to one store, as two processes have them: `locks` and `other`.

#![cfg(all(feature = "memory", feature = "serde"))]
// Every behaviour is a test; the lint sees that only where `#[test]` stands on the function itself.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use spool_lock::{
    AcquireError, Config, ExtendError, Fence, ForceReleaseError, Holder, Lease, LeaseKind, Occupant,
    ReleaseError, ReleaseOutcome, RequestId, Shorten, ShortenOutcome, Source, SpoolLocks, Tag, Token, Ttl,
};
use support::{RedisServer, eventually};
use tokio::task::JoinSet;

const SOON: Duration = Duration::from_secs(5);

/// Two front doors to one store.
struct Stand {
    locks: SpoolLocks,
    other: SpoolLocks,
    server: Option<RedisServer>,
}

impl Stand {
    async fn memory() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let url = format!("memory://conformance-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { locks: connect(&url).await, other: connect(&url).await, server: None }
    }

    async fn redis() -> Self {
        let server = RedisServer::start();
        let url = server.url();
        Self { locks: connect(&url).await, other: connect(&url).await, server: Some(server) }
    }

    /// When the lock of `tag` ends, where there is a server to ask: ms since 1970.
    fn ends_at(&self, tag: &Tag) -> Option<u64> {
        let key = format!("spool:{{{tag}}}:lock");
        self.server.as_ref().map(|server| server.query(&["PEXPIRETIME", &key]))
    }

    async fn occupant(&self, tag: &Tag) -> Option<Occupant> {
        let reading = self.other.inspect(tag).await.expect("a healthy store answers");
        assert_eq!((reading.source, reading.age), (Source::Live, Duration::ZERO));
        reading.value
    }

    async fn ended(&self, tag: &Tag) {
        eventually(SOON, async || self.occupant(tag).await.is_none()).await;
    }
}

async fn connect(url: &str) -> SpoolLocks {
    let config = Config::new(url).expect("the address is right");
    SpoolLocks::connect(config).await.expect("the store is healthy")
}

fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a tag")
}

fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

fn stranger() -> Holder {
    Holder::new("7", "AB(7)").expect("a holder")
}

fn millis(millis: u64) -> Ttl {
    Ttl::new(Duration::from_millis(millis)).expect("a ttl")
}

fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("before the year 584554019")
}

/// Two views of one lease; when it ends is read from a clock each time.
#[track_caller]
fn assert_same(seen: impl Into<Occupant>, lease: &Lease) {
    let (seen, lease) = (seen.into(), Occupant::from(lease.clone()));
    let plain = |it: &Occupant| {
        let holder = (it.holder.id().to_owned(), it.holder.name().to_owned());
        (it.tag.clone(), holder, it.kind, it.fence, it.since, it.note.clone())
    };
    assert_eq!(plain(&seen), plain(&lease));
    let apart = unix_millis(seen.expires_at).abs_diff(unix_millis(lease.expires_at));
    assert!(apart <= 20, "{seen:?} ends {apart} ms apart from {lease:?}");
}

#[track_caller]
fn assert_contended(outcome: Result<Lease, AcquireError>) -> (Occupant, Duration) {
    match outcome {
        Err(AcquireError::Contended { occupant, expires_in }) => (*occupant, expires_in),
        other => panic!("contended was expected: {other:?}"),
    }
}

#[track_caller]
fn assert_already_held(outcome: Result<Lease, AcquireError>) -> Lease {
    match outcome {
        Err(AcquireError::AlreadyHeld(lease)) => *lease,
        other => panic!("already held was expected: {other:?}"),
    }
}

#[track_caller]
fn assert_not_holder(outcome: Result<ReleaseOutcome, ReleaseError>) -> Occupant {
    match outcome {
        Err(ReleaseError::NotHolder(occupant)) => *occupant,
        other => panic!("not holder was expected: {other:?}"),
    }
}

#[track_caller]
fn assert_not_held(outcome: Result<ReleaseOutcome, ReleaseError>) -> Option<Fence> {
    match outcome {
        Err(ReleaseError::NotHeld { last }) => last,
        other => panic!("not held was expected: {other:?}"),
    }
}

async fn shortened(call: Shorten<'_>) -> Lease {
    match call.await.unwrap() {
        ShortenOutcome::Shortened(lease) => lease,
        other => panic!("it can be asked: {other:?}"),
    }
}

macro_rules! conformance {
    ($($behaviour:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::Stand::memory().await).await })*
        }
        mod redis {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::Stand::redis().await).await })*
        }
    };
}

conformance! {
    every_grant_has_a_higher_fence
    a_grant_says_what_was_granted
    one_of_many_contenders_is_granted
    only_the_holder_releases
    any_process_releases_for_the_holder
    a_stranger_learns_who_holds_it
    the_same_holder_gets_its_old_lease
    release_after_expiry_says_not_held_with_the_last_fence
    what_was_never_held_has_no_last_fence
    an_extend_prolongs
    an_extend_shortens_only_when_asked
    an_extend_never_creates
    an_extend_refuses_all_but_the_holder
    a_release_with_a_fence_ends_exactly_that_grant
    a_repeated_acquire_is_granted_with_the_same_fence
    a_token_that_ended_is_granted_anew
    a_repeated_release_is_answered_released
    a_repeated_release_spares_whoever_holds_by_now
    the_last_three_releases_are_remembered
    a_release_that_was_refused_is_not_remembered
    force_release_tells_whose_it_was
    the_list_is_in_the_order_of_the_tags
    inspect_says_who_or_nobody
    the_shortest_and_the_longest_ttl_are_exact
    a_lease_from_a_ledger_releases_its_grant
    words_survive
    an_overlong_note_is_refused_before_the_store
    everything_is_counted
}

async fn every_grant_has_a_higher_fence(stand: Stand) {
    let tag = tag("TEST-02");
    let mut last = 0;
    for turn in 0..20 {
        let locks = if turn % 2 == 0 { &stand.locks } else { &stand.other };
        let holder = if turn % 3 == 0 { worker() } else { stranger() };
        let lease = locks.acquire(&tag, &holder).await.unwrap();
        assert!(lease.fence.get() > last, "{} after {last}", lease.fence);
        last = lease.fence.get();
        match turn % 4 {
            0 => drop(locks.release(&tag, &holder).await.unwrap()),
            1 => drop(locks.force_release(&tag, "operator", "test").await.unwrap()),
            2 => drop(locks.release_lease(&lease).await.unwrap()),
            _ => {
                locks.extend(&tag, &holder, Ttl::MIN).shorten().await.unwrap();
                stand.ended(&tag).await;
            }
        }
    }
}

async fn a_grant_says_what_was_granted(stand: Stand) {
    let tag = tag("TEST-02");
    let before = SystemTime::now() - Duration::from_millis(20);
    let lease = stand.locks.acquire(&tag, &worker()).ttl(millis(90_000)).note("ARM").await.unwrap();
    assert_eq!((&lease.tag, lease.holder.id(), lease.holder.name()), (&tag, "93", "MR(93)"));
    assert_eq!((lease.kind, lease.note.as_str()), (LeaseKind::Identity, "ARM"));
    assert!(lease.token.is_some(), "the one who got it has the token");
    assert!((before..=SystemTime::now()).contains(&lease.since), "{lease:?}");
    assert_eq!(lease.expires_at.duration_since(lease.since).unwrap(), Duration::from_secs(90));
    let default = stand.locks.acquire(&self::tag("TEST-03"), &worker()).await.unwrap();
    assert_eq!(default.expires_at.duration_since(default.since).unwrap(), Ttl::HOUR.duration());
}

async fn one_of_many_contenders_is_granted(stand: Stand) {
    let tag = tag("TEST-02");
    let mut contenders = JoinSet::new();
    for number in 0..40 {
        let locks = if number % 2 == 0 { stand.locks.clone() } else { stand.other.clone() };
        let tag = tag.clone();
        contenders.spawn(async move {
            let holder = Holder::new(number.to_string(), "").expect("a holder");
            locks.acquire(&tag, &holder).await
        });
    }
    let mut granted = Vec::new();
    let mut told = Vec::new();
    while let Some(outcome) = contenders.join_next().await {
        match outcome.unwrap() {
            Ok(lease) => granted.push(lease),
            Err(AcquireError::Contended { occupant, .. }) => told.push(*occupant),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((granted.len(), told.len()), (1, 39));
    for occupant in told {
        assert_same(occupant, &granted[0]);
    }
}

async fn only_the_holder_releases(stand: Stand) {
    let (tag, worker, stranger) = (tag("TEST-02"), worker(), stranger());
    let lease = stand.locks.acquire(&tag, &worker).await.unwrap();
    for release in [
        stand.locks.release(&tag, &stranger),
        stand.locks.release(&tag, &stranger).fence(lease.fence),
        stand.other.release(&tag, &stranger),
    ] {
        assert_same(assert_not_holder(release.await), &lease);
    }
    assert_same(stand.occupant(&tag).await.unwrap(), &lease);
    stand.locks.release(&tag, &worker).await.unwrap();
    assert_eq!(stand.occupant(&tag).await, None);
}

async fn any_process_releases_for_the_holder(stand: Stand) {
    let tag = tag("TEST-02");
    stand.locks.acquire(&tag, &worker()).await.unwrap();
    // The same identity, named otherwise there.
    let same = Holder::new("93", "M. Rojas").unwrap();
    stand.other.release(&tag, &same).await.unwrap();
    assert_eq!(stand.occupant(&tag).await, None);
}

async fn a_stranger_learns_who_holds_it(stand: Stand) {
    let tag = tag("TEST-02");
    let lease = stand.locks.acquire(&tag, &worker()).ttl(millis(60_000)).note("ARM").await.unwrap();
    let (occupant, expires_in) = assert_contended(stand.other.acquire(&tag, &stranger()).note("SOLD").await);
    assert_same(occupant.clone(), &lease);
    assert_eq!((occupant.holder.name(), occupant.note.as_str()), ("MR(93)", "ARM"));
    assert!((Duration::from_secs(30)..=Duration::from_secs(60)).contains(&expires_in), "{expires_in:?}");
}

async fn the_same_holder_gets_its_old_lease(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let lease = stand.locks.acquire(&tag, &worker).ttl(millis(60_000)).note("ARM").await.unwrap();
    let ends_at = stand.ends_at(&tag);
    for locks in [&stand.locks, &stand.other] {
        let old = assert_already_held(locks.acquire(&tag, &worker).ttl(Ttl::MAX).note("SOLD").await);
        assert_same(old.clone(), &lease);
        assert_eq!(old.token, None, "only the one who was granted it has the token");
        assert_eq!(stand.ends_at(&tag), ends_at, "the ttl is untouched");
    }
}

async fn release_after_expiry_says_not_held_with_the_last_fence(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let lease = stand.locks.acquire(&tag, &worker).ttl(millis(30)).await.unwrap();
    stand.ended(&tag).await;
    assert_eq!(assert_not_held(stand.locks.release(&tag, &worker).await), Some(lease.fence));
    assert_eq!(assert_not_held(stand.other.release_lease(&lease).await), Some(lease.fence));
    let anew = stand.locks.acquire(&tag, &stranger()).await.unwrap();
    assert_same(assert_not_holder(stand.locks.release_lease(&lease).await), &anew);
    assert_same(stand.occupant(&tag).await.unwrap(), &anew);
}

async fn what_was_never_held_has_no_last_fence(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    assert_eq!(assert_not_held(stand.locks.release(&tag, &worker).await), None);
    let extended = stand.locks.extend(&tag, &worker, Ttl::HOUR).await;
    assert!(matches!(extended, Err(ExtendError::NotHeld { last: None })), "{extended:?}");
    let forced = stand.locks.force_release(&tag, "operator", "test").await;
    assert!(matches!(forced, Err(ForceReleaseError::NotHeld { last: None })), "{forced:?}");
}

async fn an_extend_prolongs(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let lease = stand.locks.acquire(&tag, &worker).ttl(millis(40_000)).note("ARM").await.unwrap();
    for (locks, seconds) in [(&stand.locks, 60), (&stand.other, 90)] {
        let extended = locks.extend(&tag, &worker, millis(seconds * 1000)).await.unwrap();
        let held_for = extended.expires_at.duration_since(SystemTime::now()).unwrap();
        assert!(held_for.as_secs_f64() > seconds as f64 - 10.0, "{held_for:?}");
        assert!(held_for.as_secs_f64() < seconds as f64 + 1.0, "{held_for:?}");
        let of_the_grant = (extended.fence, extended.since, extended.note.as_str());
        assert_eq!(of_the_grant, (lease.fence, lease.since, "ARM"));
        assert_same(stand.occupant(&tag).await.unwrap(), &extended);
    }
    stand.locks.extend(&tag, &worker, Ttl::HOUR).fence(lease.fence).await.unwrap();
    stand.locks.release_lease(&lease).await.unwrap();
}

async fn an_extend_shortens_only_when_asked(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let lease = stand.locks.acquire(&tag, &worker).await.unwrap();
    let ends_at = stand.ends_at(&tag);
    let extended = stand.locks.extend(&tag, &worker, millis(1000)).await.unwrap();
    assert_same(extended, &lease);
    assert_eq!(stand.ends_at(&tag), ends_at);
    let shortened = shortened(stand.locks.extend(&tag, &worker, millis(20_000)).shorten()).await;
    let left = shortened.expires_at.duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(20), "{left:?}");
    assert_same(stand.occupant(&tag).await.unwrap(), &shortened);
}

async fn an_extend_never_creates(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let lease = stand.locks.acquire(&tag, &worker).ttl(millis(30)).await.unwrap();
    stand.ended(&tag).await;
    let extend = || stand.locks.extend(&tag, &worker, Ttl::HOUR);
    let not_held = [extend().await.unwrap_err(), extend().fence(lease.fence).shorten().await.unwrap_err()];
    for error in not_held {
        match error {
            ExtendError::NotHeld { last } => assert_eq!(last, Some(lease.fence)),
            other => panic!("not held was expected: {other:?}"),
        }
    }
    assert_eq!(stand.occupant(&tag).await, None);
}

async fn an_extend_refuses_all_but_the_holder(stand: Stand) {
    let (tag, worker, stranger) = (tag("TEST-02"), worker(), stranger());
    let lease = stand.locks.acquire(&tag, &worker).ttl(millis(60_000)).await.unwrap();
    let ends_at = stand.ends_at(&tag);
    let (lower, higher) = (Fence::new(lease.fence.get() - 1), Fence::new(lease.fence.get() + 1));
    for extend in [
        stand.locks.extend(&tag, &stranger, Ttl::HOUR),
        stand.locks.extend(&tag, &stranger, Ttl::HOUR).fence(lease.fence),
        stand.locks.extend(&tag, &worker, Ttl::HOUR).fence(lower.unwrap()),
        stand.locks.extend(&tag, &worker, Ttl::HOUR).fence(higher.unwrap()),
    ] {
        match extend.await {
            Err(ExtendError::NotHolder(occupant)) => assert_same(*occupant, &lease),
            other => panic!("not holder was expected: {other:?}"),
        }
    }
    assert_eq!(stand.ends_at(&tag), ends_at);
    assert_same(stand.occupant(&tag).await.unwrap(), &lease);
}

async fn a_release_with_a_fence_ends_exactly_that_grant(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let first = stand.locks.acquire(&tag, &worker).await.unwrap();
    stand.locks.release_lease(&first).await.unwrap();
    let second = stand.locks.acquire(&tag, &worker).await.unwrap();
    let above = Fence::new(second.fence.get() + 1).unwrap();
    for fence in [first.fence, above] {
        let refused = stand.locks.release(&tag, &worker).fence(fence).await;
        assert_same(assert_not_holder(refused), &second);
    }
    assert_same(stand.occupant(&tag).await.unwrap(), &second);
    stand.other.release(&tag, &worker).fence(second.fence).await.unwrap();
    assert_eq!(stand.occupant(&tag).await, None);
}

async fn a_repeated_acquire_is_granted_with_the_same_fence(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let token = Token::random();
    let lease =
        stand.locks.acquire(&tag, &worker).token(token).ttl(millis(60_000)).note("ARM").await.unwrap();
    assert_eq!(lease.token, Some(token));
    let ends_at = stand.ends_at(&tag);
    for locks in [&stand.locks, &stand.other] {
        let again = locks.acquire(&tag, &worker).token(token).ttl(Ttl::HOUR).await.unwrap();
        assert_eq!(again.token, Some(token));
        assert_same(again, &lease);
        assert_eq!(stand.ends_at(&tag), ends_at, "what is left of its ttl");
    }
}

async fn a_token_that_ended_is_granted_anew(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let lease = stand.locks.acquire(&tag, &worker).await.unwrap();
    let token = lease.token.unwrap();
    stand.locks.release_lease(&lease).await.unwrap();
    let anew = stand.locks.acquire(&tag, &worker).token(token).await.unwrap();
    assert!(anew.fence > lease.fence);
    stand.locks.release_lease(&anew).await.unwrap();
    let theirs = stand.locks.acquire(&tag, &stranger()).await.unwrap();
    let (occupant, _) = assert_contended(stand.locks.acquire(&tag, &worker).token(token).await);
    assert_same(occupant, &theirs);
}

async fn a_repeated_release_is_answered_released(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let lease = stand.locks.acquire(&tag, &worker).await.unwrap();
    let request = RequestId::random();
    stand.locks.release(&tag, &worker).request(request).await.unwrap();
    for locks in [&stand.locks, &stand.other] {
        locks.release(&tag, &worker).request(request).await.unwrap();
        locks.release(&tag, &worker).request(request).fence(lease.fence).await.unwrap();
    }
    assert_eq!(assert_not_held(stand.locks.release(&tag, &worker).await), Some(lease.fence));
}

async fn a_repeated_release_spares_whoever_holds_by_now(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    for next in [stranger(), worker.clone()] {
        stand.locks.acquire(&tag, &worker).await.unwrap();
        let request = RequestId::random();
        stand.locks.release(&tag, &worker).request(request).await.unwrap();
        let theirs = stand.other.acquire(&tag, &next).await.unwrap();
        stand.locks.release(&tag, &worker).request(request).await.unwrap();
        assert_same(stand.occupant(&tag).await.unwrap(), &theirs);
        stand.other.release_lease(&theirs).await.unwrap();
    }
}

async fn the_last_three_releases_are_remembered(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let mut requests = Vec::new();
    for _ in 0..4 {
        stand.locks.acquire(&tag, &worker).await.unwrap();
        let request = RequestId::random();
        stand.locks.release(&tag, &worker).request(request).await.unwrap();
        requests.push(request);
    }
    for request in &requests[1..] {
        stand.other.release(&tag, &worker).request(*request).await.unwrap();
    }
    assert_not_held(stand.other.release(&tag, &worker).request(requests[0]).await);
}

async fn a_release_that_was_refused_is_not_remembered(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let request = RequestId::random();
    assert_not_held(stand.locks.release(&tag, &worker).request(request).await);
    let theirs = stand.locks.acquire(&tag, &stranger()).await.unwrap();
    assert_not_holder(stand.locks.release(&tag, &worker).request(request).await);
    stand.locks.release_lease(&theirs).await.unwrap();
    assert_not_held(stand.locks.release(&tag, &worker).request(request).await);
}

async fn force_release_tells_whose_it_was(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let lease = stand.locks.acquire(&tag, &worker).note("ARM").await.unwrap();
    let ended = stand.other.force_release(&tag, "operator", "the worker went home").await.unwrap();
    assert_same(ended.expect("a lock of ours stood there"), &lease);
    assert_eq!(stand.occupant(&tag).await, None);
    match stand.other.force_release(&tag, "operator", "again").await {
        Err(ForceReleaseError::NotHeld { last }) => assert_eq!(last, Some(lease.fence)),
        other => panic!("not held was expected: {other:?}"),
    }
    assert_eq!(assert_not_held(stand.locks.release_lease(&lease).await), Some(lease.fence));
    assert!(stand.locks.acquire(&tag, &stranger()).await.unwrap().fence > lease.fence);
}

async fn the_list_is_in_the_order_of_the_tags(stand: Stand) {
    assert_eq!(stand.locks.list().await.unwrap().value, []);
    let odd = [
        "TEST-10",
        "TEST-9",
        "a",
        "A",
        " ",
        "*",
        "?",
        "[a-z]",
        "\\",
        "{",
        "}",
        "{}",
        "}:lock",
        "%",
        "%7B",
        "a:b",
        "spool:{x}:lock",
        "ü",
        "管",
        "\u{10ffff}",
        "😀",
        "|",
        "1|x|2",
        "'\"",
        "lock",
        "fence",
    ];
    let mut leases = Vec::new();
    for text in odd {
        leases.push(stand.locks.acquire(&tag(text), &worker()).note(text).await.unwrap());
    }
    for number in 0..300 {
        leases.push(stand.other.acquire(&tag(&format!("bulk-{number}")), &stranger()).await.unwrap());
    }
    let released = leases.pop().unwrap();
    stand.locks.release_lease(&released).await.unwrap();
    leases.sort_by(|one, other| one.tag.as_str().cmp(other.tag.as_str()));

    let reading = stand.other.list().await.unwrap();
    assert_eq!((reading.source, reading.age), (Source::Live, Duration::ZERO));
    assert_eq!(reading.value.len(), leases.len());
    for (occupant, lease) in reading.value.iter().zip(&leases) {
        assert_eq!((&occupant.tag, occupant.fence, &occupant.note), (&lease.tag, lease.fence, &lease.note));
    }
}

async fn inspect_says_who_or_nobody(stand: Stand) {
    let tag = tag("TEST-02");
    assert_eq!(stand.occupant(&tag).await, None);
    let lease = stand.locks.acquire(&tag, &worker()).ttl(millis(30)).note("ARM").await.unwrap();
    stand.ended(&tag).await;
    let next = stand.locks.acquire(&tag, &stranger()).note("SOLD").await.unwrap();
    assert!(next.fence > lease.fence);
    assert_same(stand.occupant(&tag).await.unwrap(), &next);
    assert_eq!(stand.occupant(&self::tag("TEST-03")).await, None);
}

async fn the_shortest_and_the_longest_ttl_are_exact(stand: Stand) {
    for (text, ttl) in [("shortest", Ttl::MIN), ("short", millis(1499)), ("longest", Ttl::MAX)] {
        let tag = tag(text);
        let lease = stand.locks.acquire(&tag, &worker()).ttl(ttl).await.unwrap();
        assert_eq!(lease.expires_at.duration_since(lease.since).unwrap(), ttl.duration());
        if ttl == Ttl::MIN {
            stand.ended(&tag).await;
        } else if let Some(ends_at) = stand.ends_at(&tag) {
            let late =
                ends_at.checked_sub(unix_millis(lease.expires_at)).expect("never earlier than was said");
            assert!(late <= 20, "{late} ms later than was said");
        }
    }
    let tag = tag("longest");
    let extended = shortened(stand.locks.extend(&tag, &worker(), Ttl::MIN).shorten()).await;
    assert!(extended.expires_at <= SystemTime::now() + Duration::from_millis(20));
    stand.ended(&tag).await;
}

async fn a_lease_from_a_ledger_releases_its_grant(stand: Stand) {
    let tag = tag("TEST-02");
    let lease = stand.locks.acquire(&tag, &worker()).note("ARM").await.unwrap();
    let ledger = serde_json::to_string(&lease).unwrap();
    assert!(!ledger.contains("token"), "{ledger}");
    let read: Lease = serde_json::from_str(&ledger).unwrap();
    let mut without_token = lease.clone();
    without_token.token = None;
    assert_eq!(read, without_token, "nothing but the token is lost");
    assert_eq!(read.holder.name(), "MR(93)");

    stand.other.release_lease(&read).await.unwrap();
    assert_eq!(stand.occupant(&tag).await, None);
    let next = stand.locks.acquire(&tag, &worker()).await.unwrap();
    assert_same(assert_not_holder(stand.other.release_lease(&read).await), &next);
}

async fn words_survive(stand: Stand) {
    let long = "ü".repeat(100);
    for text in [
        "|",
        "%",
        "%7C",
        "1|x|2|3|i|4|5|6",
        "a\u{200b}b",
        "管 Ø 😀",
        "'; DEL *",
        "\\n",
        "%s%d%1",
        long.as_str(),
    ] {
        let holder = Holder::new(text, text).unwrap();
        let lease = stand.locks.acquire(&tag(text), &holder).note(text).await.unwrap();
        let seen = stand.occupant(&tag(text)).await.unwrap();
        assert_eq!((seen.holder.id(), seen.holder.name(), seen.note.as_str()), (text, text, text));
        assert_same(seen, &lease);
        assert_same(assert_already_held(stand.other.acquire(&tag(text), &holder).await), &lease);
        assert_same(assert_not_holder(stand.locks.release(&tag(text), &worker()).await), &lease);
        stand.other.extend(&tag(text), &holder, Ttl::HOUR).fence(lease.fence).await.unwrap();
        stand.other.release(&tag(text), &holder).await.unwrap();
    }
    let nameless = Holder::new("nobody", "").unwrap();
    let lease = stand.locks.acquire(&tag("TEST-02"), &nameless).note("").await.unwrap();
    assert_same(stand.occupant(&tag("TEST-02")).await.unwrap(), &lease);
}

async fn an_overlong_note_is_refused_before_the_store(stand: Stand) {
    let tag = tag("TEST-02");
    let asked = || stand.server.as_ref().map(|server| server.calls("evalsha") + server.calls("eval"));
    let before = asked();
    for note in ["x".repeat(201), "ü".repeat(101), "line\nbreak".to_owned(), "\0".to_owned()] {
        match stand.locks.acquire(&tag, &worker()).note(&note).await {
            Err(AcquireError::InvalidNote(why)) => assert!(why.to_string().starts_with("note "), "{why}"),
            other => panic!("the note was to be refused: {other:?}"),
        }
    }
    assert_eq!(asked(), before);
    assert_eq!(stand.locks.stats().locks.operations["acquire"].total, 0);
    assert_eq!(stand.occupant(&tag).await, None);
    stand.locks.acquire(&tag, &worker()).note(&"x".repeat(200)).await.unwrap();
}

async fn everything_is_counted(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let lease = stand.locks.acquire(&tag, &worker).await.unwrap();
    assert_contended(stand.locks.acquire(&tag, &stranger()).await);
    stand.locks.extend(&tag, &worker, Ttl::HOUR).await.unwrap();
    stand.locks.inspect(&tag).await.unwrap();
    let stale = Fence::new(lease.fence.get() - 1).unwrap();
    assert_not_holder(stand.locks.release(&tag, &worker).fence(stale).await);
    assert_not_holder(stand.locks.release(&tag, &stranger()).fence(stale).await);
    stand.locks.release(&tag, &worker).await.unwrap();
    assert_not_held(stand.locks.release(&tag, &worker).await);
    assert_not_held(stand.locks.release_lease(&lease).await);
    match stand.locks.extend(&tag, &worker, Ttl::HOUR).fence(lease.fence).await {
        Err(ExtendError::NotHeld { .. }) => {}
        other => panic!("it was released: {other:?}"),
    }

    let locks = stand.locks.stats().locks;
    let totals = ["acquire", "extend", "release", "read"].map(|operation| locks.operations[operation].total);
    assert_eq!(totals, [2, 2, 5, 1]);
    let failures: u64 = locks.operations.values().flat_map(|it| it.failures_total.values()).sum();
    assert_eq!(failures, 0, "held by another is an answer");
    assert_eq!((locks.contended_total, locks.fencing_rejections_total), (1, 2));
    assert_eq!((locks.lost_total["stolen"], locks.lost_total["expired"]), (1, 1));
    assert_eq!(locks.held_seconds.counts.iter().sum::<u64>(), 1);
    assert_eq!(locks.extend_margin_seconds.counts.iter().sum::<u64>(), 1);
}

/// Who is in and who has seen what: a lock that lets two in shows here, whatever it says of itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_is_ever_in_beside_another() {
    for stand in [Stand::memory().await, Stand::redis().await] {
        let tag = tag("TEST-02");
        let inside = Arc::new(Mutex::new((0_u32, HashSet::new())));
        let mut workers = JoinSet::new();
        for number in 0..8 {
            let locks = if number % 2 == 0 { stand.locks.clone() } else { stand.other.clone() };
            let (tag, inside) = (tag.clone(), inside.clone());
            workers.spawn(async move {
                let holder = Holder::new(number.to_string(), "").expect("a holder");
                for _ in 0..200 {
                    let Ok(lease) = locks.acquire(&tag, &holder).await else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    {
                        let mut inside = inside.lock().expect("nobody panicked inside");
                        inside.0 += 1;
                        assert_eq!(inside.0, 1, "{holder:?} is not alone");
                        assert!(inside.1.insert(lease.fence), "{} was granted twice", lease.fence);
                    }
                    tokio::task::yield_now().await;
                    inside.lock().expect("nobody panicked inside").0 -= 1;
                    locks.release_lease(&lease).await.expect("it is held");
                }
            });
        }
        while let Some(outcome) = workers.join_next().await {
            outcome.unwrap();
        }
        assert!(inside.lock().unwrap().1.len() > 10);
    }
}

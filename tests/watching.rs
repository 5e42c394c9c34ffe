//! Whoever watches hears what happens, in its order, also what nobody says: that a lease expired, that it was lost, and what
//! changed while the subscription was broken.

#![cfg(feature = "memory")]
// Every behaviour is a test; the lint sees that only where `#[test]` stands on the function itself.
#![allow(clippy::unwrap_used)]

mod support;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use spool_lock::{
    Config, Event, ExtendError, Holder, Lease, LeaseEnd, LostReason, Occupant, ReadError, ReleaseError,
    ReleaseOutcome, Shorten, ShortenOutcome, SpoolLocks, Tag, Ttl, Watch,
};
use support::{FaultProxy, RedisServer, eventually, proxy::containing};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const SOON: Duration = Duration::from_secs(5);

/// Long enough for what should not come.
const QUIET: Duration = Duration::from_millis(150);

/// Two front doors to one store, as two processes have them.
struct Stand {
    locks: SpoolLocks,
    other: SpoolLocks,
    server: Option<RedisServer>,
}

impl Stand {
    async fn memory() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let url = format!("memory://watching-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { locks: connect(&url).await, other: connect(&url).await, server: None }
    }

    async fn redis() -> Self {
        let server = RedisServer::start();
        let url = server.url();
        Self { locks: connect(&url).await, other: connect(&url).await, server: Some(server) }
    }
}

async fn connect(url: &str) -> SpoolLocks {
    let mut config = Config::new(url).expect("the address is right");
    config.history.enabled = true;
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

async fn next(watch: &mut Watch) -> Arc<Event> {
    timeout(SOON, watch.next()).await.expect("something is told").expect("the locks are connected")
}

#[track_caller]
fn assert_about(event: &Event, name: &str, lease: &Lease) {
    assert_eq!(event.name(), name, "{event:?}");
    let (seen, lease) = (event.occupant().expect("an occupant"), Occupant::from(lease.clone()));
    let plain = |it: &Occupant| {
        let holder = (it.holder.id().to_owned(), it.holder.name().to_owned());
        (it.tag.clone(), holder, it.kind, it.fence, it.since, it.note.clone())
    };
    assert_eq!(plain(seen), plain(&lease), "{event:?}");
    let at = event.at().expect("a time");
    assert!(apart(at, SystemTime::now()) < SOON, "{event:?} is told in server time");
    assert!(at + Duration::from_millis(20) >= lease.since, "{event:?}");
}

fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).or_else(|_| other.duration_since(one)).expect("one is the later")
}

#[track_caller]
fn assert_lost(event: &Event, lease: &Lease, right: LostReason) {
    assert_about(event, "lost", lease);
    assert!(matches!(event, Event::Lost { reason, .. } if *reason == right), "{event:?}");
}

async fn assert_quiet(watch: &mut Watch) {
    if let Ok(event) = timeout(QUIET, watch.next()).await {
        panic!("nothing was to be told: {event:?}");
    }
}

macro_rules! in_each_store {
    ($($behaviour:ident)*) => {
        mod memory {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::Stand::memory().await).await })*
        }
        mod redis {
            $(#[tokio::test] async fn $behaviour() { super::$behaviour(super::Stand::redis().await).await })*
        }
    };
}

in_each_store! {
    watcher_hears_what_a_holder_does
    watcher_hears_that_a_lease_was_shortened
    watcher_of_a_tag_hears_of_no_other
    watcher_of_all_hears_of_each_once
    watcher_hears_of_an_expiry_in_time
    lease_that_stood_before_is_watched_too
    release_by_force_is_told_to_the_holder
    lease_is_lost_once_also_where_an_extend_finds_it_first
    lease_that_expires_is_lost_by_who_acquired_it
    released_lease_is_not_lost
    watch_ends_with_the_last_clone
    stuck_watcher_costs_the_others_nothing_and_hears_its_gap
    dropped_next_loses_no_event
    history_remembers_grants_and_their_ends
}

async fn watcher_hears_what_a_holder_does(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let mut watch = stand.locks.watch_tag(&tag).await.unwrap();

    let lease = stand.other.acquire(&tag, &worker).note("ARM|%{}").await.unwrap();
    let taken = next(&mut watch).await;
    assert_about(&taken, "taken", &lease);
    assert!(apart(taken.at().unwrap(), lease.since) <= Duration::from_millis(20), "{taken:?}");
    assert!(apart(taken.occupant().unwrap().expires_at, lease.expires_at) <= Duration::from_millis(20));

    let lease = stand.other.extend(&tag, &worker, Ttl::new(2 * Ttl::HOUR.duration()).unwrap()).await.unwrap();
    let extended = next(&mut watch).await;
    assert_about(&extended, "extended", &lease);
    assert!(apart(extended.occupant().unwrap().expires_at, lease.expires_at) <= Duration::from_millis(20));

    stand.other.release(&tag, &worker).await.unwrap();
    assert_about(&*next(&mut watch).await, "released", &lease);

    let lease = stand.other.acquire(&tag, &worker).await.unwrap();
    assert_about(&*next(&mut watch).await, "taken", &lease);
    stand.other.force_release(&tag, "ops", "shift|over%").await.unwrap();
    let forced = next(&mut watch).await;
    assert_about(&forced, "forced", &lease);
    assert!(matches!(&*forced, Event::Forced { by, why, .. } if by == "ops" && why == "shift|over%"));
    assert_quiet(&mut watch).await;
}

async fn shortened(call: Shorten<'_>) -> Lease {
    match call.await.unwrap() {
        ShortenOutcome::Shortened(lease) => lease,
        other => panic!("it can be asked: {other:?}"),
    }
}

async fn watcher_hears_that_a_lease_was_shortened(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let mut watch = stand.locks.watch_tag(&tag).await.unwrap();
    stand.other.acquire(&tag, &worker).await.unwrap();
    let lease = shortened(stand.other.extend(&tag, &worker, millis(200)).shorten()).await;
    assert_eq!(next(&mut watch).await.name(), "taken");
    assert_about(&*next(&mut watch).await, "extended", &lease);
    assert_about(&*next(&mut watch).await, "expired", &lease);
    assert!(apart(SystemTime::now(), lease.expires_at) < Duration::from_millis(250));
}

async fn watcher_of_a_tag_hears_of_no_other(stand: Stand) {
    let mut watch = stand.locks.watch_tag(&tag("TEST-02")).await.unwrap();
    stand.other.acquire(&tag("TEST-03"), &worker()).await.unwrap();
    let lease = stand.other.acquire(&tag("TEST-02"), &worker()).await.unwrap();
    assert_about(&*next(&mut watch).await, "taken", &lease);
    assert_quiet(&mut watch).await;
}

async fn watcher_of_all_hears_of_each_once(stand: Stand) {
    let before = stand.other.acquire(&tag("TEST-00"), &worker()).await.unwrap();
    let mut all = stand.locks.watch().await.unwrap();
    let mut one = stand.locks.watch_tag(&tag("TEST-01")).await.unwrap();
    for name in ["TEST-01", "TEST %{02}", "TEST-03"] {
        let lease = stand.other.acquire(&tag(name), &worker()).await.unwrap();
        assert_about(&*next(&mut all).await, "taken", &lease);
    }
    stand.other.release_lease(&before).await.unwrap();
    assert_about(&*next(&mut all).await, "released", &before);
    assert_eq!(next(&mut one).await.name(), "taken");
    assert_quiet(&mut all).await;
    assert_quiet(&mut one).await;
}

async fn watcher_hears_of_an_expiry_in_time(stand: Stand) {
    let mut one = stand.locks.watch_tag(&tag("TEST-02")).await.unwrap();
    let mut all = stand.locks.watch().await.unwrap();
    let lease = stand.other.acquire(&tag("TEST-02"), &worker()).ttl(millis(300)).await.unwrap();
    for watch in [&mut one, &mut all] {
        assert_about(&*next(watch).await, "taken", &lease);
        assert_about(&*next(watch).await, "expired", &lease);
        let late = SystemTime::now().duration_since(lease.expires_at).expect("it is over");
        assert!(late < Duration::from_millis(250), "told {late:?} after its end");
    }
    // Nobody had acquired it here.
    assert_quiet(&mut one).await;
}

async fn lease_that_stood_before_is_watched_too(stand: Stand) {
    let one = stand.other.acquire(&tag("TEST-01"), &worker()).ttl(millis(400)).await.unwrap();
    let two = stand.other.acquire(&tag("TEST-02"), &worker()).ttl(millis(700)).await.unwrap();
    let mut watch_one = stand.locks.watch_tag(&tag("TEST-01")).await.unwrap();
    let mut all = stand.locks.watch().await.unwrap();
    assert_about(&*next(&mut watch_one).await, "expired", &one);
    assert_about(&*next(&mut all).await, "expired", &one);
    assert_about(&*next(&mut all).await, "expired", &two);
}

async fn release_by_force_is_told_to_the_holder(stand: Stand) {
    let tag = tag("TEST-02");
    let mut watch = stand.locks.watch_tag(&tag).await.unwrap();
    let mut elsewhere = stand.other.watch_tag(&tag).await.unwrap();
    let lease = stand.locks.acquire(&tag, &worker()).await.unwrap();
    stand.other.force_release(&tag, "ops", "shift over").await.unwrap();

    assert_about(&*next(&mut watch).await, "taken", &lease);
    assert_about(&*next(&mut watch).await, "forced", &lease);
    assert_lost(&*next(&mut watch).await, &lease, LostReason::Forced);
    assert_eq!(stand.locks.stats().locks.lost_total["forced"], 1);

    assert_about(&*next(&mut elsewhere).await, "taken", &lease);
    assert_about(&*next(&mut elsewhere).await, "forced", &lease);
    assert_quiet(&mut elsewhere).await;

    // It is lost once, whoever finds out again.
    let outcome = stand.locks.extend(&tag, &worker(), Ttl::HOUR).fence(lease.fence).await;
    assert!(matches!(outcome, Err(ExtendError::NotHeld { .. })), "{outcome:?}");
    assert_eq!(stand.locks.stats().locks.lost_total.values().sum::<u64>(), 1);
}

async fn lease_is_lost_once_also_where_an_extend_finds_it_first(stand: Stand) {
    let tag = tag("TEST-02");
    let lease = stand.locks.acquire(&tag, &worker()).await.unwrap();
    let mut watch = stand.locks.watch_tag(&tag).await.unwrap();
    stand.other.force_release(&tag, "ops", "shift over").await.unwrap();
    let outcome = stand.locks.extend(&tag, &worker(), Ttl::HOUR).fence(lease.fence).await;
    assert!(matches!(outcome, Err(ExtendError::NotHeld { .. })), "{outcome:?}");
    assert_about(&*next(&mut watch).await, "forced", &lease);
    assert_about(&*next(&mut watch).await, "lost", &lease);
    assert_eq!(stand.locks.stats().locks.lost_total.values().sum::<u64>(), 1);
}

async fn lease_that_expires_is_lost_by_who_acquired_it(stand: Stand) {
    let mut watch = stand.locks.watch().await.unwrap();
    let lease = stand.locks.acquire(&tag("TEST-02"), &worker()).ttl(millis(100)).await.unwrap();
    assert_about(&*next(&mut watch).await, "taken", &lease);
    assert_about(&*next(&mut watch).await, "expired", &lease);
    assert_lost(&*next(&mut watch).await, &lease, LostReason::Expired);
    assert_eq!(stand.locks.stats().locks.lost_total["expired"], 1);
}

async fn released_lease_is_not_lost(stand: Stand) {
    let mut watch = stand.locks.watch().await.unwrap();
    for released_by in [&stand.locks, &stand.other] {
        let lease = stand.locks.acquire(&tag("TEST-02"), &worker()).ttl(millis(300)).await.unwrap();
        released_by.release(&tag("TEST-02"), &worker()).await.unwrap();
        assert_about(&*next(&mut watch).await, "taken", &lease);
        assert_about(&*next(&mut watch).await, "released", &lease);
    }
    sleep(Duration::from_millis(300)).await;
    assert_quiet(&mut watch).await;
    assert_eq!(stand.locks.stats().locks.lost_total.values().sum::<u64>(), 0);
}

async fn watch_ends_with_the_last_clone(stand: Stand) {
    let Stand { locks, other, server } = stand;
    let mut watch = locks.watch().await.unwrap();
    let clone = locks.clone();
    drop(locks);
    let lease = other.acquire(&tag("TEST-02"), &worker()).await.unwrap();
    assert_about(&*next(&mut watch).await, "taken", &lease);
    drop(clone);
    assert!(timeout(SOON, watch.next()).await.expect("it ends").is_none());
    drop(other);
    if let Some(server) = server {
        eventually(SOON, async || server.clients().is_empty()).await;
    }
}

/// A tag's own channel remembers 128 events, so 200 changes of it leave a gap.
async fn stuck_watcher_costs_the_others_nothing_and_hears_its_gap(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let mut stuck = stand.locks.watch_tag(&tag).await.unwrap();
    let mut quick = stand.locks.watch_tag(&tag).await.unwrap();
    for _ in 0..100 {
        let lease = stand.other.acquire(&tag, &worker).await.unwrap();
        assert_about(&*next(&mut quick).await, "taken", &lease);
        stand.other.release_lease(&lease).await.unwrap();
        assert_about(&*next(&mut quick).await, "released", &lease);
    }
    assert_eq!(*next(&mut stuck).await, Event::Missed { events: 72 });
    for _ in 0..64 {
        assert_eq!(next(&mut stuck).await.name(), "taken");
        assert_eq!(next(&mut stuck).await.name(), "released");
    }
    assert_quiet(&mut stuck).await;
}

async fn dropped_next_loses_no_event(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    let mut watch = stand.locks.watch_tag(&tag).await.unwrap();
    for _ in 0..20 {
        {
            let mut dropped = pin!(watch.next());
            assert!(futures_poll(dropped.as_mut()).await.is_none());
        }
        let lease = stand.other.acquire(&tag, &worker).await.unwrap();
        stand.other.release_lease(&lease).await.unwrap();
        assert_about(&*next(&mut watch).await, "taken", &lease);
        assert_about(&*next(&mut watch).await, "released", &lease);
    }
}

/// Polls once.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

async fn history_remembers_grants_and_their_ends(stand: Stand) {
    let (tag, worker) = (tag("TEST-02"), worker());
    assert!(stand.locks.history(&tag).await.unwrap().value.is_empty());
    for number in 0..40 {
        let lease = stand.other.acquire(&tag, &worker).note(&number.to_string()).ttl(millis(20)).await;
        let lease = lease.unwrap();
        match number % 3 {
            0 => assert_eq!(stand.other.release_lease(&lease).await.unwrap(), ReleaseOutcome::Released),
            1 => drop(stand.other.force_release(&tag, "ops", "shift over").await.unwrap()),
            _ => {
                eventually(SOON, async || stand.other.inspect(&tag).await.unwrap().value.is_none()).await;
            }
        }
    }
    let standing = stand.other.acquire(&tag, &worker).note("40").await.unwrap();

    let past = stand.locks.history(&tag).await.unwrap().value;
    assert_eq!(past.len(), 32);
    for (number, past) in (9..).zip(&past) {
        assert_eq!(past.occupant.note, number.to_string());
        match number % 3 {
            _ if number == 40 => {
                assert_eq!((past.occupant.fence, &past.end), (standing.fence, &None));
            }
            0 => assert!(matches!(past.end, Some(LeaseEnd::Released { .. })), "{past:?}"),
            1 => assert!(matches!(&past.end, Some(LeaseEnd::Forced { by, .. }) if by == "ops"), "{past:?}"),
            _ => assert_eq!(past.end, Some(LeaseEnd::Expired), "{past:?}"),
        }
    }
}

/// How long until all of 1,000 watchers have an event: the median of 20.
async fn time_to_tell_a_thousand(stand: &Stand) -> Duration {
    let (tag, worker) = (tag("TEST-02"), worker());
    let mut watches = Vec::new();
    for _ in 0..500 {
        watches.push(stand.locks.watch_tag(&tag).await.unwrap());
        watches.push(stand.locks.watch().await.unwrap());
    }
    let mut times = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for mut watch in watches.drain(..) {
            tasks.spawn(async move { (next(&mut watch).await.name(), watch) });
        }
        tokio::task::yield_now().await;
        let lease = stand.other.acquire(&tag, &worker).await.unwrap();
        while let Some(heard) = tasks.join_next().await {
            let (name, watch) = heard.unwrap();
            assert_eq!(name, "taken");
            watches.push(watch);
        }
        times.push(begin.elapsed());
        stand.other.release_lease(&lease).await.unwrap();
        for watch in &mut watches {
            assert_eq!(next(watch).await.name(), "released");
        }
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_thousand_watchers_hear_at_once_over_one_connection() {
    for stand in [Stand::memory().await, Stand::redis().await] {
        let median = time_to_tell_a_thousand(&stand).await;
        assert!(median <= Duration::from_millis(50), "{median:?}");
        if let Some(server) = &stand.server {
            assert_eq!(subscribers(server), 1);
        }
    }
}

/// Connections with a subscription.
fn subscribers(server: &RedisServer) -> usize {
    let subscribes =
        |client: &&std::collections::BTreeMap<String, String>| client["sub"] != "0" || client["psub"] != "0";
    server.clients().iter().filter(subscribes).count()
}

/// The memory store's feed ends when its reader is too slow, and it has no chance to read here.
#[tokio::test]
async fn what_a_broken_memory_feed_has_missed_is_told_as_the_difference() {
    let stand = Stand::memory().await;
    let (tag, worker) = (tag("TEST-02"), worker());
    let mut watch = stand.locks.watch().await.unwrap();
    for _ in 0..20_000 {
        let lease = stand.other.acquire(&tag, &worker).await.unwrap();
        stand.other.release_lease(&lease).await.unwrap();
    }
    let last = stand.other.acquire(&tag, &stranger()).await.unwrap();
    loop {
        let event = next(&mut watch).await;
        if event.occupant().is_some_and(|occupant| occupant.fence == last.fence) {
            assert_about(&event, "taken", &last);
            break;
        }
    }
    stand.other.release_lease(&last).await.unwrap();
    assert_about(&*next(&mut watch).await, "released", &last);
}

/// Reads until `last` was told, and answers what was told before of each fence.
async fn told_until(watch: &mut Watch, last: &Lease) -> Vec<Arc<Event>> {
    let mut told = Vec::new();
    loop {
        let event = next(watch).await;
        let is_last = event.occupant().is_some_and(|occupant| occupant.fence == last.fence);
        told.push(event);
        if is_last {
            return told;
        }
    }
}

#[tokio::test]
async fn nothing_is_missed_over_a_killed_subscription() {
    let stand = Stand::redis().await;
    let server = stand.server.as_ref().unwrap();
    let tags: Vec<_> = (0..20).map(|number| tag(&format!("TEST-{number:02}"))).collect();
    let kept = stand.locks.acquire(&tag("kept"), &worker()).await.unwrap();
    let mut all = stand.locks.watch().await.unwrap();
    let mut one = stand.locks.watch_tag(&tags[0]).await.unwrap();
    for round in 0..10 {
        let kill = async {
            sleep(Duration::from_millis(round)).await;
            server.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        };
        let change = async {
            let mut last = Vec::new();
            for tag in &tags {
                let lease = stand.other.acquire(tag, &worker()).await.unwrap();
                stand.other.release_lease(&lease).await.unwrap();
                last.push(stand.other.acquire(tag, &stranger()).await.unwrap());
            }
            last
        };
        let ((), last) = tokio::join!(kill, change);
        // The end state of each tag is told, in whatever order the tags are looked at.
        let mut missing: Vec<_> = last.iter().map(|lease| lease.fence).collect();
        while !missing.is_empty() {
            let event = next(&mut all).await;
            if let Event::Taken { occupant, .. } = &*event {
                missing.retain(|fence| *fence != occupant.fence);
            }
        }
        told_until(&mut one, &last[0]).await;
        for lease in &last {
            stand.other.release_lease(lease).await.unwrap();
        }
        let mut missing: Vec<_> = last.iter().map(|lease| lease.fence).collect();
        while !missing.is_empty() {
            let event = next(&mut all).await;
            if let Event::Released { occupant, .. } = &*event {
                missing.retain(|fence| *fence != occupant.fence);
            }
        }
        eventually(SOON, async || subscribers(server) == 1).await;
    }
    assert_eq!(stand.locks.stats().locks.lost_total.values().sum::<u64>(), 0);

    // What the process has itself, and loses meanwhile, is told too; but not how it ended, if nobody heard it.
    server.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    stand.other.force_release(&kept.tag, "ops", "shift over").await.unwrap();
    let ended = loop {
        let event = next(&mut all).await;
        if event.occupant().is_some_and(|occupant| occupant.fence == kept.fence) {
            break event;
        }
    };
    assert!(matches!(ended.name(), "released" | "forced"), "{ended:?}");
    // Who goes on with it finds out, and it is counted.
    let outcome = stand.locks.extend(&kept.tag, &worker(), Ttl::HOUR).fence(kept.fence).await;
    assert!(matches!(outcome, Err(ExtendError::NotHeld { .. })), "{outcome:?}");
    assert_eq!(stand.locks.stats().locks.lost_total.values().sum::<u64>(), 1);
}

/// A sibling of the process released it for the same holder, and that was told as a loss.
#[tokio::test]
async fn release_that_nobody_heard_is_no_loss() {
    for next_one in [false, true] {
        let stand = Stand::redis().await;
        let server = stand.server.as_ref().unwrap();
        let lease = stand.locks.acquire(&tag("TEST-02"), &worker()).await.unwrap();
        let mut watch = stand.locks.watch_tag(&tag("TEST-02")).await.unwrap();
        server.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        stand.other.release_lease(&lease).await.unwrap();
        let later = if next_one {
            Some(stand.other.acquire(&tag("TEST-02"), &stranger()).await.unwrap())
        } else {
            None
        };
        assert_about(&*next(&mut watch).await, "released", &lease);
        if let Some(later) = later {
            assert_about(&*next(&mut watch).await, "taken", &later);
        }
        assert_quiet(&mut watch).await;
        assert_eq!(stand.locks.stats().locks.lost_total.values().sum::<u64>(), 0);
    }
}

#[tokio::test]
async fn expiry_is_told_in_time_beside_200_000_other_keys() {
    let stand = Stand::redis().await;
    let server = stand.server.as_ref().unwrap();
    let fill = "for i = 1, 20000 do
                    redis.call('SET', ARGV[1] .. i, 'x', 'PX', 1000 + (i * 7) % 4000)
                end";
    for chunk in 0..10 {
        server.cmd(&["EVAL", fill, "0", &format!("other:{chunk}:")]);
    }
    let mut watch = stand.locks.watch_tag(&tag("TEST-02")).await.unwrap();
    for _ in 0..5 {
        let lease = stand.other.acquire(&tag("TEST-02"), &worker()).ttl(millis(500)).await.unwrap();
        assert_about(&*next(&mut watch).await, "taken", &lease);
        assert_about(&*next(&mut watch).await, "expired", &lease);
        let late = SystemTime::now().duration_since(lease.expires_at).expect("it is over");
        assert!(late < Duration::from_millis(250), "told {late:?} after its end");
    }
}

/// A thousand leases that end together are asked for a few at a time, and all are told.
#[tokio::test]
async fn many_expiries_at_once_are_all_told() {
    for stand in [Stand::memory().await, Stand::redis().await] {
        let mut watch = stand.locks.watch().await.unwrap();
        let mut takes = JoinSet::new();
        for worker in 0..100 {
            let other = stand.other.clone();
            takes.spawn(async move {
                let mut leases = Vec::new();
                for number in 0..10 {
                    let tag = tag(&format!("TEST-{worker}-{number}"));
                    leases.push(other.acquire(&tag, &self::worker()).ttl(millis(1500)).await.unwrap());
                }
                leases
            });
        }
        let leases = takes.join_all().await.concat();
        let mut expired = 0;
        while expired < leases.len() {
            let event = next(&mut watch).await;
            assert_ne!(event.name(), "missed");
            expired += usize::from(event.name() == "expired");
        }
        let late = SystemTime::now().duration_since(leases.last().unwrap().expires_at).unwrap_or_default();
        assert!(late < Duration::from_millis(500), "told {late:?} after its end");
    }
}

#[tokio::test]
async fn watch_says_when_the_store_cannot_be_asked() {
    let stand = Stand::redis().await;
    let server = stand.server.as_ref().unwrap();
    server.kill9();
    let began = Instant::now();
    stand.locks.watch_tag(&tag("TEST-02")).await.expect_err("nobody is there");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    server.restart();
    let mut watch = eventually(SOON, async || stand.locks.watch_tag(&tag("TEST-02")).await).await;
    let lease = stand.other.acquire(&tag("TEST-02"), &worker()).await.unwrap();
    assert_about(&*next(&mut watch).await, "taken", &lease);
}

/// All places are taken, and an idle connection makes room: whoever watched first was told that there is none.
#[tokio::test]
async fn watch_waits_for_the_place_that_is_being_made() {
    let server = RedisServer::start();
    let mut config = Config::new(&server.url()).unwrap();
    (config.pool.max_connections, config.pool.depth) = (2, 1);
    let locks = SpoolLocks::connect(config).await.unwrap();
    let (one, two, worker) = (tag("TEST-01"), tag("TEST-02"), worker());
    let (lease, _) = tokio::try_join!(locks.acquire(&one, &worker), locks.acquire(&two, &worker)).unwrap();
    eventually(SOON, async || server.clients().len() == 2).await;
    let mut watch = locks.watch_tag(&one).await.unwrap();
    locks.release_lease(&lease).await.unwrap();
    assert_about(&*next(&mut watch).await, "released", &lease);
}

#[tokio::test]
async fn watch_says_at_once_that_a_pool_of_one_has_no_place() {
    let server = RedisServer::start();
    let mut config = Config::new(&server.url()).unwrap();
    config.pool.max_connections = 1;
    let locks = SpoolLocks::connect(config).await.unwrap();
    let began = Instant::now();
    let outcome = locks.watch_tag(&tag("TEST-02")).await;
    assert!(matches!(outcome, Err(ReadError::Saturated)), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// The subscription had the only connection that the server could spare, and kept it: no lock could be taken.
#[tokio::test]
async fn watch_leaves_the_last_connection_to_the_locks() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let _watch = locks.watch().await.unwrap();
    let clients = server.clients();
    let lane = clients.iter().find(|client| client["sub"] == "0").unwrap()["id"].clone();
    server.cmd(&["CONFIG", "SET", "maxclients", "2"]);
    server.cmd(&["CLIENT", "KILL", "ID", &lane]);
    eventually(SOON, async || locks.acquire(&tag("TEST-02"), &worker()).await).await;
}

/// It counted as given back from the moment its release was asked, whatever came of that, and its end was no loss any more.
#[tokio::test]
async fn lease_whose_release_was_not_sent_or_was_extended_since_can_be_lost() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut config = Config::new(&proxy.url()).unwrap();
    (config.pool.max_connections, config.pool.depth, config.pool.max_waiters) = (2, 1, 0);
    config.pool.response_timeout = Duration::from_millis(300);
    // What is deferred is given back.
    config.deferred = 0;
    let locks = SpoolLocks::connect(config).await.unwrap();
    let other = connect(&server.url()).await;
    let mut watch = locks.watch_tag(&tag("TEST-02")).await.unwrap();
    for extended in [false, true] {
        let lease = locks.acquire(&tag("TEST-02"), &worker()).await.unwrap();
        assert_about(&*next(&mut watch).await, "taken", &lease);
        if extended {
            // The release is under way for so long that its caller is told so.
            let held = proxy.hold_requests(containing("TEST-02"));
            let outcome = locks.release_lease(&lease).await;
            assert!(matches!(outcome, Err(ReleaseError::Ambiguous { .. })), "{outcome:?}");
            drop(held);
            eventually(SOON, async || locks.extend(&lease.tag, &worker(), Ttl::HOUR).await).await;
            assert_about(&*next(&mut watch).await, "extended", &lease);
        } else {
            // The only lane has work.
            let held = proxy.hold_requests(containing("TEST-99"));
            let work = tokio::spawn({
                let locks = locks.clone();
                async move { locks.inspect(&tag("TEST-99")).await }
            });
            held.caught(1).await;
            let outcome = locks.release_lease(&lease).await;
            assert!(matches!(outcome, Err(ReleaseError::Saturated)), "{outcome:?}");
            held.release();
            work.await.unwrap().unwrap();
        }
        other.force_release(&lease.tag, "ops", "shift over").await.unwrap();
        assert_about(&*next(&mut watch).await, "forced", &lease);
        assert_lost(&*next(&mut watch).await, &lease, LostReason::Forced);
    }
    assert_eq!(locks.stats().locks.lost_total["forced"], 2);
}

/// Who watched next was refused, the others stayed with it, and what was asked of it late was never given up.
#[tokio::test]
async fn subscription_that_does_not_answer_is_replaced() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut config = Config::new(&proxy.url()).unwrap();
    config.pool.response_timeout = Duration::from_millis(300);
    let locks = SpoolLocks::connect(config).await.unwrap();
    let other = connect(&server.url()).await;
    let mut one = locks.watch_tag(&tag("TEST-01")).await.unwrap();
    let is_first = AtomicBool::new(true);
    let held = proxy
        .hold_requests(move |request| request.contains("TEST-02") && is_first.swap(false, Ordering::Relaxed));
    let mut two = locks.watch_tag(&tag("TEST-02")).await.unwrap();
    for (watch, name) in [(&mut one, "TEST-01"), (&mut two, "TEST-02")] {
        let lease = other.acquire(&tag(name), &worker()).await.unwrap();
        assert_about(&*next(watch).await, "taken", &lease);
    }
    assert_eq!(held.count(), 1);
    held.release();
    eventually(SOON, async || subscribers(&server) == 1).await;
}

/// The subscription was broken for it, and again as soon as it was confirmed for anything else, 20 to 30 times a second.
#[tokio::test]
async fn topic_that_is_not_allowed_any_more_breaks_nothing_and_is_heard_when_it_is() {
    let server = RedisServer::start();
    let allow = |channels: &str| {
        let rules = format!("ACL SETUSER teller on >sesame ~* +@all resetchannels {channels}");
        server.cmd(&rules.split(' ').collect::<Vec<_>>());
    };
    allow("&spool:*");
    let proxy = FaultProxy::before(&server);
    let locks = connect(&format!("redis://teller:sesame@127.0.0.1:{}", proxy.port())).await;
    let other = connect(&server.url()).await;
    let mut watch = locks.watch_tag(&tag("TEST-02")).await.unwrap();
    let before = proxy.connections_opened();
    // The server closes the connections of who subscribes to what he may not.
    allow("&spool:grants:*");
    let lease = other.acquire(&tag("TEST-02"), &worker()).await.unwrap();
    sleep(Duration::from_secs(3)).await;
    let opened = proxy.connections_opened() - before;
    assert!((1..=2).contains(&opened), "{opened} connections");
    allow("&spool:*");
    assert_about(&*next(&mut watch).await, "taken", &lease);
    assert!(proxy.connections_opened() - before <= 2);
}

#[tokio::test]
async fn connection_is_closed_a_minute_after_the_last_watcher() {
    let stand = Stand::redis().await;
    let server = stand.server.as_ref().unwrap();
    assert_eq!(subscribers(server), 0);
    let (one, two) = (stand.locks.watch().await.unwrap(), stand.locks.watch().await.unwrap());
    assert_eq!(subscribers(server), 1);
    drop((one, two));
    sleep(Duration::from_secs(55)).await;
    assert_eq!(subscribers(server), 1);
    eventually(Duration::from_secs(10), async || subscribers(server) == 0).await;
}

#[test]
fn watches_go_where_they_are_needed() {
    fn assert_free<T: Send + Sync + Unpin + 'static>() {}
    assert_free::<Watch>();
}

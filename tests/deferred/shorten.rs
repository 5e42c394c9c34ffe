//! An extend downwards that could not be sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spool_lock::{Event, Lease, RequestId, Settlement, Shorten, ShortenOutcome, SpoolLocks, Ttl, Watch};
use tokio::time::timeout;

use super::{
    log::Ledger,
    setup::*,
    support::{RedisServer, eventually},
};

async fn deferred(call: Shorten<'_>) -> RequestId {
    match call.await {
        Ok(ShortenOutcome::Deferred { request }) => request,
        other => panic!("deferred was expected: {other:?}"),
    }
}

async fn ends_at(net: &Net, number: usize) -> Option<SystemTime> {
    let occupant = net.near.inspect(&tag(number)).await.expect("healthy").value;
    occupant.map(|occupant| occupant.expires_at)
}

/// Whether two times are the same but for a little.
#[track_caller]
fn assert_close(one: SystemTime, other: SystemTime) {
    let apart = one.duration_since(other).unwrap_or_else(|error| error.duration());
    assert!(apart < millis(100), "{apart:?} apart");
}

#[tokio::test]
async fn the_lease_ends_when_it_was_to_end_and_not_that_long_after_the_outage() {
    for is_exact in [true, false] {
        let net = Net::open(|_| {}).await;
        let mut watch = net.far.watch().await.unwrap();
        let lease = net.acquired(1).await;
        net.cut().await;
        let (tag, worker) = (tag(1), worker());
        let shorten = net.far.extend(&tag, &worker, ttl(20 * SECOND)).shorten();
        let shorten = if is_exact { shorten.fence(lease.fence) } else { shorten };
        let to_end = SystemTime::now() + 20 * SECOND;
        let request = deferred(shorten).await;
        tokio::time::sleep(millis(500)).await;
        assert_eq!(net.mend().await, Counts { deferred: 1, applied: 1, ..Counts::default() });
        assert_eq!(next_settled(&mut watch).await, (request, Settlement::Applied));
        assert_close(ends_at(&net, 1).await.unwrap(), to_end);
        assert_eq!(standing(&net.near, &tag).await, Some(lease.fence));
    }
}

#[tokio::test]
async fn one_whose_time_has_come_by_then_is_released() {
    let net = Net::open(|_| {}).await;
    let lease = net.acquired(1).await;
    net.cut().await;
    let (tag, worker) = (tag(1), worker());
    deferred(net.far.extend(&tag, &worker, ttl(millis(300))).shorten()).await;
    tokio::time::sleep(millis(400)).await;
    assert_eq!(standing(&net.near, &tag).await, Some(lease.fence), "nobody could be asked");
    assert_eq!(net.mend().await, Counts { deferred: 1, applied: 1, ..Counts::default() });
    assert_eq!(releases(&net.near, &tag).await, [(lease.fence, true)]);
}

/// It would have lasted an hour; now it ends before the time that was named.
#[tokio::test]
async fn it_never_prolongs() {
    let net = Net::open(|_| {}).await;
    net.acquired(1).await;
    net.cut().await;
    let (tag, worker) = (tag(1), worker());
    deferred(net.far.extend(&tag, &worker, ttl(600 * SECOND)).shorten()).await;
    net.near.extend(&tag, &worker, ttl(60 * SECOND)).shorten().await.unwrap();
    let before = ends_at(&net, 1).await.unwrap();
    assert_eq!(net.mend().await, Counts { deferred: 1, applied: 1, ..Counts::default() });
    assert_close(ends_at(&net, 1).await.unwrap(), before);
}

/// With a fence or without one.
#[tokio::test]
async fn a_newer_lease_is_not_shortened() {
    for (holder, is_exact) in [(stranger(), true), (stranger(), false), (worker(), true), (worker(), false)] {
        let net = Net::open(|_| {}).await;
        let lease = net.acquired(1).await;
        net.cut().await;
        let (tag, worker) = (tag(1), worker());
        let shorten = net.far.extend(&tag, &worker, ttl(20 * SECOND)).shorten();
        deferred(if is_exact { shorten.fence(lease.fence) } else { shorten }).await;
        a_moment_later().await;
        net.near.force_release(&tag, "operator", "test").await.unwrap();
        let newer = net.near.acquire(&tag, &holder).await.unwrap();
        assert_eq!(net.mend().await, Counts { deferred: 1, ended: 1, ..Counts::default() });
        assert_close(ends_at(&net, 1).await.unwrap(), newer.expires_at);
    }
}

/// What is said of a lease over another connection: the ends that it was given, and whether it was released at last.
async fn heard(watch: &mut Watch, lease: &Lease) -> Vec<SystemTime> {
    let mut ends = Vec::new();
    loop {
        match &*timeout(SOON, watch.next()).await.expect("it is released").expect("the locks are there") {
            Event::Extended { occupant, .. } if occupant.fence == lease.fence => {
                ends.push(occupant.expires_at)
            }
            Event::Released { occupant, .. } if occupant.fence == lease.fence => return ends,
            Event::Missed { events } => panic!("{events} events were missed"),
            _ => {}
        }
    }
}

/// Each is shorter than the one before, and the last is a release: in any other order fewer would be heard of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_for_one_tag_are_applied_in_their_order() {
    const CALLS: u64 = 1000;
    let net = Net::open(|_| {}).await;
    let (mut settled, mut near) = (net.far.watch().await.unwrap(), net.near.watch().await.unwrap());
    let lease = net.acquired(1).await;
    net.cut().await;
    let (tag, worker, mut asked) = (tag(1), worker(), Vec::new());
    for call in 1..CALLS {
        let shorten =
            net.far.extend(&tag, &worker, ttl(Duration::from_secs(3000 - call))).shorten().fence(lease.fence);
        asked.push((deferred(shorten).await, Settlement::Applied));
    }
    asked.push((assert_deferred(net.far.release_lease(&lease).await), Settlement::Applied));
    let listening = tokio::spawn(async move { heard(&mut near, &lease).await });
    let telling = tokio::spawn(async move {
        let mut told = Vec::new();
        for _ in 0..CALLS {
            told.push(next_settled(&mut settled).await);
        }
        told
    });
    let began = tokio::time::Instant::now();
    net.mend().await;
    println!("{CALLS} calls for one tag were applied in {:?}", began.elapsed());
    assert_eq!(telling.await.unwrap(), asked);
    let ends = listening.await.unwrap();
    assert_eq!(ends.len() as u64, CALLS - 1);
    assert!(ends.is_sorted_by(|one, next| one > next), "each ends earlier than the one before");
    assert_eq!(counts(&net.far), Counts { deferred: CALLS, applied: CALLS, ..Counts::default() });
    eventually(SOON, async || standing(&net.near, &tag).await.is_none()).await;
}

/// It would be cut by what was asked before: so it is refused until that is done, and what it is told then stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extend_is_refused_while_a_shorten_of_the_same_holder_waits_and_is_never_cut_by_it() {
    const CALLS: u32 = 500;
    let net = Net::open(|_| {}).await;
    let lease = net.acquired(1).await;
    net.cut().await;
    let (tag, worker) = (tag(1), worker());
    for call in 0..CALLS {
        deferred(net.far.extend(&tag, &worker, ttl(3000 * SECOND - call * SECOND)).shorten()).await;
    }
    let extends = || net.far.extend(&tag, &worker, Ttl::HOUR);
    let refused = extends().await.expect_err("calls for the tag wait");
    assert!(chain(&refused).contains("waits for redis"), "{}", chain(&refused));
    net.proxy.heal();
    let prolonged = eventually(SOON, async || extends().await).await;
    println!("it was prolonged while {} of {CALLS} waited", counts(&net.far).waiting);
    assert_eq!(net.mend().await.applied, u64::from(CALLS));
    assert_eq!(prolonged.fence, lease.fence);
    assert_close(ends_at(&net, 1).await.expect("it stands"), prolonged.expires_at);
}

/// A log of a user keeps times in its own way.
#[tokio::test]
async fn one_that_is_to_end_at_no_whole_millisecond_is_shortened_and_not_released() {
    let server = RedisServer::start();
    let near = connect(&server.url(), |_| {}).await;
    let lease = near.acquire(&tag(1), &worker()).await.unwrap();
    let to_end = SystemTime::now() + 600 * SECOND;
    let nanos = to_end.duration_since(UNIX_EPOCH).unwrap().as_nanos() / 1_000_000 * 1_000_000 + 500_000;
    let fence = lease.fence.get();
    let entry = format!("1|AAAAAAAAA@{}|identity|{fence}|shorten@{nanos}|{}|93|MR(93)", fence + 1, lease.tag);
    let ledger = Ledger::with(entry.parse().expect("an entry"));
    let next = SpoolLocks::connect(config(&server.url())).deferred_log(ledger).await.unwrap();
    assert_eq!(all_settled(&next).await, Counts { applied: 1, ..Counts::default() });
    let occupant = near.inspect(&tag(1)).await.unwrap().value.expect("it stands");
    assert_close(occupant.expires_at, to_end);
}

//! Fences order the grants of a tag, whatever becomes of their counter and of the server's clock.

#![cfg(feature = "serde")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use spool_lock::{
    AcquireError, Config, ExtendError, Fault, FaultKind, Fence, Holder, Lease, ReleaseError, SpoolLocks, Tag,
    Ttl,
};
use support::{ClockShim, RedisServer, eventually};
use tokio::task::{JoinHandle, JoinSet};

const SOON: Duration = Duration::from_secs(10);
const HOUR_MICROS: u64 = 3_600_000_000;

/// Longer than any jump of a clock here.
fn long() -> Ttl {
    Ttl::new(Duration::from_secs(5 * 3600)).expect("a ttl")
}

async fn connect(server: &RedisServer) -> SpoolLocks {
    let config = Config::new(&server.url()).expect("the address is right");
    SpoolLocks::connect(config).await.expect("the server is healthy")
}

fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a tag")
}

fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

fn key(tag: &Tag, part: &str) -> String {
    format!("spool:{{{tag}}}:{part}")
}

/// The server's clock in µs.
fn server_micros(server: &RedisServer) -> u64 {
    let (seconds, micros): (u64, u64) = server.query(&["TIME"]);
    seconds * 1_000_000 + micros
}

async fn take(locks: &SpoolLocks, tag: &Tag) -> Lease {
    locks.acquire(tag, &worker()).ttl(long()).await.expect("the tag is free")
}

async fn take_and_release(locks: &SpoolLocks, tag: &Tag) -> Fence {
    let lease = take(locks, tag).await;
    locks.release_lease(&lease).await.expect("it is held");
    lease.fence
}

#[track_caller]
fn assert_refuses_the_fence(outcome: Result<Lease, AcquireError>) -> Fault {
    match outcome {
        Err(AcquireError::Fault(fault)) if fault.kind() == FaultKind::FenceRegression => fault,
        other => panic!("a fence regression was expected: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fences_rise_strictly_over_ten_thousand_grants() {
    const GRANTS: usize = 10_000;
    let server = RedisServer::start();
    let granted = Arc::new(Mutex::new(Vec::with_capacity(GRANTS + 4)));
    let tag = tag("TEST-02");
    let mut workers = JoinSet::new();
    for number in 0..2 {
        let locks = connect(&server).await;
        let (granted, tag) = (granted.clone(), tag.clone());
        workers.spawn(async move {
            let holder = Holder::new(number.to_string(), "").expect("a holder");
            loop {
                let lease = match locks.acquire(&tag, &holder).await {
                    Ok(lease) => lease,
                    Err(AcquireError::Contended { .. }) => continue,
                    Err(error) => panic!("{error:?}"),
                };
                let count = {
                    // Whoever is here holds the lock, so this is the order of the grants.
                    let mut granted = granted.lock().expect("nobody panicked");
                    granted.push(lease.fence);
                    granted.len()
                };
                locks.release_lease(&lease).await.expect("it is held");
                if count >= GRANTS {
                    return;
                }
            }
        });
    }
    let all = async {
        while let Some(ended) = workers.join_next().await.transpose().unwrap() {
            let () = ended;
        }
    };
    tokio::time::timeout(Duration::from_secs(100), all).await.expect("10,000 grants take seconds");
    let granted = granted.lock().unwrap();
    assert!(granted.len() >= GRANTS);
    assert!(granted.is_sorted_by(|one, next| one < next), "a fence did not rise");
}

#[tokio::test]
async fn fences_rise_over_the_loss_of_their_counter() {
    let server = RedisServer::start();
    let (locks, other) = (connect(&server).await, connect(&server).await);
    let tag = tag("TEST-02");
    let mut last = take_and_release(&locks, &tag).await;
    for turn in 0..20 {
        let locks = if turn % 2 == 0 { &locks } else { &other };
        let lease = take(locks, &tag).await;
        assert!(lease.fence > last, "{} after {last} in turn {turn}", lease.fence);
        last = lease.fence;
        match turn % 3 {
            0 => {
                server.cmd(&["DEL", &key(&tag, "fence")]);
                locks.release_lease(&lease).await.unwrap();
            }
            1 => {
                locks.release_lease(&lease).await.unwrap();
                server.cmd(&["DEL", &key(&tag, "fence")]);
            }
            _ => drop(server.cmd(&["DEL", &key(&tag, "lock"), &key(&tag, "fence")])),
        }
    }
}

#[tokio::test]
async fn a_counter_that_was_lost_is_written_anew_when_the_lease_ends() {
    let server = RedisServer::start();
    let (locks, tag) = (connect(&server).await, tag("TEST-02"));
    for force in [false, true] {
        for stored in [None, Some("1")] {
            let lease = take(&locks, &tag).await;
            match stored {
                None => server.cmd(&["DEL", &key(&tag, "fence")]),
                Some(stored) => server.cmd(&["SET", &key(&tag, "fence"), stored]),
            };
            if force {
                locks.force_release(&tag, "operator", "test").await.unwrap();
            } else {
                locks.release(&tag, &worker()).await.unwrap();
            }
            let kept: String = server.query(&["GET", &key(&tag, "fence")]);
            assert_eq!(kept.split('|').next(), Some(lease.fence.to_string().as_str()));
        }
    }
}

#[tokio::test]
async fn fences_rise_over_a_server_that_forgets_everything() {
    let server = RedisServer::start();
    let locks = connect(&server).await;
    let tag = tag("TEST-02");
    let held = take(&locks, &tag).await;
    server.kill9();
    server.restart();
    assert_eq!(server.query::<i64>(&["DBSIZE"]), 0, "it saves nothing");

    let stranger = connect(&server).await;
    let anew = stranger.acquire(&tag, &Holder::new("7", "").unwrap()).await.unwrap();
    assert!(anew.fence > held.fence, "{} after {}", anew.fence, held.fence);
    // The one who held it comes back, and finds out.
    let refused = eventually(SOON, async || match locks.release_lease(&held).await {
        Err(ReleaseError::NotHolder(occupant)) => Ok(occupant),
        other => Err(other),
    })
    .await;
    assert_eq!(refused.fence, anew.fence);
    stranger.release_lease(&anew).await.unwrap();
    assert!(take(&locks, &tag).await.fence > anew.fence);
}

#[tokio::test]
async fn fences_rise_over_a_clock_set_back_while_anybody_remembers() {
    let shim = ClockShim::build().unwrap();
    let server = RedisServer::builder().clock(&shim).start();
    let locks = connect(&server).await;
    let (tag, untouched) = (tag("TEST-02"), tag("TEST-03"));
    let mut last = take_and_release(&locks, &tag).await;
    let counted = take_and_release(&locks, &untouched).await;

    shim.shift(-3600);
    for turn in 0..5 {
        server.cmd(&["DEL", &key(&tag, "lock"), &key(&tag, "fence")]);
        let fence = take_and_release(&locks, &tag).await;
        assert!(fence > last, "{fence} after {last} in turn {turn}");
        last = fence;
    }
    // Somebody who remembers nothing goes on from the counter.
    let newcomer = connect(&server).await;
    assert!(take_and_release(&newcomer, &untouched).await > counted);
    assert!(take_and_release(&newcomer, &tag).await > last);
}

/// Waits for a tag in a task of its own; so many processes stand in the queue then.
async fn queue_up(server: &RedisServer, locks: &SpoolLocks, tag: &Tag, queued: u64) -> JoinHandle<Lease> {
    let (locks, for_whom, waited) =
        (locks.clone(), Holder::new(queued.to_string(), "").expect("a holder"), tag.clone());
    let waiting = tokio::spawn(async move {
        locks
            .acquire(&waited, &for_whom)
            .ttl(long())
            .wait(Duration::from_secs(30))
            .await
            .expect("its turn comes")
    });
    eventually(Duration::from_secs(5), async || {
        server.query::<u64>(&["ZCARD", &key(tag, "queue")]) == queued
    })
    .await;
    waiting
}

#[tokio::test]
async fn a_grant_from_the_queue_is_above_what_its_process_has_seen() {
    let shim = ClockShim::build().unwrap();
    let server = RedisServer::builder().clock(&shim).start();
    let (locks, tag) = (connect(&server).await, tag("TEST-02"));
    let seen = take_and_release(&locks, &tag).await;
    shim.shift(-3600);
    server.cmd(&["DEL", &key(&tag, "fence")]);
    let newcomer = connect(&server).await;
    let lease = take(&newcomer, &tag).await;
    assert!(lease.fence < seen, "it remembers nothing");
    let waiting = queue_up(&server, &locks, &tag, 1).await;
    newcomer.release_lease(&lease).await.expect("it is held");
    let granted = waiting.await.unwrap();
    assert!(granted.fence > seen, "{} after {seen}", granted.fence);
}

#[tokio::test]
async fn the_order_of_the_queue_outlasts_a_clock_that_is_set_back() {
    let shim = ClockShim::build().unwrap();
    let server = RedisServer::builder().clock(&shim).start();
    let [holder, one, two] = [connect(&server).await, connect(&server).await, connect(&server).await];
    let tag = tag("TEST-02");
    let lease = take(&holder, &tag).await;
    let first = queue_up(&server, &one, &tag, 1).await;
    shim.shift(-3600);
    let second = queue_up(&server, &two, &tag, 2).await;
    holder.release_lease(&lease).await.expect("it is held");
    let first = first.await.unwrap();
    assert!(!second.is_finished(), "whoever came later waits");
    one.release_lease(&first).await.expect("it is held");
    second.await.unwrap();
}

#[tokio::test]
async fn a_fence_from_nowhere_does_not_spread_to_other_tags() {
    let server = RedisServer::start();
    let (locks, other) = (connect(&server).await, connect(&server).await);
    let (poisoned, sound) = (tag("TEST-02"), tag("TEST-03"));
    server.cmd(&["SET", &key(&poisoned, "fence"), "9000000000000000"]);

    for locks in [&locks, &other] {
        let lease = take(locks, &poisoned).await;
        assert!(lease.fence.get() > 9_000_000_000_000_000, "no regression on the tag itself");
        locks.inspect(&poisoned).await.unwrap();
        locks.release_lease(&lease).await.unwrap();
        let fence = take_and_release(locks, &sound).await;
        assert!(fence.get() <= server_micros(&server), "{fence} is ahead of the server's clock");
    }
    let keys: Vec<String> = server.query(&["KEYS", "*:fence"]);
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(server.query::<Vec<String>>(&["KEYS", "*:lock"]).is_empty());
}

/// The fence of such a lease is ahead of the server's clock; by that alone it would look younger than any call.
#[tokio::test]
async fn a_holder_without_the_fence_can_use_a_lease_whose_fence_is_ahead_of_the_clock() {
    let server = RedisServer::start();
    let (locks, other) = (connect(&server).await, connect(&server).await);
    let (tag, worker) = (tag("TEST-02"), worker());
    for releasing in [&locks, &other] {
        server.cmd(&["SET", &key(&tag, "fence"), "9000000000000000"]);
        let lease = take(&locks, &tag).await;
        assert_eq!(releasing.extend(&tag, &worker, long()).await.unwrap().fence, lease.fence);
        releasing.release(&tag, &worker).await.unwrap();
        assert_eq!(releasing.inspect(&tag).await.unwrap().value, None);
    }
}

/// Any process releases for the holder, also one that was started after the clock was set right.
#[tokio::test]
async fn any_process_releases_a_lease_from_before_the_clock_was_set_back() {
    let shim = ClockShim::build().unwrap();
    let server = RedisServer::builder().clock(&shim).start();
    let (locks, worker) = (connect(&server).await, worker());
    let tags = ["TEST-02", "TEST-03", "TEST-04"].map(tag);
    for tag in &tags {
        take(&locks, tag).await;
    }
    shim.shift(-3600);
    let newcomer = connect(&server).await;
    let old_hand = connect(&server).await;
    take_and_release(&old_hand, &tag("TEST-01")).await;
    for (releasing, tag) in [&locks, &newcomer, &old_hand].into_iter().zip(&tags) {
        let extended = releasing.extend(tag, &worker, long()).await.unwrap();
        releasing.release(tag, &worker).await.unwrap();
        let again = take(releasing, tag).await;
        assert!(again.fence > extended.fence);
        releasing.release(tag, &worker).await.unwrap();
    }
}

#[tokio::test]
async fn a_process_that_missed_a_jump_releases_what_was_granted_after_it() {
    let shim = ClockShim::build().unwrap();
    let server = RedisServer::builder().clock(&shim).start();
    let (asleep, awake) = (connect(&server).await, connect(&server).await);
    let (tag, worker) = (tag("TEST-02"), worker());
    shim.shift(3600);
    let lease = take(&awake, &tag).await;
    assert!(lease.fence.get() > server_micros(&server) - 60_000_000);
    asleep.release(&tag, &worker).await.unwrap();
    assert_eq!(awake.inspect(&tag).await.unwrap().value, None);
}

#[tokio::test]
async fn the_first_call_after_a_jump_of_the_clock_succeeds() {
    for (seconds, late) in [(3600, 1), (-3600, 0)] {
        for operation in ["acquire", "extend", "release", "force release"] {
            let shim = ClockShim::build().unwrap();
            let server = RedisServer::builder().clock(&shim).start();
            let (locks, worker) = (connect(&server).await, worker());
            let (tag, free) = (tag("TEST-02"), tag("TEST-03"));
            let lease = take(&locks, &tag).await;
            shim.shift(seconds);
            match operation {
                "acquire" => drop(take(&locks, &free).await),
                "extend" => drop(locks.extend(&tag, &worker, long()).await.unwrap()),
                "release" => drop(locks.release(&tag, &worker).await.unwrap()),
                _ => drop(locks.force_release(&tag, "operator", "test").await.unwrap()),
            }
            let stats = locks.stats().locks;
            assert_eq!(stats.late_total, late, "{operation} after {seconds} s");
            assert_eq!(stats.operations.values().flat_map(|it| it.failures_total.values()).sum::<u64>(), 0);
            if operation != "release" && operation != "force release" {
                locks.release(&tag, &worker).await.unwrap();
            }
            assert!(take(&locks, &tag).await.fence > lease.fence, "{operation} after {seconds} s");
        }
    }
}

#[tokio::test]
async fn a_live_call_survives_a_clock_that_jumps_to_and_fro() {
    let shim = ClockShim::build().unwrap();
    let server = RedisServer::builder().clock(&shim).start();
    let (locks, tag, worker) = (connect(&server).await, tag("TEST-02"), worker());
    let mut last = None;
    for seconds in [3600, 0, -3600, 3600, -3600, 0] {
        shim.shift(seconds);
        let lease = take(&locks, &tag).await;
        assert!(Some(lease.fence) > last, "{} after {last:?}", lease.fence);
        last = Some(lease.fence);
        locks.extend(&tag, &worker, long()).await.unwrap();
        locks.release(&tag, &worker).await.unwrap();
    }
}

#[tokio::test]
async fn fences_that_doubles_cannot_count_are_refused() {
    let server = RedisServer::start();
    let (locks, tag) = (connect(&server).await, tag("TEST-02"));
    let last_good = Fence::MAX.get() - 1;
    assert_eq!(Fence::MAX.get() + 1, 1 << 53);

    server.cmd(&["SET", &key(&tag, "fence"), &(last_good - 1).to_string()]);
    let lease = take(&locks, &tag).await;
    assert_eq!(lease.fence.get(), last_good);
    locks.release_lease(&lease).await.unwrap();
    for stored in [
        last_good.to_string(),
        Fence::MAX.to_string(),
        (1_u64 << 53).to_string(),
        u64::MAX.to_string(),
        "9".repeat(400),
    ] {
        server.cmd(&["SET", &key(&tag, "fence"), &stored]);
        let fault = assert_refuses_the_fence(locks.acquire(&tag, &worker()).await);
        assert!(!fault.kind().is_ambiguous());
        assert_eq!(server.query::<i64>(&["EXISTS", &key(&tag, "lock")]), 0, "nothing was granted");
        assert_eq!(server.query::<String>(&["GET", &key(&tag, "fence")]), stored);
        assert_eq!(locks.inspect(&tag).await.unwrap().value, None);
        assert!(matches!(locks.extend(&tag, &worker(), Ttl::HOUR).await, Err(ExtendError::NotHeld { .. })));
    }
    assert!(take(&locks, &self::tag("TEST-03")).await.fence.get() <= server_micros(&server));
}

#[tokio::test]
async fn a_counter_that_is_no_number_is_counted_anew_from_the_clock() {
    let server = RedisServer::start();
    let (locks, tag) = (connect(&server).await, tag("TEST-02"));
    let mut last = take_and_release(&locks, &tag).await;
    for stored in ["", "abc", "|", "-5", "1e300", "0x7", "12|AAAAAAAAAAA", " 9000000000000000"] {
        server.cmd(&["SET", &key(&tag, "fence"), stored]);
        let lease = take(&locks, &tag).await;
        let now = server_micros(&server);
        assert!(lease.fence > last && lease.fence.get() <= now, "{} for {stored:?}", lease.fence);
        last = lease.fence;
        locks.release(&tag, &worker()).await.unwrap();
        let kept: String = server.query(&["GET", &key(&tag, "fence")]);
        assert!(kept.starts_with(&format!("{last}|")), "{kept:?}");
    }
}

#[tokio::test]
async fn a_fence_is_an_integer_in_json() {
    let server = RedisServer::start();
    let (locks, tag) = (connect(&server).await, tag("TEST-02"));
    let lease = take(&locks, &tag).await;
    let text = serde_json::to_string(&lease).unwrap();
    let fence = lease.fence.to_string();
    assert!(text.contains(&format!("\"fence\":{fence},")), "{text}");
    assert!(fence.bytes().all(|byte| byte.is_ascii_digit()), "{fence}");
    let read: Lease = serde_json::from_str(&text).unwrap();
    assert_eq!(read.fence, lease.fence);
    // A reader that knows only doubles reads the same number.
    let as_double: f64 = fence.parse().unwrap();
    assert_eq!(format!("{as_double:.0}"), fence);
    assert_eq!(serde_json::to_string(&Fence::MAX).unwrap(), "9007199254740991");
    // In the lock, in the counter and in the answer stand the same digits.
    let lock: String = server.query(&["GET", &key(&tag, "lock")]);
    assert_eq!(lock.split('|').nth(2), Some(fence.as_str()));
    assert_eq!(server.query::<String>(&["GET", &key(&tag, "fence")]), fence);
}

#[tokio::test]
async fn fences_follow_the_servers_clock_and_are_remembered_a_day_longer_than_the_lease() {
    let server = RedisServer::start();
    let (locks, tag) = (connect(&server).await, tag("TEST-02"));
    let before = server_micros(&server);
    let lease = take(&locks, &tag).await;
    assert!((before..=server_micros(&server)).contains(&lease.fence.get()));
    let since = lease.since.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(u64::try_from(since.as_millis()).unwrap(), lease.fence.get() / 1000);

    let day_millis = i64::try_from(24 * HOUR_MICROS / 1000).unwrap();
    let left = |part| server.query::<i64>(&["PTTL", &key(&tag, part)]);
    assert!((left("fence") - left("lock") - day_millis).abs() < 50);
    locks.extend(&tag, &worker(), Ttl::MAX).await.unwrap();
    assert!((left("fence") - left("lock") - day_millis).abs() < 50);
    locks.release(&tag, &worker()).await.unwrap();
    assert!((day_millis - left("fence")) < 5_000, "armed anew with the release");
}

//! How a guard is lost, and when that is told.

use std::{collections::HashMap, time::Duration};

use spool_lock::{GuardReleaseError, GuardState, GuardWatch, LockGuard};
use tokio::{
    join,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::*;
use crate::support::{
    FaultProxy,
    proxy::{LostReply, named},
};

/// What a guard of most tests lasts, and how often it is renewed.
const LASTS: u64 = 3000;
const EVERY: Duration = Duration::from_secs(1);

/// Waits until a guard is lost, and says how.
async fn is_lost(guard: &LockGuard, bound: Duration) -> LostReason {
    timeout(bound, guard.lost()).await.expect("it is told in time").reason
}

/// A guard that is lost is not renewed any more, its loss was counted once, and it cannot be given back.
async fn is_over(locks: &SpoolLocks, guard: LockGuard, reason: LostReason) {
    // A renewal that was under way may still be counted.
    sleep(TOLD_WITHIN).await;
    let renewals = renewals(locks);
    sleep(EVERY + TOLD_WITHIN).await;
    assert_eq!(self::renewals(locks), renewals, "it is not renewed");
    assert_eq!(lost_total(locks), [(reason, 1)].into());
    assert_eq!((guard.state(), guard.safe_for()), (GuardState::Lost { reason }, Duration::ZERO));
    let fence = guard.fence();
    match guard.release().await {
        Err(GuardReleaseError::Lost(lost)) => assert_eq!((lost.reason, lost.fence), (reason, fence)),
        other => panic!("{other:?}"),
    }
    assert_eq!(lost_total(locks), [(reason, 1)].into());
}

/// The keeper counts a loss at the moment at which it is told, and may be the last to run then.
async fn are_counted<const N: usize>(locks: &SpoolLocks, losses: [(LostReason, u64); N]) {
    let losses = losses.into();
    eventually(SOON, async || lost_total(locks) == losses).await;
}

/// What those heard who waited for the end of a guard.
pub(super) struct Told {
    /// The warning, and how much was left then.
    pub(super) jeopardy: (Instant, Duration),
    pub(super) reason: LostReason,
    /// By each way of hearing it.
    pub(super) lost: [(&'static str, Instant); 4],
}

/// Waits for the loss of a guard in each way there is.
pub(super) async fn told(guard: &LockGuard) -> Told {
    let watch = async {
        let mut watch = guard.watch();
        let mut jeopardy = None;
        while let Some(state) = watch.next().await {
            let now = Instant::now();
            match state {
                GuardState::Held { .. } => jeopardy = None,
                GuardState::Jeopardy { safe_for } => jeopardy = Some((now, safe_for)),
                GuardState::Lost { reason } => return (jeopardy.expect("a warning"), reason, now),
                GuardState::Released => break,
            }
        }
        panic!("nobody has given it back");
    };
    let lost = async {
        guard.lost().await;
        Instant::now()
    };
    let protect = async {
        guard.protect(std::future::pending::<()>()).await.expect_err("it is lost");
        Instant::now()
    };
    let cancellation = async {
        guard.cancellation().cancelled().await;
        Instant::now()
    };
    let all = async { join!(watch, lost, protect, cancellation) };
    let (watch, lost, protect, cancellation) = timeout(6 * SOON, all).await.expect("it is told");
    let (jeopardy, reason, watch) = watch;
    let lost = [("watch", watch), ("lost", lost), ("protect", protect), ("cancellation", cancellation)];
    Told { jeopardy, reason, lost }
}

/// Must hold 4. Each reply is under way for a while, so that the lease begins and ends before its holder hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guards_that_are_cut_off_are_warned_and_told_when_they_are_no_longer_safe() {
    const LASTS: Duration = Duration::from_secs(2);
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url()).await;
    proxy.delay(Duration::from_millis(100));
    let (mut margins, mut watches, mut crowd) = (Vec::new(), Vec::new(), JoinSet::new());
    for number in 0..20 {
        let margin = Duration::from_millis([300, 1000][number % 2]);
        let guard = locks.guard(&numbered(number), &robot()).ttl(ttl(2000)).margin(margin).await;
        let guard = guard.expect("it is free");
        margins.push(margin);
        watches.push(guard.watch());
        crowd.spawn(async move { (number, told(&guard).await, guard) });
    }
    // All have been renewed by then, each in its rhythm.
    sleep(Duration::from_millis(1500)).await;
    proxy.blackhole();
    // What had passed the proxy has arrived.
    sleep(Duration::from_millis(50)).await;
    let safe_until: Vec<_> = watches.iter().map(|watch| Instant::now() + watch.state().safe_for()).collect();
    for (number, safe_until) in safe_until.iter().enumerate() {
        let left: u64 = server.query(&["PTTL", &key(&numbered(number))]);
        let ends = Instant::now() + Duration::from_millis(left + 1);
        assert!(*safe_until <= ends, "TEST-{number:02} ends {:?} before that", *safe_until - ends);
        assert!(*safe_until > Instant::now() + LASTS / 3, "TEST-{number:02} was not renewed");
    }

    let (mut first, mut last, mut latest) = (safe_until[0], safe_until[0], Duration::ZERO);
    let mut guards = Vec::new();
    while let Some(told) = crowd.join_next().await {
        let (number, told, guard) = told.expect("no panic");
        let (safe_until, margin) = (safe_until[number], margins[number]);
        assert_eq!(told.reason, LostReason::Deadline);
        let (warned, safe_for) = told.jeopardy;
        assert!(safe_for <= margin, "TEST-{number:02} was warned with {safe_for:?} left");
        let all = told.lost.map(|(way, at)| (way, at, safe_until));
        for (way, at, due) in all.into_iter().chain([("warning", warned, safe_until - margin)]) {
            assert!(at >= due, "TEST-{number:02}: {way} {:?} too early", due - at);
            assert!(at <= due + TOLD_WITHIN, "TEST-{number:02}: {way} {:?} late", at - due);
            latest = latest.max(at - due);
        }
        (first, last) = (first.min(safe_until), last.max(safe_until));
        guards.push(guard);
    }
    println!("told within {latest:?}, over {:?}", last - first);
    assert!(last - first > LASTS / 10, "they had their own rhythms");
    are_counted(&locks, [(LostReason::Deadline, 20)]).await;

    proxy.heal();
    for number in 0..20 {
        is_freed(&locks, &numbered(number), SOON).await;
    }
    let is_still_lost =
        |watch: &GuardWatch| watch.state() == GuardState::Lost { reason: LostReason::Deadline };
    assert!(watches.iter().all(is_still_lost));
    assert_eq!(lost_total(&locks), [(LostReason::Deadline, 20)].into());
}

/// Renewals are applied, and nobody hears of it: the lease stands for longer than its holder may count on. It is not left to stand.
#[tokio::test]
async fn a_lock_that_was_lost_and_stands_nevertheless_is_released_for_the_others() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url()).await;
    let other = connect(&server.url()).await;
    // Once with all answers, so that the server knows the scripts.
    drop(locks.guard(&tag(), &robot()).await.expect("it is free"));
    let guard = locks.guard(&tag(), &robot()).ttl(ttl(LASTS)).wait(SOON).await.expect("it is released");
    eventually(SOON, async || renewals(&locks) > 0).await;
    proxy.drop_replies(usize::MAX, LostReply::Swallow, named("EVALSHA"));
    let safe_until = Instant::now() + guard.safe_for();
    let mut watch = guard.watch();
    while !matches!(watch.next().await.expect("not over yet"), GuardState::Jeopardy { .. }) {}
    let left = Duration::from_millis(server.query(&["PTTL", &key(&tag())]));
    assert!(Instant::now() + left > safe_until + EVERY / 4, "a renewal was applied");
    assert_eq!(is_lost(&guard, 2 * EVERY).await, LostReason::Deadline);
    assert!(Instant::now() >= safe_until);
    // By itself it would end a ttl after the last renewal, which was tried just now.
    is_freed(&other, &tag(), EVERY).await;
    is_over(&locks, guard, LostReason::Deadline).await;
}

/// Must hold 4, for a process that does nothing else either: nothing of the runtime has run at the first look.
#[tokio::test]
async fn a_guard_on_a_runtime_that_was_blocked_is_lost_at_the_first_look() {
    for (locks, _server) in stores().await {
        let guard = locks.guard(&tag(), &robot()).ttl(ttl(400)).await.expect("it is free");
        sleep(Duration::from_millis(500)).await;
        let cancellation = guard.cancellation();
        assert!(matches!(guard.state(), GuardState::Held { .. }), "it was renewed");
        std::thread::sleep(Duration::from_millis(400));
        let lost = GuardState::Lost { reason: LostReason::Deadline };
        assert_eq!((guard.safe_for(), guard.state()), (Duration::ZERO, lost));
        assert!(guard.cancellation().is_cancelled() && cancellation.is_cancelled());
        let work = guard.protect(async { panic!("no work is begun") }).await;
        assert_eq!(work.map_err(|lost| lost.reason), Err::<(), _>(LostReason::Deadline));
        assert_eq!(guard.watch().next().await, Some(lost));
        is_freed(&locks, &tag(), SOON).await;
        assert_eq!(guard.state(), lost);
        are_counted(&locks, [(LostReason::Deadline, 1)]).await;
    }
}

/// Must hold 6. The tag remembers its fence, so it has ended.
#[tokio::test]
async fn a_lock_that_has_gone_away_is_told_at_the_next_renewal() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let guard = locks.guard(&tag(), &robot()).ttl(ttl(LASTS)).await.expect("it is free");
    server.cmd(&["DEL", &key(&tag())]);
    assert_eq!(is_lost(&guard, EVERY + TOLD_WITHIN).await, LostReason::Expired);
    is_over(&locks, guard, LostReason::Expired).await;
    assert!(!server.query::<bool>(&["EXISTS", &key(&tag())]), "no renewal makes one");
}

/// The tag remembers nothing, so nobody has had it since.
#[tokio::test]
async fn a_lock_that_the_server_has_forgotten_is_put_back_at_the_next_renewal_at_the_latest() {
    let flushed = |server: &RedisServer| drop(server.cmd(&["FLUSHALL"]));
    let evicted = |server: &RedisServer| {
        server.cmd(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
        server.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
        // Each command makes room first.
        assert!(!server.query::<bool>(&["EXISTS", &key(&tag())]));
        server.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    };
    for gone in [flushed as fn(&RedisServer), evicted] {
        let server = RedisServer::start();
        let locks = connect(&server.url()).await;
        let guard = locks.guard(&tag(), &robot()).ttl(ttl(LASTS)).await.expect("it is free");
        gone(&server);
        let is_back = async || server.query::<bool>(&["EXISTS", &key(&tag())]);
        eventually(EVERY + TOLD_WITHIN, is_back).await;
        let standing = locks.inspect(&tag()).await.expect("healthy").value.expect("it stands");
        assert_eq!(standing.fence, guard.fence());
        guard.release().await.expect("it was never lost");
    }
}

/// Must hold 6. Whose it is by then may be somebody of another name, or another process of the same holder.
#[tokio::test]
async fn who_has_the_lock_by_now_keeps_it() {
    for (other, reason) in [(stranger(), LostReason::Stolen), (robot(), LostReason::Expired)] {
        for is_dropped in [true, false] {
            let server = RedisServer::start();
            let (locks, another) = (connect(&server.url()).await, connect(&server.url()).await);
            let guard = locks.guard(&tag(), &robot()).ttl(ttl(LASTS)).await.expect("it is free");
            server.cmd(&["DEL", &key(&tag())]);
            let theirs = another.guard(&tag(), &other).await.expect("it is free");
            assert!(theirs.fence() > guard.fence());
            let stands: String = server.query(&["GET", &key(&tag())]);
            assert_eq!(is_lost(&guard, EVERY + TOLD_WITHIN).await, reason);
            if is_dropped {
                drop(guard);
                sleep(TOLD_WITHIN).await;
                are_counted(&locks, [(reason, 1)]).await;
            } else {
                is_over(&locks, guard, reason).await;
            }
            assert_eq!(server.query::<String>(&["GET", &key(&tag())]), stands);
            theirs.release().await.expect("it is held");
            assert_eq!(lost_total(&another), HashMap::new());
        }
    }
}

/// Must hold 6.
#[tokio::test]
async fn a_lock_that_another_process_released_by_force_is_told_at_the_next_renewal() {
    let server = RedisServer::start();
    let (locks, another) = (connect(&server.url()).await, connect(&server.url()).await);
    let guard = locks.guard(&tag(), &robot()).ttl(ttl(LASTS)).await.expect("it is free");
    another.force_release(&tag(), "boss", "a drill").await.expect("it is held");
    // That it was force is only heard by who watches.
    assert_eq!(is_lost(&guard, EVERY + TOLD_WITHIN).await, LostReason::Expired);
    is_over(&locks, guard, LostReason::Expired).await;
}

/// Must hold 6. The next renewal is ten seconds away.
#[tokio::test]
async fn a_lock_released_by_force_is_told_at_once_where_that_is_heard() {
    enum Hears {
        Tag,
        All,
        ByItself,
    }
    for hears in [Hears::Tag, Hears::All, Hears::ByItself] {
        let server = RedisServer::start();
        let (locks, another) = (connect(&server.url()).await, connect(&server.url()).await);
        let guard = locks.guard(&tag(), &robot()).renew_every(EVERY * 10).await.expect("it is free");
        let (_watch, by) = match hears {
            Hears::Tag => (Some(locks.watch_tag(&tag()).await.expect("healthy")), another),
            Hears::All => (Some(locks.watch().await.expect("healthy")), another),
            Hears::ByItself => (None, locks.clone()),
        };
        by.force_release(&tag(), "boss", "a drill").await.expect("it is held");
        assert_eq!(is_lost(&guard, TOLD_WITHIN).await, LostReason::Forced);
        is_over(&locks, guard, LostReason::Forced).await;
    }
}

/// Must hold 6. What stands there by then is not a lock of ours, or none that can be prolonged.
#[tokio::test]
async fn a_lock_that_was_written_over_is_told_at_the_next_renewal() {
    const OVER: [&[&str]; 4] =
        [&["SET", "junk"], &["SET", "junk", "PX", "60000"], &["RPUSH", "junk"], &["PERSIST"]];
    let mut cases = JoinSet::new();
    for over in OVER {
        cases.spawn(async move {
            let server = RedisServer::start();
            let locks = connect(&server.url()).await;
            let guard = locks.guard(&tag(), &robot()).ttl(ttl(LASTS)).await.expect("it is free");
            let key = key(&tag());
            if over[0] == "RPUSH" {
                server.cmd(&["DEL", &key]);
            }
            server.cmd(&[&[over[0], &key], &over[1..]].concat());
            assert_eq!(is_lost(&guard, EVERY + TOLD_WITHIN).await, LostReason::Stolen);
            is_over(&locks, guard, LostReason::Stolen).await;
            // What is not ours is not ours to delete.
            let is_ours = over[0] == "PERSIST";
            assert_eq!(server.query::<bool>(&["EXISTS", &key]), !is_ours, "{over:?}");
        });
    }
    while let Some(case) = cases.join_next().await {
        case.expect("no panic");
    }
}

/// Must hold 6. Renewals run all the time, while the hub hears of the end: each finds many of them first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_is_counted_once_whoever_finds_it_first() {
    const GUARDS: usize = 50;
    let server = RedisServer::start();
    let (locks, another) = (connect(&server.url()).await, connect(&server.url()).await);
    let mut events = locks.watch().await.expect("healthy");
    let losses = tokio::spawn(async move {
        let mut losses = 0;
        while let Some(event) = events.next().await {
            match event.name() {
                "lost" => losses += 1,
                "missed" => panic!("the watch is too slow: {event:?}"),
                _ => {}
            }
        }
        losses
    });
    let mut counts = HashMap::new();
    let mut rounds = 0;
    // At least ten, and until both have found some first.
    while rounds < 10 || counts.len() < 2 {
        assert!(rounds < 100, "{counts:?}");
        rounds += 1;
        let mut guards = Vec::new();
        for number in 0..GUARDS {
            let every = Duration::from_millis(5);
            let guard = locks.guard(&numbered(number), &robot()).wait(SOON).renew_every(every).await;
            guards.push(guard.expect("it is free"));
        }
        let mut drills = JoinSet::new();
        for number in 0..GUARDS {
            let another = another.clone();
            drills.spawn(async move { another.force_release(&numbered(number), "boss", "a drill").await });
        }
        while let Some(drill) = drills.join_next().await {
            drill.expect("no panic").expect("it is held");
        }
        for guard in guards {
            *counts.entry(is_lost(&guard, SOON).await).or_insert(0) += 1;
        }
    }
    println!("{counts:?}");
    assert!(counts.keys().all(|reason| [LostReason::Expired, LostReason::Forced].contains(reason)));
    assert_eq!(counts.values().sum::<u64>(), (rounds * GUARDS) as u64);
    // Whatever is on its way is told before the end.
    sleep(TOLD_WITHIN).await;
    assert_eq!(lost_total(&locks), counts);
    drop(locks);
    let losses = timeout(SOON, losses).await.expect("the watch ends").expect("no panic");
    assert_eq!(losses, rounds * GUARDS, "and told once");
}

//! The network is away for a while, and 200 guards are held. Must hold 5, in its figures.

use std::time::Duration;

use spool_lock::{GuardState, LockGuard};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    loss::{Told, told},
    *,
};
use crate::support::{
    FaultProxy,
    proxy::{Close, Held},
};

const GUARDS: usize = 200;
const CONNECTIONS: u32 = 4;
const LASTS: Duration = Duration::from_secs(10);
const LOST: GuardState = GuardState::Lost { reason: LostReason::Deadline };

/// How the network is away.
#[derive(Clone, Copy)]
enum Outage {
    /// What is sent stays under way, and arrives when it is over.
    Silence,
    /// What is sent is lost, and connections that were opened meanwhile stay silent for ever.
    Loss,
    /// All connections are closed, and new ones too.
    Refusal,
}

/// A process that holds 200 guards, each of which has been renewed.
struct Crowd {
    server: RedisServer,
    proxy: FaultProxy,
    locks: SpoolLocks,
    guards: Vec<LockGuard>,
    /// The most connections that were open at a time.
    peak: usize,
    /// What was sent and does not arrive.
    lost: Option<Held>,
}

impl Crowd {
    async fn gather() -> Self {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        let locks = SpoolLocks::connect(config(&proxy.url())).await.expect("healthy");
        let mut guards = Vec::new();
        for number in 0..GUARDS {
            let guard = locks.guard(&numbered(number), &robot()).ttl(ttl(10_000)).await;
            guards.push(guard.expect("it is free"));
        }
        let mut crowd = Self { server, proxy, locks, guards, peak: 0, lost: None };
        crowd.pass(LASTS / 2).await;
        assert!(crowd.guards.iter().all(is_held), "each has been renewed");
        crowd
    }

    /// Cuts this process off, and lets what is under way arrive.
    async fn cut(&mut self, outage: Outage) {
        match outage {
            Outage::Silence => self.proxy.blackhole(),
            Outage::Loss => self.lost = Some(self.proxy.hold_requests(|_| true)),
            Outage::Refusal => {
                self.proxy.refuse();
                self.proxy.close_all(Close::Rst);
            }
        }
        self.pass(Duration::from_millis(50)).await;
    }

    /// Lets time pass, and counts the connections meanwhile.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.peak = self.peak.max(self.proxy.connections_open());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// What stands in Redis, for each tag.
    fn leases(&self) -> Vec<Option<String>> {
        let keys = (0..GUARDS).map(|number| key(&numbered(number)));
        let command: Vec<_> = std::iter::once("MGET".to_owned()).chain(keys).collect();
        self.server.query(&command.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn is_held(guard: &LockGuard) -> bool {
    matches!(guard.state(), GuardState::Held { .. })
}

/// When an outage begins, each guard has two thirds of its ttl left, 6.6 s here. It is survived where it is shorter than that, less
/// the time that is lost after it: until it is noticed that a connection that was begun meanwhile is dead, and another one is open.
/// Where the network loses what it was given, that is a second: then another is tried beside it. All timeouts are the defaults.
///
/// As few connections as carry the renewals that are under way at once.
fn config(url: &str) -> Config {
    let mut config = Config::new(url).expect("an address");
    config.pool.max_connections = CONNECTIONS;
    config
}

/// All guards are held for as long as the outage lasts, and after it. Answers the figures that were seen.
async fn is_survived(outage: Outage) -> String {
    let mut crowd = Crowd::gather().await;
    let before = crowd.leases();
    let began = Instant::now();
    crowd.cut(outage).await;
    crowd.pass((began + Duration::from_secs(5)).saturating_duration_since(Instant::now())).await;
    for guard in &crowd.guards {
        assert!(matches!(guard.state(), GuardState::Jeopardy { .. }), "{:?} after 5 s", guard.state());
    }
    crowd.proxy.heal();
    let healed = Instant::now();
    let least = crowd.guards.iter().map(LockGuard::safe_for).min().unwrap_or_default();
    eventually(SOON, async || {
        crowd.peak = crowd.peak.max(crowd.proxy.connections_open());
        match crowd.guards.iter().filter(|guard| !is_held(guard)).count() {
            0 => Ok(()),
            others => {
                Err(format!("{others} guards are not held: {:?}", crowd.locks.stats().locks.lost_total))
            }
        }
    })
    .await;
    let figures =
        format!("{least:?} were left, held again after {:?}, {} connections", healed.elapsed(), crowd.peak);

    assert_eq!(crowd.leases(), before, "the same tokens and fences");
    for (guard, lease) in crowd.guards.iter().zip(before) {
        let lease = lease.expect("it stands");
        let fence = lease.split('|').nth(2).and_then(|fence| fence.parse().ok());
        assert_eq!(fence, Some(guard.fence().get()), "{lease}");
    }
    assert!(crowd.peak <= CONNECTIONS as usize, "{} connections", crowd.peak);
    // Everything that came late has come.
    crowd.pass(Duration::from_secs(1)).await;
    assert_eq!(lost_total(&crowd.locks), [].into());
    // A renewal that went into the outage may have timed out only now; it is soon followed by another.
    eventually(SOON, async || crowd.guards.iter().all(is_held)).await;
    figures
}

/// All guards are lost on time, and stay lost. Answers the figures that were seen.
async fn is_told(outage: Outage) -> String {
    let mut crowd = Crowd::gather().await;
    let before = crowd.leases();
    let watches: Vec<_> = crowd.guards.iter().map(LockGuard::watch).collect();
    let mut listening = JoinSet::new();
    for (number, guard) in std::mem::take(&mut crowd.guards).into_iter().enumerate() {
        listening.spawn(async move { (number, told(&guard).await, guard) });
    }
    let began = Instant::now();
    crowd.cut(outage).await;
    let safe_until: Vec<_> = watches.iter().map(|watch| Instant::now() + watch.state().safe_for()).collect();
    for safe_until in &safe_until {
        assert!((began + LASTS / 2..began + LASTS).contains(safe_until), "{:?}", *safe_until - began);
    }

    crowd.pass((began + LASTS + LASTS / 5).saturating_duration_since(Instant::now())).await;
    let (mut latest, mut guards) = (Duration::ZERO, Vec::new());
    while let Some(told) = listening.try_join_next() {
        let (number, Told { jeopardy: (warned, _), reason, lost }, guard) = told.expect("no panic");
        assert_eq!(reason, LostReason::Deadline);
        let safe_until = safe_until[number];
        let all = lost.map(|(way, at)| (way, at, safe_until));
        for (way, at, due) in all.into_iter().chain([("warning", warned, safe_until - LASTS / 2)]) {
            assert!(at >= due, "TEST-{number:02}: {way} {:?} too early", due - at);
            assert!(at <= due + TOLD_WITHIN, "TEST-{number:02}: {way} {:?} late", at - due);
            latest = latest.max(at - due);
        }
        guards.push(guard);
    }
    let figures = format!("told within {latest:?}, {} connections", crowd.peak);
    assert_eq!(guards.len(), GUARDS, "all were told");
    assert_eq!(lost_total(&crowd.locks), [(LostReason::Deadline, 200)].into());

    // Who is not cut off takes half of them at once, and the other half when the network is back.
    let others = connect(&crowd.server.url()).await;
    let mut theirs = Vec::new();
    for number in (0..GUARDS).step_by(2) {
        theirs.push(others.guard(&numbered(number), &stranger()).await.expect("it has ended"));
    }
    crowd.pass((began + LASTS + LASTS / 2).saturating_duration_since(Instant::now())).await;
    crowd.proxy.heal();
    for number in (1..GUARDS).step_by(2) {
        is_freed(&others, &numbered(number), SOON).await;
        theirs.push(others.guard(&numbered(number), &stranger()).await.expect("it is free"));
    }
    let after = crowd.leases();
    for (before, after) in before.iter().zip(&after) {
        let fence = |lease: &Option<String>| lease.as_ref()?.split('|').nth(2)?.parse::<u64>().ok();
        assert!(fence(after) > fence(before) && fence(before).is_some(), "{before:?}, then {after:?}");
    }

    // Whatever came late, or is swept, changes nothing.
    let renewals = renewals(&crowd.locks);
    crowd.pass(Duration::from_secs(2)).await;
    assert!(watches.iter().all(|watch| watch.state() == LOST));
    drop(guards);
    crowd.pass(TOLD_WITHIN).await;
    assert_eq!(super::renewals(&crowd.locks), renewals, "nothing is renewed");
    assert_eq!(crowd.leases(), after);
    assert!(theirs.iter().all(is_held));
    assert_eq!(lost_total(&crowd.locks), [(LostReason::Deadline, 200)].into());
    assert_eq!(lost_total(&others), [].into());
    assert!(crowd.peak <= CONNECTIONS as usize, "{} connections", crowd.peak);
    figures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_seconds_of_silence_are_survived_by_200_guards_that_last_ten() {
    println!("{}", is_survived(Outage::Silence).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_seconds_in_which_all_is_lost_are_survived_by_200_guards_that_last_ten() {
    println!("{}", is_survived(Outage::Loss).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_seconds_without_connections_are_survived_by_200_guards_that_last_ten() {
    println!("{}", is_survived(Outage::Refusal).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_seconds_of_silence_are_told_to_200_guards_that_last_ten() {
    println!("{}", is_told(Outage::Silence).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifteen_seconds_without_connections_are_told_to_200_guards_that_last_ten() {
    println!("{}", is_told(Outage::Refusal).await);
}

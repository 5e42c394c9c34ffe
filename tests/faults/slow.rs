//! Redis answers, but slowly, and more is asked than the pool has room for.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use spool_lock::{AcquireError, Config, GuardState, LockGuard, Mode, SpoolLocks, Ttl};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep},
};

use crate::{
    report::{self, Row},
    service::{holder, tag},
    support::{FaultProxy, RedisServer, eventually},
};

const DELAY: Duration = Duration::from_millis(800);
const LASTS: Duration = Duration::from_secs(8);
/// As many as their lane carries at a time. A third, renewed at the same moment, would wait for the reply to another.
const GUARDS: usize = 2;
/// Each is renewed twice at least while it lasts.
const GUARD_TTL: Duration = Duration::from_secs(9);
const BREATH: Duration = Duration::from_millis(5);
/// The deadline of the others, who come in an open loop. The line is longer than that.
const HURRY: Duration = Duration::from_millis(500);
const HURRIED_EVERY: Duration = Duration::from_millis(40);

/// What callers were told, and how often.
#[derive(Debug, Default, Clone)]
struct Told(Arc<Mutex<BTreeMap<String, u64>>>);

impl Told {
    fn note(&self, outcome: &Result<(), AcquireError>) {
        let word = match outcome {
            Ok(()) => "done",
            Err(AcquireError::Saturated) => "saturated",
            Err(AcquireError::Fault(fault) | AcquireError::Ambiguous { fault, .. }) => fault.kind().as_str(),
            Err(_) => "another error",
        };
        *self.0.lock().expect("nothing panics while counting").entry(word.to_owned()).or_default() += 1;
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().expect("nothing panics while counting").clone()
    }
}

fn is_held(guard: &LockGuard) -> bool {
    matches!(guard.state(), GuardState::Held { .. })
}

/// Callers who wait as long as it takes, and callers who have no time. Nobody else wants their locks.
fn crowd(locks: &SpoolLocks, patient: usize, told: &Told) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for number in 0..patient {
        let (locks, told) = (locks.clone(), told.clone());
        crowd.spawn(async move {
            for turn in 0_u64.. {
                let (tag, holder) = (tag(&format!("PATIENT-{number}-{turn}")), holder("93"));
                told.note(&locks.acquire(&tag, &holder).await.map(drop));
                // A refusal takes no time at all.
                sleep(BREATH).await;
            }
        });
    }
    let (locks, told) = (locks.clone(), told.clone());
    crowd.spawn(async move {
        let mut calls = JoinSet::new();
        let mut rhythm = interval(HURRIED_EVERY);
        for number in 0_u64.. {
            rhythm.tick().await;
            let (locks, told) = (locks.clone(), told.clone());
            calls.spawn(async move {
                let (tag, holder) = (tag(&format!("HURRIED-{number}")), holder("93"));
                told.note(&locks.acquire(&tag, &holder).deadline(HURRY).await.map(drop));
            });
        }
    });
    crowd
}

/// Answers what callers were told, and a text about the guards. `patient` callers have the default deadline and take turns with next
/// to no pause: four are under way, the others wait for a slot.
async fn is_borne(patient: usize, max_waiters: u32, words: &[&str]) -> (String, String) {
    let server = RedisServer::start();
    let network = FaultProxy::before(&server);
    let mut config = Config::new(&network.url()).expect("an address");
    (config.pool.max_connections, config.pool.depth, config.pool.max_waiters) = (3, 2, max_waiters);
    let locks = SpoolLocks::connect(config).await.expect("healthy");
    let mut guards = Vec::new();
    for number in 0..GUARDS {
        let (tag, ttl) = (tag(&format!("GUARD-{number}")), Ttl::new(GUARD_TTL).expect("a ttl"));
        guards.push(locks.guard(&tag, &holder("robot-7")).ttl(ttl).await.expect("it is free"));
    }
    // The server learns the scripts: from here on a renewal is one command.
    let lease = locks.acquire(&tag("FIRST"), &holder("93")).await.expect("it is free");
    locks.extend(&lease.tag, &lease.holder, Ttl::HOUR).await.expect("it is ours");
    let renewals = || locks.stats().locks.operations["extend"].total;
    let (renewed, told) = (renewals(), Told::default());

    network.delay(DELAY);
    let began = Instant::now();
    let mut crowd = crowd(&locks, patient, &told);
    let (mut peak, mut least) = (0, GUARD_TTL);
    while began.elapsed() < LASTS {
        assert!(guards.iter().all(is_held), "after {:?}", began.elapsed());
        assert_eq!(locks.mode(), Mode::Normal, "after {:?}", began.elapsed());
        least = guards.iter().map(LockGuard::safe_for).fold(least, Duration::min);
        peak = peak.max(network.connections_open());
        sleep(Duration::from_millis(5)).await;
    }
    let renewed = renewals() - renewed;
    crowd.shutdown().await;

    let told = told.counts();
    for word in words {
        assert!(told.contains_key(*word), "nobody was told {word}: {told:?}");
    }
    assert_eq!(told.len(), words.len(), "{told:?}");
    for circuit in [locks.link_circuit(), locks.writes_circuit()] {
        let transitions = circuit.stats().transitions_total;
        assert!(transitions.values().all(|count| *count == 0), "{}: {transitions:?}", circuit.name());
    }
    assert!(renewed >= 2 * GUARDS as u64, "{renewed} renewals");
    assert!(peak <= 3, "{peak} connections");

    let told: Vec<_> = told.iter().map(|(word, count)| format!("{word} {count}")).collect();
    (told.join(", "), format!("{renewed} of {GUARDS} guards, {least:.1?} left at least"))
}

const MUST: &str = "callers are told that it is full, or that no connection came free in time; both circuits stay closed; guards are \
    renewed on their own lane";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_and_a_full_pool() {
    let (told, renewals) = is_borne(12, 16, &["done", "saturated", "checkout_timeout"]).await;
    report::row(Row {
        row: "slow::replies_and_a_full_pool",
        fault: "replies come 800 ms later, and more callers come than may wait",
        must: MUST,
        timeouts: "3 connections of depth 2, 16 waiters, deadline 5 s or 500 ms",
        measured: &[("told", told), ("renewals", renewals), ("circuits", "0 transitions".to_owned())],
    });
}

/// A line in which all wait for most of their time: those who came to their turn had too little left for an answer, took the
/// connections for dead, and nobody was served any more, nor guards renewed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_and_a_line_that_is_too_long() {
    let (told, renewals) = is_borne(100, 160, &["done", "checkout_timeout"]).await;
    report::row(Row {
        row: "slow::replies_and_a_line_that_is_too_long",
        fault: "replies come 800 ms later, and 100 callers wait in line for 4 slots",
        must: MUST,
        timeouts: "3 connections of depth 2, deadline 5 s or 500 ms",
        measured: &[("told", told), ("renewals", renewals), ("circuits", "0 transitions".to_owned())],
    });
}

/// A circuit is everybody's. That one caller had less time than a reply takes says nothing of Redis: three such calls had opened
/// the circuit for all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_and_callers_in_a_hurry() {
    const DELAY: Duration = Duration::from_millis(100);
    const HURRY: Duration = Duration::from_millis(50);
    const CALLS: usize = 40;
    let server = RedisServer::start();
    let network = FaultProxy::before(&server);
    let locks = SpoolLocks::connect(Config::new(&network.url()).expect("an address")).await.expect("healthy");
    // The server learns the script: from here on an acquire is one command, and is granted.
    locks.acquire(&tag("FIRST"), &holder("93")).await.expect("it is free");
    network.delay(DELAY);
    for number in 0..CALLS {
        let (tag, holder) = (tag(&format!("HURRIED-{number}")), holder("93"));
        let hurried = locks.acquire(&tag, &holder).deadline(HURRY).await;
        assert!(matches!(hurried, Err(AcquireError::Ambiguous { .. })), "call {number}: {hurried:?}");
    }
    let patient = locks.acquire(&tag("PATIENT"), &holder("93")).await;
    assert!(patient.is_ok(), "{patient:?}");
    let transitions = locks.link_circuit().stats().transitions_total;
    assert!(transitions.values().all(|count| *count == 0), "{transitions:?}");
    eventually(Duration::from_secs(5), async || {
        let left: Vec<String> = server.query(&["KEYS", "spool:{HURRIED-*:lock"]);
        let swept = locks.stats().locks.swept_total["released"];
        if left.is_empty() && swept == CALLS as u64 { Ok(()) } else { Err((swept, left)) }
    })
    .await;

    report::row(Row {
        row: "slow::replies_and_callers_in_a_hurry",
        fault: "replies come 100 ms later, and some callers have 50 ms",
        must: "they are told that it is ambiguous, what they were granted is swept, and nobody else is refused",
        timeouts: "a deadline of 50 ms for those in a hurry",
        measured: &[
            ("told", format!("{CALLS} of {CALLS} ambiguous, and all swept")),
            ("circuits", "0 transitions".to_owned()),
        ],
    });
}

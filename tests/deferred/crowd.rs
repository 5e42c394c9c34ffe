//! Ten thousand of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures_util::{StreamExt as _, stream};
use spool_lock::{
    AcquireError, DeferError, Event, Lease, Mode, RecoveryPhase, ReleaseError, ReleaseOutcome, SpoolLocks,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    reasons::stop_saving,
    setup::*,
    support::{RedisServer, eventually},
};

/// As many as are deferred by default.
const MOST: usize = 10_000;
const SIDE_BY_SIDE: usize = 64;

async fn acquire_all(locks: &SpoolLocks, count: usize) -> Vec<Lease> {
    let acquire = |number| async move { locks.acquire(&tag(number), &worker()).await.expect("it is free") };
    stream::iter(0..count).map(acquire).buffered(SIDE_BY_SIDE).collect().await
}

async fn release_all(locks: &SpoolLocks, leases: &[Lease]) -> Vec<Result<ReleaseOutcome, ReleaseError>> {
    let release = |lease| locks.release_lease(lease).into_future();
    stream::iter(leases).map(release).buffered(SIDE_BY_SIDE).collect().await
}

/// What is on its way out is written to the log before it is answered, and so survives SIGKILL.
fn lasting() -> RedisServer {
    RedisServer::builder().arg("appendonly", "yes").arg("appendfsync", "no").start()
}

async fn server_is_missed(locks: &SpoolLocks) {
    eventually(SOON, async || {
        let _ = locks.inspect(&tag(99_999)).await;
        locks.mode() == Mode::Unreachable
    })
    .await;
}

/// Acquires that come in the moment in which the link is well again; each says how many deferred calls waited still when it was granted.
fn strangers(locks: &SpoolLocks) -> JoinSet<u64> {
    let mut crew = JoinSet::new();
    for number in 0..100 {
        let (locks, mut modes) = (locks.clone(), locks.watch_mode());
        crew.spawn(async move {
            // Half of them want what is free, half of them what is given back.
            let wanted = if number % 2 == 0 { tag(50_000 + number) } else { tag(100 * number) };
            while locks.mode() != Mode::Normal {
                modes.changed().await;
            }
            match locks.acquire(&wanted, &stranger()).await {
                Ok(_) => counts(&locks).waiting,
                Err(error) => panic!("{number}: {}", chain(&error)),
            }
        });
    }
    crew
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_are_applied_within_three_seconds_and_acquires_wait_their_turn() {
    let server = lasting();
    let locks = connect(&server.url(), |_| {}).await;
    let leases = acquire_all(&locks, MOST).await;
    let mut watch = locks.watch().await.unwrap();
    server.kill9();
    server_is_missed(&locks).await;
    let began = Instant::now();
    for outcome in release_all(&locks, &leases).await {
        assert_deferred(outcome);
    }
    println!("{MOST} releases were deferred in {:?}", began.elapsed());
    assert_eq!(counts(&locks).waiting, MOST as u64);

    let crew = strangers(&locks);
    let phases = tokio::spawn(async move {
        let mut phases = BTreeMap::new();
        while phases.len() < 3 {
            let event = watch.next().await.expect("the locks are there");
            if let Event::Recovered { phase, done, left, took, .. } = &*event {
                phases.insert(phase.as_str(), (*done, *left, *took));
            }
        }
        phases
    });
    server.restart();
    let back = Instant::now();
    eventually(SOON, async || counts(&locks).waiting == 0).await;
    let took = back.elapsed();
    let waited: Vec<_> = crew.join_all().await;
    let granted = back.elapsed();
    let phases = phases.await.unwrap();
    let (done, left, phase_took) = phases[RecoveryPhase::Deferred.as_str()];
    println!(
        "{done} applied {took:?} after redis was back, in a phase of {phase_took:?}; the last of {} acquires granted after \
         {granted:?}",
        waited.len()
    );
    assert_eq!((done, left), (MOST as u64, 0));
    assert!(took <= 3 * SECOND, "{took:?}");
    assert!(waited.iter().all(|waiting| *waiting == 0), "who came in too early: {waited:?}");
    let expected = Counts { deferred: MOST as u64, applied: MOST as u64, ..Counts::default() };
    assert_eq!(counts(&locks), expected);
    let listed = locks.list().await.unwrap().value;
    assert!(listed.iter().all(|occupant| occupant.holder == stranger()) && listed.len() == 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_more_than_may_wait_is_refused_and_what_is_kept_and_refused_is_what_was_asked() {
    const TOO_MANY: usize = 50;
    let net = Net::open(|_| {}).await;
    let leases = acquire_all(&net.far, MOST + TOO_MANY).await;
    net.cut().await;
    let (mut kept, mut refused) = (0, Vec::new());
    for (lease, outcome) in leases.iter().zip(release_all(&net.far, &leases).await) {
        match outcome {
            Ok(ReleaseOutcome::Deferred { .. }) => kept += 1,
            Err(error @ ReleaseError::NotDeferred(_)) => refused.push((lease, error)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((kept, refused.len()), (MOST, TOO_MANY));
    let Some((_, ReleaseError::NotDeferred(not))) = refused.first() else { panic!("{refused:?}") };
    println!("{}", chain(not));
    assert!(matches!(not.why, DeferError::Full { most: MOST }), "{not:?}");
    assert!(not.to_string().contains("10000 calls wait for redis already"), "{not}");
    let full =
        Counts { waiting: MOST as u64, deferred: MOST as u64, refused: TOO_MANY as u64, ..Counts::default() };
    assert_eq!(counts(&net.far), full);

    assert_eq!(net.mend().await, Counts { waiting: 0, applied: MOST as u64, ..full });
    let mut standing: Vec<_> =
        net.near.list().await.unwrap().value.into_iter().map(|occupant| occupant.fence).collect();
    let mut told: Vec<_> = refused.iter().map(|(lease, _)| lease.fence).collect();
    standing.sort();
    told.sort();
    assert_eq!(standing, told, "those stand of which a caller was told, and no other");
}

/// No connection has broken, so nothing but the circuit says that there was an outage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acquires_wait_their_turn_also_where_no_connection_has_broken() {
    const COUNT: usize = 10_000;
    let server = RedisServer::start();
    let locks = connect(&server.url(), |_| {}).await;
    let leases = acquire_all(&locks, COUNT).await;
    server.cmd(&["CONFIG", "SET", "busy-reply-threshold", "10"]);
    let busy = {
        let url = server.url();
        std::thread::spawn(move || {
            let mut connection = redis::Client::open(url)?.get_connection()?;
            redis::cmd("EVAL").arg("while true do end").arg(0).exec(&mut connection)
        })
    };
    server_is_missed(&locks).await;
    for outcome in release_all(&locks, &leases).await {
        assert_deferred(outcome);
    }
    let crew = strangers(&locks);
    server.cmd(&["SCRIPT", "KILL"]);
    let waited: Vec<_> = crew.join_all().await;
    assert!(waited.iter().all(|waiting| *waiting == 0), "who came in too early: {waited:?}");
    let expected = Counts { deferred: COUNT as u64, applied: COUNT as u64, ..Counts::default() };
    assert_eq!(counts(&locks), expected);
    busy.join().unwrap().expect_err("it was killed");
}

/// Releases that come while what waits is being applied are not lost between the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_released_while_the_backlog_is_applied_is_released() {
    const COUNT: usize = 2_000;
    let net = Net::open(|_| {}).await;
    let leases = acquire_all(&net.far, 2 * COUNT).await;
    net.cut().await;
    for outcome in release_all(&net.far, &leases[..COUNT]).await {
        assert_deferred(outcome);
    }
    net.proxy.heal();
    // So that it lasts a while: 32 side by side.
    net.proxy.delay(millis(10));
    eventually(SOON, async || net.far.mode() == Mode::Normal).await;
    let mut direct = 0;
    for outcomes in leases[COUNT..].chunks(50) {
        for outcome in release_all(&net.far, outcomes).await {
            direct += u64::from(outcome.unwrap() == ReleaseOutcome::Released);
        }
        sleep(millis(5)).await;
    }
    let after = net.mend().await;
    println!("{direct} of {COUNT} releases were sent while others were applied: {after:?}");
    assert!(direct > 0, "{after:?}");
    assert_eq!(after.applied + direct, 2 * COUNT as u64);
    assert!(net.near.list().await.unwrap().value.is_empty());
}

/// An outage that comes and goes, again and again, and callers who never stop: each lease is released once, by whatever way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_five_outages_every_lease_is_released_once() {
    const CALLERS: usize = 8;
    let net = Net::open(|config| config.history.entries = 1000).await;
    let (is_over, taken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut crew = JoinSet::new();
    for number in 0..CALLERS {
        let (far, is_over, taken) = (net.far.clone(), is_over.clone(), taken.clone());
        crew.spawn(async move {
            let (mut fences, tag, worker) = (Vec::new(), tag(number), worker());
            while is_over.load(Relaxed) == 0 {
                let lease = match far.acquire(&tag, &worker).await {
                    Ok(lease) => Some(lease),
                    // Granted before, and unheard: it is left to whoever is told of it.
                    Err(AcquireError::AlreadyHeld(lease)) => Some(*lease),
                    Err(_) => None,
                };
                if let Some(lease) = lease {
                    sleep(millis(40)).await;
                    far.release_lease(&lease).await.expect("it is released or deferred");
                    taken.fetch_add(1, Relaxed);
                    fences.push(lease.fence);
                }
                sleep(millis(10)).await;
            }
            fences
        });
    }
    for _ in 0..5 {
        sleep(millis(300)).await;
        net.proxy.refuse();
        net.proxy.close_all(super::support::proxy::Close::Rst);
        sleep(millis(300)).await;
        net.proxy.heal();
    }
    sleep(millis(300)).await;
    is_over.store(1, Relaxed);
    let released = crew.join_all().await;
    let after = net.mend().await;
    println!("{} leases through five outages: {after:?}", taken.load(Relaxed));
    assert_eq!((after.waiting, after.refused), (0, 0));
    assert!(after.deferred > 0 && after.applied > 0, "{after:?}");
    // Of what was granted unheard the sweeper has seen to it.
    eventually(SOON, async || net.near.list().await.unwrap().value.is_empty()).await;
    for fences in released {
        assert!(fences.is_sorted_by(|one, next| one < next), "no fence twice");
    }
}

/// The link was well all the time: the server could not save, and took no writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acquires_wait_their_turn_also_after_an_outage_of_writes_alone() {
    let server = RedisServer::start();
    let locks = connect(&server.url(), |_| {}).await;
    let leases = acquire_all(&locks, MOST).await;
    stop_saving(&server);
    for outcome in release_all(&locks, &leases).await {
        assert_deferred(outcome);
    }
    eventually(SOON, async || {
        let _ = locks.acquire(&tag(99_999), &worker()).await;
        locks.mode() == Mode::ReadOnlyServer
    })
    .await;
    // For long enough that what waits is tried seldom.
    sleep(4 * SECOND).await;
    let crew = strangers(&locks);
    server.cmd(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    let waited: Vec<_> = crew.join_all().await;
    assert!(waited.iter().all(|waiting| *waiting == 0), "who came in too early: {waited:?}");
    let expected = Counts { deferred: MOST as u64, applied: MOST as u64, ..Counts::default() };
    assert_eq!(counts(&locks), expected);
    assert_eq!(locks.stats().faults.circuits["link"].transitions_total["open"], 0);
}

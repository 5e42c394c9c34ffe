//! Connections that are killed, stay silent or lose their scripts, under load: never one too many, and no wrong answer.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use spool_lock::{AcquireError, Fence, Lease, LeaseEnd, ReleaseError, RequestId, SpoolLocks, Tag, Token};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    support::{
        FaultProxy, RedisServer, eventually,
        proxy::{LostReply, named},
    },
    workers::{
        Sampler, Tally, Trouble, assert_clean_round, at_rest, connect, holder, millis, open, pool, work_while,
    },
};

const MAX: u32 = 6;
const WORKERS: usize = 30;

/// Workers under load while `hurt` is called again and again for `time`.
async fn under_load(locks: &SpoolLocks, time: Duration, pause: Duration, mut hurt: impl FnMut()) -> Tally {
    let going = Arc::new(AtomicBool::new(true));
    let load = tokio::spawn({
        let (locks, going) = (locks.clone(), going.clone());
        async move { work_while(&locks, WORKERS, Duration::from_secs(60), going).await }
    });
    let start = Instant::now();
    while start.elapsed() < time {
        tokio::time::sleep(pause).await;
        hurt();
    }
    going.store(false, SeqCst);
    load.await.expect("workers do not panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eviction_under_load_never_exceeds_the_maximum() {
    let server = Arc::new(RedisServer::start());
    let locks = connect(&server.url(), |config| {
        config.pool.max_connections = MAX;
        config.pool.depth = 2;
        // The load goes on, however much of it fails; and what failed is for its worker to repeat.
        (config.retry.attempts, config.circuit.faults, config.deferred) = (1, 1000, 0);
    })
    .await;
    let sampler = Sampler::start(&server, Duration::ZERO);
    let mut killed = 0;
    let tally = under_load(&locks, Duration::from_secs(6), millis(40), || {
        killed += server.query::<u32>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    })
    .await;
    let peak = sampler.stop();
    println!("{killed} killed, at most {peak} at a time, {tally:?}");

    assert!(killed > 10 * MAX, "{killed} killed");
    assert!(peak <= MAX as usize, "{peak} connections");
    tally.assert_faults_only();
    // A command that was handed to a driver in the moment of its end was never told, and its caller waited for its deadline.
    let timeout = Trouble::Fault("timeout".to_owned());
    assert!(!tally.troubles.contains_key(&timeout), "a killed connection is told at once: {tally:?}");
    at_rest(&locks).await;
    assert_clean_round(&locks, WORKERS).await;
    assert!(open(&pool(&locks)) <= MAX);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_under_load_never_exceeds_the_maximum() {
    let server = Arc::new(RedisServer::start());
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| {
        config.pool.max_connections = MAX;
        config.pool.depth = 2;
        // The load goes on, however much of it fails; and what failed is for its worker to repeat.
        (config.retry.attempts, config.circuit.faults, config.deferred) = (1, 1000, 0);
        config.pool.response_timeout = millis(300);
    })
    .await;
    // The proxy hears that a connection was closed and passes it on.
    let sampler = Sampler::start(&server, millis(30));
    let mut turn = 0;
    let tally = under_load(&locks, Duration::from_secs(8), millis(450), || {
        turn += 1;
        match turn % 3 {
            1 => proxy.delay(millis(400)),
            2 => proxy.delay(Duration::ZERO),
            _ => proxy.drop_replies(MAX as usize, LostReply::Swallow, named("EVALSHA")),
        }
    })
    .await;
    let peak = sampler.stop();
    proxy.heal();
    let closed = pool(&locks).connections_closed_total["timeout"];
    println!("{closed} timed out, at most {peak} at a time, {tally:?}");

    assert!(closed > u64::from(2 * MAX), "{closed} connections timed out");
    assert!(peak <= MAX as usize, "{peak} connections");
    tally.assert_faults_only();
    let rest = at_rest(&locks).await;
    eventually(Duration::from_secs(5), async || server.clients().len() == open(&rest) as usize).await;
    assert_clean_round(&locks, WORKERS).await;
}

/// A waiter was handed the slot of a call that had timed out, on the very connection that had just been found silent.
#[tokio::test]
async fn nobody_is_put_on_a_lane_that_has_just_timed_out() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let locks = connect(&proxy.url(), |config| {
        config.pool.max_connections = 1;
        config.pool.depth = 1;
        config.pool.response_timeout = millis(300);
        config.retry.attempts = 1;
    })
    .await;
    proxy.drop_replies(1, LostReply::Swallow, named("EVALSHA"));
    let (tag, holder) = (Tag::new("TEST-02").expect("a tag"), holder(1));
    let waits = async {
        eventually(Duration::from_secs(1), async || pool(&locks).in_flight == 1).await;
        locks.inspect(&tag).await
    };
    let (lost, waited) = tokio::join!(locks.acquire(&tag, &holder), waits);
    assert!(matches!(lost, Err(AcquireError::Ambiguous { .. })), "{lost:?}");
    waited.expect("a new connection serves it");
}

/// What the test itself knows about a tag.
#[derive(Debug, Default)]
struct Register {
    holder: Option<usize>,
    last: Option<Fence>,
}

type Registers = Arc<BTreeMap<String, Mutex<Register>>>;

/// Takes a tag if it is free, and gives it back. Asks again, with the same token or request, until the answer is certain.
async fn turn(locks: &SpoolLocks, registers: &Registers, tag: &Tag, number: usize) -> Result<u64, Trouble> {
    let who = holder(number);
    let register = || registers[tag.as_str()].lock().expect("no panic while it is held");
    let mut faults = 0;
    let mut token: Option<Token> = None;
    let lease = loop {
        let call = locks.acquire(tag, &who);
        match match token {
            Some(token) => call.token(token),
            None => call,
        }
        .await
        {
            Ok(lease) => break lease,
            Err(AcquireError::Contended { .. }) => return Ok(faults),
            Err(AcquireError::Ambiguous { claim, fault }) => {
                token = Some(claim.into_token());
                faults += 1;
                fault_only(Trouble::of(fault.kind()))?;
            }
            Err(AcquireError::Fault(fault)) => {
                faults += 1;
                fault_only(Trouble::of(fault.kind()))?;
            }
            Err(error) => return Err(Trouble::Wrong(format!("{error:?}"))),
        }
    };
    {
        let mut register = register();
        if register.holder.is_some() || register.last.is_some_and(|last| lease.fence <= last) {
            return Err(Trouble::Wrong(format!("{} granted to {number}, but {register:?}", lease.fence)));
        }
        *register = Register { holder: Some(number), last: Some(lease.fence) };
    }
    tokio::task::yield_now().await;
    // From here on the next grant may come: the release may have been applied before we hear of it.
    register().holder = None;
    Ok(faults + give_back(locks, &lease).await?)
}

/// Releases a lease, and asks again with the same request until the answer is certain.
async fn give_back(locks: &SpoolLocks, lease: &Lease) -> Result<u64, Trouble> {
    let (request, mut faults, mut may_be_applied) = (RequestId::random(), 0, false);
    loop {
        let error = match locks.release_lease(lease).request(request).await {
            Ok(_) => return Ok(faults),
            Err(error) => error,
        };
        let shown = match &error {
            ReleaseError::NotHeld { last } => *last,
            ReleaseError::NotHolder(occupant) => Some(occupant.fence),
            ReleaseError::Ambiguous { fault, .. } | ReleaseError::Fault(fault) => {
                may_be_applied |= fault.kind().is_ambiguous();
                faults += 1;
                fault_only(Trouble::of(fault.kind()))?;
                continue;
            }
            _ => None,
        };
        if may_be_applied && is_forgotten(locks, lease, shown).await {
            return Ok(faults);
        }
        return Err(Trouble::Wrong(format!("{error:?} to {request} of {}", lease.fence)));
    }
}

/// Whether the release of a lease was applied, and the tag had been granted three times since when an answer showed this fence as
/// the newest: the third grant forgets the release. The history of the server knows, not we: who was granted the tag may not have
/// heard of it yet.
async fn is_forgotten(locks: &SpoolLocks, lease: &Lease, shown: Option<Fence>) -> bool {
    let past = loop {
        match locks.history(&lease.tag).await {
            Ok(reading) => break reading.value,
            Err(_killed) => {}
        }
    };
    let is_released = past.iter().any(|past| {
        past.occupant.fence == lease.fence && matches!(past.end, Some(LeaseEnd::Released { .. }))
    });
    let since = past.iter().map(|past| past.occupant.fence);
    is_released && since.filter(|fence| *fence > lease.fence && Some(*fence) <= shown).count() >= 3
}

fn fault_only(trouble: Trouble) -> Result<(), Trouble> {
    if matches!(trouble, Trouble::Fault(_)) { Ok(()) } else { Err(trouble) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_forgotten_and_connections_killed_do_no_harm() {
    let server = Arc::new(RedisServer::start());
    let locks = connect(&server.url(), |config| {
        config.pool.max_connections = MAX;
        config.pool.depth = 4;
        config.history.enabled = true;
        config.history.entries = 1000;
        // Each call is one try, however many of them fail.
        (config.retry.attempts, config.circuit.faults, config.deferred) = (1, 1000, 0);
    })
    .await;
    let tags: Vec<_> = (0..4).map(|number| Tag::new(format!("TEST-{number:02}")).expect("a tag")).collect();
    let registers: Registers =
        Arc::new(tags.iter().map(|tag| (tag.as_str().to_owned(), Mutex::default())).collect());
    let going = Arc::new(AtomicBool::new(true));
    let mut crew = JoinSet::new();
    for number in 0..WORKERS {
        let (locks, registers, tags, going) = (locks.clone(), registers.clone(), tags.clone(), going.clone());
        crew.spawn(async move {
            let (mut turns, mut faults) = (0_usize, 0);
            while going.load(SeqCst) {
                let tag = &tags[(number + turns) % tags.len()];
                faults += turn(&locks, &registers, tag, number).await?;
                turns += 1;
            }
            Ok::<_, Trouble>((turns, faults))
        });
    }
    let start = Instant::now();
    let mut turn = 0;
    while start.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(millis(5)).await;
        turn += 1;
        server.cmd(&["SCRIPT", "FLUSH"]);
        if turn % 10 == 0 {
            server.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        }
    }
    going.store(false, SeqCst);
    let (mut turns, mut faults) = (0, 0);
    while let Some(outcome) = crew.join_next().await {
        let (more_turns, more_faults) = outcome.expect("no worker panics").expect("no wrong answer");
        turns += more_turns;
        faults += more_faults;
    }
    let reloads = locks.stats().locks.script_reloads_total;
    println!("{turns} turns, {faults} faults, {reloads} scripts sent again");
    assert!(turns > 1000 && faults > 0 && reloads > 100);
    at_rest(&locks).await;
    let swept = locks.stats().locks.swept_total;
    assert_eq!(swept["released"], 0, "whoever asks again keeps what was granted: {swept:?}");
    assert_clean_round(&locks, WORKERS).await;
    assert_eq!(server.clients().len(), open(&pool(&locks)) as usize);
}

//! Logs of users: one that cannot keep a call, one that does not answer, and what a process finds that an earlier one has left.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use spool_lock::{
    ConnectError, DeferError, Deferred, DeferredLog, DeferredLogAnswer, Event, LostReason, NotDeferred,
    ReleaseError, ReleaseOutcome, Settlement, SpoolLocks,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    setup::*,
    support::{FaultProxy, RedisServer, eventually},
};

/// What a service has written down, whatever becomes of its processes.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Pages>);

#[derive(Default)]
struct Pages {
    kept: Mutex<Vec<Deferred>>,
    settled: Mutex<Vec<(Deferred, Settlement)>>,
    /// What it says where it cannot write.
    fails: Mutex<Option<&'static str>>,
    /// Those who write wait for this, where it is there.
    gate: Option<Semaphore>,
    forgets_nothing: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// Keeps nothing until it is told to.
    fn that_waits() -> Self {
        Self(Arc::new(Pages { gate: Some(Semaphore::new(0)), ..Pages::default() }))
    }

    /// In which an earlier process has left this.
    pub(crate) fn with(entry: Deferred) -> Self {
        let kept = Mutex::new(vec![entry]);
        Self(Arc::new(Pages { kept, ..Pages::default() }))
    }

    fn go_on(&self) {
        self.0.gate.as_ref().expect("it waits").add_permits(1000);
    }

    fn fail(&self, words: Option<&'static str>) {
        *lock(&self.0.fails) = words;
    }

    fn kept(&self) -> usize {
        lock(&self.0.kept).len()
    }

    fn settled(&self) -> Vec<Settlement> {
        lock(&self.0.settled).iter().map(|(_, settlement)| *settlement).collect()
    }

    fn check(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let fails = *lock(&self.0.fails);
        fails.map_or(Ok(()), |words| Err(words.into()))
    }
}

impl DeferredLog for Ledger {
    fn load(&self) -> DeferredLogAnswer<'_, Vec<Deferred>> {
        Box::pin(async {
            self.check()?;
            Ok(lock(&self.0.kept).clone())
        })
    }

    fn keep<'a>(&'a self, deferred: &'a Deferred) -> DeferredLogAnswer<'a, ()> {
        Box::pin(async {
            if let Some(gate) = &self.0.gate {
                gate.acquire().await?.forget();
            }
            self.check()?;
            lock(&self.0.kept).push(deferred.clone());
            Ok(())
        })
    }

    fn settle<'a>(&'a self, settled: &'a [(Deferred, Settlement)]) -> DeferredLogAnswer<'a, ()> {
        Box::pin(async {
            lock(&self.0.settled).extend_from_slice(settled);
            if self.0.forgets_nothing.load(Relaxed) {
                return Err("it is read-only".into());
            }
            lock(&self.0.kept).retain(|kept| settled.iter().all(|(settled, _)| settled != kept));
            Ok(())
        })
    }
}

/// As [`Net`], whose service has a ledger.
async fn open(ledger: &Ledger) -> Net {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let far = SpoolLocks::connect(config(&proxy.url())).deferred_log(ledger.clone()).await.expect("healthy");
    let near = connect(&server.url(), |_| {}).await;
    Net { server, proxy, far, near }
}

#[track_caller]
fn assert_not_deferred(outcome: Result<ReleaseOutcome, ReleaseError>) -> NotDeferred {
    match outcome {
        Err(ReleaseError::NotDeferred(not)) => not,
        other => panic!("it was to be refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_a_log_cannot_keep_is_told_to_the_caller_in_its_words() {
    let ledger = Ledger::default();
    let net = open(&ledger).await;
    let lease = net.acquired(1).await;
    net.cut().await;
    ledger.fail(Some("the disk is full"));
    let not = assert_not_deferred(net.far.release_lease(&lease).await);
    assert!(matches!(not.why, DeferError::Log(_)), "{not:?}");
    assert_eq!(
        not.to_string(),
        "redis could not be asked, and the call was not kept for later: the disk is full"
    );
    assert!(chain(&not).len() > not.to_string().len(), "why it could not be asked: {}", chain(&not));
    assert_eq!(counts(&net.far), Counts { refused: 1, ..Counts::default() });
    assert_eq!(net.mend().await, Counts { refused: 1, ..Counts::default() });
    assert_eq!(standing(&net.near, &tag(1)).await, Some(lease.fence), "its caller knows, and nobody else");

    // Whoever was told asks again, by the same name.
    let again = net.far.release_lease(&lease).request(not.request).await.unwrap();
    assert_eq!(again, ReleaseOutcome::Released);
    assert_eq!((ledger.kept(), ledger.settled()), (0, vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_does_not_answer_holds_up_its_caller_for_a_bounded_time_and_nobody_else() {
    let ledger = Ledger::that_waits();
    let net = open(&ledger).await;
    let (lease, other) = (net.acquired(1).await, net.acquired(2).await);
    net.cut().await;
    let began = Instant::now();
    let release = net.far.release_lease(&lease).deadline(millis(100)).into_future();
    let not = assert_not_deferred(timeout(SOON, release).await.expect("it is told"));
    let took = began.elapsed();
    println!("told after {took:?}: {not}");
    assert!(matches!(not.why, DeferError::Log(_)), "{not:?}");
    assert!(took >= SECOND && took < 4 * SECOND, "it has 1 s at least: {took:?}");

    net.proxy.heal();
    eventually(SOON, async || net.far.acquire(&tag(3), &worker()).await.is_ok()).await;
    net.far.release_lease(&other).await.unwrap();
    // What was told not to be kept is not applied, although the log keeps it in the end.
    ledger.go_on();
    eventually(SOON, async || ledger.settled() == [Settlement::Ended]).await;
    assert_eq!((standing(&net.near, &tag(1)).await, ledger.kept()), (Some(lease.fence), 0));
    let after = all_settled(&net.far).await;
    assert_eq!((after.deferred, after.applied, after.refused), (0, 0, 1), "{after:?}");
}

/// What is acknowledged is applied, and what is begun goes on to its end.
#[tokio::test]
async fn a_call_whose_caller_has_gone_while_the_log_keeps_it_is_applied() {
    let ledger = Ledger::that_waits();
    let net = open(&ledger).await;
    let lease = net.acquired(1).await;
    net.cut().await;
    let call = tokio::spawn({
        let (far, lease) = (net.far.clone(), lease.clone());
        async move { far.release_lease(&lease).await }
    });
    eventually(SOON, async || counts(&net.far).waiting == 1).await;
    call.abort();
    call.await.expect_err("its caller has gone");
    assert_eq!(ledger.kept(), 0);
    ledger.go_on();
    eventually(SOON, async || ledger.kept() == 1).await;
    assert_eq!(net.mend().await, Counts { deferred: 1, applied: 1, ..Counts::default() });
    assert_eq!(releases(&net.near, &tag(1)).await, [(lease.fence, true)]);
    eventually(SOON, async || ledger.kept() == 0).await;
    assert_eq!(ledger.settled(), [Settlement::Applied]);
}

#[tokio::test]
async fn what_an_earlier_process_has_left_is_applied_also_where_it_is_more_than_may_be_deferred() {
    let ledger = Ledger::default();
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let near = connect(&server.url(), |_| {}).await;
    let net = {
        let far =
            SpoolLocks::connect(config(&proxy.url())).deferred_log(ledger.clone()).await.expect("healthy");
        Net { server, proxy, far, near }
    };
    for number in 0..5 {
        net.acquired(number).await;
    }
    net.cut().await;
    for number in 0..5 {
        assert_deferred(net.far.release(&tag(number), &worker()).await);
    }
    let Net { server: _server, proxy, far, near } = net;
    drop(far);
    assert_eq!(ledger.kept(), 5);
    proxy.heal();
    for most in [0, 1] {
        let mut config = config(&proxy.url());
        config.deferred = most;
        let next = SpoolLocks::connect(config).deferred_log(ledger.clone()).await.unwrap();
        let after = all_settled(&next).await;
        println!("{most}: {after:?}");
        let expected = if most == 0 { Counts { applied: 5, ..Counts::default() } } else { Counts::default() };
        assert_eq!(after, expected, "{most}");
        eventually(SOON, async || ledger.kept() == 0).await;
    }
    assert!(near.list().await.unwrap().value.is_empty());
}

/// The settlement was lost: it is applied again, and a lease that was granted since stays.
#[tokio::test]
async fn a_log_that_forgets_nothing_has_it_applied_twice_without_effect() {
    let ledger = Ledger::default();
    ledger.0.forgets_nothing.store(true, Relaxed);
    let net = open(&ledger).await;
    let lease = net.acquired(1).await;
    net.cut().await;
    assert_deferred(net.far.release_lease(&lease).await);
    assert_eq!(net.mend().await, Counts { deferred: 1, applied: 1, ..Counts::default() });
    assert_eq!(ledger.kept(), 1);
    let newer = net.near.acquire(&tag(1), &worker()).await.unwrap();

    ledger.0.forgets_nothing.store(false, Relaxed);
    let next = SpoolLocks::connect(config(&net.server.url())).deferred_log(ledger.clone()).await.unwrap();
    assert_eq!(all_settled(&next).await, Counts { applied: 1, ..Counts::default() });
    eventually(SOON, async || ledger.kept() == 0).await;
    assert_eq!(standing(&net.near, &tag(1)).await, Some(newer.fence));
    assert_eq!(releases(&net.near, &tag(1)).await, [(lease.fence, true), (newer.fence, false)]);
}

/// Otherwise what is left there would never be applied, and nobody would know.
#[tokio::test]
async fn without_its_log_a_process_does_not_connect() {
    let (ledger, server) = (Ledger::default(), RedisServer::start());
    ledger.fail(Some("no such table"));
    match SpoolLocks::connect(config(&server.url())).deferred_log(ledger).await {
        Err(error @ ConnectError::DeferredLog(_)) => assert!(chain(&error).contains("no such table")),
        other => panic!("{other:?}"),
    }
}

/// A log that panics is one that has not kept the call.
#[tokio::test]
async fn a_log_that_panics_is_told_as_one_that_fails() {
    struct Panics;
    impl DeferredLog for Panics {
        fn load(&self) -> DeferredLogAnswer<'_, Vec<Deferred>> {
            Box::pin(async { Ok(vec![]) })
        }
        fn keep<'a>(&'a self, _: &'a Deferred) -> DeferredLogAnswer<'a, ()> {
            Box::pin(async { panic!("a mistake of the user") })
        }
        fn settle<'a>(&'a self, _: &'a [(Deferred, Settlement)]) -> DeferredLogAnswer<'a, ()> {
            Box::pin(async { Ok(()) })
        }
    }
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let far = SpoolLocks::connect(config(&proxy.url())).deferred_log(Panics).await.unwrap();
    let near = connect(&server.url(), |_| {}).await;
    let net = Net { server, proxy, far, near };
    let lease = net.acquired(1).await;
    net.cut().await;
    for refused in 1..=3 {
        assert_not_deferred(net.far.release_lease(&lease).await);
        assert_eq!(counts(&net.far), Counts { refused, ..Counts::default() });
    }
    net.mend().await;
    net.far.release_lease(&lease).await.unwrap();
}

/// A log that fails in the middle of its work, or never ends it.
#[derive(Clone, Copy, Debug)]
enum Ill {
    Panics,
    Hangs,
}

impl Ill {
    fn answer<'a, T: 'a>(self) -> DeferredLogAnswer<'a, T> {
        match self {
            Self::Panics => Box::pin(async { panic!("a mistake of the user") }),
            Self::Hangs => Box::pin(std::future::pending()),
        }
    }
}

#[tokio::test]
async fn a_connect_whose_log_panics_or_hangs_ends_within_its_deadline() {
    struct IllInLoad(Ill);
    impl DeferredLog for IllInLoad {
        fn load(&self) -> DeferredLogAnswer<'_, Vec<Deferred>> {
            self.0.answer()
        }
        fn keep<'a>(&'a self, _: &'a Deferred) -> DeferredLogAnswer<'a, ()> {
            Box::pin(async { Ok(()) })
        }
        fn settle<'a>(&'a self, _: &'a [(Deferred, Settlement)]) -> DeferredLogAnswer<'a, ()> {
            Box::pin(async { Ok(()) })
        }
    }
    let server = RedisServer::start();
    for ill in [Ill::Panics, Ill::Hangs] {
        let mut config = config(&server.url());
        config.deadline = SECOND;
        let connects = SpoolLocks::connect(config).deferred_log(IllInLoad(ill)).into_future();
        match timeout(SOON, connects).await.expect("it ends") {
            Err(error @ ConnectError::DeferredLog(_)) => println!("{ill:?}: {}", chain(&error)),
            other => panic!("{ill:?}: {other:?}"),
        }
    }
}

/// It is told again where it does not answer; who acquires and who watches is not kept waiting by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_forgets_nothing_in_time_keeps_nobody_waiting() {
    struct IllInSettle(Ill, Deferred);
    impl DeferredLog for IllInSettle {
        fn load(&self) -> DeferredLogAnswer<'_, Vec<Deferred>> {
            Box::pin(async { Ok(vec![self.1.clone()]) })
        }
        fn keep<'a>(&'a self, _: &'a Deferred) -> DeferredLogAnswer<'a, ()> {
            Box::pin(async { Ok(()) })
        }
        fn settle<'a>(&'a self, _: &'a [(Deferred, Settlement)]) -> DeferredLogAnswer<'a, ()> {
            self.0.answer()
        }
    }
    let server = RedisServer::start();
    for ill in [Ill::Panics, Ill::Hangs] {
        let left: Deferred = "1|AAAAAAAAA@5|identity|7|release|TEST-02|93|MR(93)".parse().expect("an entry");
        let locks =
            SpoolLocks::connect(config(&server.url())).deferred_log(IllInSettle(ill, left)).await.unwrap();
        for number in 1..=2 {
            let began = Instant::now();
            let lease = locks
                .acquire(&tag(number), &worker())
                .await
                .unwrap_or_else(|error| panic!("{ill:?}: {error:?}"));
            let _watch =
                locks.watch_tag(&tag(number)).await.unwrap_or_else(|error| panic!("{ill:?}: {error:?}"));
            println!("{ill:?}: let in after {:?}", began.elapsed());
            locks.release_lease(&lease).await.unwrap();
        }
        assert_eq!(counts(&locks), Counts { ended: 1, ..Counts::default() });
    }
}

/// Nobody sees to its end any more, so it is lost like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_release_was_not_kept_can_be_lost_and_its_holder_is_told() {
    let ledger = Ledger::default();
    let net = open(&ledger).await;
    let mut watch = net.far.watch().await.unwrap();
    let lease = net.acquired(1).await;
    net.cut().await;
    ledger.fail(Some("the disk is full"));
    assert_not_deferred(net.far.release_lease(&lease).await);
    net.mend().await;
    // Once it hears of others again it hears of this.
    net.near.acquire(&tag(2), &stranger()).await.unwrap();
    let mut heard = async |name: &str, number: usize| {
        let hears = async {
            loop {
                let event = watch.next().await.expect("the locks are there");
                if event.name() == name && event.tag() == Some(&tag(number)) {
                    return event;
                }
            }
        };
        timeout(SOON, hears).await.expect("it is told")
    };
    heard("taken", 2).await;
    net.near.force_release(&tag(1), "operator", "test").await.unwrap();
    let Event::Lost { occupant, reason, .. } = &*heard("lost", 1).await else { unreachable!("its name") };
    assert_eq!((occupant.fence, *reason), (lease.fence, LostReason::Forced));
    assert_eq!(net.far.stats().locks.lost_total["forced"], 1);
}

/// Every entry has the time of its call, and the name by which it is settled.
#[tokio::test]
async fn an_entry_says_what_was_asked_and_when() {
    let ledger = Ledger::default();
    let net = open(&ledger).await;
    let (lease, request) = {
        let lease = net.acquired(1).await;
        net.cut().await;
        (lease.clone(), assert_deferred(net.far.release_lease(&lease).await))
    };
    let entry = lock(&ledger.0.kept)[0].clone();
    assert_eq!((&entry.tag, &entry.holder, entry.kind), (&lease.tag, &lease.holder, lease.kind));
    assert_eq!((entry.fence, entry.request), (Some(lease.fence), request));
    assert!(entry.made_at() >= lease.since && entry.made_at() < lease.since + Duration::from_secs(30));
    net.mend().await;
    assert_eq!(ledger.settled(), [Settlement::Applied]);
}

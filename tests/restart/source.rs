//! What is put back: by whoever names it, as often as he likes, and never what was given back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use spool_lock::{
    AcquireError, Lease, LeaseSource, LeaseSourceAnswer, ReleaseError, RestoreError, RestoreOutcome,
    SpoolLocks, Tag, Ttl,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    scene::*,
    support::{
        FaultProxy, RedisServer, eventually,
        proxy::{Close, containing},
    },
};

/// How long acquires wait for a source at most.
const LONGEST: Duration = Duration::from_secs(10);

/// What a source does until it answers.
#[derive(Debug, Clone, Copy)]
enum First {
    Fails,
    Panics,
    Hangs,
}

/// A ledger that does not always answer.
struct Late {
    ledger: Ledger,
    first: First,
    answers: watch::Receiver<bool>,
    asked: Arc<AtomicUsize>,
}

impl Late {
    fn new(ledger: &Ledger, first: First, answers: &watch::Sender<bool>) -> Self {
        Self { ledger: ledger.clone(), first, answers: answers.subscribe(), asked: Arc::default() }
    }
}

impl LeaseSource for Late {
    fn leases(&self) -> LeaseSourceAnswer<'_> {
        Box::pin(async {
            self.asked.fetch_add(1, SeqCst);
            let mut answers = self.answers.clone();
            match self.first {
                First::Fails if !*answers.borrow() => return Err("the sheet cannot be read".into()),
                First::Panics if !*answers.borrow() => panic!("a mistake of the user"),
                First::Fails | First::Panics => {}
                First::Hangs => drop(answers.wait_for(|answers| *answers).await?),
            }
            Ok(self.ledger.entries().clone())
        })
    }
}

/// Three leases of an earlier process, which Redis has lost since.
async fn lost(server: &RedisServer) -> Ledger {
    let (locks, ledger) = (connect(&server.url()).await, Ledger::default());
    for number in 0..3 {
        let lease =
            locks.acquire(&numbered("LEASE", number), &owner()).note("ARM").await.expect("it is free");
        ledger.entries().push(lease);
    }
    drop(locks);
    server.cmd(&["FLUSHALL"]);
    ledger
}

fn tags(leases: &[Lease]) -> Vec<Tag> {
    leases.iter().map(|lease| lease.tag.clone()).collect()
}

async fn is_late(first: First) {
    let server = RedisServer::start();
    let ledger = lost(&server).await;
    let answers = watch::Sender::new(false);
    let source = Late::new(&ledger, first, &answers);
    let asked = source.asked.clone();
    let mut config = config(&server.url());
    config.deadline = 2 * LONGEST;
    let began = Instant::now();
    let locks = SpoolLocks::connect(config).lease_source(source).await.expect("healthy");
    let leases = ledger.entries().clone();
    locks.acquire(&leases[0].tag, &stranger()).await.expect("it is let in although the source is late");
    let let_in = began.elapsed();
    let in_vain = asked.load(SeqCst);
    answers.send_replace(true);
    let answered = Instant::now();
    eventually(SOON, async || standing(&server, &tags(&leases[1..])).len() == 2).await;
    println!(
        "{first:?}: an acquire was let in after {let_in:?}, {in_vain} times asked by then; the rest was back {:?} after \
         the source answered",
        answered.elapsed()
    );
    assert!(let_in < LONGEST + SECOND, "{let_in:?}");
    assert!((2..20).contains(&in_vain), "asked again, and with pauses: {in_vain}");
    for lease in &leases[1..] {
        let occupant = locks.inspect(&lease.tag).await.unwrap().value.expect("it is held");
        assert_eq!((occupant.fence, occupant.holder.id(), &*occupant.note), (lease.fence, "93", "ARM"));
        assert_eq!(occupant.since, lease.since);
    }
    let first = locks.inspect(&leases[0].tag).await.unwrap().value.expect("it is held");
    assert_eq!(first.holder, stranger(), "nothing is taken from whoever has it by now");
    let enough = asked.load(SeqCst);
    sleep(3 * SECOND).await;
    assert!(asked.load(SeqCst) <= enough + 1, "it is left alone once it has answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acquires_wait_ten_seconds_at_most_for_a_source_that_fails_and_it_is_asked_again() {
    is_late(First::Fails).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acquires_wait_ten_seconds_at_most_for_a_source_that_hangs_and_it_is_asked_again() {
    is_late(First::Hangs).await;
}

async fn answers_in_time(first: First) {
    let server = RedisServer::start();
    let ledger = lost(&server).await;
    let answers = watch::Sender::new(false);
    let source = Late::new(&ledger, first, &answers);
    let asked = source.asked.clone();
    let mut config = config(&server.url());
    config.deadline = 2 * LONGEST;
    let locks = SpoolLocks::connect(config).lease_source(source).await.expect("healthy");
    let (leases, stranger) = (ledger.entries().clone(), stranger());
    let (acquired, ()) = tokio::join!(locks.acquire(&leases[0].tag, &stranger).into_future(), async {
        eventually(SOON, async || asked.load(SeqCst) >= 2).await;
        answers.send_replace(true);
    });
    match acquired {
        Err(AcquireError::Contended { occupant, .. }) => assert_eq!(occupant.fence, leases[0].fence),
        other => panic!("{other:?}"),
    }
    assert_eq!(standing(&server, &tags(&leases)).len(), 3, "all are back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_panics_has_not_answered_and_is_asked_again() {
    answers_in_time(First::Panics).await;
}

/// Who watches had heard that they were gone, and the process took that for their end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_of_an_end_while_the_source_has_yet_to_answer() {
    let server = RedisServer::start();
    let (ledger, answers) = (Ledger::default(), watch::Sender::new(true));
    let source = Late::new(&ledger, First::Hangs, &answers);
    let locks = SpoolLocks::connect(config(&server.url())).lease_source(source).await.expect("healthy");
    let told = Told::to(&locks).await;
    for number in 0..3 {
        let lease = locks.acquire(&numbered("LEASE", number), &owner()).await.unwrap();
        ledger.entries().push(lease);
    }
    let mut of_tag = locks.watch_tag(&numbered("LEASE", 0)).await.unwrap();
    eventually(SOON, async || has_witness(&server)).await;
    answers.send_replace(false);
    server.shutdown();
    server.restart();
    told.first("data_lost").await;
    // Long enough for another subscription.
    sleep(3 * SECOND).await;
    answers.send_replace(true);
    let tags = tags(&ledger.entries());
    eventually(SOON, async || standing(&server, &tags).len() == 3).await;
    sleep(2 * SECOND).await;
    assert_eq!((told.lost(), told.count("released"), told.count("expired")), ([].into(), 0, 0));
    assert_eq!(locks.stats().locks.lost_total.values().sum::<u64>(), 0);
    let next = tokio::time::timeout(millis(100), of_tag.next()).await;
    assert!(next.is_err(), "{next:?}");
    locks.release(&tags[0], &owner()).await.unwrap();
    let next = tokio::time::timeout(SOON, of_tag.next()).await.unwrap().unwrap();
    assert_eq!(next.name(), "released", "it hears");
}

#[tokio::test]
async fn restore_says_of_each_lease_what_became_of_it_and_does_no_harm_twice() {
    let server = RedisServer::start();
    let ledger = lost(&server).await;
    let locks = connect(&server.url()).await;
    let mut leases = ledger.entries().clone();
    // One that stands, one that is somebody else's, one that was given back, and one that has run out.
    let stands = locks.acquire(&tag("STANDS"), &owner()).await.unwrap();
    let given_back = locks.acquire(&tag("GIVEN-BACK"), &owner()).await.unwrap();
    locks.release_lease(&given_back).await.unwrap();
    locks.acquire(&leases[2].tag, &stranger()).await.unwrap();
    let ran_out = locks.acquire(&tag("RAN-OUT"), &owner()).ttl(ttl(millis(50))).await.unwrap();
    server.cmd(&["DEL", "spool:{RAN-OUT}:lock", "spool:{RAN-OUT}:fence"]);
    sleep(millis(100)).await;
    leases.extend([stands.clone(), given_back.clone(), ran_out]);

    let outcomes = locks.restore(&leases).await.unwrap();
    for (lease, outcome) in leases[..2].iter().zip(&outcomes) {
        let RestoreOutcome::Restored(restored) = outcome else { panic!("{outcome:?}") };
        assert_eq!(
            (restored.fence, &restored.holder, restored.since),
            (lease.fence, &lease.holder, lease.since)
        );
        assert!(restored.expires_at <= lease.expires_at + millis(20), "{restored:?}");
    }
    assert!(matches!(&outcomes[2], RestoreOutcome::Occupied(other) if other.holder == stranger()));
    assert!(matches!(&outcomes[3], RestoreOutcome::Stood(lease) if lease.fence == stands.fence));
    assert!(matches!(&outcomes[4], RestoreOutcome::Ended { last: Some(last) } if *last == given_back.fence));
    assert!(matches!(&outcomes[5], RestoreOutcome::Ended { last: None }));

    let before = standing(&server, &tags(&leases));
    let again = locks.restore(&leases).await.unwrap();
    for (lease, outcome) in leases[..2].iter().zip(&again) {
        assert!(matches!(outcome, RestoreOutcome::Stood(stood) if stood.fence == lease.fence), "{outcome:?}");
    }
    assert_eq!(again[2..], outcomes[2..]);
    assert_eq!(standing(&server, &tags(&leases)), before);
    let counted = locks.stats().recovery.restored_total;
    assert_eq!((counted["restored"], counted["stood"], counted["refused"]), (2, 4, 6));
    // It is a lease like any other.
    let RestoreOutcome::Restored(lease) = &outcomes[0] else { panic!("{outcomes:?}") };
    locks.release_lease(lease).await.unwrap();
    let next = locks.acquire(&lease.tag, &stranger()).await.unwrap();
    assert!(next.fence > lease.fence);
}

#[tokio::test]
async fn while_redis_is_away_restore_says_so() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let ledger = lost(&server).await;
    let locks = connect(&proxy.url()).await;
    proxy.refuse();
    proxy.close_all(Close::Rst);
    let leases = ledger.entries().clone();
    let mut refused = Vec::new();
    for _ in 0..10 {
        match locks.restore(&leases).await {
            Err(RestoreError::Fault(fault)) => refused.push(fault.kind().as_str().to_owned()),
            Err(RestoreError::Unavailable { retry_after, .. }) => {
                assert!(retry_after > Duration::ZERO);
                refused.push("unavailable".to_owned());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refused.last().map(String::as_str), Some("unavailable"), "{refused:?}");
    assert_eq!(standing(&server, &tags(&leases)), [].into());
    proxy.heal();
    eventually(SOON, async || locks.restore(&leases).await).await;
    assert_eq!(standing(&server, &tags(&leases)).len(), 3);
}

/// The ledger is behind: it names a lease that was given back. Redis remembers its fence, so nothing of it was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_back_does_not_come_back_where_the_ledger_is_behind() {
    let server = RedisServer::start();
    let factory = Factory::open(&server, config(&server.url()), 0, Ttl::HALF_MINUTE, 3).await;
    let given_back = factory.ledger.entries()[0].clone();
    factory.locks.release_lease(&given_back).await.unwrap();
    // Another process of the same service starts.
    let other =
        SpoolLocks::connect(config(&server.url())).lease_source(factory.ledger.clone()).await.unwrap();
    other.acquire(&tag("OTHER-0000"), &owner()).await.unwrap();
    let counted = other.stats().recovery.restored_total;
    assert_eq!((counted["restored"], counted["stood"], counted["refused"]), (0, 2, 1));
    assert_eq!(standing(&server, std::slice::from_ref(&given_back.tag)), [].into());
}

/// It is asked again while acquires wait: nobody else comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acquires_wait_while_a_source_fails_until_what_it_names_is_back() {
    let server = RedisServer::start();
    let ledger = lost(&server).await;
    let answers = watch::Sender::new(false);
    let source = Late::new(&ledger, First::Fails, &answers);
    let asked = source.asked.clone();
    let locks = SpoolLocks::connect(config(&server.url())).lease_source(source).await.expect("healthy");
    let lease = ledger.entries()[0].clone();
    let comes_next = tokio::spawn({
        let (locks, tag) = (locks.clone(), lease.tag.clone());
        async move { locks.acquire(&tag, &stranger()).await }
    });
    eventually(SOON, async || asked.load(SeqCst) >= 3).await;
    assert!(!comes_next.is_finished());
    answers.send_replace(true);
    match comes_next.await.expect("no panic") {
        Err(AcquireError::Contended { occupant, .. }) => assert_eq!(occupant.fence, lease.fence),
        other => panic!("{other:?}"),
    }
    assert_eq!(standing(&server, &tags(&ledger.entries())).len(), 3);
}

/// What is released while it is put back finds nothing there: so whoever names it is asked once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_source_does_not_name_any_more_is_released_again() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let factory = Factory::open(&server, config(&proxy.url()), 0, Ttl::HALF_MINUTE, 3).await;
    let lease = factory.ledger.entries()[0].clone();
    // Only what puts it back says what is written beside it.
    let held = proxy.hold_requests({
        let tag = lease.tag.to_string();
        move |request| request.contains(&tag) && request.contains("|ARM")
    });
    server.cmd(&["FLUSHALL"]);
    held.caught(1).await;
    let beside = connect(&server.url()).await;
    match beside.release_lease(&lease).await {
        Err(ReleaseError::NotHeld { last: None }) => {}
        other => panic!("{other:?}"),
    }
    factory.ledger.strike(&lease.tag);
    held.release();
    eventually(SOON, async || factory.restored() == 3).await;
    eventually(SOON, async || standing(&server, &factory.tags()).len() == 2).await;
    sleep(SECOND).await;
    assert_eq!(standing(&server, std::slice::from_ref(&lease.tag)), [].into());
    assert!(beside.acquire(&lease.tag, &stranger()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_that_is_given_back_while_it_is_put_back_does_not_come_back() {
    let server = RedisServer::start();
    let proxy = FaultProxy::before(&server);
    let mut config = config(&proxy.url());
    (config.deadline, config.pool.response_timeout) = (SOON, SOON);
    let locks = SpoolLocks::connect(config).await.expect("healthy");
    let guard = locks.guard(&tag("GUARD-0000"), &owner()).note("PUT-BACK").await.unwrap();
    let tag = guard.tag().clone();
    eventually(SOON, async || has_witness(&server)).await;
    let held = proxy.hold_requests(containing("|PUT-BACK"));
    server.cmd(&["FLUSHALL"]);
    held.caught(1).await;
    // After a second its connection takes no other call, so that the release comes first.
    sleep(SECOND + millis(200)).await;
    drop(guard);
    eventually(SOON, async || locks.stats().locks.operations["release"].total == 1).await;
    held.release();
    // What its release left, and what was put back after it.
    eventually(SOON, async || locks.stats().locks.swept_total.values().sum::<u64>() == 2).await;
    eventually(SOON, async || standing(&server, std::slice::from_ref(&tag)).is_empty()).await;
    sleep(SECOND).await;
    assert_eq!(standing(&server, std::slice::from_ref(&tag)), [].into());
    match locks.acquire(&tag, &stranger()).await {
        Ok(_) | Err(AcquireError::Unavailable { .. }) => {}
        other => panic!("{other:?}"),
    }
}

/// A ledger from which the lease is struck while Redis has it no more, and which cannot be read when it is asked the second time after.
struct Struck {
    ledger: Ledger,
    /// How often it was asked since there was something in it.
    asked: Arc<AtomicUsize>,
}

impl LeaseSource for Struck {
    fn leases(&self) -> LeaseSourceAnswer<'_> {
        Box::pin(async {
            let named = self.ledger.entries().clone();
            if named.is_empty() && self.asked.load(SeqCst) == 0 {
                return Ok(named);
            }
            if self.asked.fetch_add(1, SeqCst) == 1 {
                self.ledger.entries().clear();
                return Err("the sheet cannot be read".into());
            }
            Ok(named)
        })
    }
}

/// It was given back while it was put back, and that is heard later only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_later_answer_does_not_name_is_released_although_the_second_one_failed() {
    let server = RedisServer::start();
    let (ledger, asked) = (Ledger::default(), Arc::new(AtomicUsize::new(0)));
    let source = Struck { ledger: ledger.clone(), asked: asked.clone() };
    let locks = SpoolLocks::connect(config(&server.url())).lease_source(source).await.expect("healthy");
    let lease = locks.acquire(&tag("LEASE-0000"), &owner()).await.unwrap();
    eventually(SOON, async || has_witness(&server)).await;
    ledger.entries().push(lease.clone());
    server.cmd(&["FLUSHALL"]);
    eventually(SOON, async || asked.load(SeqCst) >= 3).await;
    assert_eq!(locks.stats().recovery.restored_total["restored"], 1, "the first answer named it");
    eventually(SOON, async || standing(&server, std::slice::from_ref(&lease.tag)).is_empty()).await;
    locks.acquire(&lease.tag, &stranger()).await.expect("it is free");
}

/// A ledger keeps times in its own way; and the server's clock may be behind the one by which 30 days were counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_put_back_whose_end_is_no_whole_millisecond_or_a_little_more_than_30_days_ahead() {
    let server = RedisServer::start();
    let locks = connect(&server.url()).await;
    let mut odd = locks.acquire(&tag("ODD"), &owner()).await.unwrap();
    odd.expires_at += Duration::from_micros(300);
    let mut ahead = locks.acquire(&tag("AHEAD"), &owner()).ttl(Ttl::MAX).await.unwrap();
    ahead.expires_at += millis(500);
    let (leases, ledger) = ([odd, ahead], Ledger::default());
    for by_hand in [true, false] {
        server.cmd(&["FLUSHALL"]);
        if by_hand {
            let outcomes = locks.restore(&leases).await.unwrap();
            let is_restored = |outcome: &RestoreOutcome| matches!(outcome, RestoreOutcome::Restored(_));
            assert!(outcomes.iter().all(is_restored), "{outcomes:?}");
        } else {
            ledger.entries().extend(leases.clone());
            let next = SpoolLocks::connect(config(&server.url())).lease_source(ledger.clone()).await.unwrap();
            next.acquire(&tag("OTHER-0000"), &owner()).await.unwrap();
        }
        let fences = standing(&server, &tags(&leases));
        for lease in &leases {
            assert_eq!(fences.get(&lease.tag), Some(&lease.fence), "by hand {by_hand}");
            let occupant = locks.inspect(&lease.tag).await.unwrap().value.expect("it is held");
            let early = lease.expires_at.duration_since(occupant.expires_at).unwrap_or_default();
            assert!(occupant.expires_at <= lease.expires_at + millis(20) && early < SECOND, "{occupant:?}");
        }
    }
}

/// Whose lease it is matters more than what was written beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_with_a_note_that_may_not_be_is_put_back_without_it() {
    let server = RedisServer::start();
    let ledger = lost(&server).await;
    let longest = "x".repeat(200);
    let notes = [
        ("ARM\nLEG".to_owned(), ""),
        ("\u{7f}".to_owned(), ""),
        ("x".repeat(201), ""),
        (longest.clone(), &longest),
    ];
    let mut leases = ledger.entries().clone();
    let mut fourth = leases[0].clone();
    fourth.tag = numbered("LEASE", 3);
    leases.push(fourth);
    for (lease, (note, _)) in leases.iter_mut().zip(&notes) {
        lease.note.clone_from(note);
    }
    *ledger.entries() = leases.clone();
    let locks = SpoolLocks::connect(config(&server.url())).lease_source(ledger.clone()).await.unwrap();
    locks.acquire(&tag("OTHER-0000"), &owner()).await.unwrap();
    for (lease, (_, right)) in leases.iter().zip(&notes) {
        let occupant = locks.inspect(&lease.tag).await.unwrap().value.expect("it is held");
        assert_eq!((occupant.fence, &occupant.holder), (lease.fence, &lease.holder));
        assert_eq!((occupant.since, &*occupant.note), (lease.since, *right));
    }
    let again = locks.restore(&leases).await.unwrap();
    assert!(again.iter().all(|outcome| matches!(outcome, RestoreOutcome::Stood(_))), "{again:?}");
}

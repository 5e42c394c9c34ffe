//! Releases and extends of which nobody hears whether they were applied, 200 of each kind, and their repeats: each is applied to
//! the lease that it meant or to none.
//!
//! What lies on the server is compared to the byte, its token and its end included: what was not to be touched was not.

use std::{fmt::Debug, time::Duration};

use spool_lock::{
    ExtendError, Fault, FaultKind, Fence, Holder, Lease, LeaseEnd, ReleaseError, ReleaseOutcome, RequestId,
    Ttl,
};
use tokio::time::timeout;

use super::{
    CALLS, DEADLINE, Net, SWEPT, eventually,
    support::proxy::{LostReply, containing},
    tag, worker,
};

const LOST: [LostReply; 2] = [LostReply::Swallow, LostReply::DropThenClose];
/// Beside which the time that a test takes is nothing.
const MINUTE: Duration = Duration::from_secs(60);
/// What an extend asks for.
const EXTENDED: Duration = Duration::from_secs(2 * 3600);

/// Marks all requests of a test; no tag but those of [`tag`] has it.
const MARK: &str = "TEST-";

impl Net {
    /// A net on which each of [`CALLS`] calls, made at once, loses its own reply.
    async fn losing_replies(how: LostReply) -> Self {
        Self::remembering(match how {
            // The server is sent what comes after, too.
            LostReply::Swallow => 32,
            // What follows on a connection that is cut would never arrive.
            LostReply::DropThenClose => 1,
        })
        .await
    }

    async fn remembering(depth: u32) -> Self {
        Self::tuned(|config| {
            config.history.enabled = true;
            config.pool.depth = depth;
            // What ends a call is its own deadline, or its caller.
            config.pool.response_timeout = Duration::from_secs(30);
        })
        .await
    }

    /// Each tag is acquired by the line that is to misbehave.
    async fn acquired(&self, ttl: impl Fn(usize) -> Duration) -> Vec<Lease> {
        each(|number| {
            let (far, ttl) = (self.far.clone(), Ttl::new(ttl(number)).expect("a ttl"));
            async move { far.acquire(&tag(number), &worker()).ttl(ttl).await.expect("it is free") }
        })
        .await
    }

    /// Makes all calls, each of which loses its reply; the line is good again afterwards.
    async fn lose_replies<T, F>(&self, how: LostReply, call: impl Fn(usize) -> F) -> Vec<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.proxy.drop_replies(CALLS, how, containing(MARK));
        let answers = each(call).await;
        if how == LostReply::DropThenClose {
            assert_eq!(self.proxy.replies_dropped(), CALLS as u64);
        }
        self.proxy.heal();
        answers
    }

    /// By the good line: leases end, and locks are granted anew, as `next` says. Answers what stands then.
    async fn meanwhile(&self, leases: &[Lease], next: impl Fn(usize) -> Next) -> Vec<Option<Lease>> {
        each(|number| {
            let (near, old, next) = (self.near.clone(), leases[number].clone(), next(number));
            async move {
                if next == Next::Stays {
                    return Some(old);
                }
                match near.release_lease(&old).await {
                    Ok(ReleaseOutcome::Released) | Err(ReleaseError::NotHeld { .. }) => {}
                    other => panic!("{}: {other:?}", old.tag),
                }
                let holder = match next {
                    Next::Stranger => stranger(),
                    Next::SameAnew => worker(),
                    _ => return None,
                };
                let ttl = Ttl::new(MINUTE).expect("a ttl");
                let lease = near.acquire(&old.tag, &holder).ttl(ttl).await.expect("it is free");
                assert!(lease.fence > old.fence);
                Some(lease)
            }
        })
        .await
    }

    /// The locks as they lie on the server, and when they end in ms.
    fn locks(&self) -> Vec<Option<(String, i64)>> {
        let lock = |number| {
            let key = format!("spool:{{{}}}:lock", tag(number));
            let value: Option<String> = self.server.query(&["GET", &key]);
            value.map(|value| (value, self.server.query(&["PEXPIRETIME", &key])))
        };
        (0..CALLS).map(lock).collect()
    }

    /// The counter of a tag shows the fence of its last grant.
    fn assert_counters(&self, leases: &[Lease]) {
        for lease in leases {
            let kept: String = self.server.query(&["GET", &format!("spool:{{{}}}:fence", lease.tag)]);
            assert_eq!(kept.get(..16), Some(&*format!("{:016}", lease.fence.get())), "{}", lease.tag);
        }
    }

    /// The leases that are to stand are known as they were granted; given back, they leave nothing behind, and there was no grant
    /// of which nobody was told.
    async fn ends_well(&self, first: &[Lease], standing: Vec<Option<Lease>>) {
        let mut last: Vec<Lease> = first.to_vec();
        for (number, lease) in standing.iter().enumerate() {
            let occupant = self.far.inspect(&tag(number)).await.expect("healthy").value;
            let seen = occupant.map(|it| (it.fence, it.holder));
            assert_eq!(seen, lease.clone().map(|it| (it.fence, it.holder)), "{number}");
            if let Some(lease) = lease {
                last[number] = lease.clone();
                self.near.release_lease(lease).await.expect("it is held");
            }
        }
        assert_eq!(self.server.query::<Vec<String>>(&["KEYS", "spool:*:lock"]), <[String; 0]>::default());
        self.assert_counters(&last);
        for (old, last) in first.iter().zip(&last) {
            let mut told: Vec<Fence> = vec![old.fence, last.fence];
            told.dedup();
            let past = self.near.history(&old.tag).await.expect("healthy").value;
            assert!(past.iter().all(|it| matches!(it.end, Some(LeaseEnd::Released { .. }))), "{past:?}");
            let granted: Vec<_> = past.into_iter().map(|it| it.occupant.fence).collect();
            assert_eq!(granted, told, "{}: one fence each grant", old.tag);
        }
        self.connections_are_as_before().await;
    }
}

/// What happens at a tag between a call and its repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Stays,
    /// The lease ends.
    Nobody,
    /// The lease ends, and somebody else is granted the lock.
    Stranger,
    /// The lease ends, and its holder is granted the lock anew.
    SameAnew,
}

/// Makes a call for each number, all at once; the answers come in the order of the numbers.
async fn each<T, F>(call: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let calls: Vec<_> = (0..CALLS).map(|number| tokio::spawn(call(number))).collect();
    let mut answers = Vec::with_capacity(CALLS);
    for call in calls {
        answers.push(call.await.expect("it ran to its end"));
    }
    answers
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).expect("a few hours")
}

fn stranger() -> Holder {
    Holder::new("7", "AB(7)").expect("a holder")
}

#[track_caller]
fn assert_lost(fault: &Fault) {
    assert!(matches!(fault.kind(), FaultKind::Timeout | FaultKind::Disconnected), "{fault:?}");
}

#[track_caller]
fn assert_extend_lost<T: Debug>(outcome: Result<T, ExtendError>) {
    match outcome {
        Err(ExtendError::Fault(fault)) => assert_lost(&fault),
        other => panic!("no answer was to come: {other:?}"),
    }
}

#[track_caller]
fn assert_release_lost(outcome: Result<ReleaseOutcome, ReleaseError>) -> RequestId {
    match outcome {
        Err(ReleaseError::Ambiguous { request, fault }) => {
            assert_lost(&fault);
            request
        }
        other => panic!("no answer was to come: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_whose_reply_was_lost_are_told_released_and_end_nothing_newer() {
    for how in LOST {
        let net = Net::losing_replies(how).await;
        let leases = net.acquired(|_| MINUTE).await;
        let release = |number: usize| {
            let (far, lease) = (net.far.clone(), leases[number].clone());
            async move {
                let exact = far.release_lease(&lease);
                let release =
                    if number.is_multiple_of(2) { exact } else { far.release(&lease.tag, &lease.holder) };
                assert_release_lost(release.deadline(Duration::from_secs(1)).await)
            }
        };
        let requests = net.lose_replies(how, release).await;
        assert_eq!(net.locks(), vec![None; CALLS], "each was applied");
        net.assert_counters(&leases);

        let next = |number| [Next::Nobody, Next::Stranger, Next::SameAnew][number % 3];
        let standing = net.meanwhile(&leases, next).await;
        let before = net.locks();
        assert_eq!(before.iter().flatten().count(), CALLS - CALLS.div_ceil(3));
        for again in ["at once", "once more", "from elsewhere, as it was written down"] {
            each(|number| {
                let (far, near) = (net.far.clone(), net.near.clone());
                let (lease, mut request) = (leases[number].clone(), requests[number]);
                async move {
                    let mut locks = far;
                    if again.starts_with("from elsewhere") {
                        (locks, request) = (near, request.to_string().parse().expect("a request id"));
                    }
                    let exact = locks.release_lease(&lease);
                    let release = if number.is_multiple_of(2) {
                        exact
                    } else {
                        locks.release(&lease.tag, &lease.holder)
                    };
                    release.request(request).await.unwrap_or_else(|error| panic!("{again}: {error:?}"));
                }
            })
            .await;
            assert_eq!(net.locks(), before, "{again}");
        }
        net.ends_well(&leases, standing).await;
        let lost = net.far.stats().locks.lost_total;
        assert!(lost.values().all(|count| *count == 0), "what was given back is not lost: {lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extends_whose_reply_was_lost_prolong_one_lease_each_and_make_none() {
    /// What is the case when an extend is called, and what happens before its repeat.
    const CASES: [(&str, Next); 6] = [
        ("held", Next::Stays),
        ("held for longer", Next::Stays),
        ("ended", Next::Nobody),
        ("held", Next::Nobody),
        ("held", Next::Stranger),
        ("held", Next::SameAnew),
    ];
    let case = |number: usize| CASES[number % CASES.len()];
    for how in LOST {
        let net = Net::losing_replies(how).await;
        let ttl = |number| if case(number).0 == "held for longer" { EXTENDED + MINUTE } else { MINUTE };
        let leases = net.acquired(ttl).await;
        let ended = |number| if case(number).0 == "ended" { Next::Nobody } else { Next::Stays };
        net.meanwhile(&leases, ended).await;
        let granted = net.locks();

        let extend = |number: usize| {
            let (far, lease) = (net.far.clone(), leases[number].clone());
            let is_exact = case(number).1 == Next::SameAnew || number < CALLS / 2;
            async move {
                let ttl = Ttl::new(EXTENDED).expect("a ttl");
                // Without its fence the repeat of an extend means what stands then.
                let extend = far.extend(&lease.tag, &lease.holder, ttl).deadline(Duration::from_secs(1));
                if is_exact { extend.fence(lease.fence) } else { extend }.await
            }
        };
        net.lose_replies(how, extend).await.into_iter().for_each(assert_extend_lost);
        let extended = net.locks();
        for number in 0..CALLS {
            match (case(number).0, &granted[number], &extended[number]) {
                ("ended", None, None) => {}
                ("held", Some((_, before)), Some((_, ends))) => {
                    let most = before + millis(EXTENDED);
                    assert!(
                        (most - millis(MINUTE)..=most).contains(ends),
                        "{number}: {before} became {ends}"
                    );
                }
                ("held for longer", Some((_, before)), Some((_, ends))) => {
                    assert_eq!(ends, before, "{number}")
                }
                other => panic!("{number}: {other:?}"),
            }
        }
        net.assert_counters(&leases);

        let standing = net.meanwhile(&leases, |number| case(number).1).await;
        let before = net.locks();
        for (number, again) in each(extend).await.into_iter().enumerate() {
            match (case(number).1, again, &standing[number]) {
                (Next::Stays, Ok(lease), _) => {
                    assert_eq!(lease.fence, leases[number].fence);
                    let lasts =
                        lease.expires_at.duration_since(lease.since).expect("it ends after its grant");
                    assert!((EXTENDED..EXTENDED + 2 * MINUTE).contains(&lasts), "{lasts:?}");
                }
                (Next::Nobody, Err(ExtendError::NotHeld { last }), None) => {
                    assert_eq!(last, Some(leases[number].fence));
                }
                (Next::Stranger | Next::SameAnew, Err(ExtendError::NotHolder(seen)), Some(lease)) => {
                    assert_eq!((seen.fence, &seen.holder), (lease.fence, &lease.holder));
                }
                other => panic!("{number}: {other:?}"),
            }
        }
        for (number, (before, after)) in before.into_iter().zip(net.locks()).enumerate() {
            match (case(number), before, after) {
                (("held", Next::Stays), Some((lock, ends)), Some((now, ends_now))) => {
                    assert_eq!(now, lock);
                    assert!(ends_now >= ends, "{number}");
                }
                (_, before, after) => assert_eq!(after, before, "{number}"),
            }
        }
        net.ends_well(&leases, standing).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_and_extends_whose_request_was_lost_change_nothing_before_their_repeat() {
    let net = Net::remembering(32).await;
    let leases = net.acquired(|_| MINUTE).await;
    let granted = net.locks();
    let held = net.proxy.hold_requests(containing(MARK));
    let extend = |number: usize| {
        let (far, Lease { tag, holder, fence, .. }) = (net.far.clone(), leases[number].clone());
        async move { far.extend(&tag, &holder, Ttl::HOUR).fence(fence).deadline(DEADLINE).await }
    };
    each(extend).await.into_iter().for_each(assert_extend_lost);
    let requests = each(|number| {
        let (far, lease) = (net.far.clone(), leases[number].clone());
        async move { assert_release_lost(far.release(&lease.tag, &lease.holder).deadline(DEADLINE).await) }
    })
    .await;
    drop(held);
    assert_eq!(net.locks(), granted);

    let next = |number| [Next::Stays, Next::Stranger, Next::SameAnew][number % 3];
    let standing = net.meanwhile(&leases, next).await;
    let before = net.locks();
    for (number, again) in each(extend).await.into_iter().enumerate() {
        match (next(number), again) {
            (Next::Stays, Ok(lease)) => assert_eq!(lease.fence, leases[number].fence),
            (Next::Stranger | Next::SameAnew, Err(ExtendError::NotHolder(_))) => {}
            other => panic!("{number}: {other:?}"),
        }
    }
    let released = each(|number| {
        let (far, lease, request) = (net.far.clone(), leases[number].clone(), requests[number]);
        async move { far.release(&lease.tag, &lease.holder).request(request).await }
    })
    .await;
    for (number, again) in released.into_iter().enumerate() {
        match (next(number), again) {
            (Next::Stays, Ok(ReleaseOutcome::Released)) => {}
            (Next::Stranger | Next::SameAnew, Err(ReleaseError::NotHolder(_))) => {}
            other => panic!("{number}: {other:?}"),
        }
    }
    let after = net.locks();
    for (number, before) in before.into_iter().enumerate() {
        let expected = if next(number) == Next::Stays { None } else { before };
        assert_eq!(after[number], expected, "{number}");
    }
    let left = |(number, lease)| if next(number) == Next::Stays { None } else { lease };
    net.ends_well(&leases, standing.into_iter().enumerate().map(left).collect()).await;
}

/// Half of them come too late by their own deadline, half in time for a caller who has gone. None was made of a lease that was
/// granted since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_and_extends_that_arrive_late_spare_the_newer_lease() {
    // By one connection, which is open: what is held is twice as many calls and no handshake.
    let net = Net::remembering(1024).await;
    let leases = net.acquired(|_| MINUTE).await;
    let held = net.proxy.hold_requests(containing(MARK));
    each(|number| {
        let (far, Lease { tag, holder, fence, .. }) = (net.far.clone(), leases[number].clone());
        let deadline = if number % 4 < 2 { DEADLINE } else { SWEPT };
        async move {
            let (extend, release) =
                (far.extend(&tag, &holder, Ttl::MIN).shorten(), far.release(&tag, &holder));
            let (extend, release) = (extend.deadline(deadline), release.deadline(deadline));
            let calls = async {
                if number % 8 < 4 {
                    tokio::join!(extend.into_future(), release.into_future())
                } else {
                    tokio::join!(extend.fence(fence).into_future(), release.fence(fence).into_future())
                }
            };
            match timeout(DEADLINE * 2, calls).await {
                Ok((extended, released)) => {
                    assert_extend_lost(extended);
                    assert_release_lost(released);
                }
                Err(_gone) => assert_eq!(deadline, SWEPT),
            }
        }
    })
    .await;
    held.caught(2 * CALLS).await;
    let next = |number| [Next::Stranger, Next::SameAnew, Next::SameAnew][number % 3];
    let standing = net.meanwhile(&leases, next).await;
    let before = net.locks();

    let now = || net.server.query::<(u64, u64)>(&["TIME"]).0;
    let given_up = now();
    eventually(SWEPT, async || now() > given_up + 2).await;
    let run = net.server.calls("evalsha");
    held.release();
    eventually(SWEPT, async || net.server.calls("evalsha") >= run + 2 * CALLS as u64).await;
    assert_eq!(net.locks(), before);
    net.proxy.heal();
    net.ends_well(&leases, standing).await;
}

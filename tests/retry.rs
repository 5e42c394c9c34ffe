//! A call whose reply is lost is sent again by itself: it is answered as if nothing had been, takes no longer than its deadline, and
//! leaves nothing behind.

mod support;

use std::time::Duration;

use spool_lock::{
    AcquireError, Config, FaultKind, GuardState, Holder, Jitter, OperationStats, Schedule, Source,
    SpoolLocks, Tag, Ttl,
};
use support::{
    FaultProxy, RedisServer, eventually,
    proxy::{LostReply, containing, named},
};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(10);

struct Net {
    server: RedisServer,
    proxy: FaultProxy,
    config: Config,
    /// By way of the proxy.
    far: SpoolLocks,
    near: SpoolLocks,
    tag: Tag,
    worker: Holder,
}

impl Net {
    async fn new() -> Self {
        Self::tuned(|_| {}).await
    }

    async fn tuned(tune: impl FnOnce(&mut Config)) -> Self {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        let mut config = Config::new(&proxy.url()).expect("an address");
        config.deadline = Duration::from_secs(2);
        tune(&mut config);
        let far = SpoolLocks::connect(config.clone()).await.expect("healthy");
        let near =
            SpoolLocks::connect(Config::new(&server.url()).expect("an address")).await.expect("healthy");
        let (tag, worker) =
            (Tag::new("TEST-02").expect("a tag"), Holder::new("93", "MR(93)").expect("a holder"));
        // From here on the server knows the scripts.
        let lease = near.acquire(&tag, &worker).await.expect("it is free");
        near.extend(&tag, &worker, Ttl::HOUR).await.expect("it is held");
        near.release_lease(&lease).await.expect("it is held");
        Self { server, proxy, config, far, near, tag, worker }
    }

    /// Another one by way of the proxy.
    async fn another(&self) -> SpoolLocks {
        SpoolLocks::connect(self.config.clone()).await.expect("healthy")
    }

    fn operation(&self, name: &str) -> OperationStats {
        self.far.stats().locks.operations[name].clone()
    }

    async fn is_free(&self) -> bool {
        self.near.inspect(&self.tag).await.expect("healthy").value.is_none()
    }
}

/// The reply to the next script by way of the proxy is lost.
fn lose_one(net: &Net, lost: LostReply) {
    net.proxy.drop_replies(1, lost, named("EVALSHA"));
}

/// The operation was sent twice, and has not failed.
fn assert_repeated(net: &Net, name: &str, lost: LostReply) {
    let OperationStats { total, retries_total, retries_exhausted_total, failures_total, .. } =
        net.operation(name);
    let failed: u64 = failures_total.values().sum();
    assert_eq!((total, retries_total, retries_exhausted_total, failed), (1, 1, 0, 0), "{name}, {lost:?}");
}

#[tokio::test]
async fn a_call_whose_reply_is_lost_is_answered_by_its_repeat() {
    for lost in [LostReply::DropThenClose, LostReply::Swallow] {
        let net = Net::new().await;
        lose_one(&net, lost);
        let lease = net.far.acquire(&net.tag, &net.worker).await.expect("granted at first, adopted then");
        assert_repeated(&net, "acquire", lost);

        // What asks in the background after a lost acquire would lose replies in place of these.
        let net = Net { far: net.another().await, ..net };
        lose_one(&net, lost);
        let extended = net.far.extend(&net.tag, &net.worker, Ttl::HOUR).await.expect("it is held");
        assert_eq!(extended.fence, lease.fence);
        assert_repeated(&net, "extend", lost);
        lose_one(&net, lost);
        let seen = net.far.inspect(&net.tag).await.expect("asked again");
        assert_eq!((seen.source, seen.value.map(|it| it.fence)), (Source::Live, Some(lease.fence)));
        assert_repeated(&net, "read", lost);
        lose_one(&net, lost);
        net.far.release_lease(&lease).await.expect("released at first, and its repeat is told so");
        assert_repeated(&net, "release", lost);
        assert!(net.is_free().await);
    }
}

/// The first try is held on its way, and is delivered after its repeat was granted and given back.
#[tokio::test]
async fn a_try_that_comes_late_leaves_no_lock() {
    let net = Net::new().await;
    let held = net.proxy.hold_requests(containing("take"));
    let acquire = async {
        let lease =
            net.far.acquire(&net.tag, &net.worker).note("take").deadline(Duration::from_secs(8)).await;
        let lease = lease.expect("granted to its repeat");
        net.far.release_lease(&lease).await.expect("it is held");
        lease
    };
    let deliver = async {
        held.caught(1).await;
        // What is sent again is let through: it goes by another connection.
        eventually(SOON, async || held.count() >= 2).await;
        held.release();
    };
    let (lease, ()) = tokio::join!(acquire, deliver);
    // It is looked for until it cannot come any more, and nothing stands then.
    eventually(Duration::from_secs(12), async || {
        net.far.stats().locks.swept_total.values().sum::<u64>() == 1
    })
    .await;
    assert!(net.is_free().await, "after {}", lease.fence);
}

/// A waiter waited under the token of its first try, of which nobody had heard: what it was granted in the end was taken for what that
/// try had been granted late, and released behind its back.
#[tokio::test]
async fn a_waiter_whose_first_try_was_lost_keeps_what_it_is_granted() {
    let net = Net::new().await;
    let stranger = Holder::new("7", "AB(7)").expect("a holder");
    let before = net.near.acquire(&net.tag, &stranger).await.expect("it is free");
    net.proxy.drop_replies(1, LostReply::DropThenClose, containing("take"));
    let deadline = Duration::from_secs(3);
    let began = Instant::now();
    let waits =
        net.far.acquire(&net.tag, &net.worker).note("take").wait(SOON).deadline(deadline).into_future();
    let hand_on = async {
        eventually(SOON, async || net.far.stats().locks.waiters == 1).await;
        net.near.release_lease(&before).await.expect("it is held");
    };
    let (lease, ()) = tokio::join!(waits, hand_on);
    let lease = lease.expect("it was handed on");
    assert!(began.elapsed() < deadline, "the lost try may still come");
    // By then it has been looked for a last time.
    eventually(SOON, async || began.elapsed() > 2 * deadline).await;
    let occupant = net.near.inspect(&net.tag).await.expect("healthy").value;
    assert_eq!(occupant.map(|it| it.fence), Some(lease.fence));
    net.far.release_lease(&lease).await.expect("it is held");
}

/// What a later try is granted lasts from that try on, not from the first.
#[tokio::test]
async fn a_guard_that_a_second_try_was_granted_is_safe_for_its_ttl() {
    let net = Net::new().await;
    let ttl = Ttl::new(Duration::from_millis(1500)).expect("a ttl");
    // The first try has half of the deadline, which is longer than the ttl, and does not arrive in it.
    let held = net.proxy.hold_requests(containing("take"));
    let guard = net.far.guard(&net.tag, &net.worker).ttl(ttl).note("take").deadline(Duration::from_secs(4));
    let (guard, ()) = tokio::join!(guard.into_future(), async {
        held.caught(2).await;
        held.release();
    });
    let guard = guard.expect("granted by the second try");
    assert!(matches!(guard.state(), GuardState::Held { .. }), "{:?}", guard.state());
    guard.release().await.expect("it is held");
}

#[tokio::test]
async fn what_no_repeat_would_mend_is_sent_once() {
    let net = Net::new().await;
    net.server.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    let before = net.proxy.requests("EVALSHA");
    let refused = net.far.acquire(&net.tag, &net.worker).await;
    assert!(
        matches!(&refused, Err(AcquireError::Fault(fault)) if fault.kind() == FaultKind::OutOfMemory),
        "{refused:?}"
    );
    assert_eq!(net.proxy.requests("EVALSHA") - before, 1);
    let OperationStats { retries_total, retries_exhausted_total, .. } = net.operation("acquire");
    assert_eq!((retries_total, retries_exhausted_total), (0, 0));
}

/// The last try may have been refused; an earlier one may have been granted.
#[tokio::test]
async fn a_call_that_may_have_been_granted_says_so_whatever_its_last_try_met() {
    let net = Net::tuned(|config| {
        config.circuit.faults = 1000;
        // Long enough to take the network away before it is sent again.
        let pause = Duration::from_millis(300);
        config.retry.delays = Schedule::new(pause, pause).jitter(Jitter::None);
    })
    .await;
    net.proxy.drop_replies(1, LostReply::DropThenClose, containing("take"));
    let acquire = net.far.acquire(&net.tag, &net.worker).note("take").into_future();
    let refuse = async {
        eventually(SOON, async || net.proxy.replies_dropped() == 1).await;
        net.proxy.refuse();
    };
    let (outcome, ()) = tokio::join!(acquire, refuse);
    let Err(AcquireError::Ambiguous { claim, fault }) = outcome else { panic!("{outcome:?}") };
    assert!(fault.kind().is_ambiguous(), "{fault:?}");
    // Its second try waits in vain for its turn: what this process holds is seen to first.
    assert!(net.operation("acquire").retries_total == 1, "{:?}", net.operation("acquire"));
    net.proxy.heal();
    drop(claim);
    eventually(SOON, async || net.is_free().await).await;
}

/// At half of the budget nothing is sent again: after five faults with no success between them.
#[tokio::test]
async fn an_outage_is_not_multiplied_by_those_who_try_again() {
    let net = Net::tuned(|config| config.circuit.faults = 1000).await;
    net.proxy.refuse();
    net.proxy.close_all(support::proxy::Close::Rst);
    for _ in 0..20 {
        net.far.extend(&net.tag, &net.worker, Ttl::HOUR).await.expect_err("nobody is there");
    }
    let OperationStats { total, retries_total, .. } = net.operation("extend");
    assert_eq!(total, 20);
    assert!(retries_total <= 5, "{retries_total} repeats of {total} calls");
    let faults = net.far.stats().faults;
    assert!(faults.retry_budget_ratio < 0.5 && faults.retries_refused_total >= 15, "{faults:?}");
}

#[tokio::test]
async fn no_call_outlives_its_deadline_by_trying_again() {
    let net = Net::tuned(|config| config.circuit.faults = 1000).await;
    net.proxy.blackhole();
    for millis in [50, 300, 1000, 2500] {
        let deadline = Duration::from_millis(millis);
        let began = Instant::now();
        let outcome = net.far.acquire(&net.tag, &net.worker).deadline(deadline).await;
        let took = began.elapsed();
        assert!(outcome.is_err(), "{outcome:?}");
        assert!(took <= deadline + Duration::from_millis(250), "{took:?} of {deadline:?}");
    }
}

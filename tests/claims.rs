//! Calls of which nobody hears what they did: what becomes of what an acquire was granted, and of those who come after.

#[path = "claims/repeats.rs"]
mod repeats;
mod support;

use std::{collections::HashMap, time::Duration};

use spool_lock::{AcquireError, Claim, Config, Event, Fence, Holder, Lease, SpoolLocks, Tag, Ttl, Watch};
use support::{
    FaultProxy, RedisServer, eventually,
    proxy::{LostReply, containing},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// How many calls of each kind.
const CALLS: usize = 200;
/// Within which all is cleared up: the deadline of a call, a poll, and what 16 side by side need for 200.
const SWEPT: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_millis(400);

/// Marks the requests that the proxy is to lose.
const TAKE: &str = "take";

struct Net {
    server: RedisServer,
    proxy: FaultProxy,
    /// Through the proxy.
    far: SpoolLocks,
    near: SpoolLocks,
    /// Hears all that happens, by the good line.
    watch: Watch,
    /// Those of ours that the server had when nothing had happened yet.
    connections: usize,
}

impl Net {
    async fn new() -> Self {
        Self::tuned(|_| {}).await
    }

    async fn tuned(tune: impl FnOnce(&mut Config)) -> Self {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        let mut config = Config::new(&proxy.url()).expect("an address");
        config.pool.response_timeout = DEADLINE;
        config.deadline = Duration::from_secs(2);
        // All may be under way at once.
        (config.pool.depth, config.pool.max_waiters) = (32, 400);
        config.pool.idle_timeout = DEADLINE;
        // Each call is one try, and a lost answer is for its caller to deal with.
        (config.retry.attempts, config.circuit.faults, config.deferred) = (1, 1000, 0);
        tune(&mut config);
        let far = SpoolLocks::connect(config.clone()).await.expect("healthy");
        config.url = Config::new(&server.url()).expect("an address").url;
        let near = SpoolLocks::connect(config).await.expect("healthy");
        // From here on the server knows the scripts, and a lost request is not one for their text.
        let warm = Tag::new("warm").expect("a tag");
        let lease = near.acquire(&warm, &worker()).await.expect("it is free");
        near.extend(&warm, &worker(), Ttl::HOUR).await.expect("it is held");
        near.release_lease(&lease).await.expect("it is held");
        let watch = near.watch().await.expect("healthy");
        let connections = connections(&server);
        Self { server, proxy, far, near, watch, connections }
    }

    /// Lets all calls go at once, and says how many were not clearly answered; their claims are dropped.
    async fn take_all(&self) -> usize {
        let mut calls = JoinSet::new();
        for number in 0..CALLS {
            let far = self.far.clone();
            calls.spawn(
                async move { far.acquire(&tag(number), &worker()).note(TAKE).deadline(DEADLINE).await },
            );
        }
        let outcomes = calls.join_all().await;
        outcomes.iter().filter(|outcome| matches!(outcome, Err(AcquireError::Ambiguous { .. }))).count()
    }

    /// Waits until nothing is held, and checks what was heard: each tag was taken once at most, and given back.
    async fn nothing_is_left(&mut self) -> HashMap<Tag, Fence> {
        eventually(SWEPT, async || match self.near.list().await.expect("healthy").value.len() {
            0 => Ok(()),
            left => Err(format!("{left} are held")),
        })
        .await;
        let mut taken = HashMap::new();
        let mut held = 0;
        while let Ok(Some(event)) = timeout(Duration::from_millis(200), self.watch.next()).await {
            match &*event {
                Event::Taken { occupant, .. } => {
                    let before = taken.insert(occupant.tag.clone(), occupant.fence);
                    assert_eq!(before, None, "{} was granted twice", occupant.tag);
                    held += 1;
                }
                Event::Released { occupant, .. } => {
                    assert_eq!(taken[&occupant.tag], occupant.fence);
                    held -= 1;
                }
                other => panic!("nothing else is to happen: {other:?}"),
            }
        }
        assert_eq!(held, 0, "each is released once");
        for (tag, fence) in &taken {
            let kept: String = self.server.query(&["GET", &format!("spool:{{{tag}}}:fence")]);
            assert!(kept.starts_with(&fence.to_string()), "the fence of {tag} moved once: {kept}");
        }
        self.connections_are_as_before().await;
        taken
    }

    async fn connections_are_as_before(&self) {
        eventually(SWEPT, async || match connections(&self.server) {
            count if count == self.connections => Ok(()),
            count => Err(format!("{count} connections in place of {}", self.connections)),
        })
        .await;
    }

    fn swept(&self, outcome: &str) -> u64 {
        self.far.stats().locks.swept_total[outcome]
    }
}

/// How many of ours the server has.
fn connections(server: &RedisServer) -> usize {
    server.clients().iter().filter(|client| client["name"].starts_with("spool-lock:")).count()
}

fn tag(number: usize) -> Tag {
    Tag::new(format!("TEST-{number:03}")).expect("a tag")
}

fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_replies_leave_nothing_behind() {
    for how in [LostReply::Swallow, LostReply::DropThenClose] {
        let mut net = Net::new().await;
        net.proxy.drop_replies(CALLS, how, containing(TAKE));
        let ambiguous = net.take_all().await;
        let taken = net.nothing_is_left().await;
        assert!(!taken.is_empty() && taken.len() <= ambiguous, "{} of {ambiguous}", taken.len());
        let settled = || net.swept("released") + net.swept("not_granted");
        eventually(SWEPT, async || settled() == ambiguous as u64).await;
        assert_eq!(net.swept("released"), taken.len() as u64);
        assert!(net.far.stats().pool.peak_active_connections <= 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_requests_leave_nothing_behind() {
    let mut net = Net::new().await;
    let held = net.proxy.hold_requests(containing(TAKE));
    let ambiguous = net.take_all().await;
    assert!(ambiguous > 0);
    drop(held);
    assert_eq!(net.nothing_is_left().await, HashMap::new());
    eventually(SWEPT, async || net.swept("not_granted") == ambiguous as u64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_arrive_late_leave_nothing_behind() {
    let mut net = Net::new().await;
    net.proxy.delay_requests(Duration::from_secs(2));
    let ambiguous = net.take_all().await;
    assert!(ambiguous > 0);
    sleep(Duration::from_secs(3)).await;
    net.proxy.heal();
    assert_eq!(net.nothing_is_left().await, HashMap::new(), "they came too late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_acquires_leave_nothing_behind() {
    let mut net = Net::new().await;
    net.proxy.delay(Duration::from_millis(20));
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let far = net.far.clone();
        calls.spawn(async move {
            let after = Duration::from_micros(number as u64 * 250);
            let (tag, worker) = (tag(number), worker());
            match timeout(after, far.acquire(&tag, &worker).into_future()).await {
                Ok(Ok(lease)) => drop(far.release_lease(&lease).await.expect("it is held")),
                Ok(Err(error)) => panic!("the line is good: {error:?}"),
                Err(_cancelled) => {}
            }
        });
    }
    calls.join_all().await;
    let taken = net.nothing_is_left().await;
    assert!(!taken.is_empty(), "some arrived");
    eventually(SWEPT, async || net.swept("released") > 0).await;
}

/// The holder asks again by another way, or somebody else takes what was cleared up: both keep what they have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_answer_is_never_taken_back() {
    let net = Net::new().await;
    net.proxy.drop_replies(CALLS, LostReply::Swallow, containing(TAKE));
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let (far, near) = (net.far.clone(), net.near.clone());
        calls.spawn(async move {
            let tag = tag(number);
            drop(far.acquire(&tag, &worker()).note(TAKE).deadline(DEADLINE).await);
            let next = if number % 2 == 0 { worker() } else { Holder::new("7", "").expect("a holder") };
            loop {
                match near.acquire(&tag, &next).await {
                    Ok(Lease { fence, .. }) => return (tag, fence),
                    Err(AcquireError::AlreadyHeld(lease)) => return (tag, lease.fence),
                    // Until it is cleared up.
                    Err(AcquireError::Contended { .. }) => sleep(Duration::from_millis(20)).await,
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
    }
    let standing = timeout(SWEPT, calls.join_all()).await.expect("nobody is kept out");
    sleep(Duration::from_secs(2)).await;
    for (tag, fence) in standing {
        let occupant = net.near.inspect(&tag).await.expect("healthy").value;
        assert_eq!(occupant.map(|it| it.fence), Some(fence), "{tag}");
    }
}

/// An acquire of tag 0 whose reply was lost.
async fn lost(net: &Net) -> Claim {
    net.proxy.drop_replies(1, LostReply::Swallow, containing(TAKE));
    match net.far.acquire(&tag(0), &worker()).note(TAKE).deadline(DEADLINE).await {
        Err(AcquireError::Ambiguous { claim, .. }) => claim,
        other => panic!("no answer was to come: {other:?}"),
    }
}

async fn stands(net: &Net) -> Option<Fence> {
    net.near.inspect(&tag(0)).await.expect("healthy").value.map(|occupant| occupant.fence)
}

#[tokio::test]
async fn what_was_granted_is_the_callers_once_it_is_known() {
    let net = Net::new().await;
    let claim = lost(&net).await;
    let fence = stands(&net).await.expect("it was granted");
    let lease = timeout(SWEPT, claim.settled()).await.expect("found").expect("asked").expect("granted");
    assert_eq!(lease.fence, fence);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stands(&net).await, Some(fence), "it is not cleared up");
    net.far.release_lease(&lease).await.expect("it is held");
    assert_eq!(net.swept("left_to_caller"), 1);
}

#[tokio::test]
async fn a_claim_that_is_held_is_found_out_and_kept() {
    let net = Net::new().await;
    let claim = lost(&net).await;
    let fence = stands(&net).await.expect("it was granted");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(stands(&net).await, Some(fence), "its owner has not said what is to become of it");
    drop(claim);
    eventually(SWEPT, async || stands(&net).await.is_none()).await;
}

#[tokio::test]
async fn what_never_arrived_is_nobodys() {
    let net = Net::new().await;
    let held = net.proxy.hold_requests(containing(TAKE));
    let (tag, worker) = (tag(0), worker());
    let outcome = net.far.acquire(&tag, &worker).note(TAKE).deadline(DEADLINE).await;
    let Err(AcquireError::Ambiguous { claim, .. }) = outcome else {
        panic!("no answer was to come: {outcome:?}")
    };
    drop(held);
    assert_eq!(timeout(SWEPT, claim.settled()).await.expect("found out").expect("asked"), None);
    net.near.acquire(&tag, &worker).await.expect("it is free");
}

#[tokio::test]
async fn a_claim_whose_token_was_taken_is_left_alone() {
    let net = Net::new().await;
    let token = lost(&net).await.into_token();
    let fence = stands(&net).await.expect("it was granted");
    sleep(Duration::from_secs(2)).await;
    let lease = net.far.acquire(&tag(0), &worker()).token(token).await.expect("adopted");
    assert_eq!(lease.fence, fence);

    // What is asked for once more is left alone also when that answer is lost, and nobody wants to know.
    net.proxy.drop_replies(1, LostReply::Swallow, containing(TAKE));
    let again = net.far.acquire(&tag(0), &worker()).token(token).note(TAKE).deadline(DEADLINE).await;
    assert!(matches!(again, Err(AcquireError::Ambiguous { .. })), "{again:?}");
    drop(again);
    eventually(SWEPT, async || net.swept("left_to_caller") == 2).await;
    assert_eq!(stands(&net).await, Some(fence));
}

#[tokio::test]
async fn a_claim_outlives_the_locks_and_says_so() {
    let Net { server: _server, proxy, far, near: _near, watch: _watch, .. } = Net::new().await;
    proxy.blackhole();
    let (tag, worker) = (tag(0), worker());
    let outcome = far.acquire(&tag, &worker).note(TAKE).deadline(DEADLINE).await;
    let Err(AcquireError::Ambiguous { claim, .. }) = outcome else {
        panic!("no answer was to come: {outcome:?}")
    };
    drop(far);
    let fault = timeout(SWEPT, claim.settled()).await.expect("it says so").expect_err("nobody asks any more");
    assert_eq!(fault.kind(), spool_lock::FaultKind::Disconnected);
}

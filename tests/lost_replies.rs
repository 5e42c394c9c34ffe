//! A reply that is lost, a request that is lost, a request that arrives when nobody waits for it any more.
//!
//! `far` talks to the server through a network that misbehaves, `near` has a line of its own.

mod support;

use std::time::Duration;

use spool_lock::{
    AcquireError, Config, ExtendError, Fault, FaultKind, Fence, ForceReleaseError, Holder, Lease, Occupant,
    ReadError, ReleaseError, ReleaseOutcome, RequestId, Source, SpoolLocks, Tag, Token, Ttl,
};
use support::{
    ClockShim, FaultProxy, RedisServer, eventually,
    proxy::{LostReply, containing, named},
};

const SOON: Duration = Duration::from_secs(10);
/// The deadline of a call whose answer is not going to come.
const SHORT: Duration = Duration::from_millis(300);
const LOST: [LostReply; 2] = [LostReply::DropThenClose, LostReply::Swallow];

struct Net {
    server: RedisServer,
    proxy: FaultProxy,
    far: SpoolLocks,
    near: SpoolLocks,
    tag: Tag,
    worker: Holder,
}

impl Net {
    async fn new() -> Self {
        Self::before(RedisServer::start()).await
    }

    async fn before(server: RedisServer) -> Self {
        let proxy = FaultProxy::before(&server);
        let (far, near) = (connect(&proxy.url()).await, connect(&server.url()).await);
        let worker = Holder::new("93", "MR(93)").expect("a holder");
        // From here on the server knows the scripts, and one request is one call of a script.
        let warm = Tag::new("warm").expect("a tag");
        let lease = far.acquire(&warm, &worker).await.expect("a healthy server");
        far.extend(&warm, &worker, Ttl::HOUR).await.expect("it is held");
        far.inspect(&warm).await.expect("a healthy server");
        far.list().await.expect("a healthy server");
        far.release_lease(&lease).await.expect("it is held");
        let forced = far.force_release(&warm, "operator", "test").await;
        forced.expect_err("nothing is held");
        Self { server, proxy, far, near, tag: Tag::new("TEST-02").expect("a tag"), worker }
    }

    async fn occupant(&self) -> Option<Occupant> {
        self.near.inspect(&self.tag).await.expect("the line is good").value
    }

    #[track_caller]
    fn key(&self, part: &str) -> String {
        format!("spool:{{{}}}:{part}", self.tag)
    }

    /// The last fence of the tag, as the server has it.
    fn counter(&self) -> Option<u64> {
        let kept: Option<String> = self.server.query(&["GET", &self.key("fence")]);
        kept.map(|kept| kept.split('|').next().and_then(|fence| fence.parse().ok()).expect("a fence"))
    }

    fn left(&self) -> Duration {
        let left: i64 = self.server.query(&["PTTL", &self.key("lock")]);
        Duration::from_millis(u64::try_from(left).expect("it is held"))
    }

    fn scripts_run(&self) -> u64 {
        self.server.calls("evalsha")
    }

    /// Waits until the far pool has given up a connection that fell silent, for the `n`th time; it does so in a task of its own.
    async fn silence_noticed(&self, n: u64) {
        let given_up = || self.far.stats().pool.connections_closed_total["timeout"];
        eventually(SOON, async || given_up() >= n).await;
    }

    /// Waits until the server has run a script more than `before`.
    async fn delivered(&self, before: u64) {
        eventually(SOON, async || self.scripts_run() > before).await;
    }

    /// Waits until the server's clock is past the time of a call that was made with [`SHORT`] and has ended.
    async fn time_is_over(&self) {
        let now = || {
            let (seconds, micros): (u64, u64) = self.server.query(&["TIME"]);
            seconds * 1000 + micros / 1000
        };
        let ended = now();
        eventually(SOON, async || now() > ended + 250).await;
    }
}

async fn connect(url: &str) -> SpoolLocks {
    let mut config = Config::new(url).expect("the address is right");
    // Longer than a test: what ends a call here is its own deadline, or its caller.
    config.pool.response_timeout = Duration::from_secs(30);
    config.deadline = Duration::from_secs(30);
    // Each call is one try, and a lost answer is for its caller to deal with.
    (config.retry.attempts, config.circuit.faults, config.deferred) = (1, 1000, 0);
    SpoolLocks::connect(config).await.expect("the server is healthy")
}

fn stranger() -> Holder {
    Holder::new("7", "AB(7)").expect("a holder")
}

fn minute() -> Ttl {
    Ttl::new(Duration::from_secs(60)).expect("a ttl")
}

#[track_caller]
fn assert_lost(fault: &Fault) {
    assert!(matches!(fault.kind(), FaultKind::Timeout | FaultKind::Disconnected), "{fault:?}");
}

#[track_caller]
fn assert_ambiguous(outcome: Result<Lease, AcquireError>) -> Token {
    match outcome {
        Err(AcquireError::Ambiguous { claim, fault }) => {
            assert_lost(&fault);
            claim.into_token()
        }
        other => panic!("no answer was to come: {other:?}"),
    }
}

#[track_caller]
fn assert_release_ambiguous(outcome: Result<ReleaseOutcome, ReleaseError>) -> RequestId {
    match outcome {
        Err(ReleaseError::Ambiguous { request, fault }) => {
            assert_lost(&fault);
            request
        }
        other => panic!("no answer was to come: {other:?}"),
    }
}

/// Makes a call and gives it up when the network has it.
async fn give_up(call: impl Future, held: &support::proxy::Held) {
    tokio::select! {
        _ = call => panic!("nobody answered this"),
        () = held.caught(1) => {}
    }
}

#[tokio::test]
async fn an_acquire_whose_reply_was_lost_is_adopted_by_its_token() {
    for how in LOST {
        let net = Net::new().await;
        net.proxy.drop_replies(1, how, containing("take"));
        let call = net.far.acquire(&net.tag, &net.worker).ttl(minute()).note("take").deadline(SHORT);
        let token = assert_ambiguous(call.await);
        let fence = net.counter().expect("the server granted it");
        assert_eq!(net.occupant().await.unwrap().fence.get(), fence);

        let lease = net.far.acquire(&net.tag, &net.worker).note("take").token(token).await.unwrap();
        assert_eq!((lease.fence.get(), lease.token), (fence, Some(token)));
        assert_eq!(net.counter(), Some(fence), "the counter moved once");
        assert!(net.left() <= minute().duration(), "the rest of its ttl");
        let from_elsewhere = net.near.acquire(&net.tag, &net.worker).token(token).await.unwrap();
        assert_eq!(from_elsewhere.fence, lease.fence);
        net.far.release_lease(&lease).await.unwrap();
    }
}

#[tokio::test]
async fn a_lost_grant_is_told_to_its_holder_without_the_token() {
    for how in LOST {
        let net = Net::new().await;
        net.proxy.drop_replies(1, how, containing("take"));
        assert_ambiguous(net.far.acquire(&net.tag, &net.worker).note("take").deadline(SHORT).await);
        if how == LostReply::Swallow {
            net.silence_noticed(1).await;
        }
        match net.far.acquire(&net.tag, &net.worker).await {
            Err(AcquireError::AlreadyHeld(lease)) => assert_eq!(Some(lease.fence.get()), net.counter()),
            other => panic!("already held was expected: {other:?}"),
        }
        net.far.release(&net.tag, &net.worker).await.unwrap();
        assert_eq!(net.occupant().await, None);
    }
}

#[tokio::test]
async fn an_acquire_that_never_arrived_is_granted_by_its_repeat() {
    let net = Net::new().await;
    let held = net.proxy.hold_requests(containing("take"));
    let call = net.far.acquire(&net.tag, &net.worker).note("take").deadline(SHORT);
    let token = assert_ambiguous(call.await);
    drop(held);
    assert_eq!((net.occupant().await, net.counter()), (None, None));
    let lease = net.far.acquire(&net.tag, &net.worker).note("take").token(token).await.unwrap();
    assert_eq!(net.counter(), Some(lease.fence.get()));
}

#[tokio::test]
async fn an_acquire_cut_off_on_its_way_is_granted_by_its_repeat() {
    let net = Net::new().await;
    let held = net.proxy.hold_requests(containing("take"));
    let call = net.far.acquire(&net.tag, &net.worker).note("take");
    let cut = async {
        held.caught(1).await;
        drop(held);
    };
    let (outcome, ()) = tokio::join!(call.into_future(), cut);
    let token = assert_ambiguous(outcome);
    assert_eq!((net.occupant().await, net.counter()), (None, None));
    net.far.acquire(&net.tag, &net.worker).token(token).await.unwrap();
}

#[tokio::test]
async fn a_release_whose_reply_was_lost_is_reported_released() {
    for how in LOST {
        for next in ["nobody", "a stranger", "the same"] {
            let net = Net::new().await;
            let stranger = stranger();
            let lease = net.far.acquire(&net.tag, &net.worker).await.unwrap();
            let request = RequestId::random();
            net.proxy.drop_replies(1, how, containing(&request.to_string()));
            let call = net.far.release(&net.tag, &net.worker).request(request).deadline(SHORT);
            assert_eq!(assert_release_ambiguous(call.await), request);
            assert_eq!(net.occupant().await, None, "the server had applied it");

            let theirs = match next {
                "nobody" => None,
                "a stranger" => Some(net.near.acquire(&net.tag, &stranger).await.unwrap()),
                _ => Some(net.near.acquire(&net.tag, &net.worker).await.unwrap()),
            };
            net.far.release(&net.tag, &net.worker).request(request).await.unwrap();
            net.near.release(&net.tag, &net.worker).request(request).fence(lease.fence).await.unwrap();
            let fence_now = net.occupant().await.map(|occupant| occupant.fence);
            assert_eq!(fence_now, theirs.as_ref().map(|theirs| theirs.fence), "nobody else's lease ended");

            // Only this request: another one is answered by what stands now.
            match (net.far.release(&net.tag, &net.worker).fence(lease.fence).await, theirs) {
                (Err(ReleaseError::NotHolder(occupant)), Some(theirs)) => {
                    assert_eq!(occupant.fence, theirs.fence);
                }
                (Err(ReleaseError::NotHeld { last }), None) => assert_eq!(last, Some(lease.fence)),
                other => panic!("{next}: {other:?}"),
            }
        }
    }
}

/// A repeat that had waited for a new connection was answered `NotHeld` under load: four others had released the tag meanwhile.
#[tokio::test]
async fn a_release_is_forgotten_by_the_third_grant_since_and_its_repeat_spares_that() {
    let (net, stranger) = (Net::new().await, stranger());
    net.far.acquire(&net.tag, &net.worker).await.unwrap();
    net.proxy.drop_replies(1, LostReply::DropThenClose, named("EVALSHA"));
    let lost = net.far.release(&net.tag, &net.worker).deadline(SHORT).await;
    let request = assert_release_ambiguous(lost);
    let repeat = async || net.far.release(&net.tag, &net.worker).request(request).await;
    for _ in 0..2 {
        let theirs = net.near.acquire(&net.tag, &stranger).await.unwrap();
        repeat().await.unwrap();
        net.near.release_lease(&theirs).await.unwrap();
        repeat().await.unwrap();
    }

    let third = net.near.acquire(&net.tag, &net.worker).await.unwrap();
    match repeat().await {
        Err(ReleaseError::NotHolder(occupant)) => assert_eq!(occupant.fence, third.fence),
        other => panic!("{other:?}"),
    }
    net.near.release_lease(&third).await.expect("the repeat has ended nothing");
    match repeat().await {
        Err(ReleaseError::NotHeld { last }) => assert_eq!(last, Some(third.fence)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_release_that_never_arrived_is_applied_by_its_repeat() {
    let net = Net::new().await;
    let lease = net.far.acquire(&net.tag, &net.worker).await.unwrap();
    let held = net.proxy.hold_requests(containing("TEST-02"));
    let request = assert_release_ambiguous(net.far.release_lease(&lease).deadline(SHORT).await);
    drop(held);
    assert_eq!(net.occupant().await.unwrap().fence, lease.fence, "still held");
    net.far.release_lease(&lease).request(request).await.unwrap();
    assert_eq!(net.occupant().await, None);
}

#[tokio::test]
async fn a_repeated_release_spares_a_lease_that_is_newer_than_its_first_try() {
    let net = Net::new().await;
    net.far.acquire(&net.tag, &net.worker).await.unwrap();
    let held = net.proxy.hold_requests(containing("TEST-02"));
    let release = net.far.release(&net.tag, &net.worker).deadline(SHORT);
    let request = assert_release_ambiguous(release.await);
    drop(held);
    // The first try never arrived. Meanwhile the same worker ended that lease elsewhere, and took the spool anew.
    net.near.release(&net.tag, &net.worker).await.unwrap();
    let newer = net.near.acquire(&net.tag, &net.worker).await.unwrap();
    match net.far.release(&net.tag, &net.worker).request(request).await {
        Err(ReleaseError::NotHolder(occupant)) => assert_eq!(occupant.fence, newer.fence),
        other => panic!("{other:?}"),
    }
    // It survives being written down.
    let read: RequestId = request.to_string().parse().unwrap();
    assert!(net.far.release(&net.tag, &net.worker).request(read).await.is_err());
    assert_eq!(net.occupant().await.unwrap().fence, newer.fence);
}

#[tokio::test]
async fn an_extend_whose_reply_was_lost_leaves_the_lease_held() {
    for how in LOST {
        let net = Net::new().await;
        let lease = net.far.acquire(&net.tag, &net.worker).ttl(minute()).await.unwrap();
        net.proxy.drop_replies(1, how, containing("7654321"));
        let ttl = Ttl::new(Duration::from_millis(7_654_321)).unwrap();
        match net.far.extend(&net.tag, &net.worker, ttl).deadline(SHORT).await {
            Err(ExtendError::Fault(fault)) => assert_lost(&fault),
            other => panic!("no answer was to come: {other:?}"),
        }
        assert!(net.left() > minute().duration(), "the server had applied it");
        assert_eq!(net.occupant().await.unwrap().fence, lease.fence);
        assert_eq!(net.far.extend(&net.tag, &net.worker, ttl).await.unwrap().fence, lease.fence);
        net.far.release_lease(&lease).await.unwrap();
    }
}

#[tokio::test]
async fn an_extend_that_never_arrived_leaves_the_lease_as_it_was() {
    let net = Net::new().await;
    let lease = net.far.acquire(&net.tag, &net.worker).ttl(minute()).await.unwrap();
    let held = net.proxy.hold_requests(containing("TEST-02"));
    match net.far.extend(&net.tag, &net.worker, Ttl::HOUR).deadline(SHORT).await {
        Err(ExtendError::Fault(fault)) => assert_eq!(fault.kind(), FaultKind::Timeout),
        other => panic!("no answer was to come: {other:?}"),
    }
    drop(held);
    assert!(net.left() <= minute().duration());
    assert_eq!(net.occupant().await.unwrap().fence, lease.fence);
    net.far.extend(&net.tag, &net.worker, Ttl::HOUR).fence(lease.fence).await.unwrap();
}

#[tokio::test]
async fn a_forced_release_whose_reply_was_lost_is_a_fault() {
    for how in LOST {
        let net = Net::new().await;
        let lease = net.near.acquire(&net.tag, &net.worker).await.unwrap();
        net.proxy.drop_replies(1, how, containing("TEST-02"));
        let call = net.far.force_release(&net.tag, "operator", "test");
        let forced = match tokio::time::timeout(SHORT, call).await {
            Ok(forced) => forced,
            Err(_swallowed) => continue,
        };
        match forced {
            Err(ForceReleaseError::Fault(fault)) => assert_lost(&fault),
            other => panic!("no answer was to come: {other:?}"),
        }
        match net.far.force_release(&net.tag, "operator", "again").await {
            Err(ForceReleaseError::NotHeld { last }) => assert_eq!(last, Some(lease.fence)),
            other => panic!("it was applied: {other:?}"),
        }
    }
}

/// Nothing is called free because Redis could not be asked.
#[tokio::test]
async fn a_read_whose_reply_was_lost_is_a_fault() {
    for lost in ["request", "reply"] {
        let net = Net::new().await;
        net.near.acquire(&net.tag, &net.worker).await.unwrap();
        for read in ["inspect", "list"] {
            let held = (lost == "request").then(|| net.proxy.hold_requests(named("EVALSHA")));
            if lost == "reply" {
                net.proxy.drop_replies(1, LostReply::DropThenClose, named("EVALSHA"));
            }
            let cut = async {
                if let Some(held) = held {
                    held.caught(1).await;
                }
            };
            let asked = async {
                match read {
                    "inspect" => net.far.inspect(&net.tag).await.map(|reading| reading.source),
                    _ => net.far.list().await.map(|reading| reading.source),
                }
            };
            match tokio::join!(asked, cut).0 {
                Err(ReadError::Fault(fault)) => assert_lost(&fault),
                // It remembers what it was told before.
                Ok(Source::Snapshot) => {}
                other => panic!("{read}, {lost} lost: {other:?}"),
            }
        }
        assert!(net.far.inspect(&net.tag).await.unwrap().value.is_some());
    }
}

/// The worker pauses, nothing seems to happen, a colleague's terminal does it, the worker goes on: then the first pause arrives.
#[tokio::test]
async fn a_late_release_spares_the_newer_lease_of_the_same_holder() {
    for exact in [false, true] {
        let net = Net::new().await;
        let worker = &net.worker;
        let old = net.far.acquire(&net.tag, worker).await.unwrap();
        let held = net.proxy.hold_requests(containing("TEST-02"));
        let mut release = net.far.release(&net.tag, worker);
        if exact {
            release = release.fence(old.fence);
        }
        give_up(release.into_future(), &held).await;

        net.near.release(&net.tag, worker).await.unwrap();
        let new = net.near.acquire(&net.tag, worker).await.unwrap();
        let before = net.scripts_run();
        held.release();
        net.delivered(before).await;
        assert_eq!(net.occupant().await.map(|it| it.fence), Some(new.fence), "exact: {exact}");
    }
}

/// The same after the server's clock was set back: fences no longer tell the time, and the process has seen higher ones.
#[tokio::test]
async fn a_late_release_spares_a_newer_lease_whose_fence_is_below_one_that_was_seen() {
    let shim = ClockShim::build().unwrap();
    shim.shift(-1800);
    let net = Net::before(RedisServer::builder().clock(&shim).start()).await;
    let (worker, other) = (&net.worker, Tag::new("TEST-03").unwrap());
    let ttl = Ttl::new(Duration::from_secs(5 * 3600)).unwrap();
    net.near.acquire(&net.tag, worker).ttl(ttl).await.unwrap();
    shim.shift(0);
    let seen = net.far.acquire(&other, worker).ttl(ttl).await.unwrap();
    shim.shift(-3600);
    net.far.inspect(&other).await.unwrap();

    let held = net.proxy.hold_requests(containing("TEST-02"));
    give_up(net.far.release(&net.tag, worker).into_future(), &held).await;
    net.near.release(&net.tag, worker).await.unwrap();
    let new = net.near.acquire(&net.tag, worker).await.unwrap();
    assert!(new.fence < seen.fence);
    let before = net.scripts_run();
    held.release();
    net.delivered(before).await;
    assert_eq!(net.occupant().await.map(|it| it.fence), Some(new.fence));
}

/// A caller who still waits is told whose lease stands now; it is not ended on the strength of a call that is older than it.
#[tokio::test]
async fn a_slow_release_spares_the_newer_lease_and_tells_its_caller() {
    let shim = ClockShim::build().unwrap();
    for clock_set_back in ["never", "before", "meanwhile"] {
        shim.shift(0);
        let net = Net::before(RedisServer::builder().clock(&shim).start()).await;
        let worker = &net.worker;
        let ttl = Ttl::new(Duration::from_secs(5 * 3600)).unwrap();
        net.near.acquire(&net.tag, worker).ttl(ttl).await.unwrap();
        if clock_set_back == "before" {
            // From here on the fences of the tag are ahead of the clock.
            shim.shift(-3600);
            net.far.inspect(&net.tag).await.unwrap();
        }
        let held = net.proxy.hold_requests(containing("TEST-02"));
        let meanwhile = async {
            held.caught(1).await;
            net.near.release(&net.tag, worker).await.unwrap();
            net.time_is_over().await;
            let new = net.near.acquire(&net.tag, worker).await.unwrap();
            if clock_set_back == "meanwhile" {
                shim.shift(-3600);
            }
            held.release();
            new
        };
        let (released, new) = tokio::join!(net.far.release(&net.tag, worker).into_future(), meanwhile);
        match released {
            Err(ReleaseError::NotHolder(occupant)) => assert_eq!(occupant.fence, new.fence),
            other => panic!("clock set back: {clock_set_back}: {other:?}"),
        }
        assert_eq!(net.occupant().await.map(|it| it.fence), Some(new.fence));
        net.far.release(&net.tag, worker).await.unwrap();
    }
}

#[tokio::test]
async fn a_late_extend_spares_the_newer_lease_of_the_same_holder() {
    let net = Net::new().await;
    let worker = &net.worker;
    net.far.acquire(&net.tag, worker).await.unwrap();
    let held = net.proxy.hold_requests(containing("TEST-02"));
    give_up(net.far.extend(&net.tag, worker, Ttl::MIN).shorten().into_future(), &held).await;
    net.near.release(&net.tag, worker).await.unwrap();
    let new = net.near.acquire(&net.tag, worker).ttl(minute()).await.unwrap();
    let before = net.scripts_run();
    held.release();
    net.delivered(before).await;
    assert_eq!(net.occupant().await.map(|it| it.fence), Some(new.fence));
    assert!(net.left() > minute().duration() / 2);
}

#[tokio::test]
async fn an_acquire_that_arrives_after_its_time_grants_nothing() {
    let net = Net::new().await;
    let held = net.proxy.hold_requests(containing("take"));
    assert_ambiguous(net.far.acquire(&net.tag, &net.worker).note("take").deadline(SHORT).await);
    net.time_is_over().await;
    let before = net.scripts_run();
    held.release();
    net.delivered(before).await;
    assert_eq!((net.occupant().await, net.counter()), (None, None));
    let keys: Vec<String> = net.server.query(&["KEYS", "*TEST-02*"]);
    assert_eq!(keys, <[String; 0]>::default());
    assert!(net.near.acquire(&net.tag, &stranger()).await.is_ok());
}

#[tokio::test]
async fn a_release_that_arrives_after_its_time_releases_nothing() {
    for exact in [false, true] {
        let net = Net::new().await;
        let lease = net.far.acquire(&net.tag, &net.worker).await.unwrap();
        let held = net.proxy.hold_requests(containing("TEST-02"));
        let mut release = net.far.release(&net.tag, &net.worker).deadline(SHORT);
        if exact {
            release = release.fence(lease.fence);
        }
        let request = assert_release_ambiguous(release.await);
        net.time_is_over().await;
        let before = net.scripts_run();
        held.release();
        net.delivered(before).await;
        assert_eq!(net.occupant().await.map(|it| it.fence), Some(lease.fence), "exact: {exact}");
        assert!(!net.server.query::<String>(&["GET", &net.key("fence")]).contains(&request.to_string()));
    }
}

#[tokio::test]
async fn an_extend_that_arrives_after_its_time_changes_nothing() {
    let net = Net::new().await;
    let lease = net.far.acquire(&net.tag, &net.worker).ttl(minute()).await.unwrap();
    let held = net.proxy.hold_requests(containing("TEST-02"));
    let extended = net.far.extend(&net.tag, &net.worker, Ttl::HOUR).deadline(SHORT).await;
    assert!(matches!(extended, Err(ExtendError::Fault(_))), "{extended:?}");
    net.time_is_over().await;
    let before = net.scripts_run();
    held.release();
    net.delivered(before).await;
    assert!(net.left() <= minute().duration());
    assert_eq!(net.occupant().await.map(|it| it.fence), Some(lease.fence));
}

/// An operator's call has the deadline of the config, so this process is given a short one.
#[tokio::test]
async fn a_forced_release_that_arrives_after_its_time_ends_nothing() {
    let net = Net::new().await;
    let lease = net.near.acquire(&net.tag, &net.worker).await.unwrap();
    let mut config = Config::new(&net.proxy.url()).unwrap();
    config.deadline = SHORT;
    config.retry.attempts = 1;
    let far = SpoolLocks::connect(config).await.unwrap();
    let held = net.proxy.hold_requests(containing("TEST-02"));
    let forced = far.force_release(&net.tag, "operator", "test").await;
    assert!(matches!(forced, Err(ForceReleaseError::Fault(_))), "{forced:?}");
    net.time_is_over().await;
    let before = net.scripts_run();
    held.release();
    net.delivered(before).await;
    assert_eq!(net.occupant().await.map(|it| it.fence), Some(lease.fence));
}

/// What a caller who gave up is granted nevertheless is released, whenever it arrives before its time is over.
#[tokio::test]
async fn an_acquire_that_was_given_up_is_released_again() {
    let net = Net::new().await;
    let mut config = Config::new(&net.proxy.url()).expect("the address is right");
    config.pool.response_timeout = Duration::from_secs(30);
    config.pool.depth = 1;
    config.retry.attempts = 1;
    let far = SpoolLocks::connect(config).await.expect("the server is healthy");
    let held = net.proxy.hold_requests(containing("take"));
    let before = net.scripts_run();
    let call = far.acquire(&net.tag, &net.worker).note("take").deadline(Duration::from_secs(4));
    give_up(call.into_future(), &held).await;
    // By another connection it is looked for, and not found yet.
    net.delivered(before).await;
    assert_eq!(net.counter(), None);
    held.release();
    eventually(SOON, async || net.counter().is_some()).await;
    let fence = net.counter().and_then(Fence::new).expect("it arrived in time");
    eventually(Duration::from_secs(8), async || net.occupant().await.is_none()).await;
    assert!(net.near.acquire(&net.tag, &net.worker).await.unwrap().fence > fence);
}

/// The reply to each first try is lost, one way or the other; in the end each tag is held once, by its one fence.
#[tokio::test]
async fn a_storm_of_lost_replies_leaves_every_lock_with_its_one_fence() {
    let net = Net::new().await;
    for number in 0..20_u64 {
        let tag = Tag::new(format!("storm-{number}")).unwrap();
        let marker = format!("{{{tag}}}");
        let how = LOST[usize::try_from(number % 2).unwrap()];
        net.proxy.drop_replies(1, how, containing(&marker));
        let token = assert_ambiguous(net.far.acquire(&tag, &net.worker).deadline(SHORT).await);
        if how == LostReply::Swallow {
            net.silence_noticed(number.div_ceil(2)).await;
        }
        let lease = net.far.acquire(&tag, &net.worker).token(token).await.unwrap();
        assert_eq!(net.near.inspect(&tag).await.unwrap().value.map(|it| it.fence), Some(lease.fence));
        let counter: String = net.server.query(&["GET", &format!("spool:{marker}:fence")]);
        assert_eq!(counter, lease.fence.to_string());
    }
    assert_eq!(net.proxy.replies_dropped(), 20);
}

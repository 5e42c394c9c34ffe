//! A service whose Redis goes away and comes back, and what can be seen of what it had deferred.

use std::{error::Error, time::Duration};

use spool_lock::{
    CircuitState, Config, Event, Fence, Holder, Lease, LeaseEnd, Mode, PastLease, ReleaseError,
    ReleaseOutcome, RequestId, Schedule, Settlement, SpoolLocks, Tag, Ttl, Watch,
};
use tokio::time::{sleep, timeout};

use super::support::{FaultProxy, RedisServer, eventually, proxy::Close};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const SOON: Duration = Duration::from_secs(15);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn ttl(ttl: Duration) -> Ttl {
    Ttl::new(ttl).expect("a ttl")
}

pub(crate) fn tag(number: usize) -> Tag {
    Tag::new(format!("TEST-{number:05}")).expect("a tag")
}

pub(crate) fn worker() -> Holder {
    Holder::new("93", "MR(93)").expect("a holder")
}

pub(crate) fn stranger() -> Holder {
    Holder::new("7", "").expect("a holder")
}

/// Remembers the ends of leases, and is tried soon after an outage, however long that was.
pub(crate) fn config(url: &str) -> Config {
    let mut config = Config::new(url).expect("an address");
    config.history.enabled = true;
    config.circuit.open = Schedule::new(millis(50), millis(200));
    config
}

pub(crate) async fn connect(url: &str, tune: impl FnOnce(&mut Config)) -> SpoolLocks {
    let mut config = config(url);
    tune(&mut config);
    SpoolLocks::connect(config).await.expect("healthy")
}

/// An error and all that stands behind it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let (mut said, mut source) = (error.to_string(), error.source());
    while let Some(error) = source {
        said = format!("{said}: {error}");
        source = error.source();
    }
    said
}

#[track_caller]
pub(crate) fn assert_deferred(outcome: Result<ReleaseOutcome, ReleaseError>) -> RequestId {
    match outcome {
        Ok(ReleaseOutcome::Deferred { request }) => request,
        other => panic!("deferred was expected: {other:?}"),
    }
}

/// Long after a call that names no fence, which means what was granted until then: by the service's idea of the server's clock, which may
/// be fast by one way through the network.
pub(crate) async fn a_moment_later() {
    sleep(millis(300)).await;
}

/// What the stats say of deferred calls.
#[derive(Debug, PartialEq, Eq, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) waiting: u64,
    pub(crate) deferred: u64,
    pub(crate) refused: u64,
    pub(crate) applied: u64,
    pub(crate) ended: u64,
}

pub(crate) fn counts(locks: &SpoolLocks) -> Counts {
    let recovery = locks.stats().recovery;
    let settled = |settlement: Settlement| recovery.settled_total[settlement.as_str()];
    Counts {
        waiting: recovery.deferred,
        deferred: recovery.deferred_total,
        refused: recovery.deferred_refused_total,
        applied: settled(Settlement::Applied),
        ended: settled(Settlement::Ended),
    }
}

/// Waits until nothing is deferred any more.
pub(crate) async fn all_settled(locks: &SpoolLocks) -> Counts {
    eventually(SOON, async || counts(locks).waiting == 0).await;
    counts(locks)
}

/// The lease that stands, as the server says.
pub(crate) async fn standing(locks: &SpoolLocks, tag: &Tag) -> Option<Fence> {
    locks.inspect(tag).await.expect("it can be asked").value.map(|occupant| occupant.fence)
}

/// How often each of the last grants of a tag was released, oldest first, as the server remembers.
pub(crate) async fn releases(locks: &SpoolLocks, tag: &Tag) -> Vec<(Fence, bool)> {
    let past = locks.history(tag).await.expect("it can be asked").value;
    let is_released = |past: &PastLease| matches!(past.end, Some(LeaseEnd::Released { .. }));
    past.iter().map(|past| (past.occupant.fence, is_released(past))).collect()
}

/// The next deferred call of which is heard what became of it.
pub(crate) async fn next_settled(watch: &mut Watch) -> (RequestId, Settlement) {
    let search = async {
        loop {
            match &*watch.next().await.expect("the locks are there") {
                Event::Settled { request, settlement, .. } => return (*request, *settlement),
                Event::Missed { events } => panic!("{events} events were missed"),
                _ => {}
            }
        }
    };
    timeout(SOON, search).await.expect("it is settled")
}

/// A service whose way to a server is a proxy (`far`), and another whose way is good (`near`).
pub(crate) struct Net {
    pub(crate) server: RedisServer,
    pub(crate) proxy: FaultProxy,
    pub(crate) far: SpoolLocks,
    pub(crate) near: SpoolLocks,
}

impl Net {
    pub(crate) async fn open(tune: impl FnOnce(&mut Config)) -> Self {
        let server = RedisServer::start();
        let proxy = FaultProxy::before(&server);
        let (far, near) = (connect(&proxy.url(), tune).await, connect(&server.url(), |_| {}).await);
        // The server learns the script, so that a release is one command.
        let lease = near.acquire(&tag(99_998), &worker()).await.expect("it is free");
        near.release_lease(&lease).await.expect("it is held");
        Self { server, proxy, far, near }
    }

    /// Cuts the way, and returns when the service knows.
    pub(crate) async fn cut(&self) {
        self.proxy.refuse();
        self.proxy.close_all(Close::Rst);
        eventually(SOON, async || {
            let _ = self.far.inspect(&tag(99_999)).await;
            self.far.link_circuit().state() != CircuitState::Closed
        })
        .await;
    }

    /// Mends the way, and returns when all is settled.
    pub(crate) async fn mend(&self) -> Counts {
        self.proxy.heal();
        eventually(SOON, async || self.far.mode() == Mode::Normal).await;
        all_settled(&self.far).await
    }

    pub(crate) async fn acquired(&self, number: usize) -> Lease {
        self.far.acquire(&tag(number), &worker()).await.expect("it is free")
    }

    /// A lease whose release waits.
    pub(crate) async fn deferred(&self, number: usize) -> (Lease, RequestId) {
        let lease = self.acquired(number).await;
        self.cut().await;
        let request = assert_deferred(self.far.release_lease(&lease).await);
        (lease, request)
    }
}

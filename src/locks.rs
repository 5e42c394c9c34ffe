//! [`SpoolLocks`]: the front door.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio_util::sync::{CancellationToken, DropGuard};

#[cfg(feature = "snapshot")]
use crate::snapshot::SnapshotServer;
use crate::{
    Acquire, AcquireAll, AcquireGuard, Circuit, Config, Connect, ConnectError, Extend, Fault, FaultKind,
    ForceReleaseError, Health, Holder, Lease, Mode, Occupant, PastLease, ReadError, Reading, Release,
    RestoreError, RestoreOutcome, Snapshot, SnapshotEndpoint, Stats, Tag, Ttl, Watch, attempt,
    builder::Pending,
    dependency::Dependency,
    hub::Hub,
    inner::{Inner, Mailboxes},
    node::{ModeWatch, Purpose},
    prober, recovery, renewal,
    store::Topic,
    sweeper, waiters,
};

/// The locks of one prefix in one store. Cheap to clone; the clones share their connections.
///
/// A call under way has a slot on a connection until it is polled to its end or dropped. One that is kept and not polled keeps
/// the slot, and after a second its connection takes no other call.
///
/// # Examples
/// ```
/// use spool_lock::{Config, Holder, SpoolLocks, Tag};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let locks = SpoolLocks::connect(Config::new("memory://")?).await?;
/// let (tag, worker) = (Tag::new("TEST-02")?, Holder::new("93", "MR(93)")?);
///
/// let lease = locks.acquire(&tag, &worker).note("ARM").await?;
/// let occupant = locks.inspect(&tag).await?.value.expect("held");
/// assert_eq!((occupant.holder.name(), occupant.fence), ("MR(93)", lease.fence));
/// locks.release_lease(&lease).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SpoolLocks {
    front: Arc<Front>,
}

#[derive(Debug)]
struct Front {
    inner: Arc<Inner>,
    dependencies: Vec<Dependency>,
    /// Hears until the last clone is gone.
    _hub: Hub,
    /// Says that the last clone is gone.
    _gone: DropGuard,
    /// Serves snapshots until the last clone is gone.
    #[cfg(feature = "snapshot")]
    snapshots: Option<SnapshotServer>,
}

impl SpoolLocks {
    /// Checks the config, opens the first connection, looks at the server, and begins to serve snapshots where the config
    /// says so. What is wrong with the server but does not prevent locking stands in the log and in
    /// [`Stats::server`]`.warnings`.
    ///
    /// Must be awaited within a tokio runtime; the connections live on that runtime. Takes `connect_timeout` and one `deadline`
    /// at most, 10 s by default; where a [`deferred_log`](Connect::deferred_log) is to be read, one `deadline` more. Connect once and
    /// clone: each `connect` has connections of its own.
    ///
    /// # Errors
    /// [`ConnectError`] — a setting or the name of a dependency that cannot be used, a log that cannot be read, a server that is too
    /// old or cannot be reached, or a snapshot socket that cannot be opened.
    ///
    /// # Cancel safety
    /// Dropped, nothing stays open.
    pub fn connect(config: Config) -> Connect {
        Connect::new(config)
    }

    async fn open(connect: Connect) -> Result<Self, ConnectError> {
        let Connect { config, dependencies, doors } = connect;
        Dependency::check_names(&dependencies)?;
        let (inner, Mailboxes { errands, to_sweep, requests }) = Inner::connect(config, doors).await?;
        let inner = Arc::new(inner);
        tokio::spawn(waiters::keep(Arc::downgrade(&inner), errands));
        tokio::spawn(sweeper::keep(Arc::downgrade(&inner), to_sweep));
        tokio::spawn(renewal::keep(Arc::downgrade(&inner)));
        tokio::spawn(prober::keep(Arc::downgrade(&inner)));
        let gone = CancellationToken::new();
        tokio::spawn(recovery::keep(inner.clone(), gone.clone()));
        let hub = Hub::start(inner.clone(), requests, Hub::LINGER);
        Ok(Self { front: Arc::new(Front::open(inner, dependencies, hub, gone.drop_guard())?) })
    }

    /// Acquires the lock on `tag` for `holder`. Where somebody else has it, waits in line if [`wait`](Acquire::wait) says so.
    ///
    /// While this process recovers, it waits for its turn; where a release of `tag` on behalf of `holder` waits for Redis, for that. Both
    /// up to the deadline of the call, which ends in `Unavailable` then.
    ///
    /// # Errors
    /// [`AcquireError`](crate::AcquireError): `Contended` — somebody else has it. `AlreadyHeld` — this holder has it.
    /// `Ambiguous` — no clear answer came; its claim finds out, or cleans up. `Saturated`, `Limited`, `Unavailable`, `Misconfigured`,
    /// `Fault` — nothing was granted. `InvalidNote`.
    /// A wait whose time is over ends in `Contended` too; an acquire that says so has left no lock.
    ///
    /// # Cancel safety
    /// If dropped, what it may have been granted is released in the background, unless the call named its
    /// [`token`](Acquire::token): then it can be repeated. Where the process ends before that, it lasts its ttl. An acquire that
    /// reaches the server after the deadline of the call grants nothing.
    pub fn acquire<'a>(&'a self, tag: &'a Tag, holder: &'a Holder) -> Acquire<'a> {
        Acquire::new(&self.front.inner, tag, holder)
    }

    /// Acquires the locks on all of `tags` for `holder`, or none: where one refuses, those before it are given back. A tag that
    /// is named twice is acquired once. The leases come in the order of the tags as text, in which they are acquired too, so that
    /// two calls for the same tags never wait for each other.
    ///
    /// # Errors
    /// [`AcquireAllError`](crate::AcquireAllError) says which tag refused, and why: the variants of
    /// [`AcquireError`](crate::AcquireError).
    ///
    /// # Cancel safety
    /// If dropped, what was acquired is released in the background.
    pub fn acquire_all<'a>(&'a self, tags: &'a [Tag], holder: &'a Holder) -> AcquireAll<'a> {
        AcquireAll::new(&self.front.inner, tags, holder)
    }

    /// Acquires the lock on `tag` for `holder` and ties it to a value, which renews it and releases it when it is dropped. Where
    /// somebody else has it, waits in line if [`wait`](AcquireGuard::wait) says so.
    ///
    /// A guard belongs to one value; its holder says on whose behalf. Another guard of the same holder is refused or waits as
    /// anybody's does, and so does an [identity](Self::acquire) of that holder; no call for the one ends the other. It lasts 30 s after
    /// its last renewal and is held for 1 h at most by default.
    ///
    /// # Errors
    /// As for [`acquire`](Self::acquire), but never `AlreadyHeld`. The claim of `Ambiguous` settles to a lease that nobody renews: drop
    /// the claim, and what was granted is released.
    ///
    /// # Cancel safety
    /// If dropped, what it may have been granted is released in the background.
    pub fn guard<'a>(&'a self, tag: &'a Tag, holder: &'a Holder) -> AcquireGuard<'a> {
        AcquireGuard::new(&self.front.inner, tag, holder)
    }

    /// Acquires guards of all of `tags` for `holder`, or none, as [`acquire_all`](Self::acquire_all) does with leases: in the
    /// order of the tags as text, each tag once. Those that were acquired are renewed while the others are waited for; should one
    /// be lost meanwhile, its guard says so.
    ///
    /// # Errors
    /// [`AcquireAllError`](crate::AcquireAllError) says which tag refused, and why.
    ///
    /// # Cancel safety
    /// If dropped, what was acquired is released in the background.
    pub fn guard_all<'a>(&'a self, tags: &'a [Tag], holder: &'a Holder) -> AcquireGuard<'a, &'a [Tag]> {
        AcquireGuard::new(&self.front.inner, tags, holder)
    }

    /// Prolongs the lease that `holder` has on `tag`: it lasts `ttl` from now, or longer if it did so already.
    ///
    /// # Errors
    /// [`ExtendError`](crate::ExtendError): `NotHolder` — somebody else has it. `NotHeld` — the lease has ended; an extend never
    /// makes a new one. `Saturated`, `Misconfigured`, `Fault`; a `Fault` also while a release of `tag` on behalf of `holder` waits
    /// for Redis, which would end the lease nevertheless.
    ///
    /// # Cancel safety
    /// If dropped, the lease may have been extended.
    pub fn extend<'a>(&'a self, tag: &'a Tag, holder: &'a Holder, ttl: Ttl) -> Extend<'a> {
        Extend::new(&self.front.inner, tag, holder, ttl)
    }

    /// Releases the lease that `holder` has on `tag`; any process may do so on the holder's behalf.
    ///
    /// Where Redis cannot be asked, the release is [deferred](crate::ReleaseOutcome::Deferred): kept, in a
    /// [log](Connect::deferred_log) where there is one, and applied once Redis is back if this lease still stands then. While a release
    /// of the tag waits, those that follow wait behind it; while Redis is away, so do all.
    ///
    /// # Errors
    /// [`ReleaseError`](crate::ReleaseError): `NotHolder` — somebody else has it, nothing changed. `NotHeld` — the lease had
    /// ended. `NotDeferred` — Redis could not be asked, and the release was not kept. `Ambiguous` — no answer came that is understood;
    /// ask again with its request id. `Fault` — nothing was released; and where nothing is [deferred](Config::deferred) `Saturated`,
    /// `Misconfigured` as well.
    ///
    /// # Cancel safety
    /// If dropped, the lease may have been released, and may still be until the deadline of the call has passed; or it was deferred.
    pub fn release<'a>(&'a self, tag: &'a Tag, holder: &'a Holder) -> Release<'a> {
        Release::new(&self.front.inner, tag, holder)
    }

    /// Releases exactly this grant, and no later one.
    ///
    /// # Errors
    /// As for [`release`](Self::release).
    ///
    /// # Cancel safety
    /// As for [`release`](Self::release).
    pub fn release_lease<'a>(&'a self, lease: &'a Lease) -> Release<'a> {
        self.release(&lease.tag, &lease.holder).kind(lease.kind).fence(lease.fence)
    }

    /// Ends whatever lease stands on `tag`, on the word of an operator: `by` whom, and `why`, go to the log. Answers whose it
    /// was; `None` where what stood there was not a lock of ours. Those who watch the tag are told, `by` and `why` included; the
    /// process that acquired it hears that it is [`Lost`](crate::Event::Lost) if it watches and its subscription is not broken just
    /// then, otherwise at its next extend or release.
    ///
    /// # Errors
    /// [`ForceReleaseError`]: `NotHeld` — nobody holds it. `Saturated`, `Misconfigured`, `Fault`.
    ///
    /// # Cancel safety
    /// If dropped, the lease may have been ended, and nothing is logged.
    pub async fn force_release(
        &self,
        tag: &Tag,
        by: &str,
        why: &str,
    ) -> Result<Option<Occupant>, ForceReleaseError> {
        let outcome = attempt::force_release(&self.front.inner, tag, by, why).await;
        match &outcome {
            Ok(occupant) => {
                let holder = occupant.as_ref().map(|occupant| occupant.holder.id());
                tracing::warn!(tag = tag.as_str(), holder, by, why, "a lock was released by force");
            }
            Err(error) => {
                tracing::warn!(tag = tag.as_str(), by, why, %error, "a lock was not released by force")
            }
        }
        outcome
    }

    /// Puts back which of `leases` Redis has lost; says of each, in their order, what became of it.
    ///
    /// A lease is put back as it was (holder, kind, fence, since, note) for what is left of its time, under its own token or a new one,
    /// where the tag is free and remembers no fence as high: a tag that does has not lost this lease, which had ended. So a stale
    /// ledger brings back nothing that was released, expired or ended by force, unless Redis has lost that fence too; to call it twice
    /// does no harm. Who waits for the tag waits on. A note that an [`acquire`](Self::acquire) would refuse is left out.
    ///
    /// A [`LeaseSource`](crate::LeaseSource) has this done by itself whenever it is needed. Up to 16 calls are under way at once, each
    /// of which takes the config's deadline at most.
    ///
    /// # Errors
    /// [`RestoreError`]: `Unavailable`, `Saturated`, `Misconfigured`, `Fault`. Some may have been put back by then: call again.
    ///
    /// # Cancel safety
    /// If dropped, some may have been put back.
    pub async fn restore(&self, leases: &[Lease]) -> Result<Vec<RestoreOutcome>, RestoreError> {
        let mut outcomes = Vec::with_capacity(leases.len());
        attempt::restore(&self.front.inner, leases, |_, outcome| outcomes.push(outcome)).await?;
        Ok(outcomes)
    }

    /// Says who holds `tag`; `None`: nobody does, or did when it was last seen.
    ///
    /// Where Redis cannot be asked, it is answered with what this process last knew, up to [`Config::snapshot_max_age`] old, or else
    /// with what the [fallback](Connect::read_fallback) says. Only a reading from [`Source::Live`](crate::Source::Live) was asked of
    /// the store; no other is proof that a tag is free.
    ///
    /// # Errors
    /// [`ReadError`]: `Saturated`, `Unavailable`, `Misconfigured`, `Fault`. Nothing is called free because Redis could not be asked.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn inspect(&self, tag: &Tag) -> Result<Reading<Option<Occupant>>, ReadError> {
        attempt::inspect(&self.front.inner, tag).await
    }

    /// Lists who holds which tag of this prefix, in the order of the tags.
    ///
    /// Where Redis cannot be asked, it is answered as [`inspect`](Self::inspect) is, if all locks were listed before.
    ///
    /// Walks the whole key space of the server, 200 keys a step (some 50 µs of its time each), on a connection that carries
    /// nothing else meanwhile. On a shared Redis with a million other keys that is 5,000 steps: not for every request. A lock
    /// that is taken or released during the walk may or may not be listed.
    ///
    /// # Errors
    /// [`ReadError`]: `Saturated`, `Unavailable`, `Misconfigured`, `Fault`; a walk that is not finished by the deadline is a
    /// [`Timeout`](crate::FaultKind::Timeout) or a [`CheckoutTimeout`](crate::FaultKind::CheckoutTimeout).
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn list(&self) -> Result<Reading<Vec<Occupant>>, ReadError> {
        attempt::list(&self.front.inner).await
    }

    /// Hears what happens to `tag` from the return of this call on.
    ///
    /// All watches and waiters of a process share one connection, opened with the first and closed a minute after the last.
    /// Beside what the holders do, it is told when a lease expires (asked for when it is due, so within a round trip or two)
    /// and when a lease that this process acquired is lost. Takes the config's deadline at most.
    ///
    /// # Errors
    /// [`ReadError`]: `Saturated`, `Unavailable`, `Misconfigured`, `Fault`: the subscription could not be made, or how things stand
    /// could not be asked.
    ///
    /// # Cancel safety
    /// If dropped, nothing is heard.
    pub async fn watch_tag(&self, tag: &Tag) -> Result<Watch, ReadError> {
        self.hear(Topic::Tag(tag.clone())).await
    }

    /// Hears what happens to any tag of this prefix, as [`watch_tag`](Self::watch_tag) does for one.
    ///
    /// Begins, as the first of its process, with a [`list`](Self::list), and does so again when the subscription was broken: on
    /// a shared Redis with a million other keys, watch the tags that matter.
    ///
    /// # Errors
    /// As for [`watch_tag`](Self::watch_tag).
    ///
    /// # Cancel safety
    /// As for [`watch_tag`](Self::watch_tag).
    pub async fn watch(&self) -> Result<Watch, ReadError> {
        self.hear(Topic::All).await
    }

    async fn hear(&self, topic: Topic) -> Result<Watch, ReadError> {
        let inner = &self.front.inner;
        // Where Redis is not asked, nothing could be heard.
        inner.node.admit(Purpose::Read, tokio::time::Instant::now()).map(drop)?;
        let watch = tokio::time::timeout(inner.config.deadline, inner.hearing.watch(topic)).await;
        Ok(watch.unwrap_or_else(|_| Err(Fault::from(FaultKind::Timeout)))?)
    }

    /// What is remembered of past grants of `tag`, oldest first, with how each ended; the last one may still stand.
    ///
    /// Empty where no history is kept, which is the default ([`Config::history`]); what is kept is bounded in number and time.
    ///
    /// # Errors
    /// [`ReadError`]: `Saturated`, `Unavailable`, `Misconfigured`, `Fault`.
    ///
    /// # Cancel safety
    /// Reads only.
    pub async fn history(&self, tag: &Tag) -> Result<Reading<Vec<PastLease>>, ReadError> {
        attempt::history(&self.front.inner, tag).await
    }

    /// What can be done now. Asks nobody: it is what the calls of this process, and its probes in the background, have met.
    pub fn mode(&self) -> Mode {
        self.front.inner.node.mode()
    }

    /// Hears of each change of the [`mode`](Self::mode) from now on.
    pub fn watch_mode(&self) -> ModeWatch {
        ModeWatch::of(&self.front.inner.node)
    }

    /// The circuit of the link to Redis: while it is open, acquires and live reads are refused without asking, and one script at a
    /// time is tried in the background. Releases and extends pass, also where it was opened by hand; but nothing does where the
    /// password, the rights or the certificates are at fault.
    pub fn link_circuit(&self) -> &Circuit {
        &self.front.inner.node.link
    }

    /// The circuit of the writes: while it is open, Redis answers and takes no writes, and acquires are refused without asking.
    pub fn writes_circuit(&self) -> &Circuit {
        &self.front.inner.node.writes
    }

    /// What this process counts, and the state of its pool now. Asks nobody.
    pub fn stats(&self) -> Stats {
        self.front.inner.stats()
    }

    /// The stats in the form that the exporter reads.
    pub fn snapshot(&self) -> Snapshot {
        self.front.inner.snapshot()
    }

    /// Where snapshots are served, with the port that was chosen; `None` where they are not.
    pub fn snapshot_endpoint(&self) -> Option<&SnapshotEndpoint> {
        #[cfg(feature = "snapshot")]
        return self.front.snapshots.as_ref().map(SnapshotServer::local_endpoint);
        #[cfg(not(feature = "snapshot"))]
        None
    }

    /// Finds out whether locks can be taken now, and whether the [dependencies](Connect::dependency) work. Takes 1 s at most.
    ///
    /// Asks Redis by a script that is refused wherever an acquire would be (on a replica, without memory, disk, replicas or rights),
    /// also while a circuit is open; not where an operator has opened the link or has to act first: then it says so. Beside it asks
    /// each dependency, unless that has just failed three times in a row.
    ///
    /// # Cancel safety
    /// Changes nothing. Checks of dependencies that are under way are dropped, and count neither way.
    pub async fn health(&self) -> Health {
        let Front { inner, dependencies, .. } = &*self.front;
        let said = join_all(dependencies.iter().map(Dependency::ask));
        let (asked, said) = tokio::join!(attempt::health(inner), said);
        let mode = inner.node.mode_by(asked.as_ref().err());
        let health = Health::new(asked.as_ref().err(), mode, inner.store.pool().report);
        let names = dependencies.iter().map(Dependency::name);
        names.zip(said).fold(health, |health, (name, said)| health.with_dependency(name, said))
    }
}

impl IntoFuture for Connect {
    type Output = Result<SpoolLocks, ConnectError>;
    type IntoFuture = Pending<'static, SpoolLocks, ConnectError>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(SpoolLocks::open(self))
    }
}

impl Front {
    #[cfg(feature = "snapshot")]
    fn open(
        inner: Arc<Inner>,
        dependencies: Vec<Dependency>,
        hub: Hub,
        gone: DropGuard,
    ) -> Result<Self, ConnectError> {
        let serve = |endpoint: &SnapshotEndpoint| {
            let source = inner.clone();
            SnapshotServer::start(endpoint, move || source.snapshot())
                .map_err(|source| ConnectError::Snapshot { at: endpoint.to_string(), source })
        };
        let snapshots = inner.config.snapshot.as_ref().map(serve).transpose()?;
        Ok(Self { inner, dependencies, _hub: hub, _gone: gone, snapshots })
    }

    #[cfg(not(feature = "snapshot"))]
    fn open(
        inner: Arc<Inner>,
        dependencies: Vec<Dependency>,
        hub: Hub,
        gone: DropGuard,
    ) -> Result<Self, ConnectError> {
        if let Some(endpoint) = &inner.config.snapshot {
            let source = std::io::Error::other("needs the feature snapshot");
            return Err(ConnectError::Snapshot { at: endpoint.to_string(), source });
        }
        Ok(Self { inner, dependencies, _hub: hub, _gone: gone })
    }
}

#[cfg(feature = "prometheus")]
impl SpoolLocks {
    /// A collector for a `prometheus` registry of the process, in place of or beside the exporter.
    pub fn collector(&self) -> crate::compat::prometheus0_14::Collector {
        let inner = self.front.inner.clone();
        crate::compat::prometheus0_14::Collector::new(move || inner.snapshot())
    }
}

//! [`Inner`]: what the clones of a [`SpoolLocks`](crate::SpoolLocks) share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

#[cfg(feature = "rate-limit")]
use crate::limits::Limits;
use crate::{
    AcquireError, Claim, Config, ConnectError, DeferredLog, Fence, Lease, LeaseSource, LostReason, Occupant,
    ReadFallback, Snapshot, Stats, Tag,
    abandoned::Abandoned,
    admission::Admission,
    backlog::Backlog,
    grant::Grant,
    hearing::{Hearing, Request},
    held::{Held, Over},
    known::Known,
    lines::{Errand, Lines, Waiting},
    meter::{LockMeter, RecoveryMeter},
    node::Node,
    roster::Roster,
    server::Server,
    store::{AnyStore, Ask, Store as _},
    time::from_unix_millis,
    token::random_byte,
};

/// What the lines of this crate are made of: calls that wait for a tag.
#[derive(Debug)]
pub(crate) struct ForLock;

impl Waiting for ForLock {
    type Key = Tag;
    type Ask = Ask;
    type Answer = Told;
    type Sight = Sight;

    fn ambiguous(_: &Ask) -> Told {
        Told::Ambiguous
    }
}

/// What somebody who waits is told.
#[derive(Debug)]
pub(crate) enum Told {
    Granted(Grant),
    Refused(AcquireError),
    /// Nobody knows.
    Ambiguous,
}

/// Who holds a tag, and when their lease ends unless it is extended or released.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    pub(crate) occupant: Arc<Occupant>,
    pub(crate) ends: Instant,
}

impl Sight {
    pub(crate) fn new(occupant: Occupant, expires_in: Duration) -> Self {
        Self { occupant: Arc::new(occupant), ends: Instant::now() + expires_in }
    }

    /// Whether it is the lease of whoever asks.
    pub(crate) fn is_of(&self, ask: &Ask) -> bool {
        ask.is_by(&self.occupant.holder, self.occupant.kind)
    }
}

/// What is asked of the keepers, whom this floor may not call.
#[derive(Debug)]
pub(crate) struct Mailboxes {
    /// What the lines want done: for their keepers.
    pub(crate) errands: Errands,
    /// For the sweeper.
    pub(crate) to_sweep: mpsc::UnboundedReceiver<ToSweep>,
    /// For the hub.
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
}

/// Something abandoned, on its way to the sweeper.
#[derive(Debug)]
pub(crate) struct ToSweep {
    pub(crate) abandoned: Abandoned,
    /// The last guard may outlive every clone of the locks: what they share is needed until it is released.
    pub(crate) keeps: Option<Arc<Inner>>,
}

pub(crate) type Errands = mpsc::UnboundedReceiver<Errand<ForLock>>;

/// What a user has put behind the locks.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    /// Who is asked who holds what when Redis cannot be.
    pub(crate) fallback: Option<Box<dyn ReadFallback>>,
    /// Where deferred calls survive the process; the backlog takes it.
    pub(crate) log: Option<Arc<dyn DeferredLog>>,
    /// Who is asked which leases are to stand.
    pub(crate) source: Option<Arc<dyn LeaseSource>>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: AnyStore,
    pub(crate) node: Node,
    pub(crate) meter: Arc<LockMeter>,
    pub(crate) known: Known,
    pub(crate) hearing: Hearing,
    pub(crate) lines: Lines<ForLock>,
    pub(crate) roster: Roster,
    pub(crate) doors: Doors,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) admission: Admission,
    pub(crate) server: Server,
    pub(crate) recovery: RecoveryMeter,
    #[cfg(feature = "rate-limit")]
    pub(crate) limits: Limits,
    to_sweep: mpsc::UnboundedSender<ToSweep>,
    started_at: SystemTime,
    seq: AtomicU64,
}

impl Inner {
    pub(crate) async fn connect(config: Config, mut doors: Doors) -> Result<(Self, Mailboxes), ConnectError> {
        config.check()?;
        let meter = Arc::new(LockMeter::default());
        let bell = Arc::new(Notify::new());
        let backlog = Backlog::new(config.deferred, doors.log.take(), bell.clone());
        backlog.load(config.deadline).await.map_err(ConnectError::DeferredLog)?;
        let store = config.open_store(meter.clone()).await?;
        // What was left to be done comes before what is new.
        let has_nothing_to_do = backlog.is_empty() && doors.source.is_none();
        let (lines, errands) = Lines::new(config.wait.line as usize);
        let (hearing, requests) = Hearing::new();
        let (sender, to_sweep) = mpsc::unbounded_channel();
        let (known, roster) = (Known::default(), Roster::default());
        let node = Node::new(config.circuit.clone(), config.retry.clone());
        let server = Server::new(store.report().run_id);
        let inner = Self {
            #[cfg(feature = "rate-limit")]
            limits: Limits::new(config.limits.per_holder, config.limits.per_tag, Instant::now()),
            config,
            store,
            node,
            meter,
            known,
            hearing,
            lines,
            roster,
            doors,
            backlog: Arc::new(backlog),
            admission: Admission::new(has_nothing_to_do, bell),
            server,
            recovery: RecoveryMeter::default(),
            to_sweep: sender,
            started_at: SystemTime::now(),
            seq: AtomicU64::new(0),
        };
        Ok((inner, Mailboxes { errands, to_sweep, requests }))
    }

    /// Has it found out what was granted, and released.
    pub(crate) fn abandon(&self, abandoned: Abandoned) {
        // Without a sweeper the process is about to end.
        let _ = self.to_sweep.send(ToSweep { abandoned, keeps: None });
    }

    /// As [`abandon`](Self::abandon), by somebody who may be the last to have this: it is kept until that is done.
    pub(crate) fn abandon_last(self: &Arc<Self>, abandoned: Abandoned) {
        let _ = self.to_sweep.send(ToSweep { abandoned, keeps: Some(self.clone()) });
    }

    /// A lease has ended, and not by a release of this process: that is counted, and its guard told, by whoever says so first. None
    /// where this process had not acquired it.
    pub(crate) fn lose(
        &self,
        tag: &Tag,
        fence: Fence,
        reason: LostReason,
    ) -> Option<Result<LostReason, Over>> {
        let lost = self.known.lose(tag, fence, reason);
        if let Some(Ok(reason)) = lost {
            self.meter.lost(reason);
        }
        lost
    }

    /// As [`lose`](Self::lose), of a guard's lock. Says whether this was the first to say so.
    pub(crate) fn lose_guard(&self, held: &Held, reason: LostReason) -> bool {
        let Ok(reason) = held.lose(reason, Instant::now) else { return false };
        let Lease { tag, fence, .. } = held.lease();
        self.known.lose(tag, *fence, reason);
        self.meter.lost(reason);
        true
    }

    /// A lock that a guard counted on until now was found to be somebody else's.
    pub(crate) fn overlap(&self, tag: &Tag, fence: Fence) {
        tracing::error!(tag = tag.as_str(), %fence, "a lock that a guard counts on is somebody else's: both have held it");
        self.recovery.overlaps.add_one();
    }

    /// A claim to what `ask` was granted, or is yet to be until then.
    pub(crate) fn claim(&self, ask: Arc<Ask>, is_named: bool, until: Instant) -> Claim {
        let (claim, owner) = Claim::new(ask.token, is_named);
        self.abandon(Abandoned::Claimed { ask, until, owner });
        claim
    }

    /// What stands in the way of a line, and how long until its keeper looks again.
    pub(crate) fn sight(&self, occupant: Occupant, expires_in: Duration) -> (Sight, Duration) {
        (Sight::new(occupant, expires_in), self.until_next_look(expires_in))
    }

    /// How long until the keeper of a line looks again: at the poll, or when the lease that stands in the way ends.
    fn until_next_look(&self, expires_in: Duration) -> Duration {
        let poll = self.config.wait.poll;
        // Up to a fifth later, so that processes do not look all at once.
        let later = poll * u32::from(random_byte()) / (5 * 255);
        // At its very end the lease may still stand.
        (poll + later).min(expires_in + Duration::from_millis(1))
    }

    /// When no call that has been made by now is carried out any more, and no place that one has taken is served.
    pub(crate) fn until_all_is_over(&self) -> Instant {
        Instant::now() + self.config.deadline + self.config.wait.place()
    }

    /// What the server's clock shows now at the latest.
    pub(crate) fn server_now(&self) -> SystemTime {
        from_unix_millis(self.store.now_micros() / 1000)
    }

    /// Whether acquires pass.
    pub(crate) fn is_open(&self) -> bool {
        self.admission.is_open(self.store.breaks())
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut server = self.store.report();
        if let Some(run) = self.server.run() {
            server.run_id = run;
        }
        let mut recovery = self.recovery.read(!self.is_open());
        self.backlog.read(&mut recovery);
        Stats {
            pool: self.store.pool(),
            locks: self.meter.read(self.lines.waiting() as u64, self.roster.count(Instant::now())),
            server,
            faults: self.node.read(self.meter.degraded_reads()),
            recovery,
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let Stats { pool, locks, server, faults, recovery } = self.stats();
        Snapshot {
            schema: Snapshot::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            seq: self.seq.fetch_add(1, Relaxed) + 1,
            started_at: self.started_at,
            generated_at: SystemTime::now(),
            pools: vec![pool],
            locks,
            server,
            faults,
            recovery,
        }
    }
}

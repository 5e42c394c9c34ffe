//! [`Inner`]: what the clones of a [`SpoolLocks`](crate::SpoolLocks) share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc, time::Instant};

#[cfg(feature = "rate-limit")]
use crate::limits::Limits;
use crate::{
    AcquireError, Claim, Config, ConnectError, Fence, Lease, LostReason, Occupant, ReadFallback, Snapshot,
    Stats, Tag,
    abandoned::Abandoned,
    grant::Grant,
    hearing::{Hearing, Request},
    held::{Held, Over},
    known::Known,
    lines::{Errand, Lines, Waiting},
    meter::LockMeter,
    node::Node,
    roster::Roster,
    store::{AnyStore, Ask},
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
    /// Who is asked who holds what when Redis cannot be.
    pub(crate) fallback: Option<Box<dyn ReadFallback>>,
    #[cfg(feature = "rate-limit")]
    pub(crate) limits: Limits,
    to_sweep: mpsc::UnboundedSender<ToSweep>,
    started_at: SystemTime,
    seq: AtomicU64,
}

impl Inner {
    pub(crate) async fn connect(
        config: Config,
        fallback: Option<Box<dyn ReadFallback>>,
    ) -> Result<(Self, Mailboxes), ConnectError> {
        config.check()?;
        let meter = Arc::new(LockMeter::default());
        let store = config.open_store(meter.clone()).await?;
        let (lines, errands) = Lines::new(config.wait.line as usize);
        let (hearing, requests) = Hearing::new();
        let (sender, to_sweep) = mpsc::unbounded_channel();
        let (known, roster) = (Known::default(), Roster::default());
        let node = Node::new(config.circuit.clone(), config.retry.clone());
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
            fallback,
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

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            pool: self.store.pool(),
            locks: self.meter.read(self.lines.waiting() as u64, self.roster.count(Instant::now())),
            server: self.store.report(),
            faults: self.node.read(self.meter.degraded_reads()),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let Stats { pool, locks, server, faults } = self.stats();
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
        }
    }
}

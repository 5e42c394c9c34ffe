//! [`Event`]: what happened, as those hear it who watch.

use std::time::{Duration, SystemTime};

use crate::{Fence, Holder, LostReason, Occupant, RecoveryPhase, RequestId, Settlement, Tag};

/// What happened to a tag, to the server or to this process. Every time is the server's.
///
/// An occupant is the lease that the event is about, as it was then. Of a lease that has ended, `expires_at` is the moment of its
/// end where that was heard, and otherwise (it expired, or the subscription was broken) the moment at which it was to end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "event", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Event {
    /// A lease was granted.
    Taken {
        /// The new lease.
        occupant: Occupant,
        /// When.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// A lease was extended or shortened.
    Extended {
        /// The lease as it is now.
        occupant: Occupant,
        /// When.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// A lease was released; or it has ended and nobody heard how, while the subscription was broken: an operator may have ended
    /// it. No [`Lost`](Self::Lost) follows then, because another process may have released it for the same holder; who goes on
    /// with the lease learns it from his next extend.
    Released {
        /// The lease that has ended.
        occupant: Occupant,
        /// When.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// A lease ended by itself.
    Expired {
        /// The lease that has ended.
        occupant: Occupant,
        /// When that was noticed.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// An operator ended a lease.
    Forced {
        /// The lease that has ended.
        occupant: Occupant,
        /// The operator's name.
        by: String,
        /// The operator's reason.
        why: String,
        /// When.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// A lease that this process had acquired ended without its release, as far as was heard.
    Lost {
        /// The lease that has ended.
        occupant: Occupant,
        /// How it was lost.
        reason: LostReason,
        /// When that was noticed.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// A call that this process, or an earlier one with the same log, had [deferred](crate::ReleaseOutcome::Deferred) is done with.
    Settled {
        /// What is locked.
        tag: Tag,
        /// On whose behalf it was.
        holder: Holder,
        /// The grant that it named; `None` where it meant the one that stood when it was made.
        fence: Option<Fence>,
        /// Its name.
        request: RequestId,
        /// What became of it.
        settlement: Settlement,
        /// When.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// Another run of the server answers than before; it may have its data. Those who watch all tags are told.
    ServerRestarted {
        /// When that was noticed.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// The server has lost what it knew of locks: it was restarted without its data, or flushed. Those who watch all tags are told.
    DataLost {
        /// When that was noticed.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// This process has gone through a phase of its recovery. Those who watch all tags are told.
    Recovered {
        /// Which one.
        phase: RecoveryPhase,
        /// What was done: in `Verify` leases that stand, in `Deferred` calls that were settled, in `Restore` leases that were put back,
        /// in `Admit` acquires that were answered.
        done: u64,
        /// What was not: in `Verify` leases that do not stand, in `Deferred` calls that still wait, in `Restore` leases that could not
        /// be put back; 0 in `Admit`.
        left: u64,
        /// How long it took.
        took: Duration,
        /// When it was over.
        #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
        at: SystemTime,
    },
    /// This watcher was too slow, and so many events are gone for it.
    Missed {
        /// How many.
        events: u64,
    },
}

impl Event {
    /// The event's name in snake case, as JSON has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "taken",
            Self::Extended { .. } => "extended",
            Self::Released { .. } => "released",
            Self::Expired { .. } => "expired",
            Self::Forced { .. } => "forced",
            Self::Lost { .. } => "lost",
            Self::Settled { .. } => "settled",
            Self::ServerRestarted { .. } => "server_restarted",
            Self::DataLost { .. } => "data_lost",
            Self::Recovered { .. } => "recovered",
            Self::Missed { .. } => "missed",
        }
    }

    /// The lease that it is about, where it is about one.
    pub fn occupant(&self) -> Option<&Occupant> {
        match self {
            Self::Taken { occupant, .. }
            | Self::Extended { occupant, .. }
            | Self::Released { occupant, .. }
            | Self::Expired { occupant, .. }
            | Self::Forced { occupant, .. }
            | Self::Lost { occupant, .. } => Some(occupant),
            Self::Settled { .. }
            | Self::ServerRestarted { .. }
            | Self::DataLost { .. }
            | Self::Recovered { .. }
            | Self::Missed { .. } => None,
        }
    }

    /// The tag that it is about, where it is about one.
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            Self::Settled { tag, .. } => Some(tag),
            _ => self.occupant().map(|occupant| &occupant.tag),
        }
    }

    /// When it happened; none for [`Missed`](Self::Missed).
    pub fn at(&self) -> Option<SystemTime> {
        match *self {
            Self::Taken { at, .. }
            | Self::Extended { at, .. }
            | Self::Released { at, .. }
            | Self::Expired { at, .. }
            | Self::Forced { at, .. }
            | Self::Lost { at, .. }
            | Self::Settled { at, .. }
            | Self::ServerRestarted { at }
            | Self::DataLost { at }
            | Self::Recovered { at, .. } => Some(at),
            Self::Missed { .. } => None,
        }
    }
}

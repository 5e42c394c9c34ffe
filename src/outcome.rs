//! [`ReleaseOutcome`], [`ShortenOutcome`] and [`RestoreOutcome`]: what became of a call that did what it was asked.

use crate::{Fence, Lease, Occupant, RequestId};

/// What became of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseOutcome {
    /// The lease has ended.
    Released,
    /// Redis could not be asked. It will be, and the lease ended then if it still stands; nothing needs to be repeated. Those who watch
    /// are told by [`Event::Settled`](crate::Event::Settled) what became of it.
    Deferred {
        /// The name of the call.
        request: RequestId,
    },
}

/// What became of an extend downwards.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShortenOutcome {
    /// The lease as it stands now.
    Shortened(Lease),
    /// Redis could not be asked. It will be: if the lease still stands then, it ends when it was to end, or is released where that time
    /// has come. Those who watch are told by [`Event::Settled`](crate::Event::Settled) what became of it.
    Deferred {
        /// The name of the call.
        request: RequestId,
    },
}

/// What became of a lease that was to be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreOutcome {
    /// It was put back, and stands as it is here, with the token of this grant.
    Restored(Lease),
    /// It was not lost: it stands as it is here.
    Stood(Occupant),
    /// Somebody else has the tag by now, or the same holder under another fence.
    Occupied(Occupant),
    /// It had ended: its time is over, or the tag remembers this fence or a higher one, so nothing of it was lost.
    Ended {
        /// The last fence of the tag that the server remembers.
        last: Option<Fence>,
    },
}

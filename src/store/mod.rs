//! The cellar: where locks are kept. The only rooms that know Redis.
//!
//! [`Store`] is the seam between what a lock means and where it is kept. Its implementations answer alike: one suite
//! (`tests/conformance.rs`) runs against each from the front door, and one (`suite`) from here.

mod any;
mod classify;
#[cfg(feature = "memory")]
mod memory;
mod news;
pub(crate) mod pool;
mod redis;
#[cfg(test)]
mod suite;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::{
    any::AnyStore,
    news::{FEED_CAPACITY, Feed, News, Topic, Topics},
    redis::{Settings, check},
};

use crate::{Event, Fault, Fence, Holder, Lease, LeaseKind, Occupant, RequestId, Tag, Token, Ttl};

/// What an acquire asks for. It outlives its caller where it waits in line.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) tag: Tag,
    pub(crate) holder: Holder,
    pub(crate) kind: LeaseKind,
    pub(crate) token: Token,
    pub(crate) ttl: Ttl,
    pub(crate) note: String,
}

impl Ask {
    /// Whether a lease is that of the identity who asks, which is told of it and does not wait for it. A guard is one value's: it
    /// waits for another guard of its holder as for anybody's.
    pub(crate) fn is_by(&self, holder: &Holder, kind: LeaseKind) -> bool {
        [self.kind, kind] == [LeaseKind::Identity; 2] && self.holder == *holder
    }
}

/// Which lease an extend or a release means.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) tag: &'a Tag,
    pub(crate) holder: &'a Holder,
    pub(crate) kind: LeaseKind,
    /// Exactly this grant; otherwise the one that stands, if it was granted before the call was made.
    pub(crate) fence: Option<Fence>,
}

impl<'a> Whose<'a> {
    /// Exactly this lease.
    pub(crate) fn of(lease: &'a Lease) -> Self {
        let Lease { tag, holder, kind, fence, .. } = lease;
        Self { tag, holder, kind: *kind, fence: Some(*fence) }
    }

    /// Whether this may be the lease that is meant: one of this holder, held in this way, under the fence that is named.
    pub(crate) fn means(&self, occupant: &Occupant) -> bool {
        occupant.holder == *self.holder
            && occupant.kind == self.kind
            && self.fence.is_none_or(|fence| occupant.fence == fence)
    }
}

#[derive(Debug)]
pub(crate) enum Acquired {
    /// For its whole ttl from now.
    Granted(Lease),
    /// The token holds since an earlier call, for what is left.
    Adopted {
        lease: Lease,
        expires_in: Duration,
    },
    /// The same identity has it, by another call.
    AlreadyHeld(Lease),
    Contended {
        occupant: Occupant,
        expires_in: Duration,
    },
    /// The server has just started, and nothing is known of the tag: whoever had it may not have it back yet.
    Warming {
        /// When to ask again; [`Rules::restart_grace`] at most.
        rest: Duration,
    },
}

/// What an extend does to the end of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It never shortens the lease.
    AtLeast,
    Exactly,
    /// It never prolongs the lease.
    AtMost,
}

#[derive(Debug)]
pub(crate) enum Extended {
    Extended {
        lease: Lease,
        /// What was left before.
        margin: Duration,
    },
    Not(NotYours),
}

#[derive(Debug)]
pub(crate) enum Released {
    Released {
        /// How long it was held; unknown where this request had released it before.
        held: Option<Duration>,
    },
    Not(NotYours),
}

/// Why a lease could not be touched.
#[derive(Debug)]
pub(crate) enum NotYours {
    /// Another holder, another kind, or a fence that the call may not touch.
    Occupied(Occupant),
    Free {
        last: Option<Fence>,
    },
}

impl NotYours {
    /// Whether the tag is free and remembers neither this fence, which was granted, nor a later one: the store has lost what it knew
    /// of that grant, or that is long ago.
    pub(crate) fn forgets(&self, fence: Fence) -> bool {
        matches!(self, Self::Free { last } if last.is_none_or(|last| last < fence))
    }
}

/// What became of a lease that was to be put back.
#[derive(Debug)]
#[expect(
    clippy::enum_variant_names,
    reason = "what was asked for is named as in its siblings, which have fewer variants"
)]
pub(crate) enum Restored {
    /// It stands again, as it is here.
    Restored(Lease),
    /// It was not lost: this very lease stands, as it did before.
    Stands(Occupant),
    /// Somebody has the lock, or the lease had ended, or a later one was granted since.
    Not(NotYours),
}

#[derive(Debug)]
pub(crate) enum Forced {
    /// What was ended; `None` where it was no lock.
    Ended(Option<Occupant>),
    Free {
        last: Option<Fence>,
    },
}

/// What an inspect found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Held(Occupant),
    Free {
        /// The last fence that is remembered.
        last: Option<Fence>,
    },
}

impl Seen {
    /// Who has it.
    pub(crate) fn occupant(self) -> Option<Occupant> {
        match self {
            Self::Held(occupant) => Some(occupant),
            Self::Free { .. } => None,
        }
    }

    /// The fence of the lease that stands, or of the last one that is remembered.
    pub(crate) fn fence(&self) -> Option<Fence> {
        match self {
            Self::Held(occupant) => Some(occupant.fence),
            Self::Free { last } => *last,
        }
    }
}

/// What a look from the queue found.
#[derive(Debug)]
pub(crate) enum Queued {
    /// The token holds, for its whole ttl from now.
    Granted(Lease),
    /// The token that had this process's place before was granted the lock meanwhile, and has yet to confirm.
    GrantedBefore(Lease),
    /// The same holder has it, by another call. This look takes no place; one that its token had before stays until it is left.
    AlreadyHeld(Lease),
    /// Somebody else has it, or comes first; this process has its place.
    Waits { occupant: Occupant, expires_in: Duration },
    /// As [`Acquired::Warming`]; this process has no place.
    Warming { rest: Duration },
}

/// What became of a release that hands the lock on.
#[derive(Debug)]
pub(crate) enum HandedOver {
    /// Released, and the next one has it.
    Granted {
        held: Option<Duration>,
        lease: Lease,
    },
    /// Released, and it was another process's turn; the next one has this process's place in the queue.
    Passed {
        held: Option<Duration>,
        occupant: Occupant,
        expires_in: Duration,
    },
    /// This request had released it before, and grants nothing now.
    Repeated,
    Not(NotYours),
}

/// What a store does beside the locks themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// How long the place of a process in a queue lasts unless it looks again. After half of that the process does not count as
    /// living, and is passed over until it looks.
    pub(crate) place: Duration,
    /// How many grants of a tag are remembered, and how long.
    pub(crate) history: Option<(u32, Duration)>,
    /// Whether calls are sent again after a fault, for which half of their time is left.
    pub(crate) tries_again: bool,
    /// For how long after its start a server without a fence of a tag grants that tag to nobody, so that what it has lost can be
    /// put back first; zero: not at all.
    pub(crate) restart_grace: Duration,
}

/// How long a witness lasts: it is to outlive every pause of a process, and not the process for ever.
pub(crate) const WITNESS_LASTS: Duration = Duration::from_secs(24 * 3600);

/// Where locks are kept. No call outlives its deadline by more than the time to notice it.
pub(crate) trait Store {
    /// Grants the lock, adopts a grant of the same token, or says who has it. Those who stand in the queue come first: a lock
    /// that is found free is granted to the first of them.
    fn acquire(&self, ask: &Ask, deadline: Instant) -> impl Future<Output = Result<Acquired, Fault>> + Send;

    /// Sets the ttl of a lease to `ttl` from now, as far as `reach` lets it.
    fn extend(
        &self,
        whose: Whose<'_>,
        ttl: Ttl,
        reach: Reach,
        deadline: Instant,
    ) -> impl Future<Output = Result<Extended, Fault>> + Send;

    /// Puts a lease back that the server has lost, for `ttl` from now: under its own fence, with its own token or a new one. Only
    /// where the lock is free and no fence of the tag is remembered that is as high: where one is, the server has not lost this
    /// lease, but it has ended. Who waits goes on waiting, behind it. [`Rules::restart_grace`] does not concern it.
    fn restore(
        &self,
        lease: &Lease,
        ttl: Ttl,
        deadline: Instant,
    ) -> impl Future<Output = Result<Restored, Fault>> + Send;

    /// What the store's clock shows now at the latest, in µs since 1970.
    fn now_micros(&self) -> u64;

    /// Ends a lease; repeated with the same `request`, it is answered as it was the first time. A `request` that says when it
    /// was made ends no lease that was granted since. The first in the queue is granted the lock in the same step.
    fn release(
        &self,
        whose: Whose<'_>,
        request: RequestId,
        deadline: Instant,
    ) -> impl Future<Output = Result<Released, Fault>> + Send;

    /// Ends a lease as [`release`](Self::release) does, if it is still that of the call that was granted it: nobody relies on it, as
    /// whoever does who is told that this holder has it, or extends it, and is no guard.
    fn sweep(
        &self,
        lease: &Lease,
        request: RequestId,
        deadline: Instant,
    ) -> impl Future<Output = Result<Released, Fault>> + Send;

    /// Ends a lease as [`release`](Self::release) does, and grants the lock to `next` in the same step. Where `others_first`
    /// is, and another process stands in the queue, that one gets it, and `next` takes this process's place at the end of the
    /// queue.
    fn hand_over(
        &self,
        whose: Whose<'_>,
        request: RequestId,
        next: &Ask,
        others_first: bool,
        deadline: Instant,
    ) -> impl Future<Output = Result<HandedOver, Fault>> + Send;

    /// Looks for somebody who waits: grants the lock if it is free and nobody comes first, confirms it if it was granted to the
    /// token from the queue, and otherwise takes or keeps the place of this process in the queue of the tag, which then stands
    /// for `ask`. A process has one place in a queue, and keeps it when another of its waiters asks. `before` is the token for
    /// which it stood.
    ///
    /// Nobody may come before who is dead: a place lasts [`Rules::place`], and what is granted to it lasts no longer than its
    /// process counts as living, nor than its ttl, until it is confirmed.
    fn queue(
        &self,
        ask: &Ask,
        before: Option<Token>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Queued, Fault>> + Send;

    /// Gives up the place of this process in the queue of the tag. Answers the lease that `token` was granted meanwhile, for what
    /// is left of it.
    fn leave(
        &self,
        tag: &Tag,
        token: Token,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Lease>, Fault>> + Send;

    /// The lease that `token` has, if it has one.
    fn find(
        &self,
        tag: &Tag,
        token: Token,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Lease>, Fault>> + Send;

    /// Ends whatever lease stands, and serves the queue as [`release`](Self::release) does; `by` and `why` are told to those
    /// who watch.
    fn force_release(
        &self,
        tag: &Tag,
        by: &str,
        why: &str,
        deadline: Instant,
    ) -> impl Future<Output = Result<Forced, Fault>> + Send;

    /// Says who has the lock.
    fn inspect(&self, tag: &Tag, deadline: Instant) -> impl Future<Output = Result<Seen, Fault>> + Send;

    /// Says what stands at each of the tags, in their order; `None` where it is something that is no lock.
    fn look(
        &self,
        tags: &[Tag],
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Option<Seen>>, Fault>> + Send;

    /// What was said of a tag, oldest first: grants and their ends. Empty where no history is kept.
    fn history(&self, tag: &Tag, deadline: Instant)
    -> impl Future<Output = Result<Vec<Event>, Fault>> + Send;

    /// Says whether a connection is to be kept for extends and releases, which then wait behind nothing else.
    fn keep_lane(&self, is_wanted: bool);

    /// Opens the feed of this process, which brings nothing yet.
    fn feed(&self, deadline: Instant) -> impl Future<Output = Result<Feed, Fault>> + Send;

    /// Finds out whether an acquire could be granted now, without granting one.
    fn probe(&self, deadline: Instant) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Whether a connection is open over which calls can be made.
    fn is_connected(&self) -> bool;

    /// How long the oldest call that is under way has been on its connection; zero where there is none.
    fn silence(&self) -> Duration;

    /// Asks the server whether it is there, over a connection that is not the silent one, which may have to be opened for that. Any
    /// answer will do that is no error.
    fn ping(&self, deadline: Instant) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Names the run of the server, which has another name after each start; `None` where it does not say.
    fn run(&self, deadline: Instant) -> impl Future<Output = Result<Option<String>, Fault>> + Send;

    /// Leaves the witness of this process there, or leaves it anew: a key that nobody else writes, and that lasts
    /// [`WITNESS_LASTS`]. While it stands, the server has lost nothing since.
    fn leave_witness(&self, deadline: Instant) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Whether the witness of this process stands.
    fn has_witness(&self, deadline: Instant) -> impl Future<Output = Result<bool, Fault>> + Send;

    /// How many lanes were given up because of a fault, since the store was opened: closed by the server or the network, too late
    /// with a reply, a replica's, or not understood. It only rises.
    ///
    /// A call that was on such a lane hears of it only after it was counted, but for one that gave its attempt too little time to
    /// tell a broken lane from a slow one.
    fn breaks(&self) -> u64;

    /// Says who has which lock, in the order of the tags.
    fn list(&self, deadline: Instant) -> impl Future<Output = Result<Vec<Occupant>, Fault>> + Send;
}

//! The cellar: where locks are kept. The only rooms that know Redis.
//!
//! [`Store`] is the seam between what a lock means and where it is kept. Its implementations answer alike: one suite
//! (`tests/conformance.rs`) runs against each.

mod any;
mod classify;
#[cfg(feature = "memory")]
mod memory;
pub(crate) mod pool;
mod redis;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::{any::AnyStore, redis::Settings};
use crate::{Fault, Fence, Holder, Lease, LeaseKind, Occupant, RequestId, Tag, Token, Ttl};

/// What an acquire asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) tag: &'a Tag,
    pub(crate) holder: &'a Holder,
    pub(crate) kind: LeaseKind,
    pub(crate) token: Token,
    pub(crate) ttl: Ttl,
    pub(crate) note: &'a str,
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

#[derive(Debug)]
pub(crate) enum Acquired {
    Granted(Lease),
    /// The same holder has it, by another call.
    AlreadyHeld(Lease),
    Contended {
        occupant: Occupant,
        expires_in: Duration,
    },
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

#[derive(Debug)]
pub(crate) enum Forced {
    /// What was ended; `None` where it was no lock.
    Ended(Option<Occupant>),
    Free {
        last: Option<Fence>,
    },
}

/// Where locks are kept. No call outlives its deadline by more than the time to notice it.
pub(crate) trait Store {
    /// Grants the lock, adopts a grant of the same token, or says who has it.
    fn acquire(
        &self,
        ask: Ask<'_>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Acquired, Fault>> + Send;

    /// Prolongs a lease to `ttl` from now; shortens it only where `shorten` says so.
    fn extend(
        &self,
        whose: Whose<'_>,
        ttl: Ttl,
        shorten: bool,
        deadline: Instant,
    ) -> impl Future<Output = Result<Extended, Fault>> + Send;

    /// What the store's clock shows now at the latest, in µs since 1970.
    fn now_micros(&self) -> u64;

    /// Ends a lease; repeated with the same `request`, it is answered as it was the first time. A `request` that says when it
    /// was made ends no lease that was granted since.
    fn release(
        &self,
        whose: Whose<'_>,
        request: RequestId,
        deadline: Instant,
    ) -> impl Future<Output = Result<Released, Fault>> + Send;

    /// Ends whatever lease stands.
    fn force_release(
        &self,
        tag: &Tag,
        deadline: Instant,
    ) -> impl Future<Output = Result<Forced, Fault>> + Send;

    /// Says who has the lock.
    fn inspect(
        &self,
        tag: &Tag,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Occupant>, Fault>> + Send;

    /// Finds out whether an acquire could be granted now, without granting one.
    fn probe(&self, deadline: Instant) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Says who has which lock, in the order of the tags.
    fn list(&self, deadline: Instant) -> impl Future<Output = Result<Vec<Occupant>, Fault>> + Send;
}

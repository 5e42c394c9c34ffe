use std::time::Duration;

use super::Pending;
use crate::{
    ExtendError, Fence, Holder, Lease, LeaseKind, ShortenOutcome, Tag, Ttl, attempt, inner::Inner,
    store::Whose,
};

/// An extend that has its options yet to be given; `.await` it.
#[derive(Debug)]
#[must_use = "nothing is extended until this is awaited"]
pub struct Extend<'a> {
    inner: &'a Inner,
    whose: Whose<'a>,
    ttl: Ttl,
    deadline: Option<Duration>,
}

impl<'a> Extend<'a> {
    pub(crate) fn new(inner: &'a Inner, tag: &'a Tag, holder: &'a Holder, ttl: Ttl) -> Self {
        let whose = Whose { tag, holder, kind: LeaseKind::Identity, fence: None };
        Self { inner, whose, ttl, deadline: None }
    }

    /// Extends exactly this grant. Without it, the one that stands when the call is made.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.whose.fence = Some(fence);
        self
    }

    /// Sets the ttl also when more than that is left. Without it an extend never shortens a lease.
    ///
    /// Where Redis cannot be asked, it is [deferred](ShortenOutcome::Deferred) as a release is: the lease ends when it was to end, and
    /// not later than it would have ended without.
    ///
    /// # Errors
    /// As for [`extend`](crate::SpoolLocks::extend), and `NotDeferred` — Redis could not be asked, and this was not kept for later.
    ///
    /// # Cancel safety
    /// If dropped, the lease may have been shortened, or that may be deferred.
    pub fn shorten(self) -> Shorten<'a> {
        Shorten(self)
    }

    /// How long the call may take, everything included; up to 1 h. Default: that of the config, 5 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<'a> IntoFuture for Extend<'a> {
    type Output = Result<Lease, ExtendError>;
    type IntoFuture = Pending<'a, Lease, ExtendError>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { inner, whose, ttl, deadline } = self;
        Box::pin(attempt::extend(inner, whose, ttl, deadline))
    }
}

/// An extend that may shorten its lease, and has its options yet to be given; `.await` it.
#[derive(Debug)]
#[must_use = "nothing is extended until this is awaited"]
pub struct Shorten<'a>(Extend<'a>);

impl Shorten<'_> {
    /// As [`Extend::fence`].
    pub fn fence(self, fence: Fence) -> Self {
        Self(self.0.fence(fence))
    }

    /// As [`Extend::deadline`].
    pub fn deadline(self, deadline: Duration) -> Self {
        Self(self.0.deadline(deadline))
    }
}

impl<'a> IntoFuture for Shorten<'a> {
    type Output = Result<ShortenOutcome, ExtendError>;
    type IntoFuture = Pending<'a, ShortenOutcome, ExtendError>;

    fn into_future(self) -> Self::IntoFuture {
        let Extend { inner, whose, ttl, deadline } = self.0;
        Box::pin(attempt::shorten(inner, whose, ttl, deadline))
    }
}

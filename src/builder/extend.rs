use std::time::Duration;

use super::Pending;
use crate::{ExtendError, Fence, Holder, Lease, LeaseKind, Tag, Ttl, attempt, inner::Inner, store::Whose};

/// An extend that has its options yet to be given; `.await` it.
#[derive(Debug)]
#[must_use = "nothing is extended until this is awaited"]
pub struct Extend<'a> {
    inner: &'a Inner,
    whose: Whose<'a>,
    ttl: Ttl,
    shorten: bool,
    deadline: Option<Duration>,
}

impl<'a> Extend<'a> {
    pub(crate) fn new(inner: &'a Inner, tag: &'a Tag, holder: &'a Holder, ttl: Ttl) -> Self {
        let whose = Whose { tag, holder, kind: LeaseKind::Identity, fence: None };
        Self { inner, whose, ttl, shorten: false, deadline: None }
    }

    /// Extends exactly this grant. Without it, the one that stands when the call is made.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.whose.fence = Some(fence);
        self
    }

    /// Sets the ttl also when more than that is left. Without it an extend never shortens a lease.
    pub fn shorten(mut self) -> Self {
        self.shorten = true;
        self
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
        let Self { inner, whose, ttl, shorten, deadline } = self;
        Box::pin(attempt::extend(inner, whose, ttl, shorten, deadline))
    }
}

use std::time::Duration;

use super::Pending;
use crate::{
    Fence, Holder, LeaseKind, ReleaseError, ReleaseOutcome, RequestId, Tag, attempt, inner::Inner,
    store::Whose,
};

/// A release that has its options yet to be given; `.await` it.
#[derive(Debug)]
#[must_use = "nothing is released until this is awaited"]
pub struct Release<'a> {
    inner: &'a Inner,
    whose: Whose<'a>,
    request: Option<RequestId>,
    deadline: Option<Duration>,
}

impl<'a> Release<'a> {
    pub(crate) fn new(inner: &'a Inner, tag: &'a Tag, holder: &'a Holder) -> Self {
        let whose = Whose { tag, holder, kind: LeaseKind::Identity, fence: None };
        Self { inner, whose, request: None, deadline: None }
    }

    pub(crate) fn kind(mut self, kind: LeaseKind) -> Self {
        self.whose.kind = kind;
        self
    }

    /// Releases exactly this grant. Without it, the one that stands when the call is made: a late call never ends a newer
    /// lease, not even of the same holder.
    pub fn fence(mut self, fence: Fence) -> Self {
        self.whose.fence = Some(fence);
        self
    }

    /// Repeats the call that failed as [`ReleaseError::Ambiguous`] with this request id: if it was applied then, it is
    /// answered as released now, until the tag has been granted three times since.
    pub fn request(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// How long the call may take, everything included; up to 1 h. Default: that of the config, 5 s. Where the release is deferred, the
    /// [log](crate::Connect::deferred_log) is given 1 s at least to keep it.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<'a> IntoFuture for Release<'a> {
    type Output = Result<ReleaseOutcome, ReleaseError>;
    type IntoFuture = Pending<'a, ReleaseOutcome, ReleaseError>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { inner, whose, request, deadline } = self;
        let request = request.unwrap_or_else(RequestId::random);
        Box::pin(attempt::release(inner, whose, request, deadline))
    }
}

use std::time::Duration;

use super::Pending;
use crate::{
    AcquireError, Holder, Lease, LeaseKind, Tag, Token, Ttl, attempt, inner::Inner, store::Ask, text,
};

/// The longest note, in bytes.
const MAX_NOTE: usize = 200;

/// An acquire that has its options yet to be given; `.await` it.
#[derive(Debug)]
#[must_use = "nothing is acquired until this is awaited"]
pub struct Acquire<'a> {
    inner: &'a Inner,
    tag: &'a Tag,
    holder: &'a Holder,
    ttl: Ttl,
    note: &'a str,
    token: Option<Token>,
    deadline: Option<Duration>,
}

impl<'a> Acquire<'a> {
    pub(crate) fn new(inner: &'a Inner, tag: &'a Tag, holder: &'a Holder) -> Self {
        Self { inner, tag, holder, ttl: inner.config.ttl, note: "", token: None, deadline: None }
    }

    /// How long the lock lasts unless it is extended or released. Default: that of the config, 1 h.
    pub fn ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = ttl;
        self
    }

    /// What stands beside the lock for others to read, such as the operation: up to 200 bytes without control characters.
    pub fn note(mut self, note: &'a str) -> Self {
        self.note = note;
        self
    }

    /// Repeats the call that failed as [`AcquireError::Ambiguous`] with this token: if it was granted then, it is adopted
    /// now, with its fence and what is left of its ttl.
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// How long the call may take, everything included; up to 1 h. Default: that of the config, 5 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<'a> IntoFuture for Acquire<'a> {
    type Output = Result<Lease, AcquireError>;
    type IntoFuture = Pending<'a, Lease, AcquireError>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { inner, tag, holder, ttl, note, token, deadline } = self;
        Box::pin(async move {
            text::check("note", note, 0, MAX_NOTE)?;
            let token = token.unwrap_or_else(Token::random);
            let ask = Ask { tag, holder, kind: LeaseKind::Identity, token, ttl, note };
            attempt::acquire(inner, ask, deadline).await
        })
    }
}

use std::time::Duration;

use super::Pending;
use crate::{
    AcquireError, Holder, Lease, LeaseKind, Tag, Token, Ttl, attempt, inner::Inner, lease::check_note,
    store::Ask,
};

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
    wait: Duration,
    deadline: Option<Duration>,
}

impl<'a> Acquire<'a> {
    pub(crate) fn new(inner: &'a Inner, tag: &'a Tag, holder: &'a Holder) -> Self {
        let (ttl, wait) = (inner.config.ttl, inner.config.wait.wait);
        Self { inner, tag, holder, ttl, note: "", token: None, wait, deadline: None }
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
    /// now, with its fence and what is left of its ttl. What a call with a token of its caller's is granted is not released
    /// when the call is dropped: the caller can repeat it.
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// How long to wait while somebody else has it; zero is one look. Default: that of the config, 0; up to 1 day.
    ///
    /// Up to `wait.line` calls (1,000) wait for a tag; one more is [`Saturated`](AcquireError::Saturated) at once. First come, first served: within a process exactly, between processes by turns of 16 hand-overs or 200 ms. Whoever waits
    /// holds no connection.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long the call may take beside its [`wait`](Self::wait); up to 1 h. Default: that of the config, 5 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<'a> IntoFuture for Acquire<'a> {
    type Output = Result<Lease, AcquireError>;
    type IntoFuture = Pending<'a, Lease, AcquireError>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { inner, tag, holder, ttl, note, token, wait, deadline } = self;
        Box::pin(async move {
            check_note(note)?;
            let is_named = token.is_some();
            let token = token.unwrap_or_else(Token::random);
            let ask = Ask {
                tag: tag.clone(),
                holder: holder.clone(),
                kind: LeaseKind::Identity,
                token,
                ttl,
                note: note.to_owned(),
            };
            Ok(attempt::acquire(inner, ask, is_named, wait, deadline).await?.lease)
        })
    }
}

use std::time::Duration;

use super::Pending;
use crate::{
    AcquireAllError, AcquireError, Holder, Lease, LeaseKind, Tag, Token, Ttl, attempt, inner::Inner,
    lease::check_note, store::Ask,
};

/// An acquire of several tags that has its options yet to be given; `.await` it.
#[derive(Debug)]
#[must_use = "nothing is acquired until this is awaited"]
pub struct AcquireAll<'a> {
    inner: &'a Inner,
    tags: &'a [Tag],
    holder: &'a Holder,
    ttl: Ttl,
    note: &'a str,
    wait: Duration,
    deadline: Option<Duration>,
}

impl<'a> AcquireAll<'a> {
    pub(crate) fn new(inner: &'a Inner, tags: &'a [Tag], holder: &'a Holder) -> Self {
        let (ttl, wait) = (inner.config.ttl, inner.config.wait.wait);
        Self { inner, tags, holder, ttl, note: "", wait, deadline: None }
    }

    /// How long each lock lasts from its grant unless it is extended or released. Default: that of the config, 1 h.
    pub fn ttl(mut self, ttl: Ttl) -> Self {
        self.ttl = ttl;
        self
    }

    /// What stands beside each lock for others to read: up to 200 bytes without control characters.
    pub fn note(mut self, note: &'a str) -> Self {
        self.note = note;
        self
    }

    /// How long to wait for all of them together; zero is one look each. Default: that of the config, 0; up to 1 day.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// How long the call for each tag may take beside the [`wait`](Self::wait); up to 1 h. Default: that of the config, 5 s.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl<'a> IntoFuture for AcquireAll<'a> {
    type Output = Result<Vec<Lease>, AcquireAllError>;
    type IntoFuture = Pending<'a, Vec<Lease>, AcquireAllError>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { inner, tags, holder, ttl, note, wait, deadline } = self;
        Box::pin(async move {
            let Some(first) = tags.first() else { return Ok(Vec::new()) };
            if let Err(invalid) = check_note(note) {
                let why = Box::new(AcquireError::InvalidNote(invalid));
                return Err(AcquireAllError { tag: first.clone(), why, lost: Vec::new() });
            }
            let ask = |tag: &Tag| Ask {
                tag: tag.clone(),
                holder: holder.clone(),
                kind: LeaseKind::Identity,
                token: Token::random(),
                ttl,
                note: note.to_owned(),
            };
            attempt::acquire_all(inner, tags.iter().map(ask).collect(), wait, deadline).await
        })
    }
}

//! [`Lane`]: one connection, and the operations that are under way on it.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::LaneId;

/// A lane whose oldest operation is older than this takes no new one.
pub(super) const STALLED: Duration = Duration::from_secs(1);

pub(super) struct Lane<C> {
    pub(super) id: LaneId,
    pub(super) connection: C,
    /// When the operations in flight were started; replies come in the order of the requests, so the front is the oldest.
    pub(super) started: VecDeque<Instant>,
    pub(super) opened_at: Instant,
    /// When the last operation ended, or the lane was opened.
    pub(super) idle_since: Instant,
    /// When it was last known to answer.
    pub(super) proven_at: Instant,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// Is being emptied for an operation that wants a lane alone, and takes no other.
    Reserved,
    /// Carries one operation alone.
    Alone,
    Testing,
    Evicted,
}

impl<C> Lane<C> {
    pub(super) fn has_room(&self, now: Instant, depth: usize) -> bool {
        self.state == State::Open && self.started.len() < depth && self.silence(now) <= STALLED
    }

    /// How long its oldest operation has been under way; zero where there is none.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.started.front().map_or(Duration::ZERO, |&oldest| now.saturating_duration_since(oldest))
    }

    /// Whether it carries what anybody sends, or will when its test has passed.
    pub(super) fn serves(&self) -> bool {
        matches!(self.state, State::Open | State::Testing)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.started.is_empty()
    }
}

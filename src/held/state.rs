//! [`GuardState`]: how a guard's lock stands.

use std::time::Duration;

use crate::LostReason;

/// How a guard's lock stands, told from the holder's own clock, without asking Redis.
///
/// A renewal that fails changes nothing by itself: only time does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuardState {
    /// It is held.
    Held {
        /// For so long at least, whatever happens to Redis or the network.
        safe_for: Duration,
    },
    /// It is held, but less than the guard's [`margin`](crate::AcquireGuard::margin) is left: the renewals do not get through, or
    /// `max_hold` is nearly over. Finish, or get ready to stop.
    Jeopardy {
        /// For so long at least, whatever happens to Redis or the network.
        safe_for: Duration,
    },
    /// It is no longer held for certain, and will not be again: somebody else may have it.
    Lost {
        /// How it was lost.
        reason: LostReason,
    },
    /// The guard has given it back, by its release or its drop, and it is not renewed any more. Whether Redis has ended it, only
    /// [`release`](crate::LockGuard::release) says.
    Released,
}

impl GuardState {
    /// How long the lock is held at least; zero where it is not.
    pub fn safe_for(self) -> Duration {
        match self {
            Self::Held { safe_for } | Self::Jeopardy { safe_for } => safe_for,
            Self::Lost { .. } | Self::Released => Duration::ZERO,
        }
    }

    /// Whether there is another state to come.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Released)
    }

    /// Whether somebody who was told the one need not be told the other.
    pub(super) fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

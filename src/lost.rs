//! [`LostReason`]: the closed list of ways to lose a lease. [`LockLost`]: what a guard says of it.

use crate::{Fence, Tag};

/// Why a lease ended without its holder's release.
///
/// This list is closed: the snake case of each is a value of the metric label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum LostReason {
    /// Its ttl ran out, or its key went away.
    Expired,
    /// A guard that was not renewed in time, or whose `max_hold` is over: its holder could no longer be sure of it.
    Deadline,
    /// An operator released it by force.
    Forced,
    /// Somebody else holds the tag, or has written over its key.
    Stolen,
    /// The server was restarted without its data.
    Restarted,
}

impl LostReason {
    /// Every reason, in the order of the declaration.
    pub const ALL: [Self; 5] = [Self::Expired, Self::Deadline, Self::Forced, Self::Stolen, Self::Restarted];

    /// The reason in snake case, as metrics and JSON have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Deadline => "deadline",
            Self::Forced => "forced",
            Self::Stolen => "stolen",
            Self::Restarted => "restarted",
        }
    }
}

/// The lock of a guard was lost: it may be somebody else's by now, and what was done under it may have met theirs. Who checks the
/// fence was safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the lock on {tag}, fence {fence}, was lost: {}", reason.as_str())]
#[non_exhaustive]
pub struct LockLost {
    /// What was locked.
    pub tag: Tag,
    /// Its fence.
    pub fence: Fence,
    /// How it was lost.
    pub reason: LostReason,
}

//! [`LostReason`]: the closed list of ways to lose a lease.

/// Why a lease ended without its holder's release.
///
/// This list is closed: the snake case of each is a value of the metric label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum LostReason {
    /// Its ttl ran out, or its key went away.
    Expired,
    /// Its holder could no longer be sure of it.
    Deadline,
    /// An operator released it by force.
    Forced,
    /// Somebody else holds the tag.
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

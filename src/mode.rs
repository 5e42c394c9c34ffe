//! [`Mode`]: what a process can do while Redis is ill.

/// What can be done now, as two circuits say: the one of the link to Redis, and the one of its writes.
///
/// This list is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Mode {
    /// Everything.
    Normal,
    /// Redis answers and takes no writes (a replica, no memory, no disk, too few replicas, a right that acquires lack): reads are
    /// live, acquires are refused, releases and extends are tried.
    ReadOnlyServer,
    /// Redis does not answer, or is not asked: reads are answered from the last known state, acquires are refused, releases and
    /// extends are tried, unless an operator has to act first.
    Unreachable,
}

impl Mode {
    /// Every mode, from well to ill.
    pub const ALL: [Self; 3] = [Self::Normal, Self::ReadOnlyServer, Self::Unreachable];

    /// The mode in snake case, as JSON has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ReadOnlyServer => "read_only_server",
            Self::Unreachable => "unreachable",
        }
    }

    /// Whether acquires are refused.
    pub const fn is_degraded(self) -> bool {
        !matches!(self, Self::Normal)
    }
}

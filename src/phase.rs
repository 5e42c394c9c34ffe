//! [`RecoveryPhase`]: what a process does, one after the other, when Redis is back.

/// What a process does when Redis is back, in this order. Acquires wait until it is their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum RecoveryPhase {
    /// What this process holds is looked at, a hundred tags a call. Takes 2 s at most.
    Verify,
    /// Deferred calls are applied. Acquires wait 5 s for it at most; what is left then is applied beside them.
    Deferred,
    /// What Redis has lost is put back: the guards of this process, and the leases of the [`LeaseSource`](crate::LeaseSource).
    /// Acquires wait 10 s for it at most; a source that has not answered then is asked again beside them.
    Restore,
    /// Acquires are let in: one at a time, then 2, 4, 8 side by side. Takes 5 s at most.
    Admit,
}

impl RecoveryPhase {
    /// Every phase, in its order.
    pub const ALL: [Self; 4] = [Self::Verify, Self::Deferred, Self::Restore, Self::Admit];

    /// In snake case, as metrics and JSON have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Deferred => "deferred",
            Self::Restore => "restore",
            Self::Admit => "admit",
        }
    }
}

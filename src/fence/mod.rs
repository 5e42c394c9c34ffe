//! [`Fence`]: the number that orders the grants of a tag. [`Register`]: what a resource remembers of them.

mod register;

use std::fmt;

pub use register::{AdmitError, Register};

/// Orders the grants of one tag: a later grant has a larger fence.
///
/// A resource that remembers the largest fence it has seen, and refuses smaller ones, cannot be written to by a holder that
/// was paused and lost its lock (Kleppmann, "How to do distributed locking", 2016); a [`Register`] does that. Fences are below
/// 2^53, so they survive JSON readers that know only doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct Fence(u64);

impl Fence {
    /// The largest fence: 2^53 − 1, the largest integer that Lua's and JSON's doubles count exactly.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Takes a fence from where it was kept, a ledger for instance; a number above [`Fence::MAX`] never was one.
    pub fn new(number: u64) -> Option<Self> {
        (number <= Self::MAX.0).then_some(Self(number))
    }

    /// The fence as a number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

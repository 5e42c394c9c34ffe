//! [`Lease`] and [`Occupant`]: one grant, as its holder has it and as others see it.

use std::time::{Duration, SystemTime};

use crate::{
    Fence, Holder, Tag, Token,
    text::{self, InvalidText},
};

/// The longest note, in bytes.
const MAX_NOTE: usize = 200;

/// Checks what is to stand beside a lease.
pub(crate) fn check_note(note: &str) -> Result<(), InvalidText> {
    text::check("note", note, 0, MAX_NOTE)
}

/// What a grant is tied to.
///
/// A call for an identity never ends or adopts a guard's lease of the same holder, nor the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum LeaseKind {
    /// Held by an identity, across requests and processes, until it is released or ends by itself.
    Identity,
    /// Held by a value of a running process, which renews it.
    Guard,
}

/// One grant, for the one who got it.
///
/// Plain data: dropping it releases nothing. Serialised, it leaves out its token, so that it can be kept in a ledger; what is
/// read back still releases exactly this grant, by its fence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Lease {
    /// What is locked.
    pub tag: Tag,
    /// Who holds it.
    pub holder: Holder,
    /// What the grant is tied to.
    pub kind: LeaseKind,
    /// The secret of the acquisition; absent where the lease was read rather than granted.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub token: Option<Token>,
    /// Orders this grant among all of its tag.
    pub fence: Fence,
    /// When it was granted, by the server's clock.
    #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
    pub since: SystemTime,
    /// When it ends unless it is extended, by the server's clock.
    #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
    pub expires_at: SystemTime,
    /// What the holder wrote beside it, such as the operation; may be empty.
    pub note: String,
}

/// One grant, as others see it: a [`Lease`] without its token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Occupant {
    /// What is locked.
    pub tag: Tag,
    /// Who holds it.
    pub holder: Holder,
    /// What the grant is tied to.
    pub kind: LeaseKind,
    /// Orders this grant among all of its tag.
    pub fence: Fence,
    /// When it was granted, by the server's clock.
    #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
    pub since: SystemTime,
    /// When it ends unless it is extended, by the server's clock.
    #[cfg_attr(feature = "serde", serde(with = "crate::time::rfc3339"))]
    pub expires_at: SystemTime,
    /// What the holder wrote beside it; may be empty.
    pub note: String,
}

impl Occupant {
    /// An identity's grant without a note, from where grants are written down, such as a ledger. What is different can be set in its
    /// fields.
    ///
    /// # Examples
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use spool_lock::{Fence, Holder, LeaseKind, Occupant, Tag};
    ///
    /// let (tag, holder) = (Tag::new("TEST-02")?, Holder::new("93", "MR(93)")?);
    /// let fence = Fence::new(1_770_030_300_000_000).expect("it was written down as one");
    /// let since = SystemTime::UNIX_EPOCH + Duration::from_millis(1_770_030_300_000);
    /// let mut occupant = Occupant::new(tag, holder, fence, since, since + Duration::from_secs(3600));
    /// occupant.note = "ARM".to_owned();
    /// assert_eq!(occupant.kind, LeaseKind::Identity);
    /// # Ok::<(), spool_lock::InvalidText>(())
    /// ```
    pub fn new(tag: Tag, holder: Holder, fence: Fence, since: SystemTime, expires_at: SystemTime) -> Self {
        Self { tag, holder, kind: LeaseKind::Identity, fence, since, expires_at, note: String::new() }
    }
}

impl From<Lease> for Occupant {
    fn from(lease: Lease) -> Self {
        let Lease { tag, holder, kind, token: _, fence, since, expires_at, note } = lease;
        Self { tag, holder, kind, fence, since, expires_at, note }
    }
}

impl From<Occupant> for Lease {
    /// The lease that an occupant has, without the token, which only its holder was told.
    fn from(occupant: Occupant) -> Self {
        let Occupant { tag, holder, kind, fence, since, expires_at, note } = occupant;
        Self { tag, holder, kind, token: None, fence, since, expires_at, note }
    }
}

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Source {
    /// The store itself, just now.
    Live,
    /// The last state that this process knows; the store could not be asked. Never proof that a tag is free now.
    Snapshot,
    /// A [`ReadFallback`](crate::ReadFallback); the store could not be asked. Never proof that a tag is free now.
    Fallback,
}

/// An answer with where it comes from and how old it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Reading<T> {
    /// The answer.
    pub value: T,
    /// Where it comes from.
    pub source: Source,
    /// How old it is; zero for [`Source::Live`].
    pub age: Duration,
}

impl<T> Reading<T> {
    pub(crate) fn live(value: T) -> Self {
        Self { value, source: Source::Live, age: Duration::ZERO }
    }

    pub(crate) fn snapshot(value: T, age: Duration) -> Self {
        Self { value, source: Source::Snapshot, age }
    }

    /// The answer of a [`ReadFallback`](crate::ReadFallback), which was true so long ago.
    pub fn from_fallback(value: T, age: Duration) -> Self {
        Self { value, source: Source::Fallback, age }
    }
}

//! [`Holder`]: who holds a lock.

use std::sync::Arc;

use crate::text::{self, InvalidText};

/// An identity that holds locks: a worker, a job, a service. It outlives a request and a process.
///
/// Two holders are the same when their [`id`](Holder::id) is the same; the [`name`](Holder::name) is for people to read.
///
/// # Examples
/// ```
/// use spool_lock::Holder;
/// let holder = Holder::new("93", "MR(93)")?;
/// assert_eq!((holder.id(), holder.name()), ("93", "MR(93)"));
/// # Ok::<(), spool_lock::InvalidText>(())
/// ```
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Plain", into = "Plain"))]
pub struct Holder {
    id: Arc<str>,
    name: Arc<str>,
}

impl Holder {
    /// The longest id and the longest name, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// Makes a holder of an id (1 to 200 bytes) and a name (0 to 200 bytes), both without control characters.
    ///
    /// # Errors
    /// [`InvalidText`] — names the part that was refused, and why.
    pub fn new(id: impl AsRef<str>, name: impl AsRef<str>) -> Result<Self, InvalidText> {
        let (id, name) = (id.as_ref(), name.as_ref());
        text::check("holder id", id, 1, Self::MAX_BYTES)?;
        text::check("holder name", name, 0, Self::MAX_BYTES)?;
        Ok(Self { id: id.into(), name: name.into() })
    }

    /// What identifies the holder.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What people call the holder; may be empty.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl PartialEq for Holder {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Holder {}

impl std::hash::Hash for Holder {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Plain {
    id: String,
    name: String,
}

#[cfg(feature = "serde")]
impl TryFrom<Plain> for Holder {
    type Error = InvalidText;

    fn try_from(plain: Plain) -> Result<Self, InvalidText> {
        Self::new(plain.id, plain.name)
    }
}

#[cfg(feature = "serde")]
impl From<Holder> for Plain {
    fn from(holder: Holder) -> Self {
        Self { id: holder.id().to_owned(), name: holder.name().to_owned() }
    }
}

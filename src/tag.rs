//! [`Tag`]: the name of the thing that is locked.

use std::{fmt, str::FromStr, sync::Arc};

use crate::text::{self, InvalidText};

/// The name of the thing that is locked, such as the pipe spool `TEST-02`.
///
/// 1 to 200 bytes of UTF-8 without control characters. Two different tags never share a key in Redis: in a key, `%`, `{`
/// and `}` are written `%25`, `%7B`, `%7D`, everything else literally.
///
/// # Examples
/// ```
/// use spool_lock::Tag;
/// let tag: Tag = "TEST-02".parse()?;
/// assert_eq!(tag.as_str(), "TEST-02");
/// assert!(Tag::new("").is_err());
/// # Ok::<(), spool_lock::InvalidText>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct Tag(Arc<str>);

impl Tag {
    /// The longest tag, in bytes.
    pub const MAX_BYTES: usize = 200;

    /// Checks `text` and makes a tag of it.
    ///
    /// # Errors
    /// [`InvalidText`] — empty, longer than [`Tag::MAX_BYTES`], or with a control character.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidText> {
        let text = text.as_ref();
        text::check("tag", text, 1, Self::MAX_BYTES)?;
        Ok(Self(text.into()))
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tag({:?})", &*self.0)
    }
}

impl FromStr for Tag {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        Self::new(text)
    }
}

impl TryFrom<String> for Tag {
    type Error = InvalidText;

    fn try_from(text: String) -> Result<Self, InvalidText> {
        Self::new(text)
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.as_str().to_owned()
    }
}

//! Bounded, printable text: the rule that tags, holders and notes share, and how it is written as a field among others.

use std::{borrow::Cow, fmt};

/// Says why a piece of text was refused, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidText {
    what: &'static str,
    max: usize,
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    Empty,
    TooLong(usize),
    Control { at: usize, code: u32 },
}

impl fmt::Display for InvalidText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, max, reason } = self;
        match reason {
            Reason::Empty => write!(f, "{what} is empty; 1 to {max} bytes are allowed"),
            Reason::TooLong(len) => write!(f, "{what} has {len} bytes; at most {max} are allowed"),
            Reason::Control { at, code } => {
                write!(
                    f,
                    "{what} has the control character U+{code:04X} at byte {at}; printable text is allowed"
                )
            }
        }
    }
}

impl std::error::Error for InvalidText {}

/// Checks that `text` has between `min` and `max` bytes and no control character.
pub(crate) fn check(what: &'static str, text: &str, min: usize, max: usize) -> Result<(), InvalidText> {
    let refuse = |reason| Err(InvalidText { what, max, reason });
    if text.len() < min {
        return refuse(Reason::Empty);
    }
    if text.len() > max {
        return refuse(Reason::TooLong(text.len()));
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, c)) => refuse(Reason::Control { at, code: c.into() }),
        None => Ok(()),
    }
}

/// Text in which each of the ASCII characters `special` is written as `%` and two hexadecimal digits.
///
/// `%` is to be one of them, or it cannot be read back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Escaped<'a> {
    pub(crate) text: &'a str,
    pub(crate) special: &'static [u8],
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_special = |c: char| u8::try_from(c).is_ok_and(|byte| self.special.contains(&byte));
        let mut rest = self.text;
        while let Some(at) = rest.find(is_special) {
            f.write_str(&rest[..at])?;
            write!(f, "%{:02X}", rest.as_bytes()[at])?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

/// Reads back what [`Escaped`] wrote; `None` where it did not write it.
pub(crate) fn unescape(text: &str) -> Option<Cow<'_, str>> {
    let Some(first) = text.find('%') else { return Some(Cow::Borrowed(text)) };
    let mut plain = text[..first].to_owned();
    let mut rest = &text[first..];
    while let Some(at) = rest.find('%') {
        let code = rest.get(at + 1..at + 3)?;
        plain.push_str(&rest[..at]);
        plain.push(u8::from_str_radix(code, 16).ok().filter(u8::is_ascii)?.into());
        rest = &rest[at + 3..];
    }
    plain.push_str(rest);
    Some(Cow::Owned(plain))
}

//! Bounded, printable text: the rule that tags, holders and notes share.

use std::fmt;

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

//! [`Contents`]: what a file says.

use super::{
    line::{self, HEADER, Record, Unread},
    live::Live,
};

/// What a file says that begins with our first line.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) live: Live,
    /// How many lines there are after the first.
    pub(super) lines: usize,
    /// How many of these are not what was written, and were passed over.
    pub(super) damaged: usize,
    /// How many bytes come after the last end of a line: what a crash left of a write of which nobody was told.
    pub(super) torn: usize,
}

/// A line is whole, and says what this version does not know.
#[derive(Debug)]
pub(super) struct Newer;

impl Contents {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Newer> {
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let mut contents = Self { torn: bytes.len() - whole, ..Self::default() };
        for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n').skip(1) {
            contents.lines += 1;
            match line::read(&line[..line.len() - 1]) {
                Ok(Record::Kept(deferred)) => {
                    contents.live.keep(&deferred);
                }
                Ok(Record::Settled(request)) => {
                    contents.live.settle(request);
                }
                Err(Unread::Damaged) => contents.damaged += 1,
                Err(Unread::Newer) => return Err(Newer),
            }
        }
        Ok(contents)
    }
}

/// A file that says what is live, and nothing else.
pub(super) fn write(live: &Live) -> Vec<u8> {
    let mut text = HEADER.to_vec();
    live.iter().for_each(|deferred| line::write_kept(&mut text, deferred));
    text
}

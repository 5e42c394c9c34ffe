//! The lines of the file, written and read.
//!
//! The first says whose file it is. Each other one is a [`Record`] after its checksum: CRC-32 (IEEE 802.3) in 8 hexadecimal digits, and
//! a space.

use std::{fmt, io::Write as _};

use crate::{Deferred, RequestId, deferred::Settlement};

/// The first line.
pub(super) const HEADER: &[u8] = b"spool-lock deferred 1\n";
/// The first line but for its version.
const NAME: &[u8] = b"spool-lock deferred ";

/// What a file is, by its beginning.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Written by this version.
    Ours,
    /// Empty, or a first line that is not finished: the end came when it was made.
    Unfinished,
    /// Written by a version that this one cannot read.
    Newer,
    /// Something else.
    Foreign,
}

/// Says by its beginning what a file is; 64 bytes are enough.
pub(super) fn origin(beginning: &[u8]) -> Origin {
    if beginning.starts_with(HEADER) {
        Origin::Ours
    } else if HEADER.starts_with(beginning) {
        Origin::Unfinished
    } else if beginning.starts_with(NAME) {
        Origin::Newer
    } else {
        Origin::Foreign
    }
}

/// What a line says.
#[derive(Debug)]
pub(super) enum Record {
    /// `+ TEXT`
    Kept(Deferred),
    /// `- REQUEST SETTLEMENT`
    Settled(RequestId),
}

/// Why a line says nothing.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not what was written.
    Damaged,
    /// It is what was written, and says what this version does not know.
    Newer,
}

pub(super) fn write_kept(out: &mut Vec<u8>, deferred: &Deferred) {
    write(out, format_args!("+ {deferred}"));
}

pub(super) fn write_settled(out: &mut Vec<u8>, request: RequestId, settlement: Settlement) {
    write(out, format_args!("- {request} {}", settlement.as_str()));
}

fn write(out: &mut Vec<u8>, record: fmt::Arguments<'_>) {
    let start = out.len();
    // Writing to memory cannot fail.
    let _ = write!(out, "00000000 {record}");
    let sum = crc32fast::hash(&out[start + 9..]);
    let _ = write!(&mut out[start..start + 8], "{sum:08x}");
    out.push(b'\n');
}

/// Reads a line, given without its end.
pub(super) fn read(line: &[u8]) -> Result<Record, Unread> {
    let record = checked(line).ok_or(Unread::Damaged)?;
    read_record(record).ok_or(Unread::Newer)
}

/// The record of a line whose checksum is right.
fn checked(line: &[u8]) -> Option<&str> {
    let (sum, record) = line.split_at_checked(8)?;
    let record = record.strip_prefix(b" ")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (sum == crc32fast::hash(record)).then(|| std::str::from_utf8(record).ok()).flatten()
}

fn read_record(record: &str) -> Option<Record> {
    if let Some(text) = record.strip_prefix("+ ") {
        return text.parse().map(Record::Kept).ok();
    }
    let (request, settlement) = record.strip_prefix("- ")?.split_once(' ')?;
    let is_known = Settlement::ALL.iter().any(|known| known.as_str() == settlement);
    is_known.then(|| request.parse().map(Record::Settled).ok()).flatten()
}

//! The thread that writes: everything that waits in one write and one sync.
//!
//! # How it fails
//! Where a write fails, the file is cut back to what was good before it. Where a sync fails, what was written may be lost although a
//! later sync succeeds: Linux marks the pages clean and reports the error once (`fsync(2)`, "Notes"; PostgreSQL wiki, "Fsync
//! Errors"). So to try the sync again proves nothing, and the file is *in doubt*: nothing is acknowledged until all that is live
//! stands in a new file, which was synced and put in its place. The same holds where a file cannot be cut back, or has been removed, and
//! for each file that is opened: who wrote it may have been killed just then.

use std::{io, iter, path::PathBuf, sync::mpsc};

use tokio::sync::oneshot;

use super::{
    Fsync,
    contents::{self, Contents},
    line::{self, Origin},
    live::Live,
    locked::LockedFile,
};
use crate::{Deferred, RequestId, deferred::Settlement};

/// How many orders are carried out together: so many answers wait for the slowest of them.
const TOGETHER: usize = 4096;
/// A file with fewer lines is not compacted: it is small.
const FEWEST_LINES: usize = 1000;

/// What the thread is asked for.
pub(super) enum Order {
    Keep { deferred: Deferred, answer: Answer<()> },
    Settle { settled: Vec<(RequestId, Settlement)>, answer: Answer<()> },
    Load { answer: Answer<Vec<Deferred>> },
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, Failure>>;

/// The same for all that failed together.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    doing: &'static str,
    path: PathBuf,
    kind: io::ErrorKind,
    why: String,
}

pub(super) struct Writer {
    file: LockedFile,
    fsync: Fsync,
    live: Live,
    /// How much of the file is good, in bytes.
    good: u64,
    /// How many lines it has after the first.
    lines: usize,
    /// With fewer lines it is not compacted.
    compact_from: usize,
    /// What the file says may not be what was written.
    is_in_doubt: bool,
}

/// What is written and answered together.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    lines: usize,
    /// What is live by this batch.
    fresh: Vec<RequestId>,
    kept: Vec<Answer<()>>,
    settled: Vec<Answer<()>>,
    loads: Vec<Answer<Vec<Deferred>>>,
}

impl Writer {
    /// Reads the file, and writes it anew: what is found may have been written and never synced, and may end within a line.
    pub(super) fn open(mut file: LockedFile, fsync: Fsync) -> io::Result<Self> {
        let bytes = match line::origin(&file.beginning()?) {
            Origin::Ours => file.read()?,
            Origin::Unfinished => Vec::new(),
            Origin::Newer => return Err(newer()),
            Origin::Foreign => {
                let text = "it is something else than a log of deferred calls, which needs a path of its own";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        };
        let Contents { live, lines, damaged, torn } = Contents::read(&bytes).map_err(|_| newer())?;
        let path = file.path().display();
        if damaged > 0 {
            let aside = file.put_aside(&bytes)?;
            let aside = aside.display();
            tracing::warn!(%path, damaged, %aside, "a log of deferred calls has damaged lines: they are passed over");
        }
        if torn > 0 {
            tracing::warn!(%path, torn, "a log of deferred calls ends within a line, which was never acknowledged: it is cut off");
        }
        let good = bytes.len() as u64;
        let mut writer =
            Self { file, fsync, live, good, lines, compact_from: FEWEST_LINES, is_in_doubt: true };
        match writer.rewrite() {
            // What was kept can be loaded nevertheless.
            Err(error) if lines > 0 => {
                let path = writer.file.path().display();
                tracing::warn!(%path, %error, "a log of deferred calls cannot be written: it takes no more for now");
            }
            rewritten => rewritten?,
        }
        Ok(writer)
    }

    /// Carries out what is asked for until nobody can ask any more.
    pub(super) fn run(mut self, orders: &mpsc::Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            let mut batch = Batch::default();
            iter::once(first)
                .chain(orders.try_iter())
                .take(TOGETHER)
                .for_each(|order| batch.add(order, &mut self.live));
            self.carry_out(batch);
            self.compact();
        }
    }

    fn carry_out(&mut self, batch: Batch) {
        let written = self.write(&batch);
        // To lose a settlement does no harm: it waits for no sync.
        answer(batch.settled, &written.as_ref().map(drop).map_err(Failure::clone));
        let kept = written.and_then(|written| self.sync(&batch.fresh, written));
        if kept.is_err() {
            for request in batch.fresh {
                self.live.settle(request);
            }
        }
        answer(batch.kept, &kept);
        for load in batch.loads {
            let _ = load.send(Ok(self.live.iter().cloned().collect()));
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<Written, Failure> {
        let good = self.good;
        if batch.kept.is_empty() && batch.text.is_empty() {
            return Ok(Written::After(good));
        }
        let is_in_place = self.file.is_in_place().map_err(|error| self.failure("write", &error))?;
        if self.is_in_doubt || !is_in_place {
            return self.rewrite().map(|()| Written::Anew).map_err(|error| self.failure("rewrite", &error));
        }
        if let Err(error) = self.file.write_at(&batch.text, good) {
            self.cut_back(good);
            return Err(self.failure("write", &error));
        }
        self.good += batch.text.len() as u64;
        self.lines += batch.lines;
        Ok(Written::After(good))
    }

    /// Returns when what is new survives what the policy says.
    fn sync(&mut self, fresh: &[RequestId], written: Written) -> Result<(), Failure> {
        match (self.fsync, written) {
            (Fsync::Always, Written::After(good)) if !fresh.is_empty() => {
                let Err(error) = self.file.sync() else { return Ok(()) };
                self.is_in_doubt = true;
                self.cut_back(good);
                Err(self.failure("sync", &error))
            }
            _ => Ok(()),
        }
    }

    /// Nothing is left of what nobody was told.
    fn cut_back(&mut self, good: u64) {
        if let Err(error) = self.file.cut(good) {
            let path = self.file.path().display();
            tracing::warn!(%path, %error, "a log of deferred calls cannot be cut back: it will be written anew");
            self.is_in_doubt = true;
        }
    }

    /// Leaves out the lines that say nothing any more, when they are more than the others.
    fn compact(&mut self) {
        let live = self.live.len();
        if self.lines < self.compact_from || self.lines <= 2 * live || self.is_in_doubt {
            return;
        }
        if let Err(error) = self.rewrite() {
            let path = self.file.path().display();
            tracing::warn!(%path, %error, "a log of deferred calls cannot be compacted: it grows on");
            self.compact_from = 2 * self.lines;
        }
    }

    /// Writes what is live to a new file, and puts that in the place of the old one.
    fn rewrite(&mut self) -> io::Result<()> {
        let text = contents::write(&self.live);
        let beside = self.file.write_beside(&text)?;
        // Until that has ended well nobody knows which of the two a crash would leave.
        self.is_in_doubt = true;
        self.file.replace(beside)?;
        self.is_in_doubt = false;
        self.good = text.len() as u64;
        self.lines = self.live.len();
        self.compact_from = FEWEST_LINES;
        Ok(())
    }

    fn failure(&self, doing: &'static str, error: &io::Error) -> Failure {
        let path = self.file.path().to_owned();
        Failure { doing, path, kind: error.kind(), why: error.to_string() }
    }
}

/// How a batch was written.
#[derive(Debug, Clone, Copy)]
enum Written {
    /// After so many bytes, and is not synced.
    After(u64),
    /// With everything else that is live, and synced.
    Anew,
}

impl Batch {
    fn add(&mut self, order: Order, live: &mut Live) {
        match order {
            Order::Keep { deferred, answer } => {
                if live.keep(&deferred) {
                    line::write_kept(&mut self.text, &deferred);
                    self.lines += 1;
                    self.fresh.push(deferred.request);
                }
                self.kept.push(answer);
            }
            Order::Settle { settled, answer } => {
                for (request, settlement) in settled {
                    if live.settle(request) {
                        line::write_settled(&mut self.text, request, settlement);
                        self.lines += 1;
                    }
                }
                self.settled.push(answer);
            }
            Order::Load { answer } => self.loads.push(answer),
        }
    }
}

fn answer(waiting: Vec<Answer<()>>, result: &Result<(), Failure>) {
    // Whoever does not wait any more need not be told.
    waiting.into_iter().for_each(|answer| drop(answer.send(result.clone())));
}

impl From<Failure> for io::Error {
    fn from(Failure { doing, path, kind, why }: Failure) -> Self {
        let right = match kind {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                "it needs more room"
            }
            io::ErrorKind::AlreadyExists => {
                "the file of a log is not to be moved or replaced while it is open"
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "this process needs the right to write it and to make files beside it"
            }
            _ => "its file system needs to be looked at; the next call tries again",
        };
        Self::new(kind, format!("cannot {doing} {}: {why}; {right}", path.display()))
    }
}

fn newer() -> io::Error {
    let text = "a newer spool-lock has written it; that one is needed to read it, or another path";
    io::Error::new(io::ErrorKind::InvalidData, text)
}

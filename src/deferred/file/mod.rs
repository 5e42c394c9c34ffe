//! [`FileDeferredLog`]: deferred calls kept in a file.
//!
//! # Why a thread of its own
//! A sync takes as long as the disk takes, and no worker of a runtime may wait for that. tokio's threads for what blocks are the
//! service's: an ill disk would fill them. One thread also writes in the order of the calls, and all that wait share one sync.

mod contents;
mod line;
mod live;
mod locked;
mod writer;

use std::{
    convert::Infallible,
    fmt,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use self::{
    locked::LockedFile,
    writer::{Answer, Order, Writer},
};
use super::{Deferred, DeferredLog, DeferredLogAnswer, Settlement};

/// For how long a drop waits for the thread: a write and a sync are mostly some milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a [`FileDeferredLog`] has survived when it says that a call is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Fsync {
    /// The end of the process, of the system, and a loss of power: it is on the disk (`fdatasync`). The default.
    /// A call takes as long as the disk does, mostly some milliseconds, however many wait for it.
    #[default]
    Always,
    /// The end of the process, however it ends: the system has it, and writes it to the disk when it thinks fit. What was kept in
    /// the last seconds before the system ends may be lost.
    Never,
}

/// A [`DeferredLog`] in a file of this machine.
///
/// Lines are added to it, each with a checksum. When it is opened, and at 1,000 lines or more when those that say nothing any more are
/// more than the others, it is written anew (as `PATH.new`, which then takes its place). A new file can be read by its own user alone,
/// for it has tags and names in it. It is for one log at a time: it is locked (`flock`) until the log is dropped or its process ends.
///
/// # What it promises
/// Whatever ends the process, and at whatever byte, the next log of the same path loads what was kept and not settled, in its order.
/// What a crash leaves at the end, which nobody was told of, is cut off. A line that is not what was written (an ill disk) is passed
/// over; the whole file is first added to `PATH.damaged`. Both are warned of.
///
/// A settlement does not wait for the disk: were it lost, the call would be applied a second time, which has no effect.
///
/// # How it fails
/// A call that cannot be written or synced is refused, with what would be right, and nothing of it is left in the file, as far as
/// that can still be written. The next one is tried anew. After a sync that failed, what is live is first written to a new file: the
/// system may have dropped what it could not write, and then says that all is well (`fsync(2)`).
///
/// A drop waits for the disk, 1 s at most.
///
/// # Examples
/// ```
/// use spool_lock::{DeferredLog as _, FileDeferredLog, Fsync};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("deferred");
/// let log = FileDeferredLog::open(&path, Fsync::Always)?;
/// log.keep(&"1|AAAAAAAAA@5|identity|7|release|TEST-02|93|MR(93)".parse()?).await?;
/// drop(log);
///
/// // After whatever happened to the process:
/// let log = FileDeferredLog::open(&path, Fsync::Always)?;
/// assert_eq!(log.load().await?[0].tag.as_str(), "TEST-02");
/// # Ok(())
/// # }
/// ```
pub struct FileDeferredLog {
    path: PathBuf,
    fsync: Fsync,
    /// None once it is being dropped.
    orders: Option<mpsc::Sender<Order>>,
    /// Says that the thread has ended, and says nothing else.
    ended: Mutex<mpsc::Receiver<Infallible>>,
}

impl FileDeferredLog {
    /// Opens the log at `path`, or makes a new one, with mode 0600, in a folder that is there.
    ///
    /// Blocks while the file is read, written anew and synced: to be called once, at the start of a service. Where it has entries and
    /// cannot be written, it is opened for these, and nothing is kept before it can.
    ///
    /// # Errors
    /// Each names the path. `ResourceBusy` — another log has it open. `InvalidInput` — it is a folder, a device or the like.
    /// `InvalidData` — it is something else than a log, or was written by a newer version of this crate; then it is left as it is.
    /// Else what the system says.
    pub fn open(path: impl AsRef<Path>, fsync: Fsync) -> io::Result<Self> {
        let path = path.as_ref();
        let opened = || {
            let file = LockedFile::open(path)?;
            let path = file.path().to_owned();
            let (orders, receiver) = mpsc::channel();
            let (is_running, ended) = mpsc::channel();
            let writer = Writer::open(file, fsync)?;
            let body = move || {
                // Dropped after the writer, and so after the lock of the file.
                let _is_running = is_running;
                writer.run(&receiver);
            };
            thread::Builder::new().name("spool-lock-log".into()).spawn(body)?;
            Ok(Self { path, fsync, orders: Some(orders), ended: Mutex::new(ended) })
        };
        opened().map_err(|error: io::Error| {
            let text = format!("cannot open {} as a log of deferred calls: {error}", path.display());
            io::Error::new(error.kind(), text)
        })
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(Answer<T>) -> Order,
    ) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
        let (answer, receiver) = oneshot::channel();
        // Where the thread is gone it answers nothing.
        let _ = self.orders.as_ref().map(|orders| orders.send(order(answer)));
        let answered = receiver.await.map_err(|_| {
            let text = format!("the thread that writes {} has ended", self.path.display());
            io::Error::new(ErrorKind::BrokenPipe, text)
        })?;
        Ok(answered.map_err(io::Error::from)?)
    }
}

impl DeferredLog for FileDeferredLog {
    fn load(&self) -> DeferredLogAnswer<'_, Vec<Deferred>> {
        Box::pin(self.ask(|answer| Order::Load { answer }))
    }

    fn keep<'a>(&'a self, deferred: &'a Deferred) -> DeferredLogAnswer<'a, ()> {
        Box::pin(self.ask(|answer| Order::Keep { deferred: deferred.clone(), answer }))
    }

    fn settle<'a>(&'a self, settled: &'a [(Deferred, Settlement)]) -> DeferredLogAnswer<'a, ()> {
        let settled = settled.iter().map(|(deferred, settlement)| (deferred.request, *settlement));
        Box::pin(self.ask(|answer| Order::Settle { settled: settled.collect(), answer }))
    }
}

impl Drop for FileDeferredLog {
    fn drop(&mut self) {
        self.orders = None;
        let ended = self.ended.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let path = self.path.display();
            tracing::warn!(%path, "a log of deferred calls is still writing: its thread is left to itself");
        }
    }
}

impl fmt::Debug for FileDeferredLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, fsync, .. } = self;
        f.debug_struct("FileDeferredLog").field("path", path).field("fsync", fsync).finish_non_exhaustive()
    }
}

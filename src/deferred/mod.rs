//! [`Deferred`]: a call that gives something back and could not be sent; [`DeferredLog`]: where such calls survive their process.

#[cfg(unix)]
mod file;
mod text;

use std::{
    fmt,
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[cfg(unix)]
pub use self::file::{FileDeferredLog, Fsync};
pub use self::text::InvalidDeferred;
use crate::{Fence, Holder, LeaseKind, RequestId, Tag};

/// A release, or an extend downwards, that waits for Redis.
///
/// It is applied once Redis is back, if the lease that it means still stands. It never touches a later one, however late it comes: it
/// names that lease by its fence, or else every lease of its holder that had been granted when the call was made.
///
/// Its text is one line and can be read back: that is what a [`DeferredLog`] keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deferred {
    /// What is locked.
    pub tag: Tag,
    /// Whose lease it is.
    pub holder: Holder,
    /// What the lease is tied to.
    pub kind: LeaseKind,
    /// Exactly this grant; `None`: the one that stood when the call was made.
    pub fence: Option<Fence>,
    /// The name of the call. It says when the call was made, too.
    pub request: RequestId,
    /// What is to be done.
    pub call: DeferredCall,
}

/// What a [`Deferred`] does to its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeferredCall {
    /// Ends it.
    Release,
    /// Has it end at this time of the server's clock, unless it ends before; one whose time has come by then is released.
    Shorten {
        /// When it is to end.
        ends_at: SystemTime,
    },
}

/// What became of a [`Deferred`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Settlement {
    /// It was applied, by this try or by an earlier one of which nobody heard.
    Applied,
    /// There was nothing to apply it to: the lease had ended, and what stands since is another one.
    Ended,
}

impl Settlement {
    /// Both, in the order of the declaration.
    pub const ALL: [Self; 2] = [Self::Applied, Self::Ended];

    /// In snake case, as metrics and JSON have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Ended => "ended",
        }
    }
}

/// Where deferred calls survive their process: a file ([`FileDeferredLog`]), or the ledger of a service.
/// [`Connect`](crate::Connect) takes one.
///
/// A call is answered as deferred once [`keep`](Self::keep) has returned, and is settled at least once afterwards, by this process or
/// by the next one that opens the log. To apply it twice has no effect, so a settlement that is lost does no harm.
///
/// # Cancel safety
/// The futures are not dropped before their end unless the process ends.
pub trait DeferredLog: Send + Sync + 'static {
    /// Everything that was kept and not settled, in the order in which it was kept. Asked once, by
    /// [`connect`](crate::SpoolLocks::connect), which fails if this does, or takes longer than the config's `deadline`.
    fn load(&self) -> DeferredLogAnswer<'_, Vec<Deferred>>;

    /// Keeps a call, and returns when it would survive what this log is to survive. Its caller waits until the deadline of the call, and
    /// for 1 s at least; what is kept after that is settled at once.
    fn keep<'a>(&'a self, deferred: &'a Deferred) -> DeferredLogAnswer<'a, ()>;

    /// These are settled, and need not be kept any longer. Waited for 1 s at most; if it fails, they are applied again when the log is
    /// loaded, without effect.
    fn settle<'a>(&'a self, settled: &'a [(Deferred, Settlement)]) -> DeferredLogAnswer<'a, ()>;
}

/// What a [`DeferredLog`] answers, boxed as `Box::pin(async { .. })`. What its error says is told to the caller whose call could not be
/// kept.
pub type DeferredLogAnswer<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, Box<dyn std::error::Error + Send + Sync>>> + Send + 'a>>;

impl fmt::Debug for dyn DeferredLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeferredLog")
    }
}

impl Deferred {
    /// When the call was made, by the server's clock; 1970 where its request does not say.
    pub fn made_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.request.made().unwrap_or_default())
    }
}

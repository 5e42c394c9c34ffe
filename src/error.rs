//! What an operation answers when it does not do what it was asked: one small enum each.
//!
//! A variant exists where the caller's next step differs. "Somebody else holds it" is never mixed with "Redis could not be
//! asked": the first is an answer, the second is a [`Fault`].

use std::time::Duration;

use crate::{
    Claim, Fault, FaultKind, Fence, InvalidText, Lease, LockLost, Mode, Occupant, RequestId, Tag,
    fault::Refusal,
};

/// Why an acquire granted nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// Somebody else holds it; Redis is healthy. Wait, or tell the user who.
    #[error("{} is held by {} for another {expires_in:?}", occupant.tag, occupant.holder.id())]
    Contended {
        /// Who holds it.
        occupant: Box<Occupant>,
        /// How long their lease still lasts unless it is extended or released.
        expires_in: Duration,
    },
    /// The same holder holds it already: this lease stands, with its old fence and its ttl untouched.
    #[error("{} is already held by {}", .0.tag, .0.holder.id())]
    AlreadyHeld(Box<Lease>),
    /// No answer came, or none that is understood, and the lock may have been granted. It is being found out: wait for
    /// [`settled`](Claim::settled), or drop the claim, and what was granted is released.
    #[error("the lock may have been granted, no clear answer came")]
    Ambiguous {
        /// The right to what was granted.
        claim: Claim,
        /// What happened to the answer.
        #[source]
        fault: Fault,
    },
    /// Too many calls already wait, for a connection or in line for this tag; nothing was granted. Shed load.
    #[error("too many calls wait already")]
    Saturated,
    /// Too many acquires by this holder or of this tag, as the [limits](crate::LimitsConfig) of the config have it; nothing was sent
    /// and nothing granted. Try again after `retry_after`, not earlier; with a wait too it is refused at once.
    #[error("the limit of acquires per {} is reached for another {retry_after:?}", by.as_str())]
    Limited {
        /// Whose limit.
        by: LimitedBy,
        /// When this limit lets one more pass, unless another call comes first.
        retry_after: Duration,
    },
    /// Redis was restarted, knows nothing of this tag, and the [grace](crate::Config::restart_grace) of the config is not over: who
    /// had this lock may have to put it back first. Nothing was granted. Try again after `retry_after`; with a wait that is done.
    #[error(
        "redis was restarted, and who had this lock may not have it back yet; try again after {retry_after:?}"
    )]
    Warming {
        /// When to try again; the grace at most.
        retry_after: Duration,
    },
    /// The note is too long or has a control character.
    #[error(transparent)]
    InvalidNote(#[from] InvalidText),
    /// Redis was not asked: it has failed too often just now, or an operator wants it so; nothing was granted. Try again after
    /// `retry_after`.
    #[error("redis is not asked for another {retry_after:?}, mode {}", mode.as_str())]
    Unavailable {
        /// What can be done meanwhile.
        mode: Mode,
        /// When Redis will have been tried again, in the background.
        retry_after: Duration,
        /// A [`CircuitOpen`](FaultKind::CircuitOpen); its source says why: the last fault that counted, or that it was by hand.
        #[source]
        fault: Fault,
    },
    /// An operator has to change something first: the password, the rights of the user, the certificates; the source says what. Redis
    /// is tried again each 30 s.
    #[error("redis refuses this service until its set-up is changed")]
    Misconfigured(#[source] Fault),
    /// Redis misbehaved; nothing was granted.
    #[error("no lock could be acquired")]
    Fault(#[source] Fault),
}

/// Whose limit of acquires is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitedBy {
    /// That of the holder: [`LimitsConfig::per_holder`](crate::LimitsConfig::per_holder).
    Holder,
    /// That of the tag: [`LimitsConfig::per_tag`](crate::LimitsConfig::per_tag).
    Tag,
}

impl LimitedBy {
    /// Both, in the order of the declaration.
    pub const ALL: [Self; 2] = [Self::Holder, Self::Tag];

    /// What logs and metrics call it: `holder`, `tag`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Tag => "tag",
        }
    }
}

/// Why an extend did not take place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtendError {
    /// Somebody else holds it, or the same holder in another way than the call names (kind, fence).
    #[error("{} is held by {}, fence {}", .0.tag, .0.holder.id(), .0.fence)]
    NotHolder(Box<Occupant>),
    /// Nobody holds it: the lease has ended. An extend never makes a new one.
    #[error("not held")]
    NotHeld {
        /// The last fence of the tag that the server remembers.
        last: Option<Fence>,
    },
    /// Too many calls already wait for a connection; nothing was sent.
    #[error("too many calls wait for a connection")]
    Saturated,
    /// An operator has to change something first: the password, the rights of the user, the certificates; the source says what. Redis
    /// is tried again each 30 s.
    #[error("redis refuses this service until its set-up is changed")]
    Misconfigured(#[source] Fault),
    /// Redis could not be asked, and what was to [shorten](crate::Extend::shorten) the lease was not kept for later: too many wait, or
    /// the log failed. Try again later.
    #[error(transparent)]
    NotDeferred(#[from] NotDeferred),
    /// Redis misbehaved. After a [`FaultKind::is_ambiguous`] one the lease may have been extended; to
    /// extend again is safe.
    #[error("the lease could not be extended")]
    Fault(#[source] Fault),
}

/// Why a release did not take place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// Somebody else holds it, or the same holder in another way than the call names (kind, fence).
    #[error("{} is held by {}, fence {}", .0.tag, .0.holder.id(), .0.fence)]
    NotHolder(Box<Occupant>),
    /// Nobody holds it: the lease had ended by itself or was released before.
    #[error("not held")]
    NotHeld {
        /// The last fence of the tag that the server remembers.
        last: Option<Fence>,
    },
    /// No answer came, or none that is understood, and the release may have been applied. Ask again with
    /// [`request`](crate::Release::request): a release that was applied is then answered as released, whoever holds the tag
    /// by now. When the tag has been granted three times since, the store may have forgotten it: then the answer is
    /// [`NotHolder`](Self::NotHolder) or [`NotHeld`](Self::NotHeld), and the lease has ended all the same.
    #[error("the lock may have been released, no clear answer came")]
    Ambiguous {
        /// The name of this call.
        request: RequestId,
        /// What happened to the answer.
        #[source]
        fault: Fault,
    },
    /// Redis could not be asked, and the release was not kept for later: too many wait, or the log failed. Try again later.
    #[error(transparent)]
    NotDeferred(#[from] NotDeferred),
    /// Too many calls already wait for a connection; nothing was sent, and nothing is deferred.
    #[error("too many calls wait for a connection")]
    Saturated,
    /// An operator has to change something first: the password, the rights of the user, the certificates; the source says what. Redis
    /// is tried again each 30 s, and nothing is deferred.
    #[error("redis refuses this service until its set-up is changed")]
    Misconfigured(#[source] Fault),
    /// Redis misbehaved; nothing was released.
    #[error("the lock could not be released")]
    Fault(#[source] Fault),
}

/// Redis could not be asked, and the call was not kept for later either: whoever made it is the only one who knows of it.
#[derive(Debug, thiserror::Error)]
#[error("redis could not be asked, and the call was not kept for later: {why}")]
#[non_exhaustive]
pub struct NotDeferred {
    /// The name of the call. A release can be asked for again with it.
    pub request: RequestId,
    /// Why it was not kept.
    pub why: DeferError,
    /// Why Redis could not be asked. After a [`FaultKind::is_ambiguous`] one the call may have been applied.
    #[source]
    pub fault: Fault,
}

/// Why a call was not kept for later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeferError {
    /// As many calls wait for Redis as may ([`Config::deferred`](crate::Config::deferred)).
    #[error("{most} calls wait for redis already, more are not kept")]
    Full {
        /// How many may wait.
        most: usize,
    },
    /// The [`DeferredLog`](crate::DeferredLog) could not keep it; what it said.
    #[error("{0}")]
    Log(Box<dyn std::error::Error + Send + Sync>),
}

/// Why a guard's lock was not released by its guard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardReleaseError {
    /// It was no longer held.
    #[error(transparent)]
    Lost(#[from] LockLost),
    /// Redis has not confirmed it. The lock is released in the background as soon as it can be, and lasts its ttl at most;
    /// there is nothing to repeat.
    #[error("the release is not confirmed, and goes on in the background")]
    Unconfirmed(#[source] Fault),
}

/// Why none of several tags was acquired.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("{tag} could not be acquired, so none of them was")]
pub struct AcquireAllError {
    /// The tag that refused. Those before it, in the order of the tags, had been acquired and were given back.
    pub tag: Tag,
    /// Why it refused.
    #[source]
    pub why: Box<AcquireError>,
    /// Those of them that had ended before they were given back, or whose holder was told of them by another call: nothing was
    /// released there.
    pub lost: Vec<Tag>,
}

/// Why nothing was released by force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForceReleaseError {
    /// Nobody holds it.
    #[error("not held")]
    NotHeld {
        /// The last fence of the tag that the server remembers.
        last: Option<Fence>,
    },
    /// Too many calls already wait for a connection; nothing was sent.
    #[error("too many calls wait for a connection")]
    Saturated,
    /// An operator has to change something first: the password, the rights of the user, the certificates; the source says what. Redis
    /// is tried again each 30 s.
    #[error("redis refuses this service until its set-up is changed")]
    Misconfigured(#[source] Fault),
    /// Redis misbehaved. After a [`FaultKind::is_ambiguous`] one the lease may have been ended; look, and
    /// ask again.
    #[error("the lock could not be released by force")]
    Fault(#[source] Fault),
}

/// Why leases could not be put back, or not all of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Too many calls already wait for a connection.
    #[error("too many calls wait for a connection")]
    Saturated,
    /// Redis was not asked: it has failed too often just now, or an operator wants it so. Try again after `retry_after`.
    #[error("redis is not asked for another {retry_after:?}, mode {}", mode.as_str())]
    Unavailable {
        /// What can be done meanwhile.
        mode: Mode,
        /// When Redis will have been tried again, in the background.
        retry_after: Duration,
        /// A [`CircuitOpen`](FaultKind::CircuitOpen); its source says why: the last fault that counted, or that it was by hand.
        #[source]
        fault: Fault,
    },
    /// An operator has to change something first: the password, the rights of the user, the certificates; the source says what. Redis
    /// is tried again each 30 s.
    #[error("redis refuses this service until its set-up is changed")]
    Misconfigured(#[source] Fault),
    /// Redis misbehaved.
    #[error("the leases could not be put back")]
    Fault(#[source] Fault),
}

/// Why a read has no answer. It is never "free": nothing is called free because Redis could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Too many calls already wait for a connection, or none is left for the subscription; nothing was sent.
    #[error("too many calls wait for a connection")]
    Saturated,
    /// Redis was not asked: it has failed too often just now, or an operator wants it so; nothing was read. Try again after
    /// `retry_after`.
    #[error("redis is not asked for another {retry_after:?}, mode {}", mode.as_str())]
    Unavailable {
        /// What can be done meanwhile.
        mode: Mode,
        /// When Redis will have been tried again, in the background.
        retry_after: Duration,
        /// A [`CircuitOpen`](FaultKind::CircuitOpen); its source says why: the last fault that counted, or that it was by hand.
        #[source]
        fault: Fault,
    },
    /// An operator has to change something first: the password, the rights of the user, the certificates; the source says what. Redis
    /// is tried again each 30 s.
    #[error("redis refuses this service until its set-up is changed")]
    Misconfigured(#[source] Fault),
    /// Redis misbehaved.
    #[error("redis could not be asked")]
    Fault(#[source] Fault),
}

/// A value of the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {value:?} cannot be used; {right}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The setting, by the name of its variable; `dependency` for the name of one.
    pub variable: String,
    /// The value, with secrets masked.
    pub value: String,
    /// What is wrong with it, and what could be used.
    pub right: String,
}

/// Why there is no connection to a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A value of the configuration cannot be used, or the name of a dependency.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server is older than what the scripts need.
    #[error("redis {found} is too old; 7.0 or newer is needed")]
    TooOld {
        /// The version that the server names.
        found: String,
    },
    /// What the [`DeferredLog`](crate::DeferredLog) has kept could not be read.
    #[error("the deferred calls of earlier processes could not be read")]
    DeferredLog(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The snapshot socket could not be opened.
    #[error("the snapshot could not be served at {at}")]
    Snapshot {
        /// Where it was to be served.
        at: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Redis could not be reached or refused us.
    #[error("no connection to redis")]
    Fault(#[source] Fault),
}

/// Maps a fault to the variant of an operation's error that tells the caller what to do. Operations that pass an open circuit are
/// never refused by it.
macro_rules! from_fault {
    ($($error:ty $(, $refused:ident)?;)*) => {$(
        impl From<Fault> for $error {
            fn from(fault: Fault) -> Self {
                match (fault.kind(), fault.refusal()) {
                    (FaultKind::Saturated, _) => Self::Saturated,
                    _ if fault.is_misconfigured() => Self::Misconfigured(fault),
                    $((_, Some(Refusal { mode, retry_after, .. })) => Self::$refused { mode, retry_after, fault },)?
                    _ => Self::Fault(fault),
                }
            }
        }
    )*};
}
from_fault! {
    AcquireError, Unavailable;
    ReadError, Unavailable;
    ExtendError;
    ReleaseError;
    ForceReleaseError;
    RestoreError, Unavailable;
}

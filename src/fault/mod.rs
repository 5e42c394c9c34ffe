//! [`Fault`]: Redis misbehaved. [`FaultKind`] is the closed list of ways, and `class` says what follows from each.

mod class;

use std::{error::Error, fmt, time::Duration};

pub(crate) use self::class::Blame;
use crate::Mode;

/// The ways in which Redis, or the road to it, misbehaves.
///
/// This list is closed: the snake case of each is a value of the metric label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum FaultKind {
    /// No reply within the attempt's time. The server may have done what it was asked.
    Timeout,
    /// The connection broke while the call was under way. The server may have done what it was asked.
    Disconnected,
    /// No connection of the pool came free in time. Nothing was sent.
    CheckoutTimeout,
    /// Too many calls already wait for a connection, or none is left for the subscription. Nothing was sent.
    Saturated,
    /// No connection could be opened, or not in time: refused, unreachable, unknown host.
    Connect,
    /// The server closed a new connection while it was being set up, as one does that is at its client limit.
    ClosedInHandshake,
    /// The server is at its client limit, in its own words or numbers.
    MaxClients,
    /// The TLS handshake failed.
    Tls,
    /// The server wants a password, or another one.
    Auth,
    /// The user may not do this; the message says what is missing.
    Permission,
    /// The server is loading its data.
    Loading,
    /// The server runs a script of somebody's that does not end.
    Busy,
    /// The server is a replica.
    ReadOnly,
    /// The server refuses writes because it cannot save to disk.
    Misconf,
    /// The server's memory is full.
    OutOfMemory,
    /// The server has fewer replicas than it must have to take writes.
    NoReplicas,
    /// What stands at the tag's key is not a lock of ours: another type, another form, or no ttl.
    NotALock,
    /// The fence would go backwards or leave its range.
    FenceRegression,
    /// The call reached the server after its time, twice; it did nothing there.
    Late,
    /// The reply was none that the protocol knows. The server may have done what it was asked.
    Protocol,
    /// Any other word of the server; the message has it.
    Other,
    /// Redis was not asked: it has failed too often just now, or an operator said so. The source says which: the last fault that
    /// counted, or that the circuit was opened by hand.
    CircuitOpen,
}

impl FaultKind {
    /// Every kind, in the order of the declaration.
    pub const ALL: [Self; 22] = [
        Self::Timeout,
        Self::Disconnected,
        Self::CheckoutTimeout,
        Self::Saturated,
        Self::Connect,
        Self::ClosedInHandshake,
        Self::MaxClients,
        Self::Tls,
        Self::Auth,
        Self::Permission,
        Self::Loading,
        Self::Busy,
        Self::ReadOnly,
        Self::Misconf,
        Self::OutOfMemory,
        Self::NoReplicas,
        Self::NotALock,
        Self::FenceRegression,
        Self::Late,
        Self::Protocol,
        Self::Other,
        Self::CircuitOpen,
    ];

    /// The kind in snake case, as metrics and JSON have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Disconnected => "disconnected",
            Self::CheckoutTimeout => "checkout_timeout",
            Self::Saturated => "saturated",
            Self::Connect => "connect",
            Self::ClosedInHandshake => "closed_in_handshake",
            Self::MaxClients => "max_clients",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::Permission => "permission",
            Self::Loading => "loading",
            Self::Busy => "busy",
            Self::ReadOnly => "read_only",
            Self::Misconf => "misconf",
            Self::OutOfMemory => "out_of_memory",
            Self::NoReplicas => "no_replicas",
            Self::NotALock => "not_a_lock",
            Self::FenceRegression => "fence_regression",
            Self::Late => "late",
            Self::Protocol => "protocol",
            Self::Other => "other",
            Self::CircuitOpen => "circuit_open",
        }
    }

    /// Whether the server may have done what it was asked although no clear answer came.
    pub fn is_ambiguous(self) -> bool {
        matches!(self, Self::Timeout | Self::Disconnected | Self::Protocol)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Timeout => "redis did not answer in time",
            Self::Disconnected => "the connection to redis broke",
            Self::CheckoutTimeout => "no connection came free in time",
            Self::Saturated => "too many calls wait for a connection",
            Self::Connect => "no connection to redis could be opened",
            Self::ClosedInHandshake => "redis closed a new connection at once, it may be at its client limit",
            Self::MaxClients => "max number of clients reached",
            Self::Tls => "the TLS handshake with redis failed",
            Self::Auth => "redis refused the credentials",
            Self::Permission => "redis does not allow this user the command",
            Self::Loading => "redis is loading its data",
            Self::Busy => "redis is busy with a script",
            Self::ReadOnly => "redis is a read-only replica",
            Self::Misconf => "redis refuses writes because it cannot save to disk",
            Self::OutOfMemory => "the memory of redis is full",
            Self::NoReplicas => "redis refuses writes for want of replicas",
            Self::NotALock => "what stands at the key is not a lock",
            Self::FenceRegression => "the fence would go backwards or leave its range",
            Self::Late => "the call reached redis after its time",
            Self::Protocol => "the reply of redis was not understood",
            Self::Other => "redis refused the call",
            Self::CircuitOpen => "redis is not asked at the moment",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Redis misbehaved: the kind, and as [`source`](Error::source) what the client library or the server said.
#[derive(Debug)]
pub struct Fault {
    kind: FaultKind,
    source: Option<Box<dyn Error + Send + Sync>>,
    refusal: Option<Refusal>,
    is_cut_short: bool,
}

/// Why Redis was not asked, and how long it will not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) mode: Mode,
    pub(crate) retry_after: Duration,
    /// The kind of the last fault that counted; none where an operator wants it so.
    pub(crate) cause: Option<FaultKind>,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..kind.into() }
    }

    /// Of a caller who had less time than it takes to say anything about Redis.
    pub(crate) fn cut_short(self) -> Self {
        Self { is_cut_short: true, ..self }
    }

    /// Of a call that was refused without asking Redis.
    pub(crate) fn refused(refusal: Refusal, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { refusal: Some(refusal), ..Self::new(FaultKind::CircuitOpen, source) }
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// What it counts against.
    pub(crate) fn blame(&self) -> Blame {
        if self.is_cut_short { Blame::Nobody } else { self.kind.class().blame }
    }

    /// What its source said; empty where it has none.
    pub(crate) fn said(&self) -> String {
        self.source.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// How long calls like this one are refused from now on without asking Redis; none where this one was asked.
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal.map(|refusal| refusal.retry_after)
    }

    /// Whether an operator has to change something before a repeat can succeed: the password, the rights of the user, the
    /// certificates. The message says what.
    pub fn is_misconfigured(&self) -> bool {
        let kind = self.refusal.and_then(|refusal| refusal.cause).unwrap_or(self.kind);
        kind.class().blame == Blame::Setup
    }

    /// What kind of fault it was.
    pub fn kind(&self) -> FaultKind {
        self.kind
    }
}

impl From<FaultKind> for Fault {
    fn from(kind: FaultKind) -> Self {
        Self { kind, source: None, refusal: None, is_cut_short: false }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_under_its_own_word() {
        let words: std::collections::HashSet<_> = FaultKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), FaultKind::ALL.len());
        for (place, kind) in FaultKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{kind:?} stands at its own place");
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn json_and_metrics_use_the_same_word() {
        for kind in FaultKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}

//! [`Class`]: what follows from a fault.
//!
//! The one table from a kind of fault to the circuit that it counts against, whether the call is tried again, and what becomes of
//! the connection; `store/classify` is the one from the words of the server and the driver to the kind. `docs/faults.md` shows both.

use super::FaultKind;

/// What a fault counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Nothing: Redis answered, or was not asked.
    Nobody,
    /// The road to Redis, or Redis as a whole: nobody can be answered.
    Link,
    /// A server that takes no writes. For a read, which then has no answer either, it is the link.
    Writes,
    /// How the service or the server is set up: nothing will change until an operator acts.
    Setup,
}

/// What follows from a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) blame: Blame,
    /// Whether the same call may succeed if it is sent again soon.
    pub(crate) is_retried: bool,
    /// Whether the connection, and all older ones, are given up.
    pub(crate) evicts: bool,
}

impl FaultKind {
    pub(crate) const fn class(self) -> Class {
        use Blame::{Link, Nobody, Setup, Writes};
        let (blame, is_retried, evicts) = match self {
            Self::Timeout => (Link, true, true),
            Self::Disconnected => (Link, true, true),
            Self::Connect => (Link, true, false),
            Self::ClosedInHandshake => (Link, true, false),
            Self::MaxClients => (Link, true, false),
            Self::Loading => (Link, true, false),
            Self::Busy => (Link, true, false),
            // A new connection may lead to the new master.
            Self::ReadOnly => (Writes, true, true),
            Self::Misconf => (Writes, false, false),
            Self::OutOfMemory => (Writes, false, false),
            Self::NoReplicas => (Writes, false, false),
            Self::Auth => (Setup, false, true),
            Self::Permission => (Setup, false, false),
            Self::Tls => (Setup, false, false),
            // The pool is full, Redis may be well.
            Self::CheckoutTimeout => (Nobody, false, false),
            Self::Saturated => (Nobody, false, false),
            // Redis answered.
            Self::NotALock => (Nobody, false, false),
            Self::FenceRegression => (Nobody, false, false),
            Self::Late => (Nobody, false, false),
            Self::Other => (Nobody, false, false),
            // It spoke, and what follows on that connection cannot be understood either.
            Self::Protocol => (Nobody, false, true),
            // It was not asked.
            Self::CircuitOpen => (Nobody, false, false),
        };
        Class { blame, is_retried, evicts }
    }
}

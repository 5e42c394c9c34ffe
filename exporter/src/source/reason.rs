//! [`Reason`]: why Redis could not be asked, as a closed list.

use std::{error::Error, io, sync::Arc};

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a look at Redis failed. The list is closed, so that no address and no error text ever becomes a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The server is at its client limit.
    MaxClients,
    /// No answer in time.
    Timeout,
    /// Nobody listens.
    Refused,
    /// The server wants another password, or does not let us ask.
    Auth,
    /// The TLS handshake failed.
    Tls,
    /// Anything else that went wrong on the way, such as a connection that was closed in the handshake.
    Io,
    /// The server answers, and is still loading its data.
    Loading,
}

impl Reason {
    pub(crate) const ALL: [Self; 7] =
        [Self::MaxClients, Self::Timeout, Self::Refused, Self::Auth, Self::Tls, Self::Io, Self::Loading];

    /// The value of the label `reason`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::MaxClients => "max_clients",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Auth => "auth",
            Self::Tls => "tls",
            Self::Io => "io",
            Self::Loading => "loading",
        }
    }

    /// The reason behind an error of the client library; `tls` says whether the connection is meant to be encrypted.
    pub(crate) fn of(error: &RedisError, tls: bool) -> Self {
        match error.kind() {
            ErrorKind::Io if error.is_timeout() => Self::Timeout,
            // Also a unix socket that is not there yet: a server that does not listen yet.
            ErrorKind::Io if error.is_connection_refusal() => Self::Refused,
            ErrorKind::Io if tls && is_of_tls(error) => Self::Tls,
            ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Auth,
            ErrorKind::Server(ServerErrorKind::BusyLoading) => Self::Loading,
            _ if error.to_string().contains("max number of clients") => Self::MaxClients,
            _ if matches!(error.code(), Some("NOAUTH" | "WRONGPASS")) => Self::Auth,
            _ => Self::Io,
        }
    }
}

/// Whether an I/O error is what TLS says of a handshake, a host name or a certificate store.
fn is_of_tls(error: &RedisError) -> bool {
    // The library keeps its source in an `Arc`, which is an error itself and hides the one inside.
    let source = error.source().and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    match source.map(|source| source.downcast_ref::<io::Error>()) {
        // rustls wraps whatever it finds wrong like this.
        Some(Some(error)) => error.kind() == io::ErrorKind::InvalidData,
        // What the library calls I/O and is none.
        Some(None) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_one_of_seven_reasons() {
        let io = |kind: io::ErrorKind| RedisError::from(io::Error::from(kind));
        for (error, tls, reason) in [
            (io(io::ErrorKind::ConnectionRefused), false, Reason::Refused),
            (io(io::ErrorKind::NotFound), false, Reason::Refused),
            (io(io::ErrorKind::TimedOut), false, Reason::Timeout),
            (io(io::ErrorKind::ConnectionReset), false, Reason::Io),
            (io(io::ErrorKind::InvalidData), true, Reason::Tls),
            (io(io::ErrorKind::InvalidData), false, Reason::Io),
            (io(io::ErrorKind::UnexpectedEof), true, Reason::Io),
            ((ErrorKind::AuthenticationFailed, "no").into(), false, Reason::Auth),
            ((ErrorKind::Server(ServerErrorKind::NoPerm), "no").into(), false, Reason::Auth),
            ((ErrorKind::Server(ServerErrorKind::BusyLoading), "wait").into(), false, Reason::Loading),
            ((ErrorKind::Extension, "ERR max number of clients reached").into(), false, Reason::MaxClients),
            ((ErrorKind::Parse, "what").into(), false, Reason::Io),
        ] {
            assert_eq!(Reason::of(&error, tls), reason, "{error}");
        }
    }
}

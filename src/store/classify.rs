//! The table from the driver's and the server's words to [`FaultKind`].
//!
//! Codes that the driver does not know (`OOM`, `MISCONF`, `BUSY` …) reach us as the first word of the error (`code`); see
//! "Redis error replies" in the protocol specification: the first upper-case word is the kind.

use redis::{ErrorKind, RedisError};

use crate::{Fault, FaultKind};

/// What a reply of the server, or its absence, means for a command.
pub(super) fn kind_of(error: &RedisError) -> FaultKind {
    if let Some(kind) = error.code().and_then(kind_of_code) {
        return kind;
    }
    // A right that a script lacks for a command within it comes under the general code.
    if error.detail().is_some_and(|detail| detail.contains("executing the script can't")) {
        return FaultKind::Permission;
    }
    if error.is_timeout() {
        return FaultKind::Timeout;
    }
    match error.kind() {
        ErrorKind::Io => FaultKind::Disconnected,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => FaultKind::Protocol,
        ErrorKind::AuthenticationFailed => FaultKind::Auth,
        _ => FaultKind::Other,
    }
}

fn kind_of_code(code: &str) -> Option<FaultKind> {
    Some(match code {
        "LOADING" => FaultKind::Loading,
        "BUSY" => FaultKind::Busy,
        // A replica that lost its master and serves no stale data cannot take writes either.
        "READONLY" | "MASTERDOWN" => FaultKind::ReadOnly,
        "MISCONF" => FaultKind::Misconf,
        "OOM" => FaultKind::OutOfMemory,
        "NOREPLICAS" => FaultKind::NoReplicas,
        "NOAUTH" | "WRONGPASS" => FaultKind::Auth,
        "NOPERM" => FaultKind::Permission,
        "WRONGTYPE" => FaultKind::NotALock,
        _ => return None,
    })
}

/// The fault of a command.
pub(super) fn of_command(error: RedisError) -> Fault {
    discreet(kind_of(&error), error)
}

/// The fault of a connection that could not be opened.
///
/// A server at its client limit writes its refusal and closes, and the handshake dies on the closed socket first: of 76,000
/// refusals none was readable. So the stage tells, not the text: a connection that was accepted and then closed was turned away.
pub(super) fn of_dial(error: RedisError) -> Fault {
    let text = error.to_string();
    let kind = if text.contains("max number of clients") || text.contains("Too many connections") {
        FaultKind::MaxClients
    } else {
        match kind_of(&error) {
            FaultKind::Disconnected => kind_of_io(&error, &text),
            kind => kind,
        }
    };
    discreet(kind, error)
}

/// A fault with the error as its source, but for what the server repeats of a command that it does not know: the password of a
/// handshake, the token of a call.
fn discreet(kind: FaultKind, error: RedisError) -> Fault {
    let said = error.to_string();
    match said.find("with args") {
        Some(at) => Fault::new(kind, said[..at].trim_end_matches([' ', ',']).to_owned()),
        None => Fault::new(kind, error),
    }
}

fn kind_of_io(error: &RedisError, text: &str) -> FaultKind {
    // The words of rustls, which reach us as text alone.
    const TLS: [&str; 3] = ["certificate", "fatal alert", "TLS"];
    if error.is_connection_refusal() {
        FaultKind::Connect
    } else if error.is_connection_dropped() {
        FaultKind::ClosedInHandshake
    } else if TLS.iter().any(|word| text.contains(word)) {
        FaultKind::Tls
    } else {
        FaultKind::Connect
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_refused_connection_is_told_by_its_stage() {
        let kind = |kind: io::ErrorKind| of_dial(io::Error::from(kind).into()).kind();
        assert_eq!(kind(io::ErrorKind::ConnectionRefused), FaultKind::Connect);
        assert_eq!(kind(io::ErrorKind::NotFound), FaultKind::Connect);
        for closed in
            [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof]
        {
            assert_eq!(kind(closed), FaultKind::ClosedInHandshake);
        }
    }
}

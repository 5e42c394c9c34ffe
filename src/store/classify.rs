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
    if error.is_timeout() {
        return FaultKind::Timeout;
    }
    match error.kind() {
        ErrorKind::Io => FaultKind::Disconnected,
        _ if is_cut(error) => FaultKind::Disconnected,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => FaultKind::Protocol,
        ErrorKind::AuthenticationFailed => FaultKind::Auth,
        _ => kind_of_text(said(&error.to_string())),
    }
}

/// Whether the connection ended in the middle of a reply: until then, the parser waits for the rest.
fn is_cut(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Parse && error.detail().is_some_and(|text| text.contains("end of input"))
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
        // In protected mode the server turns strangers away whatever their password: the right has to be given there.
        "NOPERM" | "DENIED" => FaultKind::Permission,
        "WRONGTYPE" => FaultKind::NotALock,
        // Among them those of a cluster (CLUSTERDOWN, TRYAGAIN, MOVED, ASK, CROSSSLOT): they are not for one server that is ill.
        _ => return None,
    })
}

/// What comes under the general code, `ERR`, is told by its words.
fn kind_of_text(text: &str) -> FaultKind {
    const FULL: [&str; 2] = ["max number of clients", "Too many connections"];
    // An operator has to change it: rights that the user lacks for a command within a script, a command that was renamed or
    // switched off (the next two as a script hears it), a database that the server does not have.
    const REFUSED: [&str; 5] = [
        "executing the script can't",
        "unknown command",
        "Unknown Redis command",
        "Invalid command passed to redis.acl_check_cmd()",
        "DB index is out of range",
    ];
    let has = |word: &&str| text.contains(*word);
    if FULL.iter().any(has) {
        FaultKind::MaxClients
    } else if REFUSED.iter().any(has) {
        FaultKind::Permission
    } else {
        FaultKind::Other
    }
}

/// The fault of a command.
pub(super) fn of_command(error: RedisError) -> Fault {
    discreet(kind_of(&error), &error)
}

/// The fault of a connection that could not be opened.
///
/// A server at its client limit writes its refusal and closes, and the handshake dies on the closed socket first: of 76,000
/// refusals none was readable. So the stage tells, not the text: a connection that was accepted and then closed was turned away.
pub(super) fn of_dial(error: RedisError) -> Fault {
    let kind = match kind_of(&error) {
        FaultKind::Disconnected => kind_of_io(&error),
        // Whatever the word means, there is no connection.
        FaultKind::Other => FaultKind::Connect,
        kind => kind,
    };
    discreet(kind, &error)
}

/// A fault with the words of the error as its source, but for what the server repeats of a command that it does not know: the password
/// of a handshake, the token of a call. The words alone: the error has itself as its source once more.
fn discreet(kind: FaultKind, error: &RedisError) -> Fault {
    Fault::new(kind, said(&error.to_string()).to_owned())
}

/// What the server said itself, without what it repeats.
fn said(text: &str) -> &str {
    match text.find("with args") {
        Some(at) => text[..at].trim_end_matches([' ', ',']),
        None => text,
    }
}

fn kind_of_io(error: &RedisError) -> FaultKind {
    // The words of rustls, which reach us as text alone.
    const TLS: [&str; 6] =
        ["certificate", "fatal alert", "TLS", "corrupt message", "peer is incompatible", "peer misbehaved"];
    if error.is_connection_refusal() {
        FaultKind::Connect
    } else if error.is_connection_dropped() || is_cut(error) {
        FaultKind::ClosedInHandshake
    } else if TLS.iter().any(|word| error.to_string().contains(word)) {
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

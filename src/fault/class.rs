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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{
        Blame::{Link, Nobody, Setup, Writes},
        *,
    };

    const AGAIN: bool = true;
    const ONCE: bool = false;
    const EVICTED: bool = true;
    const KEPT: bool = false;

    /// As it was decided, by what a kind says of Redis, apart from how the table above is written.
    #[test]
    fn what_follows_from_each_kind_is_what_was_decided() {
        use FaultKind::*;
        let decided: [(&[FaultKind], Blame, bool, bool); 8] = [
            // It was silent or went away; so did all that is under way on that connection.
            (&[Timeout, Disconnected], Link, AGAIN, EVICTED),
            // It is not there, has no room, or is not ready: whoever waits may find it well.
            (&[Connect, ClosedInHandshake, MaxClients, Loading, Busy], Link, AGAIN, KEPT),
            // Another server is the master by now.
            (&[ReadOnly], Writes, AGAIN, EVICTED),
            // It reads and does not write, and not for a moment only.
            (&[Misconf, OutOfMemory, NoReplicas], Writes, ONCE, KEPT),
            // What was said in the handshake of that connection is not believed any more.
            (&[Auth], Setup, ONCE, EVICTED),
            // Rights that are given hold for open connections as well.
            (&[Permission, Tls], Setup, ONCE, KEPT),
            // Redis has answered, or was not asked.
            (
                &[CheckoutTimeout, Saturated, CircuitOpen, NotALock, FenceRegression, Late, Other],
                Nobody,
                ONCE,
                KEPT,
            ),
            // What comes next on that connection is nonsense too.
            (&[Protocol], Nobody, ONCE, EVICTED),
        ];
        let kinds = decided.iter().flat_map(|(kinds, ..)| kinds.iter().copied());
        assert_eq!(kinds.clone().count(), FaultKind::ALL.len(), "each once");
        assert_eq!(kinds.collect::<HashSet<_>>(), FaultKind::ALL.into());
        for (kinds, blame, is_retried, evicts) in decided {
            for kind in kinds {
                assert_eq!(kind.class(), Class { blame, is_retried, evicts }, "{kind:?}");
            }
        }
    }

    /// The lines of the table in `docs/faults.md`, which `tests/classes.rs` writes and checks from outside.
    #[test]
    fn the_page_says_what_follows() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md")).unwrap();
        let (_, table) = page.split_once("<!-- classes -->\n").expect("a table");
        let (table, _) = table.split_once("<!-- /classes -->").expect("its end");
        let lines: Vec<_> = table.lines().skip(2).collect();
        assert!(lines.len() > FaultKind::ALL.len(), "{table}");
        for line in lines {
            let cells: Vec<_> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let [_, _, word, blame, again, connection, _] = cells[..] else { panic!("{line}") };
            let kind = FaultKind::ALL.into_iter().find(|kind| kind.as_str() == word).expect(line);
            let class = kind.class();
            let is_right = match class.blame {
                Nobody => blame == "nobody",
                Link => blame == "link",
                Writes => blame == "writes",
                Setup => blame == "set-up",
            };
            assert!(is_right && again == if class.is_retried { "yes" } else { "no" }, "{line}: {class:?}");
            // A reply that can be read and is not understood breaks no connection.
            if connection == "kept" && kind != FaultKind::Protocol {
                assert!(!class.evicts, "{line}");
            } else if connection.starts_with("evicted") {
                assert!(class.evicts, "{line}");
            }
        }
    }
}

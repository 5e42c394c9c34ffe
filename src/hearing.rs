//! [`Hearing`]: what the clones of a [`SpoolLocks`](crate::SpoolLocks) ask of the hub.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::sync::{mpsc, oneshot};

use crate::{Event, Fault, FaultKind, Watch, store::Topic};

/// The mailbox of the hub.
#[derive(Debug)]
pub(crate) struct Hearing {
    requests: mpsc::UnboundedSender<Request>,
    /// Whether the hub knows that somebody waits. It spares all waiters but the first a message.
    listens: AtomicBool,
}

#[derive(Debug)]
pub(crate) enum Request {
    /// Somebody waits in line.
    Grants,
    /// Something happened that no store tells.
    Tell(Event),
    /// Somebody wants to hear what happens.
    Watch { topic: Topic, reply: oneshot::Sender<Result<Watch, Fault>> },
}

impl Hearing {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (requests, mailbox) = mpsc::unbounded_channel();
        (Self { requests, listens: AtomicBool::new(false) }, mailbox)
    }

    /// Somebody waits in line: from now on the process must hear of its grants. Asks nobody to wait for it.
    pub(crate) fn someone_waits(&self) {
        if !self.listens.swap(true, SeqCst) {
            // Without a hub nobody hears, and waiting goes by the poll alone.
            let _ = self.requests.send(Request::Grants);
        }
    }

    /// Something happened that no store tells: those who watch are told.
    pub(crate) fn tell(&self, event: Event) {
        // Without a hub nobody watches.
        let _ = self.requests.send(Request::Tell(event));
    }

    /// The hub no longer listens for grants: the next one who waits has to say so.
    pub(crate) fn forget(&self) {
        self.listens.store(false, SeqCst);
    }

    /// A watch that misses nothing of `topic` from its return on.
    pub(crate) async fn watch(&self, topic: Topic) -> Result<Watch, Fault> {
        let (reply, watch) = oneshot::channel();
        // Without a hub the reply is gone with its request.
        let _ = self.requests.send(Request::Watch { topic, reply });
        watch.await.unwrap_or_else(|_| Err(FaultKind::Disconnected.into()))
    }
}

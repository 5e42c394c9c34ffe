//! [`Hub`]: hears for all who watch or wait in this process, over one connection.
//!
//! One task owns the feed of the store. It opens it with the first watcher or waiter and closes it some time after the last, so
//! that a process which waits now and then does not dial each time. Whoever begins to watch gets his stream only after the
//! store has confirmed the subscription *and* was then asked how things stand: nothing that happens afterwards is missed.
//!
//! When the feed breaks, it is opened again, every topic is followed again, and the store is asked again; what has changed is
//! told as the difference. Nobody is told of the interruption itself: there is nothing else he could do about it.
//!
//! That a lease expires nobody publishes: keyspace events are off by default, cost every command, and come when Redis gets
//! round to it (seconds late with many keys). The hub has timers of its own and asks when one is due.

mod channel;
mod difference;
mod link;
mod switchboard;
mod told;

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::AbortHandle};

use self::switchboard::Switchboard;
use crate::{hearing::Request, inner::Inner};

/// The hub's task; it ends with its value.
#[derive(Debug)]
pub(crate) struct Hub(AbortHandle);

impl Hub {
    /// Long enough that a service which waits now and then keeps its connection, short enough that one which has stopped gives
    /// it back.
    pub(crate) const LINGER: Duration = Duration::from_secs(60);

    /// Starts the task; it closes the feed when nobody watches or waits for `linger`.
    pub(crate) fn start(
        inner: Arc<Inner>,
        mailbox: mpsc::UnboundedReceiver<Request>,
        linger: Duration,
    ) -> Self {
        Self(tokio::spawn(Switchboard::new(inner, mailbox, linger).run()).abort_handle())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.0.abort();
    }
}

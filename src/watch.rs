//! [`Watch`]: hearing what happens to tags.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::broadcast;
use tokio_stream::{
    Stream,
    wrappers::{BroadcastStream, errors::BroadcastStreamRecvError::Lagged},
};

use crate::Event;

/// What happens to a tag, or to all, from the moment the watch was made.
///
/// Any number of watches of a process share one connection. It reconnects by itself: what changed meanwhile is then told as the
/// difference, so a lease that came and went in between is not heard of, and how one ended may be unknown
/// ([`Released`](Event::Released)). A watch that is read too slowly is told how many events are gone for it
/// ([`Missed`](Event::Missed)) and slows nobody; [`inspect`](crate::SpoolLocks::inspect) then says how things stand.
///
/// It does not keep the locks connected: after the last clone of the [`SpoolLocks`](crate::SpoolLocks) is gone, it ends.
/// Dropped, it is no longer subscribed within a second or two.
///
/// # Examples
/// ```
/// use spool_lock::{Config, Event, Holder, SpoolLocks, Tag};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let locks = SpoolLocks::connect(Config::new("memory://")?).await?;
/// let (tag, worker) = (Tag::new("TEST-02")?, Holder::new("93", "MR(93)")?);
/// let mut watch = locks.watch_tag(&tag).await?;
///
/// let lease = locks.acquire(&tag, &worker).await?;
/// let event = watch.next().await.expect("the locks are connected");
/// assert!(matches!(&*event, Event::Taken { occupant, .. } if occupant.fence == lease.fence));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a watch is read by `next`, or as a stream"]
pub struct Watch {
    events: BroadcastStream<Arc<Event>>,
}

impl Watch {
    pub(crate) fn new(events: broadcast::Receiver<Arc<Event>>) -> Self {
        Self { events: BroadcastStream::new(events) }
    }

    /// The next event; `None` after the last clone of the locks is gone.
    ///
    /// # Cancel safety
    /// If dropped, no event is lost.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Watch {
    type Item = Arc<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Arc<Event>>> {
        let event = ready!(Pin::new(&mut self.events).poll_next(cx));
        Poll::Ready(
            event.map(|event| event.unwrap_or_else(|Lagged(events)| Arc::new(Event::Missed { events }))),
        )
    }
}

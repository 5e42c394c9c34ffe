//! [`Permit`]: the right to one operation on a lane; [`Flight`]: that operation, which outlives a caller who gives up.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock, Weak},
    task::{Context, Poll},
    time::Duration,
};

use redis::{
    Cmd, PushInfo, PushKind, RedisResult, Value,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
};
use tokio::time::Instant;

use super::{
    Shared,
    slots::{Grant, LaneId},
};
use crate::{ClosedReason, FaultKind, store::classify};

/// A call that is cut short below this says nothing about the lane it was on.
const SHORTEST_VERDICT: Duration = Duration::from_millis(250);

/// One slot of a lane. Dropped, the slot returns.
pub(super) struct Permit {
    shared: Arc<Shared>,
    lane: LaneId,
    connection: MultiplexedConnection,
    since: Instant,
    evict: Option<ClosedReason>,
}

impl Permit {
    pub(super) fn new(shared: Arc<Shared>, grant: Grant<MultiplexedConnection>) -> Self {
        let Grant { lane, connection } = grant;
        Self { shared, lane, connection, since: Instant::now(), evict: None }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Sends `cmd`. The slot returns with the reply, and the reply is awaited also when the caller no longer does.
    pub(super) fn send(self, cmd: Cmd) -> Flight {
        let (shared, lane, since) = (self.shared.clone(), self.lane, self.since);
        let reply = Box::pin(async move {
            let mut permit = self;
            let reply = match permit.connection.send_packed_command(&cmd).await {
                Ok(Value::ServerError(error)) => Err(error.into()),
                reply => reply,
            };
            permit.evict = match &reply {
                Ok(_) => None,
                Err(error) => match classify::kind_of(error) {
                    FaultKind::ReadOnly => Some(ClosedReason::ReadOnly),
                    FaultKind::Disconnected | FaultKind::Protocol | FaultKind::Auth => {
                        Some(ClosedReason::Disconnected)
                    }
                    _ => None,
                },
            };
            reply
        });
        let patience = since + shared.config.response_timeout;
        Flight { reply: Some(reply), shared, lane, since, patience }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        self.shared.meter.connection_use.observe(now.saturating_duration_since(self.since));
        let work = self.shared.lock().give_back(now, self.lane, self.evict);
        self.shared.perform(work);
    }
}

type Reply = Pin<Box<dyn Future<Output = RedisResult<Value>> + Send>>;

/// An operation on its way. Dropped before its reply came, it goes on in the background until its patience ends, and then its
/// lane is evicted.
pub(super) struct Flight {
    reply: Option<Reply>,
    shared: Arc<Shared>,
    lane: LaneId,
    since: Instant,
    patience: Instant,
}

impl Flight {
    /// When the caller stops waiting at the latest.
    pub(super) fn until(&self, deadline: Instant) -> Instant {
        deadline.min(self.patience)
    }

    /// The caller's time is over: the lane has the shortest time that allows a verdict, from the start, to answer yet.
    pub(super) fn give_up(mut self) {
        self.patience = self.patience.min(self.since + SHORTEST_VERDICT);
    }
}

impl Future for Flight {
    type Output = RedisResult<Value>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(reply) = self.reply.as_mut() else { return Poll::Pending };
        let outcome = std::task::ready!(reply.as_mut().poll(cx));
        self.reply = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(mut reply) = self.reply.take() else { return };
        let (shared, lane, patience) = (self.shared.clone(), self.lane, self.patience);
        let runtime = self.shared.runtime.clone();
        // Spawned in any case, also when the patience is over: the eviction must precede the return of the slot, and neither
        // belongs into a drop that may run under a lock of the caller's.
        runtime.spawn(async move {
            // By reference: the reply holds the slot, and whoever waits for one must not get it on this lane.
            if tokio::time::timeout_at(patience, &mut reply).await.is_err() {
                shared.evict(lane, ClosedReason::Timeout);
            }
        });
    }
}

/// Sits in the driver of one connection: hears that it broke, and is dropped with its socket.
pub(super) struct Watch {
    shared: Weak<Shared>,
    lane: Arc<OnceLock<LaneId>>,
}

impl Watch {
    pub(super) fn new(shared: &Arc<Shared>, lane: Arc<OnceLock<LaneId>>) -> Self {
        Self { shared: Arc::downgrade(shared), lane }
    }
}

impl AsyncPushSender for Watch {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        if let (PushKind::Disconnection, Some(shared), Some(&lane)) =
            (push.kind, self.shared.upgrade(), self.lane.get())
        {
            shared.evict(lane, ClosedReason::Disconnected);
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let work = shared.lock().place_freed(Instant::now());
            shared.perform(work);
        }
    }
}

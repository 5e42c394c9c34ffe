//! [`Cable`]: the connection of a lane; [`Permit`]: the right to one operation on it; [`Flight`]: that operation, which outlives
//! a caller who gives up.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use redis::{
    Cmd, PushInfo, PushKind, RedisResult, Value,
    aio::{AsyncPushSender, MultiplexedConnection, SendError},
};
use tokio::{sync::Notify, time::Instant};

use super::{
    Shared,
    slots::{LaneId, Slot, Tenant},
};
use crate::{ClosedReason, FaultKind, store::classify};

/// A call that is cut short below this says nothing about the lane it was on, nor about the server.
pub(crate) const SHORTEST_VERDICT: Duration = Duration::from_millis(250);

/// When an attempt that is made now ends: after `min(response_timeout, max(250 ms, rest / 2))`, where `rest` is what is left until
/// the deadline, and at the deadline at the latest. So half of the time is left for another try, unless the halves were too
/// short for a verdict.
pub(super) fn attempt_ends(now: Instant, deadline: Instant, response_timeout: Duration) -> Instant {
    let half = deadline.saturating_duration_since(now) / 2;
    deadline.min(now + response_timeout.min(half.max(SHORTEST_VERDICT)))
}

/// Whether an attempt is too short for a verdict, because its caller had no more time.
pub(super) fn is_cut_short(sent: Instant, until: Instant, response_timeout: Duration) -> bool {
    until.saturating_duration_since(sent) < SHORTEST_VERDICT.min(response_timeout)
}

/// A connection, and the news that its socket is gone.
#[derive(Debug, Clone)]
pub(super) struct Cable {
    pub(super) connection: MultiplexedConnection,
    cut: Arc<Cut>,
}

impl Cable {
    /// Sends `cmd` and awaits its reply, or the end of the socket.
    pub(super) async fn send(&mut self, cmd: &Cmd) -> RedisResult<Value> {
        tokio::select! {
            biased;
            reply = self.connection.send_packed_command(cmd) => match reply {
                Ok(Value::ServerError(error)) => Err(error.into()),
                reply => reply,
            },
            () = self.cut.told() => Err(io::Error::from(io::ErrorKind::BrokenPipe).into()),
        }
    }
}

/// Tells everybody on a lane that its socket is gone.
///
/// The driver does not tell everybody: a command that is handed to it in the very moment in which its task ends lies in the
/// channel for as long as anybody could send there (tokio's `mpsc`), and whoever waits for its reply is one of them.
#[derive(Debug, Default)]
struct Cut {
    done: AtomicBool,
    news: Notify,
}

impl Cut {
    fn tell(&self) {
        self.done.store(true, SeqCst);
        self.news.notify_waiters();
    }

    async fn told(&self) {
        // Made before the look: it hears what is told between the two.
        let news = self.news.notified();
        if !self.done.load(SeqCst) {
            news.await;
        }
    }
}

/// One slot of a lane. Dropped, the slot returns.
pub(super) struct Permit {
    shared: Arc<Shared>,
    lane: LaneId,
    cable: Cable,
    since: Instant,
    evict: Option<ClosedReason>,
}

impl Permit {
    pub(super) fn new(shared: Arc<Shared>, slot: Slot<Cable>) -> Self {
        let Slot { lane, connection: cable } = slot;
        Self { shared, lane, cable, since: Instant::now(), evict: None }
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Sends `cmd`. The slot returns with the reply, and the reply is awaited also when the caller no longer does.
    pub(super) fn send(self, cmd: Cmd) -> Flight {
        let (shared, lane, since) = (self.shared.clone(), self.lane, self.since);
        let reply = Box::pin(async move {
            let mut permit = self;
            let reply = permit.cable.send(&cmd).await;
            let kind = reply.as_ref().err().map(classify::kind_of);
            permit.evict = kind.filter(|kind| kind.class().evicts).map(|kind| match kind {
                FaultKind::ReadOnly => ClosedReason::ReadOnly,
                _ => ClosedReason::Disconnected,
            });
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
    /// The caller's time is over. A lane that has had the shortest time that allows a verdict is evicted at once, so that the
    /// caller's next try is not sent on it; one that has not may still answer.
    pub(super) fn give_up(mut self) {
        self.patience = self.patience.min(self.since + SHORTEST_VERDICT);
        if self.patience <= Instant::now() {
            self.shared.evict(self.lane, ClosedReason::Timeout);
        }
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

/// Sits in the driver of one connection and is dropped with its socket; until it is known what became of the dial, the dialling
/// task has it too.
pub(super) struct Watch {
    shared: Weak<Shared>,
    /// What was made of the connection.
    tenant: OnceLock<Tenant>,
    /// Hears what the server says unasked, until it is told no more.
    ear: Mutex<Option<Box<dyn AsyncPushSender>>>,
    /// Why it is closed, where it is not for want of anybody who uses it.
    reason: OnceLock<ClosedReason>,
    cut: Arc<Cut>,
}

impl Watch {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            tenant: OnceLock::new(),
            ear: Mutex::default(),
            reason: OnceLock::new(),
            cut: Arc::default(),
        }
    }

    /// The connection that this watches.
    pub(super) fn cable(&self, connection: MultiplexedConnection) -> Cable {
        Cable { connection, cut: self.cut.clone() }
    }

    /// From now on `ear` hears what the server says, unless it is to let go of the connection already.
    pub(super) fn is_heard_by(&self, ear: Box<dyn AsyncPushSender>) {
        let mut place = self.ear();
        if self.reason.get().is_none() {
            *place = Some(ear);
        }
    }

    /// Lets go of the ear, by which whoever listens knows that he is to let go of the connection.
    pub(super) fn end(&self, reason: ClosedReason) {
        // What came first is why.
        let _ = self.reason.set(reason);
        let ear = self.ear().take();
        drop(ear);
    }

    fn ear(&self) -> MutexGuard<'_, Option<Box<dyn AsyncPushSender>>> {
        self.ear.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn belongs_to(&self, tenant: Tenant) {
        // Once for each dial.
        let _ = self.tenant.set(tenant);
    }
}

impl AsyncPushSender for Watch {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        // A driver that says that it was disconnected drops us with its next breath.
        if push.kind == PushKind::Disconnection {
            let _ = self.reason.set(ClosedReason::Disconnected);
        }
        self.ear().as_ref().map_or(Ok(()), |ear| ear.send(push))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let tenant = self.tenant.get().copied();
            let mut work = shared.lock().place_freed(Instant::now(), tenant);
            if tenant == Some(Tenant::Feed) {
                work.closed.push(self.reason.get().copied().unwrap_or(ClosedReason::Unsubscribed));
            }
            shared.perform(work);
        }
        // After the eviction: a slot that returns now returns to no open lane.
        self.cut.tell();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn half_of_what_is_left_is_for_another_try() {
        let now = Instant::now();
        let lasts = |rest, response_timeout| {
            let [rest, response_timeout] = [rest, response_timeout].map(Duration::from_millis);
            (attempt_ends(now, now + rest, response_timeout) - now).as_millis()
        };
        assert_eq!(lasts(5000, 5000), 2500);
        assert_eq!(lasts(600, 5000), 300);
        assert_eq!(lasts(500, 5000), 250);
        assert_eq!(lasts(400, 5000), 250, "a shorter one would say nothing");
        assert_eq!([lasts(250, 5000), lasts(50, 5000), lasts(0, 5000)], [250, 50, 0], "nor is it halved");
        assert_eq!([lasts(60_000, 5000), lasts(400, 100)], [5000, 100], "no reply takes longer");
        let late = now + Duration::from_secs(1);
        assert_eq!(attempt_ends(late, now, SHORTEST_VERDICT), now, "the deadline has passed");
    }

    #[tokio::test(start_paused = true)]
    async fn only_its_caller_cuts_an_attempt_short() {
        let now = Instant::now();
        let is_short = |rest, response_timeout| {
            let [rest, response_timeout] = [rest, response_timeout].map(Duration::from_millis);
            is_cut_short(now, attempt_ends(now, now + rest, response_timeout), response_timeout)
        };
        assert_eq!([is_short(0, 5000), is_short(249, 5000)], [true, true]);
        assert_eq!([is_short(250, 5000), is_short(400, 5000), is_short(5000, 5000)], [false; 3]);
        assert!(!is_short(5000, 100), "so short is every attempt, and whoever set it knows why");
        assert!(is_short(50, 100));
    }

    /// The driver was at its end when it was handed the command: it will neither send it nor say so.
    #[tokio::test(start_paused = true)]
    async fn a_call_hears_of_the_end_that_its_driver_does_not_tell() {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(b"+OK\r\n+OK\r\n").await.unwrap();
        let settings = redis::RedisConnectionInfo::default();
        let (connection, _driver) = MultiplexedConnection::new(&settings, near).await.unwrap();
        let cut = Arc::new(Cut::default());
        let mut cable = Cable { connection, cut: cut.clone() };
        let ping = redis::cmd("PING");
        for _ in 0..2 {
            let call = tokio::time::timeout(Duration::from_secs(1), cable.send(&ping));
            let (reply, ()) = tokio::join!(call, async { cut.tell() });
            let error = reply.expect("it is told").unwrap_err();
            assert_eq!(classify::kind_of(&error), FaultKind::Disconnected);
        }
    }
}

//! The pool of lanes: never more connections than were given, shared by many operations.
//!
//! A **lane** is one connection that carries up to `depth` operations at a time. Redis answers in order, so sharing costs
//! nothing but the wait behind slow neighbours, and saves system calls and connections: one shared connection did 2.5 times the
//! work of deadpool-redis's 20 (docs/benchmarks.md, the rows `floor` and `deadpool`).
//!
//! # What it promises
//! - `max_connections` bounds every socket, from the first packet of its dial until it is closed. The count falls when the
//!   driver's task has dropped the socket, not when we decide to.
//! - A slot returns with the reply. A caller who gives up frees nothing early and destroys nothing.
//! - Dials and tests run in tasks of their own.
//! - While it is wanted one lane is kept for extends and releases, where there are connections enough.
//! - A [`Tap`] has a place as a lane has, and lanes come first.
//! - One timeout layer for each command, one deadline for checkout and command together.
//!
//! # Why the slots are ours
//! deadpool hands out exclusive objects and tests each at checkout; lanes are shared, drained and limited by the server. Its
//! pool would hold nothing but our wrappers (docs/adr/0001-own-slots.md), so deadpool-redis dials, and [`Slots`]
//! decides.

mod config;
mod dial;
mod flight;
mod growth;
mod meter;
mod resolver;
mod slots;
mod tap;
mod usage;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::{Cmd, RedisResult, Value, aio::AsyncPushSender};
use tokio::{sync::Notify, time::Instant};

pub use self::config::PoolConfig;
pub(crate) use self::{dial::Dialler, flight::SHORTEST_VERDICT, slots::Way, tap::Tap};
use self::{
    flight::{Cable, Permit, Watch, attempt_ends, is_cut_short},
    meter::PoolMeter,
    slots::{Checkout, Dial, HASTE, LaneId, Pace, Slots, Tenant, WaiterId, Work},
};
use super::classify;
use crate::{ClosedReason, Fault, FaultKind, PoolAlert, PoolReport, PoolStats, PoolStatus};

/// Above this share of the limit an operator should look.
const HIGH_UTILIZATION: f64 = 80.0;

/// The connections of one process to one server.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

/// What a command was answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) value: Value,
    /// When the command was handed to the connection.
    pub(crate) sent: Instant,
}

/// Why a command was not answered.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The server does not know the script: it was restarted or told to forget. Nothing is wrong.
    NoScript,
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

type LaneWork = Work<Cable, Permit>;

struct Shared {
    config: PoolConfig,
    /// Whether a call is to have time for another try.
    tries_again: bool,
    dialler: Dialler,
    runtime: tokio::runtime::Handle,
    slots: Mutex<Slots<Cable, Permit>>,
    /// As the slots count them, to be read without their lock.
    breaks: Arc<AtomicU64>,
    /// The last feed, to end it by.
    feed: Mutex<Weak<Watch>>,
    /// Why the last dial that failed did so: what those are told who waited for it.
    dial_failure: Mutex<String>,
    meter: PoolMeter,
    /// Wakes the keeper before its time.
    wake: Arc<Notify>,
    /// Tells those who ask of lanes that are opened.
    opened: Notify,
}

/// The way of a call, and until when it may still be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Road {
    way: Way,
    /// How often lanes had broken when it set out: once there are more, it is not sent. None where that does not matter.
    breaks: Option<u64>,
}

impl Road {
    /// Of a call that is not sent any more once lanes have broken more often than that: what answers then may be another server, of
    /// which something is to be found out first.
    pub(crate) fn unbroken(breaks: u64) -> Self {
        Self { way: Way::Ordinary, breaks: Some(breaks) }
    }
}

impl From<Way> for Road {
    fn from(way: Way) -> Self {
        Self { way, breaks: None }
    }
}

impl Pool {
    /// Opens the first lane.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub(crate) async fn open(dialler: Dialler, config: PoolConfig, tries_again: bool) -> Result<Self, Fault> {
        let slots = Slots::new(config.clone(), Instant::now());
        let shared = Arc::new(Shared {
            breaks: slots.breaks(),
            slots: Mutex::new(slots),
            feed: Mutex::default(),
            dial_failure: Mutex::default(),
            config,
            tries_again,
            dialler,
            runtime: tokio::runtime::Handle::current(),
            meter: PoolMeter::default(),
            wake: Arc::new(Notify::new()),
            opened: Notify::new(),
        });
        let dial = shared.lock().begin_dial(Instant::now(), Pace::Patient);
        let pool = Self { shared };
        let first = pool.shared.clone();
        let dialled = pool.shared.runtime.spawn(async move { first.dial(dial).await });
        dialled.await.unwrap_or_else(|gone| Err(Fault::new(FaultKind::Other, gone)))?;
        pool.shared.runtime.spawn(keep(Arc::downgrade(&pool.shared), pool.shared.wake.clone()));
        Ok(pool)
    }

    /// Sends one command and awaits its reply, until its attempt ends ([`attempt_ends`], where it may be sent again), `deadline` at
    /// the latest; the wait for a lane with room takes half of the time at most, too. The command is made when it leaves, and is told
    /// when that is: the wait for a lane is not the server's delay.
    ///
    /// # Cancel safety
    /// Dropped, the command may have been sent and may take effect; its slot returns with the reply.
    pub(crate) async fn call(
        &self,
        cmd: impl FnOnce(Instant) -> Cmd,
        road: impl Into<Road>,
        deadline: Instant,
    ) -> Result<Reply, Refusal> {
        let Road { way, breaks } = road.into();
        let permit = self.checkout(way, deadline).await?;
        if breaks.is_some_and(|breaks| breaks != self.breaks()) {
            return Err(Fault::new(FaultKind::Connect, "a connection broke while this waited for one")
                .cut_short()
                .into());
        }
        let sent = permit.since();
        let Shared { config, tries_again, .. } = &*self.shared;
        let until = if *tries_again {
            attempt_ends(sent, deadline, config.response_timeout)
        } else {
            deadline.min(sent + config.response_timeout)
        };
        let mut flight = permit.send(cmd(until));
        match tokio::time::timeout_at(until, &mut flight).await {
            Ok(Ok(value)) => Ok(Reply { value, sent }),
            Ok(Err(error)) if error.code() == Some("NOSCRIPT") => Err(Refusal::NoScript),
            Ok(Err(error)) => Err(classify::of_command(error).into()),
            Err(elapsed) => {
                flight.give_up();
                let fault = Fault::new(FaultKind::Timeout, elapsed);
                Err(if is_cut_short(sent, until, self.shared.config.response_timeout) {
                    fault.cut_short()
                } else {
                    fault
                }
                .into())
            }
        }
    }

    /// Opens a connection that is no lane. `ear` hears what the server says over it unasked, in the driver's task, and is
    /// dropped when the socket is gone and its place is free; or before, when the pool wants the connection to be closed.
    ///
    /// # Errors
    /// [`FaultKind::Saturated`] — lanes have all places, or a dial has just failed; an idle lane may have been closed, so that
    /// there is one in a moment. Or why the connection could not be opened.
    ///
    /// # Cancel safety
    /// Dropped, the connection is closed again as soon as it is open.
    pub(crate) async fn tap(&self, ear: impl AsyncPushSender, deadline: Instant) -> Result<Tap, Fault> {
        let shared = self.shared.clone();
        let (dial, work) = shared.lock().begin_feed(Instant::now());
        shared.perform(work);
        let Some(dial) = dial else {
            return Err(Fault::new(FaultKind::Saturated, "no place is free for the subscription"));
        };
        let opened = tokio::time::timeout_at(deadline, self.open_feed(dial)).await;
        let (cable, watch) = opened.unwrap_or_else(|elapsed| Err(Fault::new(FaultKind::Timeout, elapsed)))?;
        watch.is_heard_by(Box::new(ear));
        *self.shared.feed() = Arc::downgrade(&watch);
        Ok(Tap::new(cable, self.shared.config.response_timeout))
    }

    /// Awaits a feed's connection, and opens another beside one that hangs. Those that come too late are closed again.
    async fn open_feed(&self, first: Dial) -> Result<(Cable, Arc<Watch>), Fault> {
        let dial = |dial| {
            let shared = self.shared.clone();
            self.shared.runtime.spawn(async move { shared.dial_feed(dial).await })
        };
        let mut dials = FuturesUnordered::from_iter([dial(first)]);
        loop {
            tokio::select! {
                Some(dialled) = dials.next() => {
                    let dialled = dialled.unwrap_or_else(|gone| Err(Fault::new(FaultKind::Other, gone)));
                    if dialled.is_ok() || dials.is_empty() {
                        return dialled;
                    }
                }
                () = tokio::time::sleep(HASTE) => {}
            }
            dials.extend(self.shared.lock().hurry_feed(Instant::now()).map(dial));
        }
    }

    /// Says whether extends and releases are to have a lane that carries nothing else, where there are connections enough.
    pub(crate) fn keep_lane(&self, is_wanted: bool) {
        let work = self.shared.lock().keep_lane(Instant::now(), is_wanted);
        self.shared.perform(work);
    }

    /// Whether any lane is open.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.lock().has_lane()
    }

    /// How many lanes were given up because of a fault. A call that was on one hears of it only after it was counted, but for one
    /// that was cut short below [`SHORTEST_VERDICT`]: its lane may not be broken.
    pub(crate) fn breaks(&self) -> u64 {
        self.shared.breaks.load(Relaxed)
    }

    /// The age of the oldest operation that is under way on an open lane; zero where there is none.
    pub(crate) fn silence(&self) -> Duration {
        self.shared.lock().silence(Instant::now())
    }

    /// Asks the server whether it is there, over an open lane that is not the silent one where there is another. Where there is none,
    /// one is opened beside it if it may be, and that it could be is an answer. It takes no slot and evicts nothing.
    ///
    /// # Errors
    /// [`FaultKind::Connect`] — no lane is open, nor was until `deadline`. [`FaultKind::Timeout`] — no answer until then. Or what the
    /// server answered that is an error.
    ///
    /// # Cancel safety
    /// Harmless: the answer is dropped when it comes.
    pub(crate) async fn ping(&self, deadline: Instant) -> Result<(), Fault> {
        // Made before the look: it hears of a lane that is opened between the two.
        let opened = self.shared.opened.notified();
        let (cable, work) = self.shared.lock().least_silent(Instant::now());
        self.shared.perform(work);
        let missed = if cable.is_some() { FaultKind::Timeout } else { FaultKind::Connect };
        let pong = async {
            let Some(mut cable) = cable else { return std::future::pending().await };
            cable.send(&redis::cmd("PING")).await.map(drop).map_err(classify::of_command)
        };
        let answer = async {
            tokio::select! {
                pong = pong => pong,
                () = opened => Ok(()),
            }
        };
        let asked = Instant::now();
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(answer) => answer,
            // Slow, and there: others were answered meanwhile.
            Err(_elapsed) if self.shared.lock().has_answered_since(asked) => Ok(()),
            Err(_elapsed) => Err(missed.into()),
        }
    }

    async fn checkout(&self, way: Way, deadline: Instant) -> Result<Permit, Fault> {
        let now = Instant::now();
        let shared = &self.shared;
        let (checkout, work) = shared.lock().checkout(now, way);
        shared.perform(work);
        // Who had less time than it takes to say anything of the server says nothing of it.
        let mut is_hurried = false;
        let slot = match checkout {
            Checkout::Granted(grant) => Ok(Permit::new(shared.clone(), grant)),
            Checkout::Saturated => {
                // Callers who ask again at once must not keep the runtime from opening the lane that they want.
                tokio::task::yield_now().await;
                Err(FaultKind::Saturated)
            }
            Checkout::Waiting(id, mut receiver) => {
                let _line = InLine { shared, id };
                // Whoever comes to his turn late is left too little time for an answer, and would take the lane for dead. Where
                // all come late, as in a line of those who cannot all be served, none would ever be answered.
                let turn = attempt_ends(now, deadline, Duration::MAX);
                let mut granted = tokio::time::timeout_at(turn, &mut receiver).await;
                if granted.is_err() && !shared.lock().has_lane() {
                    granted = tokio::time::timeout_at(deadline, receiver).await;
                }
                match granted {
                    Ok(Ok(slot)) => slot,
                    Ok(Err(_dropped)) => Err(FaultKind::Connect),
                    Err(_elapsed) if shared.lock().has_lane() => Err(FaultKind::CheckoutTimeout),
                    Err(_elapsed) => {
                        is_hurried = now.elapsed() < SHORTEST_VERDICT;
                        Err(FaultKind::Connect)
                    }
                }
            }
        };
        shared.meter.checkout_wait.observe(now.elapsed());
        slot.map_err(|kind| {
            shared.meter.checkout_failures.add_one(kind);
            match kind {
                FaultKind::Saturated | FaultKind::CheckoutTimeout => kind.into(),
                _ if is_hurried => Fault::from(kind).cut_short(),
                _ => Fault::new(kind, shared.dial_failure().clone()),
            }
        })
    }

    /// What the pool counts, and its state now.
    pub(crate) fn read(&self) -> PoolStats {
        let Shared { config, meter, .. } = &*self.shared;
        let mut slots = self.shared.lock();
        let census = slots.census(Instant::now());
        let (limit, limit_reason) = (slots.growth.limit, slots.growth.reason);
        let usage = &slots.usage;
        let peak = usage.peak();
        let (active, saturated, exhausted) = (usage.active, usage.saturated, usage.exhausted);
        drop(slots);
        let percent = census.level.percent();
        PoolStats {
            report: PoolReport {
                max_connections: config.max_connections,
                active_connections: census.level.active,
                available_connections: limit.saturating_sub(census.level.active),
                utilization_percent: percent,
                status: if census.open > 0 { PoolStatus::Healthy } else { PoolStatus::Unhealthy },
                alert: (percent > HIGH_UTILIZATION).then_some(PoolAlert::HighUtilization),
                timestamp: SystemTime::now(),
            },
            name: "redis".to_owned(),
            limit,
            limit_reason,
            depth: config.depth,
            idle_connections: census.idle,
            connecting_connections: census.dialling,
            draining_connections: census.draining,
            in_flight: census.in_flight,
            slots: census.open * config.depth,
            waiting: census.waiting,
            oldest_waiting_seconds: census.oldest_waiting.as_secs_f64(),
            peak_active_connections: peak,
            active_connection_seconds_total: active.as_secs_f64(),
            saturated_seconds_total: saturated.as_secs_f64(),
            exhausted_seconds_total: exhausted.as_secs_f64(),
            checkout_wait_seconds: meter.checkout_wait.read(),
            checkout_failures_total: meter.checkout_failures.read(),
            connection_use_seconds: meter.connection_use.read(),
            connection_create_seconds: meter.connection_create.read(),
            connection_create_failures_total: meter.create_failures.read(),
            connections_closed_total: meter.read_closed(),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.wake.notify_one();
    }
}

/// A place in the line; dropped, it is left.
struct InLine<'a> {
    shared: &'a Arc<Shared>,
    id: WaiterId,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let work = self.shared.lock().leave(Instant::now(), self.id);
        self.shared.perform(work);
    }
}

impl Shared {
    /// The lock is held for a few lines, and never while anything else is called: a panic cannot leave the slots half-changed.
    fn lock(&self) -> MutexGuard<'_, Slots<Cable, Permit>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn feed(&self) -> MutexGuard<'_, Weak<Watch>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dial_failure(&self) -> MutexGuard<'_, String> {
        self.dial_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evict(self: &Arc<Self>, lane: LaneId, reason: ClosedReason) {
        let work = self.lock().evict(Instant::now(), lane, reason);
        self.perform(work);
    }

    /// Does what the slots decided. The lock must not be held: a grant that nobody takes returns through it.
    fn perform(self: &Arc<Self>, work: LaneWork) {
        let Work { grants, refusals, tests, drops, dials, closed, feed_ends } = work;
        for reason in closed {
            self.meter.closed(reason);
        }
        drop(drops);
        if let Some(reason) = feed_ends {
            let feed = self.feed().upgrade();
            if let Some(feed) = feed {
                feed.end(reason);
            }
        }
        for (sender, grant) in grants {
            // Whoever has left since drops the permit here, and the next in line is served.
            drop(sender.send(Ok(Permit::new(self.clone(), grant))));
        }
        for (sender, kind) in refusals {
            drop(sender.send(Err(kind)));
        }
        for dial in dials {
            let shared = self.clone();
            self.runtime.spawn(async move { shared.dial(dial).await });
        }
        for test in tests {
            let shared = self.clone();
            self.runtime.spawn(async move {
                let passed = shared.dialler.test(test.connection.connection).await;
                let work = shared.lock().tested(Instant::now(), test.lane, passed);
                shared.perform(work);
            });
        }
    }

    /// Opens a lane in a place that was taken for it.
    async fn dial(self: &Arc<Self>, dial: Dial) -> Result<(), Fault> {
        let watch = Arc::new(Watch::new(self));
        let (cable, watch) = self.connect(dial, watch, Slots::dial_failed).await?;
        let (lane, work) = self.lock().dialled(Instant::now(), dial, cable);
        watch.belongs_to(Tenant::Lane(lane));
        self.perform(work);
        self.opened.notify_waiters();
        Ok(())
    }

    /// Opens a feed's connection in a place that was taken for it.
    async fn dial_feed(self: &Arc<Self>, dial: Dial) -> Result<(Cable, Arc<Watch>), Fault> {
        let watch = Arc::new(Watch::new(self));
        *self.feed() = Arc::downgrade(&watch);
        let (cable, watch) = self.connect(dial, watch, Slots::feed_failed).await?;
        let work = self.lock().feed_dialled(Instant::now(), dial);
        watch.belongs_to(Tenant::Feed);
        self.perform(work);
        Ok((cable, watch))
    }

    async fn connect(
        self: &Arc<Self>,
        dial: Dial,
        watch: Arc<Watch>,
        failed: fn(&mut Slots<Cable, Permit>, Instant, Dial, FaultKind) -> LaneWork,
    ) -> Result<(Cable, Arc<Watch>), Fault> {
        let started = Instant::now();
        match self.dialler.dial(watch.clone(), dial.pace).await {
            Ok(connection) => {
                self.meter.connection_create.observe(started.elapsed());
                Ok((watch.cable(connection), watch))
            }
            Err(fault) => {
                self.meter.create_failures.add_one(fault.kind());
                tracing::warn!(kind = fault.kind().as_str(), "a connection to redis could not be opened");
                let source = std::error::Error::source(&fault);
                *self.dial_failure() = source.unwrap_or(&fault).to_string();
                let work = failed(&mut self.lock(), Instant::now(), dial, fault.kind());
                // Not before: a place that came back from a dial that nobody knows to have failed is dialled from at once.
                drop(watch);
                self.perform(work);
                if fault.kind() == FaultKind::ClosedInHandshake {
                    self.confirm_limit().await;
                }
                // The keeper knows when to try again.
                self.wake.notify_one();
                Err(fault)
            }
        }
    }

    /// Asks a living lane whether the server is at its client limit: whoever is turned away is hardly ever told.
    async fn confirm_limit(&self) {
        let Some(mut cable) = self.lock().any_connection() else { return };
        let mut info = redis::cmd("INFO");
        info.arg("clients");
        let asked = cable.connection.send_packed_command(&info);
        let Ok(Ok(reply)) = tokio::time::timeout(self.config.connect_timeout, asked).await else { return };
        if is_at_client_limit(reply).unwrap_or(false) {
            self.lock().growth.confirmed();
        }
    }
}

/// Whether `INFO clients` shows no room for another client. One less is counted as full: somebody may have left since.
fn is_at_client_limit(reply: Value) -> RedisResult<bool> {
    let info: redis::InfoDict = redis::from_redis_value(reply)?;
    let clients: Option<u64> = info.get("connected_clients");
    let limit: Option<u64> = info.get("maxclients");
    Ok(clients.zip(limit).is_some_and(|(clients, limit)| clients + 1 >= limit))
}

/// Closes and tests idle lanes, and dials again after a pause, until the pool is gone.
async fn keep(shared: Weak<Shared>, wake: Arc<Notify>) {
    loop {
        let next = {
            let Some(shared) = shared.upgrade() else { return };
            let now = Instant::now();
            let work = shared.lock().tick(now);
            shared.perform(work);
            shared.lock().next_tick(now)
        };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = wake.notified() => {}
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("config", &self.config).finish_non_exhaustive()
    }
}

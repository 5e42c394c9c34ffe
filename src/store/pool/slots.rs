//! [`Slots`]: who may send on which connection, decided under one short lock.
//!
//! Pure: it takes `now`, does no I/O and calls nobody. What is to be done afterwards (hand a slot to a waiter, open, test or
//! drop a connection) comes back as [`Work`], which the pool performs after it has let go of the lock.
//!
//! # What it promises
//! - `places` counts every socket: open, draining, closing, being opened. It never exceeds the maximum.
//! - An operation goes to the first lane with room, so that few lanes are busy and many can be closed.
//! - A lane that was evicted takes no new operation and keeps its place until its socket is gone.
//! - Extends and releases are served before acquires and reads; while it is wanted they have a lane [`Kept`] for them.
//! - A feed's connection has a place, but is no lane: lanes come first. It takes none that a lane is wanted for, nor the last
//!   one where there is no lane. It is ended where it has the only one that the server can spare, and together with the lanes
//!   whose server has become a replica.

mod dials;
mod kept;
mod lane;

use std::{
    cmp::Reverse,
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

pub(super) use self::dials::{Dial, HASTE, Pace};
use self::{
    dials::Dials,
    kept::Kept,
    lane::{Lane, State},
};
use super::{
    PoolConfig,
    growth::Growth,
    usage::{Level, Usage},
};
use crate::{ClosedReason, FaultKind};

/// Whose lane waits for a reply for so long asks whether that is for the connection alone.
const SILENT: Duration = Duration::from_millis(250);

/// A lane younger than this is not evicted for being a replica's.
const REPLICA_SPARED: Duration = Duration::from_secs(1);

/// Names a lane; a younger one has a larger id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LaneId(u64);

/// Whose place it is, once the connection is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tenant {
    Lane(LaneId),
    Feed,
}

/// What an operation asks of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Extends, releases, what a recovery asks and the health probe: served first.
    Urgent,
    /// Acquire and read.
    Ordinary,
    /// Long replies: a lane that carries nothing else meanwhile, where more than one connection is allowed.
    Alone,
}

/// A slot of a lane, not yet guarded by a permit.
#[derive(Debug)]
pub(super) struct Slot<C> {
    pub(super) lane: LaneId,
    pub(super) connection: C,
}

pub(super) type Served<P> = Result<P, FaultKind>;

pub(super) enum Checkout<C, P> {
    Granted(Slot<C>),
    Waiting(WaiterId, oneshot::Receiver<Served<P>>),
    Saturated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WaiterId(u64);

struct Waiter<P> {
    id: WaiterId,
    since: Instant,
    sender: oneshot::Sender<Served<P>>,
}

/// What the pool does after it has let go of the lock.
#[must_use]
pub(super) struct Work<C, P> {
    pub(super) grants: Vec<(oneshot::Sender<Served<P>>, Slot<C>)>,
    pub(super) refusals: Vec<(oneshot::Sender<Served<P>>, FaultKind)>,
    pub(super) tests: Vec<Slot<C>>,
    /// Connections to drop: dropping the last handle closes the socket.
    pub(super) drops: Vec<C>,
    /// Connections to open, in places that were taken for them.
    pub(super) dials: Vec<Dial>,
    /// Closed lanes, to be counted.
    pub(super) closed: Vec<ClosedReason>,
    /// Why the feed is to be ended, if there is one.
    pub(super) feed_ends: Option<ClosedReason>,
}

impl<C, P> Work<C, P> {
    fn none() -> Self {
        Self {
            grants: Vec::new(),
            refusals: Vec::new(),
            tests: Vec::new(),
            drops: Vec::new(),
            dials: Vec::new(),
            closed: Vec::new(),
            feed_ends: None,
        }
    }
}

/// Counts of the moment, for the stats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Census {
    pub(super) level: Level,
    pub(super) open: u32,
    pub(super) idle: u32,
    pub(super) dialling: u32,
    pub(super) draining: u32,
    pub(super) in_flight: u32,
    pub(super) waiting: u32,
    pub(super) oldest_waiting: Duration,
}

pub(super) struct Slots<C, P> {
    config: PoolConfig,
    /// By age, but for those that were kept once; the one that is kept stands first.
    lanes: Vec<Lane<C>>,
    kept: Kept,
    /// Sockets that exist or are being opened.
    places: u32,
    /// Lanes that are being opened.
    dials: Dials,
    /// Connections of feeds that are being opened.
    feed_dials: Dials,
    /// Open connections of feeds.
    feeds: u32,
    busy: u32,
    urgent: VecDeque<Waiter<P>>,
    ordinary: VecDeque<Waiter<P>>,
    alone: VecDeque<Waiter<P>>,
    last_waiter: u64,
    last_lane: u64,
    pub(super) growth: Growth,
    pub(super) usage: Usage,
    /// Lanes that were given up because of a fault. Counted here, under the lock: of two callers on one lane the second must not
    /// be answered before it is counted on behalf of the first.
    breaks: Arc<AtomicU64>,
}

impl<C: Clone, P> Slots<C, P> {
    pub(super) fn new(config: PoolConfig, now: Instant) -> Self {
        Self {
            growth: Growth::new(&config),
            config,
            lanes: Vec::new(),
            kept: Kept::default(),
            places: 0,
            dials: Dials::default(),
            feed_dials: Dials::default(),
            feeds: 0,
            busy: 0,
            urgent: VecDeque::new(),
            ordinary: VecDeque::new(),
            alone: VecDeque::new(),
            last_waiter: 0,
            last_lane: 0,
            usage: Usage::new(now),
            breaks: Arc::default(),
        }
    }

    /// How many lanes were given up because of a fault, to be read without the lock.
    pub(super) fn breaks(&self) -> Arc<AtomicU64> {
        self.breaks.clone()
    }

    /// A slot for one operation, or a place in the line.
    pub(super) fn checkout(&mut self, now: Instant, way: Way) -> (Checkout<C, P>, Work<C, P>) {
        let mut work = Work::none();
        let way = if self.config.max_connections == 1 && way == Way::Alone { Way::Ordinary } else { way };
        // Nobody overtakes those who wait already.
        let overtakes = match way {
            Way::Urgent => !self.urgent.is_empty(),
            Way::Ordinary => !self.urgent.is_empty() || !self.ordinary.is_empty(),
            Way::Alone => !self.alone.is_empty(),
        };
        if !overtakes && let Some(grant) = self.take(now, way, &mut work) {
            return (Checkout::Granted(grant), work);
        }
        // Acquires that wait do not keep a release from waiting too.
        let waiting = if way == Way::Urgent { count(self.urgent.len()) } else { self.waiting() };
        if waiting >= self.config.max_waiters {
            // Dials are made for those who wait; where nobody may, nobody else would ask for one.
            if let Some(pace) = self.due_dial(now, 1) {
                work.dials.push(self.begin_dial(now, pace));
            }
            return (Checkout::Saturated, work);
        }
        let (sender, receiver) = oneshot::channel();
        self.last_waiter += 1;
        let id = WaiterId(self.last_waiter);
        self.line(way).push_back(Waiter { id, since: now, sender });
        self.settle_all(now, &mut work);
        (Checkout::Waiting(id, receiver), work)
    }

    /// A waiter went away before it was served.
    pub(super) fn leave(&mut self, now: Instant, id: WaiterId) -> Work<C, P> {
        for line in [&mut self.urgent, &mut self.ordinary, &mut self.alone] {
            line.retain(|waiter| waiter.id != id);
        }
        let mut work = Work::none();
        self.settle_all(now, &mut work);
        work
    }

    /// An operation ended: its reply came, or nobody will ever wait for it again.
    pub(super) fn give_back(&mut self, now: Instant, id: LaneId, evict: Option<ClosedReason>) -> Work<C, P> {
        let mut work = Work::none();
        let mut evict = evict;
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id) {
            lane.started.pop_front();
            // A new connection to a replica is to the same replica: one lane a second is enough to find out.
            if evict == Some(ClosedReason::ReadOnly)
                && now.saturating_duration_since(lane.opened_at) < REPLICA_SPARED
            {
                evict = None;
            }
            if evict.is_none() && lane.state != State::Evicted {
                lane.proven_at = now;
            }
            if lane.is_idle() {
                lane.idle_since = now;
                self.busy -= 1;
                if matches!(lane.state, State::Reserved | State::Alone) {
                    lane.state = State::Open;
                }
            }
        }
        match evict {
            Some(reason) => self.evict_through(id, reason, &mut work),
            None => self.bury(&mut work),
        }
        self.settle_all(now, &mut work);
        work
    }

    /// Evicts a lane and all older ones: what broke it is likely to have broken them.
    pub(super) fn evict(&mut self, now: Instant, id: LaneId, reason: ClosedReason) -> Work<C, P> {
        let mut work = Work::none();
        self.evict_through(id, reason, &mut work);
        self.settle_all(now, &mut work);
        work
    }

    /// Says whether a lane is to be kept for urgent operations.
    pub(super) fn keep_lane(&mut self, now: Instant, is_wanted: bool) -> Work<C, P> {
        let mut work = Work::none();
        self.kept.is_wanted = is_wanted;
        self.settle_all(now, &mut work);
        work
    }

    /// Takes a place for a lane that is to be opened.
    pub(super) fn begin_dial(&mut self, now: Instant, pace: Pace) -> Dial {
        self.places += 1;
        self.dials.begin(now, pace)
    }

    /// Takes a place for the connection of a feed, if lanes can do without it now. Where none is free, an idle lane that need
    /// not stay is closed, so that a later call finds one.
    pub(super) fn begin_feed(&mut self, now: Instant) -> (Option<Dial>, Work<C, P>) {
        let mut work = Work::none();
        let limit = self.growth.limit;
        let is_lane_wanted = self.dials.count() < self.wanted_dials(now);
        if self.places < limit
            && self.leaves_a_lane()
            && !is_lane_wanted
            && let Some(pace) = self.due_feed(now)
        {
            self.places += 1;
            return (Some(self.feed_dials.begin(now, pace)), work);
        }
        // A place that is coming free anyway is enough.
        if self.places >= limit && self.draining() == 0 {
            self.make_room(&mut work);
        }
        (None, work)
    }

    /// Takes a place for another connection of a feed whose dials hang.
    pub(super) fn hurry_feed(&mut self, now: Instant) -> Option<Dial> {
        let (dialling, hanging) = (self.feed_dials.count(), self.feed_dials.hanging(now));
        if !self.leaves_a_lane() || !self.may_dial_beside(now, dialling, hanging) {
            return None;
        }
        self.places += 1;
        Some(self.feed_dials.begin(now, Pace::Hasty))
    }

    /// The connection of a feed was opened.
    pub(super) fn feed_dialled(&mut self, now: Instant, dial: Dial) -> Work<C, P> {
        self.feed_dials.end(dial);
        self.feeds += 1;
        self.growth.opened(self.connections());
        let mut work = Work::none();
        self.settle_all(now, &mut work);
        work
    }

    /// The connection of a feed could not be opened; its place comes back when its socket is gone.
    pub(super) fn feed_failed(&mut self, now: Instant, dial: Dial, kind: FaultKind) -> Work<C, P> {
        self.feed_dials.end(dial);
        self.note_failure(now, dial, kind);
        let mut work = Work::none();
        self.settle_all(now, &mut work);
        work
    }

    /// A lane was opened.
    pub(super) fn dialled(&mut self, now: Instant, dial: Dial, connection: C) -> (LaneId, Work<C, P>) {
        self.dials.end(dial);
        self.last_lane += 1;
        let id = LaneId(self.last_lane);
        let started = VecDeque::with_capacity(self.config.depth.min(64) as usize);
        let state = State::Open;
        let lane = Lane { id, connection, started, opened_at: now, idle_since: now, proven_at: now, state };
        self.lanes.push(lane);
        self.growth.opened(self.connections());
        let mut work = Work::none();
        self.settle_all(now, &mut work);
        (id, work)
    }

    /// A lane could not be opened; its place comes back when its socket is gone.
    pub(super) fn dial_failed(&mut self, now: Instant, dial: Dial, kind: FaultKind) -> Work<C, P> {
        self.dials.end(dial);
        self.note_failure(now, dial, kind);
        let mut work = Work::none();
        if self.dials.count() == 0 && !self.has_lane() {
            if matches!(kind, FaultKind::ClosedInHandshake | FaultKind::MaxClients) {
                work.feed_ends = Some(ClosedReason::Unsubscribed);
            }
            let lines = [&mut self.urgent, &mut self.ordinary, &mut self.alone];
            // Nothing of theirs was sent: never a kind that leaves open what the server did.
            let told = if kind.is_ambiguous() { FaultKind::Connect } else { kind };
            let waiters = lines.into_iter().flat_map(|line| line.drain(..));
            work.refusals.extend(waiters.map(|waiter| (waiter.sender, told)));
        }
        self.settle_all(now, &mut work);
        work
    }

    /// The socket of a place is gone, and with it the lane, if we had not let go of it before; nobody had the place of a dial
    /// that failed.
    pub(super) fn place_freed(&mut self, now: Instant, tenant: Option<Tenant>) -> Work<C, P> {
        self.places -= 1;
        let mut work = Work::none();
        let is_open = |id| self.lanes.iter().any(|lane| lane.id == id && lane.state != State::Evicted);
        match tenant {
            Some(Tenant::Lane(id)) if is_open(id) => {
                self.evict_through(id, ClosedReason::Disconnected, &mut work);
            }
            Some(Tenant::Feed) => self.feeds -= 1,
            Some(Tenant::Lane(_)) | None => {}
        }
        self.settle_all(now, &mut work);
        work
    }

    /// A long-idle lane was tested.
    pub(super) fn tested(&mut self, now: Instant, id: LaneId, passed: bool) -> Work<C, P> {
        if !passed {
            return self.evict(now, id, ClosedReason::FailedTest);
        }
        let mut work = Work::none();
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == id && lane.state == State::Testing) {
            lane.state = State::Open;
            lane.proven_at = now;
        }
        self.settle_all(now, &mut work);
        work
    }

    /// Closes and tests what has been idle long enough; beside the lane that is kept at most one stays without work.
    pub(super) fn tick(&mut self, now: Instant) -> Work<C, P> {
        let mut work = Work::none();
        self.growth.forget(now);
        let mut open = self.shared_lanes();
        for lane in self.lanes.iter_mut().rev().filter(|lane| lane.state == State::Open && lane.is_idle()) {
            let idle_for = |since| now.saturating_duration_since(since);
            let is_spare = open > 1 && !self.kept.is(lane);
            if is_spare && idle_for(lane.idle_since) >= self.config.idle_timeout {
                open -= 1;
                lane.state = State::Evicted;
                work.closed.push(ClosedReason::IdleTimeout);
            } else if idle_for(lane.proven_at) >= self.config.idle_test {
                lane.state = State::Testing;
                work.tests.push(Slot { lane: lane.id, connection: lane.connection.clone() });
            }
        }
        self.bury(&mut work);
        self.settle_all(now, &mut work);
        work
    }

    /// When the pool has something to do although nobody calls it.
    pub(super) fn next_tick(&self, now: Instant) -> Instant {
        let rhythm =
            Duration::from_millis(500).min(self.config.idle_timeout / 2).min(self.config.idle_test / 2);
        let regular = now + rhythm.max(Duration::from_millis(5));
        let resumes = self.growth.resumes_at(self.has_lane()).filter(|then| *then > now);
        let hangs = self.dials.next_hangs_at(now).filter(|_| self.wanted_dials(now) > 0);
        [resumes, hangs].into_iter().flatten().fold(regular, Instant::min)
    }

    /// How long the oldest operation that is under way on an open lane has been there.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        if !self.has_lane() {
            let first = [&self.urgent, &self.ordinary].into_iter().filter_map(|line| line.front());
            let oldest = first.map(|waiter| waiter.since).min();
            return oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        }
        let open = self.lanes.iter().filter(|lane| lane.state != State::Evicted);
        open.map(|lane| lane.silence(now)).max().unwrap_or_default()
    }

    /// A connection to ask whether the server is there, if any is open: of the lane that waits for its replies for the shortest
    /// time, and of those that wait for none the one that answered last. Long replies are waited for behind all others.
    ///
    /// Where that one is silent, too, another lane is opened if it may be: a connection that is dead is no dead server.
    pub(super) fn least_silent(&mut self, now: Instant) -> (Option<C>, Work<C, P>) {
        let mut work = Work::none();
        let open = self.lanes.iter().filter(|lane| lane.state != State::Evicted);
        let least =
            open.min_by_key(|lane| (lane.state == State::Alone, lane.silence(now), Reverse(lane.proven_at)));
        let Some(least) = least else { return (None, work) };
        let (is_silent, connection) = (least.silence(now) >= SILENT, least.connection.clone());
        if is_silent && self.dials.count() == 0 && self.may_dial(now) {
            let dial = self.begin_dial(now, Pace::Patient);
            work.dials.push(dial);
        }
        (Some(connection), work)
    }

    /// Whether anything was answered on an open lane since.
    pub(super) fn has_answered_since(&self, then: Instant) -> bool {
        self.lanes.iter().any(|lane| lane.state != State::Evicted && lane.proven_at > then)
    }

    /// A connection to ask the server something, if any is open.
    pub(super) fn any_connection(&self) -> Option<C> {
        self.lanes.iter().find(|lane| lane.state == State::Open).map(|lane| lane.connection.clone())
    }

    pub(super) fn census(&mut self, now: Instant) -> Census {
        let level = self.level();
        self.usage.update(now, level);
        let open = self.lanes.iter().filter(|lane| lane.state != State::Evicted);
        let idle = count(open.clone().filter(|lane| lane.is_idle()).count());
        let open = count(open.count());
        let fronts = [&self.urgent, &self.ordinary, &self.alone];
        let oldest = fronts.iter().filter_map(|line| line.front()).map(|waiter| waiter.since).min();
        Census {
            level,
            open,
            idle,
            dialling: self.dials.count() + self.feed_dials.count(),
            draining: self.draining(),
            in_flight: count(self.lanes.iter().map(|lane| lane.started.len()).sum()),
            waiting: self.waiting(),
            oldest_waiting: oldest.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
        }
    }

    fn level(&self) -> Level {
        Level { active: self.busy + self.feeds, limit: self.growth.limit, waiting: self.waiting() > 0 }
    }

    /// The integrals need a look only when the level changes.
    fn note(&mut self, now: Instant) {
        let level = self.level();
        if level != self.usage.level() {
            self.usage.update(now, level);
        }
    }

    fn waiting(&self) -> u32 {
        count(self.urgent.len() + self.ordinary.len() + self.alone.len())
    }

    fn line(&mut self, way: Way) -> &mut VecDeque<Waiter<P>> {
        match way {
            Way::Urgent => &mut self.urgent,
            Way::Ordinary => &mut self.ordinary,
            Way::Alone => &mut self.alone,
        }
    }

    /// Takes a slot of the first lane with room; a lane that has been idle for long is sent to its test instead.
    fn take(&mut self, now: Instant, way: Way, work: &mut Work<C, P>) -> Option<Slot<C>> {
        let depth = self.config.depth as usize;
        if way != Way::Urgent && self.has_only_kept(now) {
            self.kept.let_go();
        }
        // One at a time: long replies must not take every lane from the locks.
        if way == Way::Alone && self.has_lane_in(State::Alone) {
            return None;
        }
        for lane in &mut self.lanes {
            if !lane.has_room(now, depth) || (way == Way::Alone && !lane.is_idle()) {
                continue;
            }
            if self.kept.is(lane) && way != Way::Urgent {
                continue;
            }
            if lane.is_idle() && now.saturating_duration_since(lane.proven_at) >= self.config.idle_test {
                lane.state = State::Testing;
                work.tests.push(Slot { lane: lane.id, connection: lane.connection.clone() });
                continue;
            }
            if lane.is_idle() {
                self.busy += 1;
            }
            if way == Way::Alone {
                lane.state = State::Alone;
            }
            lane.started.push_back(now);
            let grant = Slot { lane: lane.id, connection: lane.connection.clone() };
            self.note(now);
            return Some(grant);
        }
        None
    }

    /// Serves who can be served, opens what must be opened, and takes note of the level.
    fn settle_all(&mut self, now: Instant, work: &mut Work<C, P>) {
        self.unreserve();
        self.kept.choose(&mut self.lanes, self.growth.limit, now, self.config.depth as usize);
        if self.waiting() == 0 && !self.kept.is_missing(self.growth.limit) {
            return self.note(now);
        }
        self.serve(now, Way::Urgent, work);
        self.serve(now, Way::Alone, work);
        self.unreserve();
        self.serve(now, Way::Ordinary, work);
        while let Some(pace) = self.due_dial(now, self.wanted_dials(now)) {
            work.dials.push(self.begin_dial(now, pace));
        }
        self.reserve();
        self.note(now);
    }

    fn serve(&mut self, now: Instant, way: Way, work: &mut Work<C, P>) {
        while !self.line(way).is_empty() {
            let Some(grant) = self.take(now, way, work) else { break };
            if let Some(waiter) = self.line(way).pop_front() {
                work.grants.push((waiter.sender, grant));
            }
        }
    }

    /// How many lanes are to be under way for those who wait. Nobody waits for the lane that is kept, so its dials take the long pause.
    fn wanted_dials(&self, now: Instant) -> u32 {
        let shared = (self.urgent.len() + self.ordinary.len()).div_ceil(self.config.depth as usize);
        let alone = !self.alone.is_empty() && !self.has_lane_in(State::Alone);
        let kept = self.kept.is_missing(self.growth.limit) && !self.growth.is_paused(now, true);
        count(shared) + u32::from(alone) + u32::from(kept)
    }

    /// The dial to begin now where `wanted` lanes are to be under way: a patient one while there are fewer, a hasty one beside
    /// those that hang. It waits for no feed.
    fn due_dial(&self, now: Instant, wanted: u32) -> Option<Pace> {
        let dialling = self.dials.count();
        if dialling < wanted && self.may_dial(now) {
            return Some(Pace::Patient);
        }
        let may_hurry = wanted > 0 && self.may_dial_beside(now, dialling, self.dials.hanging(now));
        may_hurry.then_some(Pace::Hasty)
    }

    /// Whether a lane can be opened also when a feed has one more place.
    fn leaves_a_lane(&self) -> bool {
        self.has_lane() || self.places + 1 < self.growth.limit
    }

    /// The dial for a feed that may begin now. A feed can wait: it takes the long pause.
    fn due_feed(&self, now: Instant) -> Option<Pace> {
        if self.growth.is_paused(now, true) {
            return None;
        }
        let dialling = self.dials.count() + self.feed_dials.count();
        if self.growth.allows(now, self.places, dialling, self.has_lane()) {
            return Some(Pace::Patient);
        }
        let hanging = self.dials.hanging(now) + self.feed_dials.hanging(now);
        self.may_dial_beside(now, dialling, hanging).then_some(Pace::Hasty)
    }

    /// Whether a lane may be opened without haste.
    fn may_dial(&self, now: Instant) -> bool {
        self.growth.allows(now, self.places, self.dials.count(), self.has_lane())
    }

    /// Whether one more dial may be made beside those under way, because all of them hang.
    fn may_dial_beside(&self, now: Instant, dialling: u32, hanging: u32) -> bool {
        hanging > 0 && hanging == dialling && self.growth.allows_beside(now, self.places, self.has_lane())
    }

    /// A hasty dial that was given up says nothing: where the network is slow, the patient one is the one that knows.
    fn note_failure(&mut self, now: Instant, dial: Dial, kind: FaultKind) {
        if dial.pace == Pace::Patient || kind != FaultKind::Timeout {
            self.growth.failed(now, kind, self.connections());
        }
    }

    /// Connections that the server lets us have.
    fn connections(&self) -> u32 {
        count(self.lanes.len()) + self.feeds
    }

    /// Places whose socket has no more work and is being closed: `lanes` has only those that are open or have work.
    fn draining(&self) -> u32 {
        self.places.saturating_sub(self.dials.count() + self.feed_dials.count() + self.connections())
    }

    /// Whether any lane is open, with room or without.
    pub(super) fn has_lane(&self) -> bool {
        self.lanes.iter().any(|lane| lane.state != State::Evicted)
    }

    /// Lanes that are open to everybody.
    fn shared_lanes(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.state != State::Evicted && !self.kept.is(lane)).count()
    }

    /// Whether there is no lane but the kept one for those who may not use it, nor will be.
    fn has_only_kept(&self, now: Instant) -> bool {
        // Not one that carries a long reply: as soon as that has come the next one may be sent there.
        let is_other = |lane: &Lane<C>| !matches!(lane.state, State::Alone | State::Evicted);
        let has_other = self.lanes.iter().any(|lane| is_other(lane) && !self.kept.is(lane));
        !has_other && self.dials.count() == 0 && !self.may_dial(now)
    }

    fn has_lane_in(&self, state: State) -> bool {
        self.lanes.iter().any(|lane| lane.state == state)
    }

    /// Begins to empty a lane for who wants one alone and cannot have a new one.
    fn reserve(&mut self) {
        let is_served = || self.has_lane_in(State::Reserved) || self.has_lane_in(State::Alone);
        if self.alone.is_empty() || self.dials.count() > 0 || is_served() {
            return;
        }
        let open = self.lanes.iter_mut().filter(|lane| lane.state == State::Open && !self.kept.is(lane));
        if let Some(lane) = open.min_by_key(|lane| lane.started.len()) {
            lane.state = State::Reserved;
        }
    }

    /// Stops emptying a lane for somebody who has gone, or has another.
    fn unreserve(&mut self) {
        if self.alone.is_empty() {
            for lane in self.lanes.iter_mut().filter(|lane| lane.state == State::Reserved) {
                lane.state = State::Open;
            }
        }
    }

    /// Closes the last lane without work, unless it is kept or the only one beside.
    fn make_room(&mut self, work: &mut Work<C, P>) {
        let open = self.shared_lanes();
        let mut idle = self.lanes.iter_mut().rev().filter(|lane| lane.state == State::Open && lane.is_idle());
        if let Some(lane) = idle.find(|lane| open > 1 && !self.kept.is(lane)) {
            lane.state = State::Evicted;
            work.closed.push(ClosedReason::MadeRoom);
            self.bury(work);
        }
    }

    fn evict_through(&mut self, id: LaneId, reason: ClosedReason, work: &mut Work<C, P>) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.id <= id && lane.state != State::Evicted) {
            lane.state = State::Evicted;
            work.closed.push(reason);
            self.breaks.fetch_add(1, Relaxed);
            // Of whatever age: it would not be told that nothing is said there any more.
            if reason == ClosedReason::ReadOnly {
                work.feed_ends = Some(reason);
            }
        }
        self.bury(work);
    }

    /// Lets go of evicted lanes whose last operation has ended.
    fn bury(&mut self, work: &mut Work<C, P>) {
        if self.lanes.iter().any(|lane| lane.state == State::Evicted && lane.is_idle()) {
            let gone = self.lanes.extract_if(.., |lane| lane.state == State::Evicted && lane.is_idle());
            work.drops.extend(gone.map(|lane| lane.connection));
        }
    }
}

/// Lanes, waiters and operations are bounded far below what a `u32` counts.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;

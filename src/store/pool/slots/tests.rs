//! A pool without sockets: the test plays the network, and looks at the slots after every step.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{lane::STALLED, *};

type Receiver = oneshot::Receiver<Served<LaneId>>;

/// What is outside the slots: sockets, dials, operations, tests, and those who wait.
struct World {
    slots: Slots<u32, LaneId>,
    now: Instant,
    config: PoolConfig,
    last_connection: u32,
    /// Sockets that are open, by connection; those that the slots have let go of are closing.
    sockets: BTreeMap<u32, Socket>,
    /// Oldest first.
    dials: Vec<Dial>,
    /// Failed dials whose sockets are not gone yet.
    failed: u32,
    /// Connections of feeds that are being opened.
    feed_dials: Vec<Dial>,
    /// Open connections of feeds.
    feeds: u32,
    /// Operations under way, by lane.
    operations: Vec<LaneId>,
    tests: Vec<LaneId>,
    waiters: Vec<(WaiterId, Way, Receiver)>,
    /// Who was given a slot in this step, and of which lane.
    served: Vec<(Way, LaneId)>,
    /// The lane that was kept before this step.
    kept: Option<LaneId>,
    closed: u64,
    /// Why feeds were to be ended.
    feed_ends: Vec<ClosedReason>,
}

#[derive(Debug, PartialEq, Eq)]
enum Socket {
    Open,
    Closing,
}

impl World {
    fn new(config: PoolConfig) -> Self {
        let now = Instant::now();
        Self {
            slots: Slots::new(config.clone(), now),
            now,
            config,
            last_connection: 0,
            sockets: BTreeMap::new(),
            dials: Vec::new(),
            failed: 0,
            feed_dials: Vec::new(),
            feeds: 0,
            operations: Vec::new(),
            tests: Vec::new(),
            waiters: Vec::new(),
            served: Vec::new(),
            kept: None,
            closed: 0,
            feed_ends: Vec::new(),
        }
    }

    /// A pool with one open lane.
    fn open(config: PoolConfig) -> Self {
        let mut world = Self::new(config);
        let dial = world.slots.begin_dial(world.now, Pace::Patient);
        world.dials.push(dial);
        world.dialled();
        world
    }

    fn state(&self, lane: LaneId) -> Option<State> {
        self.slots.lanes.iter().find(|other| other.id == lane).map(|lane| lane.state)
    }

    fn kept(&self) -> Option<LaneId> {
        self.slots.lanes.iter().find(|lane| self.slots.kept.is(lane)).map(|lane| lane.id)
    }

    fn took(&mut self, grant: &Slot<u32>) {
        // Reserved: it was given away before, in the same step, the lane began to be emptied.
        assert!(
            matches!(self.state(grant.lane), Some(State::Open | State::Alone | State::Reserved)),
            "a slot of a lane that takes nothing"
        );
        assert_eq!(self.sockets[&grant.connection], Socket::Open);
        self.operations.push(grant.lane);
    }

    fn perform(&mut self, work: Work<u32, LaneId>) {
        let Work { grants, refusals, tests, drops, dials, closed, feed_ends } = work;
        self.closed += closed.len() as u64;
        self.feed_ends.extend(feed_ends);
        for connection in drops {
            if let Some(socket) = self.sockets.get_mut(&connection) {
                *socket = Socket::Closing;
            }
        }
        for (sender, grant) in grants {
            self.took(&grant);
            sender.send(Ok(grant.lane)).expect("whoever left is not in the line");
        }
        for (sender, kind) in refusals {
            sender.send(Err(kind)).expect("whoever left is not in the line");
        }
        self.tests.extend(tests.iter().map(|test| test.lane));
        dials.into_iter().for_each(|dial| self.begins(dial));
        self.check();
    }

    /// A dial is made in haste where the others hang.
    fn begins(&mut self, dial: Dial) {
        let others = || self.dials.iter();
        let hang = others().all(|other| other.pace == Pace::Patient && self.now >= other.begun + HASTE);
        let is_beside = others().len() > 0 && hang;
        assert!(dial.pace == Pace::Patient || is_beside, "hasty beside {:?}", self.dials);
        self.dials.push(dial);
    }

    /// What holds after every step.
    fn check(&mut self) {
        let slots = &self.slots;
        let depth = self.config.depth as usize;
        let feeds = count(self.feed_dials.len()) + self.feeds;
        let places = self.sockets.len() + self.dials.len() + (self.failed + feeds) as usize;
        assert_eq!(slots.places as usize, places, "every socket has its place");
        assert!(slots.places <= self.config.max_connections, "{places} places");
        assert!(slots.growth.limit <= self.config.max_connections && slots.growth.limit > 0);
        assert_eq!(slots.dials.count() as usize, self.dials.len());
        let busy = slots.lanes.iter().filter(|lane| !lane.is_idle()).count();
        assert_eq!(slots.busy as usize, busy);
        assert_eq!((slots.feed_dials.count() as usize, slots.feeds), (self.feed_dials.len(), self.feeds));
        assert_eq!(slots.level().active as usize, busy + self.feeds as usize, "a feed is active");
        assert_eq!(slots.level(), slots.usage.level(), "the integrals know the level");
        assert!(feeds < self.config.max_connections, "a lane can always be opened");
        for lane in &slots.lanes {
            let under_way = self.operations.iter().filter(|other| **other == lane.id).count();
            assert_eq!(lane.started.len(), under_way, "{:?}", lane.id);
            assert!(under_way <= depth);
            assert!(lane.started.iter().is_sorted(), "the front is the oldest");
        }
        let patient = slots.ordinary.len() + slots.alone.len();
        assert!(patient <= self.config.max_waiters as usize, "{patient} wait");
        assert!(slots.urgent.len() <= self.config.max_waiters as usize);
        let shared = || slots.lanes.iter().filter(|lane| !slots.kept.is(lane));
        let has_room = |lane: &Lane<u32>| lane.has_room(self.now, depth);
        let urgent_waits = !slots.urgent.is_empty() && slots.lanes.iter().any(has_room);
        let ordinary_waits = !slots.ordinary.is_empty() && shared().any(has_room);
        assert!(!urgent_waits && !ordinary_waits, "somebody waits beside a free slot");
        let empty = shared().any(|lane| lane.state == State::Open && lane.is_idle());
        let turn = !slots.has_lane_in(State::Alone);
        assert!(!(empty && turn) || slots.alone.is_empty(), "somebody waits for an idle lane");
        let alone = slots.lanes.iter().filter(|lane| lane.state == State::Alone).count();
        assert!(alone <= 1, "long replies take one lane at a time");
        let reserved = slots.lanes.iter().filter(|lane| lane.state == State::Reserved).count();
        assert!(reserved <= usize::from(!slots.alone.is_empty()), "a lane is reserved for nobody");
        self.waiters.retain_mut(|(_, way, receiver)| match receiver.try_recv() {
            Ok(slot) => {
                self.served.extend(slot.map(|lane| (*way, lane)));
                false
            }
            Err(error) => error == oneshot::error::TryRecvError::Empty,
        });
        assert_eq!(
            self.slots.waiting() as usize,
            self.waiters.len(),
            "who waits has neither slot nor refusal"
        );
        self.check_kept();
    }

    /// What holds of the lane that is kept.
    fn check_kept(&mut self) {
        let (slots, kept) = (&self.slots, self.kept());
        let is_possible = slots.kept.is_wanted && slots.growth.limit >= 3;
        let has_room = |lane: &Lane<u32>| lane.has_room(self.now, self.config.depth as usize);
        let serving = || slots.lanes.iter().filter(|lane| lane.serves());
        assert!(is_possible || kept.is_none(), "kept for nobody");
        if let Some(kept) = kept {
            assert_eq!(slots.lanes[0].id, kept, "it stands first");
            assert!(slots.lanes[0].serves(), "an evicted lane is of no use");
        }
        assert!(!is_possible || kept.is_some() || serving().count() < 2, "one of two lanes is kept");
        let is_last = slots.dials.count() == 0 && !slots.may_dial(self.now);
        let has_other = |id| {
            let mut others = slots.lanes.iter().filter(|lane| lane.id != id);
            others.any(|lane| !matches!(lane.state, State::Alone | State::Evicted))
        };
        let waits = kept.is_some_and(|kept| is_last && !has_other(kept)) && !slots.ordinary.is_empty();
        assert!(!waits || !has_room(&slots.lanes[0]), "somebody waits for what never comes");
        for (way, lane) in self.served.drain(..).filter(|(way, _)| *way != Way::Urgent) {
            assert_ne!(Some(lane), kept, "{way:?}");
            let was_kept = Some(lane) == self.kept && is_possible;
            assert!(!was_kept || (is_last && !has_other(lane)), "{way:?} on the kept lane without need");
        }
        self.kept = kept;
    }

    fn keep(&mut self, is_wanted: bool) {
        let work = self.slots.keep_lane(self.now, is_wanted);
        self.perform(work);
    }

    fn checkout(&mut self, way: Way) -> Option<LaneId> {
        let free = self.slots.lanes.iter().find(|lane| {
            let is_proven = !lane.is_idle() || self.now < lane.proven_at + self.config.idle_test;
            self.slots.kept.is(lane) && lane.has_room(self.now, self.config.depth as usize) && is_proven
        });
        let free = free.map(|lane| lane.id).filter(|_| way == Way::Urgent);
        let (checkout, work) = self.slots.checkout(self.now, way);
        let lane = match checkout {
            Checkout::Granted(grant) => {
                self.took(&grant);
                self.served.push((way, grant.lane));
                Some(grant.lane)
            }
            Checkout::Waiting(id, receiver) => {
                self.waiters.push((id, way, receiver));
                None
            }
            Checkout::Saturated => {
                assert!(self.slots.waiting() >= self.config.max_waiters);
                None
            }
        };
        assert!(free.is_none() || lane == free, "the kept lane has room for what is urgent");
        self.perform(work);
        lane
    }

    fn leave(&mut self, place: usize) {
        let (id, _, receiver) = self.waiters.remove(place);
        drop(receiver);
        let work = self.slots.leave(self.now, id);
        self.perform(work);
    }

    fn give_back(&mut self, place: usize, evict: Option<ClosedReason>) {
        let lane = self.operations.remove(place);
        let work = self.slots.give_back(self.now, lane, evict);
        self.perform(work);
    }

    fn evict(&mut self, lane: LaneId) {
        let work = self.slots.evict(self.now, lane, ClosedReason::Timeout);
        self.perform(work);
    }

    /// The oldest dial succeeds.
    fn dialled(&mut self) -> LaneId {
        self.succeeds(0)
    }

    fn succeeds(&mut self, place: usize) -> LaneId {
        let dial = self.dials.remove(place);
        self.last_connection += 1;
        self.sockets.insert(self.last_connection, Socket::Open);
        let (id, work) = self.slots.dialled(self.now, dial, self.last_connection);
        self.perform(work);
        id
    }

    /// The oldest dial fails.
    fn dial_failed(&mut self, kind: FaultKind) {
        self.fails(0, kind);
    }

    fn fails(&mut self, place: usize, kind: FaultKind) {
        let dial = self.dials.remove(place);
        self.failed += 1;
        let work = self.slots.dial_failed(self.now, dial, kind);
        self.perform(work);
        self.failed -= 1;
        let work = self.slots.place_freed(self.now, None);
        self.perform(work);
    }

    /// Whether a feed was given a place.
    fn feed(&mut self) -> bool {
        let kept = self.kept();
        let (dial, work) = self.slots.begin_feed(self.now);
        self.feed_dials.extend(dial);
        self.perform(work);
        assert_eq!(self.kept(), kept, "it makes no room");
        dial.is_some()
    }

    fn feed_dialled(&mut self) {
        let dial = self.feed_dials.remove(0);
        self.feeds += 1;
        let work = self.slots.feed_dialled(self.now, dial);
        self.perform(work);
    }

    fn hurry_feed(&mut self) -> bool {
        let dial = self.slots.hurry_feed(self.now);
        self.feed_dials.extend(dial);
        self.check();
        dial.is_some()
    }

    fn feed_failed(&mut self, kind: FaultKind) {
        self.feed_fails(0, kind);
    }

    fn feed_fails(&mut self, place: usize, kind: FaultKind) {
        let dial = self.feed_dials.remove(place);
        self.failed += 1;
        let work = self.slots.feed_failed(self.now, dial, kind);
        self.perform(work);
        self.failed -= 1;
        let work = self.slots.place_freed(self.now, None);
        self.perform(work);
    }

    /// The socket of an open feed is gone.
    fn feed_ends(&mut self) {
        self.feeds -= 1;
        let work = self.slots.place_freed(self.now, Some(Tenant::Feed));
        self.perform(work);
    }

    /// The sockets of connections that were let go of are gone.
    fn sockets_close(&mut self) {
        let closing = |world: &Self| {
            let closing = world.sockets.iter().find(|(_, socket)| **socket == Socket::Closing);
            closing.map(|(connection, _)| *connection)
        };
        while let Some(connection) = closing(self) {
            self.sockets.remove(&connection);
            let work = self.slots.place_freed(self.now, None);
            self.perform(work);
        }
    }

    /// The server closes the connection of a lane.
    fn breaks(&mut self, lane: LaneId) {
        let known = self.slots.lanes.iter().find(|other| other.id == lane);
        if let Some(connection) = known.map(|lane| lane.connection)
            && self.sockets.remove(&connection).is_some()
        {
            let work = self.slots.place_freed(self.now, Some(Tenant::Lane(lane)));
            self.perform(work);
        }
    }

    fn tested(&mut self, place: usize, passed: bool) {
        let lane = self.tests.remove(place);
        let work = self.slots.tested(self.now, lane, passed);
        self.perform(work);
    }

    fn tick(&mut self) {
        let kept = self.kept();
        let work = self.slots.tick(self.now);
        self.perform(work);
        let is_there = |lane| self.state(lane).is_some_and(|state| state != State::Evicted);
        assert!(kept.is_none_or(is_there), "it is not closed for being idle");
        let slots = &self.slots;
        let is_missing = slots.kept.is_missing(slots.growth.limit);
        let may_dial = slots.may_dial(self.now) && !slots.growth.is_paused(self.now, true);
        assert!(!is_missing || slots.dials.count() > 0 || !may_dial, "nobody opens it");
    }

    /// The lane that would be asked whether the server is there.
    fn asked(&mut self) -> Option<LaneId> {
        let (connection, work) = self.slots.least_silent(self.now);
        self.perform(work);
        let connection = connection?;
        self.slots.lanes.iter().find(|lane| lane.connection == connection).map(|lane| lane.id)
    }

    /// Of the dials under way, oldest first.
    fn paces(&self) -> Vec<Pace> {
        self.dials.iter().map(|dial| dial.pace).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn in_flight(&self, lane: LaneId) -> usize {
        self.operations.iter().filter(|other| **other == lane).count()
    }
}

const MILLI: Duration = Duration::from_millis(1);

fn narrow(max_connections: u32, depth: u32) -> PoolConfig {
    PoolConfig { max_connections, depth, max_waiters: 8, ..PoolConfig::default() }
}

#[test]
fn the_first_lane_with_room_is_taken() {
    let mut world = World::open(narrow(3, 2));
    let first = world.checkout(Way::Ordinary).unwrap();
    assert_eq!(world.checkout(Way::Ordinary), Some(first));
    assert_eq!(world.checkout(Way::Ordinary), None);
    assert_eq!(world.dials.len(), 1, "a new one only when every one is full");
    let second = world.dialled();
    assert_eq!((world.in_flight(first), world.in_flight(second)), (2, 1));
    world.give_back(0, None);
    assert_eq!(world.checkout(Way::Ordinary), Some(first));
}

#[test]
fn one_dial_is_made_for_as_many_waiters_as_a_lane_carries() {
    let mut world = World::open(narrow(20, 2));
    for _ in 0..2 + 5 {
        world.checkout(Way::Ordinary);
    }
    assert_eq!(world.dials.len(), 3);
}

#[test]
fn eviction_takes_the_older_lanes_along_and_keeps_their_places() {
    let mut world = World::open(narrow(3, 1));
    let first = world.checkout(Way::Ordinary).unwrap();
    world.checkout(Way::Ordinary);
    let second = world.dialled();
    world.checkout(Way::Ordinary);
    let third = world.dialled();
    world.evict(second);
    assert_eq!(world.closed, 2);
    let states = [first, second, third].map(|lane| world.state(lane).unwrap());
    assert_eq!(states, [State::Evicted, State::Evicted, State::Open]);
    world.checkout(Way::Ordinary);
    assert_eq!((world.dials.len(), world.slots.places), (0, 3), "no place for another until they are gone");

    world.give_back(0, None);
    assert_eq!((world.state(first), world.dials.len()), (None, 0), "its socket is still being closed");
    world.sockets_close();
    assert_eq!(world.dials.len(), 1);
}

#[test]
fn each_lane_that_a_fault_ends_is_one_break() {
    let mut world = World::open(PoolConfig { idle_timeout: MILLI, ..narrow(3, 1) });
    let broken = world.slots.breaks();
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    world.dialled();
    world.checkout(Way::Ordinary);
    world.dialled();
    for _ in 0..3 {
        world.give_back(0, None);
    }
    world.pass(MILLI);
    world.tick();
    assert_eq!((world.closed, broken.load(Relaxed)), (2, 0), "closed for want of work");
    let first = world.checkout(Way::Ordinary).unwrap();
    world.checkout(Way::Ordinary);
    world.sockets_close();
    let second = world.dialled();
    world.evict(second);
    assert_eq!(broken.load(Relaxed), 2, "with the older one");
    world.evict(first);
    world.give_back(0, Some(ClosedReason::Disconnected));
    assert_eq!(broken.load(Relaxed), 2, "once each");
    world.checkout(Way::Ordinary);
    world.sockets_close();
    let third = world.dialled();
    world.breaks(third);
    assert_eq!(broken.load(Relaxed), 3, "by itself");
}

#[test]
fn a_lane_whose_socket_is_gone_is_gone() {
    let mut world = World::open(narrow(1, 1));
    let lane = world.slots.lanes[0].id;
    world.breaks(lane);
    assert_eq!((world.closed, world.slots.places, world.slots.lanes.len()), (1, 0, 0));
    assert_eq!(world.checkout(Way::Ordinary), None);
    assert_eq!(world.dials.len(), 1);
}

#[test]
fn urgent_waiters_go_first_and_each_line_in_its_order() {
    let mut world = World::open(narrow(1, 1));
    world.checkout(Way::Ordinary);
    for way in [Way::Ordinary, Way::Ordinary, Way::Urgent, Way::Urgent] {
        world.checkout(way);
    }
    let names: Vec<_> = world.waiters.iter().map(|(id, ..)| id.0).collect();
    let mut served = Vec::new();
    for _ in 0..4 {
        let before: Vec<_> = world.waiters.iter().map(|(id, ..)| id.0).collect();
        world.give_back(0, None);
        let after: Vec<_> = world.waiters.iter().map(|(id, ..)| id.0).collect();
        served.extend(before.into_iter().filter(|id| !after.contains(id)));
    }
    assert_eq!(served, [names[2], names[3], names[0], names[1]]);
}

#[test]
fn a_lane_is_emptied_for_who_wants_one_alone() {
    let mut world = World::open(narrow(2, 2));
    for _ in 0..3 {
        world.checkout(Way::Ordinary);
    }
    let second = world.dialled();
    assert_eq!(world.in_flight(second), 1);
    world.checkout(Way::Alone);
    assert_eq!(world.state(second), Some(State::Reserved), "the emptier of the two");
    assert_eq!(world.checkout(Way::Ordinary), None, "it takes nobody else");
    world.give_back(2, None);
    assert_eq!((world.in_flight(second), world.state(second)), (1, Some(State::Alone)));
    assert_eq!(world.waiters.len(), 1);
    world.give_back(2, None);
    assert_eq!((world.in_flight(second), world.state(second)), (1, Some(State::Open)), "the other is served");
}

#[test]
fn a_lane_that_was_emptied_for_a_list_goes_to_what_is_urgent() {
    let mut world = World::open(narrow(2, 1));
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    world.dialled();
    world.checkout(Way::Alone);
    world.checkout(Way::Urgent);
    world.give_back(0, None);
    let waiting: Vec<_> = world.waiters.iter().map(|(_, way, _)| *way).collect();
    assert_eq!(waiting, [Way::Alone]);
}

/// The lane that was being emptied stood open beside those who waited: it was given back after they had been looked at.
#[test]
fn a_lane_that_is_no_longer_kept_is_used_at_once() {
    let mut world = World::open(narrow(2, 3));
    for _ in 0..3 {
        world.checkout(Way::Ordinary);
    }
    let first = world.slots.lanes[0].id;
    world.evict(first);
    world.checkout(Way::Ordinary);
    let second = world.dialled();
    world.checkout(Way::Ordinary);
    world.checkout(Way::Alone);
    assert_eq!(world.state(second), Some(State::Reserved));
    world.checkout(Way::Ordinary);
    for _ in 0..3 {
        world.give_back(0, None);
    }
    world.sockets_close();
    let third = world.dialled();
    assert_eq!((world.state(third), world.state(second)), (Some(State::Alone), Some(State::Open)));
    assert_eq!((world.in_flight(second), world.waiters.len()), (3, 0));
}

#[test]
fn a_lane_is_not_kept_for_who_has_gone() {
    let mut world = World::open(narrow(2, 2));
    for _ in 0..4 {
        world.checkout(Way::Ordinary);
    }
    let second = world.dialled();
    world.checkout(Way::Alone);
    let reserved = world.slots.lanes.iter().find(|lane| lane.state == State::Reserved).unwrap().id;
    world.leave(0);
    assert_eq!(world.state(reserved), Some(State::Open));
    assert!(world.in_flight(second) > 0);
}

#[test]
fn a_stalled_lane_is_passed_over_until_its_reply_comes() {
    let mut world = World::open(narrow(2, 4));
    let first = world.checkout(Way::Ordinary).unwrap();
    world.pass(STALLED);
    assert_eq!(world.checkout(Way::Ordinary), Some(first), "slow is not stalled");
    world.pass(MILLI);
    assert_eq!(world.checkout(Way::Ordinary), None);
    let second = world.dialled();
    assert_eq!(world.in_flight(second), 1);
    world.give_back(0, None);
    assert_eq!(world.checkout(Way::Ordinary), Some(first));
}

#[test]
fn idle_lanes_are_closed_down_to_one() {
    let patient = Duration::from_secs(3600);
    let mut world = World::open(PoolConfig { idle_test: patient, ..narrow(3, 1) });
    for _ in 0..3 {
        world.checkout(Way::Ordinary);
    }
    world.dialled();
    world.dialled();
    for _ in 0..3 {
        world.give_back(0, None);
    }
    world.pass(world.config.idle_timeout - MILLI);
    world.tick();
    assert_eq!(world.closed, 0);
    world.pass(MILLI);
    world.tick();
    world.sockets_close();
    assert_eq!((world.closed, world.slots.places), (2, 1));
}

#[test]
fn a_long_idle_lane_is_tested_before_it_is_used() {
    let mut world = World::open(narrow(2, 4));
    world.pass(world.config.idle_test);
    assert_eq!(world.checkout(Way::Ordinary), None);
    assert_eq!((world.tests.len(), world.dials.len()), (1, 1), "and nobody waits for the test alone");
    world.tested(0, true);
    assert!(world.waiters.is_empty());
    world.dialled();

    world.give_back(0, None);
    world.pass(world.config.idle_test);
    world.tick();
    assert_eq!(world.tests.len(), 2);
    world.tested(1, false);
    assert_eq!(world.closed, 1, "the older of the two");
}

#[test]
fn waiters_are_refused_when_nothing_is_left_to_wait_for() {
    let mut world = World::open(narrow(2, 1));
    let lane = world.checkout(Way::Ordinary).unwrap();
    world.checkout(Way::Ordinary);
    world.dial_failed(FaultKind::Connect);
    assert_eq!(world.waiters.len(), 1, "the lane may come free");
    world.evict(lane);
    world.pass(Duration::from_secs(1));
    world.tick();
    world.dial_failed(FaultKind::Connect);
    assert_eq!(world.waiters.len(), 0);
}

/// The keeper slept through the end of a pause that nobody was waiting for when it fell asleep.
#[test]
fn a_pause_ends_on_time_also_for_those_who_come_later() {
    let mut world = World::open(narrow(2, 1));
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    world.dial_failed(FaultKind::Connect);
    world.leave(0);
    assert_eq!(world.slots.next_tick(world.now), world.now + Duration::from_millis(250));
}

/// A dial that was begun in an outage waits for the system to send its packet again, long after the network is back.
#[test]
fn whoever_waits_for_a_dial_that_hangs_gets_a_hasty_one_beside() {
    let mut world = World::new(narrow(8, 1));
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    assert_eq!(world.paces(), [Pace::Patient; 2]);
    world.leave(0);
    world.pass(HASTE - MILLI);
    world.tick();
    assert_eq!(world.paces(), [Pace::Patient; 2], "they may be answered any moment");
    assert_eq!(world.slots.next_tick(world.now), world.now + MILLI, "the keeper comes by");
    world.pass(MILLI);
    world.tick();
    assert_eq!(world.paces(), [Pace::Patient, Pace::Patient, Pace::Hasty], "one at a time");
    world.pass(HASTE);
    world.fails(2, FaultKind::Timeout);
    assert_eq!(world.paces(), [Pace::Patient, Pace::Patient, Pace::Hasty], "and then the next");
    assert_eq!(world.waiters.len(), 1, "nobody is refused while one is under way");
    world.succeeds(2);
    assert!(world.waiters.is_empty());
    assert_eq!(world.paces(), [Pace::Patient; 2], "for nobody none is made");
}

#[test]
fn a_hasty_dial_that_is_given_up_says_nothing_and_one_that_is_refused_does() {
    let mut world = World::new(narrow(8, 1));
    world.checkout(Way::Ordinary);
    world.pass(HASTE);
    world.tick();
    world.pass(HASTE);
    world.fails(1, FaultKind::Timeout);
    world.dialled();
    assert!(world.waiters.is_empty(), "the network was only slow");
    world.fails(0, FaultKind::Timeout);
    for _ in 0..3 {
        world.checkout(Way::Ordinary);
    }
    assert_eq!(world.paces(), [Pace::Patient; 3], "more than one at a time: nothing has failed");

    world.pass(HASTE);
    world.tick();
    world.fails(3, FaultKind::Connect);
    assert_eq!(world.paces(), [Pace::Patient; 3], "there is a pause");
    world.pass(Duration::from_millis(250));
    world.tick();
    assert_eq!(world.paces()[3..], [Pace::Hasty]);
}

#[test]
fn a_hasty_dial_has_a_place_as_any() {
    let mut world = World::new(narrow(1, 1));
    world.checkout(Way::Ordinary);
    world.pass(HASTE);
    world.tick();
    assert_eq!(world.paces(), [Pace::Patient], "there is no second place");
}

/// Also where nobody may wait.
#[test]
fn whoever_is_refused_without_waiting_gets_a_hasty_dial_too() {
    let mut world = World::open(PoolConfig { max_waiters: 0, ..narrow(2, 1) });
    world.breaks(world.slots.lanes[0].id);
    world.checkout(Way::Ordinary);
    world.pass(HASTE);
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    assert_eq!(world.paces(), [Pace::Patient, Pace::Hasty]);
}

#[test]
fn a_feed_is_dialled_beside_dials_that_hang() {
    let mut world = World::new(narrow(4, 1));
    world.checkout(Way::Ordinary);
    world.dial_failed(FaultKind::Connect);
    world.pass(Duration::from_millis(250));
    world.checkout(Way::Ordinary);
    world.leave(0);
    assert!(!world.feed(), "one at a time after a failure");
    world.pass(HASTE);
    assert!(world.feed());
    assert_eq!(world.feed_dials[0].pace, Pace::Hasty);
    assert!(!world.feed());
    world.feed_failed(FaultKind::Timeout);
    assert!(world.feed());
}

#[test]
fn a_feed_whose_dial_hangs_gets_a_hasty_one_beside() {
    let mut world = World::open(narrow(3, 1));
    assert!(world.feed());
    assert!(!world.hurry_feed(), "it may be answered any moment");
    world.pass(HASTE);
    assert!(world.hurry_feed());
    assert!(!world.hurry_feed(), "one at a time");
    assert_eq!(world.slots.places, 3);
    let lane = world.slots.lanes[0].id;
    world.breaks(lane);
    world.pass(HASTE);
    world.feed_fails(1, FaultKind::Timeout);
    assert!(world.hurry_feed());
    world.feed_fails(1, FaultKind::Timeout);
    world.checkout(Way::Ordinary);
    assert!(!world.hurry_feed(), "the last place is the lane's");
}

/// Every dial hangs until it is given up, for 20 s in which somebody always waits.
#[test]
fn in_an_outage_a_dial_is_never_older_than_a_second_and_a_quarter() {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    let mut world = World::new(narrow(8, 1));
    let end = world.now + Duration::from_secs(20);
    let mut begun = Vec::new();
    while world.now < end {
        if world.waiters.is_empty() {
            world.checkout(Way::Ordinary);
        }
        let last = begun.last().copied();
        begun.extend(world.dials.iter().map(|dial| dial.begun).filter(|at| last < Some(*at)));
        assert!(world.dials.len() <= 2, "{:?}", world.dials);
        world.pass(MILLI);
        let over = |dial: &Dial| world.now >= dial.begun + dial.pace.patience(CONNECT_TIMEOUT);
        if let Some(place) = world.dials.iter().position(over) {
            world.fails(place, FaultKind::Timeout);
        }
        world.tick();
    }
    let gaps = || begun.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps().all(|gap| gap <= HASTE + Duration::from_millis(250)), "{:?}", gaps().max());
    assert!(
        begun.windows(5).all(|five| five[4] - five[0] >= Duration::from_secs(1)),
        "more than four a second"
    );
    assert!(begun.len() >= 16, "{}", begun.len());
}

#[test]
fn the_least_silent_lane_is_asked_whether_the_server_is_there() {
    let mut world = World::open(narrow(5, 1));
    let first = world.checkout(Way::Ordinary).unwrap();
    world.checkout(Way::Ordinary);
    let second = world.dialled();
    world.pass(MILLI * 300);
    assert_eq!(world.slots.silence(world.now), MILLI * 300);
    world.give_back(0, None);
    assert_eq!(world.asked(), Some(first), "it has no work");
    world.checkout(Way::Ordinary);
    world.pass(MILLI);
    assert_eq!(world.asked(), Some(first), "its work is younger");
    world.checkout(Way::Alone);
    let alone = world.dialled();
    assert_eq!(world.state(alone), Some(State::Alone));
    assert_eq!(world.asked(), Some(first), "a long reply is waited for longer than any work");
    world.evict(second);
    assert_eq!(world.asked(), Some(alone), "there is no other");
    assert_eq!(world.slots.silence(world.now), Duration::ZERO, "what is evicted does not count");
    world.evict(alone);
    assert_eq!(world.asked(), None);
}

#[test]
fn a_reply_on_any_lane_tells_that_the_server_is_there() {
    let mut world = World::open(narrow(3, 1));
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    world.dialled();
    world.pass(MILLI);
    let then = world.now;
    assert!(!world.slots.has_answered_since(then));
    world.pass(MILLI);
    world.give_back(0, None);
    assert!(world.slots.has_answered_since(then) && !world.slots.has_answered_since(world.now));
    let then = world.now;
    world.pass(MILLI);
    world.give_back(0, Some(ClosedReason::Disconnected));
    assert!(!world.slots.has_answered_since(then), "that was no reply");
}

#[test]
fn another_lane_is_opened_where_all_are_silent_and_one_at_a_time() {
    let mut world = World::open(narrow(3, 1));
    let first = world.checkout(Way::Ordinary).unwrap();
    world.pass(SILENT - MILLI);
    assert_eq!((world.asked(), world.dials.len()), (Some(first), 0), "any reply takes some time");
    world.pass(MILLI);
    assert_eq!((world.asked(), world.dials.len()), (Some(first), 1));
    world.pass(SILENT);
    assert_eq!((world.asked(), world.dials.len()), (Some(first), 1), "it is under way");
    let second = world.dialled();
    assert_eq!((world.asked(), world.dials.len()), (Some(second), 0), "it is not silent");
    for _ in 0..2 {
        world.checkout(Way::Ordinary);
    }
    world.dialled();
    world.pass(SILENT);
    world.asked();
    assert_eq!(world.dials.len(), 0, "there are as many as may be");
}

#[test]
fn of_lanes_without_work_the_one_that_answered_last_is_asked() {
    let mut world = World::open(narrow(3, 1));
    let first = world.slots.lanes[0].id;
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    let second = world.dialled();
    world.give_back(0, None);
    world.pass(MILLI);
    world.give_back(0, None);
    assert_eq!(world.asked(), Some(second));
    world.pass(MILLI);
    assert_eq!(world.checkout(Way::Ordinary), Some(first));
    world.give_back(0, None);
    assert_eq!(world.asked(), Some(first));
}

/// The pool opened connections only for those who waited.
#[test]
fn whoever_is_refused_without_waiting_still_makes_the_pool_grow() {
    let mut world = World::open(PoolConfig { max_waiters: 0, ..narrow(2, 1) });
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    assert_eq!(world.dials.len(), 1);
    world.checkout(Way::Ordinary);
    assert_eq!(world.dials.len(), 1, "one at a time");
    world.dialled();
    assert!(world.checkout(Way::Ordinary).is_some());
}

#[test]
fn a_feed_is_an_active_connection_until_its_socket_is_gone() {
    let mut world = World::open(narrow(4, 1));
    assert!(world.feed());
    let census = world.slots.census(world.now);
    assert_eq!((census.level.active, census.dialling, world.slots.places), (0, 1, 2));
    world.feed_dialled();
    world.checkout(Way::Ordinary);
    world.pass(Duration::from_secs(10));
    let census = world.slots.census(world.now);
    assert_eq!((census.level.active, census.dialling, census.draining), (2, 0, 0));
    assert_eq!((census.open, census.idle, census.in_flight), (1, 0, 1), "it is no lane");
    assert_eq!(world.slots.usage.active, Duration::from_secs(20));
    assert_eq!(world.slots.usage.peak(), 2);
    world.feed_ends();
    assert_eq!((world.slots.census(world.now).level.active, world.slots.places), (1, 1));
}

#[test]
fn an_idle_lane_makes_room_for_a_feed_and_the_last_lane_stays() {
    let mut world = World::open(narrow(2, 1));
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    let second = world.dialled();
    assert!(!world.feed());
    assert_eq!(world.closed, 0, "nothing is idle");
    world.give_back(1, None);
    assert!(!world.feed());
    assert_eq!((world.closed, world.state(second)), (1, None));
    assert!(!world.feed(), "its socket is not gone yet");
    world.sockets_close();
    assert!(world.feed());
    world.feed_dialled();
    world.give_back(0, None);
    assert!(!world.feed());
    assert_eq!((world.closed, world.slots.lanes.len()), (1, 1), "the last lane has no work and stays");
}

#[test]
fn one_lane_at_a_time_makes_room() {
    let mut world = World::open(narrow(3, 1));
    for _ in 0..3 {
        world.checkout(Way::Ordinary);
    }
    world.dialled();
    world.dialled();
    for _ in 0..3 {
        world.give_back(0, None);
    }
    assert!(!world.feed() && !world.feed());
    assert_eq!((world.closed, world.slots.lanes.len()), (1, 2));
}

#[test]
fn a_pool_of_one_has_no_place_for_a_feed() {
    let mut world = World::open(narrow(1, 1));
    assert!(!world.feed());
    let lane = world.slots.lanes[0].id;
    world.breaks(lane);
    assert!(!world.feed(), "nor when there is no lane");
    assert_eq!(world.closed, 1);
}

#[test]
fn lanes_come_before_a_feed() {
    let mut world = World::open(narrow(3, 1));
    let lane = world.slots.lanes[0].id;
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    world.dial_failed(FaultKind::Connect);
    world.pass(Duration::from_millis(250));
    assert!(!world.feed(), "the pause is over, and somebody waits for a lane");
    world.tick();
    assert_eq!(world.dials.len(), 1);
    world.dialled();
    assert!(world.feed());

    let mut world = World::open(narrow(2, 1));
    world.breaks(lane);
    assert!(world.feed(), "a place is left for a lane");
    assert!(!world.feed(), "the last one is the lane's");
    world.feed_dialled();
    assert_eq!(world.checkout(Way::Ordinary), None);
    assert_eq!(world.dials.len(), 1);
}

/// While a feed was being opened, who waited for a lane would have waited for the feed.
#[test]
fn the_dial_of_a_feed_serves_nobody_who_waits() {
    let mut world = World::open(narrow(3, 1));
    world.checkout(Way::Ordinary);
    assert!(world.feed());
    world.checkout(Way::Ordinary);
    assert_eq!(world.dials.len(), 1);
    world.feed_failed(FaultKind::Timeout);
    assert_eq!(world.waiters.len(), 1, "nor is anybody refused by its failure");
}

#[test]
fn a_feed_keeps_the_pace_of_dials() {
    let mut world = World::open(narrow(4, 1));
    assert!(world.feed());
    world.feed_failed(FaultKind::Connect);
    assert!(!world.feed());
    world.pass(Duration::from_millis(250));
    assert!(world.feed());
    assert!(!world.feed(), "one at a time after a failure");
    world.feed_dialled();
    assert!(world.feed());
}

/// After a failure one dial is made at a time, and the feed's was that one.
#[test]
fn a_lane_does_not_wait_for_the_dial_of_a_feed() {
    let mut world = World::open(narrow(4, 1));
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    world.dial_failed(FaultKind::Connect);
    world.leave(0);
    world.pass(Duration::from_millis(250));
    assert!(world.feed());
    world.checkout(Way::Ordinary);
    assert_eq!(world.dials.len(), 1);
}

#[test]
fn a_feed_stays_below_the_limit_of_the_server() {
    let mut world = World::open(narrow(4, 1));
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    world.dialled();
    assert!(world.feed());
    world.feed_failed(FaultKind::MaxClients);
    assert_eq!(world.slots.growth.limit, 2);
    world.pass(Duration::from_secs(1));
    assert!(!world.feed(), "only a lane tries one more");
    world.give_back(1, None);
    assert!(!world.feed());
    world.sockets_close();
    assert!(world.feed(), "an idle lane made room");
    world.feed_dialled();
    assert_eq!(world.slots.growth.limit, 3);
    world.checkout(Way::Ordinary);
    world.dial_failed(FaultKind::MaxClients);
    assert_eq!(world.slots.growth.limit, 2, "the server lets us have a lane and the feed");
}

/// Its server had become a replica, and the lanes went to the new master without it.
#[test]
fn a_feed_goes_with_the_lanes_of_a_replica() {
    let mut world = World::open(narrow(4, 4));
    assert!(world.feed());
    world.feed_dialled();
    for _ in 0..3 {
        world.checkout(Way::Ordinary);
    }
    world.give_back(0, Some(ClosedReason::ReadOnly));
    assert_eq!((world.closed, world.feed_ends.len()), (0, 0), "a young lane is spared");
    world.pass(REPLICA_SPARED);
    world.give_back(0, Some(ClosedReason::ReadOnly));
    assert_eq!((world.closed, &world.feed_ends[..]), (1, &[ClosedReason::ReadOnly][..]));
    world.give_back(0, Some(ClosedReason::ReadOnly));
    assert_eq!(world.feed_ends.len(), 1, "that lane was evicted before");
    assert!(world.checkout(Way::Ordinary).is_none());
    let lane = world.dialled();
    world.evict(lane);
    assert_eq!(world.feed_ends.len(), 1, "one that does not answer says nothing about the feed");
}

/// The feed had the only connection that the server could spare, and every acquire failed for as long as it lived.
#[test]
fn a_feed_gives_way_to_the_last_lane_that_the_server_refuses() {
    for (kind, gives_way) in [
        (FaultKind::ClosedInHandshake, true),
        (FaultKind::MaxClients, true),
        (FaultKind::Connect, false),
        (FaultKind::Timeout, false),
    ] {
        let mut world = World::open(narrow(4, 1));
        assert!(world.feed());
        world.feed_dialled();
        world.checkout(Way::Ordinary);
        world.checkout(Way::Ordinary);
        world.dial_failed(kind);
        assert!(world.feed_ends.is_empty(), "there is a lane");
        world.breaks(world.slots.lanes[0].id);
        world.give_back(0, None);
        world.pass(Duration::from_secs(1));
        world.tick();
        world.dial_failed(kind);
        assert_eq!(world.feed_ends.len(), usize::from(gives_way), "{kind:?}");
        if gives_way {
            world.feed_ends();
            world.pass(Duration::from_secs(1));
            assert!(!world.feed(), "the place is the lane's");
            world.checkout(Way::Ordinary);
            world.dialled();
            assert_eq!(world.waiters.len(), 0);
        }
    }
}

/// The lane under way counted as one, and the feed could take the last connection of the server from it.
#[test]
fn a_feed_waits_for_the_only_lane_that_is_being_opened() {
    let mut world = World::open(narrow(2, 1));
    world.breaks(world.slots.lanes[0].id);
    world.checkout(Way::Ordinary);
    assert_eq!(world.dials.len(), 1);
    assert!(!world.feed());
    world.dialled();
    assert!(world.feed());
}

/// A pool with an open lane, and another that is kept.
fn keeping(config: PoolConfig) -> (World, LaneId, LaneId) {
    let mut world = World::open(config);
    let shared = world.slots.lanes[0].id;
    world.keep(true);
    assert_eq!((world.dials.len(), world.kept()), (1, None), "one lane is everybody's until there are two");
    let kept = world.dialled();
    assert_eq!(world.kept(), Some(kept));
    (world, shared, kept)
}

#[test]
fn what_is_urgent_never_waits_behind_what_is_not() {
    let (mut world, shared, kept) = keeping(narrow(3, 2));
    for lane in [Some(shared), Some(shared), None] {
        assert_eq!(world.checkout(Way::Ordinary), lane);
    }
    world.checkout(Way::Alone);
    assert_eq!((world.in_flight(kept), world.waiters.len(), world.dials.len()), (0, 2, 1));
    assert_eq!(world.checkout(Way::Urgent), Some(kept));
    world.keep(false);
    assert_eq!((world.in_flight(kept), world.kept()), (2, None), "whoever waited uses it at once");
}

#[test]
fn what_is_urgent_uses_any_lane_when_its_own_has_no_room() {
    let (mut world, shared, kept) = keeping(narrow(3, 2));
    for lane in [kept, kept, shared] {
        assert_eq!(world.checkout(Way::Urgent), Some(lane));
    }
    world.give_back(0, None);
    assert_eq!(world.checkout(Way::Urgent), Some(kept));
    world.give_back(1, None);
    world.pass(STALLED + MILLI);
    assert_eq!(world.checkout(Way::Urgent), Some(shared), "the oldest on the kept lane is slow");
}

#[test]
fn the_emptiest_of_busy_lanes_is_kept() {
    let busy = || {
        let mut world = World::open(narrow(3, 2));
        for _ in 0..5 {
            world.checkout(Way::Ordinary);
        }
        world.dialled();
        let third = world.dialled();
        (world, third)
    };
    let (mut world, third) = busy();
    world.keep(true);
    assert_eq!((world.kept(), world.dials.len()), (Some(third), 0));
    assert_eq!(world.checkout(Way::Ordinary), None);
    assert_eq!(world.checkout(Way::Urgent), Some(third), "beside what was there before");

    let (mut world, third) = busy();
    let first = world.slots.lanes[0].id;
    world.give_back(0, None);
    world.give_back(0, None);
    world.keep(true);
    assert_eq!((world.kept(), world.in_flight(third)), (Some(first), 1));
}

#[test]
fn a_stalled_lane_is_not_kept_beside_one_with_room() {
    let mut world = World::open(narrow(3, 3));
    for _ in 0..4 {
        world.checkout(Way::Ordinary);
    }
    let second = world.dialled();
    world.pass(STALLED + MILLI);
    world.give_back(3, None);
    for _ in 0..2 {
        assert_eq!(world.checkout(Way::Ordinary), Some(second));
        world.give_back(0, None);
    }
    world.keep(true);
    assert_eq!(
        (world.kept(), world.in_flight(second)),
        (Some(second), 2),
        "the other has one, but an old one"
    );
}

#[test]
fn a_kept_lane_that_is_lost_is_replaced() {
    let (mut world, shared, kept) = keeping(narrow(4, 1));
    world.breaks(kept);
    assert_eq!((world.state(shared), world.dials.len()), (None, 1), "the older lane goes with it");
    world.sockets_close();
    let shared = world.dialled();
    assert_eq!((world.kept(), world.dials.len()), (None, 1));
    let kept = world.dialled();
    assert_eq!(world.kept(), Some(kept));
    world.checkout(Way::Ordinary);
    world.evict(shared);
    assert_eq!((world.kept(), world.dials.len()), (Some(kept), 0), "it goes on by itself");
    assert_eq!(world.checkout(Way::Ordinary), None);
    assert_eq!(world.dials.len(), 1);
    world.dialled();
    assert!(world.waiters.is_empty());
}

/// Each 250 ms it was dialled with a wrong password, by every process that had guards.
#[test]
fn what_an_operator_has_to_mend_is_not_tried_for_the_kept_lane_nor_a_feed() {
    let (mut world, _, kept) = keeping(narrow(4, 1));
    world.breaks(kept);
    world.sockets_close();
    world.fails(0, FaultKind::Auth);
    world.sockets_close();
    for _ in 0..29 {
        world.pass(Duration::from_secs(1));
        world.tick();
        assert_eq!((world.dials.len(), world.feed()), (0, false));
    }
    world.checkout(Way::Ordinary);
    assert_eq!(world.dials.len(), 1, "a call that has no lane is let to try");
    world.fails(0, FaultKind::Auth);
    world.sockets_close();
    assert!(world.waiters.is_empty(), "and is told");
    world.pass(Duration::from_secs(30));
    world.tick();
    assert_eq!(world.dials.len(), 1, "the pause is over");
    world.dialled();
    assert_eq!(world.dials.len(), 1, "it was mended: there are two again");
}

#[test]
fn whoever_can_have_no_other_lane_uses_the_kept_one() {
    let (mut world, shared, kept) = keeping(narrow(3, 1));
    world.breaks(shared);
    assert_eq!(world.checkout(Way::Ordinary), None, "another can be opened");
    world.dial_failed(FaultKind::Connect);
    assert_eq!((world.in_flight(kept), world.kept()), (1, None));
    world.pass(Duration::from_millis(250));
    world.tick();
    let other = world.dialled();
    assert_eq!(world.kept(), Some(other), "the emptier of the two");
}

#[test]
fn a_kept_lane_is_not_closed_for_being_idle_but_tested() {
    let (mut world, shared, kept) = keeping(narrow(4, 1));
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    let third = world.dialled();
    world.pass(world.config.idle_timeout);
    world.tick();
    assert_eq!((world.closed, &world.tests[..]), (0, &[kept][..]));
    world.tested(0, true);
    world.give_back(1, None);
    world.give_back(0, None);
    world.pass(world.config.idle_timeout);
    world.tick();
    assert_eq!((world.state(third), world.closed), (None, 1), "of the others one stays");
    assert_eq!(world.tests, [shared, kept]);
    assert_eq!(world.checkout(Way::Urgent), None);
    world.tested(1, true);
    assert_eq!((world.kept(), world.in_flight(kept)), (Some(kept), 1));
    world.tested(0, true);
    world.give_back(0, None);
    world.keep(false);
    world.pass(world.config.idle_timeout);
    world.tick();
    assert_eq!((world.closed, world.slots.lanes.len()), (2, 1));
}

/// One would be kept, the other taken by the feed, and nothing left for an acquire.
#[test]
fn of_two_connections_none_is_kept() {
    let mut world = World::open(narrow(2, 1));
    world.keep(true);
    assert_eq!(world.dials.len(), 0);
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    world.dialled();
    assert_eq!((world.kept(), world.waiters.len()), (None, 0));
    world.give_back(0, None);
    assert!(!world.feed());
    world.sockets_close();
    assert!(world.feed(), "the idle one made room");
    world.feed_dialled();
    assert_eq!((world.dials.len(), world.slots.places), (0, 2));
}

#[test]
fn of_three_connections_one_is_kept_and_one_may_be_a_feed() {
    let (mut world, shared, kept) = keeping(narrow(3, 1));
    assert!(world.feed());
    world.feed_dialled();
    assert_eq!(world.checkout(Way::Ordinary), Some(shared));
    assert_eq!(world.checkout(Way::Ordinary), None);
    assert_eq!(world.checkout(Way::Urgent), Some(kept));

    let (mut world, shared, kept) = keeping(narrow(3, 1));
    world.checkout(Way::Ordinary);
    world.checkout(Way::Ordinary);
    let third = world.dialled();
    assert!(!world.feed());
    assert_eq!(world.closed, 0, "the kept lane makes no room");
    world.give_back(0, None);
    assert!(!world.feed());
    assert_eq!((world.state(shared), world.kept()), (None, Some(kept)));
    world.sockets_close();
    assert!(world.feed());
    assert_eq!(world.in_flight(third), 1);
}

/// The server spares two connections: the feed comes before a lane that only saves a wait.
#[test]
fn a_kept_lane_gives_way_where_the_server_spares_no_third() {
    let (mut world, _, kept) = keeping(narrow(8, 1));
    assert!(world.feed());
    world.feed_failed(FaultKind::MaxClients);
    assert_eq!((world.slots.growth.limit, world.kept()), (2, None));
    assert!(!world.feed());
    assert_eq!(world.state(kept), Some(State::Open), "the other one made room");
    world.sockets_close();
    world.pass(Duration::from_secs(1));
    assert!(world.feed());
}

/// The pages of a list would keep acquires waiting where the only other lane carries them.
#[test]
fn a_list_takes_the_shared_lane_and_leaves_the_kept_one_to_all() {
    let (mut world, shared, kept) = keeping(narrow(3, 1));
    assert!(world.feed());
    world.feed_dialled();
    assert_eq!(world.checkout(Way::Alone), Some(shared));
    assert_eq!(world.checkout(Way::Ordinary), Some(kept));
    world.give_back(0, None);
    assert_eq!(world.kept(), Some(shared), "the emptier one is kept from then on");
}

#[derive(Debug, Clone)]
enum Step {
    Checkout(Way),
    Leave(usize),
    GiveBack(usize, Option<ClosedReason>),
    Evict(usize),
    Breaks(usize),
    Dialled(usize),
    DialFailed(usize, FaultKind),
    SocketsClose,
    Tested(usize, bool),
    Tick,
    Pass(Duration),
    Keep(bool),
    Feed,
    HurryFeed,
    FeedDialled,
    FeedFailed(FaultKind),
    FeedEnds,
}

fn step() -> impl Strategy<Value = Step> {
    let way = prop_oneof![5 => Just(Way::Ordinary), 3 => Just(Way::Urgent), 1 => Just(Way::Alone)];
    let reason = prop_oneof![
        6 => Just(None),
        1 => Just(Some(ClosedReason::Disconnected)),
        1 => Just(Some(ClosedReason::ReadOnly)),
    ];
    let kind = prop::sample::select(vec![
        FaultKind::Connect,
        FaultKind::Timeout,
        FaultKind::ClosedInHandshake,
        FaultKind::MaxClients,
    ]);
    let time = prop_oneof![4 => 0..50_u64, 2 => 200..1100_u64, 1 => 1000..70_000_u64];
    prop_oneof![
        12 => way.prop_map(Step::Checkout),
        2 => any::<usize>().prop_map(Step::Leave),
        8 => (any::<usize>(), reason).prop_map(|(place, reason)| Step::GiveBack(place, reason)),
        1 => any::<usize>().prop_map(Step::Evict),
        2 => any::<usize>().prop_map(Step::Breaks),
        5 => any::<usize>().prop_map(Step::Dialled),
        1 => (any::<usize>(), kind.clone()).prop_map(|(place, kind)| Step::DialFailed(place, kind)),
        2 => prop::bool::weighted(0.7).prop_map(Step::Keep),
        2 => Just(Step::Feed),
        1 => Just(Step::HurryFeed),
        2 => Just(Step::FeedDialled),
        1 => kind.prop_map(Step::FeedFailed),
        1 => Just(Step::FeedEnds),
        4 => Just(Step::SocketsClose),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(place, passed)| Step::Tested(place, passed)),
        3 => Just(Step::Tick),
        4 => time.prop_map(|millis| Step::Pass(Duration::from_millis(millis))),
    ]
}

fn take_step(world: &mut World, step: Step) {
    let pick = |length: usize, place: usize| (length > 0).then(|| place % length);
    match step {
        Step::Checkout(way) => drop(world.checkout(way)),
        Step::Leave(place) => {
            if let Some(place) = pick(world.waiters.len(), place) {
                world.leave(place);
            }
        }
        Step::GiveBack(place, reason) => {
            if let Some(place) = pick(world.operations.len(), place) {
                world.give_back(place, reason);
            }
        }
        Step::Evict(place) => {
            if let Some(place) = pick(world.slots.lanes.len(), place) {
                world.evict(world.slots.lanes[place].id);
            }
        }
        Step::Breaks(place) => {
            if let Some(place) = pick(world.slots.lanes.len(), place) {
                world.breaks(world.slots.lanes[place].id);
            }
        }
        Step::Dialled(place) => {
            if let Some(place) = pick(world.dials.len(), place) {
                world.succeeds(place);
            }
        }
        Step::DialFailed(place, kind) => {
            if let Some(place) = pick(world.dials.len(), place) {
                world.fails(place, kind);
            }
        }
        Step::Keep(is_wanted) => world.keep(is_wanted),
        Step::Feed => drop(world.feed()),
        Step::HurryFeed => drop(world.hurry_feed()),
        Step::FeedDialled if !world.feed_dials.is_empty() => world.feed_dialled(),
        Step::FeedFailed(kind) if !world.feed_dials.is_empty() => world.feed_failed(kind),
        Step::FeedEnds if world.feeds > 0 => world.feed_ends(),
        Step::FeedDialled | Step::FeedFailed(_) | Step::FeedEnds => {}
        Step::SocketsClose => world.sockets_close(),
        Step::Tested(place, passed) => {
            if let Some(place) = pick(world.tests.len(), place) {
                world.tested(place, passed);
            }
        }
        Step::Tick => world.tick(),
        // Not checked here: what passes with time alone is noticed at the next step.
        Step::Pass(time) => world.pass(time),
    }
}

/// All goes well for as long as it takes.
fn calm_down(world: &mut World) {
    for _ in 0..500 {
        world.sockets_close();
        while !world.dials.is_empty() {
            world.dialled();
        }
        while !world.feed_dials.is_empty() {
            world.feed_dialled();
        }
        while !world.tests.is_empty() {
            world.tested(0, true);
        }
        if !world.operations.is_empty() {
            world.give_back(0, None);
        }
        world.pass(Duration::from_millis(500));
        world.tick();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_breaks_the_slots(
        max_connections in 1..6_u32,
        depth in 1..4_u32,
        max_waiters in 0..8_u32,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut world = World::open(PoolConfig { max_waiters, ..narrow(max_connections, depth) });
        for step in steps {
            take_step(&mut world, step);
        }
        calm_down(&mut world);
        prop_assert_eq!(world.slots.places, world.slots.census(world.now).open + world.feeds);
        let census = world.slots.census(world.now);
        prop_assert!(world.waiters.is_empty(), "everyone is served, refused or left");
        prop_assert_eq!((census.in_flight, census.waiting, census.dialling, census.draining), (0, 0, 0, 0));
        let kept = u32::from(world.kept().is_some());
        prop_assert!(census.open <= 1 + kept, "{} lanes stay open without work", census.open);
        let has_places = max_connections >= 3 && world.feeds + 2 <= max_connections;
        prop_assert!(kept == 1 || !world.slots.kept.is_wanted || !has_places, "no lane is kept");
        prop_assert!(world.slots.lanes.iter().all(|lane| matches!(lane.state, State::Open | State::Testing)));
        // And it works again.
        if world.checkout(Way::Ordinary).is_none() && max_waiters > 0 {
            calm_down(&mut world);
            prop_assert!(world.waiters.is_empty());
        }
    }
}

//! [`Line`]: those who wait for one tag, and where they stand with the store. Pure: `now` is passed in.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{Errand, HandOverEnd, Settled, Waiting};

/// How often a process hands the lock on within itself before another process gets it.
const HAND_OVERS_IN_A_TURN: u32 = 16;
/// How long it may do so.
const LONGEST_TURN: Duration = Duration::from_millis(200);

struct Waiter<W: Waiting> {
    id: u64,
    ask: Arc<W::Ask>,
    until: Instant,
    /// Whoever asked sees to what it is granted, also when it has gone away.
    is_callers: bool,
    answer: oneshot::Sender<W::Answer>,
}

/// How long this process has had the lock to itself.
pub(super) struct Turn {
    hand_overs: u32,
    since: Instant,
}

impl Turn {
    fn new(now: Instant) -> Self {
        Self { hand_overs: 0, since: now }
    }

    /// Of a process that was granted nothing from the store's queue.
    fn none(now: Instant) -> Self {
        Self { hand_overs: HAND_OVERS_IN_A_TURN, since: now }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.hand_overs >= HAND_OVERS_IN_A_TURN || now.saturating_duration_since(self.since) >= LONGEST_TURN
    }
}

/// One for whom the store's queue may stand, and who may therefore have been granted the lock.
struct Place<W: Waiting> {
    id: u64,
    ask: Arc<W::Ask>,
    is_callers: bool,
    /// A call for it was lost, and may still be carried out before this.
    lost: Option<Instant>,
    /// Set when its time was over: it waits to hear whether it was granted the lock. Dropped, it hears that it was not.
    retired: Option<Waiter<W>>,
}

impl<W: Waiting> Place<W> {
    fn of(waiter: &Waiter<W>) -> Self {
        let Waiter { id, ask, is_callers, .. } = waiter;
        Self { id: *id, ask: ask.clone(), is_callers: *is_callers, lost: None, retired: None }
    }

    /// Until when a lost call for it may still be carried out, if it may.
    fn lost_until(&self, now: Instant) -> Option<Instant> {
        self.lost.filter(|until| *until > now)
    }
}

/// The one call of the line that is under way.
enum Call<W: Waiting> {
    None,
    /// The keeper looks for this one.
    Look(Place<W>),
    /// The keeper leaves the store's queue.
    Leave,
    /// A release hands the lock on to this one; it is lost where nothing is heard of it by `until`.
    HandOver {
        number: u64,
        head: Waiter<W>,
        until: Instant,
    },
}

/// What a keeper is to do.
pub(crate) enum Step<W: Waiting> {
    /// Ask the store for the head. `before` is for whom its queue stands, if that is another.
    Look { ask: Arc<W::Ask>, before: Option<Before<W>> },
    /// Nobody else waits: leave the store's queue, which stands for this one.
    Leave(Before<W>),
    /// Nothing until then, unless the bell rings.
    Rest(Instant),
    /// The line is closed; nobody waits.
    Close,
}

/// For whom the store's queue stands although it is not the head.
pub(crate) struct Before<W: Waiting> {
    pub(crate) ask: Arc<W::Ask>,
    /// Whether it still wants the lock, should it have been granted it; otherwise it has gone away.
    pub(crate) is_here: bool,
}

pub(super) struct Line<W: Waiting> {
    /// In the order in which they came, which is that of their ids.
    waiters: VecDeque<Waiter<W>>,
    /// None, or one; two after a call was lost, of which the younger is the one for whom it was made.
    places: VecDeque<Place<W>>,
    call: Call<W>,
    /// When the keeper is to look although nobody calls it.
    look_at: Instant,
    /// It was called to look since its last look began: what that finds may be older.
    is_called: bool,
    /// Not before then is the store asked anything: it did not answer.
    pause: Option<Instant>,
    /// Until when the keeper rests unless the bell rings.
    rests: Option<Instant>,
    /// Counts the hand-overs: one that was given up as lost may end later.
    hand_overs: u64,
    /// What is to be done outside.
    errands: Vec<Errand<W>>,
    pub(super) turn: Turn,
    pub(super) sight: Option<W::Sight>,
    pub(super) bell: Arc<Notify>,
}

impl<W: Waiting> Line<W> {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            waiters: VecDeque::new(),
            places: VecDeque::new(),
            call: Call::None,
            look_at: now,
            is_called: false,
            pause: None,
            rests: None,
            hand_overs: 0,
            errands: Vec::new(),
            turn: Turn::none(now),
            sight: None,
            bell: Arc::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len() + usize::from(matches!(self.call, Call::HandOver { .. }))
    }

    /// What is to be done outside since this was asked last.
    pub(super) fn take_errands(&mut self) -> Vec<Errand<W>> {
        mem::take(&mut self.errands)
    }

    pub(super) fn join(
        &mut self,
        id: u64,
        ask: Arc<W::Ask>,
        until: Instant,
        is_callers: bool,
        answer: oneshot::Sender<W::Answer>,
    ) {
        self.waiters.push_back(Waiter { id, ask, until, is_callers, answer });
        if self.waiters.len() == 1 {
            // Nobody has looked on behalf of it.
            self.look_now();
        }
    }

    /// Whether the waiter is out of the line, and the store has never heard of it.
    pub(super) fn withdraw(&mut self, id: u64) -> bool {
        let in_a_call = match &self.call {
            Call::Look(place) => place.id == id,
            Call::HandOver { head, .. } => head.id == id,
            Call::None | Call::Leave => false,
        };
        if in_a_call || self.places.iter().any(|place| place.id == id) {
            self.bell.notify_one();
            return false;
        }
        self.remove(id).is_some()
    }

    /// Whoever asked sees to what the waiter is granted from now on.
    pub(super) fn leave_to_caller(&mut self, id: u64) {
        match &mut self.call {
            Call::Look(place) if place.id == id => place.is_callers = true,
            Call::HandOver { head, .. } if head.id == id => head.is_callers = true,
            _ => {}
        }
        for place in self.places.iter_mut().filter(|place| place.id == id) {
            place.is_callers = true;
            place.retired.iter_mut().for_each(|waiter| waiter.is_callers = true);
        }
        if let Ok(place) = self.position(id) {
            self.waiters[place].is_callers = true;
        }
    }

    /// The waiter has gone away. What the store knows of it is cleared up by the keeper.
    pub(super) fn cancel(&mut self, id: u64) {
        self.remove(id);
        self.bell.notify_one();
    }

    fn position(&self, id: u64) -> Result<usize, usize> {
        self.waiters.binary_search_by_key(&id, |waiter| waiter.id)
    }

    fn remove(&mut self, id: u64) -> Option<Waiter<W>> {
        self.position(id).ok().and_then(|place| self.waiters.remove(place))
    }

    /// The number of a hand-over that is over by `until`, and the ask of the one to whom it hands the lock on.
    pub(super) fn take_head(&mut self, until: Instant) -> Option<(u64, Arc<W::Ask>)> {
        if !matches!(self.call, Call::None) || self.places.len() > 1 {
            return None;
        }
        let head = self.waiters.pop_front()?;
        self.hand_overs += 1;
        let (number, ask) = (self.hand_overs, head.ask.clone());
        self.call = Call::HandOver { number, head, until };
        Some((number, ask))
    }

    /// Ends a hand-over, unless it was given up as lost.
    pub(super) fn end_hand_over(
        &mut self,
        number: u64,
        handed: HandOverEnd<W>,
        others_first: bool,
        now: Instant,
    ) {
        let (head, until) = match mem::replace(&mut self.call, Call::None) {
            Call::HandOver { number: known, head, until } if known == number => (head, until),
            other => return self.call = other,
        };
        match handed {
            HandOverEnd::Granted { answer, sight, again } => {
                // The script has taken this process out of the store's queue.
                self.places.retain(|place| place.id != head.id);
                let others = self.places.drain(..).collect();
                self.let_go(others, now);
                self.sight = Some(sight);
                if others_first {
                    self.turn = Turn::new(now);
                } else {
                    self.turn.hand_overs += 1;
                }
                // The holder is of this process and hands on; else the keeper looks.
                self.look_at = now + again;
                if self.waiters.is_empty() || self.rests.is_some_and(|rests| self.look_at < rests) {
                    self.bell.notify_one();
                }
                return self.answer(head, answer);
            }
            HandOverEnd::Passed { sight, again } => {
                self.stands_for(Place::of(&head), now);
                self.sight = Some(sight);
                self.look_at = now + again;
            }
            HandOverEnd::Nothing => self.look_at = now,
            HandOverEnd::Ambiguous => {
                self.may_stand_for(Place { lost: Some(until), ..Place::of(&head) });
                self.look_at = now;
            }
        }
        self.waiters.push_front(head);
        self.bell.notify_one();
    }

    pub(super) fn look_now(&mut self) {
        self.is_called = true;
        self.pause = None;
        self.bell.notify_one();
    }

    pub(super) fn step(&mut self, now: Instant) -> Step<W> {
        let step = self.next_step(now);
        self.rests = match step {
            Step::Rest(until) => Some(until),
            _ => None,
        };
        step
    }

    fn next_step(&mut self, now: Instant) -> Step<W> {
        match &self.call {
            // Whoever released does not ask what became of it: its future is kept, and not polled.
            Call::HandOver { number, until, .. } if *until <= now => {
                self.end_hand_over(*number, HandOverEnd::Ambiguous, false, now);
            }
            Call::HandOver { until, .. } => return Step::Rest(*until),
            _ => {}
        }
        if let Some(pause) = self.pause.filter(|&pause| now < pause) {
            return Step::Rest(pause);
        }
        self.pass_over(now);
        if let Some(lost) = self.places.get(1)
            && lost.is_callers
            && lost.retired.is_none()
            && self.position(lost.id).is_err()
        {
            // Whoever sees to it by himself is not looked for: a look would get him the lock.
            self.places.truncate(1);
        }
        let head = self.waiters.front();
        // A lost call comes first: until it is known what became of it, two may have been granted the lock.
        let looked = match (self.places.get(1), head) {
            (Some(lost), _) => {
                let Place { id, ask, is_callers, lost, .. } = lost;
                Place { id: *id, ask: ask.clone(), is_callers: *is_callers, lost: *lost, retired: None }
            }
            (None, Some(head)) => Place::of(head),
            (None, None) => {
                let Some(before) = self.before(None) else { return Step::Close };
                self.call = Call::Leave;
                return Step::Leave(before);
            }
        };
        let before = self.before(Some(looked.id));
        if let Some(head) = head
            && before.is_none()
            && !self.is_called
            && now < self.look_at
        {
            return Step::Rest(self.look_at.min(head.until));
        }
        self.is_called = false;
        let ask = looked.ask.clone();
        self.call = Call::Look(looked);
        Step::Look { ask, before }
    }

    /// Whom the store's queue stands for, if that is another than the one who is looked for.
    fn before(&self, looked: Option<u64>) -> Option<Before<W>> {
        let place = self.places.front().filter(|place| Some(place.id) != looked)?;
        let is_here = place.retired.as_ref().is_some_and(|waiter| !waiter.answer.is_closed());
        Some(Before { ask: place.ask.clone(), is_here })
    }

    /// A head whose time is over makes way for the next. Where the store may have granted it the lock, it waits to hear of that.
    fn pass_over(&mut self, now: Instant) {
        while let Some(head) = self.pop_head(|head| head.until <= now) {
            if let Some(place) = self.places.iter_mut().find(|place| place.id == head.id) {
                place.retired = Some(head);
            }
        }
    }

    /// Ends the keeper's call.
    pub(super) fn settle(&mut self, settled: Settled<W>, now: Instant) {
        let looked = match mem::replace(&mut self.call, Call::None) {
            Call::Look(place) => Some(place),
            Call::Leave => None,
            other => return self.call = other,
        };
        self.pause = None;
        match settled {
            Settled::Granted { answer, sight, again } => {
                self.sight = Some(sight);
                self.turn = Turn::new(now);
                self.look_at = now + again;
                let Some(looked) = looked else { return };
                let granted = self.take_out(looked.id);
                self.places.retain(|place| place.id != looked.id);
                let others = self.places.drain(..).collect();
                self.let_go(others, now);
                match granted {
                    Some(waiter) => self.answer(waiter, answer),
                    None => self.leave_behind(looked, answer),
                }
            }
            Settled::BeforeGranted(answer) => {
                self.look_at = now;
                let Some(mut place) = self.places.pop_front() else { return };
                match place.retired.take() {
                    Some(waiter) => self.answer(waiter, answer),
                    None => self.leave_behind(place, answer),
                }
            }
            Settled::Refused { answer, again } => {
                self.look_at = now;
                let Some(looked) = looked else { return };
                if self.places.iter().any(|place| place.id == looked.id && place.lost_until(now).is_some()) {
                    // It may have what it is refused now.
                    self.pause = Some(now + again);
                    return;
                }
                if let Some(refused) = self.take_out(looked.id) {
                    self.answer(refused, answer);
                }
                // The queue stands for the elder as before; what was lost for the younger cannot arrive any more.
                self.places.truncate(1);
            }
            Settled::Waits { sight, again } => {
                self.sight = Some(sight);
                self.look_at = now + again;
                if let Some(looked) = looked {
                    self.stands_for(looked, now);
                }
            }
            Settled::NotYet { again } => {
                // What stood in the way is gone.
                self.sight = None;
                self.look_at = now + again;
                if let Some(looked) = looked {
                    self.stands_for_nobody_but_lost(looked.id, now);
                }
            }
            Settled::Left => {
                let places = self.places.drain(..).collect();
                self.let_go(places, now);
            }
            Settled::Ambiguous { again, until } => {
                self.pause = Some(now + again);
                self.look_at = now;
                match looked {
                    Some(looked) => self.may_stand_for(Place { lost: Some(until), ..looked }),
                    // Who waits next needs no place of another's. This one runs out by itself.
                    None => {
                        let lost = |place| Place { lost: Some(until), ..place };
                        let places = self.places.drain(..).map(lost).collect();
                        self.let_go(places, now);
                    }
                }
                self.tell_retired();
            }
        }
    }

    /// From now on the store's queue stands for this one alone.
    fn stands_for(&mut self, place: Place<W>, now: Instant) {
        let (own, others): (Vec<_>, _) = self.places.drain(..).partition(|known| known.id == place.id);
        self.let_go(others, now);
        self.places.push_back(own.into_iter().next().unwrap_or(place));
    }

    /// The store's queue stands for nobody; a lost call for the one who was looked for may still arrive.
    fn stands_for_nobody_but_lost(&mut self, looked: u64, now: Instant) {
        let is_lost = |place: &Place<W>| place.id == looked && place.lost_until(now).is_some();
        let (lost, others): (Vec<_>, _) = self.places.drain(..).partition(is_lost);
        self.let_go(others, now);
        self.places.extend(lost);
    }

    fn may_stand_for(&mut self, place: Place<W>) {
        match self.places.iter_mut().find(|known| known.id == place.id) {
            Some(known) => known.lost = known.lost.max(place.lost),
            None => self.places.push_back(place),
        }
    }

    /// The store's queue does not stand for these any more, but calls that were lost may still get them the lock.
    fn let_go(&mut self, places: Vec<Place<W>>, now: Instant) {
        for place in places {
            let Some(until) = place.lost_until(now) else { continue };
            match place.retired {
                Some(waiter) => self.answer(waiter, W::ambiguous(&place.ask)),
                None if place.is_callers => {}
                None => self.errands.push(Errand::Abandoned { ask: place.ask, until }),
            }
        }
    }

    /// Those whose time is over hear that nobody knows. Whoever hears it sees to what it may have been granted.
    fn tell_retired(&mut self) {
        for place in &mut self.places {
            if let Some(waiter) = place.retired.take() {
                place.is_callers |= waiter.answer.send(W::ambiguous(&place.ask)).is_ok();
            }
        }
    }

    /// Answers a waiter; an answer that nobody takes is left behind.
    fn answer(&mut self, waiter: Waiter<W>, answer: W::Answer) {
        let Waiter { ask, is_callers, answer: sender, .. } = waiter;
        if let Err(answer) = sender.send(answer)
            && !is_callers
        {
            self.errands.push(Errand::Stray { ask, answer });
        }
    }

    /// Whoever was to have this has gone away.
    fn leave_behind(&mut self, place: Place<W>, answer: W::Answer) {
        if !place.is_callers {
            self.errands.push(Errand::Stray { ask: place.ask, answer });
        }
    }

    /// Takes a waiter out of the line whose head it is, or who has retired from it.
    fn take_out(&mut self, id: u64) -> Option<Waiter<W>> {
        let retired =
            self.places.iter_mut().find(|place| place.id == id).and_then(|place| place.retired.take());
        retired.or_else(|| self.pop_head(|head| head.id == id))
    }

    fn pop_head(&mut self, is_meant: impl FnOnce(&Waiter<W>) -> bool) -> Option<Waiter<W>> {
        if self.waiters.front().is_some_and(is_meant) { self.waiters.pop_front() } else { None }
    }
}

//! [`Lines`]: who waits in this process, a line for each tag.
//!
//! First come, first served. Of a line the head alone is known to the store, and at any moment at most one call of a line is
//! under way: a look of its keeper (`waiters`), or a release that hands the lock on to the head. So no two of them can
//! disagree about what the head was granted.
//!
//! # What it promises
//! - Whoever has joined is answered, or withdraws, or goes away; nobody is passed over.
//! - A grant whose waiter has gone away comes back as an errand ([`Errand::Stray`]) and is handed on; and so does what a lost
//!   call may still be granted ([`Errand::Abandoned`]). But whoever was told that nobody knows sees to it himself.
//! - A waiter whose time is over withdraws at once, unless the store may have granted it the lock: then it waits for the keeper to
//!   find out.
//!
//! Pure but for the lock around it, and for the clock that the end of a hand-over reads: what is asked for and what is answered are its users' affair ([`Waiting`]), so that a model
//! checker can try all ways through it (`tests/lines.rs`).

mod line;

use std::{collections::HashMap, hash::Hash, mem, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use self::line::Line;
pub(crate) use self::line::{Before, Step};
use crate::sync::{Mutex, MutexGuard};

/// What lines are made of.
pub(crate) trait Waiting {
    /// What is waited for.
    type Key: Clone + Eq + Hash;
    /// What a waiter asks for.
    type Ask;
    /// What a waiter is answered.
    type Answer;
    /// What was last seen to stand in the way.
    type Sight: Clone;

    /// What a waiter is answered when nobody knows whether the store has granted it the lock, or will.
    fn ambiguous(ask: &Self::Ask) -> Self::Answer;
}

/// What a line cannot do by itself.
pub(crate) enum Errand<W: Waiting> {
    /// A line was opened and wants its keeper.
    Opened(W::Key),
    /// This answer's waiter has gone away.
    Stray { ask: Arc<W::Ask>, answer: W::Answer },
    /// Who asked for this has gone away, and nobody knows whether it was granted, or will be.
    Abandoned {
        ask: Arc<W::Ask>,
        /// From then on it is granted nothing.
        until: Instant,
    },
}

pub(crate) struct Lines<W: Waiting> {
    open: Mutex<Open<W>>,
    /// How many may wait in one line.
    longest: usize,
    errands: mpsc::UnboundedSender<Errand<W>>,
}

struct Open<W: Waiting> {
    lines: HashMap<W::Key, Line<W>>,
    /// Of the last who joined any line: whoever leaves late must not be taken for another.
    last_id: u64,
}

/// The line is as long as it may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl<W: Waiting> Lines<W> {
    pub(crate) fn new(longest: usize) -> (Self, mpsc::UnboundedReceiver<Errand<W>>) {
        let (errands, receiver) = mpsc::unbounded_channel();
        (Self { open: Mutex::new(Open { lines: HashMap::new(), last_id: 0 }), longest, errands }, receiver)
    }

    /// Takes the last place in a line, which is opened where nobody waits yet. `sight` is what stood in the way. Whoever
    /// `is_callers` sees by itself to what it is granted, also after it has gone away.
    ///
    /// # Errors
    /// [`Full`] — as many wait as may.
    pub(crate) fn join(
        &self,
        key: &W::Key,
        ask: Arc<W::Ask>,
        is_callers: bool,
        sight: Option<W::Sight>,
        until: Instant,
        now: Instant,
    ) -> Result<Seat<'_, W>, Full> {
        let (answer, receiver) = oneshot::channel();
        let mut open = self.lock();
        let Open { lines, last_id } = &mut *open;
        let line = match lines.get_mut(key) {
            Some(line) => line,
            None if self.longest == 0 => return Err(Full),
            None => {
                // Where the keeper is gone, so is the process.
                let _ = self.errands.send(Errand::Opened(key.clone()));
                lines.entry(key.clone()).or_insert_with(|| Line::new(now))
            }
        };
        if line.len() >= self.longest {
            return Err(Full);
        }
        *last_id += 1;
        line.join(*last_id, ask.clone(), until, is_callers, answer);
        if sight.is_some() {
            line.sight = sight;
        }
        Ok(Seat { lines: self, key: key.clone(), id: *last_id, ask, is_callers, answer: receiver })
    }

    /// Takes the head of a line in hand, to hand the lock on to it; that counts as lost after `until`. None where nobody waits,
    /// where another call of the line is under way, or where it is not known yet what became of a lost one: then the keeper will
    /// look.
    pub(crate) fn take_head(&self, key: &W::Key, until: Instant, now: Instant) -> Option<HandOver<'_, W>> {
        let mut open = self.lock();
        let line = open.lines.get_mut(key)?;
        let (number, ask) = line.take_head(until)?;
        let others_first = line.turn.is_over(now);
        Some(HandOver { lines: self, key: key.clone(), number, ask, others_first, is_settled: false })
    }

    /// What the keeper of a line is to do now.
    pub(crate) fn step(&self, key: &W::Key, now: Instant) -> Step<W> {
        let mut open = self.lock();
        let Some(line) = open.lines.get_mut(key) else { return Step::Close };
        let step = line.step(now);
        self.send(line.take_errands());
        if matches!(step, Step::Close) {
            open.lines.remove(key);
        }
        step
    }

    /// Ends the keeper's call, by what it found.
    pub(crate) fn settle(&self, key: &W::Key, settled: Settled<W>, now: Instant) {
        if let Some(line) = self.lock().lines.get_mut(key) {
            line.settle(settled, now);
            self.send(line.take_errands());
        }
    }

    /// What wakes the keeper of a line.
    pub(crate) fn bell(&self, key: &W::Key) -> Option<Arc<Notify>> {
        self.lock().lines.get(key).map(|line| line.bell.clone())
    }

    /// The keeper of a line is to look now: the first of this process in the store's queue was granted the lock, or it is free.
    pub(crate) fn look_now(&self, key: &W::Key) {
        if let Some(line) = self.lock().lines.get_mut(key) {
            line.look_now();
        }
    }

    /// Something may have been missed: every line is to look again.
    pub(crate) fn look_again(&self) {
        self.lock().lines.values_mut().for_each(Line::look_now);
    }

    /// Whether anybody waits in this process.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().lines.is_empty()
    }

    /// Whether there is a line for `key`: whoever comes now comes after those.
    pub(crate) fn is_open(&self, key: &W::Key) -> bool {
        self.lock().lines.contains_key(key)
    }

    /// What was last seen to stand in the way of a line.
    pub(crate) fn sight(&self, key: &W::Key) -> Option<W::Sight> {
        self.lock().lines.get(key).and_then(|line| line.sight.clone())
    }

    /// How many wait, in all lines.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().lines.values().map(Line::len).sum()
    }

    fn send(&self, errands: impl IntoIterator<Item = Errand<W>>) {
        // Where nobody sees to them any more, the process has ended.
        errands.into_iter().for_each(|errand| drop(self.errands.send(errand)));
    }

    /// Held for a few lines, and never while anything is awaited or called.
    fn lock(&self) -> MutexGuard<'_, Open<W>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<W: Waiting> std::fmt::Debug for Lines<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// What a keeper's call found.
pub(crate) enum Settled<W: Waiting> {
    /// The head has it. Look again after `again`, for those behind it.
    Granted { answer: W::Answer, sight: W::Sight, again: Duration },
    /// The head will not get it; the store's queue is as it was. Where the head may have it by a call that was lost, look again
    /// after `again`.
    Refused { answer: W::Answer, again: Duration },
    /// The one for which the store's queue stood before has it.
    BeforeGranted(W::Answer),
    /// The store's queue stands for the head. Look again after `again`.
    Waits { sight: W::Sight, again: Duration },
    /// Nobody of this process is in the store's queue, which is not open yet. Look again after `again`.
    NotYet { again: Duration },
    /// Nobody of this process is in the store's queue.
    Left,
    /// Nobody knows: look again after `again`. It may still be carried out before `until`.
    Ambiguous { again: Duration, until: Instant },
}

/// A place in a line. Dropped, it is given up; a grant that nobody has fetched is handed on, unless it is claimed.
pub(crate) struct Seat<'a, W: Waiting> {
    lines: &'a Lines<W>,
    key: W::Key,
    id: u64,
    ask: Arc<W::Ask>,
    is_callers: bool,
    answer: oneshot::Receiver<W::Answer>,
}

impl<W: Waiting> Seat<'_, W> {
    /// The answer, when it comes. None: the time is over, and the store has not granted the lock.
    pub(crate) async fn answer(&mut self) -> Option<W::Answer> {
        (&mut self.answer).await.ok()
    }

    /// Gives the place up, and says whether it could: not where the store may have granted the lock, of which an answer tells. It
    /// is there already where the line is closed.
    pub(crate) fn withdraw(&mut self) -> bool {
        self.lines.lock().lines.get_mut(&self.key).is_some_and(|line| line.withdraw(self.id))
    }

    /// Whoever asked sees by itself to what it may be granted from now on.
    pub(crate) fn leave_to_caller(&mut self) {
        self.is_callers = true;
        if let Some(line) = self.lines.lock().lines.get_mut(&self.key) {
            line.leave_to_caller(self.id);
        }
    }
}

impl<W: Waiting> Drop for Seat<'_, W> {
    fn drop(&mut self) {
        // From here on an answer cannot be sent; one that was sent before is here.
        self.answer.close();
        if let Ok(answer) = self.answer.try_recv() {
            if !self.is_callers {
                self.lines.send([Errand::Stray { ask: self.ask.clone(), answer }]);
            }
        } else if let Some(line) = self.lines.lock().lines.get_mut(&self.key) {
            line.cancel(self.id);
        }
    }
}

/// The head of a line, while a release hands the lock on to it. Dropped, nobody knows what became of that, and the keeper looks.
pub(crate) struct HandOver<'a, W: Waiting> {
    lines: &'a Lines<W>,
    key: W::Key,
    number: u64,
    pub(crate) ask: Arc<W::Ask>,
    /// This process has had its turn: where others wait, they come first.
    pub(crate) others_first: bool,
    is_settled: bool,
}

/// What became of a hand-over.
pub(crate) enum HandOverEnd<W: Waiting> {
    /// The head has it. Look again after `again`, for those behind it.
    Granted { answer: W::Answer, sight: W::Sight, again: Duration },
    /// Another process has it, and the store's queue stands for the head. Look again after `again`.
    Passed { sight: W::Sight, again: Duration },
    /// Nothing was done.
    Nothing,
    /// Nobody knows.
    Ambiguous,
}

impl<W: Waiting> HandOver<'_, W> {
    pub(crate) fn settle(mut self, handed: HandOverEnd<W>) {
        self.end(handed);
    }

    fn end(&mut self, handed: HandOverEnd<W>) {
        if mem::replace(&mut self.is_settled, true) {
            return;
        }
        if let Some(line) = self.lines.lock().lines.get_mut(&self.key) {
            line.end_hand_over(self.number, handed, self.others_first, Instant::now());
            self.lines.send(line.take_errands());
        }
    }
}

impl<W: Waiting> Drop for HandOver<'_, W> {
    fn drop(&mut self) {
        self.end(HandOverEnd::Ambiguous);
    }
}

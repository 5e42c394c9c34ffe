//! [`Admission`]: acquires wait here until what this process holds is seen to, and then come in slowly.
//!
//! A connection that breaks may have been the end of its server, and of all that this server knew. So from then on nothing is acquired
//! until the keeper of the recovery has had a look: it compares how often connections have broken with how often they had when it last
//! did. After an outage acquires come in one at a time, then two, four and so on, each that is answered lets in one more: those who have
//! waited are no herd.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// So many side by side are all who come: what the pool carries is bounded elsewhere.
const ALL: usize = 256;

/// No count of breaks.
const NOBODY: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Admission {
    /// How often connections had broken when all was seen to; [`NOBODY`] where it is not, or where acquires come in slowly.
    open_at: AtomicU64,
    state: Mutex<State>,
    /// How many were answered since acquires last began to come in slowly.
    answered: AtomicU64,
    changed: Notify,
    /// Rings for the keeper of the recovery.
    bell: Arc<Notify>,
}

#[derive(Debug)]
enum State {
    Shut,
    /// Seen to when connections had broken so often.
    Slow {
        at: u64,
        permits: Arc<Semaphore>,
        side_by_side: usize,
    },
    Open,
}

/// It was nobody's turn by then.
#[derive(Debug)]
pub(crate) struct TooLate;

impl Admission {
    /// Open, unless there is something to be seen to first.
    pub(crate) fn new(is_open: bool, bell: Arc<Notify>) -> Self {
        Self {
            open_at: AtomicU64::new(if is_open { 0 } else { NOBODY }),
            state: Mutex::new(if is_open { State::Open } else { State::Shut }),
            answered: AtomicU64::new(0),
            changed: Notify::new(),
            bell,
        }
    }

    /// Whether whoever comes may pass, where connections have broken so often.
    pub(crate) fn is_open(&self, breaks: u64) -> bool {
        self.open_at.load(SeqCst) == breaks
    }

    /// Waits until it is the turn of whoever asks. `count` says how often connections have broken, or why nobody is to wait any more.
    pub(crate) async fn turn<E>(
        &self,
        count: impl Fn() -> Result<u64, E>,
        until: Instant,
    ) -> Result<Result<Option<Turn<'_>>, E>, TooLate> {
        timeout_at(until, self.wait(count)).await.map_err(|_elapsed| TooLate)
    }

    async fn wait<E>(&self, count: impl Fn() -> Result<u64, E>) -> Result<Option<Turn<'_>>, E> {
        loop {
            // Made before the look: it hears what changes between the two.
            let changed = self.changed.notified();
            let breaks = count()?;
            if self.is_open(breaks) {
                return Ok(None);
            }
            let permits = match &*self.state() {
                State::Slow { at, permits, .. } if *at == breaks => Some(permits.clone()),
                _ => None,
            };
            match permits {
                // Closed where that is over.
                Some(permits) => {
                    if let Ok(permit) = permits.acquire_owned().await
                        && breaks == count()?
                    {
                        return Ok(Some(Turn { admission: self, _permit: permit }));
                    }
                }
                None => {
                    self.bell.notify_one();
                    changed.await;
                }
            }
        }
    }

    /// Waits until what this process holds is seen to, whoever may come in by then; `count` is as of [`turn`](Self::turn).
    pub(crate) async fn wait_until_seen_to<E>(&self, count: impl Fn() -> Result<u64, E>) -> Result<(), E> {
        loop {
            let changed = self.changed.notified();
            let breaks = count()?;
            let is_slow = || matches!(&*self.state(), State::Slow { at, .. } if *at == breaks);
            if self.is_open(breaks) || is_slow() {
                return Ok(());
            }
            self.bell.notify_one();
            changed.await;
        }
    }

    /// Nobody passes any more. Those who wait find out whether they are to wait on.
    pub(crate) fn shut(&self) {
        self.change_to(State::Shut, NOBODY);
    }

    /// Everybody passes, until connections have broken more often than that.
    pub(crate) fn open(&self, at: u64) {
        self.change_to(State::Open, at);
    }

    /// One passes, then two, and so on.
    pub(crate) fn open_slowly(&self, at: u64) {
        self.answered.store(0, SeqCst);
        self.change_to(State::Slow { at, permits: Arc::new(Semaphore::new(1)), side_by_side: 1 }, NOBODY);
    }

    /// How many were answered while acquires came in slowly, the last time that they did.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(SeqCst)
    }

    /// Whether acquires come in slowly.
    pub(crate) fn is_slow(&self) -> bool {
        matches!(*self.state(), State::Slow { .. })
    }

    pub(crate) fn bell(&self) -> Arc<Notify> {
        self.bell.clone()
    }

    fn change_to(&self, state: State, open_at: u64) {
        self.change(&mut self.state(), state, open_at);
    }

    /// Those who wait for a turn, or for a change, look again.
    fn change(&self, now: &mut State, state: State, open_at: u64) {
        if let State::Slow { permits, .. } = now {
            permits.close();
        }
        *now = state;
        self.open_at.store(open_at, SeqCst);
        self.changed.notify_waiters();
    }

    /// Somebody was answered: there is room for one more.
    fn grow(&self) {
        let mut state = self.state();
        let State::Slow { at, permits, side_by_side } = &mut *state else { return };
        self.answered.fetch_add(1, SeqCst);
        *side_by_side += 1;
        permits.add_permits(1);
        if *side_by_side >= ALL {
            let at = *at;
            self.change(&mut state, State::Open, at);
            self.bell.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admission {
    /// The process is at its end.
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

/// Somebody who was let in while acquires come in slowly. Dropped, the next one is.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    admission: &'a Admission,
    _permit: OwnedSemaphorePermit,
}

impl Turn<'_> {
    /// It was answered.
    pub(crate) fn answered(self) {
        self.admission.grow();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, time::Duration};

    use tokio::time::timeout;

    use super::*;

    /// How often connections have broken; nobody is told to go away.
    fn count(breaks: u64) -> Result<u64, TooLate> {
        Ok(breaks)
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_passes_after_a_break_until_somebody_has_looked() {
        let bell = Arc::new(Notify::new());
        let admission = Admission::new(true, bell.clone());
        let soon = || Instant::now() + Duration::from_millis(10);
        assert!(admission.is_open(0) && !admission.is_open(1));
        assert!(admission.turn(|| count(1), soon()).await.is_err(), "a connection has broken");
        bell.notified().await;
        admission.open(1);
        assert!(matches!(admission.turn(|| count(1), soon()).await, Ok(Ok(None))));
        admission.open_slowly(1);
        assert!(admission.turn(|| count(2), soon()).await.is_err(), "and another one since");
    }

    #[tokio::test(start_paused = true)]
    async fn each_who_is_answered_lets_in_one_more() {
        const CALL: Duration = Duration::from_millis(10);
        let (admission, under_way) =
            (Arc::new(Admission::new(false, Arc::default())), Arc::new(AtomicUsize::new(0)));
        let until = Instant::now() + Duration::from_secs(60);
        for _ in 0..100 {
            let (admission, under_way) = (admission.clone(), under_way.clone());
            tokio::spawn(async move {
                let turn = admission.turn(|| count(0), until).await.unwrap().unwrap();
                under_way.fetch_add(1, SeqCst);
                tokio::time::sleep(CALL).await;
                under_way.fetch_sub(1, SeqCst);
                turn.unwrap().answered();
            });
        }
        tokio::time::sleep(CALL / 2).await;
        assert_eq!(under_way.load(SeqCst), 0, "it is shut");
        admission.open_slowly(0);
        let mut seen = Vec::new();
        for _ in 0..7 {
            tokio::time::sleep(CALL / 2).await;
            seen.push(under_way.load(SeqCst));
            tokio::time::sleep(CALL / 2).await;
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 32, 37]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_looks_waits_until_all_is_seen_to_and_for_no_turn() {
        let admission = Admission::new(false, Arc::default());
        let soon = Duration::from_millis(10);
        assert!(timeout(soon, admission.wait_until_seen_to(|| count(0))).await.is_err());
        admission.open_slowly(0);
        let until = Instant::now() + Duration::from_secs(1);
        let turn = admission.turn(|| count(0), until).await.unwrap().unwrap();
        assert!(
            timeout(soon, admission.wait_until_seen_to(|| count(0))).await.is_ok(),
            "one has the only turn"
        );
        assert!(
            timeout(soon, admission.wait_until_seen_to(|| count(1))).await.is_err(),
            "a connection has broken since"
        );
        drop(turn);
        assert!(admission.wait_until_seen_to(|| Err(TooLate)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_answered_lets_in_the_next_and_no_more() {
        let admission = Admission::new(false, Arc::default());
        admission.open_slowly(0);
        let until = Instant::now() + Duration::from_secs(1);
        for _ in 0..5 {
            let turn = admission.turn(|| count(0), until).await.unwrap().unwrap();
            let soon = Instant::now() + Duration::from_millis(1);
            assert!(admission.turn(|| count(0), soon).await.is_err(), "one at a time");
            drop(turn);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_their_turn_all_pass_once_it_is_open() {
        let admission = Admission::new(false, Arc::default());
        admission.open_slowly(0);
        let until = Instant::now() + Duration::from_secs(60);
        let turn = admission.turn(|| count(0), until).await.unwrap().unwrap();
        let waits = futures_util::future::join_all((0..10).map(|_| admission.turn(|| count(0), until)));
        let opens = async {
            tokio::task::yield_now().await;
            admission.open(0);
        };
        let (passed, ()) = tokio::join!(waits, opens);
        assert!(passed.iter().all(|passed| matches!(passed, Ok(Ok(None)))));
        drop(turn);
        assert!(!admission.is_slow());
    }
}

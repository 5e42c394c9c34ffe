//! [`Roster`]: the guards of a process, in the order in which their keeper sees to them.

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{GuardState, agenda::Agenda, held::Held};

/// The guards by when each is due. Whoever takes or gives back a guard writes it in or crosses it out; the keeper sleeps until the
/// first is due.
#[derive(Debug)]
pub(crate) struct Roster {
    /// What common moments are counted from.
    origin: Instant,
    guards: Mutex<Agenda<Instant, ByPlace>>,
    /// Wakes the keeper: there is one that is due earlier than all others, or the process is at its end.
    bell: Arc<Notify>,
}

impl Default for Roster {
    fn default() -> Self {
        Self { origin: Instant::now(), guards: Mutex::default(), bell: Arc::default() }
    }
}

impl Roster {
    /// The next moment after `instant` of those that all have in common who come every `step`.
    pub(crate) fn common(&self, instant: Instant, step: Duration) -> Instant {
        let past = instant.saturating_duration_since(self.origin).as_nanos() % step.as_nanos().max(1);
        instant + step - Duration::from_nanos(u64::try_from(past).unwrap_or_default())
    }

    /// Writes a guard in, to be seen to at `due`; not one that is given back.
    pub(crate) fn set(&self, held: &Arc<Held>, due: Instant) {
        let mut guards = self.guards();
        let is_first = guards.next().is_none_or(|next| due < next);
        guards.set(&ByPlace(held.clone()), due);
        drop(guards);
        // Whoever gives it back crosses it out afterwards, and may have done so just now.
        if held.is_given_back() {
            self.cancel(held);
        } else if is_first {
            self.bell.notify_one();
        }
    }

    /// Crosses a guard out.
    pub(crate) fn cancel(&self, held: &Arc<Held>) {
        self.guards().cancel(&ByPlace(held.clone()));
    }

    /// Takes out a guard that is due.
    pub(crate) fn take(&self, now: Instant) -> Option<Arc<Held>> {
        self.guards().take(now).map(|ByPlace(held)| held)
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.guards().next()
    }

    /// How many guards there are, and how many of them are in jeopardy.
    pub(crate) fn count(&self, now: Instant) -> (u64, u64) {
        let is_in_jeopardy =
            |ByPlace(held): &&ByPlace| matches!(held.state(now), GuardState::Jeopardy { .. });
        let guards = self.guards();
        (guards.iter().count() as u64, guards.iter().filter(is_in_jeopardy).count() as u64)
    }

    /// All there are.
    pub(crate) fn all(&self) -> Vec<Arc<Held>> {
        self.guards().iter().map(|ByPlace(held)| held.clone()).collect()
    }

    pub(crate) fn bell(&self) -> Arc<Notify> {
        self.bell.clone()
    }

    /// Held for a few lines, and never while anybody is told.
    fn guards(&self) -> MutexGuard<'_, Agenda<Instant, ByPlace>> {
        self.guards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Roster {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

/// A guard, compared by its place in memory, which is nobody else's for as long as it is written somewhere.
#[derive(Debug, Clone)]
pub(crate) struct ByPlace(pub(crate) Arc<Held>);

impl ByPlace {
    fn place(&self) -> *const Held {
        Arc::as_ptr(&self.0)
    }
}

impl PartialEq for ByPlace {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for ByPlace {}

impl PartialOrd for ByPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByPlace {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl Hash for ByPlace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::held::tests::held;

    const SECOND: Duration = Duration::from_secs(1);

    fn guards<const N: usize>(start: Instant) -> [Arc<Held>; N] {
        std::array::from_fn(|_| Arc::new(held(start, 30 * SECOND)))
    }

    async fn rings(bell: &Notify) -> bool {
        timeout(Duration::ZERO, bell.notified()).await.is_ok()
    }

    #[test]
    fn guards_come_in_the_order_in_which_they_are_due() {
        let (roster, start) = (Roster::default(), Instant::now());
        let [one, two, three] = guards(start);
        roster.set(&one, start + 3 * SECOND);
        roster.set(&two, start + SECOND);
        roster.set(&three, start + SECOND);
        roster.set(&one, start + 2 * SECOND);
        assert_eq!(roster.next(), Some(start + SECOND));
        assert!(roster.take(start).is_none(), "none is due");

        let due = [(); 2].map(|()| roster.take(start + SECOND).unwrap());
        assert!(due.iter().any(|held| Arc::ptr_eq(held, &two)), "both, if at the same moment");
        assert!(due.iter().any(|held| Arc::ptr_eq(held, &three)));
        assert!(roster.take(start + SECOND).is_none());
        let last = roster.take(start + 9 * SECOND).unwrap();
        assert!(Arc::ptr_eq(&last, &one), "at its last time");
        assert!(roster.take(start + 9 * SECOND).is_none() && roster.next().is_none(), "each once");
    }

    #[test]
    fn who_is_crossed_out_does_not_come_and_is_let_go() {
        let (roster, start) = (Roster::default(), Instant::now());
        let [one, two] = guards(start);
        roster.set(&one, start);
        roster.set(&two, start + SECOND);
        roster.cancel(&one);
        roster.cancel(&one);
        assert_eq!((roster.next(), Arc::strong_count(&one)), (Some(start + SECOND), 1));
        assert!(Arc::ptr_eq(&roster.take(start + SECOND).unwrap(), &two));
        roster.cancel(&two);
    }

    #[tokio::test(start_paused = true)]
    async fn bell_rings_only_where_the_keeper_sleeps_too_long() {
        let (roster, start) = (Roster::default(), Instant::now());
        let [one, two, three] = guards(start);
        let bell = roster.bell();
        assert!(!rings(&bell).await);
        roster.set(&one, start + 10 * SECOND);
        assert!(rings(&bell).await, "the first of all");
        roster.set(&two, start + 20 * SECOND);
        roster.set(&three, start + 10 * SECOND);
        assert!(!rings(&bell).await, "not earlier");
        roster.set(&two, start + 9 * SECOND);
        assert!(rings(&bell).await, "earlier than all");
        roster.cancel(&two);
        assert!(!rings(&bell).await, "to wake too early does no harm");
    }

    #[tokio::test(start_paused = true)]
    async fn bell_rings_at_the_end_of_the_process() {
        let roster = Roster::default();
        let bell = roster.bell();
        drop(roster);
        assert!(rings(&bell).await);
    }
}

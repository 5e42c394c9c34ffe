//! [`Turn`]: one time that somebody had a lock that others wanted too, as seen from outside.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The monotonic clock of this machine: the same in all processes, and never paused.
pub fn machine_clock() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Times are of [`machine_clock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Of a lock that has fences.
    pub fence: Option<u64>,
    /// When it was asked for.
    pub asked: Duration,
    /// When the acquire had returned.
    pub entered: Duration,
    /// When the release was called.
    pub left: Duration,
}

/// The turns at one lock, by group: a task, or a process.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    pub groups: Vec<Vec<Turn>>,
    /// Turns that began within it are counted; all are checked.
    pub from: Duration,
    pub until: Duration,
}

impl Turns {
    /// Never two at a time, and every fence higher than the one before.
    ///
    /// # Errors
    /// The first two turns of which that is not true.
    pub fn check(&self) -> Result<(), String> {
        let turns = self.in_order();
        let broken = turns.windows(2).find(|pair| {
            let rises = pair[0].fence.is_none() || pair[0].fence < pair[1].fence;
            pair[1].entered < pair[0].left || !rises
        });
        broken.map_or(Ok(()), |pair| Err(format!("two turns at a time, or a fence that fell: {pair:?}")))
    }

    pub fn wins(&self) -> usize {
        self.groups.iter().map(|group| self.wins_of(group)).sum()
    }

    pub fn wins_per_second(&self) -> f64 {
        self.wins() as f64 / (self.until - self.from).as_secs_f64()
    }

    /// The fewest and the most wins of a group.
    pub fn extremes(&self) -> (usize, usize) {
        let wins = || self.groups.iter().map(|group| self.wins_of(group));
        (wins().min().unwrap_or(0), wins().max().unwrap_or(0))
    }

    /// How long each wait was that ended in the window or later, shortest first: whoever got nothing in time counts too.
    pub fn waits(&self) -> Vec<Duration> {
        let turns = self.groups.iter().flatten().filter(|turn| turn.entered >= self.from);
        sorted(turns.map(|turn| turn.entered - turn.asked).collect())
    }

    /// The longest wait, in shares of what it would be if `waiters` took turns: their number × the mean time for a win.
    pub fn longest_wait_in_fair_times(&self, waiters: usize) -> f64 {
        let fair = waiters as f64 / self.wins_per_second();
        self.waits().last().map_or(0.0, Duration::as_secs_f64) / fair
    }

    /// From each call of a release to the return of the next acquire, shortest first.
    pub fn hand_overs(&self) -> Vec<Duration> {
        let mut turns = self.in_order();
        turns.retain(|turn| self.is_counted(turn));
        sorted(turns.windows(2).map(|pair| pair[1].entered.saturating_sub(pair[0].left)).collect())
    }

    fn in_order(&self) -> Vec<Turn> {
        let mut turns = self.groups.concat();
        turns.sort_unstable_by_key(|turn| turn.entered);
        turns
    }

    fn wins_of(&self, group: &[Turn]) -> usize {
        group.iter().filter(|turn| self.is_counted(turn)).count()
    }

    fn is_counted(&self, turn: &Turn) -> bool {
        (self.from..self.until).contains(&turn.entered)
    }
}

/// The value below which `percent` of the sorted ones are.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}

fn sorted(mut durations: Vec<Duration>) -> Vec<Duration> {
    durations.sort_unstable();
    durations
}

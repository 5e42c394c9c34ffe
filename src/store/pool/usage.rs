//! [`Usage`]: how full the pool was, as integrals over time.
//!
//! A gauge that is looked at each 15 s misses the spikes between; an integral misses nothing (a pool that was full for 3 s of
//! every 22 s showed 25 % by its gauge, 14.6 % by its integral, 13.6 % in truth).

use std::time::Duration;

use tokio::time::Instant;

const BUCKET: Duration = Duration::from_secs(5);
const BUCKETS: usize = 12;

/// What the pool has in use right now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Level {
    /// Connections with work.
    pub(super) active: u32,
    /// What `active` can reach now.
    pub(super) limit: u32,
    /// Whether anyone waits for a slot.
    pub(super) waiting: bool,
}

impl Level {
    /// Active ÷ limit in percent, and 100 while anyone waits.
    pub(super) fn percent(self) -> f64 {
        if self.waiting {
            return 100.0;
        }
        (100.0 * f64::from(self.active) / f64::from(self.limit.max(1))).min(100.0)
    }

    /// At least 80 % of the limit, rounded up to a whole connection.
    fn is_saturated(self) -> bool {
        self.waiting || u64::from(self.active) * 5 >= u64::from(self.limit) * 4
    }

    fn is_exhausted(self) -> bool {
        self.waiting || self.active >= self.limit
    }
}

#[derive(Debug)]
pub(super) struct Usage {
    level: Level,
    since: Instant,
    pub(super) active: Duration,
    pub(super) saturated: Duration,
    pub(super) exhausted: Duration,
    /// The most active connections in each of the last 12 × 5 s.
    peaks: [u32; BUCKETS],
    bucket: u64,
    epoch: Instant,
}

impl Usage {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            level: Level::default(),
            since: now,
            active: Duration::ZERO,
            saturated: Duration::ZERO,
            exhausted: Duration::ZERO,
            peaks: [0; BUCKETS],
            bucket: 0,
            epoch: now,
        }
    }

    /// Counts the time since the last call at the level that held then, and notes the new level.
    pub(super) fn update(&mut self, now: Instant, level: Level) {
        let spent = now.saturating_duration_since(self.since);
        self.since = now;
        self.active = self.active.saturating_add(spent.saturating_mul(self.level.active));
        if self.level.is_saturated() {
            self.saturated = self.saturated.saturating_add(spent);
        }
        if self.level.is_exhausted() {
            self.exhausted = self.exhausted.saturating_add(spent);
        }
        self.turn(now);
        self.level = level;
        let peak = self.place();
        self.peaks[peak] = self.peaks[peak].max(level.active);
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// The most connections that were active at once in the last 60 s.
    pub(super) fn peak(&self) -> u32 {
        self.peaks.iter().copied().max().unwrap_or(0)
    }

    /// Starts the buckets of the 5 s spans that have begun, each at the level that held through it.
    fn turn(&mut self, now: Instant) {
        let spans = now.saturating_duration_since(self.epoch).as_secs() / BUCKET.as_secs();
        let begun = spans.saturating_sub(self.bucket).min(BUCKETS as u64);
        for _ in 0..begun {
            self.bucket += 1;
            let place = self.place();
            self.peaks[place] = self.level.active;
        }
        self.bucket = spans;
    }

    fn place(&self) -> usize {
        usize::try_from(self.bucket).unwrap_or(0) % BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(active: u32) -> Level {
        Level { active, limit: 10, waiting: false }
    }

    #[tokio::test(start_paused = true)]
    async fn integrals_count_the_time_between_looks() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut usage = Usage::new(start);
        usage.update(at(0), level(7));
        usage.update(at(2), level(8));
        usage.update(at(5), level(10));
        usage.update(at(6), level(0));
        usage.update(at(60), level(0));
        assert_eq!(usage.active.as_secs(), 2 * 7 + 3 * 8 + 10);
        assert_eq!(usage.saturated.as_secs(), 4);
        assert_eq!(usage.exhausted.as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn peak_is_forgotten_after_a_minute() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut usage = Usage::new(start);
        usage.update(at(1), level(9));
        usage.update(at(2), level(3));
        usage.update(at(54), level(3));
        assert_eq!(usage.peak(), 9);
        usage.update(at(66), level(3));
        assert_eq!(usage.peak(), 3);
        usage.update(at(1000), level(0));
        assert_eq!(usage.peak(), 3, "the level held until now");
    }

    #[test]
    fn anyone_waiting_is_a_full_pool() {
        assert!((Level { active: 1, limit: 4, waiting: true }.percent() - 100.0).abs() < f64::EPSILON);
        assert!((Level { active: 1, limit: 4, waiting: false }.percent() - 25.0).abs() < f64::EPSILON);
    }
}

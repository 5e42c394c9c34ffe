//! [`Schedule`]: how delays grow from one try to the next.
//!
//! Delay n, counted from 0, is `min(cap, base × factor^n)`, of which a random part is taken, so that many who fail together do not
//! come back together. The formulas are those of the AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).
//!
//! Plain data, and an iterator that never ends, allocates or panics, whatever it is given: how often is tried, and until when, is
//! decided by whoever draws from it.

use std::time::Duration;

/// How delays grow from one try to the next.
///
/// # Examples
/// ```
/// use spool_lock::{Jitter, Schedule};
/// use std::time::Duration;
///
/// let schedule = Schedule::new(Duration::from_millis(50), Duration::from_millis(300)).jitter(Jitter::None);
/// let delays: Vec<_> = schedule.delays().take(5).map(|delay| delay.as_millis()).collect();
/// assert_eq!(delays, [50, 100, 200, 300, 300]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Schedule {
    /// The first delay, before its random part is taken. Zero: there are no delays at all.
    pub base: Duration,
    /// No delay is longer, whatever its random part. Where it is below `base`, all delays are drawn from it.
    pub cap: Duration,
    /// By what each delay is longer than the one before. Default 2. Below 1, or no number, it counts as 1.
    pub factor: f64,
    /// The random part. Default [`Jitter::Full`].
    pub jitter: Jitter,
}

/// The random part of a delay `d`; every value of its range is as likely as every other.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// None: always `d`. For tests, and where there is only one who waits.
    None,
    /// From 0 to `d`: spreads best, but now and then there is no delay at all.
    Full,
    /// From `d` ÷ 2 to `d`: never almost nothing.
    Equal,
    /// From `d` × (1 − f) to `d` × (1 + f), and not beyond the cap. Below 0, or no number, `f` counts as 0; above 1 the range begins
    /// at 0.
    Around(f64),
}

impl Schedule {
    /// Delays from `base` to `cap` that double, with full jitter.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, factor: 2.0, jitter: Jitter::Full }
    }

    /// The same with another growth.
    #[must_use]
    pub const fn factor(self, factor: f64) -> Self {
        Self { factor, ..self }
    }

    /// The same with another random part.
    #[must_use]
    pub const fn jitter(self, jitter: Jitter) -> Self {
        Self { jitter, ..self }
    }

    /// The delays, from the first one on; two calls draw differently.
    pub fn delays(self) -> Delays {
        self.draw_by(fastrand::Rng::new())
    }

    /// The delays, from the first one on; the same `seed` draws the same.
    pub fn delays_seeded(self, seed: u64) -> Delays {
        self.draw_by(fastrand::Rng::with_seed(seed))
    }

    fn draw_by(self, chance: fastrand::Rng) -> Delays {
        Delays { schedule: self, next: self.base.min(self.cap), chance }
    }
}

/// The delays of a [`Schedule`], one after the other, without an end.
#[derive(Debug, Clone)]
pub struct Delays {
    schedule: Schedule,
    /// The next one, before its random part is taken.
    next: Duration,
    chance: fastrand::Rng,
}

impl Delays {
    /// The next one. It is what [`next`](Iterator::next) answers, for whoever needs to know that there is one.
    pub(crate) fn draw(&mut self) -> Duration {
        let Schedule { cap, factor, jitter, .. } = self.schedule;
        let delay = self.next;
        // Where `factor` is no number, `max` answers the other.
        self.next = times(delay, factor.max(1.0)).max(delay).min(cap);
        let (shortest, longest) = match jitter {
            Jitter::None => (delay, delay),
            Jitter::Full => (Duration::ZERO, delay),
            Jitter::Equal => (delay / 2, delay),
            Jitter::Around(share) => {
                let share = share.max(0.0);
                (times(delay, (1.0 - share).max(0.0)), times(delay, 1.0 + share).min(cap))
            }
        };
        let part = times(longest.saturating_sub(shortest), self.chance.f64());
        shortest.saturating_add(part).min(longest)
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.draw())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::MAX, None)
    }
}

/// A delay times a number that is not below 0; the longest that there is where that is too much.
fn times(delay: Duration, number: f64) -> Duration {
    // Nothing stays nothing, also times infinity.
    if delay.is_zero() {
        return delay;
    }
    Duration::try_from_secs_f64(delay.as_secs_f64() * number).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: Duration = Duration::from_millis(50);
    const CAP: Duration = Duration::from_secs(2);

    fn millis(schedule: Schedule, count: usize) -> Vec<u128> {
        schedule.jitter(Jitter::None).delays().take(count).map(|delay| delay.as_millis()).collect()
    }

    #[test]
    fn delays_double_up_to_the_cap_and_stay_there() {
        let schedule = Schedule::new(BASE, CAP);
        assert_eq!(millis(schedule, 8), [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(millis(schedule.factor(10.0), 4), [50, 500, 2000, 2000]);
    }

    #[test]
    fn a_factor_that_makes_no_sense_is_no_growth() {
        for factor in [0.0, 0.5, 1.0, -3.0, f64::NAN, f64::NEG_INFINITY] {
            assert_eq!(millis(Schedule::new(BASE, CAP).factor(factor), 3), [50, 50, 50], "{factor}");
        }
        assert_eq!(millis(Schedule::new(BASE, CAP).factor(f64::INFINITY), 3), [50, 2000, 2000]);
        assert_eq!(millis(Schedule::new(Duration::ZERO, CAP).factor(f64::INFINITY), 3), [0, 0, 0]);
        assert_eq!(millis(Schedule::new(CAP, BASE), 3), [50, 50, 50], "a cap below the base");
    }

    #[test]
    fn a_seed_draws_the_same_and_no_seed_draws_otherwise() {
        let schedule = Schedule::new(BASE, CAP);
        let draw = |delays: Delays| delays.take(20).collect::<Vec<_>>();
        assert_eq!(draw(schedule.delays_seeded(7)), draw(schedule.delays_seeded(7)));
        assert_ne!(draw(schedule.delays_seeded(7)), draw(schedule.delays_seeded(8)));
        assert_ne!(draw(schedule.delays()), draw(schedule.delays()));
    }

    /// Of a thousand draws some lie in each tenth of the range, and none outside.
    fn assert_fills(jitter: Jitter, shortest: Duration, longest: Duration) {
        let schedule = Schedule::new(CAP, CAP * 2).factor(1.0).jitter(jitter);
        let mut tenths = [0; 10];
        for delay in schedule.delays_seeded(1).take(1000) {
            assert!((shortest..=longest).contains(&delay), "{delay:?}");
            let tenth = (delay - shortest).as_nanos() * 10 / (longest - shortest).as_nanos();
            tenths[usize::try_from(tenth).unwrap().min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| *count > 50), "{tenths:?}");
    }

    #[test]
    fn the_random_part_fills_its_range() {
        assert_fills(Jitter::Full, Duration::ZERO, CAP);
        assert_fills(Jitter::Equal, CAP / 2, CAP);
        assert_fills(Jitter::Around(0.25), CAP * 3 / 4, CAP * 5 / 4);
        assert_fills(Jitter::Around(5.0), Duration::ZERO, CAP * 2);
    }

    fn any_delay() -> impl Strategy<Value = Duration> {
        let odd = [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX];
        prop_oneof![
            (0..100_u64).prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_nanos),
            prop::sample::select(odd.to_vec()),
        ]
    }

    fn any_jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![
            Just(Jitter::None),
            Just(Jitter::Full),
            Just(Jitter::Equal),
            (0.0..2.0).prop_map(Jitter::Around),
            prop::num::f64::ANY.prop_map(Jitter::Around),
        ]
    }

    proptest! {
        #[test]
        fn no_delay_is_beyond_the_cap_whatever_the_schedule_is_made_of(
            base in any_delay(),
            cap in any_delay(),
            factor in prop_oneof![0.0..5.0, prop::num::f64::ANY],
            jitter in any_jitter(),
            seed: u64,
        ) {
            let schedule = Schedule { base, cap, factor, jitter };
            let plain = schedule.jitter(Jitter::None).delays();
            let mut before = Duration::ZERO;
            for (delay, plain) in schedule.delays_seeded(seed).zip(plain).take(200) {
                prop_assert!(delay <= cap && plain <= cap);
                prop_assert!(before <= plain, "they never shrink");
                match jitter {
                    Jitter::None => prop_assert_eq!(delay, plain),
                    Jitter::Full => prop_assert!(delay <= plain),
                    Jitter::Equal => prop_assert!(plain / 2 <= delay && delay <= plain),
                    Jitter::Around(_) => prop_assert!(!plain.is_zero() || delay.is_zero()),
                }
                before = plain;
            }
        }
    }
}

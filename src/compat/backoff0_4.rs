//! `backoff` 0.4: its settings as a [`Schedule`], for services that have them.
//!
//! That crate is unmaintained (RUSTSEC-2025-0012) and so is the `instant` below it (RUSTSEC-2024-0384), which is why the feature
//! `backoff` is off by default. Of its code nothing but the type of the settings is used.

use backoff::ExponentialBackoff;

use crate::{Jitter, Schedule};

/// The schedule with the growth and the random part of `settings`.
///
/// Two things differ: `max_interval` bounds what is drawn here, the random part included; and `max_elapsed_time` has no place
/// in a schedule, it is the deadline of the call.
///
/// # Examples
/// ```
/// use spool_lock::{Jitter, compat::backoff0_4};
/// let schedule = backoff0_4::schedule(&backoff::ExponentialBackoff::default());
/// assert_eq!((schedule.factor, schedule.jitter), (1.5, Jitter::Around(0.5)));
/// assert_eq!((schedule.base.as_millis(), schedule.cap.as_secs()), (500, 60));
/// ```
pub fn schedule(settings: &ExponentialBackoff) -> Schedule {
    Schedule::new(settings.initial_interval, settings.max_interval)
        .factor(settings.multiplier)
        .jitter(Jitter::Around(settings.randomization_factor))
}

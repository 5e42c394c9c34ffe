//! [`Ttl`]: how long a lock lasts.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

/// How long a lock lasts unless it is extended or released: 1 ms to 30 days, in whole milliseconds.
///
/// Redis counts in milliseconds. A duration that does not fit is refused, never rounded: a lock lasts exactly as long as its
/// holder believes.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use spool_lock::Ttl;
/// assert_eq!(Ttl::new(Duration::from_secs(3600))?, Ttl::HOUR);
/// assert!(Ttl::new(Duration::ZERO).is_err());
/// # Ok::<(), spool_lock::InvalidTtl>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u32);

impl Ttl {
    /// The shortest ttl, 1 ms.
    pub const MIN: Self = Self(1);
    /// 30 seconds.
    pub const HALF_MINUTE: Self = Self(30_000);
    /// One hour, the default: a worker's spell at a spool.
    pub const HOUR: Self = Self(3_600_000);
    /// The longest ttl, 30 days.
    pub const MAX: Self = Self(30 * 24 * 3_600_000);

    /// Takes a duration that is exactly a ttl.
    ///
    /// # Errors
    /// [`InvalidTtl`] — zero, longer than 30 days, or not a whole number of milliseconds.
    pub fn new(duration: Duration) -> Result<Self, InvalidTtl> {
        let millis = u32::try_from(duration.as_millis()).map_err(|_| InvalidTtl(duration))?;
        let ttl = Self(millis);
        if ttl < Self::MIN || ttl > Self::MAX || ttl.duration() != duration {
            return Err(InvalidTtl(duration));
        }
        Ok(ttl)
    }

    /// The longest one that is no longer than `duration`; none where that is too short for any.
    pub(crate) fn at_most(duration: Duration) -> Option<Self> {
        let millis = duration.min(Self::MAX.duration()).as_millis();
        Some(Self(u32::try_from(millis).ok()?)).filter(|ttl| *ttl >= Self::MIN)
    }

    /// What is left until `end`; none where that is less than a ttl can be.
    pub(crate) fn until(end: SystemTime, now: SystemTime) -> Option<Self> {
        Self::at_most(end.duration_since(now).unwrap_or_default())
    }

    /// The ttl as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }

    pub(crate) fn millis(self) -> u64 {
        self.0.into()
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self::HOUR
    }
}

impl TryFrom<Duration> for Ttl {
    type Error = InvalidTtl;

    fn try_from(duration: Duration) -> Result<Self, InvalidTtl> {
        Self::new(duration)
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.duration()).fmt(f)
    }
}

impl FromStr for Ttl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        Self::new(duration).map_err(|error| error.to_string())
    }
}

/// The duration is not a ttl.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no ttl; whole milliseconds from 1 ms to 30 days are")]
pub struct InvalidTtl(Duration);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_in_whole_milliseconds_and_30_days_at_most() {
        let millis = Duration::from_millis;
        for (left, ttl) in [
            (Duration::ZERO, None),
            (Duration::from_micros(999), None),
            (Duration::from_micros(1_500), Some(1)),
            (millis(2_592_000_000), Some(2_592_000_000)),
            (millis(2_592_000_020), Some(2_592_000_000)),
            (Duration::MAX, Some(2_592_000_000)),
        ] {
            assert_eq!(Ttl::at_most(left).map(Ttl::millis), ttl, "{left:?}");
        }
        let now = SystemTime::UNIX_EPOCH + millis(5);
        assert_eq!(Ttl::until(now + millis(7), now).map(Ttl::millis), Some(7));
        assert_eq!(Ttl::until(SystemTime::UNIX_EPOCH, now), None);
    }

    #[test]
    fn ttl_is_exact_or_refused() {
        let millis = Duration::from_millis;
        for good in [1, 2, 1499, 3_600_000, 2_592_000_000] {
            assert_eq!(Ttl::new(millis(good)).unwrap().duration(), millis(good));
        }
        let bad = [
            Duration::ZERO,
            Duration::from_nanos(999_999),
            Duration::from_micros(1_500),
            millis(2_592_000_001),
            millis(1 << 32),
            millis(1 << 53),
            Duration::MAX,
        ];
        for bad in bad {
            assert_eq!(Ttl::new(bad), Err(InvalidTtl(bad)));
        }
    }
}

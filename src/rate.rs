//! [`Rate`]: how often something may happen.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

/// How often something may happen: 1 to 1,000,000 times in a period of 1 ms to 1 day. Written as `10/1s`.
///
/// After a whole period without any, all of them may come at once; then, and at a steady pace, one each `per / count`, rounded up to a
/// nanosecond. So a period that begins with a burst has up to twice as many, and ten periods eleven times as many.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use spool_lock::Rate;
/// let rate: Rate = "10/1s".parse()?;
/// assert_eq!(rate, Rate::new(10, Duration::from_secs(1))?);
/// assert!(Rate::new(0, Duration::from_secs(1)).is_err());
/// # Ok::<(), spool_lock::InvalidRate>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: NonZeroU32,
    per: Duration,
}

impl Rate {
    /// The highest count, 1,000,000.
    pub const MAX_COUNT: u32 = 1_000_000;
    /// The shortest period, 1 ms.
    pub const MIN_PER: Duration = Duration::from_millis(1);
    /// The longest period, 1 day.
    pub const MAX_PER: Duration = Duration::from_secs(24 * 3600);

    /// `count` times in each `per`.
    ///
    /// # Errors
    /// [`InvalidRate`] — the count is zero or above 1,000,000, or the period shorter than 1 ms or longer than 1 day.
    pub fn new(count: u32, per: Duration) -> Result<Self, InvalidRate> {
        NonZeroU32::new(count)
            .filter(|count| count.get() <= Self::MAX_COUNT && (Self::MIN_PER..=Self::MAX_PER).contains(&per))
            .map(|count| Self { count, per })
            .ok_or_else(|| InvalidRate(format!("{count}/{per:?}")))
    }

    /// How many times in a period, and how many at once.
    pub fn count(self) -> NonZeroU32 {
        self.count
    }

    /// The period.
    pub fn per(self) -> Duration {
        self.per
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One word, so that it is one word of a command line too: "1m 30s" is written as "1m30s".
        let per = humantime::format_duration(self.per).to_string().replace(' ', "");
        write!(f, "{}/{per}", self.count)
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let parts = || {
            let (count, per) = text.split_once('/')?;
            Some((count.parse().ok()?, humantime::parse_duration(per).ok()?))
        };
        let (count, per) = parts().ok_or_else(|| InvalidRate(text.to_owned()))?;
        Self::new(count, per)
    }
}

/// What was given is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate; N/PERIOD is, such as 10/1s, N 1 to 1000000 and PERIOD 1ms to 1day")]
pub struct InvalidRate(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_within_its_bounds_or_refused() {
        let nano = Duration::from_nanos(1);
        for good in [(1, Rate::MIN_PER), (1, Rate::MAX_PER), (Rate::MAX_COUNT, Rate::MIN_PER)] {
            let rate = Rate::new(good.0, good.1).unwrap();
            assert_eq!((rate.count().get(), rate.per()), good);
        }
        for (count, per) in [
            (0, Rate::MAX_PER),
            (Rate::MAX_COUNT + 1, Rate::MAX_PER),
            (1, Rate::MIN_PER - nano),
            (1, Rate::MAX_PER + nano),
            (1, Duration::ZERO),
            (1, Duration::MAX),
        ] {
            assert!(Rate::new(count, per).is_err(), "{count}/{per:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["1/1ms", "10/1s", "7/1m30s", "1000000/1day", "3/1s1ns"] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.to_string(), text);
        }
        for text in
            ["", "10", "/1s", "10/", "10/s", "-1/1s", "1.5/1s", "10/1s/2", "4294967296/1s", "10/9999999999y"]
        {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
        assert_eq!(
            "0/1s".parse::<Rate>().unwrap_err().to_string(),
            "\"0/1s\" is no rate; N/PERIOD is, such as 10/1s, N 1 to 1000000 and PERIOD 1ms to 1day"
        );
    }
}

//! [`Link`]: the feed, or the way to one.

use std::{future::pending, time::Duration};

use tokio::time::Instant;

use crate::store::{Feed, News};

#[derive(Debug)]
pub(super) enum Link {
    /// Nobody wants to hear.
    Closed,
    /// One is being opened.
    Opening,
    /// The last one broke, or could not be opened.
    Resting {
        until: Instant,
    },
    Open {
        feed: Feed,
        since: Instant,
    },
}

impl Link {
    /// The next news; `None` when the feed has ended.
    pub(super) async fn news(&mut self) -> Option<News> {
        match self {
            Self::Open { feed, .. } => feed.news.recv().await,
            _ => pending().await,
        }
    }

    /// News that are there already.
    pub(super) fn more(&mut self) -> Option<News> {
        match self {
            Self::Open { feed, .. } => feed.news.try_recv().ok(),
            _ => None,
        }
    }
}

/// How long to wait before the next try: longer after each that failed.
#[derive(Debug)]
pub(super) struct Pause(Duration);

impl Pause {
    const FIRST: Duration = Duration::from_millis(50);
    const LAST: Duration = Duration::from_secs(1);

    /// A feed that lasted so long did not fail at once.
    pub(super) const LASTING: Duration = Duration::from_secs(10);

    /// Whether nothing has failed since it was reset.
    pub(super) fn is_first(&self) -> bool {
        self.0 == Self::FIRST
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Half of it is left to `chance`, of 0 to [`u32::MAX`], so that processes do not come back all at once.
    pub(super) fn next(&mut self, chance: u32) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LAST);
        pause.mul_f64(0.5 + 0.5 * f64::from(chance) / f64::from(u32::MAX))
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self(Self::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second() {
        let mut pause = Pause::default();
        let millis: Vec<_> = (0..7).map(|_| pause.next(u32::MAX).as_millis()).collect();
        assert_eq!(millis, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pause.next(0).as_millis(), 500);
        pause.reset();
        assert_eq!(pause.next(0).as_millis(), 25);
    }
}

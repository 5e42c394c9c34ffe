//! [`Dials`]: the connections that are being opened, and which of them hang.
//!
//! A dial that was begun while the network lost its packets is not answered when the network is back: the next packet of it is sent
//! when the system's own pause is over, which doubles from 1 s. So nobody waits for an old dial alone. Beside one that is older
//! than [`HASTE`] a hasty one is made, which is given up at that age, and after it the next. The old one goes on: where the
//! network is only slow, it is the one that succeeds.

use std::time::Duration;

use tokio::time::Instant;

/// A dial that is older than this hangs, if it is not over by then. The first packet that was lost is sent again at this age (RFC
/// 6298, section 2), so a dial that is made now is as fast.
pub(in crate::store::pool) const HASTE: Duration = Duration::from_secs(1);

/// How long a dial may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::pool) enum Pace {
    /// As long as opening a connection may take.
    Patient,
    /// Not longer than a dial takes that does not hang.
    Hasty,
}

impl Pace {
    /// How long a dial may take where opening a connection may take `connect_timeout`.
    pub(in crate::store::pool) fn patience(self, connect_timeout: Duration) -> Duration {
        match self {
            Self::Patient => connect_timeout,
            Self::Hasty => connect_timeout.min(HASTE),
        }
    }
}

/// A connection that is being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::pool) struct Dial {
    pub(super) begun: Instant,
    pub(in crate::store::pool) pace: Pace,
}

impl Dial {
    /// When it begins to hang. A hasty one is over by then.
    fn hangs_at(&self) -> Option<Instant> {
        (self.pace == Pace::Patient).then(|| self.begun + HASTE)
    }
}

/// Those of lanes, or those of feeds.
#[derive(Debug, Default)]
pub(super) struct Dials {
    under_way: Vec<Dial>,
}

impl Dials {
    pub(super) fn begin(&mut self, now: Instant, pace: Pace) -> Dial {
        let dial = Dial { begun: now, pace };
        self.under_way.push(dial);
        dial
    }

    /// The dial has succeeded or failed.
    pub(super) fn end(&mut self, dial: Dial) {
        if let Some(place) = self.under_way.iter().position(|other| *other == dial) {
            self.under_way.swap_remove(place);
        }
    }

    pub(super) fn count(&self) -> u32 {
        super::count(self.under_way.len())
    }

    /// How many of them hang.
    pub(super) fn hanging(&self, now: Instant) -> u32 {
        let hangs = |dial: &&Dial| dial.hangs_at().is_some_and(|then| then <= now);
        super::count(self.under_way.iter().filter(hangs).count())
    }

    /// When the next one begins to hang.
    pub(super) fn next_hangs_at(&self, now: Instant) -> Option<Instant> {
        self.under_way.iter().filter_map(Dial::hangs_at).filter(|then| *then > now).min()
    }
}

//! [`Degraded`]: how often and how long the mode was not normal.

use std::time::Duration;

use tokio::time::Instant;

/// How often and how long the mode was not normal.
#[derive(Debug, Default)]
pub(super) struct Degraded {
    /// How often it began.
    pub(super) entered: u64,
    /// Of those times that are over.
    lasted: Duration,
    since: Option<Instant>,
    /// Of what time the oldest state was that was answered meanwhile.
    pub(super) oldest_read: Option<Instant>,
}

impl Degraded {
    /// Takes note of how it is now.
    pub(super) fn note(&mut self, is_degraded: bool, now: Instant) {
        match self.since {
            None if is_degraded => {
                self.entered += 1;
                self.since = Some(now);
            }
            Some(_) if !is_degraded => {
                *self =
                    Self { entered: self.entered, lasted: self.lasted(now), since: None, oldest_read: None };
            }
            _ => {}
        }
    }

    /// A read was answered from what was last known at `at`. Of a single call that failed while all was well there is no outage to tell of.
    pub(super) fn answered_from(&mut self, at: Instant) {
        if self.since.is_some() {
            self.oldest_read = Some(self.oldest_read.map_or(at, |oldest| oldest.min(at)));
        }
    }

    /// How long, all in all.
    pub(super) fn lasted(&self, now: Instant) -> Duration {
        self.lasted + self.since.map(|since| now.saturating_duration_since(since)).unwrap_or_default()
    }
}

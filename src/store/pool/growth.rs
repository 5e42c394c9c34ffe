//! [`Growth`]: whether another connection may be opened now.
//!
//! Two limits meet here: the configured maximum, and what the server lets us have. When the server turns a connection away
//! the limit falls to what exists, and one connection more is tried after a pause that doubles up to 30 s; one that succeeds
//! lifts the limit by one and forgets the pause, so the pool grows back quickly when the server has room again.

use std::time::Duration;

use tokio::time::Instant;

use super::PoolConfig;
use crate::{FaultKind, LimitReason};

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Growth {
    max: u32,
    at_once: u32,
    /// The pause after a failure that says nothing about the limit.
    spacing: Duration,
    pub(super) limit: u32,
    pub(super) reason: Option<LimitReason>,
    /// Whether the last dial failed.
    failing: bool,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Growth {
    pub(super) fn new(config: &PoolConfig) -> Self {
        let spacing = Duration::from_secs(1) / config.dials_per_second.max(1);
        Self {
            max: config.max_connections,
            at_once: config.dials,
            spacing,
            limit: config.max_connections,
            reason: None,
            failing: false,
            pause: spacing,
            not_before: None,
        }
    }

    /// Whether one more connection may be opened when `places` exist or are being opened, `dialling` of them the latter.
    pub(super) fn allows(&self, now: Instant, places: u32, dialling: u32) -> bool {
        let at_once = if self.failing { 1 } else { self.at_once };
        let paused = self.not_before.is_some_and(|then| now < then);
        let beyond_limit = places >= self.limit;
        places < self.max && dialling < at_once && !paused && (!beyond_limit || dialling == 0)
    }

    /// When the pause after a failure ends.
    pub(super) fn resumes_at(&self) -> Option<Instant> {
        self.not_before
    }

    /// A connection was opened; with it there are `open`.
    pub(super) fn opened(&mut self, open: u32) {
        self.failing = false;
        self.not_before = None;
        if self.limit < self.max {
            self.pause = self.spacing;
            self.limit = (self.limit.max(open) + 1).min(self.max);
            if self.limit == self.max {
                self.reason = None;
            }
        }
    }

    /// A connection could not be opened; `existing` others exist.
    pub(super) fn failed(&mut self, now: Instant, kind: FaultKind, existing: u32) {
        self.failing = true;
        let reason = match kind {
            FaultKind::MaxClients => Some(LimitReason::MaxClients),
            FaultKind::ClosedInHandshake => Some(LimitReason::ClosedInHandshake),
            _ => None,
        };
        let Some(reason) = reason.filter(|_| existing > 0) else {
            self.not_before = Some(now + self.spacing);
            return;
        };
        self.limit = existing.min(self.max);
        // A confirmed reason is not taken back by the next unconfirmed refusal.
        if self.reason != Some(LimitReason::MaxClients) {
            self.reason = Some(reason);
        }
        // Dials that were under way together fail together: they are one refusal.
        if self.not_before.is_none_or(|then| then <= now) {
            self.not_before = Some(now + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The server's own numbers say that it is at its client limit.
    pub(super) fn confirmed(&mut self) {
        if self.limit < self.max {
            self.reason = Some(LimitReason::MaxClients);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: Duration = Duration::from_millis(250);

    #[tokio::test(start_paused = true)]
    async fn limit_falls_to_what_exists_and_grows_back() {
        let mut growth = Growth::new(&PoolConfig::default());
        let now = Instant::now();
        growth.failed(now, FaultKind::ClosedInHandshake, 8);
        assert_eq!((growth.limit, growth.reason), (8, Some(LimitReason::ClosedInHandshake)));
        assert!(!growth.allows(now, 8, 0));
        growth.confirmed();
        assert!(growth.allows(now + QUARTER, 8, 0), "one more is tried after the pause");
        assert!(!growth.allows(now + QUARTER, 9, 1), "and no second beside it");
        for open in 9..=20 {
            growth.opened(open);
        }
        assert_eq!((growth.limit, growth.reason), (20, None));
    }

    #[tokio::test(start_paused = true)]
    async fn pause_doubles_to_half_a_minute() {
        let mut growth = Growth::new(&PoolConfig::default());
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            growth.failed(now, FaultKind::MaxClients, 3);
            growth.failed(now, FaultKind::MaxClients, 3);
            let resumes = growth.resumes_at().unwrap();
            pauses.push((resumes - now).as_millis());
            now = resumes;
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_is_dialled_four_times_a_second_and_keeps_its_limit() {
        let mut growth = Growth::new(&PoolConfig::default());
        let now = Instant::now();
        growth.failed(now, FaultKind::Connect, 0);
        growth.failed(now, FaultKind::ClosedInHandshake, 0);
        assert_eq!((growth.limit, growth.reason), (20, None));
        assert!(!growth.allows(now + QUARTER / 2, 0, 0));
        assert!(growth.allows(now + QUARTER, 0, 0));
        assert!(!growth.allows(now + QUARTER, 1, 1), "one at a time while failing");
    }
}

//! [`Growth`]: whether another connection may be opened now.
//!
//! Two limits meet here: the configured maximum, and what the server lets us have. When the server turns a connection away
//! the limit falls to what exists, and one connection more is tried after a pause that doubles up to 30 s; one that succeeds
//! lifts the limit by one and forgets the pause, so the pool grows back quickly when the server has room again. A refusal that
//! nobody has met again for a minute is forgotten.
//!
//! Where the server refuses us until an operator acts (the password, the certificates), whoever can go on without another
//! connection waits for as long as that pause may grow: a wrong password is not tried four times a second.

use std::time::Duration;

use tokio::time::Instant;

use super::PoolConfig;
use crate::{FaultKind, LimitReason, fault::Blame};

const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a refusal lowers the limit although nobody has tried since.
const REMEMBERED: Duration = Duration::from_secs(60);

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
    failed_at: Option<Instant>,
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
            failed_at: None,
        }
    }

    /// Whether one more connection may be opened when `places` exist or are being opened, `dialling` of them the latter, and
    /// there is a lane that can go on without it, or none.
    pub(super) fn allows(&self, now: Instant, places: u32, dialling: u32, has_lane: bool) -> bool {
        let at_once = if self.failing { 1 } else { self.at_once };
        let beyond_limit = places >= self.limit;
        let is_free = places < self.max && dialling < at_once && (!beyond_limit || dialling == 0);
        is_free && !self.is_paused(now, has_lane)
    }

    /// Whether one more connection may be opened beside dials that hang: they do not count, but their places do.
    pub(super) fn allows_beside(&self, now: Instant, places: u32, has_lane: bool) -> bool {
        places < self.limit && !self.is_paused(now, has_lane)
    }

    /// Whether it is not time yet for another connection.
    pub(super) fn is_paused(&self, now: Instant, can_wait: bool) -> bool {
        self.resumes_at(can_wait).is_some_and(|then| now < then)
    }

    /// When the pause after a failure ends. The long pause is for who can go on without another connection.
    pub(super) fn resumes_at(&self, can_wait: bool) -> Option<Instant> {
        let shortest = self.failed_at.map(|then| then + self.spacing);
        if can_wait { self.not_before } else { shortest.min(self.not_before) }
    }

    /// A refusal that nobody has met again for long says nothing about now.
    pub(super) fn forget(&mut self, now: Instant) {
        if self.limit < self.max && self.failed_at.is_none_or(|then| now >= then + REMEMBERED) {
            (self.limit, self.reason, self.pause) = (self.max, None, self.spacing);
        }
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
        self.failed_at = Some(now);
        let reason = match kind {
            FaultKind::MaxClients => Some(LimitReason::MaxClients),
            FaultKind::ClosedInHandshake => Some(LimitReason::ClosedInHandshake),
            _ => None,
        };
        let Some(reason) = reason.filter(|_| existing > 0) else {
            let is_setup = kind.class().blame == Blame::Setup;
            self.not_before = Some(now + if is_setup { LONGEST_PAUSE } else { self.spacing });
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
        assert!(!growth.allows(now, 8, 0, true));
        growth.confirmed();
        assert!(growth.allows(now + QUARTER, 8, 0, true), "one more is tried after the pause");
        assert!(!growth.allows(now + QUARTER, 9, 1, true), "and no second beside it");
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
            let resumes = growth.resumes_at(true).unwrap();
            pauses.push((resumes - now).as_millis());
            now = resumes;
        }
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_long_pause_is_not_for_a_pool_that_lost_its_last_lane() {
        let mut growth = Growth::new(&PoolConfig::default());
        let mut now = Instant::now();
        for _ in 0..8 {
            growth.failed(now, FaultKind::MaxClients, 3);
            now = growth.resumes_at(true).unwrap();
        }
        growth.failed(now, FaultKind::MaxClients, 3);
        assert!(!growth.allows(now + 4 * QUARTER, 3, 0, true));
        assert!(growth.allows(now + QUARTER, 0, 0, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_operator_has_to_mend_is_tried_each_half_minute_where_nobody_needs_it() {
        let mut growth = Growth::new(&PoolConfig::default());
        let now = Instant::now();
        for kind in [FaultKind::Auth, FaultKind::Tls, FaultKind::Permission] {
            growth.failed(now, kind, 2);
            assert_eq!((growth.limit, growth.reason), (20, None), "it says nothing about the limit");
            assert!(growth.is_paused(now + LONGEST_PAUSE - QUARTER, true));
            assert!(!growth.is_paused(now + LONGEST_PAUSE, true));
            assert!(growth.allows(now + QUARTER, 0, 0, false), "whoever has no lane does not wait for that");
            growth.opened(3);
            assert!(!growth.is_paused(now, true), "it was mended");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_forgotten_after_a_minute_without_another() {
        let mut growth = Growth::new(&PoolConfig::default());
        let now = Instant::now();
        growth.failed(now, FaultKind::MaxClients, 1);
        growth.forget(now + REMEMBERED - QUARTER);
        assert_eq!(growth.limit, 1);
        growth.forget(now + REMEMBERED);
        assert_eq!((growth.limit, growth.reason), (20, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_is_dialled_four_times_a_second_and_keeps_its_limit() {
        let mut growth = Growth::new(&PoolConfig::default());
        let now = Instant::now();
        growth.failed(now, FaultKind::Connect, 0);
        growth.failed(now, FaultKind::ClosedInHandshake, 0);
        assert_eq!((growth.limit, growth.reason), (20, None));
        assert!(!growth.allows(now + QUARTER / 2, 0, 0, false));
        assert!(growth.allows(now + QUARTER, 0, 0, false));
        assert!(!growth.allows(now + QUARTER, 1, 1, false), "one at a time while failing");
    }
}

//! [`Meter`]: what happened in a [`Second`], as a line.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use spool_lock::{Mode, SpoolLocks};
use tokio::time::Instant;

use crate::{millis, server::Clients, streams::Heard, tally::Deeds};

/// Turns counters of the pool into what happened in a second.
pub(crate) struct Meter<'a> {
    locks: &'a SpoolLocks,
    last: Instant,
    active_seconds: f64,
}

/// One line.
pub(crate) struct Second {
    at: Duration,
    length: Duration,
    mode: Mode,
    pub(crate) deeds: Deeds,
    pub(crate) p95: Duration,
    active: u32,
    limit: u32,
    /// Mean of the second, active ÷ limit: what the alert looks at.
    utilisation: f64,
    waiting: u32,
    /// None while the server is away.
    pub(crate) clients: Option<Clients>,
    pub(crate) heard: Heard,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(locks: &'a SpoolLocks) -> Self {
        let active_seconds = locks.stats().pool.active_connection_seconds_total;
        Self { locks, last: Instant::now(), active_seconds }
    }

    pub(crate) fn second(
        &mut self,
        start: Instant,
        mut deeds: Deeds,
        heard: Heard,
        clients: Option<Clients>,
    ) -> Second {
        let (pool, now) = (self.locks.stats().pool, Instant::now());
        let length = now - self.last;
        let active_seconds = pool.active_connection_seconds_total - self.active_seconds;
        self.last = now;
        self.active_seconds = pool.active_connection_seconds_total;
        Second {
            at: now - start,
            length,
            mode: self.locks.mode(),
            p95: deeds.p95(),
            deeds,
            active: pool.report.active_connections,
            limit: pool.limit,
            utilisation: active_seconds / length.as_secs_f64() / f64::from(pool.limit.max(1)),
            waiting: pool.waiting,
            clients,
            heard,
        }
    }
}

impl Second {
    pub(crate) const HEADS: &str = "
                    | calls                                                | connections              | server            | event streams
  time  mode        | pairs/s contended/s refused/s unanswered errors  p95 | active  mean     waiting | clients  rejected | up   events/s  missed";
}

impl Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |count: u64| count as f64 / self.length.as_secs_f64();
        write!(
            f,
            "{:>4} s  {:<11} | {:>7.0} {:>11.0} {:>9.0} {:>10} {:>6} {:>4.0} | {:>3}/{:<3} {:>5.1} % {:>9} | ",
            self.at.as_secs_f64().round(),
            self.mode.as_str(),
            per_second(self.deeds.pairs),
            per_second(self.deeds.contended),
            per_second(self.deeds.refused + self.deeds.warming),
            self.deeds.unanswered,
            self.deeds.errors,
            millis(self.p95).ceil(),
            self.active,
            self.limit,
            self.utilisation * 100.0,
            self.waiting,
        )?;
        match self.clients {
            Some(clients) => {
                write!(f, "{:>4}/{:<3} {:>8}", clients.connected, clients.max, clients.rejected)?
            }
            None => write!(f, "{:>17}", "away")?,
        }
        let Heard { up, missed, .. } = self.heard;
        write!(f, " | {up:>3} {:>9.0} {missed:>7}", per_second(self.heard.events))
    }
}

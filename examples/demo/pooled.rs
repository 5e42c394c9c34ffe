//! [`Run`]: the workers and the event streams over the pool of the crate, with a line each second and a summary.

use std::{
    error::Error,
    fmt::{self, Display},
    net::SocketAddr,
    pin::pin,
    time::Duration,
};

use spool_lock::SpoolLocks;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use crate::{
    STREAMS, WORKERS,
    prometheus::{AlertState, alert_state},
    say,
    server::{Clients, Server},
    streams::{Heard, Streams},
    tally::Deeds,
    worker::Crew,
};

const SECOND: Duration = Duration::from_secs(1);
/// The heads of the columns are repeated after as many lines.
const PAGE: u64 = 20;
const HEADS: &str = "
                                       | connections                    | server            | event streams
  time  pairs/s contended errors  p95  | active  utilisation  waiting   | clients  rejected | up   events/s  missed";

/// What to run, and when it has been enough.
pub(crate) struct Run {
    pub(crate) locks: SpoolLocks,
    /// The alert that is to fire; the run ends when it does.
    pub(crate) alert: Option<Alert>,
    /// `None` goes on until Ctrl-C.
    pub(crate) longest: Option<Duration>,
}

/// An alert, and who knows of it.
pub(crate) struct Alert {
    pub(crate) prometheus: SocketAddr,
    pub(crate) name: &'static str,
}

impl Run {
    /// Shows it, and says whether it went as it should: the alert fired where there is one; nothing failed and the server
    /// turned nobody away where there is none.
    pub(crate) async fn show(self, server: &mut Server) -> Result<bool, Box<dyn Error>> {
        let first = server.clients().await?;
        let start = Instant::now();
        let mut end = pin!(end(self.longest)?);
        let mut ticks = interval_at(start + SECOND, SECOND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let streams = Streams::open(&self.locks).await?;
        let crew = Crew::start(&self.locks)?;
        let mut meter = Meter::new(&self.locks);
        let mut total = Total::default();
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                () = &mut end => break,
            }
            let clients = server.clients().await?;
            let second = meter.second(start, crew.look(), streams.look(), clients.since(first));
            if total.lines % PAGE == 0 {
                say(HEADS)?;
            }
            total.add(&second);
            match &self.alert {
                None => say(&second)?,
                Some(alert) => {
                    total.alert = alert_state(alert.prometheus, alert.name).await?;
                    say(format_args!("{second}  {}: {}", alert.name, total.alert))?;
                    if total.alert == AlertState::Firing {
                        break;
                    }
                }
            }
        }
        let last = crew.finish().await?;
        let clients = server.clients().await?;
        total.add(&meter.second(start, last, streams.look(), clients.since(first)));
        total.sum_up(&self, start.elapsed(), first.max)
    }
}

/// Ready when `longest` has passed, or on SIGINT or SIGTERM.
fn end(longest: Option<Duration>) -> std::io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        let enough = async {
            match longest {
                Some(longest) => sleep(longest).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = enough => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

impl Clients {
    fn since(self, first: Self) -> Self {
        Self { rejected: self.rejected.saturating_sub(first.rejected), ..self }
    }
}

/// Turns counters of the pool into what happened in a second.
struct Meter<'a> {
    locks: &'a SpoolLocks,
    last: Instant,
    active_seconds: f64,
}

/// One line.
struct Second {
    at: Duration,
    length: Duration,
    deeds: Deeds,
    p95: Duration,
    active: u32,
    limit: u32,
    /// Mean of the second, active ÷ limit: what the alert looks at.
    utilisation: f64,
    waiting: u32,
    clients: Clients,
    heard: Heard,
}

impl<'a> Meter<'a> {
    fn new(locks: &'a SpoolLocks) -> Self {
        let active_seconds = locks.stats().pool.active_connection_seconds_total;
        Self { locks, last: Instant::now(), active_seconds }
    }

    fn second(&mut self, start: Instant, mut deeds: Deeds, heard: Heard, clients: Clients) -> Second {
        let (pool, now) = (self.locks.stats().pool, Instant::now());
        let length = now - self.last;
        let active_seconds = pool.active_connection_seconds_total - self.active_seconds;
        self.last = now;
        self.active_seconds = pool.active_connection_seconds_total;
        Second {
            at: now - start,
            length,
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

impl Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_second = |count: u64| count as f64 / self.length.as_secs_f64();
        write!(
            f,
            "{:>4} s {:>8.0} {:>9.0} {:>6} {:>4.0} ms | {:>3}/{:<3} {:>9.1} % {:>8}   | {:>4}/{:<3} {:>8}  | {:>3} {:>9.0} {:>7}",
            self.at.as_secs_f64().round(),
            per_second(self.deeds.pairs),
            per_second(self.deeds.contended),
            self.deeds.errors,
            millis(self.p95).ceil(),
            self.active,
            self.limit,
            self.utilisation * 100.0,
            self.waiting,
            self.clients.connected,
            self.clients.max,
            self.clients.rejected,
            self.heard.up,
            per_second(self.heard.events),
            self.heard.missed,
        )
    }
}

/// All seconds together.
#[derive(Default)]
struct Total {
    lines: u64,
    pairs: u64,
    contended: u64,
    errors: u64,
    last_error: Option<String>,
    worst_p95: Duration,
    most_clients: u64,
    rejected: u64,
    heard: Heard,
    alert: AlertState,
}

impl Total {
    fn add(&mut self, second: &Second) {
        self.lines += 1;
        self.pairs += second.deeds.pairs;
        self.contended += second.deeds.contended;
        self.errors += second.deeds.errors;
        self.last_error = second.deeds.last_error.clone().or(self.last_error.take());
        self.worst_p95 = self.worst_p95.max(second.p95);
        self.most_clients = self.most_clients.max(second.clients.connected);
        self.rejected = second.clients.rejected;
        self.heard.up = second.heard.up;
        self.heard.events += second.heard.events;
        self.heard.missed += second.heard.missed;
    }

    /// Says what came of it, and whether it went as it should.
    fn sum_up(&self, run: &Run, length: Duration, max_clients: u64) -> Result<bool, Box<dyn Error>> {
        let Self { pairs, contended, errors, worst_p95, most_clients, rejected, heard, .. } = self;
        say(format_args!(
            "\nsummary: {WORKERS} workers, {:.0} s: {pairs} pairs, {contended} contended, {errors} errors, \
             p95 {:.1} ms in the worst second",
            length.as_secs_f64(),
            millis(*worst_p95),
        ))?;
        say(format_args!(
            "         the server had at most {most_clients} of {max_clients} clients and rejected {rejected}"
        ))?;
        say(format_args!(
            "         {} of {STREAMS} event streams stayed up, heard {} events and missed {}",
            heard.up, heard.events, heard.missed,
        ))?;
        if let Some(error) = &self.last_error {
            say(format_args!("         the last error: {error}"))?;
        }
        let (is_good, verdict) = match &run.alert {
            Some(alert) => (self.alert == AlertState::Firing, format!("{} is {}", alert.name, self.alert)),
            None if *errors > 0 => (false, "there were errors".to_owned()),
            None if *rejected > 0 => (false, "the server turned connections away".to_owned()),
            None if heard.up < STREAMS => (false, "event streams have ended".to_owned()),
            None if *pairs == 0 => (false, "nothing was done".to_owned()),
            None => (true, "no error, and the server turned nobody away".to_owned()),
        };
        say(format_args!("{}: {verdict}", if is_good { "good" } else { "NOT GOOD" }))?;
        Ok(is_good)
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

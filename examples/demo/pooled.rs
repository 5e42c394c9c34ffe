//! [`Run`]: the workers and the event streams over the pool of the crate, with a line each second and a summary.

use std::{error::Error, net::SocketAddr, pin::pin, time::Duration};

use spool_lock::{Config, SpoolLocks};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use crate::{
    ledger::Ledger,
    meter::{Meter, Second},
    outage::Outage,
    prometheus::Alerts,
    recovery::Recovery,
    say,
    server::{Clients, Server},
    strangers::Strangers,
    streams::Streams,
    total::Total,
    worker::Crew,
};

const SECOND: Duration = Duration::from_secs(1);
/// The heads of the columns are repeated after as many lines.
const PAGE: u64 = 20;

/// What to run, and when it has been enough.
pub(crate) struct Run {
    pub(crate) locks: SpoolLocks,
    /// The lease source of the locks.
    pub(crate) ledger: Ledger,
    /// Set where the server comes back without its data, and strangers with it: how they connect.
    pub(crate) strangers: Option<Config>,
    /// Who knows of alerts.
    pub(crate) prometheus: Option<SocketAddr>,
    /// The alert that is to fire; the run ends when it does.
    pub(crate) awaited: Option<&'static str>,
    /// `None` goes on until Ctrl-C.
    pub(crate) longest: Option<Duration>,
}

impl Run {
    /// Shows it, and says whether it went as it should: the alert fired where one is awaited; nothing failed but what an outage of
    /// the server explains, nothing was lost and the server turned nobody away where none is.
    pub(crate) async fn show(self, server: &mut Server) -> Result<bool, Box<dyn Error>> {
        let first = server.look().await?;
        let start = Instant::now();
        let mut end = pin!(end(self.longest)?);
        let mut ticks = interval_at(start + SECOND, SECOND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let outage = Outage::witnessed(server.address);
        let streams = Streams::open(&self.locks, &outage).await?;
        let recovery = Recovery::witnessed(&self.locks, &self.ledger, &outage).await?;
        let is_emptied = self.strangers.is_some();
        let strangers =
            self.strangers.map(|config| Strangers::expected(config, &self.ledger, &outage)).transpose()?;
        let crew = Crew::start(&self.locks, &self.ledger, &outage)?;
        let mut meter = Meter::new(&self.locks);
        let (mut total, mut alerts) = (Total::default(), Alerts::default());
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                () = &mut end => break,
            }
            let clients = server.look().await.ok().map(|clients| clients.since(first));
            let second = meter.second(start, crew.look(), streams.look(), clients);
            if total.seconds % PAGE == 0 {
                say(Second::HEADS)?;
            }
            total.add(&second);
            say(&second)?;
            if let Some(prometheus) = self.prometheus {
                let now = Alerts::ask(prometheus).await?;
                if now != alerts {
                    say(format_args!("        alerts: {now}"))?;
                    alerts = now;
                }
            }
            if self.awaited.is_some_and(|name| alerts.is_firing(name)) {
                break;
            }
        }
        let last = crew.finish().await?;
        let answers = match strangers {
            Some(strangers) => strangers.finish().await?,
            None => None,
        };
        let clients = server.look().await.ok().map(|clients| clients.since(first));
        total.add(&meter.second(start, last, streams.look(), clients));
        total.sum_up(start.elapsed(), first.max)?;
        if outage.has_begun() {
            total.tell(&outage)?;
            recovery.sum_up()?;
        }
        if let Some(answers) = &answers {
            answers.sum_up()?;
        }
        let left = self.locks.list().await?.value.len();
        // What the others follow from comes first.
        let complaint = answers
            .and_then(|answers| answers.complaint())
            .or_else(|| recovery.complaint(is_emptied))
            .or_else(|| total.complaint(&outage, left));
        let (is_good, verdict) = match (self.awaited, complaint) {
            (Some(name), _) if alerts.is_firing(name) => (true, format!("{name} is FIRING")),
            (Some(name), _) => (false, format!("{name} is not firing")),
            (None, Some(complaint)) => (false, complaint.to_owned()),
            (None, None) if outage.has_begun() => (true, "nothing was lost, and all is as before".to_owned()),
            (None, None) => (true, "no error, and the server turned nobody away".to_owned()),
        };
        say(format_args!("{}: {verdict}", if is_good { "good" } else { "NOT GOOD" }))?;
        Ok(is_good)
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

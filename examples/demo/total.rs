//! [`Total`]: all seconds of a run together, and what is to be said of it.

use std::{
    fmt::{self, Display},
    io,
    time::Duration,
};

use crate::{STREAMS, WORKERS, meter::Second, millis, outage::Outage, say, streams::Heard};

/// All seconds together.
#[derive(Default)]
pub(crate) struct Total {
    pub(crate) seconds: u64,
    pairs: u64,
    contended: u64,
    refused: u64,
    warming: u64,
    unanswered: u64,
    stood: u64,
    lost: u64,
    stuck: u64,
    errors: u64,
    last_error: Option<String>,
    longest_call: Duration,
    worst_p95: Duration,
    most_clients: u64,
    rejected: u64,
    heard: Heard,
}

impl Total {
    pub(crate) fn add(&mut self, second: &Second) {
        let deeds = &second.deeds;
        self.seconds += 1;
        self.pairs += deeds.pairs;
        self.contended += deeds.contended;
        self.refused += deeds.refused;
        self.warming += deeds.warming;
        self.unanswered += deeds.unanswered;
        self.stood += deeds.stood;
        self.lost += deeds.lost;
        self.stuck += deeds.stuck;
        self.errors += deeds.errors;
        self.last_error = deeds.last_error.clone().or(self.last_error.take());
        self.longest_call = self.longest_call.max(deeds.longest());
        self.worst_p95 = self.worst_p95.max(second.p95);
        if let Some(clients) = second.clients {
            self.most_clients = self.most_clients.max(clients.connected);
            self.rejected = clients.rejected;
        }
        self.heard = Heard {
            events: self.heard.events + second.heard.events,
            missed: self.heard.missed + second.heard.missed,
            ..second.heard
        };
    }

    /// Says what came of it.
    pub(crate) fn sum_up(&self, length: Duration, max_clients: u64) -> io::Result<()> {
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
            say(format_args!("         the last that went wrong: {error}"))?;
        }
        Ok(())
    }

    /// Says what became of the calls while the server was away.
    pub(crate) fn tell(&self, outage: &Outage) -> io::Result<()> {
        let Self { refused, warming, unanswered, stood, lost, heard, .. } = self;
        say(format_args!("outage:  calls were refused at once after {}", Told(outage.noticed_after())))?;
        say(format_args!("         redis was back after {}", Told(outage.length())))?;
        say(format_args!(
            "         the first acquire was answered after another {}",
            Told(outage.recovered_after())
        ))?;
        say(format_args!(
            "         {unanswered} calls had no answer, {refused} were refused at once; the longest call took {}",
            Told(Some(self.longest_call)),
        ))?;
        if *warming > 0 {
            say(format_args!(
                "         {warming} were told to wait, because redis had just been started and knew nothing of the spool"
            ))?;
        }
        say(format_args!(
            "         {stood} leases were held all the while and stood when redis was back, {lost} leases were lost"
        ))?;
        say(format_args!("         {} of {STREAMS} event streams have heard something since", heard.up_again))
    }

    /// What did not go as it should; `left`: leases that nobody gave back.
    pub(crate) fn complaint(&self, outage: &Outage, left: usize) -> Option<&'static str> {
        let complaints = [
            (self.errors > 0, "there were errors"),
            (self.rejected > 0, "the server turned connections away"),
            (self.heard.up < STREAMS, "event streams have ended"),
            (self.pairs == 0, "nothing was done"),
            (self.lost > 0, "leases were lost"),
            (self.stuck > 0, "workers cannot give back what they have"),
            (left > 0, "leases are left that nobody has"),
            (!outage.has_begun() && self.refused + self.unanswered > 0, "calls had no answer"),
            (
                outage.has_begun() && outage.recovered_after().is_none(),
                "no acquire was answered after the outage",
            ),
            (
                outage.has_begun() && self.heard.up_again < STREAMS,
                "event streams are silent after the outage",
            ),
        ];
        complaints.into_iter().find_map(|(is_so, complaint)| is_so.then_some(complaint))
    }
}

/// How long something took that may not have happened.
pub(crate) struct Told(pub(crate) Option<Duration>);

impl Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) if time < Duration::from_secs(1) => write!(f, "{:.0} ms", millis(time)),
            Some(time) => write!(f, "{:.1} s", time.as_secs_f64()),
            None => f.write_str("(never)"),
        }
    }
}

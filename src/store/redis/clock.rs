//! [`ServerClock`]: what the server's clock shows, estimated from its replies.
//!
//! A reply with the server's time `t`, to a command that was sent at `s` and answered at `r` on our monotonic clock, says that
//! server time − our time lies in [t − r, t − s]. The upper end of the narrowest such span is kept: at any moment the estimate
//! is not earlier than the server's clock, and later by one way through the network at most. A span that lies wholly above
//! the kept end means that the server's clock went forward; one that lies below it pulls the end down, also after a step back.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct ServerClock {
    origin: Instant,
    /// Server time − time since `origin`, in µs, at most.
    offset: AtomicI64,
}

impl ServerClock {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), offset: AtomicI64::new(0) }
    }

    pub(super) fn observe(&self, sent: Instant, received: Instant, server_micros: u64) {
        let server = i64::try_from(server_micros).unwrap_or(i64::MAX);
        let lowest = server.saturating_sub(self.micros(received));
        let highest = server.saturating_sub(self.micros(sent));
        let narrowed = |kept: i64| {
            Some(if kept < lowest { highest } else { kept.min(highest) }).filter(|&new| new != kept)
        };
        // Nothing to store is the usual case.
        let _ = self.offset.fetch_update(Relaxed, Relaxed, narrowed);
    }

    /// What the server's clock shows at `instant` at the latest, in µs since 1970.
    pub(super) fn at(&self, instant: Instant) -> u64 {
        let server = self.offset.load(Relaxed).saturating_add(self.micros(instant));
        u64::try_from(server).unwrap_or(0)
    }

    fn micros(&self, instant: Instant) -> i64 {
        match instant.checked_duration_since(self.origin) {
            Some(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            None => -i64::try_from((self.origin - instant).as_micros()).unwrap_or(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn estimate_is_never_early_and_follows_a_step() {
        let clock = ServerClock::new();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let server = |millis: u64| 1_000_000_000 + millis * 1000;

        clock.observe(at(0), at(20), server(5));
        assert_eq!(clock.at(at(20)), server(25), "5 ms late at most");
        clock.observe(at(30), at(32), server(31));
        assert_eq!(clock.at(at(40)), server(41), "a quicker reply narrows it");
        clock.observe(at(50), at(90), server(60));
        assert_eq!(clock.at(at(100)), server(101), "a slower one does not widen it");

        clock.observe(at(110), at(112), server(111 + 3_600_000));
        assert_eq!(clock.at(at(112)), server(113 + 3_600_000), "an hour forward");
        clock.observe(at(120), at(122), server(121));
        assert_eq!(clock.at(at(122)), server(123), "and back");
    }
}

//! Times for people: in UTC, with how far away they are.

use std::time::{Duration, SystemTime};

/// `2026-02-02T11:05:00Z (3m 20s ago)`, or `(in 3m 20s)`.
pub(super) fn moment(at: SystemTime, now: SystemTime) -> String {
    let distance = match now.duration_since(at) {
        Ok(past) => format!("{} ago", span(past)),
        Err(ahead) => format!("in {}", span(ahead.duration())),
    };
    format!("{} ({distance})", humantime::format_rfc3339_seconds(at))
}

/// What is left until then; zero where it is over.
pub(super) fn left(until: SystemTime, now: SystemTime) -> Duration {
    until.duration_since(now).unwrap_or_default()
}

/// `1h 2m 3s`; milliseconds only where there is less than a second.
pub(super) fn span(duration: Duration) -> String {
    let rounded = match duration.as_secs() {
        0 => Duration::from_millis(u64::from(duration.subsec_millis())),
        seconds => Duration::from_secs(seconds),
    };
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_utc_and_says_how_far_away_it_is() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_770_030_300_000);
        let now = at + Duration::from_millis(200_900);
        assert_eq!(moment(at, now), "2026-02-02T11:05:00Z (3m 20s ago)");
        assert_eq!(moment(now, at), "2026-02-02T11:08:20Z (in 3m 20s)");
        assert_eq!(span(Duration::from_micros(1_900)), "1ms");
        assert_eq!((left(at, now), left(now, at)), (Duration::ZERO, Duration::from_millis(200_900)));
    }
}
